//! What the writer, the readers, the syncer and the segment preparer share.
//!
//! Lock order: `sync_lock` or `prepare_lock`, then `segments` or `spares` or `cold`, never two of the latter at once,
//! and no disk operation under `segments` or `spares`.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};

use super::layout::{Layout, LogOptions};
use super::retain::Deleted;
use super::segment::{Segment, locked};
use crate::concurrency::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::concurrency::{Mutex, RwLock};
use crate::error::StorageError;
use crate::file_system::{File, FileSystem};
use crate::format::loss::Losses;
use crate::format::record::LogSeed;

/// Most handles of closed segments that stay open.
const COLD_FILES_MAX: usize = 64;

/// The log as everyone but its writer sees it.
pub struct Log {
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) dir: PathBuf,
    pub(super) layout: Layout,
    pub(super) seed: LogSeed,
    pub(super) options: LogOptions,
    /// By rising base; the last one is being written.
    pub(super) segments: RwLock<VecDeque<Arc<Segment>>>,
    pub(super) spares: Mutex<Spares>,
    /// As many as `spares` holds: read at each append without the lock.
    pub(super) spare_count: AtomicUsize,
    /// Everything below is written.
    pub(super) appended: AtomicU64,
    /// Everything below is durable.
    pub(super) synced: AtomicU64,
    /// Everything below has been handed to write-back.
    pub(super) written_back: AtomicU64,
    /// Maps of segments below this base have been dropped.
    pub(super) cooled_to: AtomicU64,
    pub(super) sync_lock: Mutex<()>,
    pub(super) prepare_lock: Mutex<()>,
    /// Bytes of the files of segments and prepared segments.
    pub(super) live_bytes: AtomicU64,
    /// Bytes of the files in `deleted`.
    pub(super) deleted_bytes: AtomicU64,
    /// Bytes of other files that count against the bound.
    pub(super) other_bytes: AtomicU64,
    /// The disk had no room for another segment.
    pub(super) disk_full: AtomicBool,
    /// Oldest first. Taken alone.
    pub(super) deleted: Mutex<VecDeque<Deleted>>,
    cold: Mutex<VecDeque<Arc<Segment>>>,
    fence: OnceLock<String>,
    /// What of the log is lost, with a person's consent.
    pub(super) losses: Losses,
}

/// Prepared segments, by rising base.
pub(super) struct Spares {
    pub(super) ready: VecDeque<Arc<Segment>>,
    /// Base of the next one to prepare: above every file that ever existed.
    pub(super) next_base: u64,
}

/// What recovery hands over to the running log.
pub(super) struct Parts {
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) dir: PathBuf,
    pub(super) layout: Layout,
    pub(super) options: LogOptions,
    pub(super) segments: VecDeque<Arc<Segment>>,
    pub(super) spares: VecDeque<Arc<Segment>>,
    pub(super) next_base: u64,
    /// Appended and durable.
    pub(super) end: u64,
    pub(super) losses: Losses,
}

impl Log {
    pub(super) fn new(parts: Parts) -> Self {
        let files = parts.segments.iter().chain(&parts.spares);
        let live_bytes = files.map(|segment| segment.file_len()).sum();
        let cooled_to = parts.segments.front().map_or(0, |segment| segment.base);
        Self {
            fs: parts.fs,
            dir: parts.dir,
            seed: parts.layout.seed(),
            layout: parts.layout,
            options: parts.options,
            segments: RwLock::new(parts.segments),
            spare_count: AtomicUsize::new(parts.spares.len()),
            spares: Mutex::new(Spares { ready: parts.spares, next_base: parts.next_base }),
            appended: AtomicU64::new(parts.end),
            synced: AtomicU64::new(parts.end),
            written_back: AtomicU64::new(parts.end),
            cooled_to: AtomicU64::new(cooled_to),
            sync_lock: Mutex::new(()),
            prepare_lock: Mutex::new(()),
            live_bytes: AtomicU64::new(live_bytes),
            deleted_bytes: AtomicU64::new(0),
            other_bytes: AtomicU64::new(0),
            disk_full: AtomicBool::new(false),
            deleted: Mutex::new(VecDeque::new()),
            cold: Mutex::new(VecDeque::new()),
            fence: OnceLock::new(),
            losses: parts.losses,
        }
    }

    /// The sizes and the secret of this log.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where every record's CRC starts.
    #[must_use]
    pub fn seed(&self) -> LogSeed {
        self.seed
    }

    /// Everything below this position is written (and readable); the end of the newest frame.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }

    /// Everything below this position is durable.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// The first position that still exists: the base of the oldest segment.
    #[must_use]
    pub fn first_position(&self) -> u64 {
        self.with_segments(|segments| segments.front().map_or(0, |segment| segment.base))
    }

    /// Prepared segments that are left, the reserve included.
    #[must_use]
    pub fn spare_segments(&self) -> usize {
        self.spare_count.load(Ordering::Acquire)
    }

    /// Ends all writing and all acknowledging; the first reason stays.
    pub fn fence(&self, reason: impl Into<String>) {
        // not reported here: an orderly end fences, too, and a failure is returned to whoever met it
        let _ = self.fence.set(reason.into());
    }

    /// Ends all writing in order: nothing failed, nothing more may be appended.
    pub fn seal(&self) {
        let _ = self.fence.set("the log was closed in order".to_owned());
    }

    /// Whether a write or a sync has failed.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.fence.get().is_some()
    }

    /// Whether the log still takes and acknowledges anything.
    ///
    /// # Errors
    /// [`StorageError::Fenced`] with the first reason.
    pub fn check(&self) -> Result<(), StorageError> {
        self.fence.get().map_or(Ok(()), |reason| Err(StorageError::Fenced { reason: reason.clone() }))
    }

    /// Fences because of `error` and hands it back.
    pub(super) fn fence_by(&self, error: StorageError) -> StorageError {
        self.fence(error.to_string());
        error
    }

    pub(super) fn with_segments<T>(&self, use_them: impl FnOnce(&VecDeque<Arc<Segment>>) -> T) -> T {
        use_them(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn change_segments<T>(&self, change: impl FnOnce(&mut VecDeque<Arc<Segment>>) -> T) -> T {
        change(&mut self.segments.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The segment whose positions include `position`; `Gone` below the first.
    pub(super) fn segment_of(&self, position: u64) -> Result<Arc<Segment>, StorageError> {
        self.with_segments(|segments| {
            let after = segments.partition_point(|segment| segment.base <= position);
            let Some(index) = after.checked_sub(1) else {
                let first = segments.front().map_or(0, |segment| segment.base);
                return Err(StorageError::Gone { position, first });
            };
            segments.get(index).map(Arc::clone).ok_or(StorageError::NotARecord { position })
        })
    }

    /// Says that what stands at `position` does not hold, with the file and the offset in it.
    pub(crate) fn damaged(&self, position: u64, reason: impl fmt::Display) -> StorageError {
        match self.segment_of(position) {
            Ok(segment) => StorageError::corrupt(&segment.path, position - segment.base, reason),
            Err(gone) => gone,
        }
    }

    /// An open handle of any segment. Closed ones are opened on demand, and the longest open of them is closed when
    /// there are too many.
    pub(super) fn file_of(&self, segment: &Arc<Segment>) -> Result<Arc<dyn File>, StorageError> {
        let (file, opened) = segment.file(&*self.fs)?;
        if opened {
            self.note_open(segment);
        }
        Ok(file)
    }

    /// Counts a closed segment's handle. What is not durable yet keeps its handle, so that no sync error is missed.
    pub(super) fn note_open(&self, segment: &Arc<Segment>) {
        let mut cold = locked(&self.cold);
        cold.push_back(Arc::clone(segment));
        if cold.len() > COLD_FILES_MAX
            && let Some(oldest) = cold.pop_front()
        {
            if oldest.end() <= self.synced() {
                oldest.close();
            } else {
                cold.push_back(oldest);
            }
        }
        drop(cold);
        // taken out of the log since it was found: who did that looked for it here too early
        if segment.base < self.first_position() {
            self.forget_open(segment);
        }
    }
}

impl Log {
    /// The segment is in the log no more: its handle is not kept open for others.
    pub(super) fn forget_open(&self, segment: &Arc<Segment>) {
        locked(&self.cold).retain(|open| !Arc::ptr_eq(open, segment));
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("appended", &self.appended())
            .field("synced", &self.synced())
            .finish_non_exhaustive()
    }
}
