//! The broker's disk as the simulation watches it: each operation is an event, and the host hears at once when one
//! fails.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mezzo_storage::file_system::{File, FileSystem, LockGuard, Mapping, OpenMode, SimulatedDisk};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::trace::{Trace, note};

/// What the host waits for.
#[derive(Debug, Default)]
pub struct Watch {
    /// Something was written: the syncer may have work.
    pub wrote: Notify,
    /// Something failed: the process may be dead, or fence itself.
    pub failed: Notify,
    /// Whether the process that uses the disk lives; its connections look at it.
    pub alive: Arc<AtomicBool>,
    /// Operations that failed as they were ordered to.
    pub failures: AtomicU64,
    /// What failed first.
    pub first_failure: Mutex<Option<String>>,
    /// When a sync of the log failed first. From then on nothing that was not durable will be, however long the process
    /// takes to end.
    pub sync_failed: Mutex<Option<Instant>>,
}

/// A simulated disk, watched.
#[derive(Clone)]
pub struct WatchedDisk {
    disk: SimulatedDisk,
    watch: Arc<Watch>,
    trace: Arc<Trace>,
    lies: bool,
}

impl WatchedDisk {
    /// Watches `disk`. One that lies says that it has synced the log, and has not.
    pub fn new(disk: SimulatedDisk, watch: Arc<Watch>, trace: Arc<Trace>, lies: bool) -> Self {
        Self { disk, watch, trace, lies }
    }

    fn told<T>(&self, what: &str, path: &str, done: io::Result<T>) -> io::Result<T> {
        match &done {
            Ok(_) => note!(self.trace, "disk {what} {path}"),
            Err(error) => {
                note!(self.trace, "disk {what} {path} failed: {error}");
                if self.disk.has_died() {
                    self.watch.alive.store(false, Ordering::Relaxed);
                }
                let ordered = self.disk.has_died()
                    || error.kind() == io::ErrorKind::StorageFull
                    || error.to_string().contains("simulated");
                if ordered {
                    if what.starts_with("sync") && path.contains("/log/") {
                        let mut failed =
                            self.watch.sync_failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.get_or_insert_with(Instant::now);
                    }
                    self.watch.failures.fetch_add(1, Ordering::Relaxed);
                    let mut first = self.watch.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert_with(|| format!("{what} {path}: {error}"));
                    self.watch.failed.notify_one();
                }
            }
        }
        done
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl FileSystem for WatchedDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let opened = self.disk.open(path, mode);
        let file = if mode == OpenMode::Create { self.told("create", &text(path), opened)? } else { opened? };
        Ok(Arc::new(WatchedFile { file, disk: self.clone(), path: text(path) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.told("rename", &text(to), self.disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.told("remove", &text(path), self.disk.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.told("sync folder", &text(dir), self.disk.sync_dir(dir))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.told("lock", &text(path), self.disk.lock(path))
    }
}

struct WatchedFile {
    file: Arc<dyn File>,
    disk: WatchedDisk,
    path: String,
}

impl File for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.told("set length", &self.path, self.file.set_len(len))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        self.disk.watch.wrote.notify_one();
        self.disk.told(&format!("write {} at {offset}", bytes.len()), &self.path, written)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.file.read_exact_at(bytes, offset);
        if read.is_err() {
            return self.disk.told("read", &self.path, read);
        }
        read
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.disk.lies && self.path.contains("/log/") {
            return Ok(());
        }
        self.disk.told("sync", &self.path, self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.told("sync all", &self.path, self.file.sync_all())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.told("allocate", &self.path, self.file.allocate(len))
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_writeback(offset, len)
    }

    fn map(&self) -> io::Result<Mapping> {
        self.file.map()
    }
}
