//! Sizes that are fixed when a log is created, and those that each start may choose.

use crate::error::StorageError;
use crate::format::frame::{FRAME_BYTES_LIMIT, FRAME_HEADER_BYTES};
use crate::format::record::{LAYOUT_BYTES, LogSeed, RECORD_HEADER_BYTES};

/// Bytes of a segment frame: header, and the header and payload of its one `layout` record.
pub(super) const SEGMENT_FRAME_BYTES: usize = FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + LAYOUT_BYTES;

/// Frames smaller than this could not even hold a large name.
const FRAME_BYTES_LEAST: u32 = 4096;

/// What never changes while a log lives; written in the head of each segment and in each state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The log's secret, drawn at random: bytes that clients send cannot pass for frames or records.
    pub nonce: [u8; 16],
    /// Positions per segment, and bytes of a segment file.
    pub segment_bytes: u64,
    /// Most bytes of a frame.
    pub frame_bytes_max: u32,
}

impl Layout {
    /// Checks the sizes against each other: a frame is 4 KiB to 8 MiB, a segment holds at least four of them.
    pub fn validate(&self) -> Result<(), StorageError> {
        if !(FRAME_BYTES_LEAST..=FRAME_BYTES_LIMIT).contains(&self.frame_bytes_max) {
            let reason = format!(
                "frame_bytes_max is {}, it must be from {FRAME_BYTES_LEAST} to {FRAME_BYTES_LIMIT}",
                self.frame_bytes_max
            );
            return Err(StorageError::Layout { reason });
        }
        let least = 4 * u64::from(self.frame_bytes_max);
        if self.segment_bytes < least || self.segment_bytes > i64::MAX as u64 / 1024 {
            let reason = format!(
                "segment_bytes is {}, it must be at least {least}: four of the largest frames ({} bytes)",
                self.segment_bytes, self.frame_bytes_max
            );
            return Err(StorageError::Layout { reason });
        }
        Ok(())
    }

    /// Where every CRC of this log starts.
    #[must_use]
    pub fn seed(&self) -> LogSeed {
        LogSeed::from_nonce(&self.nonce)
    }

    /// Base of the segment that holds `position`.
    #[must_use]
    pub const fn base_of(&self, position: u64) -> u64 {
        position - position % self.segment_bytes
    }
}

/// What each start may choose anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// The newest bytes of the log that are read through the map; older ones are read with `pread`.
    pub hot_bytes: u64,
    /// Dirty bytes after which [`super::Log::writeback`] asks the kernel to start writing.
    pub writeback_bytes: u64,
    /// Whether segments are filled with zeros ahead of their use. It makes a sync of what is written into them several
    /// times cheaper, and costs each byte a second write: worth it only where answers wait for syncs.
    pub zero_fill: bool,
    /// Prepared segments kept ahead, the reserve included; at least 2, or new messages could never roll.
    pub spare_segments: usize,
    /// Most bytes of segments and of what [`super::Log::set_other_bytes`] adds; beyond, only the reserve is prepared.
    pub max_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            hot_bytes: 256 * 1024 * 1024,
            writeback_bytes: 8 * 1024 * 1024,
            zero_fill: true,
            spare_segments: 2,
            max_bytes: u64::MAX,
        }
    }
}

/// Who may use the last prepared segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// New messages: refused when they would leave no prepared segment behind.
    Message,
    /// Decisions, asks, offsets, ticks, carried messages: what makes room or keeps a promise.
    Essential,
}
