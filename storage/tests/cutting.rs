//! The space of a deleted segment comes back in pieces, on a real file system: a process that dies in between leaves a folder
//! that opens, and who appends does not wait for a piece.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mezzo_protocol::ids::{QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{File, FileSystem, LockGuard, Mapping, OpenMode, RealFileSystem};
use mezzo_storage::{
    Batch, NoObserver, Operation, OperationResult, Store, StoreOptions, TopicConfig, Visibility,
};

const T0: u64 = 1_700_000_000_000;
const RETENTION_MS: u64 = 60_000;
const SEGMENT_BYTES: u64 = 2 << 20;
/// An eighth.
const PIECE_BYTES: u64 = SEGMENT_BYTES / 8;
const PATIENCE: Duration = Duration::from_secs(20);

fn open(fs: Arc<dyn FileSystem>, dir: &Path, now: u64) -> Arc<Store> {
    let options = StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        frame_bytes_max: 256 << 10,
        retention_ms: RETENTION_MS,
        checkpoint_bytes: 1,
        ..StoreOptions::new(dir)
    };
    Store::open(fs, options, Timestamp::from_ms(now), Arc::new(NoObserver)).unwrap().0
}

fn send(store: &Store, now: u64, body: &[u8]) {
    let parts = MessageParts {
        topic: "t",
        queue_id: QueueId(0),
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: Timestamp::from_ms(now),
        born_host: "127.0.0.1:1".parse().unwrap(),
        store_host_v6: false,
        reconsume_times: 0,
        body,
        properties: b"",
    };
    let mut batch = Batch::default();
    let topic = store.topic("t").unwrap();
    batch.send(&store.encoder(), &topic, QueueId(0), Visibility::Now, &parts).unwrap();
    store.append(Timestamp::from_ms(now), &mut batch).unwrap();
    assert!(matches!(batch.results()[0], OperationResult::Stored { .. }), "{:?}", batch.results());
    store.sync().unwrap();
}

/// One segment of old messages and a younger message behind them; the time at which the old ones may go.
fn filled(store: &Store) -> u64 {
    let mut batch = Batch::default();
    batch.push(Operation::PutTopic(TopicConfig::new(TopicName::new("t").unwrap(), 1)));
    store.append(Timestamp::from_ms(T0), &mut batch).unwrap();
    store.sync().unwrap();
    while store.prepare_step().unwrap() {}
    let body = vec![b'x'; 100 << 10];
    while store.end().0 < SEGMENT_BYTES {
        send(store, T0, &body);
    }
    let later = T0 + RETENTION_MS + 10;
    send(store, later, b"young");
    later
}

fn deleted(dir: &Path) -> Option<(PathBuf, u64)> {
    let files = std::fs::read_dir(dir.join("log")).unwrap().flatten();
    let mut gone = files.filter(|file| file.path().extension().is_some_and(|ending| ending == "deleted"));
    gone.next().map(|file| (file.path(), file.metadata().unwrap().len()))
}

#[test]
fn a_process_that_dies_while_a_segment_is_cut_leaves_a_folder_that_opens() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let store = open(Arc::new(RealFileSystem), &dir, T0);
    let later = filled(&store);
    let mut sizes = Vec::new();
    for _ in 0..100 {
        store.keep(Timestamp::from_ms(later)).unwrap();
        if let Some((_, size)) = deleted(&dir) {
            sizes.push(size);
            if size < SEGMENT_BYTES {
                break;
            }
        }
    }
    assert_eq!(sizes.last(), Some(&(SEGMENT_BYTES - PIECE_BYTES)), "a piece is gone: {sizes:?}");
    drop(store);

    let store = open(Arc::new(RealFileSystem), &dir, later);
    assert!(store.first_position().0 > 0);
    for _ in 0..100 {
        store.keep(Timestamp::from_ms(later)).unwrap();
    }
    assert_eq!(deleted(&dir), None, "the rest of it is gone as well");
    let queue = store.topic("t").unwrap().queue(QueueId(0)).unwrap();
    let read = store.read_entries(&queue, QueueOffset(0), 100, &mut |_| true).unwrap();
    let readable = read.entries.iter().filter(|(_, entry)| store.read_message(entry).is_ok()).count();
    assert!(readable >= 1, "the young one");
    send(&store, later, b"goes on");
}

/// Says that a cut has begun, and waits until it may go on.
type Gate = (Sender<()>, Arc<Mutex<Receiver<()>>>);

/// A disk on which cutting a deleted segment takes as long as the test likes.
struct SlowCut {
    cuts: Sender<()>,
    go: Arc<Mutex<Receiver<()>>>,
}

struct SlowFile {
    file: Arc<dyn File>,
    gate: Option<Gate>,
}

impl FileSystem for SlowCut {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealFileSystem.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealFileSystem.list(dir)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealFileSystem.exists(path)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = RealFileSystem.open(path, mode)?;
        let slow = path.extension().is_some_and(|ending| ending == "deleted");
        let gate = slow.then(|| (self.cuts.clone(), Arc::clone(&self.go)));
        Ok(Arc::new(SlowFile { file, gate }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFileSystem.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFileSystem.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealFileSystem.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        RealFileSystem.lock(path)
    }
}

impl File for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        if let Some((cuts, go)) = &self.gate {
            // the test may be over
            let _ = cuts.send(());
            let _ = go.lock().unwrap().recv_timeout(PATIENCE);
        }
        self.file.set_len(len)
    }
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
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

#[test]
fn who_appends_and_reads_does_not_wait_while_a_segment_is_cut() {
    let scratch = tempfile::tempdir().unwrap();
    let (cuts, cut) = channel();
    let (release, go) = channel();
    let slow = SlowCut { cuts, go: Arc::new(Mutex::new(go)) };
    let store = open(Arc::new(slow), &scratch.path().join("data"), T0);
    let later = filled(&store);
    let keeper = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || {
            for _ in 0..100 {
                store.keep(Timestamp::from_ms(later)).unwrap();
            }
        })
    };
    for piece in 0..2 {
        cut.recv_timeout(PATIENCE).unwrap();
        // the cut stands still, and everything else goes on
        let body = format!("while piece {piece} is cut");
        send(&store, later, body.as_bytes());
        let queue = store.topic("t").unwrap().queue(QueueId(0)).unwrap();
        let last = QueueOffset(queue.max_offset().0 - 1);
        let read = store.read_entries(&queue, last, 1, &mut |_| true).unwrap();
        store.read_message(&read.entries[0].1).unwrap();
        assert!(!keeper.is_finished());
        release.send(()).unwrap();
    }
    // the rest goes as fast as it can
    drop(release);
    keeper.join().unwrap();
}
