//! One queue's pulls: where to start, one long poll after the other, back-off when a broker fails.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mezzo_protocol::ids::QueueOffset;
use mezzo_protocol::message::record::{MessageView, decode_delivered};
use mezzo_protocol::message::tag::EXPRESSION_TYPE_TAG;
use mezzo_protocol::remoting::header::pull_message::{PullMessageHeader, PullMessageReply, PullSysFlag};
use mezzo_protocol::remoting::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::Instant;

use super::dispatch::{Job, Work};
use super::held_queue::HeldQueue;
use super::member::GroupMember;
use super::send_back::BackReference;
use super::subscription::Subscription;
use crate::clock::random_seed;
use crate::core::backoff::Backoff;
use crate::core::route::MASTER_ID;
use crate::error::{Error, RequestError};
use crate::message::ReceivedMessage;
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
    let mut backoff = Backoff::new(member.config.pull_backoff, random_seed());
    loop {
        match member.start_of(&held.queue).await {
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
            Err(error) => pause_after(held, &mut backoff, &error.into()).await,
        }
    }
    backoff.reset();
    loop {
        let from = held.room().await;
        let started = Instant::now();
        let pulled = match pull(member, held, subscription, from).await {
            Ok(reply) => take_in(member, held, subscription, from, &reply).map_err(Error::from),
            Err(error) => Err(error),
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
    member: &Arc<GroupMember>,
    held: &Arc<HeldQueue>,
    subscription: &Subscription,
    from: QueueOffset,
    reply: &Reply,
) -> Result<Pulled, RequestError> {
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
        held.reset(next);
        return Ok(if next == from { Pulled::Nothing } else { Pulled::Progress });
    }
    let mut jobs = Vec::new();
    let mut broken = None;
    let mut behind = from;
    held.take_in(if found { from } else { next }, |accept| {
        if !found {
            return;
        }
        for view in decode_delivered(reply.body()) {
            match view {
                Ok(view) => {
                    behind = behind.max(view.queue_offset().next());
                    if subscription.filter.matches_tag(view.tags())
                        && accept(view.queue_offset(), view.body().len())
                    {
                        jobs.push(job(held, reply.body(), &view));
                    }
                }
                Err(reason) => {
                    broken = Some(reason);
                    return;
                }
            }
        }
    });
    let taken = jobs.len();
    member.jobs.push(jobs);
    if let Some(reason) = broken {
        // What came before the damage is taken in; the next pull asks for the rest again.
        held.take_in(behind, |_| {});
        return Err(reply.unreadable(reason));
    }
    if found {
        held.take_in(next.max(behind), |_| {});
    }
    Ok(if taken > 0 || next != from { Pulled::Progress } else { Pulled::Nothing })
}

fn job(held: &Arc<HeldQueue>, body: &Bytes, view: &MessageView<'_>) -> Job {
    let work = match ReceivedMessage::from_record(body, view, &held.queue.topic, &held.queue.broker_name) {
        Ok(message) => Work::Handle(Box::new(message)),
        Err(error) => {
            let message_id =
                view.unique_key().map_or_else(|| view.offset_message_id().encode(), str::to_owned);
            tracing::error!(queue = %held.queue, message_id, %error, "a message cannot be read; giving it back");
            let physical_offset = view.physical_offset();
            Work::GiveBack(BackReference { physical_offset, message_id, topic: held.queue.topic.clone() })
        }
    };
    Job { held: Arc::clone(held), offset: view.queue_offset(), epoch: held.epoch(), work }
}
