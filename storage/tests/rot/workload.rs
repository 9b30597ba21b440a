//! A random life of a store, and what it was told on the way: the facts that a later start must not contradict.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{
    Batch, EndTarget, EndTransaction, NoObserver, OpenReport, Operation, OperationResult, Outcome, Refusal,
    Source, StorageError, Store, StoreOptions, TopicConfig, Visibility, key_hash,
};

use super::damage::Damage;

pub(crate) const TOPICS: [&str; 2] = ["t", "u"];
const T0: u64 = 1_700_000_000_000;
const SEGMENT_BYTES: u64 = 32 << 10;

/// A small deterministic generator (xorshift), so that a seed is a life.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// Something that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) enum Fact {
    /// `position`: of the message itself, where it is known.
    Visible {
        topic: usize,
        offset: u64,
        body: String,
        position: Option<u64>,
    },
    Decided {
        origin: u64,
        key: String,
        outcome: Outcome,
    },
    Open {
        origin: u64,
        topic: usize,
        body: String,
    },
}

pub(crate) struct World {
    pub(crate) disk: SimulatedDisk,
    /// Each with the end of the frame that made it so.
    pub(crate) facts: Vec<(u64, Fact)>,
    pub(crate) sent: BTreeSet<String>,
    /// Bodies of transactions that were rolled back.
    pub(crate) dead: BTreeSet<String>,
    /// End of the frame that made the last topic.
    pub(crate) topics_end: u64,
    /// Start and end of each frame; all before it was synced when it was written.
    frames: Vec<(u64, u64)>,
    /// Position of the checkpoint on the disk.
    checkpoint: u64,
    now_ms: u64,
    retention_ms: u64,
    due: BTreeMap<(u64, u64), (usize, String)>,
    next: [u64; 2],
}

impl World {
    /// Lives through some dozens of steps, once stopped or killed in the middle, and is stopped or killed at the end.
    pub(crate) fn make(random: &mut Random) -> Self {
        let mut world = Self {
            disk: SimulatedDisk::new(),
            facts: Vec::new(),
            sent: BTreeSet::new(),
            dead: BTreeSet::new(),
            topics_end: 0,
            frames: Vec::new(),
            checkpoint: 0,
            now_ms: T0,
            retention_ms: if random.below(3) == 0 { 30 } else { 1_000_000 },
            due: BTreeMap::new(),
            next: [0; 2],
        };
        let mut store = world.start();
        for name in TOPICS {
            let config = TopicConfig::new(TopicName::new(name).unwrap(), 1);
            let mut batch = Batch::default();
            batch.push(Operation::PutTopic(config));
            world.topics_end = world.append(&store, &mut batch);
        }
        for _ in 0..2 {
            for _ in 0..20 + random.below(60) {
                world.step(&store, random);
            }
            if random.below(3) == 0 {
                store.close(world.now()).unwrap();
                world.checkpoint = store.limit().0;
            }
            drop(store);
            let mode = if random.below(2) == 0 { CrashMode::KeepAll } else { CrashMode::LoseUnsynced };
            world.disk = world.disk.crash(mode);
            store = world.start();
        }
        // the second start ends at once, in order or not
        for _ in 0..random.below(4) {
            world.step(&store, random);
        }
        if random.below(2) == 0 {
            store.close(world.now()).unwrap();
            world.checkpoint = store.limit().0;
        }
        drop(store);
        world
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now_ms)
    }

    pub(crate) fn open(&self, disk: &SimulatedDisk) -> Result<(Arc<Store>, OpenReport), StorageError> {
        let options = StoreOptions {
            segment_bytes: SEGMENT_BYTES,
            frame_bytes_max: 8 << 10,
            retention_ms: self.retention_ms,
            history_horizon_ms: 1_000_000,
            nonce: Some([7; 16]),
            ..StoreOptions::new("/data")
        };
        Store::open(Arc::new(disk.clone()), options, self.now(), Arc::new(NoObserver))
    }

    fn start(&mut self) -> Arc<Store> {
        let (store, _) = self.open(&self.disk).unwrap();
        while store.prepare_step().unwrap() {}
        store
    }

    /// Everything below was known synced, as whatever the damage has left alone says.
    pub(crate) fn known_synced(&self, damage: &Damage) -> u64 {
        let hit = damage.positions(SEGMENT_BYTES);
        let left = self.frames.iter().filter(|(start, end)| *end <= hit.start || *start >= hit.end);
        left.map(|(start, _)| *start).max().unwrap_or(0).max(self.checkpoint)
    }

    fn append(&mut self, store: &Store, batch: &mut Batch) -> u64 {
        self.now_ms += 1;
        let start = store.limit().0;
        let end = store.append(self.now(), batch).unwrap().0;
        store.sync().unwrap();
        if end > start {
            self.frames.push((start, end));
        }
        end
    }

    fn step(&mut self, store: &Store, random: &mut Random) {
        let topic = random.below(2) as usize;
        let size = [10, 200, 3000][random.below(3) as usize];
        let open: Vec<(u64, usize, String)> = self.open_now();
        match random.below(16) {
            0..=5 => self.send(store, topic, Visibility::Now, size),
            6..=8 => self.send(store, topic, Visibility::Prepared { delay_ms: None }, size),
            9 => {
                let due = Visibility::Due(Timestamp::from_ms(self.now_ms + random.below(20)));
                self.send(store, topic, due, size);
            }
            10 | 11 if !open.is_empty() => {
                let chosen = open[random.below(open.len() as u64) as usize].clone();
                let outcome = if random.below(3) == 0 { Outcome::RolledBack } else { Outcome::Committed };
                self.decide(store, chosen, outcome);
            }
            12 => self.tick(store),
            13 => {
                store.checkpoint(false).unwrap();
                self.checkpoint = store.limit().0;
            }
            14 => {
                while store.prepare_step().unwrap() {}
                store.keep(self.now()).unwrap();
            }
            _ => self.now_ms += random.below(40),
        }
    }

    fn open_now(&self) -> Vec<(u64, usize, String)> {
        let of = |(_, fact): &(u64, Fact)| match fact {
            Fact::Open { origin, topic, body } => Some((*origin, *topic, body.clone())),
            _ => None,
        };
        self.facts.iter().filter_map(of).collect()
    }

    fn send(&mut self, store: &Store, topic: usize, visibility: Visibility, size: usize) {
        let body = format!("{}-{}", self.sent.len(), "x".repeat(size));
        let properties = format!("UNIQ_KEY\u{1}{body}\u{2}PGROUP\u{1}pg\u{2}");
        let parts = self.parts(topic, &body, &properties);
        let due = match &visibility {
            Visibility::Due(at) => at.as_ms(),
            _ => 0,
        };
        let handle = store.topic(TOPICS[topic]).unwrap();
        let mut batch = Batch::default();
        batch.send(&store.encoder(), &handle, QueueId(0), visibility, &parts).unwrap();
        let end = self.append(store, &mut batch);
        match &batch.results()[0] {
            OperationResult::Stored { queue_offset, position } => {
                let (offset, position) = (queue_offset.0, Some(position.0));
                self.seen(end, topic, offset, body.clone(), position);
            }
            OperationResult::Prepared { origin, .. } => {
                self.facts.push((end, Fact::Open { origin: origin.0, topic, body: body.clone() }));
            }
            OperationResult::Scheduled { position } => {
                self.due.insert((due, position.0), (topic, body.clone()));
            }
            // nothing is prepared ahead in between
            OperationResult::Refused(Refusal::NoRoom) => {}
            other => panic!("{other:?}"),
        }
        self.sent.insert(body);
    }

    fn seen(&mut self, end: u64, topic: usize, offset: u64, body: String, position: Option<u64>) {
        self.next[topic] = offset + 1;
        self.facts.push((end, Fact::Visible { topic, offset, body, position }));
    }

    fn tick(&mut self, store: &Store) {
        let mut batch = Batch::default();
        let now = self.now_ms + 1;
        batch.push(Operation::Tick(Timestamp::from_ms(now)));
        let end = self.append(store, &mut batch);
        let later = self.due.split_off(&(now + 1, 0));
        for ((_, position), (topic, body)) in std::mem::replace(&mut self.due, later) {
            self.seen(end, topic, self.next[topic], body, Some(position));
        }
    }

    fn decide(&mut self, store: &Store, (origin, topic, body): (u64, usize, String), outcome: Outcome) {
        let mut batch = Batch::default();
        batch.push(end_of(origin, &body, outcome));
        let end = self.append(store, &mut batch);
        let OperationResult::Decided(decision) = &batch.results()[0] else {
            panic!("{:?}", batch.results());
        };
        self.facts.retain(|(_, fact)| !matches!(fact, Fact::Open { origin: o, .. } if *o == origin));
        match decision.queue_offset {
            Some(offset) => self.seen(end, topic, offset.0, body.clone(), Some(origin)),
            None => {
                self.dead.insert(body.clone());
            }
        }
        self.facts.push((end, Fact::Decided { origin, key: body, outcome }));
    }

    /// End of the log, as it was last acknowledged.
    pub(crate) fn end(&self) -> u64 {
        self.frames.last().map_or(0, |(_, end)| *end)
    }

    /// Where the frame begins that ends at `end`.
    pub(crate) fn frame_start(&self, end: u64) -> u64 {
        self.frames.iter().find(|(_, of)| *of == end).map_or(end, |(start, _)| *start)
    }

    /// Sends a message that is no fact.
    pub(crate) fn send_one(&self, store: &Store, topic: usize, body: &str) {
        let Some(handle) = store.topic(TOPICS[topic]) else {
            let mut batch = Batch::default();
            batch.push(Operation::PutTopic(TopicConfig::new(TopicName::new(TOPICS[topic]).unwrap(), 1)));
            store.append(self.now(), &mut batch).unwrap();
            store.sync().unwrap();
            return self.send_one(store, topic, body);
        };
        let parts = self.parts(topic, body, "");
        let mut batch = Batch::default();
        batch.send(&store.encoder(), &handle, QueueId(0), Visibility::Now, &parts).unwrap();
        store.append(self.now(), &mut batch).unwrap();
        store.sync().unwrap();
        assert!(matches!(batch.results()[0], OperationResult::Stored { .. }));
    }

    fn parts<'a>(&self, topic: usize, body: &'a str, properties: &'a str) -> MessageParts<'a> {
        MessageParts {
            topic: TOPICS[topic],
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: self.now(),
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host_v6: false,
            reconsume_times: 0,
            body: body.as_bytes(),
            properties: properties.as_bytes(),
        }
    }

    /// Says END again.
    pub(crate) fn end_again(
        &self,
        store: &Store,
        origin: u64,
        key: &str,
        outcome: Outcome,
    ) -> Result<OperationResult, StorageError> {
        let mut batch = Batch::default();
        batch.push(end_of(origin, key, outcome));
        store.append(self.now(), &mut batch)?;
        store.sync()?;
        Ok(batch.results()[0].clone())
    }
}

fn end_of(origin: u64, key: &str, outcome: Outcome) -> Operation {
    Operation::End(EndTransaction {
        target: EndTarget::Origin(PhysicalOffset(origin)),
        table_offset: Some(origin),
        keys: Some([key_hash(key), 0]),
        producer_group: Some(GroupName::new("pg").unwrap()),
        outcome,
        source: Source::Producer,
        count: Some(1),
        offsets: None,
        only_in_doubt: false,
        decider: None,
        reason: None,
    })
}
