//! Threads that append, decide, sync, read, checkpoint and lose power, in thousands of orders that a scheduler chooses:
//! `cargo test -p mezzo-storage --features shuttle --test interleavings`. A failure prints its schedule, which
//! `shuttle::replay` plays again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::{MessageParts, MessageView};
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{
    AckLevel, Batch, EndTarget, EndTransaction, NoObserver, Operation, OperationResult, Outcome, Queue,
    Source, Store, StoreObserver, StoreOptions, TopicConfig, Visibility, key_hash,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::sync::{Condvar, Mutex};
use shuttle::{Config, Runner, thread};

const T0: Timestamp = Timestamp::from_ms(1_700_000_000_000);

/// Where everything lies that these tests write.
const FIRST_SEGMENT: &str = "/data/log/00000000000000000000";

/// A store and the bodies that were acknowledged as durable.
struct World {
    disk: SimulatedDisk,
    store: Arc<Store>,
    acknowledged: Mutex<BTreeSet<String>>,
    /// Tells a syncer that there is nothing more to come.
    is_over: AtomicBool,
}

/// Wakes those who wait for the limit, as the broker does.
#[derive(Default)]
struct Limit {
    reached: Mutex<u64>,
    moved: Condvar,
}

impl Limit {
    fn wait_for(&self, end: PhysicalOffset) {
        let mut reached = self.reached.lock().unwrap();
        while *reached < end.0 {
            reached = self.moved.wait(reached).unwrap();
        }
    }
}

impl StoreObserver for Limit {
    fn limit_advanced(&self, limit: PhysicalOffset) {
        let mut reached = self.reached.lock().unwrap();
        *reached = limit.0.max(*reached);
        self.moved.notify_all();
    }

    fn queue_grew(&self, _queue: &Arc<Queue>) {}

    fn fenced(&self, reason: &str) {
        panic!("fenced: {reason}");
    }
}

fn open(disk: &SimulatedDisk, ack: AckLevel) -> Arc<Store> {
    open_watched(disk, ack, Arc::new(NoObserver))
}

fn open_watched(disk: &SimulatedDisk, ack: AckLevel, observer: Arc<dyn StoreObserver>) -> Arc<Store> {
    let options = StoreOptions {
        segment_bytes: 32 << 10,
        frame_bytes_max: 8 << 10,
        ack,
        checkpoint_bytes: 1 << 10,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    };
    Store::open(Arc::new(disk.clone()), options, T0, observer).unwrap().0
}

impl World {
    fn new(ack: AckLevel) -> Arc<Self> {
        Self::watched_by(ack, Arc::new(NoObserver))
    }

    fn watched_by(ack: AckLevel, observer: Arc<dyn StoreObserver>) -> Arc<Self> {
        let disk = SimulatedDisk::new();
        let store = open_watched(&disk, ack, observer);
        let mut batch = Batch::default();
        batch.push(Operation::PutTopic(TopicConfig::new(TopicName::new("t").unwrap(), 1)));
        store.append(T0, &mut batch).unwrap();
        store.sync().unwrap();
        Arc::new(Self { disk, store, acknowledged: Mutex::default(), is_over: AtomicBool::new(false) })
    }

    fn append(&self, body: &str, visibility: Visibility) -> (PhysicalOffset, OperationResult) {
        let properties = format!("UNIQ_KEY\u{1}{body}\u{2}PGROUP\u{1}pg\u{2}");
        let parts = MessageParts {
            topic: "t",
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: T0,
            born_host: ([127, 0, 0, 1], 1).into(),
            store_host_v6: false,
            reconsume_times: 0,
            body: body.as_bytes(),
            properties: properties.as_bytes(),
        };
        let mut batch = Batch::default();
        let topic = self.store.topic("t").unwrap();
        batch.send(&self.store.encoder(), &topic, QueueId(0), visibility, &parts).unwrap();
        let end = self.store.append(T0, &mut batch).unwrap();
        (end, batch.results()[0].clone())
    }

    /// As a broker does before it answers.
    fn wait_for(&self, end: PhysicalOffset) {
        if !self.store.sync_now_if_idle(end) {
            self.store.sync().unwrap();
        }
        assert!(self.store.limit() >= end, "a sync ended before what was appended before it");
    }

    fn send(&self, body: &str) {
        let (end, _) = self.append(body, Visibility::Now);
        self.wait_for(end);
        self.acknowledged.lock().unwrap().insert(body.to_owned());
        assert!(bodies(&self.store).contains(body), "what is acknowledged is visible");
    }

    fn end(&self, origin: PhysicalOffset, outcome: Outcome) -> OperationResult {
        let mut end = EndTransaction::new(EndTarget::Origin(origin), outcome, Source::Producer);
        end.keys = Some([key_hash("half"), 0]);
        end.producer_group = Some(GroupName::new("pg").unwrap());
        let mut batch = Batch::default();
        batch.push(Operation::End(end));
        let end = self.store.append(T0, &mut batch).unwrap();
        self.wait_for(end);
        batch.results()[0].clone()
    }
}

/// All bodies of the queue, each once.
fn bodies(store: &Store) -> BTreeSet<String> {
    let queue = store.topic("t").unwrap().queue(QueueId(0)).unwrap();
    let read = store.read_entries(&queue, QueueOffset(0), 1000, &mut |_| true).unwrap();
    let mut found = BTreeSet::new();
    for (_, entry) in &read.entries {
        let message = store.read_message(entry).unwrap();
        let body = MessageView::parse(&message.bytes).unwrap().body().to_vec();
        assert!(found.insert(String::from_utf8(body).unwrap()), "a message is there twice");
    }
    found
}

/// Plays the scenario in `rounds` orders, or so many times more as MEZZO_SHUTTLE_TIMES says: half of them at random, half
/// with few switches at chosen places.
fn in_orders(rounds: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let times = std::env::var("MEZZO_SHUTTLE_TIMES").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let rounds = rounds * times / 2;
    let scenario = Arc::new(scenario);
    let schedulers: [Box<dyn Scheduler + Send>; 2] =
        [Box::new(RandomScheduler::new(rounds)), Box::new(PctScheduler::new(2, rounds))];
    for scheduler in schedulers {
        let scenario = Arc::clone(&scenario);
        let mut config = Config::new();
        // the store is written for the stacks of threads
        config.stack_size = 1 << 20;
        Runner::new(scheduler, config).run(move || scenario());
    }
}

#[test]
fn whoever_waits_for_the_limit_is_woken_when_its_own_bytes_are_durable() {
    in_orders(2000, || {
        let limit = Arc::new(Limit::default());
        let world = World::watched_by(AckLevel::Durable, Arc::clone(&limit) as Arc<dyn StoreObserver>);
        let writers = ["a", "b"].map(|body| {
            let (world, limit) = (Arc::clone(&world), Arc::clone(&limit));
            thread::spawn(move || {
                let (end, _) = world.append(body, Visibility::Now);
                limit.wait_for(end);
                let cut = world.disk.crash(CrashMode::LoseUnsynced);
                let durable = cut.content(Path::new(FIRST_SEGMENT)).unwrap();
                let is_there = durable.windows(3).any(|bytes| bytes == [1, body.as_bytes()[0], 2]);
                assert!(is_there, "{body} was acknowledged and is not on the disk");
            })
        });
        let syncer = Arc::clone(&world);
        let syncs = thread::spawn(move || {
            while !syncer.is_over.load(Ordering::SeqCst) {
                syncer.store.sync().unwrap();
                thread::yield_now();
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        world.is_over.store(true, Ordering::SeqCst);
        syncs.join().unwrap();
    });
}

#[test]
fn what_is_acknowledged_survives_a_power_cut_beside_a_checkpoint() {
    in_orders(400, || {
        let world = World::new(AckLevel::Durable);
        let mut threads = Vec::new();
        for writer in 0..2 {
            let world = Arc::clone(&world);
            threads.push(thread::spawn(move || {
                for turn in 0..2 {
                    world.send(&format!("{writer}-{turn}"));
                }
            }));
        }
        let keeper = Arc::clone(&world);
        threads.push(thread::spawn(move || keeper.store.checkpoint(false).unwrap()));
        let cut = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            thread::yield_now();
            let acknowledged = cut.acknowledged.lock().unwrap().clone();
            let after = open(&cut.disk.crash(CrashMode::LoseUnsynced), AckLevel::Durable);
            let found = bodies(&after);
            assert!(
                found.is_superset(&acknowledged),
                "{acknowledged:?} were acknowledged, {found:?} are there"
            );
        }));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(bodies(&world.store).len(), 4);
    });
}

#[test]
fn of_two_decisions_one_wins_and_both_hear_of_it() {
    in_orders(400, || {
        let world = World::new(AckLevel::Durable);
        let (end, result) = world.append("half", Visibility::Prepared { delay_ms: None });
        world.wait_for(end);
        let OperationResult::Prepared { origin, .. } = result else { panic!("{result:?}") };
        let decide = |outcome| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.end(origin, outcome))
        };
        let (commit, rollback) = (decide(Outcome::Committed), decide(Outcome::RolledBack));
        let reader = Arc::clone(&world);
        let reads = thread::spawn(move || {
            let seen = bodies(&reader.store).contains("half");
            let after = open(&reader.disk.crash(CrashMode::LoseUnsynced), AckLevel::Durable);
            // whoever has seen a message sees it again, whatever happens
            assert!(!seen || bodies(&after).contains("half"), "a power cut took back what was seen");
        });
        let results = [commit.join().unwrap(), rollback.join().unwrap()];
        reads.join().unwrap();
        let visible = bodies(&world.store).contains("half");
        match &results {
            [OperationResult::Decided(_), OperationResult::Conflict(_)] => assert!(visible),
            [OperationResult::Conflict(_), OperationResult::Decided(_)] => assert!(!visible),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn readers_see_a_queue_that_only_grows_and_whose_messages_are_whole() {
    in_orders(400, || {
        let world = World::new(AckLevel::Memory);
        let mut threads = Vec::new();
        for writer in 0..2 {
            let world = Arc::clone(&world);
            threads.push(thread::spawn(move || {
                for turn in 0..2 {
                    world.append(&format!("{writer}-{turn}"), Visibility::Now);
                }
            }));
        }
        let syncer = Arc::clone(&world);
        threads.push(thread::spawn(move || syncer.store.sync().unwrap()));
        let reader = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            let mut before = BTreeSet::new();
            for _ in 0..4 {
                let now = bodies(&reader.store);
                assert!(now.is_superset(&before));
                before = now;
                thread::yield_now();
            }
        }));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(bodies(&world.store).len(), 4);
    });
}
