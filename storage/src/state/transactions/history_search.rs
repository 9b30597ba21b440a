//! Look-ups in a closed history file: a handful of page reads each, whatever the file's size, and no page is believed
//! whose CRC does not hold.

use std::path::Path;
use std::sync::Arc;

use crate::error::StorageError;
use crate::file_system::{File, FileSystem, OpenMode};
use crate::format::FormatError;
use crate::format::history_file::{
    HISTORY_FOOTER_BYTES, HISTORY_PAGE_BYTES, HistoryFooter, HistoryPage, INDEX_ENTRIES_PER_PAGE, IndexEntry,
    ROWS_PER_PAGE, key_tag,
};
use crate::format::history_row::HistoryRow;

/// A history file that is open for a look-up.
pub(super) struct Search<'a> {
    path: &'a Path,
    footer: HistoryFooter,
    file: Arc<dyn File>,
}

impl<'a> Search<'a> {
    /// Opens the file; `None` if it is not there any more.
    pub(super) fn open(
        fs: &dyn FileSystem,
        path: &'a Path,
        footer: HistoryFooter,
    ) -> Result<Option<Self>, StorageError> {
        match fs.open(path, OpenMode::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StorageError::io("open", path)(e)),
            Ok(file) => Ok(Some(Self { path, footer, file })),
        }
    }

    /// The decision of this transaction.
    pub(super) fn by_origin(&self, origin: u64) -> Result<Option<HistoryRow>, StorageError> {
        let (mut low, mut high) = (0, self.footer.row_pages());
        while low < high {
            let middle = low + (high - low) / 2;
            let rows = self.rows(middle)?;
            let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(None) };
            if origin < first.origin {
                high = middle;
            } else if origin > last.origin {
                low = middle + 1;
            } else {
                let found = rows.binary_search_by_key(&origin, |row| row.origin);
                return Ok(found.ok().and_then(|at| rows.get(at)).copied());
            }
        }
        Ok(None)
    }

    /// The newest decision about a key of this group.
    pub(super) fn newest_of_key(
        &self,
        group_hash: u32,
        key_hash: u64,
    ) -> Result<Option<HistoryRow>, StorageError> {
        let tag = key_tag(group_hash, key_hash);
        // pages whose first entry lies behind every entry of this tag are not wanted
        let (mut low, mut high) = (0, self.footer.index_pages());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.index(middle)?.first().is_some_and(|entry| entry.tag <= tag) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        for page in (0..low).rev() {
            let entries = self.index(page)?;
            for entry in entries.iter().rev().skip_while(|entry| entry.tag > tag) {
                if entry.tag < tag {
                    return Ok(None);
                }
                let row = self.row(entry.row)?;
                if (row.group_hash, row.key_hash) == (group_hash, key_hash) {
                    return Ok(Some(row));
                }
            }
        }
        Ok(None)
    }

    fn row(&self, number: u32) -> Result<HistoryRow, StorageError> {
        let page = number / ROWS_PER_PAGE;
        let rows = self.rows(page)?;
        let missing = FormatError::BadValue { field: "history row number", got: u64::from(number) };
        rows.get((number % ROWS_PER_PAGE) as usize).copied().ok_or_else(|| self.damaged(page, missing))
    }

    fn rows(&self, page: u32) -> Result<Vec<HistoryRow>, StorageError> {
        let bytes = self.page(page)?;
        self.footer.rows_of(page, &bytes).map_err(|e| self.damaged(page, e))
    }

    fn index(&self, page: u32) -> Result<Vec<IndexEntry>, StorageError> {
        debug_assert!(page <= self.footer.rows / INDEX_ENTRIES_PER_PAGE, "behind the last index page");
        let number = self.footer.row_pages() + page;
        let bytes = self.page(number)?;
        self.footer.index_of(page, &bytes).map_err(|e| self.damaged(number, e))
    }

    fn page(&self, number: u32) -> Result<Box<HistoryPage>, StorageError> {
        let mut bytes = Box::new([0; HISTORY_PAGE_BYTES]);
        let offset = u64::from(number) * HISTORY_PAGE_BYTES as u64;
        self.file.read_exact_at(&mut *bytes, offset).map_err(|e| match e.kind() {
            // shorter than its footer said at the start
            std::io::ErrorKind::UnexpectedEof => StorageError::corrupt(self.path, offset, e),
            _ => StorageError::io("read", self.path)(e),
        })?;
        Ok(bytes)
    }

    fn damaged(&self, page: u32, reason: FormatError) -> StorageError {
        StorageError::corrupt(self.path, u64::from(page) * HISTORY_PAGE_BYTES as u64, reason)
    }
}

/// Reads the footer of a file alone.
///
/// # Errors
/// The file cannot be read, has another length than its footer says, or speaks of another segment than its name.
pub(super) fn read_footer(
    fs: &dyn FileSystem,
    path: &Path,
    segment: u64,
) -> Result<HistoryFooter, StorageError> {
    let file = fs.open(path, OpenMode::Read).map_err(StorageError::io("open", path))?;
    let len = file.len().map_err(StorageError::io("measure", path))?;
    let at = len.saturating_sub(HISTORY_FOOTER_BYTES as u64);
    let mut bytes = [0; HISTORY_FOOTER_BYTES];
    file.read_exact_at(&mut bytes, at).map_err(StorageError::io("read", path))?;
    let footer = HistoryFooter::parse(&bytes).map_err(|e| StorageError::corrupt(path, at, e))?;
    if footer.file_bytes() != len || footer.segment != segment {
        let reason = format!(
            "{len} bytes of segment {}, {} of {segment} expected",
            footer.segment,
            footer.file_bytes()
        );
        return Err(StorageError::corrupt(path, at, reason));
    }
    Ok(footer)
}
