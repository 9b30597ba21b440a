//! The door to everything that touches the disk.
//!
//! ```text
//!  append: lock { admit each operation -> records -> apply } one pwrite   (append.rs)
//!             |                        ack memory: the limit is what is appended
//!             |                        ack durable: the limit is what is synced   (sync.rs)
//!             v
//!  limit passes -> publish: consume queues, topics, observers              (sync.rs)
//!             v
//!  reads: entries, messages, by position, by time                          (read.rs)
//! ```
//!
//! `open.rs` recovers, `checkpoint.rs` writes checkpoints, `retention.rs` moves the base and deletes old segments, whose
//! open messages `carry.rs` takes out of them, `mend.rs` makes damaged derived pages anew, `background.rs` holds the
//! threads. Locks are taken in this order and never the other way: mending, carrying, checkpointing, appender, syncing, publishing, pending, queue, first sends.

mod append;
mod background;
mod carry;
mod census;
mod checkpoint;
mod counts;
mod dedup;
mod fold;
mod mend;
mod open;
mod operators;
mod read;
#[cfg(test)]
mod replay;
mod retention;
mod scrub;
mod sync;
mod timeline;
mod transactions;
mod view;

use std::sync::{Arc, PoisonError};

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::time::Timestamp;

use crate::base::StateFolder;
use crate::batch::Encoder;
use crate::concurrency::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::concurrency::{Mutex, MutexGuard};
use crate::file_system::{FileSystem, LockGuard};
use crate::log::{Log, Writer};
use crate::options::StoreOptions;
use crate::reserve::Reserve;
use crate::results::LeftDoubt;
use crate::state::dedup::FirstSends;
use crate::state::groups::GroupConfig;
use crate::state::leader_clock::LeaderClock;
use crate::state::leases::Lease;
use crate::state::ledger::Ledger;
use crate::state::offsets::ConsumerOffsets;
use crate::state::publish::Pending;
use crate::state::topics::{Queue, Topic};
use crate::state::transactions::history::History;

pub(crate) use append::UNSYNCED_MESSAGES_MAX;
pub use background::Background;
use background::Signal;
pub use census::{Census, OpenOfGroup};
pub use counts::{
    Counts, RefusedMessages, SOURCES, SYNC_BUCKETS_US, Standing, Stored, SyncTimesSeen, source_index,
};
pub use dedup::FirstAnswer;
pub use open::OpenReport;
pub use operators::{OpenDetails, OpenFilter, TransactionRecord};
pub use read::{PositionRead, StoredMessage};
pub use retention::{RetentionFigures, UNREAD_GROUPS_MAX};
pub use scrub::{DamageCounts, Scrub, ScrubStep};
pub use timeline::{Event, Happened, TIMELINE_EVENTS_MAX, Timeline};
use view::View;

/// Is told what happens inside the store. Called without the append lock; must not block and must not call back into
/// anything that appends.
pub trait StoreObserver: Send + Sync {
    /// Everything below `limit` has reached the acknowledgement level and is published.
    fn limit_advanced(&self, limit: PhysicalOffset);
    /// A watched queue has new entries.
    fn queue_grew(&self, queue: &Arc<Queue>);
    /// A transaction that was IN_DOUBT is decided, and the limit is past the decision.
    fn left_doubt(&self, left: &LeftDoubt) {
        let _ = left;
    }
    /// A write or a sync failed: nothing will be acknowledged any more. Stop, and recover from the disk.
    fn fenced(&self, reason: &str);
}

/// An observer for those who have nothing to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl StoreObserver for NoObserver {
    fn limit_advanced(&self, _limit: PhysicalOffset) {}
    fn queue_grew(&self, _queue: &Arc<Queue>) {}
    fn fenced(&self, _reason: &str) {}
}

/// What the append lock protects.
#[derive(Debug)]
struct Appender {
    writer: Writer,
    ledger: Ledger,
    /// Publications of the frame that is being made.
    outgoing: Pending,
    scratch: Vec<u8>,
    clock: LeaderClock,
    counts: Counts,
}

impl Appender {
    /// Leader time, now that the caller's wall clock shows `now`.
    fn leader_time(&mut self, now: Timestamp) -> Timestamp {
        let time = self.clock.advance(now);
        if let Some(by_ms) = self.clock.take_leap() {
            tracing::warn!(
                by_ms,
                "the clock has leapt forward: retention and check-backs count it as time that has passed"
            );
        }
        time
    }
}

/// A plain report of an offset was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{client} holds the lease of this queue: its offset moves with decisions only")]
pub struct OffsetLeased {
    /// The holder.
    pub client: String,
}

/// A data folder, open.
pub struct Store {
    options: StoreOptions,
    fs: Arc<dyn FileSystem>,
    observer: Arc<dyn StoreObserver>,
    log: Arc<Log>,
    encoder: Encoder,
    appender: Mutex<Appender>,
    /// Published effects wait here, in log order, until the limit passes them.
    pending: Mutex<Pending>,
    /// Held while effects are published, so that they stay in order.
    publishing: Mutex<()>,
    /// End of what is appended and whose effects are in `pending`.
    appended: AtomicU64,
    /// End of what is published.
    limit: AtomicU64,
    /// Where the log ended when it was opened.
    opened_at: u64,
    /// Held while the log is synced.
    syncing: Mutex<sync::SyncState>,
    sync_times: counts::SyncTimes,
    sync_requested: Signal,
    segments_wanted: Signal,
    /// At acknowledgement `memory`: messages published since the last sync.
    unsynced_messages: AtomicU64,
    view: View,
    offsets: Arc<ConsumerOffsets>,
    /// Leader time when it was last asked for, milliseconds: for those who do without the append lock.
    leader_ms: AtomicU64,
    history: Arc<History>,
    first_sends: Arc<FirstSends>,
    base: StateFolder,
    checkpoints: StateFolder,
    checkpointing: Mutex<checkpoint::CheckpointState>,
    damage: scrub::DamageLog,
    mending: Mutex<mend::Mending>,
    carrying: Mutex<carry::CarryWork>,
    retention: Mutex<RetentionFigures>,
    reserve: Reserve,
    /// Bytes of the largest base or checkpoint so far.
    state_bytes: AtomicU64,
    /// Closed in order: refusing to append is no failure then.
    closed: AtomicBool,
    _lock: Box<dyn LockGuard>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.options.dir).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // what stands behind these locks is whole after each step; the one lock where that is not so is `Store::appender`
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Takes the append lock. A panic under it may have left the ledger ahead of the log: then nothing is written any
    /// more.
    fn appender(&self) -> MutexGuard<'_, Appender> {
        self.appender.lock().unwrap_or_else(|poisoned| {
            self.log.fence("a panic while appending");
            poisoned.into_inner()
        })
    }

    /// What the store was opened with.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// What [`crate::Batch::send`] needs.
    #[must_use]
    pub fn encoder(&self) -> Encoder {
        self.encoder
    }

    /// End of what is published: everything below has reached the acknowledgement level.
    #[must_use]
    pub fn limit(&self) -> PhysicalOffset {
        PhysicalOffset(self.limit.load(Ordering::Acquire))
    }

    /// Position of the log's first byte.
    #[must_use]
    pub fn first_position(&self) -> PhysicalOffset {
        PhysicalOffset(self.log.first_position())
    }

    /// Whether a failed write or sync has ended all writing.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.log.is_fenced()
    }

    /// A topic, by name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.view.topics.get(name).map(|t| Arc::clone(&t))
    }

    /// All topics, in order of name.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<_> = self.view.topics.iter().map(|t| Arc::clone(&t)).collect();
        topics.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        topics
    }

    /// A consumer group's configuration.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<Arc<GroupConfig>> {
        self.view.groups.get(name).map(|g| Arc::clone(&g))
    }

    /// All consumer groups, in order of name.
    #[must_use]
    pub fn groups(&self) -> Vec<Arc<GroupConfig>> {
        let mut groups: Vec<_> = self.view.groups.iter().map(|g| Arc::clone(&g)).collect();
        groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        groups
    }

    /// The next offset that a group will consume of a queue, if it ever reported one.
    #[must_use]
    pub fn offset(&self, group: &str, topic: &TopicName, queue: QueueId) -> Option<QueueOffset> {
        self.offsets.get(group, topic, queue)
    }

    /// Takes a group's report. Logged with the next [`Store::flush_offsets`].
    ///
    /// # Errors
    /// [`OffsetLeased`] while a client holds the queue's lease: only its decisions move the offset then.
    pub fn commit_offset(
        &self,
        group: &GroupName,
        topic: &TopicName,
        queue: QueueId,
        offset: QueueOffset,
    ) -> Result<(), OffsetLeased> {
        let leases = self.view.leases();
        let now = Timestamp::from_ms(self.leader_ms.load(Ordering::Relaxed));
        if let Some(lease) = leases.get(group, topic, queue).filter(|lease| lease.is_live(now)) {
            return Err(OffsetLeased { client: lease.client.clone() });
        }
        // with the leases held: one that is given now may be followed by decisions, which this must not come after
        self.offsets.report(group, topic, queue, offset);
        drop(leases);
        Ok(())
    }

    /// Who may move a queue's offset inside a decision, or was the last who could. Times are leader time.
    #[must_use]
    pub fn lease(&self, group: &str, topic: &TopicName, queue: QueueId) -> Option<Lease> {
        self.view.leases().get(group, topic, queue).cloned()
    }

    /// All offsets of a group.
    #[must_use]
    pub fn offsets_of(&self, group: &str) -> Vec<(TopicName, QueueId, QueueOffset)> {
        self.offsets.of_group(group).into_iter().map(|((t, q), o)| (t, q, o)).collect()
    }
}
