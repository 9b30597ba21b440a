//! Pulls and offsets.

use std::time::Duration;

use mezzo_protocol::message::tag::{TagFilter, tag_hash};
use mezzo_protocol::remoting::{RemotingCommand, RequestCode};
use tokio::time::Instant;

use super::broker::{Peer, Shared, field, number, queue_of};
use super::messages::Stored;
use super::words::{Release, Words};

/// Most messages of one pull (`maxTransferCountOnMessageInMemory`).
const PULL_MAX: usize = 32;
/// Set in a pull that may be held.
const SUSPEND: i64 = 2;

impl Shared {
    pub(super) async fn pull(&self, peer: &Peer, request: &RemotingCommand) {
        let mut arrivals = self.arrivals.subscribe();
        let held = number(request, "sysFlag") & SUSPEND != 0 && !peer.of_slave;
        let wait_ms = if held { number(request, "suspendTimeoutMillis") } else { 0 };
        let end = Instant::now() + Duration::from_millis(wait_ms.unsigned_abs());
        loop {
            let answer = self.pulled(peer, request);
            let waiting = answer.code == 19 && Instant::now() < end;
            if !waiting {
                return self.say(&peer.writer, &answer);
            }
            let _ = tokio::time::timeout_at(end, arrivals.changed()).await;
        }
    }

    fn pulled(&self, peer: &Peer, request: &RemotingCommand) -> Words {
        let (queue, state) = (queue_of(request), self.state());
        let reply = |code: i32, remark: &str| Words::reply(request.opaque, code).remark(remark);
        if !state.topics.contains_key(&queue.0) {
            return reply(17, &format!("topic[{}] not exist, apply first please!", queue.0));
        }
        let stored = state.queues.get(&queue).map_or(&[][..], Vec::as_slice);
        let from = usize::try_from(number(request, "queueOffset")).unwrap();
        let most = usize::try_from(number(request, "maxMsgNums")).unwrap().min(PULL_MAX);
        let filter = TagFilter::parse(field(request, "subscription")).unwrap();
        let wanted = |message: &&Stored| filter.matches_hash(tag_hash(message.draft.property("TAGS")));
        let looked_at = stored.get(from..stored.len().min(from + most)).unwrap_or_default();
        let found: Vec<u8> =
            looked_at.iter().filter(wanted).flat_map(|message| message.bytes.iter().copied()).collect();
        let next = if from > stored.len() { stored.len() } else { from + looked_at.len() };
        let (mut code, remark) = match (from, stored.len()) {
            (0, 0) => (19, "NO_MESSAGE_IN_QUEUE"),
            (_, 0) => (21, "NO_MESSAGE_IN_QUEUE"),
            (from, max) if from == max => (19, "OFFSET_OVERFLOW_ONE"),
            (from, max) if from > max => (21, "OFFSET_OVERFLOW_BADLY"),
            _ if found.is_empty() => (20, "NO_MATCHED_MESSAGE"),
            _ => (0, "FOUND"),
        };
        // the slave sends those back to the master for whom it has nothing
        if peer.of_slave && code == 19 {
            code = 20;
        }
        let suggested = if code == 0 && !peer.of_slave { 1 } else { 0 };
        let answer = reply(code, remark)
            .field("suggestWhichBrokerId", suggested)
            .field("nextBeginOffset", next)
            .field("minOffset", 0)
            .field("maxOffset", stored.len())
            .body(if code == 0 { found } else { Vec::new() });
        match self.release {
            Release::V4 => answer,
            Release::V5 => answer.field("topicSysFlag", 0).field("groupSysFlag", 0),
        }
    }

    pub(super) fn committed_offset(&self, request: &RemotingCommand) -> Words {
        let (topic, queue) = queue_of(request);
        let state = self.state();
        let key = (field(request, "consumerGroup").to_owned(), topic.clone(), queue);
        let reply = |code| Words::reply(request.opaque, code);
        if let Some(offset) = state.committed.get(&key) {
            return reply(0).field("offset", offset);
        }
        if self.release == Release::V5 && field(request, "setZeroIfNotFound") == "false" {
            return reply(22).remark("Not found, do not set to zero, maybe this group boot first");
        }
        // 4.9 looks whether the first message is still in memory: here all are
        if state.queues.contains_key(&(topic, queue)) || self.release == Release::V4 {
            return reply(0).field("offset", 0);
        }
        reply(22).remark("Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first")
    }

    pub(super) fn commit(&self, request: &RemotingCommand) -> Words {
        let (topic, queue) = queue_of(request);
        let key = (field(request, "consumerGroup").to_owned(), topic, queue);
        self.state().committed.insert(key, number(request, "commitOffset"));
        let reply = Words::reply(request.opaque, 0);
        if self.release == Release::V5 { reply.remark("Update consumer offset success") } else { reply }
    }

    pub(super) fn end_of_queue(&self, request: &RemotingCommand) -> Words {
        let end = self.state().queues.get(&queue_of(request)).map_or(0, Vec::len);
        let wants_end = RequestCode(request.code) == RequestCode::GET_MAX_OFFSET;
        Words::reply(request.opaque, 0).field("offset", if wants_end { end } else { 0 })
    }

    pub(super) fn offset_at_time(&self, request: &RemotingCommand) -> Words {
        let (time, state) = (number(request, "timestamp"), self.state());
        let stored = state.queues.get(&queue_of(request)).map_or(&[][..], Vec::as_slice);
        let offset = match self.release {
            Release::V4 => nearest(stored, time),
            Release::V5 => {
                stored.iter().position(|message| message.stored_ms >= time).unwrap_or(stored.len())
            }
        };
        Words::reply(request.opaque, 0).field("offset", offset)
    }
}

/// Where 4.9's search by time ends: at the message stored nearest to it, the earlier of two that are as near.
fn nearest(stored: &[Stored], time: i64) -> usize {
    let later = stored.partition_point(|message| message.stored_ms < time);
    let distance = |at: usize| stored.get(at).map(|message| message.stored_ms.abs_diff(time));
    match (later.checked_sub(1).and_then(distance), distance(later)) {
        (Some(left), right) if right.is_none_or(|right| left <= right) => later - 1,
        (None, None) => 0,
        _ => later,
    }
}
