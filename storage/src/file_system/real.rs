//! The real disk. The only file of the workspace with `unsafe`: the read-only memory map, and the one system call
//! that rustix does not offer.
#![expect(unsafe_code, reason = "memory maps, and sync_file_range, which rustix does not offer")]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

use super::{File, FileSystem, LockGuard, MappedBytes, Mapping, OpenMode};

/// Zeros are written in pieces of this many bytes where the disk cannot reserve space.
const ZERO_CHUNK_BYTES: usize = 1024 * 1024;

/// Files of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFileSystem;

impl FileSystem for RealFileSystem {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).truncate(true);
            }
        }
        Ok(Arc::new(RealFile { file: options.open(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        // the folder as well: a lock file that somebody removes, for it seems to be a leftover, must not let a second
        // broker in. Some network file systems lock no folders; there the file alone has to do.
        let folder = fs::File::open(path.parent().unwrap_or(path))?;
        let held = rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive);
        if held == Err(Errno::WOULDBLOCK) {
            return Err(Errno::WOULDBLOCK.into());
        }
        // not truncated on opening: a loser of the race must still find the winner's process id
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(0)?;
        file.write_all(format!("process {}", std::process::id()).as_bytes())?;
        Ok(Box::new(RealLock { file, folder }))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// The kernel drops the lock together with the last handle, also when the process is killed.
struct RealLock {
    file: fs::File,
    folder: fs::File,
}

impl LockGuard for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // said aloud, because this may not be the last handle: a child process has copies of all until it runs its
        // own program. A lock that cannot be given back is given back by the kernel later.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        let _ = rustix::fs::flock(&self.folder, FlockOperation::Unlock);
    }
}

struct RealFile {
    file: fs::File,
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let zeros = vec![0; ZERO_CHUNK_BYTES];
        let mut at = self.len()?;
        while at < len {
            let piece = usize::try_from(len - at).unwrap_or(usize::MAX).min(ZERO_CHUNK_BYTES);
            self.file.write_all_at(&zeros[..piece], at)?;
            at += piece as u64;
        }
        Ok(())
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        let too_far = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let (offset, len) = (offset.try_into().map_err(too_far)?, len.try_into().map_err(too_far)?);
        // SAFETY: the descriptor is open for as long as `self.file` lives, and the call reads no memory of ours.
        let result =
            unsafe { libc::sync_file_range(self.file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn map(&self) -> io::Result<Mapping> {
        // SAFETY: the map is read-only and private to this process's readers. The file is written by this process
        // alone (it holds the folder's lock), only by pwrite, and only at positions that no reader has been told of
        // yet; bytes that are handed out never change. It is never cut while mapped: cuts happen in recovery,
        // before any map exists, and to deleted segments, when neither a map nor a slice of one is left.
        // Deleting the file keeps the map's pages alive.
        let map = unsafe { memmap2::MmapOptions::new().map(&self.file)? };
        let life = Arc::new(());
        let ends = Arc::downgrade(&life);
        let bytes = Bytes::from_owner(Mapped { map, _life: life });
        Ok(Mapping::new(Arc::new(RealMapping { bytes, ends })))
    }
}

struct RealMapping {
    bytes: Bytes,
    ends: Weak<()>,
}

/// Unmapped when the last slice is gone.
struct Mapped {
    map: memmap2::Mmap,
    _life: Arc<()>,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl MappedBytes for RealMapping {
    fn slice(&self, offset: u64, len: usize) -> Option<Bytes> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(len)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }

    fn life(&self) -> Weak<()> {
        Weak::clone(&self.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_sees_what_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealFileSystem.open(&dir.path().join("f"), OpenMode::Create).unwrap();
        file.allocate(8192).unwrap();
        let map = file.map().unwrap();
        file.write_all_at(b"half", 5000).unwrap();
        assert_eq!(map.slice(5000, 4).unwrap(), b"half"[..]);
        assert_eq!(map.slice(5004, 2).unwrap(), [0, 0][..]);
        assert!(map.slice(8190, 3).is_none());
        assert!(map.slice(u64::MAX, 3).is_none());
        file.start_writeback(0, 8192).unwrap();
        file.sync_data().unwrap();
        let (life, slice) = (map.life(), map.slice(5000, 4).unwrap());
        drop(map);
        assert_eq!((life.strong_count(), &slice[..]), (1, &b"half"[..]), "a slice keeps the map");
        drop(slice);
        assert_eq!(life.strong_count(), 0);
    }

    #[test]
    fn a_disk_tells_how_much_room_it_has() {
        let dir = tempfile::tempdir().unwrap();
        assert!(RealFileSystem.free_bytes(dir.path()).unwrap() > 0);
        assert!(RealFileSystem.free_bytes(&dir.path().join("not there")).is_err());
    }

    #[test]
    fn second_lock_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = RealFileSystem.lock(&path).unwrap();
        let refused = RealFileSystem.lock(&path).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("process {}", std::process::id()));
        drop(first);
        RealFileSystem.lock(&path).unwrap();
    }

    #[test]
    fn create_truncates_and_open_demands_existence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert_eq!(
            RealFileSystem.open(&path, OpenMode::ReadWrite).err().unwrap().kind(),
            io::ErrorKind::NotFound
        );
        RealFileSystem.open(&path, OpenMode::Create).unwrap().write_all_at(b"x", 9).unwrap();
        assert_eq!(RealFileSystem.open(&path, OpenMode::Read).unwrap().len().unwrap(), 10);
        assert!(RealFileSystem.open(&path, OpenMode::Create).unwrap().is_empty().unwrap());
        assert_eq!(RealFileSystem.list(dir.path()).unwrap(), ["f"]);
    }
}
