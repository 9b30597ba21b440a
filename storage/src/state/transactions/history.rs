//! What was decided. Decisions of segments that are still being written are in memory; when a segment is closed its
//! decisions go to one file, sorted and with an index by key, so that a million decisions cost no memory. The files
//! outlive the log, until the horizon or until they take too much room.
//!
//! A file holds the decisions that *stand* in its segment. A transaction prepared at `origin` can only have been decided
//! after it, so a look-up asks the files from that of the origin's own segment on, oldest first. A look-up by key asks
//! for the newest, so it begins at the other end.
//!
//! At the start only footers are read. A damaged file never stops the start and never answers: what might stand in it
//! cannot be told, and whoever asks is refused until it is rebuilt (at the next start, while the log holds its segment)
//! or has expired.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use mezzo_protocol::ids::{PhysicalOffset, QueueOffset};
use mezzo_protocol::time::Timestamp;

use super::history_search::{Search, read_footer};
use super::recent_decisions::{KeyFound, KeyIndex, RecentDecisions};
use crate::concurrency::atomic::{AtomicU64, Ordering};
use crate::concurrency::{Mutex, MutexGuard, RwLock};
use crate::error::StorageError;
use crate::file_system::{FileSystem, OpenMode};
use crate::format::history_file::{HistoryFooter, encode_history};
use crate::format::history_row::HistoryRow;
use crate::results::Decision;

/// Stands beside a damaged file whose segment the log still holds: at the next start it is removed and rebuilt.
const REBUILD: &str = "rebuild";

/// Shared with whoever writes them to a file, which is done when no more are added.
type Rows = Arc<RecentDecisions>;

/// Bytes of a row and its entry in the index by key, and a part of its pages.
const ROW_BYTES_ABOUT: u64 = 60;

/// All remembered decisions.
pub(crate) struct History {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    segment_bytes: u64,
    /// By segment number: decisions not yet in a file. Written under the append lock.
    recent: RwLock<BTreeMap<u64, Rows>>,
    /// By segment number: keys of what is in `recent`. Taken before `recent`.
    keys: Mutex<BTreeMap<u64, KeyIndex>>,
    /// By segment number.
    files: Mutex<BTreeMap<u64, ClosedSegment>>,
    /// One past the newest segment that has a file: spares the hot path a lock.
    newest_closed: AtomicU64,
    /// Position of the log's first byte, as last told.
    first_position: AtomicU64,
}

/// A file of decisions.
#[derive(Debug, Clone, Copy)]
enum ClosedSegment {
    /// Its footer holds; pages are checked when they are read.
    Whole(HistoryFooter),
    /// Nothing in it can be believed, and the log is past its segment. Kept for whoever can repair it.
    Damaged,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// A row as the rest of the store understands it.
pub(crate) fn decision_of(row: &HistoryRow) -> Decision {
    Decision {
        origin: PhysicalOffset(row.origin),
        outcome: row.outcome,
        source: row.source,
        decided_at: Timestamp::from_ms(row.decided_at_ms),
        count: row.count,
        queue_offset: row.first_queue_offset.map(QueueOffset),
        queue_offsets: Box::default(),
    }
}

impl History {
    /// Opens the folder of a log that begins at `first_position`. Damaged files are reported, and removed where the log
    /// can rebuild them.
    pub(crate) fn open(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        segment_bytes: u64,
        first_position: u64,
    ) -> Result<Self, StorageError> {
        fs.create_dir_all(&dir).map_err(StorageError::io("create folder", &dir))?;
        let history = Self {
            fs,
            dir,
            segment_bytes: segment_bytes.max(1),
            recent: RwLock::default(),
            keys: Mutex::default(),
            files: Mutex::default(),
            newest_closed: AtomicU64::new(0),
            first_position: AtomicU64::new(first_position),
        };
        let names = history.fs.list(&history.dir).map_err(StorageError::io("list", &history.dir))?;
        let to_rebuild = |number: u64| names.contains(&format!("{number:020}.{REBUILD}"));
        for name in &names {
            let path = history.dir.join(name);
            if let Some(number) = crate::base::number_of(name) {
                history.open_file(number, &path, to_rebuild(number));
            } else if crate::base::is_unfinished(name) || crate::base::number_with(name, REBUILD).is_some() {
                // an unfinished file of a run before, or the mark of a damaged one
                history.fs.remove(&path).map_err(StorageError::io("remove", &path))?;
            }
        }
        Ok(history)
    }

    fn open_file(&self, number: u64, path: &Path, marked: bool) {
        let in_the_log = self.is_in_the_log(number);
        let file = path.display();
        match read_footer(&*self.fs, path, number) {
            Ok(footer) if !(marked && in_the_log) => self.closed(number, footer),
            Err(error) if !in_the_log => {
                tracing::error!(%file, %error, "damaged history file: what was decided in its segment cannot be told");
                self.files().insert(number, ClosedSegment::Damaged);
            }
            read => {
                let error = read.err().map(tracing::field::display);
                tracing::warn!(%file, error, "damaged history file: it is rebuilt from the log");
                // one that stays is written over
                if let Err(error) = self.fs.remove(path) {
                    tracing::warn!(%file, %error, "a damaged history file cannot be removed");
                }
            }
        }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<u64, ClosedSegment>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self, number: u64, footer: HistoryFooter) {
        self.files().insert(number, ClosedSegment::Whole(footer));
        self.newest_closed.fetch_max(number + 1, Ordering::AcqRel);
    }

    fn is_in_the_log(&self, number: u64) -> bool {
        number >= self.first_position.load(Ordering::Acquire) / self.segment_bytes
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:020}"))
    }

    /// Remembers a decision, whose record stands in the segment of `position`.
    pub(crate) fn record(&self, position: u64, row: HistoryRow) {
        if self.is_closed(position) {
            // recovery folds a segment whose decisions are in a file already
            return;
        }
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        let rows = recent.entry(position / self.segment_bytes).or_default();
        Arc::make_mut(rows).insert(row);
    }

    fn is_closed(&self, position: u64) -> bool {
        let number = position / self.segment_bytes;
        if self.newest_closed.load(Ordering::Acquire) <= number {
            return false;
        }
        self.files().contains_key(&number)
    }

    /// Forgets what is in memory, because a checkpoint that named it turned out to be unusable.
    pub(crate) fn forget_recent(&self) {
        self.recent.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Looks among the decisions that are in memory.
    pub(crate) fn find_recent(&self, origin: u64) -> Option<HistoryRow> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        recent.range(origin / self.segment_bytes..).find_map(|(_, rows)| rows.get(origin))
    }

    /// Looks for the newest decision about a key of a producer group among those that are in memory.
    pub(crate) fn find_recent_by_key(&self, group_hash: u32, key_hash: u64) -> Option<HistoryRow> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        // segments behind this one were looked through
        let mut below = u64::MAX;
        loop {
            let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
            let (number, rows) = recent.range(..below).next_back()?;
            let number = *number;
            let index = keys.entry(number).or_default();
            match index.find(rows, group_hash, key_hash) {
                KeyFound::Row(row) => return Some(row),
                KeyFound::None => below = number,
                KeyFound::Behind(more) => {
                    drop(recent);
                    index.take_in(more);
                }
            }
        }
    }

    /// Looks everywhere; reads files.
    ///
    /// # Errors
    /// It was not found, and something that might hold it cannot be read.
    pub(crate) fn find(&self, origin: u64) -> Result<Option<HistoryRow>, StorageError> {
        // memory first: a segment may move from memory to a file meanwhile, never the other way
        if let Some(row) = self.find_recent(origin) {
            return Ok(Some(row));
        }
        let candidates: Vec<_> = {
            let from = origin / self.segment_bytes;
            self.files().range(from..).map(|(n, c)| (*n, *c)).collect()
        };
        let wanted = |footer: &HistoryFooter| (footer.min_origin..=footer.max_origin).contains(&origin);
        self.search(candidates, wanted, |search| search.by_origin(origin))
    }

    /// Looks everywhere for the newest decision about a key of a producer group; reads files.
    ///
    /// # Errors
    /// It was not found, or only behind something newer that cannot be read.
    pub(crate) fn find_by_key(
        &self,
        group_hash: u32,
        key_hash: u64,
    ) -> Result<Option<HistoryRow>, StorageError> {
        if let Some(row) = self.find_recent_by_key(group_hash, key_hash) {
            return Ok(Some(row));
        }
        let candidates: Vec<_> = self.files().iter().rev().map(|(n, c)| (*n, *c)).collect();
        self.search(candidates, |_| true, |search| search.newest_of_key(group_hash, key_hash))
    }

    /// Asks files one after another until one knows.
    fn search(
        &self,
        candidates: Vec<(u64, ClosedSegment)>,
        wanted: impl Fn(&HistoryFooter) -> bool,
        look: impl Fn(&Search<'_>) -> Result<Option<HistoryRow>, StorageError>,
    ) -> Result<Option<HistoryRow>, StorageError> {
        for (number, closed) in candidates {
            let path = self.path(number);
            let ClosedSegment::Whole(footer) = closed else {
                return Err(StorageError::corrupt(&path, 0, "its footer does not hold"));
            };
            if !wanted(&footer) {
                continue;
            }
            let Some(search) = Search::open(&*self.fs, &path, footer)? else {
                if self.files().contains_key(&number) {
                    return Err(StorageError::corrupt(&path, 0, "the file is gone"));
                }
                // expired since it was chosen
                continue;
            };
            let found = look(&search).inspect_err(|error| self.report(number, error))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// A page does not hold: says so, and sees to it that the file is rebuilt if it can be.
    fn report(&self, number: u64, error: &StorageError) {
        if !matches!(error, StorageError::Corrupt { .. }) {
            return;
        }
        let mark = self.path(number).with_extension(REBUILD);
        let in_the_log = self.is_in_the_log(number);
        if in_the_log && matches!(self.fs.exists(&mark), Ok(false)) {
            tracing::error!(%error, "damaged history file: the next start rebuilds it from the log");
            if let Err(error) = self.fs.open(&mark, OpenMode::Create) {
                tracing::warn!(%error, file = %mark.display(), "the damaged file cannot be marked");
            }
        }
    }

    /// Writes the decisions of every segment before the one that holds `limit` to files. All of them are durable then.
    pub(crate) fn close_segments_before(&self, limit: u64) -> Result<(), StorageError> {
        loop {
            let Some((number, rows)) = self.first_before(limit) else { return Ok(()) };
            self.write_file(number, &rows)?;
            // freed after the locks are given back
            let written = self.recent.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
            let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            drop((written, keys));
        }
    }

    /// The oldest decisions that are in no file, if their segment lies before the one that holds `limit`. Handed out,
    /// not copied: who records the next decision, with the append lock held, waits for this.
    fn first_before(&self, limit: u64) -> Option<(u64, Rows)> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        let first = recent.first_key_value().filter(|(n, _)| **n < limit / self.segment_bytes);
        first.map(|(n, rows)| (*n, Arc::clone(rows)))
    }

    fn write_file(&self, number: u64, decisions: &RecentDecisions) -> Result<(), StorageError> {
        let mut rows = decisions.rows().to_vec();
        let (bytes, footer) = encode_history(number, &mut rows);
        crate::base::write_durably(&*self.fs, &self.dir, &self.path(number), &bytes)?;
        self.closed(number, footer);
        Ok(())
    }

    /// Segments that have a file, each with its rows, for a checkpoint.
    pub(crate) fn closed_segments(&self) -> Vec<(u64, u64)> {
        let rows = |closed: &ClosedSegment| match closed {
            ClosedSegment::Whole(footer) => u64::from(footer.rows),
            ClosedSegment::Damaged => 0,
        };
        self.files().iter().map(|(number, closed)| (*number, rows(closed))).collect()
    }

    /// Decisions still in memory, for a checkpoint.
    pub(crate) fn recent_rows(&self) -> Vec<(u64, HistoryRow)> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        recent
            .iter()
            .flat_map(|(n, decisions)| {
                let segment = n * self.segment_bytes;
                decisions.rows().iter().map(move |r| (segment, *r))
            })
            .collect()
    }

    /// Forgets the oldest files, of segments before the log's `first_position` only: those whose newest decision is
    /// older than `older_than_ms`, and as many as all files together have beyond `bytes_max`.
    pub(crate) fn expire(
        &self,
        first_position: u64,
        older_than_ms: u64,
        bytes_max: u64,
    ) -> Result<(), StorageError> {
        self.first_position.store(first_position, Ordering::Release);
        while let Some(number) = self.first_expired(first_position, older_than_ms, bytes_max) {
            let Some(closed) = self.files().remove(&number) else { break };
            if let Err(error) = self.remove_durably(number) {
                // the younger ones must not go before it
                self.files().insert(number, closed);
                return Err(error);
            }
        }
        Ok(())
    }

    fn remove_durably(&self, number: u64) -> Result<(), StorageError> {
        let path = self.path(number);
        match self.fs.remove(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(StorageError::io("remove", &path))?,
        }
        // each durable before the next: a power cut must not bring back an older file alone, behind whose end
        // everything would seem to be known
        self.fs.sync_dir(&self.dir).map_err(StorageError::io("sync", &self.dir))
    }

    /// A checkpoint names a file for this segment, and there is none. Files go oldest first, so one that has an older
    /// one before it was not expired: what was decided there cannot be told. True if so.
    pub(crate) fn note_if_lost(&self, number: u64) -> bool {
        let mut files = self.files();
        let lost = files.first_key_value().is_some_and(|(oldest, _)| *oldest < number)
            && !files.contains_key(&number);
        if lost {
            files.insert(number, ClosedSegment::Damaged);
        }
        lost
    }

    fn first_expired(&self, first_position: u64, older_than_ms: u64, bytes_max: u64) -> Option<u64> {
        let files = self.files();
        let (number, _) =
            files.first_key_value().filter(|(n, _)| **n < first_position / self.segment_bytes)?;
        let whole = || {
            files.values().filter_map(|closed| match closed {
                ClosedSegment::Whole(footer) => Some(footer),
                ClosedSegment::Damaged => None,
            })
        };
        let bytes: u64 = whole().map(HistoryFooter::file_bytes).sum();
        // a damaged one is no older than what was decided after it
        let old = whole().next().is_some_and(|footer| footer.newest_ms < older_than_ms);
        (old || bytes > bytes_max).then_some(*number)
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        let files = self.files();
        let whole = files.values().filter_map(|closed| match closed {
            ClosedSegment::Whole(footer) => Some(footer.file_bytes()),
            ClosedSegment::Damaged => None,
        });
        whole.sum()
    }

    /// About the bytes that files of the decisions which are in none yet will take.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        recent.values().map(|rows| (rows.rows().len() as u64 * ROW_BYTES_ABOUT).next_multiple_of(4096)).sum()
    }

    /// Position from which on every decision is remembered: the first file's segment, or the log's first byte.
    pub(crate) fn complete_from(&self, first_position: u64) -> u64 {
        let files = self.files();
        files.first_key_value().map_or(first_position, |(n, _)| (n * self.segment_bytes).min(first_position))
    }
}

#[cfg(test)]
mod tests;
