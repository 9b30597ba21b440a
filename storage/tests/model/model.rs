//! The reference model: what a store has to hold, in plain maps, by the rules that the documents give. It shares no code
//! with the store but the words of its answers.
//!
//! `rules.rs` says what each operation does to it, `decisions.rs` what END, and leases, do, and
//! `policies.rs` when an open transaction is asked about.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use mezzo_storage::{OperationResult, Source};

use super::once::First;
use super::policies::TICK_MS;
use super::steps::{Name, Place};

pub const RETENTION_MS: u64 = 60_000;
pub const HORIZON_MS: u64 = 150_000;
pub const OPEN_MESSAGES_MAX: usize = 80;
pub const TRANSACTION_MESSAGES_MAX: u16 = 6;
/// Room for three of the larger messages of a transaction, or six small ones.
pub const TRANSACTION_BYTES_MAX: u64 = 2_000;

/// A rule that the model has wrong on purpose, to see whether anybody notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    /// A commit after a rollback delivers.
    LateCommitDelivers,
    /// A message that leaves one out is taken.
    GapsAreTaken,
    /// Decisions do not outlive a stop in order.
    RestartForgets,
    /// A crash loses nothing, synced or not.
    NothingIsLost,
    /// What is in doubt cannot be decided.
    DoubtIsFinal,
    /// A delay counts from the prepare.
    DelayFromPrepare,
    /// An offset moves although the lease was lost.
    LostLeaseMoves,
    /// A transaction takes as many messages as anybody likes.
    NoBounds,
    /// A send that repeats another is a message.
    RepeatsAreStored,
    /// A lease that is taken over keeps its epoch.
    EpochsComeAgain,
}

/// A message that is not visible yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Hidden {
    pub position: u64,
    pub to: Place,
    pub body: String,
    pub delay_ms: Option<u64>,
}

/// A visible one.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub offset: u64,
    /// Where it stands; until it was seen, where it was first written.
    pub position: u64,
    pub seen: bool,
    pub at_ms: u64,
    pub body: String,
}

/// One queue of a topic.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// Offset of the first of `entries`, or of the next.
    pub first: u64,
    pub entries: VecDeque<Entry>,
    /// Offset of the next.
    pub next: u64,
    /// One past the last that retention has deleted.
    pub deleted_to: u64,
    /// Offset behind the last that is shown.
    pub shown: u64,
}

impl Queue {
    /// Whether the first offset that is there may be said to be this: what was before it is deleted, and nothing is
    /// between the two.
    pub fn gap_before_first(&self, offset: u64) -> bool {
        (self.deleted_to..=self.first).contains(&offset)
    }

    /// The next offset is one that nobody can have seen.
    pub fn jump(&mut self, by: u64) {
        self.next += by;
        if self.entries.is_empty() {
            self.first = self.next;
        }
    }
}

/// An undecided transaction.
#[derive(Debug, Clone)]
pub struct Open {
    pub name: Name,
    pub messages: Vec<Hidden>,
    /// Of all records of its messages.
    pub bytes: u64,
    pub in_doubt: bool,
    pub asks: u32,
    pub prepared_ms: u64,
    /// Last prepare, ask or resume.
    pub touched_ms: u64,
    pub been_due: bool,
}

/// A decided one.
#[derive(Debug, Clone)]
pub struct Decided {
    pub name: Name,
    pub committed: bool,
    pub source: Source,
    pub at_ms: u64,
    pub count: u16,
    pub first_offset: Option<u64>,
    /// The decision does not stand before this.
    pub position: u64,
    /// A join is told of it for certain; after a restart only if it stands behind the checkpoint.
    pub remembered: bool,
}

/// A consumer group's queue.
pub type Consumed = (u8, u8, u8);

/// Offsets of consumer groups.
#[derive(Debug, Clone, Default)]
pub struct Offsets {
    pub told: BTreeMap<Consumed, u64>,
    /// Moved by decisions that are not synced.
    pub ahead: BTreeMap<Consumed, u64>,
    /// What a restart finds in the log.
    pub logged: BTreeMap<Consumed, u64>,
    /// Reported since; a checkpoint may have kept any of them.
    pub since: BTreeMap<Consumed, Vec<u64>>,
    pub changed: BTreeSet<u8>,
}

impl Offsets {
    /// Where a group stands at the end of the log.
    pub fn appended(&self, key: &Consumed) -> Option<u64> {
        self.ahead.get(key).or_else(|| self.told.get(key)).copied()
    }
}

/// Who may move an offset with a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    pub client: u8,
    pub epoch: u64,
    pub expires_ms: u64,
    pub released: bool,
}

/// Where and when a batch was appended.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub start: u64,
    pub end: u64,
    /// Leader time.
    pub now: u64,
    /// How far the wall clock is behind it.
    pub behind: u64,
}

/// What a store must hold.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub fault: Fault,
    /// By topic: how many queues it is said to have.
    pub topics: BTreeMap<u8, u8>,
    /// A topic's queues never become fewer.
    pub queues: BTreeMap<(u8, u8), Queue>,
    pub open: BTreeMap<u64, Open>,
    /// Open ones by what END may call them.
    pub ids: HashMap<Name, u64>,
    /// When each is asked about, if that is scheduled.
    pub armed: BTreeMap<u64, u64>,
    pub last_check_tick: u64,
    /// By (due, position).
    pub due: BTreeMap<(u64, u64), Hidden>,
    pub decided: BTreeMap<u64, Decided>,
    /// The newest decision about a name.
    pub latest: HashMap<Name, u64>,
    pub offsets: Offsets,
    /// Of producer groups that have a policy of their own.
    pub policies: BTreeMap<u8, u8>,
    pub leases: BTreeMap<Consumed, Lease>,
    pub leases_told: BTreeMap<Consumed, Lease>,
    /// The highest epoch that a queue ever had.
    pub epochs: BTreeMap<Consumed, u64>,
    /// By topic and id: the sends that count.
    pub firsts: BTreeMap<(u8, u8), First>,
    /// Time when the store last read the clock: a report of an offset does not.
    pub clock_ms: u64,
    pub first_position: u64,
}

/// Fails with a text when the two are not the same.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, want: &T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}: the store says {got:?}, the model {want:?}")) }
}

impl Model {
    pub fn open_messages(&self) -> usize {
        self.open.values().map(|open| open.messages.len()).sum::<usize>() + self.due.len()
    }

    pub fn open_in(&self, topic: u8) -> usize {
        let halves = self.open.values().flat_map(|open| &open.messages);
        halves.chain(self.due.values()).filter(|hidden| hidden.to.topic == topic).count()
    }

    /// A message takes its place; its offset.
    pub fn show(&mut self, hidden: Hidden, at: At) -> u64 {
        let queue = self.queues.entry((hidden.to.topic, hidden.to.queue)).or_default();
        let offset = queue.next;
        queue.next += 1;
        queue.entries.push_back(Entry {
            offset,
            position: hidden.position,
            seen: false,
            at_ms: at.now,
            body: hidden.body,
        });
        offset
    }

    /// Everything appended is synced: it is shown.
    pub fn synced(&mut self) {
        for queue in self.queues.values_mut() {
            queue.shown = queue.next;
        }
        let ahead = std::mem::take(&mut self.offsets.ahead);
        self.offsets.told.extend(ahead);
        self.leases_told.clone_from(&self.leases);
    }

    /// A group reports an offset; false if it may not.
    pub fn report(&mut self, key: Consumed, offset: u64) -> bool {
        let lease = self.leases_told.get(&key);
        if lease.is_some_and(|lease| !lease.released && self.clock_ms < lease.expires_ms) {
            return false;
        }
        self.reported(key, offset);
        true
    }

    pub fn reported(&mut self, key: Consumed, offset: u64) {
        if self.offsets.told.insert(key, offset) != Some(offset) {
            self.offsets.changed.insert(key.0);
            self.offsets.since.entry(key).or_default().push(offset);
        }
    }

    /// The groups that reported something have their offsets logged, those that decisions moved included.
    pub fn flushed(&mut self) {
        let Offsets { told, ahead, logged, since, changed } = &mut self.offsets;
        for group in std::mem::take(changed) {
            for (key, offset) in told.iter().filter(|(key, _)| key.0 == group) {
                logged.insert(*key, ahead.get(key).copied().unwrap_or(*offset));
                since.remove(key);
            }
        }
    }

    /// Retention has deleted the log below `first`: only what was visible long enough.
    pub fn deleted_below(&mut self, first: u64, now: u64) -> Result<(), String> {
        if first < self.first_position {
            return Err(format!("the log begins at {first}, it began at {}", self.first_position));
        }
        if first == self.first_position {
            return Ok(());
        }
        self.first_position = first;
        // what is open was carried on: that its bytes are there is seen when it is looked at, or shown
        for queue in self.queues.values_mut() {
            for entry in queue.entries.iter().filter(|entry| entry.position < first) {
                if entry.at_ms + RETENTION_MS >= now {
                    let age = now - entry.at_ms;
                    return Err(format!("retention deleted {}, visible for {age} ms", entry.body));
                }
            }
            while queue.entries.front().is_some_and(|entry| entry.position < first) {
                queue.deleted_to = queue.entries.pop_front().map_or(0, |entry| entry.offset + 1);
                queue.first = queue.entries.front().map_or(queue.next, |entry| entry.offset);
            }
        }
        Ok(())
    }

    /// The store was opened again; what it folded begins at `from`.
    pub fn restarted(&mut self, from: u64, now: u64) {
        self.offsets.told.clone_from(&self.offsets.logged);
        (self.offsets.since, self.offsets.changed) = Default::default();
        self.synced();
        self.clock_ms = now;
        let first = self.first_position;
        self.firsts.retain(|_, send| send.position >= first);
        self.last_check_tick = now / TICK_MS;
        self.arm_all();
        for decided in self.decided.values_mut() {
            decided.remembered &= decided.position >= from;
        }
    }
}

/// An operation with everything that it refers to, and what the store answered.
pub type Answered = (super::rules::Op, OperationResult);
