//! One segment file: its name, its handle, its map, and how far it is filled with zeros.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};

use crate::concurrency::atomic::{AtomicU64, Ordering};
use crate::concurrency::{Mutex, MutexGuard, RwLock};
use crate::error::StorageError;
use crate::file_system::{File, FileSystem, Mapping, OpenMode};

/// Digits of a segment's name: enough for every u64.
const NAME_DIGITS: usize = 20;

/// The name of the segment with this base.
pub(super) fn segment_name(base: u64) -> String {
    format!("{base:020}")
}

/// The base that a segment's name says; `None` for names of other things.
pub(super) fn parse_segment_name(name: &str) -> Option<u64> {
    (name.len() == NAME_DIGITS && name.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| name.parse().ok())?
}

/// A guard even if another thread panicked while it held the lock: every state behind these locks is valid after
/// each single step.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One segment, in the log or prepared for it.
pub(super) struct Segment {
    pub(super) base: u64,
    pub(super) path: PathBuf,
    /// Position behind the last valid byte.
    end: AtomicU64,
    /// Bytes of the file.
    file_len: u64,
    /// Opened when first needed; closed again when the log has too many cold handles open.
    handle: Mutex<Option<Arc<dyn File>>>,
    map: RwLock<Option<Mapping>>,
    /// One for each map of which something may be left: slices outlive the place above.
    lives: Mutex<Vec<Weak<()>>>,
    /// Offset in the file up to which nothing is left to fill: zeros or frames stand there.
    zeroed_to: AtomicU64,
    /// Whoever raises `zeroed_to` holds this, so that zeros are never written over a frame: the filler while it
    /// writes, an append that reaches past `zeroed_to` before it writes.
    fill_lock: Mutex<()>,
}

impl Segment {
    /// A segment that was there before this start: closed, its handle opened on demand.
    pub(super) fn closed(dir: &Path, base: u64, end: u64, file_len: u64) -> Self {
        Self {
            base,
            path: dir.join(segment_name(base)),
            end: AtomicU64::new(end),
            file_len,
            handle: Mutex::new(None),
            map: RwLock::new(None),
            lives: Mutex::new(Vec::new()),
            zeroed_to: AtomicU64::new(file_len),
            fill_lock: Mutex::new(()),
        }
    }

    /// A segment with an open handle whose bytes from `zeroed_to` on still wait for zeros.
    pub(super) fn open(dir: &Path, base: u64, file: Arc<dyn File>, file_len: u64, zeroed_to: u64) -> Self {
        Self {
            handle: Mutex::new(Some(file)),
            zeroed_to: AtomicU64::new(zeroed_to),
            ..Self::closed(dir, base, base, file_len)
        }
    }

    /// Position behind the last valid byte.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Raises the end; called before the log's own `appended` is raised.
    pub(super) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Bytes that the file takes on the disk.
    pub(super) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// The open file; opens it (read-only) if it is closed. The second value says whether it was opened just now.
    pub(super) fn file(&self, fs: &dyn FileSystem) -> Result<(Arc<dyn File>, bool), StorageError> {
        let mut handle = locked(&self.handle);
        if let Some(file) = handle.as_ref() {
            return Ok((Arc::clone(file), false));
        }
        let file =
            fs.open(&self.path, OpenMode::Read).map_err(StorageError::io("open for reading", &self.path))?;
        *handle = Some(Arc::clone(&file));
        Ok((file, true))
    }

    /// Closes the handle and drops the map; both come back on demand.
    pub(super) fn close(&self) {
        *locked(&self.handle) = None;
        self.unmap();
    }

    /// The map; made when first asked for.
    pub(super) fn mapping(&self, fs: &dyn FileSystem) -> Result<Mapping, StorageError> {
        if let Some(map) = self.map.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return Ok(map.clone());
        }
        let (file, _) = self.file(fs)?;
        let made = file.map().map_err(StorageError::io("map", &self.path))?;
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if map.is_none() {
            let mut lives = locked(&self.lives);
            lives.retain(|life| life.strong_count() > 0);
            lives.push(made.life());
        }
        Ok(map.get_or_insert(made).clone())
    }

    /// Drops the map; slices that were handed out stay valid.
    pub(super) fn unmap(&self) {
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether a map is here, or a slice of any is left somewhere: the file must not be cut then.
    pub(super) fn is_mapped(&self) -> bool {
        let mut lives = locked(&self.lives);
        lives.retain(|life| life.strong_count() > 0);
        !lives.is_empty()
    }

    /// Offset up to which nothing is left to fill.
    pub(super) fn zeroed_to(&self) -> u64 {
        self.zeroed_to.load(Ordering::Acquire)
    }

    /// Says that a frame is about to be written up to `offset`: from now on the filler stays above it.
    pub(super) fn claim_to(&self, offset: u64) {
        if offset > self.zeroed_to() {
            let _filling = locked(&self.fill_lock);
            self.zeroed_to.fetch_max(offset, Ordering::AcqRel);
        }
    }

    /// Writes up to `zeros.len()` zeros above `zeroed_to`; returns whether anything was left to fill.
    pub(super) fn fill_step(&self, file: &dyn File, zeros: &[u8]) -> Result<bool, StorageError> {
        let _filling = locked(&self.fill_lock);
        let from = self.zeroed_to();
        let left = self.file_len.saturating_sub(from);
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        if piece == 0 {
            return Ok(false);
        }
        file.write_all_at(&zeros[..piece], from).map_err(StorageError::io("fill with zeros", &self.path))?;
        self.zeroed_to.store(from + piece as u64, Ordering::Release);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_twenty_digits_and_nothing_else() {
        assert_eq!(segment_name(4096), "00000000000000004096");
        assert_eq!(parse_segment_name(&segment_name(u64::MAX)), Some(u64::MAX));
        for other in ["", "4096", "0000000000000000409x", "+0000000000000004096", "99999999999999999999"] {
            assert_eq!(parse_segment_name(other), None, "{other}");
        }
    }
}
