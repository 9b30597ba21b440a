//! A disk in memory that decides what a power cut leaves. For tests: of this crate, and of the workspace's own.
//!
//! Every write is pending until its file is synced, every name until its folder is. A crash makes a new disk from
//! what is durable and, as the [`CrashMode`] says, from some of what is pending. Operations that change the disk are
//! counted, so that a sweep can stop at each of them; single ones can be made to fail, tear, or run out of space.
//!
//! Bytes are kept in pages that disks share until they differ, so a crash copies no data, and zeros take no memory.

mod disk;
mod inode;
mod journal;
mod prng;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

use self::disk::Disk;
use self::inode::InodeId;
use super::{File, FileSystem, LockGuard, MappedBytes, Mapping, OpenMode};

pub use self::journal::{DiskOperation, DiskOperationKind};

/// What of the pending changes survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashMode {
    /// Nothing: a power cut that found no dirty page written.
    LoseUnsynced,
    /// Everything: the process was killed, the page cache lives on. What was pending still is.
    KeepAll,
    /// Each unsynced 512-byte sector, length and name is kept, lost or (sectors) torn, as a generator with this seed
    /// says.
    Seeded(u64),
    /// As [`CrashMode::Seeded`], and in some of the sectors that are kept a bit of what was not synced is flipped: a
    /// disk that lost power while it wrote them.
    SeededWithFlips(u64),
}

/// A handle on a simulated disk; clones share it.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDisk {
    disk: Arc<Mutex<Disk>>,
}

impl SimulatedDisk {
    /// An empty disk without limits or faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk as it is found after a crash now; this one stays as it is. Faults and limits are not inherited.
    #[must_use]
    pub fn crash(&self, mode: CrashMode) -> Self {
        Self { disk: Arc::new(Mutex::new(self.disk().crash(mode))) }
    }

    /// Counted operations so far: every write, allocation, change of length, sync, creation, renaming and removal.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.disk().faults.operations
    }

    /// From here on the operations that are counted are remembered, for [`SimulatedDisk::recorded`].
    pub fn record_operations(&self) {
        self.disk().journal = Some(Vec::new());
    }

    /// What was counted since [`SimulatedDisk::record_operations`], oldest first.
    #[must_use]
    pub fn recorded(&self) -> Vec<DiskOperation> {
        self.disk().journal.clone().unwrap_or_default()
    }

    /// Whether an operation was tried after the simulated process had died, or as it died.
    #[must_use]
    pub fn has_died(&self) -> bool {
        self.disk().faults.died
    }

    /// Takes back what was ordered to fail and has not yet: failing syncs, writes and reads, a torn write, a death.
    pub fn forget_faults(&self) {
        self.disk().faults.forget();
    }

    /// Makes the `n`th read of a file from now (1: the next) fail with an input/output error. Reads through a mapping
    /// are not counted.
    pub fn fail_read(&self, n: u64) {
        let mut disk = self.disk();
        disk.faults.failing_read = Some(disk.faults.reads + n);
    }

    /// Writes so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.disk().faults.writes
    }

    /// Syncs of files and folders so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.disk().faults.syncs
    }

    /// Lets `n` more counted operations happen; every one after them fails and changes nothing, as if the process
    /// had died.
    pub fn fail_after_ops(&self, n: u64) {
        let mut disk = self.disk();
        disk.faults.dead_from = Some(disk.faults.operations + n);
    }

    /// Makes the `n`th sync from now (1: the next) fail with an input/output error. As on a real disk, what it should
    /// have made durable is pending no more and will never be durable unless it is written again.
    pub fn fail_sync(&self, n: u64) {
        let mut disk = self.disk();
        disk.faults.failing_sync = Some(disk.faults.syncs + n);
    }

    /// Makes the `n`th write from now (1: the next) fail with an input/output error and change nothing.
    pub fn fail_write(&self, n: u64) {
        let mut disk = self.disk();
        disk.faults.failing_write = Some(disk.faults.writes + n);
    }

    /// Makes the `n`th write from now (1: the next) write only its first `bytes`; then the process dies.
    pub fn torn_write_at(&self, n: u64, bytes: usize) {
        let mut disk = self.disk();
        disk.faults.torn_write = Some((disk.faults.writes + n, bytes));
    }

    /// Limits the disk to so many bytes of files, those that are there included. `None`: no limit.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.disk().faults.space = bytes;
    }

    /// How often a file was cut although a map of it, or a slice of one, was left: on a real disk, whoever read it then
    /// would be killed.
    #[must_use]
    pub fn cuts_of_maps(&self) -> u64 {
        self.disk().cuts_of_maps
    }

    /// Bytes of all files that have a name.
    #[must_use]
    pub fn used_space(&self) -> u64 {
        self.disk().used_space()
    }

    /// Flips one bit (0 to 7) of a file's byte, in the page cache and on the platter.
    ///
    /// # Errors
    /// If there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        self.disk().flip_bit(path, offset, bit)
    }

    /// Folders whose names are not durable, since the ones that hold them were not synced after they were made.
    #[must_use]
    pub fn unsynced_folders(&self) -> Vec<PathBuf> {
        self.disk().pending_dirs.iter().cloned().collect()
    }

    /// The whole content of a file, as a process would read it.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        let disk = self.disk();
        let inode = disk.inode(disk.lookup(path)?)?;
        let mut bytes = vec![0; usize::try_from(inode.len()).unwrap_or(0)];
        inode.read(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        locked(&self.disk)
    }
}

fn locked(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileSystem for SimulatedDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk().create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk().list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.disk().exists(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let inode = self.disk().open(path, mode)?;
        Ok(Arc::new(SimulatedFile { disk: Arc::clone(&self.disk), inode, writable: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk().remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk().sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.disk().take_lock(path)?;
        Ok(Box::new(SimulatedLock { disk: Arc::clone(&self.disk), path: path.to_path_buf() }))
    }
}

/// Given back when dropped; a crashed disk has no locks, since the processes are gone.
struct SimulatedLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl LockGuard for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        locked(&self.disk).release_lock(&self.path);
    }
}

struct SimulatedFile {
    disk: Arc<Mutex<Disk>>,
    inode: InodeId,
    writable: bool,
}

impl SimulatedFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl File for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(locked(&self.disk).inode(self.inode)?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        locked(&self.disk).set_len(self.inode, len)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        locked(&self.disk).write(self.inode, bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut disk = locked(&self.disk);
        disk.count_read()?;
        disk.inode(self.inode)?.read(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        locked(&self.disk).sync(self.inode)
    }

    fn sync_all(&self) -> io::Result<()> {
        locked(&self.disk).sync(self.inode)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut disk = locked(&self.disk);
        let grown = disk.inode(self.inode)?.len().max(len);
        disk.set_len(self.inode, grown)
    }

    fn start_writeback(&self, _offset: u64, _len: u64) -> io::Result<()> {
        // whether the kernel has written something before a power cut is what `CrashMode::Seeded` draws
        Ok(())
    }

    fn map(&self) -> io::Result<Mapping> {
        let len = self.len()?;
        let life = Arc::new(());
        locked(&self.disk).note_map(self.inode, Arc::downgrade(&life));
        let disk = Arc::clone(&self.disk);
        Ok(Mapping::new(Arc::new(SimulatedMapping { disk, inode: self.inode, len, life })))
    }
}

struct SimulatedMapping {
    disk: Arc<Mutex<Disk>>,
    inode: InodeId,
    len: u64,
    life: Arc<()>,
}

/// A copy that counts as a part of its map.
struct SimulatedSlice {
    bytes: Vec<u8>,
    _life: Arc<()>,
}

impl AsRef<[u8]> for SimulatedSlice {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl MappedBytes for SimulatedMapping {
    fn slice(&self, offset: u64, len: usize) -> Option<Bytes> {
        if offset.checked_add(len as u64)? > self.len {
            return None;
        }
        let mut bytes = vec![0; len];
        locked(&self.disk).inode(self.inode).ok()?.read(&mut bytes, offset).ok()?;
        Some(Bytes::from_owner(SimulatedSlice { bytes, _life: Arc::clone(&self.life) }))
    }

    fn life(&self) -> Weak<()> {
        Arc::downgrade(&self.life)
    }
}

#[cfg(test)]
mod tests;
