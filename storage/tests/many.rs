//! Transactions of many messages through the store's door: one decision for all of them, each message taken once
//! however often and in whatever order it comes, and nothing of it lost over a restart.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName, TransactionId};
use mezzo_protocol::limits::TRANSACTION_MESSAGES_MAX;
use mezzo_protocol::message::record::{MessageParts, MessageView};
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{
    AckLevel, Batch, Decision, EncodeError, EndTarget, EndTransaction, NoObserver, Operation,
    OperationResult, Outcome, Refusal, Source, StorageError, Store, StoreOptions, TopicConfig, Visibility,
    key_hash,
};

const T0: u64 = 1_700_000_000_000;
const TOPICS: [&str; 2] = ["t", "u"];

struct Fixture {
    disk: SimulatedDisk,
    store: Arc<Store>,
    now: u64,
}

fn open_on(disk: SimulatedDisk, open_messages_max: usize, now: u64) -> Fixture {
    let options = StoreOptions {
        segment_bytes: 256 << 10,
        frame_bytes_max: 32 << 10,
        ack: AckLevel::Durable,
        nonce: Some([7; 16]),
        open_messages_max,
        ..StoreOptions::new("/data")
    };
    let fs = Arc::new(disk.clone());
    let (store, _) = Store::open(fs, options, Timestamp::from_ms(now), Arc::new(NoObserver)).unwrap();
    Fixture { disk, store, now }
}

fn open_with(open_messages_max: usize) -> Fixture {
    let mut s = open_on(SimulatedDisk::new(), open_messages_max, T0);
    for topic in TOPICS {
        let config = TopicConfig::new(TopicName::new(topic).unwrap(), 1);
        assert_eq!(s.one(Operation::PutTopic(config)), OperationResult::Done);
    }
    s.store.sync().unwrap();
    s
}

fn open() -> Fixture {
    open_with(10_000)
}

fn at(position: u64) -> OperationResult {
    OperationResult::Prepared { origin: PhysicalOffset(position), position: PhysicalOffset(position) }
}

fn refused(refusal: Refusal) -> OperationResult {
    OperationResult::Refused(refusal)
}

fn group() -> GroupName {
    GroupName::new("pg").unwrap()
}

fn by_origin(origin: u64, id: &str, outcome: Outcome, count: Option<u16>) -> EndTransaction {
    EndTransaction {
        table_offset: Some(origin),
        keys: Some([0, key_hash(id)]),
        producer_group: Some(group()),
        count,
        ..EndTransaction::new(EndTarget::Origin(PhysicalOffset(origin)), outcome, Source::Producer)
    }
}

fn by_id(id: &str, outcome: Outcome, count: Option<u16>) -> EndTransaction {
    let target = EndTarget::Id { group: group(), id: TransactionId::new(id).unwrap() };
    EndTransaction { count, ..EndTransaction::new(target, outcome, Source::Producer) }
}

impl Fixture {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now)
    }

    fn append(&mut self, batch: &mut Batch) -> OperationResult {
        self.now += 1;
        self.store.append(self.now(), batch).unwrap();
        batch.results()[0].clone()
    }

    fn one(&mut self, operation: Operation) -> OperationResult {
        let mut batch = Batch::default();
        batch.push(operation);
        self.append(&mut batch)
    }

    fn end(&mut self, end: EndTransaction) -> OperationResult {
        self.one(Operation::End(end))
    }

    fn encode(
        &self,
        batch: &mut Batch,
        topic: &str,
        properties: &str,
        body: &str,
        delay_ms: Option<u64>,
    ) -> Result<usize, EncodeError> {
        let properties = format!("UNIQ_KEY\u{1}{body}\u{2}PGROUP\u{1}pg\u{2}{properties}");
        let parts = MessageParts {
            topic,
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: Timestamp::from_ms(T0),
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host_v6: false,
            reconsume_times: 0,
            body: body.as_bytes(),
            properties: properties.as_bytes(),
        };
        let topic = self.store.topic(topic).unwrap();
        let visibility = Visibility::Prepared { delay_ms };
        batch.send(&self.store.encoder(), &topic, QueueId(0), visibility, &parts)
    }

    fn delayed(
        &mut self,
        topic: &str,
        id: &str,
        sequence: u16,
        body: &str,
        delay_ms: Option<u64>,
    ) -> OperationResult {
        let properties = format!("MEZZO_TX\u{1}{id}\u{2}MEZZO_TX_SEQ\u{1}{sequence}\u{2}");
        let mut batch = Batch::default();
        self.encode(&mut batch, topic, &properties, body, delay_ms).unwrap();
        self.append(&mut batch)
    }

    fn half(&mut self, topic: &str, id: &str, sequence: u16, body: &str) -> OperationResult {
        self.delayed(topic, id, sequence, body, None)
    }

    /// Opens a transaction; its origin.
    fn first(&mut self, topic: &str, id: &str, body: &str) -> u64 {
        match self.half(topic, id, 0, body) {
            OperationResult::Prepared { origin, position } if origin == position => origin.0,
            other => panic!("{other:?}"),
        }
    }

    /// Adds to the transaction of `origin`; the message's own position.
    fn join(&mut self, topic: &str, id: &str, sequence: u16, body: &str, origin: u64) -> u64 {
        match self.half(topic, id, sequence, body) {
            OperationResult::Prepared { origin: of, position } if of.0 == origin && position > of => {
                position.0
            }
            other => panic!("{other:?}"),
        }
    }

    fn decided(&mut self, end: EndTransaction) -> Decision {
        match self.end(end) {
            OperationResult::Decided(decision) => decision,
            other => panic!("{other:?}"),
        }
    }

    fn bodies(&self, topic: &str) -> Vec<String> {
        let queue = self.store.topic(topic).unwrap().queue(QueueId(0)).unwrap();
        let read = self.store.read_entries(&queue, QueueOffset(0), 9999, &mut |_| true).unwrap();
        let body = |entry| {
            let message = self.store.read_message(entry).unwrap();
            String::from_utf8(MessageView::parse(&message.bytes).unwrap().body().to_vec()).unwrap()
        };
        read.entries.iter().map(|(_, entry)| body(entry)).collect()
    }

    fn all_bodies(&self) -> [Vec<String>; 2] {
        TOPICS.map(|topic| self.bodies(topic))
    }

    /// The process dies after a sync, without an orderly stop.
    fn restart(self) -> Self {
        self.store.sync().unwrap();
        let (disk, now) = (self.disk.crash(CrashMode::LoseUnsynced), self.now + 10);
        drop(self.store);
        open_on(disk, 10_000, now)
    }
}

#[test]
fn one_decision_makes_all_messages_visible_in_the_order_of_their_prepares() {
    let mut s = open();
    let origin = s.first("t", "tx", "a");
    s.join("u", "tx", 1, "b", origin);
    s.join("t", "tx", 2, "c", origin);
    s.store.sync().unwrap();
    assert_eq!((s.all_bodies(), s.store.open_messages()), ([vec![], vec![]], 3));
    let decision = s.decided(by_origin(origin, "tx", Outcome::Committed, Some(3)));
    assert_eq!((decision.count, decision.queue_offset), (3, Some(QueueOffset(0))));
    let offsets = [0, 0, 1].map(|offset| Some(QueueOffset(offset)));
    assert_eq!(*decision.queue_offsets, offsets);
    assert_eq!(s.all_bodies(), [[""; 0]; 2], "not before the decision is durable");
    s.store.sync().unwrap();
    assert_eq!(s.all_bodies(), [vec!["a", "c"], vec!["b"]]);
    assert_eq!(s.store.open_messages(), 0);
    let again = s.end(by_origin(origin, "tx", Outcome::Committed, Some(3)));
    let first_only = Decision { queue_offsets: Box::default(), ..decision };
    assert_eq!(again, OperationResult::AlreadyDecided(first_only));
}

#[test]
fn a_rollback_hides_all_messages_for_ever_and_needs_no_count() {
    let mut s = open();
    let origin = s.first("t", "tx", "a");
    s.join("u", "tx", 1, "b", origin);
    let decision = s.decided(by_origin(origin, "tx", Outcome::RolledBack, None));
    assert_eq!((decision.count, decision.queue_offset), (2, None));
    assert!(decision.queue_offsets.is_empty());
    let s = s.restart();
    assert_eq!(s.all_bodies(), [[""; 0]; 2]);
    assert_eq!(s.store.open_messages(), 0);
}

#[test]
fn a_commit_that_counts_otherwise_decides_nothing() {
    let mut s = open();
    let origin = s.first("t", "tx", "a");
    s.join("t", "tx", 1, "b", origin);
    for got in [None, Some(0), Some(1), Some(3)] {
        let incomplete = refused(Refusal::Incomplete { expected: 2, got });
        assert_eq!(s.end(by_origin(origin, "tx", Outcome::Committed, got)), incomplete);
        assert_eq!(s.end(by_id("tx", Outcome::Committed, got)), incomplete);
    }
    // it is still open: the missing message comes, and then the count is right
    s.join("t", "tx", 2, "c", origin);
    assert_eq!(s.decided(by_origin(origin, "tx", Outcome::Committed, Some(3))).count, 3);
}

#[test]
fn only_the_producers_own_commit_has_to_count() {
    for source in [Source::CheckBack, Source::Operator] {
        let mut s = open();
        let origin = s.first("t", "tx", "a");
        s.join("t", "tx", 1, "b", origin);
        let end = EndTransaction { source, ..by_origin(origin, "tx", Outcome::Committed, None) };
        assert_eq!(s.decided(end).count, 2);
    }
}

#[test]
fn a_repeated_message_is_answered_like_the_first_and_written_once() {
    let mut s = open();
    let origin = s.first("t", "tx", "a");
    let second = s.join("t", "tx", 1, "b", origin);
    let end = s.store.appended();
    assert_eq!(s.half("t", "tx", 0, "a"), at(origin));
    let repeat =
        OperationResult::Prepared { origin: PhysicalOffset(origin), position: PhysicalOffset(second) };
    assert_eq!(s.half("t", "tx", 1, "b"), repeat);
    assert_eq!(s.store.open_messages(), 2);
    assert_eq!(s.half("t", "tx", 0, "x"), refused(Refusal::SequenceReused));
    assert_eq!(s.half("t", "tx", 1, "longer"), refused(Refusal::SequenceReused));
    let mut s = s.restart();
    assert!(s.store.appended() > end);
    assert_eq!(s.half("t", "tx", 1, "b"), repeat, "also after a restart");
    assert_eq!(s.half("t", "tx", 1, "x"), refused(Refusal::SequenceReused));
    s.decided(by_origin(origin, "tx", Outcome::Committed, Some(2)));
    s.store.sync().unwrap();
    assert_eq!(s.bodies("t"), ["a", "b"]);
}

#[test]
fn messages_come_in_sequence_or_are_refused() {
    let mut s = open();
    assert_eq!(s.half("t", "tx", 1, "b"), refused(Refusal::NotOpen));
    let origin = s.first("t", "tx", "a");
    assert_eq!(s.half("t", "tx", 2, "c"), refused(Refusal::OutOfSequence { expected: 1 }));
    s.join("t", "tx", 1, "b", origin);
    s.join("t", "tx", 2, "c", origin);
    assert_eq!(s.store.open_messages(), 3, "what was refused left nothing behind");
}

#[test]
fn a_late_message_opens_nothing_after_the_decision() {
    for outcome in [Outcome::Committed, Outcome::RolledBack] {
        let mut s = open();
        let origin = s.first("t", "tx", "a");
        s.decided(by_origin(origin, "tx", outcome, Some(1)));
        let decided = refused(Refusal::Decided { origin: PhysicalOffset(origin), outcome });
        assert_eq!(s.half("t", "tx", 0, "a"), decided);
        assert_eq!(s.half("t", "tx", 1, "b"), decided);
        let mut s = s.restart();
        assert_eq!(s.half("t", "tx", 0, "a"), decided, "after a crash");
        s.store.checkpoint(true).unwrap();
        let mut s = s.restart();
        assert_eq!(s.half("t", "tx", 0, "a"), decided, "from a checkpoint");
        assert_eq!(s.store.open_messages(), 0);
    }
}

#[test]
fn an_id_belongs_to_its_producer_group() {
    let mut s = open();
    let origin = s.first("t", "tx", "a");
    let properties = "PGROUP\u{1}other\u{2}MEZZO_TX\u{1}tx\u{2}MEZZO_TX_SEQ\u{1}0\u{2}";
    let mut batch = Batch::default();
    s.encode(&mut batch, "t", properties, "o", None).unwrap();
    let OperationResult::Prepared { origin: other, .. } = s.append(&mut batch) else { panic!() };
    assert_ne!(other.0, origin);
    assert_eq!(s.decided(by_id("tx", Outcome::Committed, Some(1))).origin.0, origin);
    assert!(s.store.transaction(other).is_some());
    let wrong = EndTransaction {
        producer_group: Some(group()),
        ..EndTransaction::new(EndTarget::Origin(other), Outcome::Committed, Source::CheckBack)
    };
    assert_eq!(s.end(wrong), refused(Refusal::WrongGroup));
}

#[test]
fn a_transaction_is_bounded() {
    let mut s = open();
    let origin = s.first("t", "tx", "0");
    for sequence in 1..TRANSACTION_MESSAGES_MAX {
        s.join("t", "tx", sequence, &sequence.to_string(), origin);
    }
    let properties = "MEZZO_TX\u{1}tx\u{2}MEZZO_TX_SEQ\u{1}1000\u{2}";
    let beyond = s.encode(&mut Batch::default(), "t", properties, "x", None);
    assert!(matches!(beyond, Err(EncodeError::BadProperty { property: "MEZZO_TX_SEQ", .. })), "{beyond:?}");
    let decision = s.decided(by_id("tx", Outcome::Committed, Some(TRANSACTION_MESSAGES_MAX)));
    assert_eq!(decision.queue_offsets.len(), usize::from(TRANSACTION_MESSAGES_MAX));
    s.store.sync().unwrap();
    let want: Vec<String> = (0..TRANSACTION_MESSAGES_MAX).map(|n| n.to_string()).collect();
    assert_eq!(s.bodies("t"), want);
}

#[test]
fn every_message_counts_as_open() {
    let mut s = open_with(2);
    let origin = s.first("t", "tx", "a");
    s.join("t", "tx", 1, "b", origin);
    assert_eq!(s.half("t", "tx", 2, "c"), refused(Refusal::TooManyOpen));
    assert_eq!(s.half("t", "other", 0, "c"), refused(Refusal::TooManyOpen));
    assert!(matches!(s.half("t", "tx", 1, "b"), OperationResult::Prepared { .. }), "a repeat opens nothing");
    s.decided(by_origin(origin, "tx", Outcome::Committed, Some(2)));
    s.first("t", "other", "c");
}

#[test]
fn a_topic_with_a_joined_message_stays() {
    let mut s = open();
    let origin = s.first("t", "tx", "a");
    s.join("u", "tx", 1, "b", origin);
    let name = TopicName::new("u").unwrap();
    let mut s = s.restart();
    let delete = Operation::DeleteTopic(name);
    assert_eq!(s.one(delete.clone()), refused(Refusal::TopicHasOpenMessages));
    s.store.checkpoint(true).unwrap();
    let mut s = s.restart();
    assert_eq!(s.one(delete.clone()), refused(Refusal::TopicHasOpenMessages), "from a checkpoint");
    s.decided(by_origin(origin, "tx", Outcome::RolledBack, None));
    assert_eq!(s.one(delete), OperationResult::Done);
}

#[test]
fn a_restart_from_log_or_checkpoint_knows_every_message() {
    for checkpoint in [false, true] {
        let mut s = open();
        let origin = s.first("t", "tx", "a");
        s.join("u", "tx", 1, "b", origin);
        assert!(matches!(s.delayed("t", "tx", 2, "c", Some(50)), OperationResult::Prepared { .. }));
        if checkpoint {
            s.store.checkpoint(false).unwrap();
        }
        let mut s = s.restart();
        assert_eq!(s.store.open_messages(), 3);
        let half = s.store.half_message(PhysicalOffset(origin)).unwrap().unwrap();
        assert_eq!(MessageView::parse(&half.bytes).unwrap().body(), b"a", "the first speaks for all");
        s.join("u", "tx", 3, "d", origin);
        let decision = s.decided(by_id("tx", Outcome::Committed, Some(4)));
        let offsets = [Some(0), Some(0), None, Some(1)].map(|o| o.map(QueueOffset));
        assert_eq!(*decision.queue_offsets, offsets);
        let mut s = s.restart();
        assert_eq!(s.all_bodies(), [vec!["a"], vec!["b", "d"]]);
        s.now += 100;
        let now = s.now();
        assert_eq!(s.one(Operation::Tick(now)), OperationResult::Ticked { messages: 1 });
        s.store.sync().unwrap();
        assert_eq!(s.bodies("t"), ["a", "c"], "a delayed one waits for its own time");
    }
}

#[test]
fn a_joined_message_is_found_by_its_position_once_it_is_visible() {
    let mut s = open();
    let origin = s.first("t", "tx", "a");
    let second = PhysicalOffset(s.join("u", "tx", 1, "b", origin));
    s.store.sync().unwrap();
    assert!(matches!(s.store.read_by_position(second), Err(StorageError::NotARecord { .. })));
    s.decided(by_origin(origin, "tx", Outcome::Committed, Some(2)));
    assert!(matches!(s.store.read_by_position(second), Err(StorageError::NotARecord { .. })));
    s.store.sync().unwrap();
    let read = s.store.read_by_position(second).unwrap();
    assert_eq!(MessageView::parse(&read.message.bytes).unwrap().body(), b"b");
    assert_eq!(read.queue_offset, Some(QueueOffset(0)));
    assert_eq!(read.message.origin, Some(PhysicalOffset(origin)));
}

#[test]
fn end_by_id_decides_and_finds_what_was_decided() {
    let mut s = open();
    let unknown = refused(Refusal::UnknownOrExpired);
    assert_eq!(s.end(by_id("tx", Outcome::Committed, Some(1))), unknown);
    let origin = s.first("t", "tx", "a");
    assert_eq!(s.end(by_id("other", Outcome::Committed, Some(1))), unknown);
    let decision = s.decided(by_id("tx", Outcome::Committed, Some(1)));
    assert_eq!((decision.origin.0, decision.count), (origin, 1));
    let mut s = s.restart();
    assert_eq!(
        s.end(by_id("tx", Outcome::Committed, Some(1))),
        OperationResult::AlreadyDecided(decision.clone())
    );
    assert_eq!(s.end(by_id("tx", Outcome::RolledBack, None)), OperationResult::Conflict(decision));
}

#[test]
fn an_id_that_another_message_had_as_its_key_is_free_also_after_a_restart_from_a_checkpoint() {
    let mut s = open();
    let mut batch = Batch::default();
    s.encode(&mut batch, "t", "", "tx", None).unwrap();
    let OperationResult::Prepared { origin, .. } = s.append(&mut batch) else { panic!("not prepared") };
    s.decided(by_origin(origin.0, "tx", Outcome::Committed, None));
    let many = s.first("t", "other", "a");
    s.decided(by_origin(many, "other", Outcome::Committed, Some(1)));
    s.store.checkpoint(false).unwrap();
    let mut s = s.restart();
    s.first("t", "tx", "a");
    let decided = Refusal::Decided { origin: PhysicalOffset(many), outcome: Outcome::Committed };
    assert_eq!(s.half("t", "other", 0, "a"), refused(decided), "this one is decided");
}
