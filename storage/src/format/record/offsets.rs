//! Consumer offsets of one group: a record of its own, or the tail of a decision.
//!
//! ```text
//! | group string | count u32 | count × ( topic string | queue u32 | offset u64 ) |
//! ```

use crate::format::FormatError;
use crate::format::cursor::{Cursor, put_count, put_string};

/// Least bytes of one entry: an empty topic's length, queue and offset.
const ENTRY_BYTES_MIN: usize = 14;

/// Where a group stands in one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetEntry<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The queue within the topic.
    pub queue: u32,
    /// The next offset to consume.
    pub offset: u64,
}

/// Where a group stands in some queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offsets<'a> {
    /// The consumer group.
    pub group: &'a str,
    /// One entry per queue.
    pub entries: Vec<OffsetEntry<'a>>,
}

impl<'a> Offsets<'a> {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_string(out, self.group);
        put_count(out, self.entries.len());
        for entry in &self.entries {
            put_string(out, entry.topic);
            out.extend_from_slice(&entry.queue.to_le_bytes());
            out.extend_from_slice(&entry.offset.to_le_bytes());
        }
    }

    /// Reads the payload; this kind has no flags.
    pub fn decode(_flags: u16, payload: &'a [u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("offsets record", payload);
        let offsets = Self::read(&mut cursor)?;
        cursor.finish()?;
        Ok(offsets)
    }

    /// Reads one payload and hands back what follows it, as the offsets section of a state file needs it.
    pub fn decode_prefix(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), FormatError> {
        let mut cursor = Cursor::new("offsets record", bytes);
        let offsets = Self::read(&mut cursor)?;
        Ok((offsets, cursor.rest()))
    }

    /// Reads one payload and leaves what follows it.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, FormatError> {
        let group = cursor.string("group")?;
        let count = cursor.u32()? as usize;
        let mut entries = Vec::with_capacity(cursor.capacity_for(count, ENTRY_BYTES_MIN));
        for _ in 0..count {
            entries.push(OffsetEntry {
                topic: cursor.string("topic")?,
                queue: cursor.u32()?,
                offset: cursor.u64()?,
            });
        }
        Ok(Self { group, entries })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let offsets =
            Offsets { group: "g", entries: vec![OffsetEntry { topic: "tt", queue: 3, offset: 0x0102 }] };
        let mut out = Vec::new();
        offsets.encode(&mut out);
        let golden =
            [1, 0, b'g', 1, 0, 0, 0, 2, 0, b't', b't', 3, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0].as_slice();
        assert_eq!(out, golden);
        assert_eq!(Offsets::decode(0, golden).unwrap(), offsets);
    }

    #[test]
    fn an_announced_count_does_not_allocate() {
        let bytes = [0, 0, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(Offsets::decode(0, &bytes), Err(FormatError::Truncated { what: "offsets record" }));
    }

    proptest! {
        #[test]
        fn round_trip(rows in proptest::collection::vec(("[a-z]{0,9}", any::<u32>(), any::<u64>()), 0..9)) {
            let entries =
                rows.iter().map(|(topic, queue, offset)| OffsetEntry { topic, queue: *queue, offset: *offset });
            let offsets = Offsets { group: "group", entries: entries.collect() };
            let mut out = Vec::new();
            offsets.encode(&mut out);
            prop_assert_eq!(Offsets::decode(0, &out).unwrap(), offsets);
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Offsets::decode(0, &bytes);
        }
    }
}
