//! What may be appended, decided under the append lock against everything appended before, durable or not. An
//! operation that is admitted becomes a record and is applied at once; one that is refused leaves nothing behind.
//!
//! `admit/end.rs` holds decisions, `admit/many.rs` the messages of transactions of many.

mod end;
mod leases;
mod many;

use std::collections::HashMap;
use std::net::SocketAddr;

use mezzo_protocol::check_policy::CheckPolicy;
use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::limits::{CHECK_POLICIES_MAX, CLIENT_ID_BYTES_MAX};

use super::leader_clock::LeaderClock;
use super::ledger::{At, Facts, Ledger};
use super::publish::Publisher;
use super::topics::TopicConfig;
use crate::batch::{CountedAsk, MessageToAppend, Operation, RECORD_OVERHEAD_MAX, Visibility};
use crate::format::record::{
    ASK_ROW_BYTES, AskedCount, Asks, LogSeed, MessagePrefix, OffsetEntry, Offsets, ParkReason, Parked,
    Policy, RECORD_HEADER_BYTES, RecordHead, RecordKind, Resumed, Tick,
};
use crate::log::Writer;
use crate::results::{OperationResult, Refusal};

pub(crate) use end::repeated;
pub(crate) use leases::record_of as lease_record;

/// How many delayed messages one tick makes visible at most; more only if a single millisecond has seen more commits
/// of delayed transactions with the same delay.
const TICK_MESSAGES: usize = 4096;

/// How much may be open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Half and delayed messages of all.
    pub(crate) open_messages: usize,
    /// Bytes that carrying all of them would write.
    pub(crate) open_bytes: u64,
    /// Messages of one transaction.
    pub(crate) transaction_messages: u16,
    /// Bytes of their records.
    pub(crate) transaction_bytes: u64,
}

/// What admission came to.
pub(crate) enum Admission {
    /// Decided here.
    Result(OperationResult),
    /// END for a transaction that is neither open nor decided lately: the history files have to be asked, which is
    /// done after the lock is released.
    AskHistory {
        /// Open, and so to be decided, if the history does not know another transaction of the same key.
        open: Option<u64>,
    },
}

/// The writer, and what is needed to make records.
pub(crate) struct Sink<'a> {
    pub(crate) writer: &'a mut Writer,
    pub(crate) seed: LogSeed,
    pub(crate) scratch: &'a mut Vec<u8>,
    /// Callers' times are those of their wall clock; what is stored and compared is leader time.
    pub(crate) clock: &'a LeaderClock,
}

impl Sink<'_> {
    /// Appends a record whose payload is in `scratch`.
    fn push_scratch(&mut self, kind: RecordKind, flags: u16) -> At {
        let head = RecordHead::new(self.seed, kind, flags, &[self.scratch]);
        push(self.writer, &head, self.scratch)
    }

    /// Appends a delayed message, due at `due_ms` in leader time. Its bytes say the time that its sender asked
    /// for; where that is another, which is seldom, they are made anew.
    fn push_due(&mut self, message: &MessageToAppend, payload: &[u8], due_ms: u64) -> At {
        let prefix = MessagePrefix::Due { due_ms };
        match message.visibility {
            Visibility::Due(due) if due.as_ms() != due_ms => {
                self.scratch.clear();
                prefix.encode(self.scratch);
                let rest = payload.get(self.scratch.len()..).unwrap_or_default();
                self.scratch.extend_from_slice(rest);
                self.push_scratch(prefix.kind(), prefix.flags())
            }
            _ => push(self.writer, &message.head, payload),
        }
    }
}

fn push(writer: &mut Writer, head: &RecordHead, payload: &[u8]) -> At {
    let position = writer.push(head, &[payload]);
    let size = u32::try_from(RECORD_HEADER_BYTES + payload.len()).unwrap_or(u32::MAX);
    At { position, size, time_ms: writer.frame_time().as_ms() }
}

/// Most bytes the operation adds to a frame.
pub(crate) fn bytes_max(operation: &Operation) -> usize {
    let strings = match operation {
        Operation::Send(send) => send.0.payload.len(),
        Operation::End(end) | Operation::EndUnheardOf(end) => end::bytes_max(end),
        Operation::Lease(lease) => lease.group.len() + lease.topic.len() + lease.client.len(),
        Operation::ReleaseLease { group, topic, .. } => group.len() + topic.len() + CLIENT_ID_BYTES_MAX,
        Operation::Asked(asks) => asks.len() * ASK_ROW_BYTES,
        Operation::Offsets { group, entries } => {
            group.as_str().len() + entries.iter().map(|(topic, ..)| topic.as_str().len() + 14).sum::<usize>()
        }
        Operation::PutTopic(config) => {
            config.name.as_str().len()
                + config.attributes.iter().map(|(k, v)| k.len() + v.len() + 4).sum::<usize>()
        }
        Operation::PutGroup(config) => {
            config.name.as_str().len()
                + config.attributes.iter().map(|(k, v)| k.len() + v.len() + 4).sum::<usize>()
        }
        Operation::DeleteTopic(name) => name.as_str().len(),
        Operation::DeleteGroup(name) | Operation::DeletePolicy(name) => name.as_str().len(),
        Operation::PutPolicy { group, .. } => group.as_str().len(),
        Operation::Park { .. } | Operation::Resume { .. } | Operation::Tick(_) => 0,
    };
    strings + 2 * RECORD_OVERHEAD_MAX
}

impl Ledger {
    /// Why no further half or delayed message may be opened.
    fn too_many_open(&self, bounds: Bounds) -> Option<Refusal> {
        if self.open_messages() >= bounds.open_messages {
            return Some(Refusal::TooManyOpen);
        }
        (self.segments.open_bytes() >= bounds.open_bytes).then_some(Refusal::TooManyOpenBytes)
    }

    /// Admits one operation. `arena` holds the encoded messages of its batch.
    pub(crate) fn admit(
        &mut self,
        operation: &Operation,
        arena: &[u8],
        bounds: Bounds,
        sink: &mut Sink<'_>,
        publisher: &mut dyn Publisher,
    ) -> Admission {
        sink.scratch.clear();
        let result = match operation {
            Operation::Send(send) => match &send.0.guarded {
                None => self.send(&send.0, arena, bounds, sink, publisher),
                Some(guarded) => self.send_once(&send.0, guarded, arena, bounds, sink, publisher),
            },
            Operation::End(end) => return self.end(end, false, sink, publisher),
            Operation::EndUnheardOf(end) => return self.end(end, true, sink, publisher),
            Operation::Lease(lease) => self.grant_lease(lease, sink, publisher),
            Operation::ReleaseLease { group, topic, queue, epoch } => {
                self.release_lease((group, topic, *queue), *epoch, sink, publisher)
            }
            Operation::Asked(asks) => self.record_asks(asks, sink),
            Operation::Park { origin, reason } => self.park(*origin, *reason, sink),
            Operation::Resume { origin, by } => self.resume(*origin, *by, sink),
            Operation::Tick(at) => self.admit_tick(sink.clock.of_wall(*at).as_ms(), sink, publisher),
            Operation::Offsets { group, entries } => self.log_offsets(group, entries, sink),
            Operation::PutTopic(config) => self.admit_topic(config, sink, publisher),
            Operation::DeleteTopic(name) => match self.topics.get(name) {
                None => OperationResult::Refused(Refusal::NotFound),
                Some(topic) if topic.open_messages() > 0 => {
                    OperationResult::Refused(Refusal::TopicHasOpenMessages)
                }
                Some(topic) => {
                    let config = topic.config();
                    let mut record = config.to_record();
                    record.deleted = true;
                    // its size was reckoned by the name alone, and nobody will ask for these again
                    record.attributes.clear();
                    record.encode(sink.scratch);
                    let at = sink.push_scratch(RecordKind::Topic, record.flags());
                    self.delete_topic(at.position, name, publisher);
                    OperationResult::Done
                }
            },
            Operation::PutGroup(config) => {
                let record = config.to_record();
                record.encode(sink.scratch);
                let at = sink.push_scratch(RecordKind::Group, record.flags());
                self.put_group(at.position, config.clone(), publisher);
                OperationResult::Done
            }
            Operation::PutPolicy { group, policy } => self.put_policy(group, policy, sink),
            Operation::DeletePolicy(group) => {
                if let Some(policy) = self.open.policies().of_group(group) {
                    let record = Policy { deleted: true, group: group.as_str(), policy };
                    record.encode(sink.scratch);
                    sink.push_scratch(RecordKind::Policy, record.flags());
                    self.open.policies_mut().delete(group);
                }
                OperationResult::Done
            }
            Operation::DeleteGroup(name) if !self.knows_group(name) => {
                OperationResult::Refused(Refusal::NotFound)
            }
            Operation::DeleteGroup(name) => {
                let mut record = super::groups::GroupConfig::new(name.clone());
                record.consume_enable = false;
                let mut record = record.to_record();
                record.deleted = true;
                record.encode(sink.scratch);
                let at = sink.push_scratch(RecordKind::Group, record.flags());
                self.delete_group(at.position, name, publisher);
                OperationResult::Done
            }
        };
        Admission::Result(result)
    }

    pub(super) fn send(
        &mut self,
        message: &MessageToAppend,
        arena: &[u8],
        bounds: Bounds,
        sink: &mut Sink<'_>,
        publisher: &mut dyn Publisher,
    ) -> OperationResult {
        if message.queue.is_deleted() {
            return OperationResult::Refused(Refusal::TopicGone);
        }
        if let Some((half, one)) = message.half.as_ref().and_then(|h| Some((h, h.of_many.as_ref()?))) {
            let payload = arena.get(message.payload.clone()).unwrap_or_default();
            return self.prepare_one_of_many(message, half, one, payload, bounds, sink);
        }
        let visible_at_once = matches!(message.visibility, Visibility::Now);
        if !visible_at_once && let Some(refusal) = self.too_many_open(bounds) {
            return OperationResult::Refused(refusal);
        }
        let payload = arena.get(message.payload.clone()).unwrap_or_default();
        let mut due_ms = 0;
        let at = match message.visibility {
            Visibility::Due(due) => {
                due_ms = self.due.with_room(sink.clock.of_wall(due).as_ms(), TICK_MESSAGES);
                sink.push_due(message, payload, due_ms)
            }
            Visibility::Now | Visibility::Prepared { .. } => push(sink.writer, &message.head, payload),
        };
        let position = PhysicalOffset(at.position);
        let facts = Facts { queue: &message.queue, tag_hash: message.tag_hash };
        match (&message.visibility, &message.half) {
            (Visibility::Prepared { delay_ms }, Some(half)) => {
                self.prepared(at, facts, half, *delay_ms);
                OperationResult::Prepared { origin: position, position }
            }
            (Visibility::Due(_), _) => {
                self.delayed(at, facts, due_ms);
                OperationResult::Scheduled { position }
            }
            _ => {
                let offset = self.visible(at, at.position, at.size, facts.queue, facts.tag_hash, publisher);
                OperationResult::Stored { queue_offset: QueueOffset(offset), position }
            }
        }
    }

    /// Memory already holds these, or something newer, or nothing because topic or group were deleted meanwhile: that
    /// must not come back by a restart. Nor may an older report take back what a decision has moved since: what is
    /// logged is what stands now.
    fn log_offsets(
        &self,
        group: &GroupName,
        entries: &[(TopicName, QueueId, QueueOffset)],
        sink: &mut Sink<'_>,
    ) -> OperationResult {
        let standing = entries.iter().filter_map(|(topic, queue, _)| {
            let offset = self.offsets.appended(group, topic, *queue)?.0;
            Some(OffsetEntry { topic: topic.as_str(), queue: queue.0, offset })
        });
        let entries: Vec<OffsetEntry<'_>> = standing.collect();
        if !entries.is_empty() {
            Offsets { group: group.as_str(), entries }.encode(sink.scratch);
            sink.push_scratch(RecordKind::Offsets, 0);
        }
        OperationResult::Done
    }

    fn record_asks(&mut self, asks: &[CountedAsk], sink: &mut Sink<'_>) -> OperationResult {
        let mut rows: Vec<AskedCount> = Vec::with_capacity(asks.len());
        let mut newest: HashMap<u64, u32> = HashMap::new();
        for ask in asks {
            let Some(row) = self.open.get(ask.origin.0) else { continue };
            // one that was asked twice since the last record counts twice
            let count = newest.entry(row.origin).or_insert(row.asks);
            *count = count.saturating_add(1);
            rows.push(AskedCount {
                origin: row.origin,
                previous_event: row.last_event,
                asks: *count,
                waited_ms: ask.waited_ms,
                peer: ask.peer,
                answer: ask.answer,
            });
        }
        if rows.is_empty() {
            return OperationResult::Done;
        }
        let record = Asks { rows };
        record.encode(sink.scratch);
        let at = sink.push_scratch(RecordKind::Asks, 0);
        for row in &record.rows {
            self.asked(at, row.origin, row.asks);
        }
        OperationResult::Done
    }

    fn put_policy(
        &mut self,
        group: &GroupName,
        policy: &CheckPolicy,
        sink: &mut Sink<'_>,
    ) -> OperationResult {
        let policies = self.open.policies();
        let own = policies.of_group(group);
        if own.is_none() && policies.groups().len() >= CHECK_POLICIES_MAX {
            return OperationResult::Refused(Refusal::TooManyPolicies);
        }
        if own != Some(*policy) {
            let record = Policy { deleted: false, group: group.as_str(), policy: *policy };
            record.encode(sink.scratch);
            sink.push_scratch(RecordKind::Policy, record.flags());
            self.open.policies_mut().put(group.clone(), *policy);
        }
        OperationResult::Done
    }

    fn park(&mut self, origin: PhysicalOffset, reason: ParkReason, sink: &mut Sink<'_>) -> OperationResult {
        let Some(row) = self.open.get(origin.0).filter(|r| !r.in_doubt) else {
            return OperationResult::Refused(Refusal::Unknown);
        };
        let (asks, previous_event) = (row.asks, row.last_event);
        Parked { origin: origin.0, reason, asks, previous_event }.encode(sink.scratch);
        let at = sink.push_scratch(RecordKind::Parked, 0);
        self.parked(at, origin.0);
        OperationResult::Done
    }

    fn resume(
        &mut self,
        origin: PhysicalOffset,
        by: Option<SocketAddr>,
        sink: &mut Sink<'_>,
    ) -> OperationResult {
        let Some(row) = self.open.get(origin.0).filter(|r| r.in_doubt) else {
            return OperationResult::Refused(Refusal::Unknown);
        };
        Resumed { origin: origin.0, previous_event: row.last_event, by }.encode(sink.scratch);
        let at = sink.push_scratch(RecordKind::Resumed, 0);
        self.resumed(at, origin.0);
        OperationResult::Done
    }

    fn admit_tick(
        &mut self,
        now_ms: u64,
        sink: &mut Sink<'_>,
        publisher: &mut dyn Publisher,
    ) -> OperationResult {
        let Some(due_ms) = self.due.tick_time(now_ms, TICK_MESSAGES) else {
            return OperationResult::Ticked { messages: 0 };
        };
        Tick { due_ms }.encode(sink.scratch);
        let at = sink.push_scratch(RecordKind::Tick, 0);
        OperationResult::Ticked { messages: self.tick(at, due_ms, publisher) }
    }

    fn admit_topic(
        &mut self,
        config: &TopicConfig,
        sink: &mut Sink<'_>,
        publisher: &mut dyn Publisher,
    ) -> OperationResult {
        if let Some(topic) = self.topics.get(&config.name) {
            let now = topic.config();
            if *now == *config {
                return OperationResult::Done;
            }
            let shrinks = config.read_queues < now.read_queues || config.write_queues < now.write_queues;
            if shrinks && topic.open_messages() > 0 {
                return OperationResult::Refused(Refusal::TopicHasOpenMessages);
            }
        }
        let record = config.to_record();
        record.encode(sink.scratch);
        let at = sink.push_scratch(RecordKind::Topic, record.flags());
        self.put_topic(at.position, config.clone(), publisher);
        OperationResult::Done
    }
}
