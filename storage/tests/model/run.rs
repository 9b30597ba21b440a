//! Runs a script on the store and on the model. The model is told what the store answered, and says whether that is
//! right; a second model follows behind and holds what is synced, which is where the first one goes on after a crash.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mezzo_protocol::check_policy::Exhausted;
use mezzo_protocol::ids::{PhysicalOffset, QueueId, QueueOffset};
use mezzo_storage::file_system::SimulatedDisk;
use mezzo_storage::{AckLevel, Batch, OperationResult, Source, StorageError, Store};

use super::decisions::EndOp;
use super::model::{Answered, At, Consumed, Fault, Model, same};
use super::names::{consumer_name, topic_name};
use super::policies::POLICY;
use super::rules::Op;
use super::seen::{Seen, kind_of};
use super::steps::{By, Crash, Name, Reply, Step};

const T0: u64 = 1_700_000_000_000;
/// Between two looks at everything that the store shows.
const LOOK_EVERY: usize = 100;

/// Why a run ended early.
#[derive(Debug)]
pub enum Stop {
    /// The disk did, as it was told to.
    Died,
    /// The store is not as the model.
    Wrong(String),
}

impl From<String> for Stop {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

/// Where a script failed, and how.
#[derive(Debug)]
pub struct Failure {
    pub step: usize,
    pub what: String,
}

/// Something that changed the model, to be told to the one that follows behind.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Appended(Vec<Answered>, At),
    Reported(Consumed, u64),
    Flushed,
}

/// A store and its models.
pub struct Run {
    pub(super) disk: SimulatedDisk,
    pub(super) ack: AckLevel,
    pub(super) store: Option<Arc<Store>>,
    pub(super) model: Model,
    /// What is synced.
    pub(super) durable: Model,
    /// What is not, with the end of the log behind each.
    pub(super) tail: Vec<(u64, Change)>,
    /// Synced is everything below.
    pub(super) synced: u64,
    /// End of what is appended.
    pub(super) end: u64,
    /// Leader time.
    pub(super) now: u64,
    /// How far the wall clock is behind it.
    pub(super) behind: u64,
    dying: Option<Crash>,
    /// The batch whose write failed: nobody knows whether it reached the disk.
    pub(super) failed: Option<(Vec<Answered>, u64, u64)>,
    pub(super) origins: HashMap<Name, u64>,
    /// The epochs that clients were given.
    pub(super) epochs: HashMap<(Consumed, u8), u64>,
    /// The highest that anybody was given of a queue, also what a crash took back.
    newest_epochs: HashMap<Consumed, u64>,
    /// Up to where each queue's messages were read already.
    pub(super) read: BTreeMap<(u8, u8), u64>,
    pub seen: Seen,
}

/// Runs a script to its end or to the first thing that is wrong.
pub fn run(steps: &[Step], fault: Fault, ack: AckLevel) -> Result<Seen, Failure> {
    let mut at = 0;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut run = Run::new(fault, ack)?;
        for (index, step) in steps.iter().enumerate() {
            at = index;
            run.step(step)?;
            if index % LOOK_EVERY == LOOK_EVERY - 1 {
                run.look()?;
            }
        }
        run.sync_and_look()?;
        Ok(run.seen)
    }));
    match outcome {
        Ok(Ok(seen)) => Ok(seen),
        Ok(Err(Stop::Wrong(what))) => Err(Failure { step: at, what }),
        Ok(Err(Stop::Died)) => Err(Failure { step: at, what: "the disk died and nobody noticed".to_owned() }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(Failure { step: at, what: format!("a panic: {}", text.unwrap_or_default()) })
        }
    }
}

impl Run {
    fn new(fault: Fault, ack: AckLevel) -> Result<Self, Stop> {
        let model = Model { fault, ..Model::default() };
        let mut run = Self {
            disk: SimulatedDisk::new(),
            ack,
            store: None,
            durable: model.clone(),
            model,
            tail: Vec::new(),
            synced: 0,
            end: 0,
            now: T0,
            behind: 0,
            dying: None,
            failed: None,
            origins: HashMap::new(),
            epochs: HashMap::new(),
            newest_epochs: HashMap::new(),
            read: BTreeMap::new(),
            seen: Seen::new(),
        };
        run.open()?;
        Ok(run)
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub(super) fn store(&self) -> Arc<Store> {
        match &self.store {
            Some(store) => Arc::clone(store),
            None => unreachable!("a step begins with an open store"),
        }
    }

    pub(super) fn stop(&self, error: StorageError) -> Stop {
        if self.dying.is_some() { Stop::Died } else { Stop::Wrong(format!("the store fails: {error}")) }
    }

    /// One step; where the disk dies in it, what is left of it is the crash.
    fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match self.try_step(step) {
            Err(Stop::Died) => {
                let crash = self.dying.take().unwrap_or(Crash::Kept);
                self.crash(crash)
            }
            other => other,
        }
    }

    fn try_step(&mut self, step: &Step) -> Result<(), Stop> {
        let store = self.store();
        if self.dying.is_some() && writes_twice(step) {
            // whether its second write arrived could not be told
            return Ok(());
        }
        match step {
            Step::Together(steps) => {
                let ops: Vec<Op> = steps.iter().filter_map(|step| self.resolve(step)).collect();
                self.append(ops)?;
            }
            Step::DecideAll { commit } => self.decide_all(*commit)?,
            Step::Check { max, reply } => self.check(usize::from(*max), *reply)?,
            Step::Reschedule { of, in_ms } => {
                if let Some(origin) = self.origins.get(of).copied() {
                    let at = self.now + u64::from(*in_ms);
                    store.reschedule(PhysicalOffset(origin), self.wall(self.now), self.wall(at));
                    self.model.reschedule(origin, at);
                }
            }
            Step::Wait { ms } => self.pass(u64::from(*ms)),
            Step::ClockBack { ms } => self.set_clock_back(u64::from(*ms)),
            Step::Report { consumer, place, offset } => {
                if let Some(topic) = store.topic(&topic_name(place.topic)) {
                    let key = (*consumer, place.topic, place.queue);
                    let offset = u64::from(*offset);
                    let group = consumer_name(*consumer);
                    let taken =
                        store.commit_offset(&group, topic.name(), QueueId(key.2.into()), QueueOffset(offset));
                    same("whether a report is taken", &taken.is_ok(), &self.model.report(key, offset))?;
                    if taken.is_ok() {
                        self.tail.push((self.end, Change::Reported(key, offset)));
                    }
                    self.count(if taken.is_ok() { "reported" } else { "report on a leased queue" });
                }
            }
            Step::FlushOffsets => {
                store.flush_offsets(self.time()).map_err(|e| self.stop(e))?;
                self.flushed(&store);
            }
            Step::Sync => self.sync()?,
            Step::Checkpoint => {
                store.checkpoint(false).map_err(|e| self.stop(e))?;
                self.all_synced()?;
                self.count("checkpoint");
            }
            Step::Keep => {
                self.sync()?;
                self.find_places(&store)?;
                store.keep(self.time()).map_err(|e| self.stop(e))?;
                self.model.clock_ms = self.now;
                let first = store.first_position().0;
                if first > self.model.first_position {
                    self.count("segment deleted");
                }
                self.model.deleted_below(first, self.now)?;
                self.durable.deleted_below(first, self.now)?;
            }
            Step::Restart => {
                drop(store);
                self.restart()?;
            }
            Step::Crash(crash) => {
                drop(store);
                self.dying = None;
                return self.crash(*crash);
            }
            Step::DieAfter { operations, crash } => {
                if self.dying.is_none() {
                    self.disk.fail_after_ops(u64::from(*operations));
                    self.dying = Some(*crash);
                }
            }
            Step::TearWrite { write, bytes, crash } => {
                if self.dying.is_none() {
                    self.disk.torn_write_at(u64::from(*write), usize::from(*bytes));
                    self.dying = Some(*crash);
                }
            }
            _ => {
                let op = self.resolve(step);
                if let (Step::SendOnce { blind: false, .. }, Some(op)) = (step, &op)
                    && self.repeats(op)?
                {
                    return Ok(());
                }
                let of_topic = matches!(op, Some(Op::PutTopic { .. } | Op::DeleteTopic(_)));
                self.append(op.into_iter().collect())?;
                if of_topic {
                    // others look topics up in what is published
                    self.sync()?;
                }
            }
        }
        self.glance()?;
        Ok(())
    }

    /// Appends a batch, and tells the models.
    pub(super) fn append(&mut self, ops: Vec<Op>) -> Result<(), Stop> {
        if ops.is_empty() {
            return Ok(());
        }
        let store = self.store();
        let mut batch = Batch::default();
        for op in &ops {
            self.push(&store, &mut batch, op)?;
        }
        self.now += 1;
        self.failed = None;
        let appended = store.append(self.time(), &mut batch);
        let answered: Vec<Answered> = ops.into_iter().zip(batch.results().iter().cloned()).collect();
        let end = match appended {
            Ok(end) => end.0,
            Err(error) => {
                self.failed = Some((answered, self.now, self.behind));
                return Err(self.stop(error));
            }
        };
        let at = At { start: self.end, end, now: self.now, behind: self.behind };
        let mut judged = Vec::new();
        let mut from_history = Vec::new();
        for (op, got) in answered {
            self.count(kind_of(&got));
            self.learn(&op, &got)?;
            if self.model.is_decided_last(&op) {
                from_history.push((op, got));
                continue;
            }
            match self.model.apply(&op, &got, at) {
                Ok(()) => judged.push((op, got)),
                // the history is asked after the whole batch
                Err(_) if self.model.asks_history(&op) => from_history.push((op, got)),
                Err(what) => return Err(format!("{op:?}: {what}").into()),
            }
        }
        for (op, got) in from_history {
            self.model.apply(&op, &got, at).map_err(|what| format!("{op:?}: {what}"))?;
            judged.push((op, got));
        }
        let answered = judged;
        self.end = end;
        self.tail.push((end, Change::Appended(answered, at)));
        if self.ack == AckLevel::Memory {
            // shown at once
            self.model.synced();
        }
        while store.prepare_step().map_err(|e| self.stop(e))? {}
        Ok(())
    }

    /// Remembers what later steps refer to.
    fn learn(&mut self, op: &Op, got: &OperationResult) -> Result<(), Stop> {
        match (op, got) {
            (Op::Prepare { name, .. } | Op::Join { name, .. }, OperationResult::Prepared { origin, .. }) => {
                self.origins.insert(*name, origin.0);
            }
            (Op::Lease { key, client, renews, .. }, OperationResult::Leased { epoch, .. }) => {
                let newest = self.newest_epochs.entry(*key).or_insert(0);
                if renews.is_none() && *epoch <= *newest {
                    return Err(format!("epoch {epoch} of {key:?} comes again").into());
                }
                *newest = (*newest).max(*epoch);
                self.epochs.insert((*key, *client), *epoch);
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&mut self, max: usize, reply: Reply) -> Result<(), Stop> {
        self.sync()?;
        let due = self.store().due_checks(self.time(), max);
        self.model.clock_ms = self.now;
        self.model.due_checks(&due, max, self.now)?;
        for check in due {
            let origin = check.transaction.origin.0;
            if check.exhausted.is_some() {
                self.count("asked often enough");
                let rolled_back = EndOp { source: Source::Policy, ..EndOp::by_operator(origin, false) };
                let last = match check.policy.exhausted {
                    Exhausted::RollBack => Op::End(rolled_back),
                    Exhausted::Park => Op::Park(origin),
                };
                self.append(vec![last])?;
                continue;
            }
            self.count("due to be asked");
            if reply == Reply::Counted {
                self.append(vec![Op::Asked(vec![origin])])?;
            }
            if reply != Reply::Forgotten {
                let at = self.now + POLICY.interval_ms;
                self.store().reschedule(PhysicalOffset(origin), self.wall(self.now), self.wall(at));
                self.model.reschedule(origin, at);
            }
        }
        Ok(())
    }

    fn decide_all(&mut self, commit: bool) -> Result<(), Stop> {
        let open: Vec<u64> = self.model.open.keys().copied().collect();
        for some in open.chunks(10) {
            self.append(some.iter().map(|origin| Op::End(EndOp::by_operator(*origin, commit))).collect())?;
        }
        Ok(())
    }

    pub(super) fn flushed(&mut self, store: &Store) {
        let end = store.appended().0;
        if end != self.end {
            self.model.clock_ms = self.now;
        }
        self.end = end;
        self.model.flushed();
        self.tail.push((self.end, Change::Flushed));
    }

    pub(super) fn sync(&mut self) -> Result<(), Stop> {
        self.store().sync().map_err(|e| self.stop(e))?;
        self.all_synced()
    }

    pub(super) fn all_synced(&mut self) -> Result<(), Stop> {
        for (_, change) in std::mem::take(&mut self.tail) {
            self.follow(&change)?;
        }
        self.durable.synced();
        self.model.synced();
        self.end = self.end.max(self.store().appended().0);
        self.synced = self.end;
        same("the end of what is shown", &self.store().limit().0, &self.end)?;
        Ok(())
    }

    /// The synced model goes on by what was appended; at acknowledgement `memory` that was shown at once.
    pub(super) fn follow(&mut self, change: &Change) -> Result<(), Stop> {
        self.durable.follow(change)?;
        if self.ack == AckLevel::Memory && matches!(change, Change::Appended(..)) {
            self.durable.synced();
        }
        Ok(())
    }

    pub(super) fn sync_and_look(&mut self) -> Result<(), Stop> {
        if self.dying.is_some() {
            return Ok(());
        }
        self.sync()?;
        self.look()
    }
}

impl Model {
    /// Follows behind another.
    pub(super) fn follow(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::Appended(answered, at) => {
                for (op, got) in answered {
                    self.apply(op, got, *at).map_err(|what| format!("afterwards, {op:?}: {what}"))?;
                }
            }
            Change::Reported(key, offset) => self.reported(*key, *offset),
            Change::Flushed => self.flushed(),
        }
        Ok(())
    }
}

/// Whether the store writes twice for it: an END that names nothing open by its id first asks the history.
fn writes_twice(step: &Step) -> bool {
    match step {
        Step::EndEmpty { .. } => true,
        Step::End(end) => matches!((end.of, end.by), (Name::Alone(_), By::Id)),
        Step::Together(steps) => steps.iter().any(writes_twice),
        _ => false,
    }
}
