//! Pages of consume queues that are damaged while the store is open: who reads them is told to try again, they are made
//! anew from the log, and then all is as it was, without a restart.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, FileSystem, OpenMode, SimulatedDisk};
use mezzo_storage::{
    Batch, EndTarget, EndTransaction, NoObserver, Operation, OperationResult, Outcome, Queue, QueueEntry,
    Source, StorageError, Store, StoreOptions, TopicConfig, Visibility, key_hash,
};

const T0: u64 = 1_700_000_000_000;
const RETENTION_MS: u64 = 1_000_000;
const PAGES: &str = "/data/queues/pages-0";
const PAGE: u64 = 4096;

struct World {
    disk: SimulatedDisk,
    store: Arc<Store>,
    now: u64,
}

fn open(disk: &SimulatedDisk, now: u64) -> (Arc<Store>, Option<u64>) {
    let options = StoreOptions {
        segment_bytes: 32 << 10,
        frame_bytes_max: 8 << 10,
        retention_ms: RETENTION_MS,
        checkpoint_bytes: 1 << 10,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    };
    let now = Timestamp::from_ms(now);
    let (store, report) = Store::open(Arc::new(disk.clone()), options, now, Arc::new(NoObserver)).unwrap();
    (store, report.checkpoint)
}

impl World {
    /// Two topics with some pages each: plain messages, committed and delayed ones in turn.
    fn new() -> Self {
        let disk = SimulatedDisk::new();
        let (store, _) = open(&disk, T0);
        let mut world = Self { disk, store, now: T0 };
        for topic in ["a", "b"] {
            world.one(Operation::PutTopic(TopicConfig::new(TopicName::new(topic).unwrap(), 1)));
        }
        world.fill(500);
        world
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now)
    }

    fn append(&mut self, batch: &mut Batch) -> OperationResult {
        self.now += 1;
        while self.store.prepare_step().unwrap() {}
        self.store.append(self.now(), batch).unwrap();
        self.store.sync().unwrap();
        batch.results()[0].clone()
    }

    fn one(&mut self, operation: Operation) -> OperationResult {
        let mut batch = Batch::default();
        batch.push(operation);
        self.append(&mut batch)
    }

    fn fill(&mut self, messages: u64) {
        for number in 0..messages {
            let topic = if number % 2 == 0 { "a" } else { "b" };
            let visibility = match number % 7 {
                0 => Visibility::Prepared { delay_ms: None },
                1 => Visibility::Due(Timestamp::from_ms(self.now + 5)),
                _ => Visibility::Now,
            };
            let key = format!("{}-{number}", self.now);
            let properties =
                format!("UNIQ_KEY\u{1}{key}\u{2}PGROUP\u{1}pg\u{2}TAGS\u{1}t{}\u{2}", number % 3);
            let parts = MessageParts {
                topic,
                queue_id: QueueId(0),
                flag: 0,
                sys_flag: SysFlag(0),
                born_timestamp: self.now(),
                born_host: "127.0.0.1:1".parse().unwrap(),
                store_host_v6: false,
                reconsume_times: 0,
                body: key.as_bytes(),
                properties: properties.as_bytes(),
            };
            let mut batch = Batch::default();
            let handle = self.store.topic(topic).unwrap();
            batch.send(&self.store.encoder(), &handle, QueueId(0), visibility, &parts).unwrap();
            match self.append(&mut batch) {
                OperationResult::Prepared { origin, .. } => self.commit(origin, &key),
                OperationResult::Scheduled { .. } => self.now += 10,
                OperationResult::Stored { .. } => {}
                other => panic!("{other:?}"),
            }
            self.one(Operation::Tick(self.now()));
        }
    }

    fn commit(&mut self, origin: PhysicalOffset, key: &str) {
        let decided = self.one(Operation::End(EndTransaction {
            target: EndTarget::Origin(origin),
            table_offset: Some(origin.0),
            keys: Some([key_hash(key), 0]),
            producer_group: Some(GroupName::new("pg").unwrap()),
            outcome: Outcome::Committed,
            source: Source::Producer,
            count: Some(1),
            offsets: None,
            only_in_doubt: false,
            decider: None,
            reason: None,
        }));
        assert!(matches!(decided, OperationResult::Decided(_)), "{decided:?}");
    }

    fn queue(&self, topic: &str) -> Arc<Queue> {
        self.store.topic(topic).unwrap().queue(QueueId(0)).unwrap()
    }

    fn read(&self, topic: &str, from: u64) -> Result<Vec<(u64, QueueEntry)>, StorageError> {
        let queue = self.queue(topic);
        let read = self.store.read_entries(&queue, QueueOffset(from), usize::MAX, &mut |_| true)?;
        Ok(read.entries)
    }

    /// Entries whose messages can be read.
    fn living(&self, topic: &str) -> Vec<(u64, QueueEntry)> {
        let mut entries = self.read(topic, 0).unwrap();
        entries.retain(|(_, entry)| match self.store.read_message(entry) {
            Ok(message) => message.position.0 == entry.position,
            Err(StorageError::Gone { .. }) => false,
            Err(other) => panic!("{other}"),
        });
        entries
    }

    /// Housekeeping until there is nothing to do.
    fn keep(&mut self) {
        for _ in 0..1000 {
            while self.store.prepare_step().unwrap() {}
            if !self.store.keep(self.now()).unwrap() {
                return;
            }
        }
        panic!("housekeeping does not end");
    }
}

#[test]
fn a_damaged_page_is_made_anew_while_others_are_served() {
    let mut world = World::new();
    let (a, b) = (world.read("a", 0).unwrap(), world.read("b", 0).unwrap());
    assert!(a.len() > 200 && b.len() > 200);
    // one of "a": it had the first full page
    world.disk.flip_bit(Path::new(PAGES), 1000, 5).unwrap();
    let told = world.read("a", 0).unwrap_err();
    assert!(
        matches!(&told, StorageError::PageDamaged { file, offset: 0, .. } if file == Path::new(PAGES)),
        "{told}"
    );
    assert!(told.to_string().contains("try again"), "{told}");
    assert_eq!(world.read("b", 0).unwrap(), b, "another queue");
    assert!(!world.read("a", 170).unwrap().is_empty(), "and what lies behind the page");
    let at = Timestamp::from_ms(a[100].1.visible_at_ms);
    assert!(matches!(
        world.store.search_by_time(&world.queue("a"), at),
        Err(StorageError::PageDamaged { .. })
    ));

    world.keep();
    assert_eq!(world.read("a", 0).unwrap(), a);
    assert_eq!(world.store.search_by_time(&world.queue("a"), at).unwrap().0, a[100].0);
    let counts = world.store.damage_counts();
    assert_eq!((counts.damaged_pages, counts.mended_pages, counts.damaged_reads), (1, 1, 0));
    // and a start finds it whole
    world.store.checkpoint(false).unwrap();
    let disk = world.disk.crash(CrashMode::LoseUnsynced);
    let (store, checkpoint) = open(&disk, world.now);
    assert!(checkpoint.is_some(), "nothing had to be made anew");
    drop(store);
}

#[test]
fn a_file_of_pages_that_is_cut_short_is_made_whole_by_the_first_reader() {
    let mut world = World::new();
    let (a, b) = (world.read("a", 0).unwrap(), world.read("b", 0).unwrap());
    let file = world.disk.open(Path::new(PAGES), OpenMode::ReadWrite).unwrap();
    file.set_len(PAGE / 2).unwrap();
    assert!(matches!(world.read("a", 0), Err(StorageError::PageDamaged { .. })));
    world.keep();
    // nobody had looked at this one
    assert_eq!(world.read("b", 0).unwrap(), b);
    assert_eq!(world.read("a", 0).unwrap(), a);
    assert_eq!(world.store.damage_counts().mended_pages, 2);
}

#[test]
fn a_page_whose_front_retention_has_deleted_is_made_anew_as_far_as_there_is_something_to_read() {
    let mut world = World::new();
    world.now += RETENTION_MS / 2;
    world.fill(400);
    world.now += RETENTION_MS / 2;
    // the old ones go, up to somewhere in a page
    world.keep();
    assert!(world.store.first_position().0 > 0);
    let (a, b) = (world.living("a"), world.living("b"));
    for page in 0..4 {
        world.disk.flip_bit(Path::new(PAGES), page * PAGE + 77, 1).unwrap();
    }
    let (mut met, queues) = (0, ["a", "b"]);
    for _ in 0..4 {
        met += queues.iter().filter(|topic| world.read(topic, 0).is_err()).count();
        world.keep();
    }
    assert!(met > 0, "no page was left to be damaged");
    assert_eq!((world.living("a"), world.living("b")), (a, b));
    // and the rest of it goes in its time
    world.now += RETENTION_MS + 10;
    world.fill(100);
    world.keep();
    assert!(world.queue("a").min_offset().0 >= 340);
}

#[test]
fn where_the_log_is_damaged_too_the_page_stays_refused_and_the_rest_is_served() {
    let mut world = World::new();
    let b = world.read("b", 0).unwrap();
    world.disk.flip_bit(Path::new("/data/log/00000000000000000000"), 9000, 2).unwrap();
    world.disk.flip_bit(Path::new(PAGES), 1000, 5).unwrap();
    assert!(world.read("a", 0).is_err());
    let mut refused = 0;
    for _ in 0..50 {
        refused += u32::from(matches!(world.store.keep(world.now()), Err(StorageError::Corrupt { .. })));
    }
    assert_eq!(refused, 1, "tried once, and again after a pause");
    assert!(matches!(world.read("a", 0), Err(StorageError::PageDamaged { .. })));
    assert_eq!(world.read("b", 0).unwrap(), b);
    world.fill(10);
    assert!(!world.store.is_fenced());
    world.now += 61_000;
    assert!(matches!(world.store.keep(world.now()), Ok(true)), "begun once more");
}
