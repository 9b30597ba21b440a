//! What a store is opened with: sizes, acknowledgement level, policies. Validated by the broker's configuration; the
//! layout rules (segment size against frame size) are checked again where the log is created.

use std::path::PathBuf;
use std::time::Duration;

pub use mezzo_protocol::check_policy::CheckPolicy;
use mezzo_protocol::limits::{TRANSACTION_BYTES_MAX, TRANSACTION_MESSAGES_MAX};

pub use crate::format::record::AckLevel;

/// Everything [`crate::Store::open`] needs to know.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The data folder; created when missing.
    pub dir: PathBuf,
    /// When an append may be answered: in the page cache, or on the disk.
    pub ack: AckLevel,
    /// Bytes of one log segment. Fixed when the data folder is created.
    pub segment_bytes: u64,
    /// Largest frame, in bytes; at most a quarter of a segment and at most 8 MiB. Fixed when the folder is created.
    pub frame_bytes_max: u32,
    /// How long a visible message is kept, in milliseconds since it became visible.
    pub retention_ms: u64,
    /// Most bytes of the data folder: segments, prepared segments and derived files; `u64::MAX` for no bound but the
    /// disk's. At least [`StoreOptions::MAX_BYTES_SEGMENTS`] segments, or there is no room to work in.
    pub max_bytes: u64,
    /// What gives way when that is reached.
    pub at_max_bytes: AtMaxBytes,
    /// The newest bytes of the log that are read through the memory map; older ones are read with `pread`.
    pub hot_bytes: u64,
    /// Most half and delayed messages that may be open at once; beyond, new ones are refused.
    pub open_messages_max: usize,
    /// Most messages of one transaction: what the protocol allows, or less in tests.
    pub transaction_messages_max: u16,
    /// Most bytes of their records together: what the protocol allows, or less in tests.
    pub transaction_bytes_max: u64,
    /// A checkpoint is written after this many bytes of log.
    pub checkpoint_bytes: u64,
    /// How long a decision stays answerable, in milliseconds; never shorter than the log holds it.
    pub history_horizon_ms: u64,
    /// Most bytes of decisions kept for that; what the log itself still holds is kept beyond.
    pub history_bytes_max: u64,
    /// At acknowledgement `memory`: longest time until what was appended is synced, in milliseconds.
    pub flush_interval_ms: u64,
    /// Bytes per second that the scrub reads; 0: there is none.
    pub scrub_bytes_per_second: u64,
    /// Time from the end of a round of the scrub to the beginning of the next, in milliseconds.
    pub scrub_interval_ms: u64,
    /// Bytes of the table that repeated sends are told by; taken only when a topic asks for it.
    pub dedup_table_bytes: usize,
    /// How long a send is known there, in milliseconds.
    pub dedup_window_ms: u64,
    /// When an undecided transaction is asked about.
    pub check: CheckPolicy,
    /// A sync that took longer is left to the syncer thread from then on, since it would hold up whoever appended. Zero:
    /// appends never sync; the largest duration: what the disk takes does not matter, which a simulation needs to repeat
    /// itself.
    pub inline_sync_max: Duration,
    /// The log's secret. `None` draws one at random when the folder is created; tests fix it to replay a seed.
    pub nonce: Option<[u8; 16]>,
}

/// What gives way when [`StoreOptions::max_bytes`] is reached and nothing is older than the retention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AtMaxBytes {
    /// New messages: they are refused, to be sent again later.
    #[default]
    Reject,
    /// The oldest visible messages, read or not; undecided and delayed ones never.
    DeleteOldest,
}

impl StoreOptions {
    /// Segments that [`StoreOptions::max_bytes`] has room for at least: the one that is written, two prepared ones,
    /// and some to go through.
    pub const MAX_BYTES_SEGMENTS: u64 = 8;

    /// Most bytes that open messages may take, so that going through them to the log's end always ends.
    #[must_use]
    pub fn open_bytes_max(&self) -> u64 {
        if self.max_bytes == u64::MAX { u64::MAX } else { self.max_bytes / 2 }
    }

    /// The defaults of the program for a data folder.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            ack: AckLevel::Durable,
            segment_bytes: 128 << 20,
            frame_bytes_max: 8 << 20,
            retention_ms: 72 * 3_600_000,
            max_bytes: u64::MAX,
            at_max_bytes: AtMaxBytes::default(),
            hot_bytes: 1 << 30,
            open_messages_max: 1_000_000,
            transaction_messages_max: TRANSACTION_MESSAGES_MAX,
            transaction_bytes_max: TRANSACTION_BYTES_MAX,
            checkpoint_bytes: 256 << 20,
            history_horizon_ms: 7 * 24 * 3_600_000,
            history_bytes_max: 1 << 30,
            flush_interval_ms: 500,
            scrub_bytes_per_second: 4 << 20,
            scrub_interval_ms: 24 * 3_600_000,
            dedup_table_bytes: 64 << 20,
            dedup_window_ms: 15 * 60_000,
            check: CheckPolicy::default(),
            inline_sync_max: Duration::from_millis(2),
            nonce: None,
        }
    }
}
