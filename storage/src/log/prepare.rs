//! Preparing segments ahead of their use, in small steps, so that rolling into one is a single small write.
//!
//! A prepared segment has its final name, its length and its space on the disk, all durable, before it is offered. The
//! zeros that make a write into it cheap follow piece by piece, also after it has come into use.

use std::path::Path;
use std::sync::Arc;

use super::segment::{Segment, locked, segment_name};
use super::shared::Log;
use crate::concurrency::atomic::Ordering;
use crate::error::StorageError;
use crate::file_system::{File, FileSystem, OpenMode};

/// Zeros written by one step.
const FILL_BYTES: usize = 1024 * 1024;
static ZEROS: [u8; FILL_BYTES] = [0; FILL_BYTES];

/// What a step of preparing has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrepareStep {
    /// Something; call again.
    Worked,
    /// Nothing is left to do until the log rolls.
    Idle,
    /// The disk has no room for another segment. Nothing is broken; call again later.
    NoSpace,
}

impl Log {
    /// One bounded step of preparing: makes one missing segment, or fills one piece of at most 1 MiB with zeros, or
    /// syncs one filled spare. Driven by a background thread, or by the simulator.
    ///
    /// # Errors
    /// A failed write or sync fences the log, as everywhere.
    pub fn prepare_segments(&self) -> Result<PrepareStep, StorageError> {
        let _preparing = locked(&self.prepare_lock);
        self.check()?;
        self.cool();
        let spares = self.spare_segments();
        // the reserve is made whatever the bound
        if spares < self.options.spare_segments && (spares == 0 || !self.is_at_bound()) {
            return self.make_spare();
        }
        if !self.options.zero_fill {
            return Ok(PrepareStep::Idle);
        }
        let active = self.with_segments(|segments| segments.back().map(Arc::clone));
        if let Some(active) = active
            && self.fill(&active)?
        {
            return Ok(PrepareStep::Worked);
        }
        let spares: Vec<_> = locked(&self.spares).ready.iter().map(Arc::clone).collect();
        for spare in spares {
            if self.fill(&spare)? {
                if spare.zeroed_to() >= spare.file_len() {
                    // now, while nobody waits for it: later it would be paid by the first group that is synced
                    let (file, _) = spare.file(&*self.fs)?;
                    file.sync_data()
                        .map_err(|error| self.fence_by(StorageError::io("sync", &spare.path)(error)))?;
                }
                return Ok(PrepareStep::Worked);
            }
        }
        Ok(PrepareStep::Idle)
    }

    fn fill(&self, segment: &Segment) -> Result<bool, StorageError> {
        if segment.zeroed_to() >= segment.file_len() {
            return Ok(false);
        }
        let (file, _) = segment.file(&*self.fs)?;
        segment.fill_step(&*file, &ZEROS).map_err(|error| self.fence_by(error))
    }

    fn make_spare(&self) -> Result<PrepareStep, StorageError> {
        // only this thread prepares, so the base stays free while the lock is not held
        let base = locked(&self.spares).next_base;
        let path = self.dir.join(segment_name(base));
        let made = allocate_segment(&*self.fs, &path, self.layout.segment_bytes).and_then(|file| {
            self.fs.sync_dir(&self.dir).map(|()| file).map_err(StorageError::io("sync", &self.dir))
        });
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                discard_file(&*self.fs, &path);
                if error.is_out_of_space() {
                    self.disk_full.store(true, Ordering::Release);
                    return Ok(PrepareStep::NoSpace);
                }
                return Err(self.fence_by(error));
            }
        };
        let segment = Arc::new(Segment::open(&self.dir, base, file, self.layout.segment_bytes, 0));
        self.disk_full.store(false, Ordering::Release);
        // counted before it can be entered, so that messages never use a reserve that exceeds the bound
        self.live_bytes.fetch_add(self.layout.segment_bytes, Ordering::AcqRel);
        let mut spares = locked(&self.spares);
        spares.ready.push_back(segment);
        spares.next_base = base + self.layout.segment_bytes;
        self.spare_count.store(spares.ready.len(), Ordering::Release);
        Ok(PrepareStep::Worked)
    }

    /// Drops the maps of segments that are not hot any more.
    fn cool(&self) {
        let hot_from = self.appended().saturating_sub(self.options.hot_bytes);
        let cooled_to = self.cooled_to.load(Ordering::Acquire);
        let cold: Vec<_> = self.with_segments(|segments| {
            let newer = segments.iter().skip_while(|segment| segment.base < cooled_to);
            newer
                .take_while(|segment| segment.base + self.layout.segment_bytes <= hot_from)
                .map(Arc::clone)
                .collect()
        });
        for segment in cold {
            segment.unmap();
            self.cooled_to.store(segment.base + self.layout.segment_bytes, Ordering::Release);
        }
    }
}

/// A new file with the space of a whole segment, durable but for its name: the caller syncs the folder.
pub(super) fn allocate_segment(
    fs: &dyn FileSystem,
    path: &Path,
    segment_bytes: u64,
) -> Result<Arc<dyn File>, StorageError> {
    let file = fs.open(path, OpenMode::Create).map_err(StorageError::io("create", path))?;
    file.allocate(segment_bytes).map_err(StorageError::io("allocate", path))?;
    file.sync_all().map_err(StorageError::io("sync", path))?;
    Ok(file)
}

/// Removes a file that could not be finished. Best effort: what stays is found and removed by the next start.
pub(super) fn discard_file(fs: &dyn FileSystem, path: &Path) {
    if let Err(error) = fs.remove(path) {
        tracing::warn!(path = %path.display(), %error, "could not remove an unfinished segment");
    }
}
