//! What became of one transaction, as decisions are kept beyond the log.
//!
//! ```text
//!  0        8          16              24                   32                  40           44       45       46      48
//!  | origin | key hash | decided_at_ms | first queue offset | decision position | group hash | outcome | source | count |
//!    u64      u64        u64             u64, ones if none    u64                 u32          u8        u8       u16
//! ```

use super::FormatError;
use super::cursor::Cursor;
use super::record::{Outcome, Source};

/// Bit of the outcome's byte: the client gave the transaction an id.
const NAMED: u8 = 0x80;

/// Bytes of one row.
pub const HISTORY_ROW_BYTES: usize = 48;

/// FNV-1a, 64 bits, of a unique key or a group name: stable across versions because rows on disk hold it.
#[must_use]
pub fn key_hash(key: &str) -> u64 {
    const OFFSET_BASIS: u64 = 0xCBF2_9CE4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01B3;
    key.bytes().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The low half of [`key_hash`]: how rows name a producer group.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the low half is what the format stores")]
pub fn group_hash(group: &str) -> u32 {
    key_hash(group) as u32
}

/// What became of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRow {
    /// The transaction.
    pub origin: u64,
    /// [`key_hash`] of its unique key.
    pub key_hash: u64,
    /// Leader time of the decision's frame, milliseconds since 1970.
    pub decided_at_ms: u64,
    /// Queue offset of the first message made visible.
    pub first_queue_offset: Option<u64>,
    /// Where the record of its decision stands.
    pub decision_position: u64,
    /// [`group_hash`] of its producer group.
    pub group_hash: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Who decided.
    pub source: Source,
    /// How many messages were decided.
    pub count: u16,
    /// It is known by an id that its client gave it: a transaction of many messages, or one that moved offsets only.
    pub named: bool,
}

impl HistoryRow {
    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HISTORY_ROW_BYTES] {
        let mut out = [0; HISTORY_ROW_BYTES];
        out[0..8].copy_from_slice(&self.origin.to_le_bytes());
        out[8..16].copy_from_slice(&self.key_hash.to_le_bytes());
        out[16..24].copy_from_slice(&self.decided_at_ms.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_queue_offset.unwrap_or(u64::MAX).to_le_bytes());
        out[32..40].copy_from_slice(&self.decision_position.to_le_bytes());
        out[40..44].copy_from_slice(&self.group_hash.to_le_bytes());
        out[44] = self.outcome.as_u8() | if self.named { NAMED } else { 0 };
        out[45] = self.source.as_u8();
        out[46..48].copy_from_slice(&self.count.to_le_bytes());
        out
    }

    /// Reads one row; `bytes` must be exactly [`HISTORY_ROW_BYTES`] long.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("history row", bytes);
        let (origin, key_hash, decided_at_ms) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
        let first_queue_offset = Some(cursor.u64()?).filter(|offset| *offset != u64::MAX);
        let (decision_position, group_hash) = (cursor.u64()?, cursor.u32()?);
        let outcome = cursor.u8()?;
        let row = Self {
            origin,
            key_hash,
            decided_at_ms,
            first_queue_offset,
            decision_position,
            group_hash,
            outcome: Outcome::from_u8(outcome & !NAMED)?,
            source: Source::from_u8(cursor.u8()?)?,
            count: cursor.u16()?,
            named: outcome & NAMED != 0,
        };
        cursor.finish()?;
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(origin: u64) -> HistoryRow {
        HistoryRow {
            origin,
            key_hash: 0x0102,
            decided_at_ms: 3,
            first_queue_offset: None,
            decision_position: 6,
            group_hash: 4,
            outcome: Outcome::Committed,
            source: Source::Operator,
            count: 5,
            named: false,
        }
    }

    #[test]
    fn hashes_are_the_published_fnv_1a_values() {
        assert_eq!(key_hash(""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(key_hash("foobar"), 0x8594_4171_F739_67E8);
        assert_eq!(group_hash("foobar"), 0xF739_67E8);
    }

    #[test]
    fn golden_bytes() {
        let mut golden = vec![9, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        golden.extend_from_slice(&[0xFF; 8]);
        golden.extend_from_slice(&[6, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 3, 5, 0]);
        assert_eq!(row(9).to_bytes().as_slice(), golden);
        assert_eq!(HistoryRow::decode(&golden).unwrap(), row(9));
        golden[44] = 0x81;
        let named = HistoryRow { named: true, ..row(9) };
        assert_eq!((named.to_bytes().as_slice(), HistoryRow::decode(&golden)), (&*golden, Ok(named)));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = HistoryRow::decode(&bytes);
        }
    }
}
