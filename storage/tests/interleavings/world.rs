//! A store on a simulated disk, who watches it, and the orders in which its threads run.

use std::collections::BTreeSet;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::{MessageParts, MessageView};
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{
    AckLevel, Batch, EndTarget, EndTransaction, NoObserver, Operation, OperationResult, Outcome, Queue,
    Source, StorageError, Store, StoreObserver, StoreOptions, TopicConfig, Visibility, key_hash,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::AtomicBool;
use shuttle::sync::{Condvar, Mutex};
use shuttle::{Config, Runner};

pub(crate) const T0: Timestamp = Timestamp::from_ms(1_700_000_000_000);
pub(crate) const RETENTION_MS: u64 = 1000;
/// What is as old as [`T0`] may be deleted.
pub(crate) const LATER: Timestamp = Timestamp::from_ms(1_700_000_000_000 + 10 * RETENTION_MS);

/// Where everything lies that the tests of acknowledging write.
pub(crate) const FIRST_SEGMENT: &str = "/data/log/00000000000000000000";

/// A store and the bodies that were acknowledged as durable.
pub(crate) struct World {
    pub(crate) disk: SimulatedDisk,
    pub(crate) store: Arc<Store>,
    pub(crate) acknowledged: Mutex<BTreeSet<String>>,
    /// Tells a syncer that there is nothing more to come.
    pub(crate) is_over: AtomicBool,
}

/// Wakes those who wait for the limit, as the broker does.
#[derive(Default)]
pub(crate) struct Limit {
    reached: Mutex<Reached>,
    moved: Condvar,
}

#[derive(Default)]
struct Reached {
    limit: u64,
    is_fenced: bool,
}

impl Limit {
    /// Whether it came; if not, the store is fenced.
    pub(crate) fn wait_for(&self, end: PhysicalOffset) -> bool {
        let mut reached = self.reached.lock().unwrap();
        while reached.limit < end.0 && !reached.is_fenced {
            reached = self.moved.wait(reached).unwrap();
        }
        reached.limit >= end.0
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.reached.lock().unwrap().is_fenced
    }
}

impl StoreObserver for Limit {
    fn limit_advanced(&self, limit: PhysicalOffset) {
        let mut reached = self.reached.lock().unwrap();
        reached.limit = limit.0.max(reached.limit);
        self.moved.notify_all();
    }

    fn queue_grew(&self, _queue: &Arc<Queue>) {}

    fn fenced(&self, _reason: &str) {
        self.reached.lock().unwrap().is_fenced = true;
        self.moved.notify_all();
    }
}

pub(crate) fn options(ack: AckLevel) -> StoreOptions {
    StoreOptions {
        segment_bytes: 32 << 10,
        frame_bytes_max: 8 << 10,
        ack,
        retention_ms: RETENTION_MS,
        checkpoint_bytes: 1 << 10,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    }
}

pub(crate) fn open(disk: &SimulatedDisk, ack: AckLevel) -> Arc<Store> {
    open_with(disk, options(ack), Arc::new(NoObserver))
}

fn open_with(disk: &SimulatedDisk, options: StoreOptions, observer: Arc<dyn StoreObserver>) -> Arc<Store> {
    Store::open(Arc::new(disk.clone()), options, T0, observer).unwrap().0
}

impl World {
    pub(crate) fn new(ack: AckLevel) -> Arc<Self> {
        Self::watched_by(ack, Arc::new(NoObserver))
    }

    pub(crate) fn watched_by(ack: AckLevel, observer: Arc<dyn StoreObserver>) -> Arc<Self> {
        Self::made(options(ack), 1, observer)
    }

    pub(crate) fn made(options: StoreOptions, queues: u32, observer: Arc<dyn StoreObserver>) -> Arc<Self> {
        let disk = SimulatedDisk::new();
        let store = open_with(&disk, options, observer);
        let mut batch = Batch::default();
        batch.push(Operation::PutTopic(TopicConfig::new(TopicName::new("t").unwrap(), queues)));
        store.append(T0, &mut batch).unwrap();
        store.sync().unwrap();
        Arc::new(Self { disk, store, acknowledged: Mutex::default(), is_over: AtomicBool::new(false) })
    }

    /// The process was killed, and another one goes on.
    pub(crate) fn started_again(&self, options: StoreOptions) -> Arc<Self> {
        let disk = self.disk.crash(CrashMode::KeepAll);
        let store = open_with(&disk, options, Arc::new(NoObserver));
        Arc::new(Self { disk, store, acknowledged: Mutex::default(), is_over: AtomicBool::new(false) })
    }

    pub(crate) fn append(&self, body: &str, visibility: Visibility) -> (PhysicalOffset, OperationResult) {
        self.try_append(T0, QueueId(0), &[body], visibility).unwrap()
    }

    /// One batch; the result of its last message.
    pub(crate) fn try_append(
        &self,
        now: Timestamp,
        queue: QueueId,
        bodies: &[&str],
        visibility: Visibility,
    ) -> Result<(PhysicalOffset, OperationResult), StorageError> {
        let mut batch = Batch::default();
        let topic = self.store.topic("t").unwrap();
        for body in bodies {
            let properties = format!("UNIQ_KEY\u{1}{}\u{2}PGROUP\u{1}pg\u{2}", key_of(body));
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
        }
        let end = self.store.append(now, &mut batch)?;
        Ok((end, batch.results().last().unwrap().clone()))
    }

    /// As a broker does before it answers.
    pub(crate) fn wait_for(&self, end: PhysicalOffset) {
        if !self.store.sync_now_if_idle(end) {
            self.store.sync().unwrap();
        }
        assert!(self.store.limit() >= end, "a sync ended before what was appended before it");
    }

    pub(crate) fn send(&self, body: &str) {
        let (end, _) = self.append(body, Visibility::Now);
        self.wait_for(end);
        self.acknowledged.lock().unwrap().insert(body.to_owned());
        assert!(bodies(&self.store).contains(body), "what is acknowledged is visible");
    }

    pub(crate) fn end(&self, now: Timestamp, origin: PhysicalOffset, outcome: Outcome) -> OperationResult {
        let mut end = EndTransaction::new(EndTarget::Origin(origin), outcome, Source::Producer);
        end.keys = Some([key_hash("half"), 0]);
        end.producer_group = Some(GroupName::new("pg").unwrap());
        let mut batch = Batch::default();
        batch.push(Operation::End(end));
        let end = self.store.append(now, &mut batch).unwrap();
        self.wait_for(end);
        batch.results()[0].clone()
    }

    /// What a start finds after a power cut that finds nothing written but what was synced.
    pub(crate) fn after_power_cut(&self) -> Arc<Store> {
        open(&self.disk.crash(CrashMode::LoseUnsynced), AckLevel::Durable)
    }

    /// Prepares whatever is to be prepared.
    pub(crate) fn prepare(&self) {
        while self.store.prepare_step().unwrap() {}
    }
}

/// The part of a body before the first dash.
fn key_of(body: &str) -> &str {
    body.split("--").next().unwrap()
}

/// All bodies of the first queue that are not deleted, each once.
pub(crate) fn bodies(store: &Store) -> BTreeSet<String> {
    let queue = store.topic("t").unwrap().queue(QueueId(0)).unwrap();
    let read = store.read_entries(&queue, QueueOffset(0), 1000, &mut |_| true).unwrap();
    let mut found = BTreeSet::new();
    for (_, entry) in &read.entries {
        match store.read_message(entry) {
            Ok(message) => assert!(found.insert(body_of(&message.bytes)), "a message is there twice"),
            Err(StorageError::Gone { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    found
}

pub(crate) fn body_of(message: &[u8]) -> String {
    String::from_utf8(MessageView::parse(message).unwrap().body().to_vec()).unwrap()
}

/// Plays the scenario in `rounds` orders, or so many times more as MEZZO_SHUTTLE_TIMES says: half of them at random, half
/// with few switches at chosen places.
pub(crate) fn in_orders(rounds: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let times = std::env::var("MEZZO_SHUTTLE_TIMES").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let rounds = rounds * times / 2;
    let scenario = Arc::new(scenario);
    let schedulers: [Box<dyn Scheduler + Send>; 2] =
        [Box::new(RandomScheduler::new(rounds)), Box::new(PctScheduler::new(3, rounds))];
    for scheduler in schedulers {
        let scenario = Arc::clone(&scenario);
        let mut config = Config::new();
        // the store is written for the stacks of threads
        config.stack_size = 1 << 20;
        Runner::new(scheduler, config).run(move || scenario());
    }
}
