//! Giving up the oldest segment.

use std::sync::Arc;

use super::segment::locked;
use super::shared::Log;
use crate::error::StorageError;

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

impl Log {
    /// All segments by rising base; the last one is being written. Prepared ones are not among them.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let info = |segment: &Arc<super::segment::Segment>| SegmentInfo {
            base: segment.base,
            end: segment.end(),
            bytes: segment.file_len(),
        };
        self.with_segments(|segments| segments.iter().map(info).collect())
    }

    /// Removes the oldest segment; returns the log's new first position. The caller has made a base durable that
    /// stands at or above that position. Slices that were handed out stay valid.
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
        self.fs.remove(&oldest.path).map_err(StorageError::io("remove", &oldest.path))?;
        let first = self.change_segments(|segments| {
            segments.pop_front();
            segments.front().map_or(0, |segment| segment.base)
        });
        // readers that hold slices keep the map alive; nobody else keeps the file's space taken
        oldest.close();
        // names go one after another, each durable before the next, so that no gap can remain after a crash
        self.fs
            .sync_dir(&self.dir)
            .map_err(|error| self.fence_by(StorageError::io("sync", &self.dir)(error)))?;
        Ok(first)
    }
}
