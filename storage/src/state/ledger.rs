//! The fold itself. [`Ledger::apply`] takes a record as it stands in the log; the append path calls the same functions
//! below it with what it already knows of the record. The ledger knows no clock: time is the frame's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use mezzo_protocol::ids::{GroupName, QueueId, QueueOffset, TopicName, TransactionId};
use mezzo_protocol::message::properties;
use mezzo_protocol::message::record::MessageView;
use mezzo_protocol::message::tag::java_hash;
use mezzo_protocol::time::Timestamp;

use super::AfterLoss;
use super::corrupt_log;
use super::due::{DueMessages, DueRow};
use super::groups::GroupConfig;
use super::leases::Leases;
use super::offsets::ConsumerOffsets;
use super::publish::{Publication, Publisher};
use super::segments::Segments;
use super::topics::{Queue, QueueRegistry, Topic, TopicConfig};
use super::transactions::history::{History, decision_of};
use super::transactions::{ManyMessages, ManyTable, Member, OpenRow, Table};
use crate::error::StorageError;
use crate::format::history_row::{HistoryRow, group_hash};
use crate::format::queue_entry::QueueEntry;
use crate::format::record::{
    AckLevel, Asks, Carried, CarriedTiming, Decision as DecisionRecord, Group as GroupRecord, Jump,
    Lease as LeaseRecord, MessagePayload, MessagePrefix, Offsets as OffsetsRecord, Outcome, Parked, Policy,
    RecordKind, Resumed, Source, Start, Tick, Topic as TopicRecord,
};
use crate::half::{Fingerprint, HalfFacts};
use crate::options::CheckPolicy;
use crate::results::Decision;

/// A record's place and time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// Where its header stands.
    pub(crate) position: u64,
    /// Header and payload.
    pub(crate) size: u32,
    /// Leader time of its frame.
    pub(crate) time_ms: u64,
}

/// What a message record says of its message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) queue: &'a Arc<Queue>,
    pub(crate) tag_hash: i32,
}

/// Groups and their configuration.
pub(crate) type Groups = BTreeMap<GroupName, Arc<GroupConfig>>;

/// State folded from every record appended so far.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) topics: BTreeMap<TopicName, Arc<Topic>>,
    pub(crate) registry: QueueRegistry,
    pub(crate) groups: Groups,
    pub(crate) offsets: Arc<ConsumerOffsets>,
    pub(crate) open: Table,
    /// What those of many messages have beyond their rows.
    pub(crate) many: ManyTable,
    /// Delay of delayed half messages, by origin.
    pub(crate) delays: HashMap<u64, u64, RandomState>,
    pub(crate) due: DueMessages,
    pub(crate) leases: Leases,
    pub(crate) segments: Segments,
    pub(crate) history: Option<Arc<History>>,
    /// Acknowledgement level that the last start of the log announced.
    pub(crate) ack: AckLevel,
    /// A start found the log torn at acknowledgement `memory`, and its `jump` record has not been met yet.
    pub(crate) owes_jump: bool,
    /// Parts of the log whose loss was accepted.
    pub(crate) lost: AfterLoss,
}

impl Ledger {
    pub(crate) fn new(segment_bytes: u64, policy: CheckPolicy, history: Option<Arc<History>>) -> Self {
        Self {
            topics: BTreeMap::new(),
            registry: QueueRegistry::default(),
            groups: Groups::default(),
            offsets: Arc::default(),
            open: Table::new(policy),
            many: ManyTable::default(),
            delays: HashMap::default(),
            due: DueMessages::default(),
            leases: Leases::default(),
            segments: Segments::new(segment_bytes),
            history,
            ack: AckLevel::Durable,
            owes_jump: false,
            lost: AfterLoss::default(),
        }
    }

    /// Half and delayed messages that are not visible yet.
    pub(crate) fn open_messages(&self) -> usize {
        self.open.len() + self.many.further() + self.due.len()
    }

    /// Folds in one record of the log.
    pub(crate) fn apply(
        &mut self,
        at: At,
        kind: RecordKind,
        flags: u16,
        payload: &[u8],
        publisher: &mut dyn Publisher,
    ) -> Result<(), StorageError> {
        let bad = |source| StorageError::Format { position: at.position, source };
        self.pass_losses(at.position, publisher);
        match kind {
            RecordKind::Message | RecordKind::Prepared | RecordKind::Due => {
                let message = MessagePayload::decode(kind, flags, payload).map_err(bad)?;
                return self.apply_message(at, &message, publisher);
            }
            RecordKind::Decision => {
                let d = DecisionRecord::decode(flags, payload).map_err(bad)?;
                if let Some(offsets) = &d.offsets {
                    self.apply_offsets(at, offsets, publisher)?;
                }
                if let Some((group, id)) = d.named {
                    let invalid = |e| corrupt_log(at.position, e);
                    let (group, id) = (GroupName::new(group), TransactionId::new(id));
                    let (group, id) = (group.map_err(invalid)?, id.map_err(invalid)?);
                    self.decide_empty(at, &group, &id, d.outcome, d.source);
                } else if let Some(decided) = self.decide(at, d.origin, d.outcome, d.source, publisher)
                    && decided.count != d.count
                    && !self.lost.may_miss(at.position)
                {
                    let reason = format!("{} messages decided, {} are open", d.count, decided.count);
                    return Err(corrupt_log(at.position, reason));
                }
            }
            RecordKind::Tick => {
                self.tick(at, Tick::decode(flags, payload).map_err(bad)?.due_ms, publisher);
            }
            RecordKind::Asks => {
                for row in Asks::decode(flags, payload).map_err(bad)?.rows {
                    self.asked(at, row.origin, row.asks);
                }
            }
            RecordKind::Parked => self.parked(at, Parked::decode(flags, payload).map_err(bad)?.origin),
            RecordKind::Resumed => self.resumed(at, Resumed::decode(flags, payload).map_err(bad)?.origin),
            RecordKind::Carried => {
                let carried = Carried::decode(flags, payload).map_err(bad)?;
                if !self.carried(at, &carried) && !self.lost.may_miss(at.position) {
                    let reason = format!("carries a message that is not open at {}", carried.old_location);
                    return Err(corrupt_log(at.position, reason));
                }
            }
            RecordKind::Offsets => {
                let record = OffsetsRecord::decode(flags, payload).map_err(bad)?;
                let invalid = |e| corrupt_log(at.position, e);
                let group = GroupName::new(record.group).map_err(invalid)?;
                for entry in &record.entries {
                    let topic = TopicName::new(entry.topic).map_err(invalid)?;
                    self.offsets.restore(&group, &topic, QueueId(entry.queue), QueueOffset(entry.offset));
                }
            }
            RecordKind::Topic => {
                let record = TopicRecord::decode(flags, payload).map_err(bad)?;
                let config = TopicConfig::from_record(&record, at.position)?;
                if record.deleted {
                    self.delete_topic(at.position, &config.name, publisher);
                } else if self.lost.may_miss(at.position) {
                    self.put_topic_after_loss(at.position, config, publisher);
                } else {
                    self.put_topic(at.position, config, publisher);
                }
            }
            RecordKind::Group => {
                let record = GroupRecord::decode(flags, payload).map_err(bad)?;
                let config = GroupConfig::from_record(&record, at.position)?;
                if record.deleted {
                    self.delete_group(at.position, &config.name, publisher);
                } else {
                    self.put_group(at.position, config, publisher);
                }
            }
            RecordKind::Start => {
                let start = Start::decode(flags, payload).map_err(bad)?;
                self.owes_jump |= self.ack == AckLevel::Memory && !start.clean;
                self.ack = start.ack;
            }
            RecordKind::Layout => {}
            RecordKind::Jump => {
                self.jump(at.position, Jump::decode(flags, payload).map_err(bad)?.by, publisher);
            }
            RecordKind::Lease => {
                let record = LeaseRecord::decode(flags, payload).map_err(bad)?;
                self.apply_lease(at.position, Timestamp::from_ms(at.time_ms), &record, publisher)?;
            }
            RecordKind::Policy => {
                let record = Policy::decode(flags, payload).map_err(bad)?;
                let group = GroupName::new(record.group).map_err(|e| corrupt_log(at.position, e))?;
                if record.deleted {
                    self.open.policies_mut().delete(&group);
                } else {
                    self.open.policies_mut().put(group, record.policy);
                }
            }
        }
        Ok(())
    }

    fn apply_message(
        &mut self,
        at: At,
        payload: &MessagePayload<'_>,
        publisher: &mut dyn Publisher,
    ) -> Result<(), StorageError> {
        let view = MessageView::parse(payload.message).map_err(|e| corrupt_log(at.position, e))?;
        let (topic, id) = (view.topic(), view.queue_id());
        let mut queue = self.topics.get(topic).and_then(|t| t.queue(id));
        if queue.is_none() && self.lost.may_miss(at.position) {
            self.find_lost_queue(at.position, topic, id, publisher)?;
            queue = self.topics.get(topic).and_then(|t| t.queue(id));
        }
        let queue = queue
            .ok_or_else(|| corrupt_log(at.position, format!("message for unknown queue {topic}/{}", id.0)))?;
        let tag_hash = properties::find(view.properties(), properties::TAGS).map_or(0, java_hash);
        let facts = Facts { queue: &queue, tag_hash };
        match payload.prefix {
            MessagePrefix::Prepared { joins, delay_ms } => {
                let mut half = HalfFacts::of(view.properties()).map_err(|e| corrupt_log(at.position, e))?;
                let fingerprint = Fingerprint::of(payload.message);
                if let Some(origin) = joins {
                    let joined = self.joined(at, facts, origin, fingerprint, delay_ms);
                    if !joined && !self.lost.may_miss(at.position) {
                        let reason = format!("a message joins a transaction that is not open: {origin}");
                        return Err(corrupt_log(at.position, reason));
                    }
                } else {
                    if let Some(one) = &mut half.of_many {
                        one.fingerprint = fingerprint;
                    }
                    self.prepared(at, facts, &half, delay_ms);
                }
            }
            MessagePrefix::Due { due_ms } => self.delayed(at, facts, due_ms),
            MessagePrefix::Visible => {
                self.visible(at, at.position, at.size, facts.queue, facts.tag_hash, publisher);
            }
        }
        Ok(())
    }

    /// A message takes its place in its queue, because of the record at `at`.
    pub(crate) fn visible(
        &mut self,
        at: At,
        location: u64,
        size: u32,
        queue: &Arc<Queue>,
        tag_hash: i32,
        publisher: &mut dyn Publisher,
    ) -> u64 {
        let offset = queue.take_next();
        self.segments.visible(location, at.time_ms);
        let entry = QueueEntry { position: location, size, tag_hash, visible_at_ms: at.time_ms };
        publisher.publish(at.position, Publication::Entry { queue: Arc::clone(queue), offset, entry });
        offset
    }

    /// A half message opens a transaction.
    pub(crate) fn prepared(&mut self, at: At, facts: Facts<'_>, half: &HalfFacts, delay_ms: Option<u64>) {
        self.segments.opened(at.position, at.size);
        facts.queue.open_added();
        if let Some(delay_ms) = delay_ms {
            self.delays.insert(at.position, delay_ms);
        }
        let row = OpenRow {
            origin: at.position,
            location: at.position,
            size: at.size,
            queue: facts.queue.symbol(),
            group: 0,
            tag_hash: facts.tag_hash,
            key_hash: half.key_hash,
            prepared_at_ms: at.time_ms,
            touched_at_ms: at.time_ms,
            last_event: 0,
            asks: 0,
            immunity_ms: half.immunity_ms.map_or(0, |ms| u32::try_from(ms).unwrap_or(u32::MAX)),
            wish: 0,
            in_doubt: false,
            delayed: delay_ms.is_some(),
            been_due: false,
        };
        let group = self.open.insert(row, &half.group, half.wish.as_deref());
        if let Some(one) = &half.of_many {
            let many = ManyMessages {
                id: one.id.clone(),
                group,
                first: one.fingerprint,
                bytes: u64::from(at.size),
                further: Vec::new(),
            };
            self.many.insert(at.position, many);
        }
    }

    /// A half message joins the open transaction of `origin`; false if there is none that it could join.
    pub(crate) fn joined(
        &mut self,
        at: At,
        facts: Facts<'_>,
        origin: u64,
        fingerprint: Fingerprint,
        delay_ms: Option<u64>,
    ) -> bool {
        let member = Member {
            position: at.position,
            location: at.position,
            size: at.size,
            queue: facts.queue.symbol(),
            tag_hash: facts.tag_hash,
            delay_ms,
            fingerprint,
        };
        let joined = self.many.join(origin, member);
        if joined {
            self.segments.opened(at.position, at.size);
            facts.queue.open_added();
        }
        joined
    }

    /// A delayed message waits for its tick.
    pub(crate) fn delayed(&mut self, at: At, facts: Facts<'_>, due_ms: u64) {
        self.segments.opened(at.position, at.size);
        facts.queue.open_added();
        let row = DueRow {
            location: at.position,
            size: at.size,
            queue: facts.queue.symbol(),
            tag_hash: facts.tag_hash,
        };
        self.due.insert(due_ms, at.position, row);
    }

    /// The decision at `at` makes the messages of a transaction visible, in the order of their prepares, or dead.
    /// `None` if the transaction is not open.
    pub(crate) fn decide(
        &mut self,
        at: At,
        origin: u64,
        outcome: Outcome,
        source: Source,
        publisher: &mut dyn Publisher,
    ) -> Option<Decision> {
        let group_hash =
            self.open.get(origin).and_then(|r| self.open.groups().name(r.group)).map(|g| group_hash(g))?;
        let many = self.many.remove(origin);
        let row = self.open.remove(origin)?;
        let delay_ms = if row.delayed { self.delays.remove(&origin) } else { None };
        let first =
            DueRow { location: row.location, size: row.size, queue: row.queue, tag_hash: row.tag_hash };
        let first_queue_offset = self.settle(at, outcome, (origin, first), delay_ms, publisher);
        let mut queue_offsets = Vec::new();
        for member in many.iter().flat_map(|many| &many.further) {
            let message = DueRow {
                location: member.location,
                size: member.size,
                queue: member.queue,
                tag_hash: member.tag_hash,
            };
            let offset = self.settle(at, outcome, (member.position, message), member.delay_ms, publisher);
            if outcome == Outcome::Committed {
                if queue_offsets.is_empty() {
                    queue_offsets.push(first_queue_offset.map(QueueOffset));
                }
                queue_offsets.push(offset.map(QueueOffset));
            }
        }
        let row = HistoryRow {
            origin,
            key_hash: row.key_hash,
            decided_at_ms: at.time_ms,
            first_queue_offset,
            decision_position: at.position,
            group_hash,
            outcome,
            source,
            count: many.as_ref().map_or(1, ManyMessages::count),
            named: many.is_some(),
        };
        if let Some(history) = &self.history {
            history.record(at.position, row);
        }
        if many.is_some() {
            self.many.decided(row);
        }
        Some(Decision { queue_offsets: queue_offsets.into_boxed_slice(), ..decision_of(&row) })
    }

    /// What a decision does to one message, first written at `position`. Its queue offset, if it is visible from here
    /// on.
    fn settle(
        &mut self,
        at: At,
        outcome: Outcome,
        (position, message): (u64, DueRow),
        delay_ms: Option<u64>,
        publisher: &mut dyn Publisher,
    ) -> Option<u64> {
        let queue = self.registry.get(message.queue).cloned()?;
        if outcome == Outcome::RolledBack {
            self.close(&message, &queue);
            return None;
        }
        if let Some(delay_ms) = delay_ms {
            // stays open until its tick
            self.due.insert(at.time_ms.saturating_add(delay_ms), position, message);
            return None;
        }
        self.close(&message, &queue);
        let DueRow { location, size, tag_hash, .. } = message;
        Some(self.visible(at, location, size, &queue, tag_hash, publisher))
    }

    fn close(&mut self, message: &DueRow, queue: &Queue) {
        self.segments.closed(message.location, message.size);
        queue.open_removed();
    }

    /// Everything due at or before `due_ms` becomes visible.
    pub(crate) fn tick(&mut self, at: At, due_ms: u64, publisher: &mut dyn Publisher) -> usize {
        let due = self.due.take(due_ms);
        let count = due.len();
        for row in due {
            if let Some(queue) = self.registry.get(row.queue).cloned() {
                self.close(&row, &queue);
                self.visible(at, row.location, row.size, &queue, row.tag_hash, publisher);
            }
        }
        count
    }

    pub(crate) fn asked(&mut self, at: At, origin: u64, asks: u32) {
        self.open.update(origin, |row| {
            row.asks = asks;
            row.touched_at_ms = at.time_ms;
            row.last_event = at.position;
        });
    }

    pub(crate) fn parked(&mut self, at: At, origin: u64) {
        self.open.update(origin, |row| {
            row.in_doubt = true;
            row.last_event = at.position;
        });
        self.open.disarm(origin);
    }

    pub(crate) fn resumed(&mut self, at: At, origin: u64) {
        self.open.update(origin, |row| {
            row.in_doubt = false;
            row.asks = 0;
            row.been_due = false;
            row.last_event = at.position;
            row.touched_at_ms = at.time_ms;
        });
        self.open.reschedule(origin, at.time_ms);
    }

    /// Where an open message's bytes are and how many, as its row says; `None` if it is not open.
    fn place_of(&mut self, carried: &Carried<'_>) -> Option<(&mut u64, &mut u32)> {
        if let CarriedTiming::Due { due_ms } = carried.timing {
            let row = self.due.get_mut(due_ms, carried.origin)?;
            return Some((&mut row.location, &mut row.size));
        }
        if carried.joined {
            let member = self.many.member_at(carried.transaction_origin, carried.old_location)?;
            return Some((&mut member.location, &mut member.size));
        }
        self.open.place_mut(carried.origin)
    }

    /// Whether the message that a `carried` record would move is open, and where the record says.
    pub(crate) fn can_carry(&mut self, carried: &Carried<'_>) -> bool {
        self.place_of(carried).is_some_and(|(location, _)| *location == carried.old_location)
    }

    /// An open message's bytes are from here on those of the record at `at`; everything else of it stays. False if
    /// no such message is open.
    pub(crate) fn carried(&mut self, at: At, carried: &Carried<'_>) -> bool {
        let Some((location, size)) = self.place_of(carried) else { return false };
        if *location != carried.old_location {
            return false;
        }
        let old_size = std::mem::replace(size, at.size);
        *location = at.position;
        self.segments.closed(carried.old_location, old_size);
        self.segments.opened(at.position, at.size);
        true
    }

    pub(crate) fn put_topic(&mut self, position: u64, config: TopicConfig, publisher: &mut dyn Publisher) {
        let topic = match self.topics.get(&config.name) {
            Some(topic) => {
                topic.set_config(config, &mut self.registry);
                Arc::clone(topic)
            }
            None => {
                let name = config.name.clone();
                let topic = Arc::new(Topic::new(config, &mut self.registry));
                self.topics.insert(name, Arc::clone(&topic));
                topic
            }
        };
        publisher.publish(position, Publication::Topic(topic));
    }

    pub(crate) fn delete_topic(&mut self, position: u64, name: &TopicName, publisher: &mut dyn Publisher) {
        if let Some(topic) = self.topics.remove(name) {
            topic.mark_deleted(&mut self.registry);
            self.offsets.remove_topic(name);
            self.leases.remove_topic(name);
            publisher.publish(position, Publication::TopicDeleted(topic));
        }
    }

    pub(crate) fn put_group(&mut self, position: u64, config: GroupConfig, publisher: &mut dyn Publisher) {
        let config = Arc::new(config);
        self.groups.insert(config.name.clone(), Arc::clone(&config));
        publisher.publish(position, Publication::Group(config));
    }

    /// Whether there is anything of a group: offsets alone may have outlived its configuration.
    pub(crate) fn knows_group(&self, name: &GroupName) -> bool {
        self.groups.contains_key(name)
            || self.offsets.knows_group(name.as_str())
            || self.leases.knows_group(name.as_str())
    }

    pub(crate) fn delete_group(&mut self, position: u64, name: &GroupName, publisher: &mut dyn Publisher) {
        self.groups.remove(name);
        publisher.publish(position, Publication::GroupDeleted(name.clone()));
        self.offsets.remove_group(name.as_str());
        self.leases.remove_group(name.as_str());
    }

    /// Every queue's next offset rises by `by`.
    pub(crate) fn jump(&mut self, position: u64, by: u64, publisher: &mut dyn Publisher) {
        self.owes_jump = false;
        for topic in self.topics.values() {
            for queue in topic.queues() {
                let offset = queue.next().saturating_add(by);
                queue.set_next(offset);
                publisher.publish(position, Publication::Skip { queue, offset });
            }
        }
    }
}
