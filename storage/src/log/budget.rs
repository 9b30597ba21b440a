//! How much of the disk the log may take: the operator's bound, or the disk's own end.

use super::shared::Log;
use crate::concurrency::atomic::Ordering;

impl Log {
    /// Bytes of everything but segments that count against the bound.
    pub fn set_other_bytes(&self, bytes: u64) {
        self.other_bytes.store(bytes, Ordering::Release);
    }

    /// Bytes taken: segments, prepared ones, deleted ones that are still there, and everything else that counts.
    #[must_use]
    pub fn bytes_taken(&self) -> u64 {
        self.bytes_kept() + self.deleted_bytes.load(Ordering::Acquire)
    }

    /// As [`Log::bytes_taken`], without what is on its way out.
    fn bytes_kept(&self) -> u64 {
        self.live_bytes.load(Ordering::Acquire) + self.other_bytes.load(Ordering::Acquire)
    }

    /// Whether more is taken than the bound allows: what keeps promises may do that, new messages may not.
    #[must_use]
    pub fn is_over_bound(&self) -> bool {
        self.bytes_taken() > self.options.max_bytes
    }

    /// Whether another segment would exceed the bound.
    #[must_use]
    pub fn is_at_bound(&self) -> bool {
        self.bytes_taken().saturating_add(self.layout.segment_bytes) > self.options.max_bytes
    }

    /// Whether the disk had no room for another segment when it was last tried.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Acquire)
    }

    /// Whether retention has to make room: there is none for another segment once what is deleted already is gone.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.is_disk_full()
            || self.bytes_kept().saturating_add(self.layout.segment_bytes) > self.options.max_bytes
    }
}
