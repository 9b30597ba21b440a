//! What was decided. Decisions of segments that are still being written are in memory; when a segment is closed its
//! decisions go to one sorted file of 40-byte rows, so that a million decisions cost no memory. The files outlive the
//! log, until the horizon.
//!
//! A file holds the decisions that *stand* in its segment. A transaction prepared at `origin` can only have been decided
//! after it, so a look-up asks the files from that of the origin's own segment on, oldest first.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use foldhash::fast::RandomState;
use mezzo_protocol::ids::QueueOffset;
use mezzo_protocol::time::Timestamp;

use crate::batch::Decision;
use crate::error::StorageError;
use crate::file_system::{FileSystem, OpenMode};
use crate::format::history_row::{HISTORY_ROW_BYTES, HistoryFile, HistoryRow, encode_history};

/// Decisions by origin. Shared with whoever writes them to a file, which is done when no more are added.
type Rows = Arc<HashMap<u64, HistoryRow, RandomState>>;

/// All remembered decisions.
pub(crate) struct History {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    segment_bytes: u64,
    /// By segment number: decisions not yet in a file. Written under the append lock.
    recent: RwLock<BTreeMap<u64, Rows>>,
    /// By segment number.
    files: Mutex<BTreeMap<u64, ClosedSegment>>,
    /// One past the newest segment that has a file: spares the hot path a lock.
    newest_closed: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct ClosedSegment {
    rows: u64,
    min_origin: u64,
    max_origin: u64,
    newest_ms: u64,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// A row as the rest of the store understands it.
pub(crate) fn decision_of(row: &HistoryRow) -> Decision {
    Decision {
        outcome: row.outcome,
        source: row.source,
        decided_at: Timestamp::from_ms(row.decided_at_ms),
        queue_offset: row.first_queue_offset.map(QueueOffset),
    }
}

impl History {
    /// Opens the folder; files that do not hold together are removed, since they are derived.
    pub(crate) fn open(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        segment_bytes: u64,
    ) -> Result<Self, StorageError> {
        fs.create_dir_all(&dir).map_err(StorageError::io("create folder", &dir))?;
        let history = Self {
            fs,
            dir,
            segment_bytes: segment_bytes.max(1),
            recent: RwLock::default(),
            files: Mutex::default(),
            newest_closed: AtomicU64::new(0),
        };
        let names = history.fs.list(&history.dir).map_err(StorageError::io("list", &history.dir))?;
        for name in names {
            let path = history.dir.join(&name);
            let Ok(number) = name.parse::<u64>() else {
                // an unfinished file of a run before
                history.fs.remove(&path).map_err(StorageError::io("remove", &path))?;
                continue;
            };
            match history.check_file(number)? {
                Some(closed) => {
                    history.closed(number, closed);
                }
                None => {
                    tracing::warn!(file = %path.display(), "damaged history file removed; it is rebuilt while the log still holds its segment");
                    history.fs.remove(&path).map_err(StorageError::io("remove", &path))?;
                }
            }
        }
        Ok(history)
    }

    fn closed(&self, number: u64, closed: ClosedSegment) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(number, closed);
        self.newest_closed.fetch_max(number + 1, Ordering::AcqRel);
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:020}"))
    }

    /// Reads a whole file; `None` if it does not hold together.
    fn check_file(&self, number: u64) -> Result<Option<ClosedSegment>, StorageError> {
        let bytes = crate::base::read_whole(&*self.fs, &self.path(number))?;
        let Ok(file) = HistoryFile::parse(&bytes) else { return Ok(None) };
        let mut closed = ClosedSegment { rows: 0, min_origin: u64::MAX, max_origin: 0, newest_ms: 0 };
        for row in file.iter() {
            let Ok(row) = row else { return Ok(None) };
            closed.rows += 1;
            closed.min_origin = closed.min_origin.min(row.origin);
            closed.max_origin = closed.max_origin.max(row.origin);
            closed.newest_ms = closed.newest_ms.max(row.decided_at_ms);
        }
        Ok(Some(closed))
    }

    /// Remembers a decision whose record stands at `position`.
    pub(crate) fn record(&self, position: u64, row: HistoryRow) {
        if self.is_closed(position) {
            // recovery folds a segment whose decisions are in a file already
            return;
        }
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        let rows = recent.entry(position / self.segment_bytes).or_default();
        Arc::make_mut(rows).insert(row.origin, row);
    }

    fn is_closed(&self, position: u64) -> bool {
        let number = position / self.segment_bytes;
        if self.newest_closed.load(Ordering::Acquire) <= number {
            return false;
        }
        self.files.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&number)
    }

    /// Forgets what is in memory, because a checkpoint that named it turned out to be unusable.
    pub(crate) fn forget_recent(&self) {
        self.recent.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Looks among the decisions that are in memory.
    pub(crate) fn find_recent(&self, origin: u64) -> Option<HistoryRow> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        recent.range(origin / self.segment_bytes..).find_map(|(_, rows)| rows.get(&origin).copied())
    }

    /// Looks everywhere; reads files.
    pub(crate) fn find(&self, origin: u64) -> Result<Option<HistoryRow>, StorageError> {
        // memory first: a segment may move from memory to a file meanwhile, never the other way
        if let Some(row) = self.find_recent(origin) {
            return Ok(Some(row));
        }
        let candidates: Vec<(u64, ClosedSegment)> = {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            let from = origin / self.segment_bytes;
            files.range(from..).map(|(n, c)| (*n, *c)).collect()
        };
        for (number, closed) in candidates {
            if (closed.min_origin..=closed.max_origin).contains(&origin)
                && let Some(row) = self.search_file(number, closed.rows, origin)?
            {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    fn search_file(&self, number: u64, rows: u64, origin: u64) -> Result<Option<HistoryRow>, StorageError> {
        let path = self.path(number);
        let io = |e| StorageError::Io { path: path.clone(), op: "read", source: e };
        let file = match self.fs.open(&path, OpenMode::Read) {
            // expired since it was chosen
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io)?,
        };
        let (mut low, mut high) = (0, rows);
        let mut bytes = [0u8; HISTORY_ROW_BYTES];
        while low < high {
            let middle = low + (high - low) / 2;
            file.read_exact_at(&mut bytes, middle * HISTORY_ROW_BYTES as u64).map_err(io)?;
            let row = HistoryRow::decode(&bytes)
                .map_err(|e| StorageError::corrupt(&path, middle * HISTORY_ROW_BYTES as u64, e))?;
            match row.origin.cmp(&origin) {
                std::cmp::Ordering::Equal => return Ok(Some(row)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// Writes the decisions of every segment before the one that holds `limit` to files. All of them are durable then.
    pub(crate) fn close_segments_before(&self, limit: u64) -> Result<(), StorageError> {
        loop {
            let Some((number, rows)) = self.first_before(limit) else { return Ok(()) };
            self.write_file(number, rows.values().copied().collect())?;
            // freed after the lock is given back
            let written = self.recent.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
            drop(written);
        }
    }

    /// The oldest decisions that are in no file, if their segment lies before the one that holds `limit`. Handed out,
    /// not copied: who records the next decision, with the append lock held, waits for this.
    fn first_before(&self, limit: u64) -> Option<(u64, Rows)> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        let first = recent.first_key_value().filter(|(n, _)| **n < limit / self.segment_bytes);
        first.map(|(n, rows)| (*n, Arc::clone(rows)))
    }

    fn write_file(&self, number: u64, mut rows: Vec<HistoryRow>) -> Result<(), StorageError> {
        rows.sort_unstable_by_key(|r| r.origin);
        let bytes = encode_history(&rows);
        let path = self.path(number);
        crate::base::write_durably(&*self.fs, &self.dir, &path, &bytes)?;
        if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
            let closed = ClosedSegment {
                rows: rows.len() as u64,
                min_origin: first.origin,
                max_origin: last.origin,
                newest_ms: rows.iter().map(|r| r.decided_at_ms).max().unwrap_or(0),
            };
            self.closed(number, closed);
        }
        Ok(())
    }

    /// Segments that have a file, each with its rows, for a checkpoint.
    pub(crate) fn closed_segments(&self) -> Vec<(u64, u64)> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter().map(|(number, closed)| (*number, closed.rows)).collect()
    }

    /// Decisions still in memory, for a checkpoint.
    pub(crate) fn recent_rows(&self) -> Vec<(u64, HistoryRow)> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        recent
            .iter()
            .flat_map(|(n, rows)| {
                let segment = n * self.segment_bytes;
                rows.values().map(move |r| (segment, *r))
            })
            .collect()
    }

    /// Forgets files of segments that the log no longer holds and whose newest decision is older than the horizon.
    pub(crate) fn expire(&self, first_position: u64, older_than_ms: u64) -> Result<(), StorageError> {
        let gone: Vec<u64> = {
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            let before_log = files.range(..first_position / self.segment_bytes);
            before_log.take_while(|(_, c)| c.newest_ms < older_than_ms).map(|(n, _)| *n).collect()
        };
        for number in gone {
            let path = self.path(number);
            self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            self.fs.remove(&path).map_err(StorageError::io("remove", &path))?;
        }
        Ok(())
    }

    /// Position from which on every decision is remembered: the first file's segment, or the log's first byte.
    pub(crate) fn complete_from(&self, first_position: u64) -> u64 {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.first_key_value().map_or(first_position, |(n, _)| (n * self.segment_bytes).min(first_position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_system::SimulatedDisk;
    use crate::format::record::{Outcome, Source};

    fn row(origin: u64) -> HistoryRow {
        HistoryRow {
            origin,
            key_hash: 1,
            decided_at_ms: 2,
            first_queue_offset: None,
            group_hash: 3,
            outcome: Outcome::RolledBack,
            source: Source::Producer,
            count: 1,
        }
    }

    #[test]
    fn a_segment_is_closed_without_a_copy_under_the_lock_that_appends_need() {
        let history = History::open(Arc::new(SimulatedDisk::new()), PathBuf::from("/h"), 1000).unwrap();
        for position in [10, 20, 1010, 1020] {
            history.record(position, row(position));
        }
        let (number, rows) = history.first_before(1500).unwrap();
        assert_eq!((number, rows.len()), (0, 2));
        assert!(Arc::ptr_eq(&rows, &history.recent.read().unwrap()[&0]));
        // while it is being written, appends go on and look-ups find both
        history.record(1030, row(1030));
        assert!(history.find(20).unwrap().is_some() && history.find(1030).unwrap().is_some());
        drop(rows);
        history.close_segments_before(1500).unwrap();
        assert_eq!(history.closed_segments(), [(0, 2)]);
        assert!(history.find_recent(20).is_none() && history.find_recent(1020).is_some());
        assert_eq!(history.find(20).unwrap(), Some(row(20)));
        assert!(history.first_before(1500).is_none());
    }
}
