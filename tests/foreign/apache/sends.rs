//! Sends, batches, delays, messages given back, transactions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::delay_level;
use mezzo_protocol::message::batch;
use mezzo_protocol::message::sys_flag::{SysFlag, TransactionBits};
use mezzo_protocol::remoting::{RemotingCommand, RequestCode};

use super::broker::{Half, NAME, Peer, Shared, State, field, number};
use super::messages::{Draft, Stored, now, read, with_transaction};
use super::words::{Release, Words};

/// When halves are asked about, and how long after each other.
const CHECK_EVERY: Duration = Duration::from_secs(2);
const CHECKS_MAX: u32 = 15;
/// What a commit and what a rollback is, in END_TRANSACTION.
const COMMIT: i64 = 8;
const ROLLBACK: i64 = 12;

impl State {
    /// Appends a message to its queue.
    fn append(&mut self, draft: Draft, host: SocketAddr) -> &Stored {
        let key = (draft.topic.clone(), draft.queue);
        let queue = self.queues.entry(key).or_default();
        let stored = draft.store(queue.len() as u64, self.log, host, now());
        self.log += stored.bytes.len() as u64;
        queue.push(stored);
        queue.last().unwrap()
    }

    /// The message at a place of the log.
    fn at(&self, position: u64) -> Option<&Stored> {
        self.queues.values().flatten().find(|stored| stored.position == position)
    }
}

impl Shared {
    fn append(&self, draft: Draft) -> Stored {
        let stored = self.state().append(draft, self.master).clone();
        self.arrivals.send_modify(|count| *count += 1);
        stored
    }

    pub(super) fn send(self: &Arc<Self>, peer: &Peer, request: &RemotingCommand) -> Words {
        let topic = field(request, "b");
        let reply = |code| Words::reply(request.opaque, code);
        if peer.of_slave {
            return reply(11).remark("the broker is a slave");
        }
        let queues = u32::try_from(number(request, "d").min(8)).unwrap();
        self.state().topics.entry(topic.to_owned()).or_insert(queues);
        let mut draft = Draft {
            topic: topic.to_owned(),
            queue: u32::try_from(number(request, "e")).unwrap(),
            flag: i32::try_from(number(request, "h")).unwrap(),
            sys_flag: i32::try_from(number(request, "f")).unwrap(),
            born_ms: number(request, "g"),
            born_host: peer.address,
            reconsume_times: i32::try_from(number(request, "j")).unwrap(),
            properties: read(field(request, "i").as_bytes()),
            body: request.body.to_vec(),
            prepared_at: 0,
        };
        let unique_key = draft.property("UNIQ_KEY").map(str::to_owned);
        draft.set("MSG_REGION", "DefaultRegion");
        draft.set("TRACE_ON", "true");
        if self.release == Release::V5 {
            draft.set("CLUSTER", "DefaultCluster");
        }
        let queue = draft.queue;
        let (id, offset) = if RequestCode(request.code) == RequestCode::SEND_BATCH_MESSAGE {
            self.store_batch(&draft)
        } else if SysFlag(draft.sys_flag).transaction() == TransactionBits::Prepared {
            self.store_half(draft)
        } else if let Some(wait) = self.delay_of(&mut draft) {
            self.store_late(draft, wait)
        } else {
            let stored = self.append(draft);
            (stored.id(self.master), stored.offset)
        };
        let answer = reply(0).field("msgId", id).field("queueId", queue).field("queueOffset", offset);
        let answer = unique_key.into_iter().fold(answer, |answer, key| answer.field("transactionId", key));
        answer.field("MSG_REGION", "DefaultRegion").field("TRACE_ON", true)
    }

    fn store_batch(&self, request: &Draft) -> (String, u64) {
        let mut ids = Vec::new();
        let mut first = None;
        for part in batch::decode(&request.body) {
            let part = part.unwrap();
            // what the request says for all of them comes behind what each says for itself
            let properties = read(part.properties).into_iter().chain(request.properties.clone()).collect();
            let draft = Draft { flag: part.flag, body: part.body.to_vec(), properties, ..request.clone() };
            let stored = self.append(draft);
            first.get_or_insert(stored.offset);
            ids.push(stored.id(self.master));
        }
        (ids.join(","), first.unwrap())
    }

    /// How long a message is held back, which is taken out of it.
    fn delay_of(&self, draft: &mut Draft) -> Option<Duration> {
        if let Some(level) = draft.property("DELAY").and_then(|level| level.parse().ok()) {
            draft.remove("DELAY");
            return delay_level::delay_ms(level).map(Duration::from_millis);
        }
        // 4.9 has no timer: it delivers at once, with the properties in place
        if self.release == Release::V4 {
            return None;
        }
        let after = draft.property("TIMER_DELAY_MS").and_then(|ms| ms.parse().ok());
        let at = draft.property("TIMER_DELIVER_MS").and_then(|ms| ms.parse::<u64>().ok());
        let wait_ms = after.or_else(|| at.map(|at| at.saturating_sub(now().as_ms())));
        wait_ms.map(Duration::from_millis)
    }

    fn store_late(self: &Arc<Self>, draft: Draft, wait: Duration) -> (String, u64) {
        let stored = draft.clone().store(0, self.state().log, self.master, now());
        self.state().log += stored.bytes.len() as u64;
        self.later(wait, move |shared| {
            shared.append(draft);
        });
        (stored.id(self.master), 0)
    }

    pub(super) fn send_back(self: &Arc<Self>, request: &RemotingCommand) -> Words {
        let (group, level) = (field(request, "group"), number(request, "delayLevel"));
        let mut state = self.state();
        let Some(found) = state.at(number(request, "offset").unsigned_abs()) else {
            let remark = format!("look message by offset failed, {}", number(request, "offset"));
            return Words::reply(request.opaque, 1).remark(remark);
        };
        let mut draft = found.draft.clone();
        if draft.property("RETRY_TOPIC").is_none() {
            draft.set("RETRY_TOPIC", draft.topic.clone());
        }
        if draft.property("ORIGIN_MESSAGE_ID").is_none() {
            draft.set("ORIGIN_MESSAGE_ID", field(request, "originMsgId"));
        }
        let times = draft.reconsume_times;
        draft.queue = 0;
        if level < 0 || i64::from(times) >= number(request, "maxReconsumeTimes") {
            draft.topic = format!("%DLQ%{group}");
            state.topics.entry(draft.topic.clone()).or_insert(1);
            drop(state);
            self.append(draft);
        } else {
            let level = if level == 0 { 3 + i64::from(times) } else { level };
            draft.topic = format!("%RETRY%{group}");
            draft.reconsume_times += 1;
            drop(state);
            let wait_ms = delay_level::delay_ms(u32::try_from(level).unwrap()).unwrap();
            self.later(Duration::from_millis(wait_ms), move |shared| {
                shared.append(draft);
            });
        }
        Words::reply(request.opaque, 0)
    }

    fn store_half(self: &Arc<Self>, mut draft: Draft) -> (String, u64) {
        let (topic, queue) = (draft.topic.clone(), draft.queue);
        let group = draft.property("PGROUP").unwrap().to_owned();
        if let Some(key) = draft.property("UNIQ_KEY").map(str::to_owned) {
            draft.set("__transactionId__", key);
        }
        draft.set("REAL_TOPIC", &topic);
        draft.set("REAL_QID", queue);
        "RMQ_SYS_TRANS_HALF_TOPIC".clone_into(&mut draft.topic);
        draft.queue = 0;
        draft.sys_flag = with_transaction(draft.sys_flag, TransactionBits::Not);
        let mut state = self.state();
        let place = state.halves_so_far;
        let stored = draft.store(place, state.log, self.master, now());
        state.log += stored.bytes.len() as u64;
        state.halves_so_far += 1;
        let id = stored.id(self.master);
        state.halves.insert(place, Half { stored, topic, queue, group });
        drop(state);
        self.later(CHECK_EVERY, move |shared| shared.check_back(place, 1));
        (id, place)
    }

    /// Asks about a half, which is put behind all other halves first: the question names its new place.
    fn check_back(self: &Arc<Self>, place: u64, times: u32) {
        let mut state = self.state();
        let Some(mut half) = state.halves.remove(&place) else { return };
        let mut draft = half.stored.draft.clone();
        draft.set("TRANSACTION_CHECK_TIMES", times);
        let place = state.halves_so_far;
        half.stored = draft.store(place, state.log, self.master, now());
        state.log += half.stored.bytes.len() as u64;
        state.halves_so_far += 1;
        if let Some(writer) = state.groups.producer(&half.group) {
            let key = half.stored.draft.property("UNIQ_KEY").unwrap_or_default();
            let code = RequestCode::CHECK_TRANSACTION_STATE.0;
            let asked = Words::oneway(state.groups.next_request(), code)
                .field("tranStateTableOffset", place)
                .field("commitLogOffset", half.stored.position)
                .field("msgId", key)
                .field("transactionId", key)
                .field("offsetMsgId", half.stored.id(self.master))
                .body(half.stored.asked(&half.topic, half.queue, self.master));
            let newer = |words: Words| words.field("topic", "RMQ_SYS_TRANS_HALF_TOPIC").field("bname", NAME);
            self.say(&writer, &if self.release == Release::V5 { newer(asked) } else { asked });
        }
        state.halves.insert(place, half);
        drop(state);
        if times < CHECKS_MAX {
            self.later(CHECK_EVERY, move |shared| shared.check_back(place, times + 1));
        }
    }

    /// An answer that decides nothing is not answered.
    pub(super) fn end_transaction(&self, request: &RemotingCommand) -> Option<Words> {
        let (decision, place) =
            (number(request, "commitOrRollback"), number(request, "tranStateTableOffset"));
        if ![COMMIT, ROLLBACK].contains(&decision) {
            return None;
        }
        let reply = |code| Words::reply(request.opaque, code);
        let mut state = self.state();
        let Some(half) = state.halves.get(&place.unsigned_abs()) else {
            return Some(reply(1).remark("Find prepared transaction message failed"));
        };
        if half.group != field(request, "producerGroup") {
            return Some(reply(1).remark("The producer group wrong"));
        }
        if half.stored.position != number(request, "commitLogOffset").unsigned_abs() {
            return Some(reply(1).remark("The commit log offset wrong"));
        }
        let half = state.halves.remove(&place.unsigned_abs()).unwrap();
        drop(state);
        if decision == COMMIT {
            let mut draft = half.stored.draft;
            ["REAL_TOPIC", "REAL_QID", "TRAN_MSG"].into_iter().for_each(|name| draft.remove(name));
            (draft.topic, draft.queue) = (half.topic.clone(), half.queue);
            draft.sys_flag = with_transaction(draft.sys_flag, TransactionBits::Commit);
            draft.prepared_at = half.stored.position;
            self.append(draft);
        }
        Some(reply(0))
    }
}
