//! One file per closed log segment: the decisions that stand in it, by origin and by key, kept beyond the log. Made of
//! pages that each check themselves, so that a file is neither read whole at the start nor ever believed unread.
//!
//! ```text
//! file:    row pages | index pages | footer
//! page:    4,080 bytes of rows or index entries, zeros behind the last | segment number u64 | page number u32 | crc u32
//! row:     48 bytes (`history_row.rs`), 85 to a page, by rising origin
//! index:   tag u32 | row number u32, 510 to a page, by rising (tag, position of the decision)
//! footer:  magic 8 B | version u16 | reserved u16 | rows u32 | segment number u64 | least origin u64 |
//!          greatest origin u64 | newest decided_at_ms u64 | reserved 12 B | crc u32
//! ```
//!
//! A CRC covers all bytes of its page or footer before it. A *tag* is [`key_tag`] of producer group and unique key: what
//! it finds is compared in full.

use super::FormatError;
use super::cursor::Cursor;
use super::history_row::{HISTORY_ROW_BYTES, HistoryRow};

/// Bytes of a page.
pub const HISTORY_PAGE_BYTES: usize = 4096;

/// Bytes of a page that rows or index entries may take.
const PAGE_DATA_BYTES: usize = 4080;

/// Rows of a full page.
pub const ROWS_PER_PAGE: u32 = (PAGE_DATA_BYTES / HISTORY_ROW_BYTES) as u32;

/// Bytes of an index entry.
const INDEX_ENTRY_BYTES: usize = 8;

/// Index entries of a full page.
pub const INDEX_ENTRIES_PER_PAGE: u32 = (PAGE_DATA_BYTES / INDEX_ENTRY_BYTES) as u32;

/// Bytes behind the last page.
pub const HISTORY_FOOTER_BYTES: usize = 64;

/// The version of history files that this program writes and the newest that it reads.
pub const HISTORY_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"MZHISTRY";
const PAGE_CRC_AT: usize = HISTORY_PAGE_BYTES - 4;
const FOOTER_CRC_AT: usize = HISTORY_FOOTER_BYTES - 4;

const _: () = assert!(ROWS_PER_PAGE as usize * HISTORY_ROW_BYTES == PAGE_DATA_BYTES);
const _: () = assert!(INDEX_ENTRIES_PER_PAGE as usize * INDEX_ENTRY_BYTES == PAGE_DATA_BYTES);

/// One page as it stands in a file.
pub type HistoryPage = [u8; HISTORY_PAGE_BYTES];

/// How the index orders keys: the high half of both hashes mixed, so that the same key of different groups stands apart.
#[must_use]
pub const fn key_tag(group_hash: u32, key_hash: u64) -> u32 {
    // the odd number nearest to 2^64 over the golden ratio spreads every bit into the high half
    let spread = (group_hash as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ key_hash;
    (spread.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}

/// What a file says of itself at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryFooter {
    /// Number of the segment whose decisions these are.
    pub segment: u64,
    /// How many rows and index entries there are.
    pub rows: u32,
    /// Origin of the first row.
    pub min_origin: u64,
    /// Origin of the last row.
    pub max_origin: u64,
    /// The newest `decided_at_ms` of all rows.
    pub newest_ms: u64,
}

impl HistoryFooter {
    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HISTORY_FOOTER_BYTES] {
        let mut out = [0; HISTORY_FOOTER_BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&HISTORY_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.rows.to_le_bytes());
        out[16..24].copy_from_slice(&self.segment.to_le_bytes());
        out[24..32].copy_from_slice(&self.min_origin.to_le_bytes());
        out[32..40].copy_from_slice(&self.max_origin.to_le_bytes());
        out[40..48].copy_from_slice(&self.newest_ms.to_le_bytes());
        let crc = crc32fast::hash(&out[..FOOTER_CRC_AT]);
        out[FOOTER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the footer; `bytes` must be exactly [`HISTORY_FOOTER_BYTES`] long.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let what = "history footer";
        let mut cursor = Cursor::new(what, bytes);
        if cursor.array::<8>()? != MAGIC {
            return Err(FormatError::BadMagic { what: "history file" });
        }
        let version = cursor.u16()?;
        cursor.u16()?;
        let rows = cursor.u32()?;
        let (segment, min_origin) = (cursor.u64()?, cursor.u64()?);
        let (max_origin, newest_ms) = (cursor.u64()?, cursor.u64()?);
        cursor.take(12)?;
        let crc = cursor.u32()?;
        cursor.finish()?;
        if bytes.get(..FOOTER_CRC_AT).map(crc32fast::hash) != Some(crc) {
            return Err(FormatError::Crc { what });
        }
        if version != HISTORY_VERSION {
            let (got, newest) = (u32::from(version), u32::from(HISTORY_VERSION));
            return Err(FormatError::Newer { what: "history file version", got, newest });
        }
        Ok(Self { segment, rows, min_origin, max_origin, newest_ms })
    }

    /// How many row pages there are; the index begins behind them.
    #[must_use]
    pub const fn row_pages(&self) -> u32 {
        self.rows.div_ceil(ROWS_PER_PAGE)
    }

    /// How many index pages there are.
    #[must_use]
    pub const fn index_pages(&self) -> u32 {
        self.rows.div_ceil(INDEX_ENTRIES_PER_PAGE)
    }

    /// Bytes of a whole file with this footer.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let pages = u64::from(self.row_pages()) + u64::from(self.index_pages());
        pages * HISTORY_PAGE_BYTES as u64 + HISTORY_FOOTER_BYTES as u64
    }

    /// The rows of row page `page`, fewer than a full page's only at the last one.
    pub fn rows_of(&self, page: u32, bytes: &HistoryPage) -> Result<Vec<HistoryRow>, FormatError> {
        let data = self.check(page, bytes)?;
        let count = self.rows.saturating_sub(page.saturating_mul(ROWS_PER_PAGE)).min(ROWS_PER_PAGE);
        data.chunks_exact(HISTORY_ROW_BYTES).take(count as usize).map(HistoryRow::decode).collect()
    }

    /// The entries of index page `page`, counted from the first index page.
    pub fn index_of(&self, page: u32, bytes: &HistoryPage) -> Result<Vec<IndexEntry>, FormatError> {
        let data = self.check(self.row_pages().saturating_add(page), bytes)?;
        let first = page.saturating_mul(INDEX_ENTRIES_PER_PAGE);
        let count = self.rows.saturating_sub(first).min(INDEX_ENTRIES_PER_PAGE);
        let entry = |bytes: &[u8]| {
            let mut cursor = Cursor::new("history index", bytes);
            Ok(IndexEntry { tag: cursor.u32()?, row: cursor.u32()? })
        };
        data.chunks_exact(INDEX_ENTRY_BYTES).take(count as usize).map(entry).collect()
    }

    /// The data of a page that is page `page` of this very file.
    fn check<'a>(&self, page: u32, bytes: &'a HistoryPage) -> Result<&'a [u8], FormatError> {
        let what = "history page";
        let mut tail = Cursor::new(what, &bytes[PAGE_DATA_BYTES..]);
        let (segment, number, crc) = (tail.u64()?, tail.u32()?, tail.u32()?);
        if crc32fast::hash(&bytes[..PAGE_CRC_AT]) != crc {
            return Err(FormatError::Crc { what });
        }
        if (segment, number) != (self.segment, page) {
            return Err(FormatError::BadValue { field: "history page number", got: u64::from(number) });
        }
        Ok(&bytes[..PAGE_DATA_BYTES])
    }
}

/// Where the index finds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// [`key_tag`] of the row's group and key.
    pub tag: u32,
    /// Number of the row, counted from 0.
    pub row: u32,
}

/// A whole history file and its footer. Sorts `rows` by origin; the first `u32::MAX` of them are written, far more than
/// a segment holds decisions.
pub fn encode_history(segment: u64, rows: &mut [HistoryRow]) -> (Vec<u8>, HistoryFooter) {
    rows.sort_unstable_by_key(|row| row.origin);
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let footer = HistoryFooter {
        segment,
        rows: count,
        min_origin: rows.first().map_or(u64::MAX, |row| row.origin),
        max_origin: rows.last().map_or(0, |row| row.origin),
        newest_ms: rows.iter().map(|row| row.decided_at_ms).max().unwrap_or(0),
    };
    let mut index: Vec<(u32, u64, u32)> = (0..count)
        .zip(rows.iter())
        .map(|(number, row)| (key_tag(row.group_hash, row.key_hash), row.decision_position, number))
        .collect();
    index.sort_unstable();
    let mut out = Vec::with_capacity(usize::try_from(footer.file_bytes()).unwrap_or(0));
    let mut page = 0;
    for rows in rows.chunks(ROWS_PER_PAGE as usize) {
        rows.iter().for_each(|row| out.extend_from_slice(&row.to_bytes()));
        end_page(&mut out, segment, &mut page);
    }
    for entries in index.chunks(INDEX_ENTRIES_PER_PAGE as usize) {
        for (tag, _, row) in entries {
            out.extend_from_slice(&tag.to_le_bytes());
            out.extend_from_slice(&row.to_le_bytes());
        }
        end_page(&mut out, segment, &mut page);
    }
    out.extend_from_slice(&footer.to_bytes());
    (out, footer)
}

/// Fills the page that `out` ends with and closes it.
fn end_page(out: &mut Vec<u8>, segment: u64, page: &mut u32) {
    let start = *page as usize * HISTORY_PAGE_BYTES;
    out.resize(start + PAGE_DATA_BYTES, 0);
    out.extend_from_slice(&segment.to_le_bytes());
    out.extend_from_slice(&page.to_le_bytes());
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    *page += 1;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::record::{Outcome, Source};

    fn row(origin: u64, key_hash: u64) -> HistoryRow {
        HistoryRow {
            origin,
            key_hash,
            decided_at_ms: 3,
            first_queue_offset: Some(1),
            decision_position: origin + 1,
            group_hash: 4,
            outcome: Outcome::Committed,
            source: Source::Operator,
            count: 5,
            named: false,
        }
    }

    fn page(bytes: &[u8], number: usize) -> &HistoryPage {
        bytes[number * HISTORY_PAGE_BYTES..].first_chunk().unwrap()
    }

    #[test]
    fn golden_bytes() {
        let (bytes, footer) = encode_history(7, &mut [row(9, 2)]);
        assert_eq!(bytes.len(), 2 * 4096 + 64);
        assert_eq!(bytes[..48], row(9, 2).to_bytes());
        assert!(bytes[48..4080].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[4080..4092], [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[4092..4096], crc32fast::hash(&bytes[..4092]).to_le_bytes());
        let tag = ((4u64.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 2).wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 32;
        assert_eq!(bytes[4096..4104], [&(tag as u32).to_le_bytes()[..], &[0; 4]].concat());
        assert_eq!(bytes[8176..8188], [7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        let mut golden = b"MZHISTRY\x01\0\0\0\x01\0\0\0".to_vec();
        for field in [7u64, 9, 9, 3] {
            golden.extend_from_slice(&field.to_le_bytes());
        }
        golden.extend_from_slice(&[0; 12]);
        golden.extend_from_slice(&crc32fast::hash(&golden).to_le_bytes());
        assert_eq!(bytes[8192..], golden);
        assert_eq!(HistoryFooter::parse(&golden), Ok(footer));
    }

    #[test]
    fn pages_give_back_every_row_by_origin_and_every_key_by_tag_and_age() {
        let mut rows: Vec<_> = (0..1000).rev().map(|n| row(n * 3, n % 7)).collect();
        let (bytes, footer) = encode_history(1, &mut rows);
        assert_eq!(bytes.len() as u64, footer.file_bytes());
        let read: Vec<_> = (0..footer.row_pages())
            .flat_map(|number| footer.rows_of(number, page(&bytes, number as usize)).unwrap())
            .collect();
        assert_eq!(read, (0..1000).map(|n| row(n * 3, n % 7)).collect::<Vec<_>>());
        let index: Vec<_> = (0..footer.index_pages())
            .flat_map(|number| {
                footer.index_of(number, page(&bytes, (footer.row_pages() + number) as usize)).unwrap()
            })
            .collect();
        assert_eq!(index.len(), 1000);
        let order = |entry: &IndexEntry| (entry.tag, read[entry.row as usize].decision_position);
        assert!(index.windows(2).all(|pair| order(&pair[0]) < order(&pair[1])));
        assert!(index.iter().all(|e| e.tag == key_tag(4, read[e.row as usize].key_hash)));
    }

    #[test]
    fn every_flipped_bit_of_a_page_and_of_the_footer_is_detected() {
        let (bytes, footer) = encode_history(1, &mut [row(1, 1), row(2, 2)]);
        for bit in 0..HISTORY_PAGE_BYTES * 8 {
            let mut damaged = *page(&bytes, 0);
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(footer.rows_of(0, &damaged).is_err(), "bit {bit}");
        }
        for bit in 0..HISTORY_FOOTER_BYTES * 8 {
            let mut damaged = footer.to_bytes();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(HistoryFooter::parse(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_page_of_another_place_or_file_is_refused() {
        let (bytes, footer) = encode_history(1, &mut [row(1, 1)]);
        assert!(footer.rows_of(0, page(&bytes, 1)).is_err());
        assert!(footer.index_of(0, page(&bytes, 0)).is_err());
        let other = HistoryFooter { segment: 2, ..footer };
        assert!(other.rows_of(0, page(&bytes, 0)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = HistoryFooter::parse(&bytes);
        }
    }
}
