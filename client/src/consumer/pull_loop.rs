//! One queue's pulls: where to start, one long poll after the other, back-off when a broker fails.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::ids::QueueOffset;
use mezzo_protocol::message::record::decode_delivered;
use mezzo_protocol::message::tag::EXPRESSION_TYPE_TAG;
use mezzo_protocol::remoting::header::pull_message::{PullMessageHeader, PullMessageReply, PullSysFlag};
use mezzo_protocol::remoting::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::Instant;

use super::held_queue::{HeldQueue, PullPoint};
use super::job::Taken;
use super::member::GroupMember;
use super::subscription::Subscription;
use crate::clock::random_seed;
use crate::core::backoff::Backoff;
use crate::core::route::MASTER_ID;
use crate::error::{Error, RequestError};
use crate::net::{Deadline, Patience, Reply};

/// What a pull came to.
#[derive(Debug, PartialEq, Eq)]
enum Pulled {
    /// The next pull is further on, or finds what is new.
    Progress,
    /// Nothing new, and the broker may not have waited.
    Nothing,
}

/// Pulls until the queue is taken away or the consumer stops.
pub(super) async fn run(member: Arc<GroupMember>, held: Arc<HeldQueue>) {
    let dropped = held.dropped.clone();
    tokio::select! {
        () = dropped.cancelled() => {}
        () = pull_all(&member, &held) => {}
    }
    tracing::debug!(queue = %held.queue, unfinished = held.unfinished(), "pulls ended");
}

async fn pull_all(member: &Arc<GroupMember>, held: &Arc<HeldQueue>) {
    let Some(subscription) = member.subscriptions.get(&held.queue.topic) else { return };
    if member.locks() {
        member.acquire(held).await;
    }
    let mut backoff = Backoff::new(member.config.pull_backoff, random_seed());
    loop {
        let shared = member.shared();
        let start = match shared.subscribe_route(&held.queue.topic, shared.request_deadline()).await {
            Ok(_) => member.start_of(&held.queue).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        match start {
            Ok(start) => {
                held.begin(start.offset, start.committed);
                tracing::debug!(queue = %held.queue, ?start, "pulls begin");
                if !start.committed {
                    // A crash before the first regular commit must not move the start: what arrived meanwhile would
                    // be passed over by a group that starts with the last message.
                    member.commit(held).await;
                }
                break;
            }
            Err(error) => pause_after(held, &mut backoff, &error).await,
        }
    }
    backoff.reset();
    loop {
        let mut moved = pin!(held.moved.notified());
        moved.as_mut().enable();
        let point = held.room().await;
        let started = Instant::now();
        let pulled = tokio::select! {
            // What this pull brings would not count any more.
            () = moved => continue,
            pulled = pull(member, held, subscription, point.from) => pulled,
        };
        let pulled = pulled.and_then(|reply| Ok(take_in(member, held, subscription, point, &reply)?));
        match pulled {
            Ok(Pulled::Progress) => backoff.reset(),
            Ok(Pulled::Nothing) => {
                backoff.reset();
                let pause = Duration::from_millis(member.config.empty_pull_pause_ms);
                if started.elapsed() < pause {
                    tokio::time::sleep(pause).await;
                }
            }
            Err(error) => pause_after(held, &mut backoff, &error).await,
        }
    }
}

async fn pause_after(held: &HeldQueue, backoff: &mut Backoff, error: &Error) {
    let delay_ms = backoff.next_delay_ms();
    if backoff.failures() == 1 {
        tracing::warn!(queue = %held.queue, %error, delay_ms, "a pull failed");
    } else {
        tracing::debug!(queue = %held.queue, %error, delay_ms, failures = backoff.failures(), "a pull failed again");
    }
    tokio::time::sleep(Duration::from_millis(delay_ms)).await;
}

/// One long poll.
async fn pull(
    member: &GroupMember,
    held: &HeldQueue,
    subscription: &Subscription,
    from: QueueOffset,
) -> Result<Reply, Error> {
    let config = &member.config;
    let shared = member.shared();
    let queue = &held.queue;
    let deadline = Deadline::after_ms(config.pull_suspend_ms.saturating_add(config.pull_grace_ms));
    let route = shared.subscribe_route(&queue.topic, shared.request_deadline()).await?;
    let address = route.readable(&queue.broker_name, held.pull_from()).cloned();
    let address = address.ok_or_else(|| Error::NoRoute { topic: queue.topic.clone() })?;
    let header = PullMessageHeader {
        consumer_group: member.group.as_str().into(),
        topic: queue.topic.as_str().into(),
        queue_id: queue.queue_id,
        queue_offset: from.as_wire(),
        max_messages: i32::try_from(config.pull_messages_max.max(1)).unwrap_or(i32::MAX),
        sys_flag: PullSysFlag::SUSPEND.with(PullSysFlag::SUBSCRIPTION),
        commit_offset: 0,
        suspend_timeout_ms: i64::try_from(config.pull_suspend_ms).unwrap_or(i64::MAX),
        subscription: Some(subscription.expression.as_str().into()),
        sub_version: subscription.version,
        expression_type: Some(EXPRESSION_TYPE_TAG.into()),
        max_bytes: None,
    };
    let command = RemotingCommand::request(RequestCode::PULL_MESSAGE, header.encode(), Vec::new());
    let reply = shared.request(&address, Patience::FailFast, command, deadline).await;
    if reply.is_err() {
        // The suggested replica may be what failed: the master is asked until it suggests one again.
        held.suggest(MASTER_ID);
    }
    if matches!(reply, Err(RequestError::Unreachable { .. })) {
        shared.suspect_route(&queue.topic);
    }
    Ok(reply?)
}

/// Does what the answer says.
fn take_in(
    member: &GroupMember,
    held: &Arc<HeldQueue>,
    subscription: &Subscription,
    point: PullPoint,
    reply: &Reply,
) -> Result<Pulled, RequestError> {
    let PullPoint { from, epoch } = point;
    let header = reply.header()?;
    let code = header.response_code();
    let found = code == ResponseCode::SUCCESS;
    let nothing = [ResponseCode::PULL_NOT_FOUND, ResponseCode::PULL_RETRY_IMMEDIATELY].contains(&code);
    let moved = code == ResponseCode::PULL_OFFSET_MOVED;
    if !(found || nothing || moved) {
        return Err(reply.refusal(&header));
    }
    let answer = PullMessageReply::decode(&header.ext).map_err(|reason| reply.unreadable(reason))?;
    held.suggest(answer.suggest_broker_id);
    let next = QueueOffset::from_wire(answer.next_begin_offset).unwrap_or(from);
    if moved {
        tracing::warn!(queue = %held.queue, %from, %next, "the queue continues elsewhere");
        held.reset_in(epoch, next);
        return Ok(if next == from { Pulled::Nothing } else { Pulled::Progress });
    }
    let mut messages = Vec::new();
    let mut broken = None;
    let mut behind = from;
    if found {
        for view in decode_delivered(reply.body()) {
            match view {
                Ok(view) => {
                    behind = behind.max(view.queue_offset().next());
                    if subscription.filter.matches_tag(view.tags()) {
                        messages.push(Taken::new(reply.body(), &view, epoch));
                    }
                }
                Err(reason) => {
                    broken = Some(reason);
                    break;
                }
            }
        }
    }
    // What came before a damage is taken in; the next pull asks for the rest again.
    let end = if broken.is_some() { behind } else { next.max(behind) };
    if let Some(metrics) = member.shared().metrics.as_ref().filter(|_| !messages.is_empty()) {
        metrics.prefetched(&held.queue, messages.len(), messages.iter().map(Taken::bytes).sum());
    }
    let (due, new) = held.take_in(epoch, end, messages);
    member.hand_out(held, due);
    match broken {
        Some(reason) => Err(reply.unreadable(reason)),
        None => Ok(if new > 0 || next != from { Pulled::Progress } else { Pulled::Nothing }),
    }
}
