//! The whole store on a simulated disk, against a model: a script of operations is stopped at every disk operation and
//! at every kind of crash, the store is opened again, and what it shows must be exactly what the model held at the end
//! of the recovered log, which must not lie before what was synced.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::{MessageParts, MessageView};
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{
    AckLevel, Batch, EndTarget, EndTransaction, LeaseRequest, NoObserver, OffsetMove, OpenFilter, OpenReport,
    OpenState, Operation, OperationResult, Outcome, ParkReason, Refusal, Source, StorageError, Store,
    StoreOptions, TopicConfig, TransactionOffsets, Visibility, key_hash,
};

const T0: u64 = 1_700_000_000_000;
const TOPICS: [&str; 2] = ["t", "u"];

/// An undecided transaction: topic and body of each message, and whether it is in doubt. One that began with an id may
/// have several; the id is its first body.
#[derive(Debug, Clone, Default, PartialEq)]
struct Open {
    messages: Vec<(&'static str, String)>,
    with_id: bool,
    in_doubt: bool,
}

/// What must be so at one end of the log.
#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    /// Per topic: offset and body of each visible message.
    visible: BTreeMap<&'static str, Vec<(u64, String)>>,
    open: BTreeMap<u64, Open>,
    /// (due, position) → (topic, body).
    due: BTreeMap<(u64, u64), (&'static str, String)>,
    /// Origin → (key, outcome).
    decided: BTreeMap<u64, (String, Outcome)>,
    /// Epoch of the lease of the first topic's queue, held under ever other names.
    lease: Option<u64>,
    /// Offset of that queue that decisions have moved.
    moved: Option<u64>,
}

/// The store under test, the model beside it, and the model's past by position.
struct Run {
    disk: SimulatedDisk,
    ack: AckLevel,
    store: Option<Arc<Store>>,
    state: State,
    /// State at each end of the log that an append returned.
    past: BTreeMap<u64, State>,
    now: u64,
    next_body: u64,
    /// Everything below was known synced.
    synced: u64,
}

/// A small deterministic generator (xorshift), so that a seed is a script.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn options(ack: AckLevel) -> StoreOptions {
    StoreOptions {
        segment_bytes: 32 << 10,
        frame_bytes_max: 8 << 10,
        ack,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    }
}

fn open(disk: &SimulatedDisk, ack: AckLevel, now: u64) -> Result<(Arc<Store>, OpenReport), StorageError> {
    Store::open(Arc::new(disk.clone()), options(ack), Timestamp::from_ms(now), Arc::new(NoObserver))
}

impl Open {
    /// What END names it by.
    fn key(&self) -> String {
        let first = &self.messages[0].1;
        if self.with_id { first.split('-').next().unwrap().to_owned() } else { first.clone() }
    }
}

impl Run {
    fn new(disk: SimulatedDisk, ack: AckLevel) -> Self {
        Self {
            disk,
            ack,
            store: None,
            state: State::default(),
            past: BTreeMap::new(),
            now: T0,
            next_body: 0,
            synced: 0,
        }
    }

    fn store(&self) -> Arc<Store> {
        Arc::clone(self.store.as_ref().unwrap())
    }

    fn start(&mut self) -> Result<(), StorageError> {
        let (store, report) = open(&self.disk, self.ack, self.now)?;
        if report.created {
            self.past.insert(report.log.end, State::default());
        }
        // the start's own frame changes nothing
        self.synced = store.limit().0;
        self.past.insert(self.synced, self.state.clone());
        self.store = Some(store);
        Ok(())
    }

    /// Appends one operation, lets `model` change the state by its result, and remembers the state at the log's end.
    fn append(
        &mut self,
        mut batch: Batch,
        model: impl FnOnce(&mut State, &OperationResult),
    ) -> Result<(), StorageError> {
        self.now += 1;
        let before = self.state.clone();
        let end = match self.store().append(Timestamp::from_ms(self.now), &mut batch) {
            Ok(end) => end.0,
            Err(e) => {
                // the write may or may not have reached the disk; if it has, all of it counts
                self.state = before;
                return Err(e);
            }
        };
        model(&mut self.state, &batch.results()[0]);
        self.past.insert(end, self.state.clone());
        Ok(())
    }

    fn one(
        &mut self,
        operation: Operation,
        model: impl FnOnce(&mut State, &OperationResult),
    ) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        batch.push(operation);
        self.append(batch, model)
    }

    fn put_topic(&mut self, name: &'static str) -> Result<(), StorageError> {
        let config = TopicConfig::new(TopicName::new(name).unwrap(), 1);
        self.one(Operation::PutTopic(config), |state, _| {
            state.visible.insert(name, Vec::new());
        })?;
        self.sync()
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let store = self.store();
        store.sync()?;
        self.synced = self.synced.max(store.limit().0);
        Ok(())
    }

    fn send(&mut self, topic: &'static str, visibility: Visibility, size: usize) -> Result<(), StorageError> {
        self.send_in(topic, visibility, size, None)
    }

    /// Sends a message; as one of a transaction with an id if `of_many` names one (0: a new one).
    fn send_in(
        &mut self,
        topic: &'static str,
        visibility: Visibility,
        size: usize,
        of_many: Option<u64>,
    ) -> Result<(), StorageError> {
        self.next_body += 1;
        let body = format!("{}-{}", self.next_body, "x".repeat(size));
        let mut props = format!("UNIQ_KEY\u{1}{body}\u{2}PGROUP\u{1}pg\u{2}");
        if let Some(origin) = of_many {
            let messages = self.state.open.get(&origin).map_or(&[][..], |open| &open.messages);
            let id = messages.first().map_or(&body, |(_, first)| first);
            let id = id.split('-').next().unwrap();
            props += &format!("MEZZO_TX\u{1}{id}\u{2}MEZZO_TX_SEQ\u{1}{}\u{2}", messages.len());
        }
        let parts = MessageParts {
            topic,
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: Timestamp::from_ms(self.now),
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host_v6: false,
            reconsume_times: 0,
            body: body.as_bytes(),
            properties: props.as_bytes(),
        };
        let store = self.store();
        let mut batch = Batch::default();
        let due = match visibility {
            Visibility::Due(at) => at.as_ms(),
            _ => 0,
        };
        let handle = store.topic(topic).unwrap();
        batch.send(&store.encoder(), &handle, QueueId(0), visibility, &parts).unwrap();
        self.append(batch, |state, result| match result {
            OperationResult::Stored { queue_offset, .. } => {
                state.visible.entry(topic).or_default().push((queue_offset.0, body));
            }
            OperationResult::Prepared { origin, .. } => {
                let open = state.open.entry(origin.0).or_default();
                open.messages.push((topic, body));
                open.with_id = of_many.is_some();
            }
            OperationResult::Scheduled { position } => {
                state.due.insert((due, position.0), (topic, body));
            }
            other => assert!(matches!(other, OperationResult::Refused(_)), "{other:?}"),
        })
    }

    fn end(&mut self, origin: u64, outcome: Outcome) -> Result<(), StorageError> {
        let open = self.state.open.get(&origin);
        let (key, count) = match (open, self.state.decided.get(&origin)) {
            (Some(open), _) => (open.key(), Some(u16::try_from(open.messages.len()).unwrap())),
            (None, Some((key, _))) => (key.clone(), None),
            (None, None) => return Ok(()),
        };
        let to = self.now - T0;
        let offsets = self.state.lease.map(|epoch| TransactionOffsets {
            group: GroupName::new("cg").unwrap(),
            entries: vec![OffsetMove {
                topic: TopicName::new(TOPICS[0]).unwrap(),
                queue: QueueId(0),
                from: self.state.moved.map(QueueOffset),
                offset: QueueOffset(to),
                epoch,
            }],
        });
        let end = EndTransaction {
            target: EndTarget::Origin(PhysicalOffset(origin)),
            table_offset: Some(origin),
            keys: Some([key_hash(&key), 0]),
            producer_group: Some(GroupName::new("pg").unwrap()),
            outcome,
            source: Source::Producer,
            count,
            offsets,
            only_in_doubt: false,
            decider: None,
            reason: None,
        };
        self.one(Operation::End(end), |state, result| match result {
            OperationResult::Decided(decision) => {
                let open = state.open.remove(&origin).expect("only an open one can be decided");
                assert_eq!(decision.outcome, outcome);
                assert_eq!(usize::from(decision.count), open.messages.len());
                if outcome == Outcome::Committed {
                    state.moved = state.lease.map(|_| to).or(state.moved);
                    let first = [decision.queue_offset];
                    let offsets = if open.messages.len() == 1 { &first } else { &*decision.queue_offsets };
                    for ((topic, body), offset) in open.messages.into_iter().zip(offsets) {
                        state.visible.entry(topic).or_default().push((offset.unwrap().0, body));
                    }
                }
                state.decided.insert(origin, (key, outcome));
            }
            OperationResult::AlreadyDecided(_) => assert_eq!(state.decided[&origin].1, outcome),
            OperationResult::Conflict(_) => assert_ne!(state.decided[&origin].1, outcome),
            other => panic!("{other:?}"),
        })
    }

    /// A client that is there for the first time asks for the lease: it is given when the one before has expired.
    fn lease(&mut self) -> Result<(), StorageError> {
        let request = LeaseRequest {
            group: GroupName::new("cg").unwrap(),
            topic: TopicName::new(TOPICS[0]).unwrap(),
            queue: QueueId(0),
            client: self.now.to_string(),
            ttl_ms: 3,
            renews: None,
        };
        self.one(Operation::Lease(request), |state, result| match result {
            OperationResult::Leased { epoch, next_offset, .. } => {
                assert!(state.lease.is_none_or(|before| before < *epoch));
                assert_eq!(next_offset.map(|offset| offset.0), state.moved);
                state.lease = Some(*epoch);
            }
            other => {
                assert!(matches!(other, OperationResult::Refused(Refusal::LeaseHeld { .. })), "{other:?}")
            }
        })
    }

    fn tick(&mut self) -> Result<(), StorageError> {
        let now = self.now + 1;
        // the model reads the offsets off the queue's own count, which the comparison then checks
        self.one(Operation::Tick(Timestamp::from_ms(now)), |state, _| {
            let later = state.due.split_off(&(now + 1, 0));
            for (_, (topic, body)) in std::mem::replace(&mut state.due, later) {
                let queue = state.visible.entry(topic).or_default();
                let next = queue.last().map_or(0, |(offset, _)| offset + 1);
                queue.push((next, body));
            }
        })
    }

    /// One random step.
    fn step(&mut self, random: &mut Random) -> Result<(), StorageError> {
        let topic = TOPICS[random.below(2) as usize];
        let size = [10, 200, 3000][random.below(3) as usize];
        let open: Vec<u64> = self.state.open.keys().copied().collect();
        let decided: Vec<u64> = self.state.decided.keys().copied().collect();
        let outcome = if random.below(2) == 0 { Outcome::Committed } else { Outcome::RolledBack };
        let with_id: Vec<u64> =
            self.state.open.iter().filter(|(_, open)| open.with_id).map(|(origin, _)| *origin).collect();
        let half = Visibility::Prepared { delay_ms: None };
        match random.below(20) {
            0..=3 => self.send(topic, Visibility::Now, size),
            4..=6 => self.send(topic, half, size),
            19 => self.lease(),
            16 => self.send_in(topic, half, size, Some(0)),
            17 | 18 if !with_id.is_empty() => {
                let origin = with_id[random.below(with_id.len() as u64) as usize];
                self.send_in(topic, half, size, Some(origin))
            }
            7 => self.send(topic, Visibility::Due(Timestamp::from_ms(self.now + random.below(20))), size),
            8 | 9 if !open.is_empty() => self.end(open[random.below(open.len() as u64) as usize], outcome),
            10 if !decided.is_empty() => {
                self.end(decided[random.below(decided.len() as u64) as usize], outcome)
            }
            11 if !open.is_empty() => {
                let origin = open[random.below(open.len() as u64) as usize];
                let park = Operation::Park { origin: PhysicalOffset(origin), reason: ParkReason::CheckMax };
                self.one(park, |state, _| state.open.get_mut(&origin).unwrap().in_doubt = true)
            }
            12 => self.tick(),
            13 => self.store().checkpoint(false),
            14 => {
                let store = self.store();
                while store.prepare_step()? {}
                store.keep(Timestamp::from_ms(self.now))
            }
            _ => self.sync(),
        }
    }

    /// The script: starts, random steps, an orderly stop and a second start in the middle.
    fn script(&mut self, seed: u64, steps: u64) -> Result<(), StorageError> {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        self.start()?;
        for topic in TOPICS {
            self.put_topic(topic)?;
        }
        for _ in 0..steps {
            self.step(&mut random)?;
        }
        self.store().close(Timestamp::from_ms(self.now))?;
        self.store = None;
        self.start()?;
        for _ in 0..steps {
            self.step(&mut random)?;
        }
        Ok(())
    }

    /// What a store shows through every door that the model knows of.
    fn shown(&self, store: &Store) -> State {
        let leased = TopicName::new(TOPICS[0]).unwrap();
        let mut state = State {
            lease: store.lease("cg", &leased, QueueId(0)).map(|lease| lease.epoch),
            moved: store.offset("cg", &leased, QueueId(0)).map(|offset| offset.0),
            ..State::default()
        };
        for name in TOPICS {
            let Some(topic) = store.topic(name) else { continue };
            let queue = topic.queue(QueueId(0)).unwrap();
            let mut visible = Vec::new();
            let read = store.read_entries(&queue, QueueOffset(0), usize::MAX, &mut |_| true).unwrap();
            for (offset, entry) in &read.entries {
                let message = store.read_message(entry).unwrap();
                let view = MessageView::parse(&message.bytes).unwrap();
                visible.push((*offset, String::from_utf8(view.body().to_vec()).unwrap()));
            }
            state.visible.insert(name, visible);
        }
        let (all, now) = (OpenFilter::default(), Timestamp::from_ms(self.now + 1000));
        for open in store.open_transactions_page(&all, now, None, usize::MAX) {
            let open = open.transaction;
            let message = store.half_message(open.origin).unwrap().unwrap();
            let view = MessageView::parse(&message.bytes).unwrap();
            let topic = TOPICS.into_iter().find(|t| *t == view.topic()).unwrap();
            let body = String::from_utf8(view.body().to_vec()).unwrap();
            let in_doubt = open.state == OpenState::InDoubt;
            let open_now = Open { messages: vec![(topic, body)], with_id: false, in_doubt };
            state.open.insert(open.origin.0, open_now);
        }
        state
    }
}

/// The disk after the crash is opened and compared with the model; then it must go on working. False when there was
/// nothing to compare with: the frame whose write failed did reach the disk.
fn verify(mut run: Run, disk: SimulatedDisk, what: &str) -> bool {
    let written = std::mem::take(&mut run.past);
    run.store = None;
    let (store, report) = match open(&disk, run.ack, run.now + 1000) {
        Ok(opened) => opened,
        Err(e) => panic!("{what}: recovery fails: {e}"),
    };
    if run.ack == AckLevel::Durable {
        assert!(
            report.log.end >= run.synced,
            "{what}: synced to {} but recovered to {}",
            run.synced,
            report.log.end
        );
    }
    let (end, want) = written
        .range(..=report.log.end)
        .next_back()
        .map_or_else(|| (0, State::default()), |(end, state)| (*end, state.clone()));
    let shown = run.shown(&store);
    let known = end == report.log.end && want.visible.len() == TOPICS.len();
    if known {
        let bodies = |s: &State| -> BTreeMap<&'static str, Vec<String>> {
            let names = |v: &Vec<(u64, String)>| v.iter().map(|(_, b)| b.clone()).collect();
            s.visible.iter().map(|(t, v)| (*t, names(v))).collect()
        };
        assert_eq!(bodies(&shown), bodies(&want), "{what}: visible messages at {end}");
        // what joined behind the first is not shown; it is compared when it is committed, below
        let firsts = |open: &BTreeMap<u64, Open>| -> Vec<(u64, String, bool)> {
            open.iter().map(|(origin, open)| (*origin, open.messages[0].1.clone(), open.in_doubt)).collect()
        };
        assert_eq!(firsts(&shown.open), firsts(&want.open), "{what}: open transactions at {end}");
        assert_eq!((shown.lease, shown.moved), (want.lease, want.moved), "{what}: leases, offsets at {end}");
        let messages: usize = want.open.values().map(|open| open.messages.len()).sum();
        assert_eq!(store.open_messages(), messages + want.due.len(), "{what}: open messages at {end}");
    }
    // offsets once shown keep their message, whatever was lost behind them
    for (topic, queue) in &shown.visible {
        let ever: BTreeMap<u64, &String> = queue.iter().map(|(o, b)| (*o, b)).collect();
        assert_eq!(ever.len(), queue.len(), "{what}: an offset twice in {topic}");
    }
    // it goes on: every decision still stands, and a new message finds its place
    run.disk = disk;
    run.state = State { decided: want.decided.clone(), ..shown };
    if known {
        run.state.open.clone_from(&want.open);
    }
    run.state.due = want.due.clone();
    run.past.insert(store.limit().0, run.state.clone());
    run.store = Some(store);
    let decided: Vec<(u64, Outcome)> = want.decided.iter().map(|(o, (_, outcome))| (*o, *outcome)).collect();
    for (origin, outcome) in decided {
        let other = if outcome == Outcome::Committed { Outcome::RolledBack } else { Outcome::Committed };
        run.end(origin, outcome).unwrap();
        run.end(origin, other).unwrap();
    }
    for (origin, _) in want.open.iter().filter(|(_, open)| known && open.with_id) {
        run.end(*origin, Outcome::Committed).unwrap();
        run.sync().unwrap();
        assert_eq!(run.shown(&run.store()).visible, run.state.visible, "{what}: messages of {origin}");
    }
    for topic in TOPICS {
        if run.store().topic(topic).is_some() {
            run.send(topic, Visibility::Now, 10).unwrap();
        }
    }
    run.sync().unwrap();
    let before = run.shown(&run.store());
    run.store().close(Timestamp::from_ms(run.now)).unwrap();
    run.store = None;
    let (store, report) = open(&run.disk, run.ack, run.now).unwrap();
    assert!(report.log.clean, "{what}: a stop in order is clean");
    assert_eq!(run.shown(&store), before, "{what}: after a stop in order");
    known
}

fn crash_modes(seed: u64) -> [CrashMode; 4] {
    [CrashMode::LoseUnsynced, CrashMode::KeepAll, CrashMode::Seeded(seed), CrashMode::Seeded(seed ^ 0xFFFF)]
}

fn sweep(ack: AckLevel, seed: u64, steps: u64, stride: u64) {
    let mut whole = Run::new(SimulatedDisk::new(), ack);
    whole.script(seed, steps).unwrap();
    let operations = whole.disk.operations();
    drop(whole);
    let (mut verified, mut compared) = (0, 0);
    let mut stop = 1 + seed % stride;
    while stop <= operations {
        let disk = SimulatedDisk::new();
        disk.fail_after_ops(stop);
        let mut run = Run::new(disk.clone(), ack);
        let ended = run.script(seed, steps);
        assert!(ended.is_err() || stop >= operations, "the script went on after its disk had died");
        run.store = None;
        for (i, mode) in crash_modes(seed.wrapping_mul(1000) + stop).into_iter().enumerate() {
            let after = disk.crash(mode);
            let copy = Run {
                disk: after.clone(),
                state: run.state.clone(),
                past: run.past.clone(),
                store: None,
                ..Run::new(SimulatedDisk::new(), ack)
            };
            let copy = Run { now: run.now, next_body: run.next_body, synced: run.synced, ..copy };
            let what = format!("{ack:?}, seed {seed}, stopped at operation {stop}, crash {i}");
            verified += 1;
            compared += u64::from(verify(copy, after, &what));
        }
        stop += stride;
    }
    assert!(
        compared * 2 > verified,
        "only {compared} of {verified} crashes could be compared with the model"
    );
}

#[test]
fn every_stop_of_a_durable_store_recovers_to_what_the_log_says() {
    sweep(AckLevel::Durable, 1, 25, 1);
}

#[test]
fn every_stop_of_a_memory_store_recovers_to_what_the_log_says() {
    sweep(AckLevel::Memory, 2, 25, 1);
}

/// More scripts, at scattered stops. `MEZZO_CRASH_SEEDS` asks for more.
#[test]
fn scattered_stops_of_many_scripts_recover() {
    let seeds = std::env::var("MEZZO_CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    for seed in 10..10 + seeds {
        let ack = if seed % 3 == 0 { AckLevel::Memory } else { AckLevel::Durable };
        sweep(ack, seed, 60, 41);
    }
}

#[test]
fn a_failed_sync_acknowledges_nothing_any_more() {
    let disk = SimulatedDisk::new();
    let mut run = Run::new(disk.clone(), AckLevel::Durable);
    run.start().unwrap();
    run.put_topic("t").unwrap();
    run.send("t", Visibility::Now, 10).unwrap();
    run.sync().unwrap();
    run.send("t", Visibility::Now, 10).unwrap();
    disk.fail_sync(1);
    let limit = run.store().limit();
    assert!(run.sync().is_err());
    assert_eq!(run.store().limit(), limit);
    assert!(run.store().is_fenced());
    assert!(run.send("t", Visibility::Now, 10).is_err(), "nothing is appended after a failed sync");
    assert!(run.sync().is_err(), "a sync is never retried");
    assert_eq!(run.store().limit(), limit);
}
