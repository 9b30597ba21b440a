//! The store through its door, on a real folder: what is visible when, and what a reopened store still knows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::RealFileSystem;
use mezzo_storage::{
    AckLevel, Batch, EndTarget, EndTransaction, NoObserver, Operation, OperationResult, Outcome, ParkReason,
    Queue, Refusal, Source, Store, StoreOptions, TopicConfig, Visibility, key_hash,
};

const T0: u64 = 1_700_000_000_000;

struct Fixture {
    store: Arc<Store>,
    now: u64,
}

fn options(dir: &Path, ack: AckLevel) -> StoreOptions {
    StoreOptions { segment_bytes: 1 << 20, frame_bytes_max: 64 << 10, ack, ..StoreOptions::new(dir) }
}

fn open(dir: &Path, ack: AckLevel) -> Fixture {
    open_with(options(dir, ack))
}

fn open_with(options: StoreOptions) -> Fixture {
    let fs = Arc::new(RealFileSystem);
    let (store, _) = Store::open(fs, options, Timestamp::from_ms(T0), Arc::new(NoObserver)).unwrap();
    Fixture { store, now: T0 }
}

impl Fixture {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now)
    }

    fn append(&mut self, batch: &mut Batch) -> Vec<OperationResult> {
        self.now += 1;
        self.store.append(self.now(), batch).unwrap();
        batch.results().to_vec()
    }

    fn one(&mut self, operation: Operation) -> OperationResult {
        let mut batch = Batch::default();
        batch.push(operation);
        self.append(&mut batch).remove(0)
    }

    fn topic(&mut self, name: &str) -> Arc<Queue> {
        let config = TopicConfig::new(TopicName::new(name).unwrap(), 1);
        assert_eq!(self.one(Operation::PutTopic(config)), OperationResult::Done);
        self.store.sync().unwrap();
        self.queue(name)
    }

    fn queue(&self, name: &str) -> Arc<Queue> {
        self.store.topic(name).unwrap().queue(QueueId(0)).unwrap()
    }

    fn send(&mut self, topic: &str, body: &str, visibility: Visibility) -> OperationResult {
        let mut batch = Batch::default();
        self.encode(&mut batch, topic, body, visibility);
        self.append(&mut batch).remove(0)
    }

    fn encode(&self, batch: &mut Batch, topic: &str, body: &str, visibility: Visibility) {
        let props = format!("UNIQ_KEY\u{1}{body}\u{2}PGROUP\u{1}pg\u{2}TAGS\u{1}t\u{2}");
        let host: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let parts = MessageParts {
            topic,
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: self.now(),
            born_host: host,
            store_host_v6: false,
            reconsume_times: 0,
            body: body.as_bytes(),
            properties: props.as_bytes(),
        };
        let topic = self.store.topic(topic).unwrap();
        batch.send(&self.store.encoder(), &topic, QueueId(0), visibility, &parts).unwrap();
    }

    fn half(&mut self, topic: &str, body: &str) -> PhysicalOffset {
        match self.send(topic, body, Visibility::Prepared { delay_ms: None }) {
            OperationResult::Prepared { origin, .. } => origin,
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, origin: PhysicalOffset, key: &str, outcome: Outcome) -> OperationResult {
        self.one(Operation::End(end_of(origin, key, outcome)))
    }

    fn bodies(&self, queue: &Queue) -> Vec<String> {
        let read = self.store.read_entries(queue, QueueOffset(0), 1000, &mut |_| true).unwrap();
        let body = |entry| {
            let message = self.store.read_message(entry).unwrap();
            let view = mezzo_protocol::message::record::MessageView::parse(&message.bytes).unwrap();
            view.verify_body_crc().unwrap();
            String::from_utf8(view.body().to_vec()).unwrap()
        };
        read.entries.iter().map(|(_, entry)| body(entry)).collect()
    }
}

fn end_of(origin: PhysicalOffset, key: &str, outcome: Outcome) -> EndTransaction {
    EndTransaction {
        target: EndTarget::Origin(origin),
        table_offset: Some(origin.0),
        keys: Some([key_hash(key), 0]),
        producer_group: Some(GroupName::new("pg").unwrap()),
        outcome,
        source: Source::Producer,
        count: None,
        offsets: None,
        only_in_doubt: false,
        decider: None,
        reason: None,
    }
}

fn none() -> Visibility {
    Visibility::Now
}

#[test]
fn a_message_is_visible_when_it_is_synced_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Durable);
    let queue = s.topic("t");
    let stored = s.send("t", "a", none());
    assert!(matches!(stored, OperationResult::Stored { queue_offset: QueueOffset(0), .. }));
    assert_eq!(s.bodies(&queue), [""; 0]);
    assert_eq!(queue.max_offset(), QueueOffset(0));
    s.store.sync().unwrap();
    assert_eq!(s.bodies(&queue), ["a"]);
    assert_eq!(queue.max_offset(), QueueOffset(1));
}

#[test]
fn at_acknowledgement_memory_a_message_is_visible_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Memory);
    let queue = s.topic("t");
    s.send("t", "a", none());
    assert_eq!(s.bodies(&queue), ["a"]);
}

#[test]
fn a_half_is_seen_by_no_read_before_its_commit_and_once_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Memory);
    let queue = s.topic("t");
    let origin = s.half("t", "h");
    assert_eq!(s.bodies(&queue), [""; 0]);
    assert!(s.store.read_by_position(origin).is_err());
    let decided = s.end(origin, "h", Outcome::Committed);
    let OperationResult::Decided(decision) = decided else { panic!("{decided:?}") };
    assert_eq!(decision.queue_offset, Some(QueueOffset(0)));
    assert_eq!(s.bodies(&queue), ["h"]);
    assert_eq!(s.store.read_by_position(origin).unwrap().queue_offset, Some(QueueOffset(0)));
    assert_eq!(s.end(origin, "h", Outcome::Committed), OperationResult::AlreadyDecided(decision.clone()));
    assert_eq!(s.end(origin, "h", Outcome::RolledBack), OperationResult::Conflict(decision));
    assert_eq!(s.bodies(&queue), ["h"]);
}

#[test]
fn a_commit_that_is_not_synced_shows_its_message_to_no_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Durable);
    let queue = s.topic("t");
    let origin = s.half("t", "h");
    s.store.sync().unwrap();
    s.end(origin, "h", Outcome::Committed);
    assert_eq!(s.bodies(&queue), [""; 0]);
    assert!(s.store.read_by_position(origin).is_err());
    s.store.sync().unwrap();
    assert_eq!(s.bodies(&queue), ["h"]);
    assert!(s.store.read_by_position(origin).is_ok());
}

#[test]
fn a_group_is_seen_when_it_is_synced_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Durable);
    let name = GroupName::new("g").unwrap();
    s.one(Operation::PutGroup(mezzo_storage::GroupConfig::new(name.clone())));
    assert!(s.store.group("g").is_none());
    s.store.sync().unwrap();
    assert!(s.store.group("g").is_some());
    s.one(Operation::DeleteGroup(name));
    assert!(s.store.group("g").is_some());
    s.store.sync().unwrap();
    assert!(s.store.group("g").is_none());
}

#[test]
fn a_rolled_back_half_stays_dead() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Memory);
    let queue = s.topic("t");
    let origin = s.half("t", "h");
    assert!(matches!(s.end(origin, "h", Outcome::RolledBack), OperationResult::Decided(_)));
    assert!(matches!(s.end(origin, "h", Outcome::Committed), OperationResult::Conflict(_)));
    assert_eq!(s.bodies(&queue), [""; 0]);
    assert!(s.store.read_by_position(origin).is_err());
}

#[test]
fn an_end_that_does_not_match_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Memory);
    s.topic("t");
    let origin = s.half("t", "h");
    let good = end_of(origin, "h", Outcome::Committed);
    let wrong = [
        (EndTransaction { table_offset: Some(origin.0 + 1), ..good.clone() }, Refusal::WrongTableOffset),
        (EndTransaction { keys: Some([1, 2]), ..good.clone() }, Refusal::WrongKey),
        (
            EndTransaction { producer_group: Some(GroupName::new("other").unwrap()), ..good.clone() },
            Refusal::WrongGroup,
        ),
        (
            EndTransaction { target: EndTarget::Origin(PhysicalOffset(origin.0 + 1)), ..good.clone() },
            Refusal::Unknown,
        ),
    ];
    // before the decision and after it
    for _ in 0..2 {
        for (end, refusal) in &wrong {
            assert_eq!(s.one(Operation::End(end.clone())), OperationResult::Refused(*refusal));
        }
        s.one(Operation::End(good.clone()));
    }
}

#[test]
fn delayed_messages_appear_at_their_tick_in_due_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Memory);
    let queue = s.topic("t");
    for (body, due) in [("late", 300), ("early", 100), ("later", 900)] {
        s.send("t", body, Visibility::Due(Timestamp::from_ms(T0 + due)));
    }
    assert_eq!(s.store.next_due_at(), Some(Timestamp::from_ms(T0 + 100)));
    s.one(Operation::Tick(Timestamp::from_ms(T0 + 50)));
    assert_eq!(s.bodies(&queue), [""; 0]);
    s.one(Operation::Tick(Timestamp::from_ms(T0 + 500)));
    assert_eq!(s.bodies(&queue), ["early", "late"]);
}

#[test]
fn a_delayed_half_waits_for_commit_and_delay() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Memory);
    let queue = s.topic("t");
    let delayed = Visibility::Prepared { delay_ms: Some(1000) };
    let OperationResult::Prepared { origin, .. } = s.send("t", "h", delayed) else { panic!() };
    s.end(origin, "h", Outcome::Committed);
    let committed_at = s.now;
    s.one(Operation::Tick(Timestamp::from_ms(committed_at + 999)));
    assert_eq!(s.bodies(&queue), [""; 0]);
    s.one(Operation::Tick(Timestamp::from_ms(committed_at + 1000)));
    assert_eq!(s.bodies(&queue), ["h"]);
}

#[test]
fn a_parked_transaction_is_off_the_timer_and_can_still_be_decided() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Memory);
    let queue = s.topic("t");
    let origin = s.half("t", "h");
    let park = Operation::Park { origin, reason: ParkReason::CheckMax };
    assert_eq!(s.one(park.clone()), OperationResult::Done);
    assert_eq!(s.one(park), OperationResult::Refused(Refusal::Unknown));
    assert!(s.store.due_checks(Timestamp::from_ms(T0 + 1_000_000), 10).is_empty());
    assert_eq!(s.store.in_doubt_of_group("pg", 10), [origin]);
    assert!(matches!(s.end(origin, "h", Outcome::Committed), OperationResult::Decided(_)));
    assert_eq!(s.bodies(&queue), ["h"]);
    assert!(s.store.in_doubt_of_group("pg", 10).is_empty());
}

#[test]
fn a_topic_with_open_messages_cannot_be_deleted_or_shrunk() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Memory);
    s.topic("t");
    let origin = s.half("t", "h");
    let name = TopicName::new("t").unwrap();
    let refused = OperationResult::Refused(Refusal::TopicHasOpenMessages);
    assert_eq!(s.one(Operation::DeleteTopic(name.clone())), refused);
    assert_eq!(s.one(Operation::PutTopic(TopicConfig::new(name.clone(), 0))), refused);
    s.end(origin, "h", Outcome::RolledBack);
    assert_eq!(s.one(Operation::DeleteTopic(name)), OperationResult::Done);
    assert!(s.store.topic("t").is_none());
}

#[test]
fn too_many_open_messages_are_refused_but_decided() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open_with(StoreOptions { open_messages_max: 1, ..options(dir.path(), AckLevel::Memory) });
    s.topic("t");
    let origin = s.half("t", "h");
    let refused = OperationResult::Refused(Refusal::TooManyOpen);
    assert_eq!(s.send("t", "h2", Visibility::Prepared { delay_ms: None }), refused);
    assert_eq!(s.send("t", "d", Visibility::Due(Timestamp::from_ms(T0))), refused);
    assert!(matches!(s.end(origin, "h", Outcome::Committed), OperationResult::Decided(_)));
    s.half("t", "h3");
}

/// Everything that a restart must know, by whichever way it comes back.
fn fill(s: &mut Fixture) -> (PhysicalOffset, PhysicalOffset, PhysicalOffset) {
    s.topic("t");
    s.topic("u");
    for i in 0..400 {
        s.send("t", &format!("m{i}"), none());
    }
    let committed = s.half("t", "committed");
    let open = s.half("t", "open");
    let rolled_back = s.half("t", "rolled back");
    s.end(committed, "committed", Outcome::Committed);
    s.end(rolled_back, "rolled back", Outcome::RolledBack);
    s.send("u", "due", Visibility::Due(Timestamp::from_ms(T0 + 77_000)));
    let group = GroupName::new("cg").unwrap();
    s.store.commit_offset(&group, &TopicName::new("t").unwrap(), QueueId(0), QueueOffset(7)).unwrap();
    s.store.flush_offsets(s.now()).unwrap();
    (committed, open, rolled_back)
}

fn check(s: &mut Fixture, origins: (PhysicalOffset, PhysicalOffset, PhysicalOffset)) {
    let (committed, open, rolled_back) = origins;
    let queue = s.queue("t");
    let mut want: Vec<String> = (0..400).map(|i| format!("m{i}")).collect();
    want.push("committed".into());
    assert_eq!(s.bodies(&queue), want);
    assert_eq!(queue.max_offset(), QueueOffset(401));
    assert_eq!(s.store.offset("cg", &TopicName::new("t").unwrap(), QueueId(0)), Some(QueueOffset(7)));
    assert_eq!(s.store.open_messages(), 2);
    assert_eq!(s.store.next_due_at(), Some(Timestamp::from_ms(T0 + 77_000)));
    assert!(matches!(s.end(committed, "committed", Outcome::RolledBack), OperationResult::Conflict(_)));
    assert!(matches!(
        s.end(rolled_back, "rolled back", Outcome::RolledBack),
        OperationResult::AlreadyDecided(_)
    ));
    let due = s.store.due_checks(Timestamp::from_ms(T0 + 100_000), 10);
    assert_eq!(due.iter().map(|d| d.transaction.origin).collect::<Vec<_>>(), [open]);
    assert!(s.store.half_message(open).unwrap().is_some());
    assert!(s.store.half_message(committed).unwrap().is_none());
}

#[test]
fn a_store_closed_in_order_comes_back_from_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Durable);
    let origins = fill(&mut s);
    s.store.close(s.now()).unwrap();
    drop(s);
    let fs = Arc::new(RealFileSystem);
    let options = options(dir.path(), AckLevel::Durable);
    let (store, report) = Store::open(fs, options, Timestamp::from_ms(T0), Arc::new(NoObserver)).unwrap();
    assert!(report.log.clean);
    assert!(report.checkpoint.is_some());
    check(&mut Fixture { store, now: T0 }, origins);
}

#[test]
fn a_store_that_was_killed_comes_back_from_its_log() {
    for ack in [AckLevel::Durable, AckLevel::Memory] {
        let dir = tempfile::tempdir().unwrap();
        let mut s = open(dir.path(), ack);
        let origins = fill(&mut s);
        drop(s);
        let mut s = open(dir.path(), AckLevel::Durable);
        if ack == AckLevel::Durable {
            check(&mut s, origins);
        } else {
            let queue = s.queue("t");
            assert_eq!(s.bodies(&queue).len(), 401);
            s.send("t", "next", none());
            s.store.sync().unwrap();
            assert_eq!(s.bodies(&queue).len(), 402);
            assert!(
                queue.max_offset().0 > 1 << 20,
                "offsets that a consumer may have seen are not used again"
            );
        }
    }
}

#[test]
fn a_store_killed_after_a_checkpoint_folds_on_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Durable);
    s.topic("t");
    s.topic("u");
    s.store.checkpoint(false).unwrap();
    let origins = fill(&mut s);
    drop(s);
    check(&mut open(dir.path(), AckLevel::Durable), origins);
}

#[test]
fn derived_folders_may_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Durable);
    let origins = fill(&mut s);
    s.store.close(s.now()).unwrap();
    drop(s);
    for folder in ["queues", "checkpoint", "history"] {
        std::fs::remove_dir_all(dir.path().join(folder)).unwrap();
    }
    check(&mut open(dir.path(), AckLevel::Durable), origins);
}

#[test]
fn retention_deletes_old_segments_from_the_front_and_waits_for_open_ones() {
    let dir = tempfile::tempdir().unwrap();
    let small = StoreOptions {
        retention_ms: 1000,
        checkpoint_bytes: 1 << 18,
        history_horizon_ms: 0,
        ..options(dir.path(), AckLevel::Durable)
    };
    let mut s = open_with(small.clone());
    let queue = s.topic("t");
    let held = s.half("t", "held");
    let body = "x".repeat(10_000);
    for _ in 0..400 {
        s.send("t", &body, none());
        while s.store.prepare_step().unwrap() {}
    }
    s.store.sync().unwrap();
    s.now += 5000;
    s.store.keep(s.now()).unwrap();
    assert_eq!(s.store.first_position(), PhysicalOffset(0), "an undecided message holds its segment");
    s.end(held, "held", Outcome::RolledBack);
    s.store.sync().unwrap();
    for _ in 0..10 {
        s.store.keep(s.now()).unwrap();
    }
    assert!(s.store.first_position().0 >= 2 << 20);
    let min = queue.min_offset();
    assert!(min.0 > 0);
    let read = s.store.read_entries(&queue, QueueOffset(0), 1, &mut |_| true).unwrap();
    assert_eq!(read.entries[0].0, min.0);
    s.store.read_message(&read.entries[0].1).unwrap();
    // the base carries what the deleted segments said
    drop(s);
    for folder in ["queues", "checkpoint"] {
        std::fs::remove_dir_all(dir.path().join(folder)).unwrap();
    }
    let mut s = open_with(small);
    let queue = s.queue("t");
    assert_eq!(queue.min_offset(), min);
    assert_eq!(queue.max_offset(), QueueOffset(400));
    assert!(matches!(
        s.end(held, "held", Outcome::Committed),
        OperationResult::Conflict(_) | OperationResult::Refused(Refusal::Expired)
    ));
}

#[test]
fn search_by_time_finds_the_first_message_visible_then() {
    let dir = tempfile::tempdir().unwrap();
    let mut s = open(dir.path(), AckLevel::Memory);
    let queue = s.topic("t");
    let mut times = Vec::new();
    for i in 0..500 {
        s.now += 10;
        s.send("t", &format!("m{i}"), none());
        times.push(s.now);
    }
    for (offset, at) in times.iter().enumerate() {
        for (ask, want) in [(*at, offset), (*at + 1, offset + 1), (*at - 1, offset)] {
            let found = s.store.search_by_time(&queue, Timestamp::from_ms(ask)).unwrap();
            assert_eq!(found, QueueOffset(want as u64), "at {ask}");
        }
    }
    assert_eq!(s.store.search_by_time(&queue, Timestamp::from_ms(0)).unwrap(), QueueOffset(0));
}

#[test]
fn a_second_owner_is_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let _s = open(dir.path(), AckLevel::Memory);
    let again = Store::open(
        Arc::new(RealFileSystem),
        options(dir.path(), AckLevel::Memory),
        Timestamp::from_ms(T0),
        Arc::new(NoObserver),
    );
    let error = again.err().unwrap().to_string();
    assert!(error.contains("another process"), "{error}");
}
