//! The verdict on a send whose key is known already.

use std::sync::Arc;

use mezzo_protocol::ids::PhysicalOffset;
use mezzo_storage::{DedupRule, FirstAnswer, FirstSend, SendKey, SenderId};

use super::senders::Knocked;
use crate::service::{
    Services,
    append::{AppendError, LimitWaiter},
};

/// A send that is a repeat if all of its messages are: a message alone, or a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// What its topic asks for.
    pub(crate) rule: DedupRule,
    /// Of each message: its key, whether the producer named it itself, and the first send of that key.
    pub(crate) firsts: Vec<(SendKey, bool, FirstSend)>,
    /// What the answer names as `transactionId`.
    pub(crate) unique_key: Option<String>,
}

/// What a send with a known key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A repeat; of each message what the first one was answered with.
    Repeat(Vec<FirstAnswer>),
    /// A new message.
    New,
}

/// Decides; waits for another connection to look at its socket (`dedup.answer_timeout` at most) and for the first one to
/// come within the limit.
///
/// # Errors
/// [`AppendError::Fenced`]: the store gave up meanwhile.
pub(crate) async fn settle(
    services: &Arc<Services>,
    waiter: &mut LimitWaiter,
    candidate: &Candidate,
) -> Result<Verdict, AppendError> {
    for (key, explicit, first) in &candidate.firsts {
        if !explicit && !is_lost(services, *key, first).await {
            return Ok(Verdict::New);
        }
    }
    let mut answers: Vec<FirstAnswer> = Vec::with_capacity(candidate.firsts.len());
    let mut last = None;
    for (key, _, first) in &candidate.firsts {
        waiter.wait_for(PhysicalOffset(first.position.0 + 1)).await?;
        let Some(answer) = read(services, *key, first.position, candidate.rule).await else {
            return Ok(Verdict::New);
        };
        // of a batch before a restart its size is not known, but its messages followed each other in one queue
        let follows = last.is_none_or(|last| last < first.position);
        if !follows || answers.first().is_some_and(|begun| begun.queue != answer.queue) {
            return Ok(Verdict::New);
        }
        last = Some(first.position);
        answers.push(answer);
    }
    Ok(Verdict::Repeat(answers))
}

/// Whether the answer to `first` may have reached nobody.
async fn is_lost(services: &Services, key: SendKey, first: &FirstSend) -> bool {
    let Some(sender) = first.sender else { return true };
    let patience = services.config.dedup.answer_timeout;
    let knocked: Knocked = services.senders.knock(sender, patience).await;
    if knocked == Knocked::Silent {
        // not answered for as long as a client waits, or not able to read an answer
        return true;
    }
    let now: Option<(PhysicalOffset, Option<SenderId>)> =
        services.store.first_sends().find(key, services.now()).map(|now| (now.position, now.sender));
    now == Some((first.position, None))
}

/// What the log says. What cannot be read is no proof: the message is stored again rather than lost.
async fn read(
    services: &Arc<Services>,
    key: SendKey,
    position: PhysicalOffset,
    rule: DedupRule,
) -> Option<FirstAnswer> {
    let found = if services.store.is_hot_at(position) {
        services.store.first_answer(position, key, rule)
    } else {
        let reading = Arc::clone(services);
        let reading = services.on_disk_thread(move || reading.store.first_answer(position, key, rule));
        match reading.await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "looking for the first of two equal sends failed");
                return None;
            }
        }
    };
    found.unwrap_or_else(|error| {
        tracing::warn!(%error, position = position.0, "the first of two equal sends cannot be read: the second is stored, too");
        None
    })
}
