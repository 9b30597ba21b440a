//! Decisions by origin: one row per decided transaction, one file per closed segment, kept beyond the log.
//!
//! ```text
//!  0        8          16              24                   32           36        37       38      40
//!  | origin | key hash | decided_at_ms | first queue offset | group hash | outcome | source | count |
//!    u64      u64        u64             u64, ones if none    u32          u8        u8       u16
//! file:  rows sorted by origin | CRC-32 of all rows u32 | row count u32 |
//! ```

use super::FormatError;
use super::cursor::Cursor;
use super::record::{Outcome, Source};

/// Bytes of one row.
pub const HISTORY_ROW_BYTES: usize = 40;

/// Bytes after the last row.
pub const HISTORY_FOOTER_BYTES: usize = 8;

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
    /// [`group_hash`] of its producer group.
    pub group_hash: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Who decided.
    pub source: Source,
    /// How many messages were decided.
    pub count: u16,
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
        out[32..36].copy_from_slice(&self.group_hash.to_le_bytes());
        out[36] = self.outcome.as_u8();
        out[37] = self.source.as_u8();
        out[38..40].copy_from_slice(&self.count.to_le_bytes());
        out
    }

    /// Reads one row; `bytes` must be exactly [`HISTORY_ROW_BYTES`] long.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("history row", bytes);
        let row = Self {
            origin: cursor.u64()?,
            key_hash: cursor.u64()?,
            decided_at_ms: cursor.u64()?,
            first_queue_offset: Some(cursor.u64()?).filter(|offset| *offset != u64::MAX),
            group_hash: cursor.u32()?,
            outcome: Outcome::from_u8(cursor.u8()?)?,
            source: Source::from_u8(cursor.u8()?)?,
            count: cursor.u16()?,
        };
        cursor.finish()?;
        Ok(row)
    }
}

/// A whole history file: the rows, which must be sorted by origin, and the footer.
#[must_use]
pub fn encode_history(rows: &[HistoryRow]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * HISTORY_ROW_BYTES + HISTORY_FOOTER_BYTES);
    for row in rows {
        out.extend_from_slice(&row.to_bytes());
    }
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    super::cursor::put_count(&mut out, rows.len());
    out
}

/// A checked history file that is searched in place.
#[derive(Debug, Clone, Copy)]
pub struct HistoryFile<'a> {
    rows: &'a [u8],
}

impl<'a> HistoryFile<'a> {
    /// Checks length and CRC of a whole file. Rows are decoded when they are asked for.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let what = "history file";
        let rows_len =
            bytes.len().checked_sub(HISTORY_FOOTER_BYTES).ok_or(FormatError::Truncated { what })?;
        let (rows, footer) = bytes.split_at(rows_len);
        let mut cursor = Cursor::new(what, footer);
        let crc = cursor.u32()?;
        let count = cursor.u32()? as usize;
        if count.checked_mul(HISTORY_ROW_BYTES) != Some(rows_len) {
            return Err(FormatError::BadValue { field: "history row count", got: count as u64 });
        }
        if crc32fast::hash(rows) != crc {
            return Err(FormatError::Crc { what });
        }
        Ok(Self { rows })
    }

    /// How many rows there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rows.len() / HISTORY_ROW_BYTES
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows, by rising origin.
    pub fn iter(&self) -> impl Iterator<Item = Result<HistoryRow, FormatError>> + 'a {
        self.rows.chunks_exact(HISTORY_ROW_BYTES).map(HistoryRow::decode)
    }

    /// The row of this transaction, by binary search.
    pub fn find(&self, origin: u64) -> Result<Option<HistoryRow>, FormatError> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let at = middle * HISTORY_ROW_BYTES;
            let row = HistoryRow::decode(&self.rows[at..at + HISTORY_ROW_BYTES])?;
            match row.origin.cmp(&origin) {
                std::cmp::Ordering::Equal => return Ok(Some(row)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
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
            group_hash: 4,
            outcome: Outcome::Committed,
            source: Source::Operator,
            count: 5,
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
        golden.extend_from_slice(&[4, 0, 0, 0, 1, 3, 5, 0]);
        assert_eq!(row(9).to_bytes().as_slice(), golden);
        assert_eq!(HistoryRow::decode(&golden).unwrap(), row(9));
    }

    #[test]
    fn file_finds_each_row_and_no_other() {
        let rows: Vec<_> = (0..50).map(|n| row(n * 3 + 1)).collect();
        let bytes = encode_history(&rows);
        let file = HistoryFile::parse(&bytes).unwrap();
        assert_eq!(file.len(), 50);
        for origin in 0..160 {
            let expected = (origin % 3 == 1 && origin < 150).then(|| row(origin));
            assert_eq!(file.find(origin).unwrap(), expected);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_file_is_detected() {
        let bytes = encode_history(&[row(1), row(2)]);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(HistoryFile::parse(&damaged).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = HistoryFile::parse(&bytes);
            let _ = HistoryRow::decode(&bytes);
        }
    }
}
