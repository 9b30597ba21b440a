//! The simulated disk itself: names, files, pending changes of names, and faults.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Weak;

use super::CrashMode;
use super::inode::{Inode, InodeId};
use super::journal::{DiskOperation, DiskOperationKind};
use super::prng::Prng;
use crate::file_system::OpenMode;

/// Names of files.
type Names = BTreeMap<PathBuf, InodeId>;

/// A change of names that is not durable yet.
#[derive(Debug, Clone)]
enum Pending {
    Link(PathBuf, InodeId),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, InodeId),
}

impl Pending {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path, _) => path.parent() == Some(dir),
        }
    }

    fn inode(&self) -> Option<InodeId> {
        match self {
            Self::Link(_, inode) | Self::Rename(_, _, inode) => Some(*inode),
            Self::Unlink(_) => None,
        }
    }
}

/// What is counted, and what goes wrong when.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) operations: u64,
    pub(super) writes: u64,
    pub(super) syncs: u64,
    /// From this operation on, nothing happens any more.
    pub(super) dead_from: Option<u64>,
    /// Something was tried after that, or as it happened.
    pub(super) died: bool,
    pub(super) reads: u64,
    pub(super) failing_read: Option<u64>,
    pub(super) failing_sync: Option<u64>,
    pub(super) failing_write: Option<u64>,
    /// The number of the write, and how much of it happens.
    pub(super) torn_write: Option<(u64, usize)>,
    /// Most bytes of all files together.
    pub(super) space: Option<u64>,
}

impl Faults {
    /// Counts an operation that changes the disk; fails if the process is dead.
    fn count(&mut self) -> io::Result<()> {
        if self.dead_from.is_some_and(|dead_from| self.operations >= dead_from) {
            self.died = true;
            return Err(io::Error::other("the process has died (simulated)"));
        }
        self.operations += 1;
        Ok(())
    }

    /// Counts a sync; fails if this one was ordered to.
    fn count_sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if self.failing_sync == Some(self.syncs) {
            return Err(io::Error::other("input/output error (simulated)"));
        }
        Ok(())
    }

    /// What was ordered and has not happened does not happen.
    pub(super) fn forget(&mut self) {
        if !self.died {
            self.dead_from = None;
        }
        self.failing_sync = None;
        self.failing_write = None;
        self.failing_read = None;
        self.torn_write = None;
    }
}

/// A disk. Folders outlive each crash; which of them a real disk could have lost is remembered for those who ask.
#[derive(Debug, Default)]
pub(super) struct Disk {
    names: Names,
    durable_names: Names,
    pending: Vec<Pending>,
    inodes: BTreeMap<InodeId, Inode>,
    dirs: BTreeSet<PathBuf>,
    pub(super) pending_dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    next_inode: InodeId,
    /// Lives of maps.
    maps: BTreeMap<InodeId, Vec<Weak<()>>>,
    /// Files cut although something of a map of them was left.
    pub(super) cuts_of_maps: u64,
    pub(super) faults: Faults,
    /// Counted operations, if somebody wants to know.
    pub(super) journal: Option<Vec<DiskOperation>>,
}

impl Disk {
    /// Counts an operation on what has this name.
    fn count(&mut self, kind: DiskOperationKind, path: &Path) -> io::Result<()> {
        self.faults.count()?;
        if let Some(journal) = &mut self.journal {
            journal.push(DiskOperation { kind, path: path.to_path_buf(), bytes: 0 });
        }
        Ok(())
    }

    /// Counts an operation on an open file, which may have lost its name.
    fn count_on(&mut self, kind: DiskOperationKind, id: InodeId, bytes: usize) -> io::Result<()> {
        self.faults.count()?;
        if let Some(journal) = &mut self.journal {
            let named = self.names.iter().find(|(_, named)| **named == id);
            let path = named.map(|(path, _)| path.clone()).unwrap_or_default();
            journal.push(DiskOperation { kind, path, bytes });
        }
        Ok(())
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn inode(&self, id: InodeId) -> io::Result<&Inode> {
        self.inodes.get(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn inode_mut(&mut self, id: InodeId) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        for dir in dir.ancestors() {
            if self.dirs.insert(dir.to_path_buf()) && dir.parent().is_some() {
                self.pending_dirs.insert(dir.to_path_buf());
            }
        }
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        if !self.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = self.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.names.contains_key(path) || self.dirs.contains(path)
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<InodeId> {
        if mode != OpenMode::Create {
            return self.lookup(path);
        }
        if path.parent().is_none_or(|dir| !self.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.count(DiskOperationKind::Create, path)?;
        if let Ok(id) = self.lookup(path) {
            self.note_cut(id, 0)?;
            self.inode_mut(id)?.set_len(0);
            return Ok(id);
        }
        let id = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(id, Inode::default());
        self.change_names(Pending::Link(path.to_path_buf(), id));
        Ok(id)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.lookup(from)?;
        self.count(DiskOperationKind::Rename, to)?;
        self.change_names(Pending::Rename(from.to_path_buf(), to.to_path_buf(), id));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.lookup(path)?;
        self.count(DiskOperationKind::Remove, path)?;
        self.change_names(Pending::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn change_names(&mut self, change: Pending) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.count(DiskOperationKind::SyncFolder, dir)?;
        self.faults.count_sync()?;
        let (now, later) =
            std::mem::take(&mut self.pending).into_iter().partition(|change| change.is_in(dir));
        self.pending = later;
        self.pending_dirs.retain(|made| made.parent() != Some(dir));
        let now: Vec<Pending> = now;
        for change in now {
            change.apply(&mut self.durable_names);
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, id: InodeId) -> io::Result<()> {
        self.count_on(DiskOperationKind::Sync, id, 0)?;
        let counted = self.faults.count_sync();
        let inode = self.inode_mut(id)?;
        match counted {
            Ok(()) => inode.sync(),
            Err(_) => inode.forget_pending(),
        }
        counted
    }

    pub(super) fn write(&mut self, id: InodeId, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.count_on(DiskOperationKind::Write, id, bytes.len())?;
        self.faults.writes += 1;
        if self.faults.failing_write == Some(self.faults.writes) {
            return Err(io::Error::other("input/output error (simulated)"));
        }
        let torn = self.faults.torn_write.filter(|(write, _)| *write == self.faults.writes);
        let bytes = torn.and_then(|(_, kept)| bytes.get(..kept)).unwrap_or(bytes);
        let grows_by = (offset + bytes.len() as u64).saturating_sub(self.inode(id)?.len());
        self.check_space(grows_by)?;
        self.inode_mut(id)?.write(bytes, offset);
        if torn.is_some() {
            self.faults.dead_from = Some(0);
            self.faults.died = true;
            return Err(io::Error::other("the process died in a write (simulated)"));
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, id: InodeId, len: u64) -> io::Result<()> {
        self.count_on(DiskOperationKind::Resize, id, 0)?;
        self.check_space(len.saturating_sub(self.inode(id)?.len()))?;
        self.note_cut(id, len)?;
        self.inode_mut(id)?.set_len(len);
        Ok(())
    }

    pub(super) fn note_map(&mut self, id: InodeId, life: Weak<()>) {
        let lives = self.maps.entry(id).or_default();
        lives.retain(|life| life.strong_count() > 0);
        lives.push(life);
    }

    /// Whoever touched what is cut off through a map would be killed.
    fn note_cut(&mut self, id: InodeId, len: u64) -> io::Result<()> {
        let is_mapped = self.maps.get(&id).is_some_and(|lives| lives.iter().any(|l| l.strong_count() > 0));
        if is_mapped && len < self.inode(id)?.len() {
            self.cuts_of_maps += 1;
        }
        Ok(())
    }

    fn check_space(&self, more: u64) -> io::Result<()> {
        if more > self.free_space() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Files that have a name take space; those only held open do not, which a real disk would not grant.
    fn free_space(&self) -> u64 {
        let Some(space) = self.faults.space else { return u64::MAX };
        space.saturating_sub(self.used_space())
    }

    pub(super) fn used_space(&self) -> u64 {
        let named: BTreeSet<_> = self.names.values().collect();
        named.into_iter().filter_map(|id| self.inodes.get(id)).map(Inode::len).sum()
    }

    pub(super) fn count_read(&mut self) -> io::Result<()> {
        self.faults.reads += 1;
        if self.faults.failing_read == Some(self.faults.reads) {
            return Err(io::Error::other("input/output error (simulated)"));
        }
        Ok(())
    }

    pub(super) fn flip_bit(&mut self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let id = self.lookup(path)?;
        self.inode_mut(id)?.flip_bit(offset, bit)
    }

    pub(super) fn take_lock(&mut self, path: &Path) -> io::Result<()> {
        if self.locks.insert(path.to_path_buf()) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    pub(super) fn release_lock(&mut self, path: &Path) {
        self.locks.remove(path);
    }

    pub(super) fn crash(&self, mode: CrashMode) -> Self {
        let seed = match mode {
            CrashMode::Seeded(seed) | CrashMode::SeededWithFlips(seed) => Some(seed),
            CrashMode::LoseUnsynced | CrashMode::KeepAll => None,
        };
        let mut prng = Prng::new(seed.unwrap_or(0));
        let mut durable_names = self.durable_names.clone();
        let (mut names, mut pending) = (self.names.clone(), self.pending.clone());
        if mode != CrashMode::KeepAll {
            if seed.is_some() {
                for change in &self.pending {
                    if prng.below(2) == 0 {
                        change.apply(&mut durable_names);
                    }
                }
            }
            names = durable_names.clone();
            pending.clear();
        }
        // also what is unlinked by now: the next power cut may lose the unlinking and keep the name
        let pending_inodes = pending.iter().filter_map(Pending::inode);
        let named: BTreeSet<_> =
            names.values().chain(durable_names.values()).copied().chain(pending_inodes).collect();
        let inodes = self.inodes.iter().filter(|(id, _)| named.contains(id));
        let inodes = inodes.map(|(id, inode)| (*id, inode.crash(mode, &mut prng))).collect();
        Self {
            names,
            durable_names,
            pending,
            inodes,
            dirs: self.dirs.clone(),
            pending_dirs: self.pending_dirs.clone(),
            locks: BTreeSet::new(),
            next_inode: self.next_inode,
            maps: BTreeMap::new(),
            cuts_of_maps: 0,
            faults: Faults::default(),
            journal: None,
        }
    }
}
