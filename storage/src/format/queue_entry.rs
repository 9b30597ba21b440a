//! One entry of a consume queue.
//!
//! ```text
//!  0        8      12        16               24
//!  | position | size | tag hash | visible_at_ms |
//!    u64        u32    i32        u64
//! ```

use super::FormatError;
use super::cursor::Cursor;

/// Bytes of one stored entry.
pub const QUEUE_ENTRY_BYTES: usize = 24;

/// Where a visible message stands and what a pull needs to know before reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueueEntry {
    /// Position of the record's header in the log.
    pub position: u64,
    /// Bytes of the record: header and payload.
    pub size: u32,
    /// Java's `String.hashCode` of the message's tag; 0 without one.
    pub tag_hash: i32,
    /// Leader time of the frame that made the message visible; never falls along a queue.
    pub visible_at_ms: u64,
}

impl QueueEntry {
    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; QUEUE_ENTRY_BYTES] {
        let mut out = [0; QUEUE_ENTRY_BYTES];
        out[0..8].copy_from_slice(&self.position.to_le_bytes());
        out[8..12].copy_from_slice(&self.size.to_le_bytes());
        out[12..16].copy_from_slice(&self.tag_hash.to_le_bytes());
        out[16..24].copy_from_slice(&self.visible_at_ms.to_le_bytes());
        out
    }

    /// Reads one entry; `bytes` must be exactly [`QUEUE_ENTRY_BYTES`] long.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("queue entry", bytes);
        let entry = Self {
            position: cursor.u64()?,
            size: cursor.u32()?,
            tag_hash: cursor.i32()?,
            visible_at_ms: cursor.u64()?,
        };
        cursor.finish()?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let entry = QueueEntry { position: 0x0102, size: 0x0304, tag_hash: -2, visible_at_ms: 0x0506 };
        let golden = [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF, 6, 5, 0, 0, 0, 0, 0, 0];
        assert_eq!(entry.to_bytes(), golden);
        assert_eq!(QueueEntry::decode(&golden).unwrap(), entry);
    }

    proptest! {
        #[test]
        fn any_24_bytes_round_trip(bytes in any::<[u8; QUEUE_ENTRY_BYTES]>()) {
            prop_assert_eq!(QueueEntry::decode(&bytes).unwrap().to_bytes(), bytes);
        }
    }
}
