//! The verdict on a send whose key is known already.

use std::{sync::Arc, time::Duration};

use mezzo_protocol::ids::PhysicalOffset;
use mezzo_storage::{DedupRule, FirstAnswer, FirstSend, SendKey, SenderId};

use super::senders::{Knocked, Senders};
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
    let patience = services.config.dedup.answer_timeout;
    let mut door = Door { senders: &services.senders, patience, knocked: None };
    for (key, explicit, first) in &candidate.firsts {
        if !explicit && !is_lost(services, &mut door, *key, first).await {
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

/// Where the connection of the first sends is knocked at: once, however many messages a batch has.
struct Door<'a> {
    senders: &'a Senders,
    patience: Duration,
    knocked: Option<(SenderId, Knocked)>,
}

impl Door<'_> {
    /// What came of knocking; `None` for another connection than the one before: parts of a batch came by one.
    async fn knock(&mut self, sender: SenderId) -> Option<Knocked> {
        match self.knocked {
            Some((before, knocked)) => (before == sender).then_some(knocked),
            None => {
                let knocked = self.senders.knock(sender, self.patience).await;
                self.knocked = Some((sender, knocked));
                Some(knocked)
            }
        }
    }
}

/// Whether the answer to `first` may have reached nobody.
async fn is_lost(services: &Services, door: &mut Door<'_>, key: SendKey, first: &FirstSend) -> bool {
    let Some(sender) = first.sender else { return true };
    match door.knock(sender).await {
        None => return false,
        // not answered for as long as a client waits, or not able to read an answer
        Some(Knocked::Silent) => return true,
        Some(Knocked::Lives | Knocked::Gone) => {}
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

#[cfg(test)]
mod tests {
    use super::super::senders::{OwnSends, tests::sends};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_answer_is_waited_for_once_whatever_a_batch_has() {
        let senders = Arc::new(Senders::default());
        let mut own = OwnSends::new(7, &sends(), &senders);
        own.open_door();
        let patience = Duration::from_secs(3);
        let mut door = Door { senders: &senders, patience, knocked: None };
        let begun = tokio::time::Instant::now();
        for _ in 0..1_000 {
            assert_eq!(door.knock(own.id()).await, Some(Knocked::Silent));
        }
        assert!(begun.elapsed() < 2 * patience);
        assert_eq!(door.knock(SenderId::of(8)).await, None, "no part of the same batch");
    }
}
