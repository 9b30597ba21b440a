//! Making the log durable, and pacing what the kernel has to write.

use std::sync::Arc;

use super::segment::{Segment, locked};
use super::shared::Log;
use crate::concurrency::atomic::Ordering;
use crate::error::StorageError;

impl Log {
    /// Makes durable whatever is appended by now; returns the position that [`Log::synced`] has reached. Callers at
    /// the same time share one sync: whoever waited for it finds the work done.
    ///
    /// # Errors
    /// The first failure fences the log for good: after a failed sync the kernel may have dropped the bytes and call
    /// the next sync a success. Only a new start, which writes them again, may go on.
    pub fn sync(&self) -> Result<u64, StorageError> {
        let wanted = self.appended();
        let _syncing = locked(&self.sync_lock);
        self.check()?;
        let from = self.synced();
        if from >= wanted {
            return Ok(from);
        }
        let target = self.appended();
        for segment in self.segments_between(from, target) {
            let file = self.file_of(&segment).map_err(|error| self.fence_by(error))?;
            file.sync_data()
                .map_err(|error| self.fence_by(StorageError::io("sync", &segment.path)(error)))?;
        }
        self.synced.fetch_max(target, Ordering::AcqRel);
        Ok(target)
    }

    /// Asks the kernel to start writing what has been appended since the last time, once it is
    /// `writeback_bytes`: without this, dirty pages pile up until the kernel stops the append itself.
    pub fn writeback(&self) {
        let appended = self.appended();
        let from = self.written_back.load(Ordering::Acquire);
        if appended.saturating_sub(from) < self.options.writeback_bytes.max(1) {
            return;
        }
        // whoever raises the mark does the work; every other appender goes on
        if self.written_back.compare_exchange(from, appended, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        for segment in self.segments_between(from, appended) {
            let start = from.max(segment.base) - segment.base;
            let end = segment.end() - segment.base;
            if let Ok(file) = self.file_of(&segment) {
                // a hint: if it fails, so will the sync that follows, and that one counts
                let _ = file.start_writeback(start, end.saturating_sub(start));
            }
        }
    }

    /// The segments that hold bytes of `[from, to)`, in order.
    fn segments_between(&self, from: u64, to: u64) -> Vec<Arc<Segment>> {
        self.with_segments(|segments| {
            let newest_first = segments.iter().rev().skip_while(|segment| segment.base >= to);
            let mut found: Vec<_> =
                newest_first.take_while(|segment| segment.end() > from).map(Arc::clone).collect();
            found.reverse();
            found
        })
    }
}
