//! Everything of Mezzo that touches a disk. Synchronous: it blocks, and its caller picks the thread.
//!
//! One append-only log is the truth ([`log`]); topics, groups, offsets, open transactions and consume queues are a
//! fold over it ([`state`]); [`Store`] is the door. The bytes are described in `docs/on-disk-format.md` and made in
//! [`format`]; all file access goes through [`file_system`].

pub mod batch;
pub mod end;
pub mod error;
pub mod file_system;
pub mod format;
pub mod log;
pub mod options;
pub mod results;
pub mod state;
pub mod verify;

mod base;
mod concurrency;
mod half;
mod reserve;
mod store;

pub use batch::{Batch, CountedAsk, EncodeError, Encoder, LeaseRequest, Operation, Visibility};
pub use end::{EndTarget, EndTransaction, OffsetMove, TransactionOffsets};
pub use error::StorageError;
pub use format::key_hash;
pub use format::queue_entry::QueueEntry;
pub use format::record::{AskAnswer, Outcome, ParkReason, Source};
pub use options::{AckLevel, AtMaxBytes, CheckPolicy, StoreOptions};
pub use results::{Decision, LeftDoubt, OperationResult, Refusal};
pub use state::dedup::{DedupRule, FirstSend, FirstSends, Part, SendFacts, SendGuard, SendKey, SenderId};
pub use state::groups::GroupConfig;
pub use state::leases::Lease;
pub use state::queues::EntriesRead;
pub use state::topics::{MessageType, PERM_INHERIT, PERM_READ, PERM_WRITE, Queue, Topic, TopicConfig};
pub use state::transactions::{DueCheck, OpenState, OpenTransaction};
pub use store::{
    Background, Census, Counts, DamageCounts, Event, FirstAnswer, Happened, NoObserver, OffsetLeased,
    OpenDetails, OpenFilter, OpenOfGroup, OpenReport, PositionRead, RefusedMessages, RetentionFigures,
    SOURCES, SYNC_BUCKETS_US, Scrub, ScrubStep, Standing, Store, StoreObserver, Stored, StoredMessage,
    SyncTimesSeen, TIMELINE_EVENTS_MAX, Timeline, TransactionRecord, UNREAD_GROUPS_MAX, source_index,
};
