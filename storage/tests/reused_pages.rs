//! A page of a consume queue that is dropped while somebody is about to read it, and belongs to another queue by then:
//! no damage, and nobody is told of any.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use mezzo_protocol::ids::{QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{File, FileSystem, LockGuard, Mapping, OpenMode, SimulatedDisk};
use mezzo_storage::{AckLevel, Batch, NoObserver, Operation, Store, StoreOptions, TopicConfig, Visibility};

const T0: u64 = 1_700_000_000_000;
const RETENTION_MS: u64 = 1000;
/// Entries of a page.
const PAGE: usize = 170;

type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A disk on which something else happens first when a consume queue is read, once.
struct Interrupted {
    disk: SimulatedDisk,
    first: Hook,
}

struct InterruptedFile {
    file: Arc<dyn File>,
    first: Hook,
}

impl FileSystem for Interrupted {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, mode)?;
        if !path.starts_with("/data/queues") {
            return Ok(file);
        }
        Ok(Arc::new(InterruptedFile { file, first: Arc::clone(&self.first) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.disk.lock(path)
    }
}

impl File for InterruptedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let first = self.first.lock().unwrap().take();
        if let Some(first) = first {
            first();
        }
        self.file.read_exact_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_writeback(offset, len)
    }

    fn map(&self) -> io::Result<Mapping> {
        self.file.map()
    }
}

fn send(store: &Store, now: u64, queue: u32, count: usize) {
    let mut batch = Batch::default();
    let topic = store.topic("t").unwrap();
    for _ in 0..count {
        let parts = MessageParts {
            topic: "t",
            queue_id: QueueId(queue),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: Timestamp::from_ms(now),
            born_host: ([127, 0, 0, 1], 1).into(),
            store_host_v6: false,
            reconsume_times: 0,
            body: b"a body of some length",
            properties: b"",
        };
        batch.send(&store.encoder(), &topic, QueueId(queue), Visibility::Now, &parts).unwrap();
    }
    while store.prepare_step().unwrap() {}
    store.append(Timestamp::from_ms(now), &mut batch).unwrap();
    store.sync().unwrap();
}

/// A store whose first queue has a full page that is old enough to go, and whose second needs a page with its next message.
/// When the first page is read, that comes to pass.
fn about_to_change() -> Arc<Store> {
    let first = Hook::default();
    let fs = Interrupted { disk: SimulatedDisk::new(), first: Arc::clone(&first) };
    let options = StoreOptions {
        segment_bytes: 32 << 10,
        frame_bytes_max: 8 << 10,
        ack: AckLevel::Memory,
        retention_ms: RETENTION_MS,
        checkpoint_bytes: 1,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    };
    let (store, _) =
        Store::open(Arc::new(fs), options, Timestamp::from_ms(T0), Arc::new(NoObserver)).unwrap();
    let mut batch = Batch::default();
    batch.push(Operation::PutTopic(TopicConfig::new(TopicName::new("t").unwrap(), 2)));
    store.append(Timestamp::from_ms(T0), &mut batch).unwrap();
    send(&store, T0, 0, PAGE);
    send(&store, T0 + 5, 0, 1);
    send(&store, T0 + 5, 1, PAGE);
    send(&store, T0 + 2 * RETENTION_MS, 0, 60);
    let life = Arc::clone(&store);
    *first.lock().unwrap() = Some(Box::new(move || {
        let now = T0 + 2 * RETENTION_MS;
        for _ in 0..3 {
            life.keep_step(Timestamp::from_ms(now)).unwrap();
        }
        life.checkpoint(false).unwrap();
        assert!(life.first_position().0 > 0, "nothing was deleted");
        send(&life, now, 1, 1);
    }));
    store
}

#[test]
fn a_read_goes_on_behind_what_was_dropped() {
    let store = about_to_change();
    let queue = store.topic("t").unwrap().queue(QueueId(0)).unwrap();
    let read = store.read_entries(&queue, QueueOffset(0), 1, &mut |_| true).unwrap();
    assert!(queue.min_offset().0 >= PAGE as u64, "the page is there still");
    let (offset, entry) = read.entries[0];
    assert_eq!(offset, queue.min_offset().0);
    assert!(store.read_message(&entry).is_ok());
    assert_eq!(store.damage_counts().damaged_reads, 0);
}

#[test]
fn a_search_by_time_finds_what_is_left() {
    let store = about_to_change();
    let queue = store.topic("t").unwrap().queue(QueueId(0)).unwrap();
    let found = store.search_by_time(&queue, Timestamp::from_ms(T0 + 3)).unwrap();
    assert_eq!(found, queue.min_offset());
    assert!(queue.min_offset().0 >= PAGE as u64, "the page is there still");
    assert_eq!(store.damage_counts().damaged_reads, 0);
}
