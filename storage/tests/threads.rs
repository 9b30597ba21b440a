//! Real threads over a real disk, all at once: what the sanitizers look at. Who sends is told the truth, who reads finds a
//! message whole or gone, and what is handed out of a map stays as it was while its file is deleted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mezzo_protocol::ids::{QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::{MessageParts, MessageView};
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::{Clock, Timestamp};
use mezzo_storage::file_system::RealFileSystem;
use mezzo_storage::{
    AckLevel, Batch, EndTarget, EndTransaction, NoObserver, Operation, OperationResult, Outcome, Scrub,
    Source, StorageError, Store, StoreOptions, TopicConfig, Visibility,
};

const BEGIN_MS: u64 = 1_700_000_000_000;
const WRITERS: u32 = 3;
/// Messages that each writer sends; every third is a half message that is committed.
const MESSAGES: usize = 150;
/// Bytes of a body: some twenty make a segment.
const BODY_BYTES: usize = 3000;
/// Longest time that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A clock in which a millisecond passes each time that somebody looks.
#[derive(Debug)]
struct Looked(AtomicU64);

impl Clock for Looked {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn options(dir: &std::path::Path, ack: AckLevel) -> StoreOptions {
    StoreOptions {
        segment_bytes: 64 << 10,
        frame_bytes_max: 16 << 10,
        ack,
        // so that segments are deleted while the test runs
        retention_ms: 300,
        hot_bytes: 96 << 10,
        checkpoint_bytes: 32 << 10,
        flush_interval_ms: 5,
        scrub_bytes_per_second: 64 << 20,
        ..StoreOptions::new(dir)
    }
}

struct World<'a> {
    store: Arc<Store>,
    clock: &'a Looked,
    sent: Mutex<BTreeSet<String>>,
    is_over: AtomicBool,
}

impl World<'_> {
    fn body(name: &str) -> String {
        format!("{name}-{}", "x".repeat(BODY_BYTES))
    }

    /// Appends when there is room, and returns when it has reached the level of acknowledgement.
    fn append(&self, queue: QueueId, name: &str, visibility: &Visibility) -> OperationResult {
        let (body, properties) = (Self::body(name), format!("UNIQ_KEY\u{1}{name}\u{2}PGROUP\u{1}pg\u{2}"));
        let topic = self.store.topic("t").unwrap();
        self.until_done(|batch, now| {
            let parts = MessageParts {
                topic: "t",
                queue_id: queue,
                flag: 0,
                sys_flag: SysFlag(0),
                born_timestamp: now,
                born_host: ([127, 0, 0, 1], 1).into(),
                store_host_v6: false,
                reconsume_times: 0,
                body: body.as_bytes(),
                properties: properties.as_bytes(),
            };
            batch.send(&self.store.encoder(), &topic, queue, visibility.clone(), &parts).unwrap();
        })
    }

    fn until_done(&self, fill: impl Fn(&mut Batch, Timestamp)) -> OperationResult {
        let begun = Instant::now();
        loop {
            let mut batch = Batch::default();
            let now = self.clock.now();
            fill(&mut batch, now);
            let end = self.store.append(now, &mut batch).unwrap();
            if let OperationResult::Refused(refusal) = &batch.results()[0] {
                assert!(begun.elapsed() < PATIENCE, "{refusal:?}");
                thread::yield_now();
                continue;
            }
            if !self.store.sync_now_if_idle(end) {
                self.store.request_sync();
            }
            while self.store.limit() < end {
                assert!(begun.elapsed() < PATIENCE, "the limit does not come");
                thread::yield_now();
            }
            return batch.results()[0].clone();
        }
    }

    fn write(&self, writer: u32) {
        let queue = QueueId(writer % 2);
        for number in 0..MESSAGES {
            let name = format!("{writer}.{number}");
            if number % 3 == 0 {
                let sent = self.append(queue, &name, &Visibility::Prepared { delay_ms: None });
                let OperationResult::Prepared { origin, .. } = sent else { panic!("{sent:?}") };
                let target = EndTarget::Origin(origin);
                let end = EndTransaction::new(target, Outcome::Committed, Source::Producer);
                let ended = self.until_done(|batch, _| {
                    batch.push(Operation::End(end.clone()));
                });
                assert!(matches!(ended, OperationResult::Decided(_)), "{ended:?}");
            } else {
                let sent = self.append(queue, &name, &Visibility::Now);
                assert!(matches!(sent, OperationResult::Stored { .. }), "{sent:?}");
            }
            self.sent.lock().unwrap().insert(name);
        }
    }

    fn until_over(&self, mut step: impl FnMut()) {
        while !self.is_over.load(Ordering::Acquire) {
            step();
            thread::yield_now();
        }
    }

    /// Reads everything again and again; keeps some of it until later. What was read.
    fn read(&self, queue: QueueId) -> BTreeSet<String> {
        let queue = self.store.topic("t").unwrap().queue(queue).unwrap();
        let (mut from, mut names, mut held) = (QueueOffset(0), BTreeSet::new(), Vec::new());
        loop {
            let was_over = self.is_over.load(Ordering::Acquire);
            let read = self.store.read_entries(&queue, from, 32, &mut |_| true).unwrap();
            for (_, entry) in &read.entries {
                match self.store.read_message(entry) {
                    Ok(message) => {
                        names.insert(name_of(&message.bytes));
                        held.push(message.bytes);
                    }
                    Err(StorageError::Gone { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            if held.len() > 40 {
                // by now their segments may be cooled, closed and deleted
                held.drain(..20).for_each(|bytes| assert!(names.contains(&name_of(&bytes))));
            }
            from = QueueOffset(read.next_offset);
            if was_over && read.entries.is_empty() {
                return names;
            }
            thread::yield_now();
        }
    }

    /// All threads at once; what the readers read.
    fn live(&self) -> BTreeSet<String> {
        thread::scope(|scope| {
            let writers: Vec<_> =
                (0..WRITERS).map(|writer| scope.spawn(move || self.write(writer))).collect();
            let readers: Vec<_> =
                [0, 1, 0, 1].map(|queue| scope.spawn(move || self.read(QueueId(queue)))).into();
            // the store's own threads, which never rest here
            scope.spawn(|| self.until_over(|| self.store.sync_step().unwrap()));
            scope.spawn(|| self.until_over(|| _ = self.store.prepare_step().unwrap()));
            scope.spawn(|| self.until_over(|| _ = self.store.keep_step(self.clock.now()).unwrap()));
            let mut scrub = Scrub::default();
            scope.spawn(move || self.until_over(|| _ = self.store.scrub_step(&mut scrub).unwrap()));
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            self.is_over.store(true, Ordering::Release);
            readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
        })
    }
}

fn name_of(message: &[u8]) -> String {
    let body = String::from_utf8(MessageView::parse(message).unwrap().body().to_vec()).unwrap();
    let name = body.split('-').next().unwrap().to_owned();
    assert_eq!(body, World::body(&name));
    name
}

fn lives(ack: AckLevel) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Looked(AtomicU64::new(BEGIN_MS));
    let options = options(dir.path(), ack);
    let fs = Arc::new(RealFileSystem);
    let open = || Store::open(fs.clone(), options.clone(), clock.now(), Arc::new(NoObserver)).unwrap().0;
    let store = open();
    let mut batch = Batch::default();
    batch.push(Operation::PutTopic(TopicConfig::new(TopicName::new("t").unwrap(), 2)));
    store.append(clock.now(), &mut batch).unwrap();
    store.sync().unwrap();
    let world = World { store, clock: &clock, sent: Mutex::default(), is_over: AtomicBool::new(false) };
    let read = world.live();
    let sent = world.sent.into_inner().unwrap();
    assert_eq!(sent.len(), WRITERS as usize * MESSAGES);
    assert!(read.is_subset(&sent) && !read.is_empty());
    let damage = world.store.damage_counts();
    assert_eq!((damage.damaged_reads, damage.scrub_damages), (0, 0), "there is no damage");
    assert!(world.store.retention_figures().segments > 0, "nothing was deleted");
    let first = world.store.first_position();
    world.store.close(clock.now()).unwrap();
    drop(world.store);
    let again = open();
    assert_eq!((again.first_position(), again.open_messages()), (first, 0));
}

#[test]
fn a_store_whose_answers_are_durable_lives_with_all_its_threads() {
    lives(AckLevel::Durable);
}

#[test]
fn a_store_whose_answers_are_in_memory_lives_with_all_its_threads() {
    lives(AckLevel::Memory);
}
