//! Space kept for the moment in which the disk is full: deleting a segment needs a new base first, and the decisions of
//! that segment a history file. The file holds nothing; it is given back for them, and made again when there is room.

use std::path::PathBuf;

use crate::concurrency::atomic::{AtomicU64, Ordering};
use crate::error::StorageError;
use crate::file_system::{FileSystem, OpenMode};

/// Least size of the file, and what its size is a multiple of.
const STEP_BYTES: u64 = 64 << 10;

/// The reserve file of a data folder.
#[derive(Debug)]
pub(crate) struct Reserve {
    dir: PathBuf,
    bytes: AtomicU64,
}

impl Reserve {
    /// Finds the file, if there is one.
    pub(crate) fn open(fs: &dyn FileSystem, dir: PathBuf) -> Result<Self, StorageError> {
        let reserve = Self { dir, bytes: AtomicU64::new(0) };
        let path = reserve.path();
        if fs.exists(&path).map_err(StorageError::io("look for", &path))? {
            let file = fs.open(&path, OpenMode::Read).map_err(StorageError::io("open", &path))?;
            let bytes = file.len().map_err(StorageError::io("measure", &path))?;
            reserve.bytes.store(bytes, Ordering::Relaxed);
        }
        Ok(reserve)
    }

    fn path(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Gives the space to whoever needs it now; false if there is none.
    pub(crate) fn give_back(&self, fs: &dyn FileSystem) -> Result<bool, StorageError> {
        if self.bytes.swap(0, Ordering::Relaxed) == 0 {
            return Ok(false);
        }
        let path = self.path();
        fs.remove(&path).map_err(StorageError::io("remove", &path))?;
        // some file systems count the space as free only then
        fs.sync_dir(&self.dir).map_err(StorageError::io("sync folder", &self.dir))?;
        tracing::warn!("the disk is full: the reserve file was given back, so that retention can go on");
        Ok(true)
    }

    /// Sees to it that at least `wanted` bytes are kept, if the disk has them: it may be full, which is when the file
    /// is not there.
    pub(crate) fn renew(&self, fs: &dyn FileSystem, wanted: u64) {
        if self.bytes() >= wanted.max(STEP_BYTES) {
            return;
        }
        let target = (wanted + wanted / 2).max(1).next_multiple_of(STEP_BYTES);
        let path = self.path();
        let mode = if self.bytes() > 0 { OpenMode::ReadWrite } else { OpenMode::Create };
        let made = fs.open(&path, mode).and_then(|file| {
            file.allocate(target)?;
            file.sync_all()
        });
        match made {
            Ok(()) => self.bytes.store(target, Ordering::Relaxed),
            // a smaller one stays as it is
            Err(_) if mode == OpenMode::ReadWrite => {}
            Err(error) => {
                tracing::debug!(%error, "no room for the reserve file");
                if let Err(error) = fs.remove(&path) {
                    tracing::debug!(%error, "an unfinished reserve file stays");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::file_system::SimulatedDisk;

    #[test]
    fn it_is_given_back_once_and_made_again_when_there_is_room() {
        let disk = SimulatedDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let reserve = Reserve::open(&disk, "/d".into()).unwrap();
        assert!(!reserve.give_back(&disk).unwrap());
        reserve.renew(&disk, 100_000);
        assert_eq!(reserve.bytes(), 3 * STEP_BYTES);
        reserve.renew(&disk, 150_000);
        assert_eq!(Reserve::open(&disk, "/d".into()).unwrap().bytes(), 3 * STEP_BYTES);
        assert!(reserve.give_back(&disk).unwrap());
        assert!(!reserve.give_back(&disk).unwrap());
        disk.limit_space(Some(1000));
        reserve.renew(&disk, 100_000);
        assert_eq!((reserve.bytes(), disk.exists(Path::new("/d/reserve")).unwrap()), (0, false));
        disk.limit_space(None);
        reserve.renew(&disk, 0);
        assert_eq!(reserve.bytes(), STEP_BYTES);
    }
}
