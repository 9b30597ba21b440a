//! Holes between two steps of the store, each kept shut by one test: failed writes, operations that fit no frame,
//! retention across cuts and before a sync, what positions show, derived folders that go missing one by one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::{MessageParts, MessageView};
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, FileSystem, SimulatedDisk};
use mezzo_storage::{
    AckLevel, Batch, EndTarget, EndTransaction, GroupConfig, NoObserver, Operation, OperationResult, Outcome,
    Queue, Refusal, Source, StorageError, Store, StoreOptions, TopicConfig, Visibility, key_hash,
};

const T0: u64 = 1_700_000_000_000;
const SEGMENT_BYTES: u64 = 32 << 10;

struct Fixture {
    disk: SimulatedDisk,
    store: Arc<Store>,
    now: u64,
}

fn options(ack: AckLevel) -> StoreOptions {
    StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        frame_bytes_max: 8 << 10,
        ack,
        retention_ms: 1000,
        checkpoint_bytes: 1 << 10,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    }
}

fn open_on(disk: SimulatedDisk, ack: AckLevel, now: u64) -> Result<Fixture, StorageError> {
    let fs = Arc::new(disk.clone());
    let (store, _) = Store::open(fs, options(ack), Timestamp::from_ms(now), Arc::new(NoObserver))?;
    Ok(Fixture { disk, store, now })
}

fn open(ack: AckLevel) -> Fixture {
    open_on(SimulatedDisk::new(), ack, T0).unwrap()
}

fn name(topic: &str) -> TopicName {
    TopicName::new(topic).unwrap()
}

impl Fixture {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now)
    }

    /// The process dies, the disk is found as `mode` says, and the store is opened again.
    fn crash(self, mode: CrashMode) -> Self {
        let (disk, now) = (self.disk.crash(mode), self.now + 10);
        drop(self.store);
        open_on(disk, AckLevel::Durable, now).unwrap()
    }

    fn try_one(&mut self, operation: Operation) -> Result<OperationResult, StorageError> {
        self.now += 1;
        let mut batch = Batch::default();
        batch.push(operation);
        self.store.append(self.now(), &mut batch)?;
        Ok(batch.results()[0].clone())
    }

    fn one(&mut self, operation: Operation) -> OperationResult {
        self.try_one(operation).unwrap()
    }

    fn topic(&mut self, topic: &str) -> Arc<Queue> {
        assert_eq!(self.one(Operation::PutTopic(TopicConfig::new(name(topic), 1))), OperationResult::Done);
        self.store.sync().unwrap();
        self.queue(topic)
    }

    fn queue(&self, topic: &str) -> Arc<Queue> {
        self.store.topic(topic).unwrap().queue(QueueId(0)).unwrap()
    }

    fn encode(&self, batch: &mut Batch, topic: &str, body: &str, visibility: Visibility) {
        let props = format!("UNIQ_KEY\u{1}{body}\u{2}PGROUP\u{1}pg\u{2}");
        let parts = MessageParts {
            topic,
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: self.now(),
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host_v6: false,
            reconsume_times: 0,
            body: body.as_bytes(),
            properties: props.as_bytes(),
        };
        let topic = self.store.topic(topic).unwrap();
        batch.send(&self.store.encoder(), &topic, QueueId(0), visibility, &parts).unwrap();
    }

    fn send(&mut self, body: &str, visibility: Visibility) -> OperationResult {
        self.now += 1;
        let mut batch = Batch::default();
        self.encode(&mut batch, "t", body, visibility);
        self.store.append(self.now(), &mut batch).unwrap();
        batch.results()[0].clone()
    }

    fn half(&mut self, body: &str) -> PhysicalOffset {
        match self.send(body, Visibility::Prepared { delay_ms: None }) {
            OperationResult::Prepared { origin, .. } => origin,
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, origin: PhysicalOffset, key: &str, outcome: Outcome) -> OperationResult {
        self.one(Operation::End(end_of(origin, key, outcome)))
    }

    /// Messages until `segments` more segments have been begun; all of them durable.
    fn fill(&mut self, segments: u64) {
        let until = self.store.limit().0 + segments * SEGMENT_BYTES;
        while self.store.limit().0 < until {
            while self.store.prepare_step().unwrap() {}
            let body = format!("{}-{}", self.now, "x".repeat(1000));
            assert!(matches!(self.send(&body, Visibility::Now), OperationResult::Stored { .. }));
            self.store.sync().unwrap();
        }
    }

    fn keep(&self) {
        self.store.keep(self.now()).unwrap();
    }

    fn bodies(&self, topic: &str) -> Vec<String> {
        let read = self.store.read_entries(&self.queue(topic), QueueOffset(0), 9999, &mut |_| true).unwrap();
        let body = |(_, entry)| {
            let message = self.store.read_message(entry).unwrap();
            String::from_utf8(MessageView::parse(&message.bytes).unwrap().body().to_vec()).unwrap()
        };
        read.entries.iter().map(|(o, e)| body((o, e))).collect()
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

#[test]
fn a_decision_whose_write_failed_is_in_no_checkpoint() {
    let mut s = open(AckLevel::Durable);
    s.topic("t");
    let origin = s.half("h");
    s.store.sync().unwrap();
    s.disk.fail_write(1);
    assert!(s.try_one(Operation::End(end_of(origin, "h", Outcome::Committed))).is_err());
    assert!(s.store.close(s.now()).is_err(), "a fenced store cannot end in order");
    let s = s.crash(CrashMode::KeepAll);
    assert!(s.store.transaction(origin).is_some(), "still undecided");
}

#[test]
fn a_topic_with_attributes_can_be_deleted_for_good() {
    let mut s = open(AckLevel::Durable);
    let mut config = TopicConfig::new(name("t"), 1);
    config.attributes = (0..20).map(|i| (format!("attribute.{i}"), "v".repeat(20))).collect();
    s.one(Operation::PutTopic(config));
    assert_eq!(s.one(Operation::DeleteTopic(name("t"))), OperationResult::Done);
    s.store.sync().unwrap();
    let s = s.crash(CrashMode::LoseUnsynced);
    assert!(s.store.topic("t").is_none());
}

#[test]
fn a_batch_with_something_too_large_leaves_nothing_behind() {
    let mut s = open(AckLevel::Durable);
    let queue = s.topic("t");
    let mut batch = Batch::default();
    for i in 0..20 {
        s.encode(&mut batch, "t", &format!("{i}-{}", "x".repeat(1000)), Visibility::Now);
    }
    let mut config = TopicConfig::new(name("u"), 1);
    config.attributes.insert("a".into(), "v".repeat(20_000));
    batch.push(Operation::PutTopic(config));
    let before = s.store.limit();
    assert!(matches!(s.store.append(s.now(), &mut batch), Err(StorageError::TooLarge { .. })));
    s.store.checkpoint(false).unwrap();
    assert_eq!(s.store.limit(), before);
    assert_eq!(queue.max_offset(), QueueOffset(0));
    s.send("next", Visibility::Now);
    s.store.sync().unwrap();
    assert_eq!(s.bodies("t"), ["next"]);
}

#[test]
fn a_topic_that_no_restart_would_accept_is_not_admitted() {
    let mut s = open(AckLevel::Durable);
    let config = TopicConfig::new(name("t"), TopicConfig::QUEUES_MAX + 1);
    assert!(s.try_one(Operation::PutTopic(config)).is_err());
    s.store.sync().unwrap();
    let s = s.crash(CrashMode::KeepAll);
    assert!(s.store.topic("t").is_none());
}

#[test]
fn retention_goes_on_behind_a_cut() {
    let mut s = open(AckLevel::Durable);
    s.topic("t");
    s.fill(1);
    let mut s = s.crash(CrashMode::KeepAll);
    s.fill(4);
    s.now += 60_000;
    for _ in 0..20 {
        s.keep();
    }
    let first = s.store.first_position().0;
    assert!(first + 2 * SEGMENT_BYTES >= s.store.limit().0, "the log still begins at {first}");
    // and the base that is left carries the store without its checkpoint
    for file in s.disk.list(Path::new("/data/checkpoint")).unwrap() {
        s.disk.remove(&Path::new("/data/checkpoint").join(file)).unwrap();
    }
    let want = s.bodies("t");
    assert_eq!(s.crash(CrashMode::KeepAll).bodies("t"), want);
}

#[test]
fn bytes_of_a_half_outlive_a_rollback_that_is_not_durable() {
    let mut s = open(AckLevel::Durable);
    s.topic("t");
    let origin = s.half("h");
    s.fill(3);
    s.now += 60_000;
    s.keep();
    assert_eq!(s.store.first_position(), PhysicalOffset(0));
    s.end(origin, "h", Outcome::RolledBack);
    s.keep();
    let s = s.crash(CrashMode::LoseUnsynced);
    if s.store.transaction(origin).is_some() {
        assert!(s.store.half_message(origin).is_ok(), "an undecided half without bytes");
    }
}

#[test]
fn offsets_of_a_deleted_topic_do_not_come_back() {
    let mut s = open(AckLevel::Durable);
    s.topic("t");
    let entries = vec![(name("t"), QueueId(0), QueueOffset(7))];
    let group = GroupName::new("cg").unwrap();
    s.store.commit_offset(&group, &name("t"), QueueId(0), QueueOffset(7)).unwrap();
    // a flush that took its copy before the deletion and is appended behind it
    s.one(Operation::DeleteTopic(name("t")));
    s.one(Operation::Offsets { group, entries });
    s.topic("t");
    assert_eq!(s.store.offset("cg", &name("t"), QueueId(0)), None);
    let s = s.crash(CrashMode::LoseUnsynced);
    assert_eq!(s.store.offset("cg", &name("t"), QueueId(0)), None);
}

#[test]
fn more_offsets_than_a_frame_holds_are_logged_all_the_same() {
    let mut s = open(AckLevel::Durable);
    let config = TopicConfig::new(name("t"), 2000);
    s.one(Operation::PutTopic(config));
    let group = GroupName::new("cg").unwrap();
    for queue in 0..2000 {
        s.store.commit_offset(&group, &name("t"), QueueId(queue), QueueOffset(7)).unwrap();
    }
    while s.store.prepare_step().unwrap() {}
    s.store.flush_offsets(s.now()).unwrap();
    s.store.sync().unwrap();
    let s = s.crash(CrashMode::LoseUnsynced);
    assert_eq!(s.store.offsets_of("cg").len(), 2000);
}

#[test]
fn a_failed_sync_of_queue_pages_ends_the_store() {
    let mut s = open(AckLevel::Durable);
    s.topic("t");
    s.fill(1);
    s.disk.fail_sync(1);
    assert!(s.store.checkpoint(false).is_err());
    assert!(s.store.checkpoint(false).is_err(), "a sync is never retried");
    let s = s.crash(CrashMode::LoseUnsynced);
    assert!(!s.bodies("t").is_empty());
}

#[test]
fn a_position_shows_a_delayed_half_after_its_delay() {
    let mut s = open(AckLevel::Memory);
    s.topic("t");
    let delayed = Visibility::Prepared { delay_ms: Some(1000) };
    let OperationResult::Prepared { origin, .. } = s.send("h", delayed) else { panic!() };
    s.end(origin, "h", Outcome::Committed);
    assert!(s.store.read_by_position(origin).is_err());
    s.now += 2000;
    s.one(Operation::Tick(s.now()));
    assert_eq!(s.bodies("t"), ["h"]);
    assert_eq!(s.store.read_by_position(origin).unwrap().queue_offset, Some(QueueOffset(0)));
}

#[test]
fn each_derived_folder_may_be_deleted_alone() {
    for folder in ["queues", "history", "checkpoint"] {
        let mut s = open(AckLevel::Durable);
        s.topic("t");
        let origin = s.half("h");
        s.end(origin, "h", Outcome::Committed);
        for i in 0..400 {
            s.send(&format!("m{i}"), Visibility::Now);
            while s.store.prepare_step().unwrap() {}
        }
        s.store.sync().unwrap();
        s.store.keep(Timestamp::from_ms(T0)).unwrap();
        s.store.close(s.now()).unwrap();
        let want = s.bodies("t");
        let dir = Path::new("/data").join(folder);
        for file in s.disk.list(&dir).unwrap() {
            s.disk.remove(&dir.join(file)).unwrap();
        }
        let mut s = s.crash(CrashMode::KeepAll);
        assert_eq!(s.bodies("t"), want, "without {folder}");
        let again = s.end(origin, "h", Outcome::RolledBack);
        assert!(matches!(again, OperationResult::Conflict(_)), "without {folder}: {again:?}");
        // what was rebuilt must not be spoilt by what was left of before
        let s = s.crash(CrashMode::KeepAll);
        assert_eq!(s.bodies("t"), want, "without {folder}, after another crash");
    }
}

#[test]
fn a_jump_that_is_owed_is_made_by_the_next_start() {
    let mut s = open(AckLevel::Memory);
    s.topic("t");
    s.send("seen", Visibility::Now);
    let disk = s.disk.crash(CrashMode::LoseUnsynced);
    drop(s);
    let mut stop = 0;
    loop {
        let dying = disk.crash(CrashMode::KeepAll);
        dying.fail_after_ops(stop);
        let ended = open_on(dying.clone(), AckLevel::Durable, T0 + 5).is_ok();
        let s = open_on(dying.crash(CrashMode::KeepAll), AckLevel::Durable, T0 + 9).unwrap();
        assert!(s.queue("t").max_offset().0 >= 1 << 20, "stopped at operation {stop}");
        if ended {
            return;
        }
        stop += 1;
    }
}

#[test]
fn a_full_disk_refuses_messages_and_fences_nothing() {
    let mut s = open(AckLevel::Durable);
    s.topic("t");
    let origin = s.half("h");
    s.store.sync().unwrap();
    while s.store.prepare_step().unwrap() {}
    s.keep();
    s.disk.limit_space(Some(0));
    let mut refused = false;
    for i in 0..2000 {
        let sent = s.send(&format!("m{i}"), Visibility::Now);
        s.store.sync().unwrap();
        refused = sent == OperationResult::Refused(Refusal::NoRoom);
        if refused {
            break;
        }
    }
    assert!(refused);
    let no_room = OperationResult::Refused(Refusal::NoRoom);
    assert_eq!(s.one(Operation::PutGroup(GroupConfig::new(GroupName::new("cg").unwrap()))), no_room);
    assert!(matches!(s.end(origin, "h", Outcome::Committed), OperationResult::Decided(_)));
    s.store.sync().unwrap();
    assert!(!s.store.is_fenced());
}

#[test]
fn queues_of_deleted_topics_are_not_mixed_up_with_new_ones() {
    let mut s = open(AckLevel::Durable);
    s.topic("t");
    for round in 0..3 {
        let body = format!("h{round}");
        let origin = s.half(&body);
        s.topic("other");
        s.end(origin, &body, Outcome::Committed);
        s.store.sync().unwrap();
        assert_eq!(s.bodies("t"), [body]);
        assert!(s.bodies("other").is_empty());
        s.one(Operation::DeleteTopic(name("t")));
        s.one(Operation::DeleteTopic(name("other")));
        s.topic("t");
    }
    let origin = s.half("last");
    s.topic("other");
    s.store.checkpoint(false).unwrap();
    let mut s = s.crash(CrashMode::LoseUnsynced);
    s.end(origin, "last", Outcome::Committed);
    s.store.sync().unwrap();
    assert_eq!((s.bodies("t"), s.bodies("other")), (vec!["last".to_owned()], Vec::new()));
}

fn clear(disk: &SimulatedDisk, folder: &str) {
    let dir = Path::new("/data").join(folder);
    for file in disk.list(&dir).unwrap() {
        disk.remove(&dir.join(file)).unwrap();
    }
}

#[test]
fn a_new_log_does_not_believe_the_history_of_the_one_before() {
    let mut s = open(AckLevel::Durable);
    s.topic("t");
    let old = s.half("h");
    s.end(old, "h", Outcome::Committed);
    s.fill(2);
    s.store.close(s.now()).unwrap();
    s.keep();
    clear(&s.disk, "base");
    clear(&s.disk, "log");
    let disk = s.disk.crash(CrashMode::KeepAll);
    drop(s);
    let mut s = open_on(disk, AckLevel::Durable, T0).unwrap();
    for folder in ["history", "checkpoint"] {
        assert_eq!(s.disk.list(&Path::new("/data").join(folder)).unwrap(), [""; 0], "{folder}");
    }
    let unknown = OperationResult::Refused(Refusal::Unknown);
    assert_eq!(s.end(old, "h", Outcome::Committed), unknown);
    s.topic("t");
    let origin = s.half("h2");
    s.end(origin, "h2", Outcome::RolledBack);
    s.fill(2);
    s.keep();
    assert!(matches!(s.end(origin, "h2", Outcome::Committed), OperationResult::Conflict(_)));
}

fn bases(disk: &SimulatedDisk) -> Vec<String> {
    let mut names = disk.list(Path::new("/data/base")).unwrap();
    names.retain(|name| name.parse::<u64>().is_ok());
    names.sort();
    names
}

/// Damages the newest base; says where.
fn damage_newest_base(disk: &SimulatedDisk) -> String {
    let newest = bases(disk).pop().unwrap();
    disk.flip_bit(&Path::new("/data/base").join(&newest), 20, 1).unwrap();
    newest
}

#[test]
fn a_damaged_base_is_not_replaced_by_one_whose_log_is_gone() {
    let mut s = open(AckLevel::Durable);
    s.topic("t");
    s.fill(4);
    s.now += 60_000;
    s.keep();
    s.keep();
    assert!(s.store.first_position() > PhysicalOffset(0));
    let disk = s.disk.crash(CrashMode::KeepAll);
    drop(s);
    let newest = damage_newest_base(&disk);
    let before = disk.operations();
    let error = open_on(disk.clone(), AckLevel::Durable, T0).err().expect("a log without its beginning");
    let error = error.to_string();
    assert!(error.contains(&newest) && error.contains("newest base"), "{error}");
    assert_eq!(disk.operations(), before, "nothing is changed");
}

#[test]
fn a_damaged_base_is_replaced_by_the_one_before_it_while_the_log_is_whole() {
    let mut s = open(AckLevel::Durable);
    s.topic("t");
    s.fill(4);
    let want = s.bodies("t");
    s.now += 60_000;
    // dies between the new base and the removal of what lies before it
    let mut stop = 0;
    let disk = loop {
        let dying = s.disk.crash(CrashMode::KeepAll);
        let copy = open_on(dying.clone(), AckLevel::Durable, s.now).unwrap();
        copy.store.sync().unwrap();
        dying.fail_after_ops(stop);
        let _ = copy.store.keep(copy.now());
        let after = dying.crash(CrashMode::KeepAll);
        if bases(&after).len() == 2 {
            break after;
        }
        stop += 1;
    };
    damage_newest_base(&disk);
    assert_eq!(open_on(disk, AckLevel::Durable, s.now).unwrap().bodies("t"), want);
}

#[test]
fn a_group_that_nobody_knows_is_not_deleted_and_one_of_offsets_alone_is() {
    let mut s = open(AckLevel::Durable);
    s.topic("t");
    let group = GroupName::new("cg").unwrap();
    let end = s.store.limit();
    let refused = OperationResult::Refused(Refusal::NotFound);
    assert_eq!(s.one(Operation::DeleteGroup(group.clone())), refused);
    s.store.sync().unwrap();
    assert_eq!(s.store.limit(), end, "nothing was written");
    s.store.commit_offset(&group, &name("t"), QueueId(0), QueueOffset(7)).unwrap();
    assert_eq!(s.one(Operation::DeleteGroup(group.clone())), OperationResult::Done);
    assert!(s.store.offsets_of("cg").is_empty());
    s.one(Operation::PutGroup(GroupConfig::new(group.clone())));
    assert_eq!(s.one(Operation::DeleteGroup(group.clone())), OperationResult::Done);
    assert_eq!(s.one(Operation::DeleteGroup(group)), refused);
}

#[test]
fn the_names_of_all_folders_are_durable_when_a_new_store_is_open() {
    let disk = SimulatedDisk::new();
    let mut options = options(AckLevel::Durable);
    options.dir = "/srv/mezzo/data".into();
    let store =
        Store::open(Arc::new(disk.clone()), options, Timestamp::from_ms(T0), Arc::new(NoObserver)).unwrap();
    assert_eq!(disk.unsynced_folders(), [""; 0].map(std::path::PathBuf::from));
    drop(store);
    // made by a start that was stopped before the sync
    let disk = SimulatedDisk::new();
    disk.create_dir_all(Path::new("/data")).unwrap();
    let s = open_on(disk, AckLevel::Durable, T0).unwrap();
    assert_eq!(s.disk.unsynced_folders(), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn nobody_is_asked_about_a_half_that_a_power_cut_could_take_back() {
    let mut s = open(AckLevel::Durable);
    s.topic("t");
    let origin = s.half("h");
    s.now += 600_000;
    assert_eq!(s.store.due_checks(s.now(), 10), [], "it is not durable: its producer has not heard of it");
    s.store.sync().unwrap();
    s.now += 600_000;
    let due = s.store.due_checks(s.now(), 10);
    assert_eq!(due.iter().map(|check| check.transaction.origin).collect::<Vec<_>>(), [origin]);
}
