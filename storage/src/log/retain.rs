//! Giving up the oldest segment: first its name, which is one small step, then its space, piece by piece.

use std::path::PathBuf;
use std::sync::Arc;

use super::segment::{Segment, locked, parse_segment_name};
use super::shared::Log;
use crate::concurrency::atomic::Ordering;
use crate::error::StorageError;
use crate::file_system::OpenMode;

/// Ending of a segment's name from the moment in which the log begins behind it.
const DELETED: &str = "deleted";
/// Most bytes that one step cuts off a deleted file: a file system takes long over a large one, and holds others up.
const CUT_BYTES_MAX: u64 = 16 << 20;
/// Least number of steps in which a segment's space is given back.
const CUT_STEPS_MIN: u64 = 8;
/// Steps that a deleted file is left as it is because a reader still has bytes of it; after that it goes as a whole.
const HELD_STEPS_MAX: u32 = 60;

/// One segment of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Position of its first byte.
    pub base: u64,
    /// Position behind its last valid byte.
    pub end: u64,
    /// Bytes that its file takes on the disk.
    pub bytes: u64,
}

/// A file that is no part of the log any more and still takes space.
pub(super) struct Deleted {
    segment: Arc<Segment>,
    path: PathBuf,
    bytes: u64,
    held_steps: u32,
}

impl Deleted {
    fn new(segment: Arc<Segment>, path: PathBuf, bytes: u64) -> Self {
        Self { segment, path, bytes, held_steps: 0 }
    }

    /// Whether somebody reads from it, or may begin to.
    fn is_held(&self) -> bool {
        // whoever has found the segment may still map it
        if Arc::strong_count(&self.segment) > 1 {
            return true;
        }
        self.segment.close();
        self.segment.is_mapped()
    }
}

impl Log {
    /// All segments by rising base; the last one is being written. Prepared ones are not among them.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let info = |segment: &Arc<Segment>| SegmentInfo {
            base: segment.base,
            end: segment.end(),
            bytes: segment.file_len(),
        };
        self.with_segments(|segments| segments.iter().map(info).collect())
    }

    /// Takes the oldest segment out of the log; returns the log's new first position. The caller has made a base
    /// durable that stands at or above that position. Slices that were handed out stay valid; the space comes back
    /// with [`Log::cut_deleted`].
    ///
    /// # Errors
    /// [`StorageError::Busy`] for the segment that is being written and for one that is not durable yet.
    pub fn remove_first_segment(&self) -> Result<u64, StorageError> {
        // one removal at a time, and none while a segment is prepared: both change the folder
        let _preparing = locked(&self.prepare_lock);
        self.check()?;
        let oldest = self.with_segments(|segments| {
            (segments.len() > 1).then(|| segments.front().map(Arc::clone)).flatten()
        });
        let Some(oldest) = oldest.filter(|segment| segment.end() <= self.synced()) else {
            return Err(StorageError::Busy { reason: "the oldest segment is still being written" });
        };
        // whoever has found it goes on reading through this handle: the name that it was found by is about to go
        self.forget_open(&oldest);
        oldest.file(&*self.fs)?;
        let path = oldest.path.with_extension(DELETED);
        self.fs.rename(&oldest.path, &path).map_err(StorageError::io("rename", &oldest.path))?;
        let first = self.change_segments(|segments| {
            segments.pop_front();
            segments.front().map_or(0, |segment| segment.base)
        });
        self.forget_open(&oldest);
        let bytes = oldest.file_len();
        self.live_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.deleted_bytes.fetch_add(bytes, Ordering::AcqRel);
        locked(&self.deleted).push_back(Deleted::new(oldest, path, bytes));
        // names go one after another, each durable before the next, so that no gap can remain after a crash; and
        // nothing is cut off a file whose name might come back
        self.fs
            .sync_dir(&self.dir)
            .map_err(|error| self.fence_by(StorageError::io("sync", &self.dir)(error)))?;
        Ok(first)
    }

    /// Finds the files that a run before had taken out of the log and not removed yet.
    ///
    /// # Errors
    /// When the folder cannot be listed or a file not be opened.
    pub fn adopt_deleted(&self) -> Result<(), StorageError> {
        for name in self.fs.list(&self.dir).map_err(StorageError::io("list", &self.dir))? {
            let path = self.dir.join(&name);
            let was_segment = path.file_stem().and_then(|stem| stem.to_str()).and_then(parse_segment_name);
            if path.extension().is_none_or(|ending| ending != DELETED) || was_segment.is_none() {
                continue;
            }
            let file = self.fs.open(&path, OpenMode::Read).map_err(StorageError::io("open", &path))?;
            let bytes = file.len().map_err(StorageError::io("measure", &path))?;
            self.deleted_bytes.fetch_add(bytes, Ordering::AcqRel);
            let segment = Arc::new(Segment::closed(&self.dir, 0, 0, bytes));
            locked(&self.deleted).push_back(Deleted::new(segment, path, bytes));
        }
        Ok(())
    }

    /// One small step of giving back the space of deleted segments; true if something was done. What cannot be
    /// removed now is removed by the next start.
    pub fn cut_deleted(&self) -> bool {
        let mut deleted = locked(&self.deleted);
        let Some(oldest) = deleted.front_mut() else { return false };
        let held = oldest.is_held();
        if held && oldest.held_steps < HELD_STEPS_MAX {
            oldest.held_steps += 1;
            return false;
        }
        // what is mapped must not be cut, but its name may go
        let piece = CUT_BYTES_MAX.min(self.layout.segment_bytes / CUT_STEPS_MIN).max(1);
        if !held && oldest.bytes > piece {
            let kept = oldest.bytes - piece;
            let cut = self.fs.open(&oldest.path, OpenMode::ReadWrite).and_then(|file| file.set_len(kept));
            if cut.is_ok() {
                oldest.bytes = kept;
                self.deleted_bytes.fetch_sub(piece, Ordering::AcqRel);
                return true;
            }
        }
        if let Err(error) = self.fs.remove(&oldest.path) {
            tracing::warn!(path = %oldest.path.display(), %error, "a deleted segment stays until the next start");
        }
        self.deleted_bytes.fetch_sub(oldest.bytes, Ordering::AcqRel);
        deleted.pop_front();
        true
    }
}
