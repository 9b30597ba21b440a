//! What a pull's answer means for its queue.

use std::sync::Arc;

use mezzo_protocol::ids::QueueOffset;
use mezzo_protocol::message::record::decode_delivered;
use mezzo_protocol::remoting::ResponseCode;
use mezzo_protocol::remoting::header::pull_message::PullMessageReply;

use super::held_queue::{HeldQueue, PullPoint};
use super::job::Taken;
use super::member::GroupMember;
use super::subscription::Subscription;
use crate::error::RequestError;
use crate::net::Reply;

/// What a pull came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pulled {
    /// The next pull is further on.
    Progress,
    /// Nothing new, and the broker may not have waited.
    Nothing,
    /// The first record cannot be read.
    Damaged {
        /// What is wrong with it.
        reason: RequestError,
        /// Where the broker goes on behind what it sent.
        behind: QueueOffset,
    },
}

/// Takes in what the answer brings.
pub(super) fn take_in(
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
        member.recall(held);
        // Two places that each point to the other must not be asked in turn without a pause.
        return Ok(Pulled::Nothing);
    }
    let mut views = Vec::new();
    let mut broken = None;
    let mut behind = from;
    if found {
        for view in decode_delivered(reply.body()) {
            match view {
                Ok(view) => {
                    behind = behind.max(view.queue_offset().next());
                    if subscription.filter.matches_tag(view.tags()) {
                        views.push(view);
                    }
                }
                Err(reason) => {
                    broken = Some(reason);
                    break;
                }
            }
        }
    }
    // What came before a damage is taken in; the next pull begins with the rest.
    let end = if broken.is_some() { behind } else { next.max(behind) };
    let messages = Taken::copies(&views, epoch);
    if let Some(metrics) = member.shared().metrics.as_ref().filter(|_| !messages.is_empty()) {
        metrics.prefetched(&held.queue, messages.len(), messages.iter().map(Taken::bytes).sum());
    }
    let handing_out = held.handing_out();
    let (due, new) = held.take_in(epoch, end, messages);
    member.hand_out(held, due);
    drop(handing_out);
    match broken {
        Some(reason) if behind == from => {
            Ok(Pulled::Damaged { reason: reply.unreadable(reason), behind: next.max(from.next()) })
        }
        // A broker that points backwards makes no progress: what lies there was pulled before.
        _ => Ok(if new > 0 || end > from { Pulled::Progress } else { Pulled::Nothing }),
    }
}
