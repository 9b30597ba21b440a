//! One queue's pulls: where to start, one long poll after the other, back-off when a broker fails.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::ids::QueueOffset;
use mezzo_protocol::message::tag::EXPRESSION_TYPE_TAG;
use mezzo_protocol::remoting::header::pull_message::{PullMessageHeader, PullSysFlag};
use mezzo_protocol::remoting::{RemotingCommand, RequestCode};
use tokio::time::Instant;

use super::held_queue::HeldQueue;
use super::member::GroupMember;
use super::pulled::{Pulled, take_in};
use super::subscription::Subscription;
use crate::clock::random_seed;
use crate::core::backoff::Backoff;
use crate::core::route::MASTER_ID;
use crate::error::{Error, RequestError};
use crate::net::{Deadline, Patience, Reply};

/// After the first failure in a row, every so many are told as loudly: a queue must not stand still without a word.
const TELL_EVERY: u32 = 20;

/// Pulls of a record that cannot be read, before it is passed over: it may have been damaged on its way, or in one
/// replica only.
const DAMAGED_PULLS: u32 = 4;

/// Pulls until the queue is taken away or the consumer stops.
pub(super) async fn run(member: Arc<GroupMember>, held: Arc<HeldQueue>) {
    let dropped = held.dropped.clone();
    tokio::select! {
        biased;
        () = dropped.cancelled() => {}
        () = pull_all(&member, &held) => {}
    }
    tracing::debug!(queue = %held.queue, unfinished = held.unfinished(), "pulls ended");
}

async fn pull_all(member: &Arc<GroupMember>, held: &Arc<HeldQueue>) {
    let Some(subscription) = member.subscriptions.get(&held.queue.topic) else { return };
    if member.leases() {
        member.claim(held).await;
    } else {
        begin(member, held).await;
    }
    let mut backoff = Backoff::new(member.config.pull_backoff, random_seed());
    let mut damaged = 0;
    loop {
        let mut moved = pin!(held.moved.notified());
        moved.as_mut().enable();
        let point = held.room().await;
        let started = Instant::now();
        // A record that cannot be read is asked for alone: the answer tells then where the next one is.
        let messages_max = if damaged > 0 { 1 } else { member.config.pull_messages_max };
        let pulled = tokio::select! {
            // What this pull brings would not count any more.
            () = moved => continue,
            pulled = pull(member, held, subscription, point.from, messages_max) => pulled,
        };
        let pulled = pulled.and_then(|reply| Ok(take_in(member, held, subscription, point, &reply)?));
        damaged = match &pulled {
            Ok(Pulled::Damaged { .. }) => damaged + 1,
            Ok(_) => 0,
            Err(_) => damaged,
        };
        match pulled {
            Ok(Pulled::Progress) => backoff.reset(),
            Ok(Pulled::Nothing) => {
                backoff.reset();
                let pause = Duration::from_millis(member.config.empty_pull_pause_ms);
                if started.elapsed() < pause {
                    tokio::time::sleep(pause).await;
                }
            }
            Ok(Pulled::Damaged { reason, behind }) if damaged >= DAMAGED_PULLS => {
                tracing::error!(
                    group = %member.group, queue = %held.queue, offset = %point.from, %behind, error = %reason,
                    "a record cannot be read and is passed over: its message is lost to this group"
                );
                held.take_in(point.epoch, behind, Vec::new());
                damaged = 0;
                backoff.reset();
            }
            Ok(Pulled::Damaged { reason, .. }) => {
                held.suggest(MASTER_ID);
                pause_after(held, &mut backoff, &reason.into()).await;
            }
            Err(error) => pause_after(held, &mut backoff, &error).await,
        }
    }
}

/// Waits until the queue may be pulled, and finds out from where.
async fn begin(member: &Arc<GroupMember>, held: &Arc<HeldQueue>) {
    if member.ordered {
        member.wait_for_earlier(held).await;
    }
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
}

async fn pause_after(held: &HeldQueue, backoff: &mut Backoff, error: &Error) {
    let delay_ms = backoff.next_delay_ms();
    let failures = backoff.failures();
    if failures == 1 || failures.is_multiple_of(TELL_EVERY) {
        tracing::warn!(queue = %held.queue, %error, delay_ms, failures, "a pull failed");
    } else {
        tracing::debug!(queue = %held.queue, %error, delay_ms, failures, "a pull failed again");
    }
    tokio::time::sleep(Duration::from_millis(delay_ms)).await;
}

/// One long poll.
async fn pull(
    member: &GroupMember,
    held: &HeldQueue,
    subscription: &Subscription,
    from: QueueOffset,
    messages_max: u32,
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
        max_messages: i32::try_from(messages_max.max(1)).unwrap_or(i32::MAX),
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
