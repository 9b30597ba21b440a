//! The shared page files under `queues/`. A page holds up to 170 entries of one queue:
//!
//! ```text
//!  0     entries, 24 bytes each
//!  4080  first queue offset u64
//!  4088  entries in use u16, reserved u16
//!  4092  crc u32 over bytes 0..4092, seeded with the queue's name, so that a page of another queue never passes
//! ```
//!
//! The space of a page file is taken when the file is made, ahead of use, so that publishing does not fail on a full
//! disk. Pages are written without sync; a checkpoint syncs them and records who owns which. A page given back is used again
//! only after the next checkpoint, because the last one still names its old owner. Pages that do not hold when they are
//! read are remembered for whoever makes them anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use crate::concurrency::atomic::{AtomicBool, Ordering};
use crate::concurrency::{Mutex, MutexGuard, RwLock};
use crate::error::StorageError;
use crate::file_system::{File, FileSystem, OpenMode};
use crate::format::queue_entry::{QUEUE_ENTRY_BYTES, QueueEntry};

use super::queue_log::PageRef;

/// Bytes of a page.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Entries of a full page.
pub const ENTRIES_PER_PAGE: usize = 170;
/// Pages of one file: 16 MiB.
pub(crate) const PAGES_PER_FILE: u32 = 4096;
/// Pages left at which new messages are refused if no further file can be made: for what is in the log already.
const PAGES_KEPT: u64 = PAGES_PER_FILE as u64 / 2;
/// Damaged pages that are remembered; one beyond is when it is read again.
const DAMAGED_MAX: usize = PAGES_PER_FILE as usize;
const FILE_BYTES: u64 = PAGES_PER_FILE as u64 * PAGE_BYTES as u64;
const ENTRIES_BYTES: usize = ENTRIES_PER_PAGE * QUEUE_ENTRY_BYTES;

/// Number of a page across all page files.
pub(crate) type PageId = u32;

/// All page files of a data folder.
pub struct PageStore {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    files: RwLock<Vec<PageFile>>,
    allocation: Mutex<Allocation>,
    /// The next page file could not be made, and few pages are left.
    crowded: AtomicBool,
    /// Pages that did not hold when they were read.
    damaged: Mutex<BTreeSet<PageId>>,
}

struct PageFile {
    path: PathBuf,
    file: Arc<dyn File>,
}

#[derive(Default)]
struct Allocation {
    next: PageId,
    free: Vec<PageId>,
    /// Given back since the last checkpoint.
    freed: Vec<PageId>,
}

impl std::fmt::Debug for PageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageStore").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl PageStore {
    /// Opens the page files. `used` are the pages that the checkpoint names; all others are free.
    pub(crate) fn open(fs: Arc<dyn FileSystem>, dir: PathBuf, used: &[PageId]) -> Result<Self, StorageError> {
        fs.create_dir_all(&dir).map_err(StorageError::io("create folder", &dir))?;
        let next = used.iter().max().map_or(0, |p| p + 1);
        let mut taken = vec![false; next as usize];
        for page in used {
            if let Some(slot) = taken.get_mut(*page as usize) {
                *slot = true;
            }
        }
        let free = (0..next).filter(|p| taken.get(*p as usize) == Some(&false)).collect();
        let store = Self {
            fs,
            dir,
            files: RwLock::default(),
            allocation: Mutex::new(Allocation { next, free, freed: Vec::new() }),
            crowded: AtomicBool::new(false),
            damaged: Mutex::default(),
        };
        store.ensure_files(next)?;
        Ok(store)
    }

    /// The files there are, for reading alone: nothing is made.
    pub(crate) fn for_reading(fs: Arc<dyn FileSystem>, dir: PathBuf) -> Result<Self, StorageError> {
        let mut files = Vec::new();
        loop {
            let path = file_path(&dir, files.len());
            if !fs.exists(&path).map_err(StorageError::io("look for", &path))? {
                break;
            }
            let file = fs.open(&path, OpenMode::Read).map_err(StorageError::io("open", &path))?;
            files.push(PageFile { path, file });
        }
        let (files, allocation) = (RwLock::new(files), Mutex::default());
        let (crowded, damaged) = (AtomicBool::new(false), Mutex::default());
        Ok(Self { fs, dir, files, allocation, crowded, damaged })
    }

    /// Opens or creates files so that `pages` pages have a place.
    fn ensure_files(&self, pages: PageId) -> Result<(), StorageError> {
        let wanted = pages.div_ceil(PAGES_PER_FILE) as usize;
        if self.files.read().unwrap_or_else(PoisonError::into_inner).len() >= wanted {
            return Ok(());
        }
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        while files.len() < wanted {
            let path = file_path(&self.dir, files.len());
            let known = self.fs.exists(&path).map_err(StorageError::io("look for", &path))?;
            let mode = if known { OpenMode::ReadWrite } else { OpenMode::Create };
            let file = self.fs.open(&path, mode).map_err(StorageError::io("open", &path))?;
            if let Err(error) = file.allocate(FILE_BYTES) {
                if !known {
                    // a part of it may be taken, which on a full disk is what retention needs to make room
                    drop(file);
                    let _ = self.fs.remove(&path);
                }
                return Err(StorageError::io("allocate", &path)(error));
            }
            files.push(PageFile { path, file });
        }
        Ok(())
    }

    /// Makes the file that will be needed after the one in use, so that the append path seldom has to.
    pub(crate) fn prepare(&self) -> Result<(), StorageError> {
        let (next, free) = {
            let allocation = self.allocation.lock().unwrap_or_else(PoisonError::into_inner);
            (allocation.next, allocation.free.len() as u64)
        };
        let prepared = self.ensure_files(next.saturating_add(PAGES_PER_FILE));
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner).len() as u64;
        let left = (files * u64::from(PAGES_PER_FILE)).saturating_sub(u64::from(next)) + free;
        self.crowded.store(prepared.is_err() && left < PAGES_KEPT, Ordering::Release);
        prepared
    }

    /// Bytes of the page files. Two at least: the second is made as soon as the first is used.
    pub(crate) fn bytes(&self) -> u64 {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner).len();
        files.max(2) as u64 * FILE_BYTES
    }

    /// Whether room for pages is running out: what is left is for messages that are in the log already.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Acquire)
    }

    /// Writes a page and says where.
    pub(crate) fn write(
        &self,
        seed: u32,
        first: u64,
        entries: &[QueueEntry],
    ) -> Result<PageId, StorageError> {
        let page = {
            let mut allocation = self.allocation.lock().unwrap_or_else(PoisonError::into_inner);
            allocation.free.pop().unwrap_or_else(|| {
                allocation.next += 1;
                allocation.next - 1
            })
        };
        self.ensure_files(page + 1)?;
        let (file, path, at) = self.place(page)?;
        file.write_all_at(&encode_page(seed, first, entries), at)
            .map_err(StorageError::io("write", &path))?;
        Ok(page)
    }

    /// Writes what a page held before it was damaged.
    pub(crate) fn write_again(
        &self,
        seed: u32,
        page: &PageRef,
        entries: &[QueueEntry],
    ) -> Result<(), StorageError> {
        let (file, path, at) = self.place(page.page)?;
        // it may have been cut short
        if file.len().map_err(StorageError::io("measure", &path))? < FILE_BYTES {
            file.allocate(FILE_BYTES).map_err(StorageError::io("allocate", &path))?;
        }
        file.write_all_at(&encode_page(seed, page.first, entries), at)
            .map_err(StorageError::io("write", &path))
    }

    /// Reads a page back; it must be the page of this queue that starts at `first`.
    ///
    /// # Errors
    /// [`StorageError::PageDamaged`]; the page is remembered as such.
    pub(crate) fn read(&self, seed: u32, page: PageId, first: u64) -> Result<Vec<QueueEntry>, StorageError> {
        let (file, path, at) = self.place(page)?;
        let mut bytes = [0u8; PAGE_BYTES];
        let read = file.read_exact_at(&mut bytes, at).map_err(|error| format!("it cannot be read: {error}"));
        let entries = read.and_then(|()| parse_page(&bytes, seed, first).map_err(str::to_owned));
        entries.map_err(|reason| {
            let mut damaged = self.damaged_pages();
            if damaged.len() < DAMAGED_MAX {
                damaged.insert(page);
            }
            StorageError::PageDamaged { file: path, offset: at, reason }
        })
    }

    fn damaged_pages(&self) -> MutexGuard<'_, BTreeSet<PageId>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a page did not hold when it was read.
    pub(crate) fn has_damaged(&self) -> bool {
        !self.damaged_pages().is_empty()
    }

    /// Pages that did not hold when they were read.
    pub(crate) fn damaged(&self) -> BTreeSet<PageId> {
        self.damaged_pages().clone()
    }

    /// These hold again, or mean nothing any more.
    pub(crate) fn forget_damaged<'p>(&self, pages: impl IntoIterator<Item = &'p PageId>) {
        let mut damaged = self.damaged_pages();
        for page in pages {
            damaged.remove(page);
        }
    }

    /// Gives pages back; they are used again after the next checkpoint.
    pub(crate) fn free(&self, pages: impl IntoIterator<Item = PageId>) {
        self.allocation.lock().unwrap_or_else(PoisonError::into_inner).freed.extend(pages);
    }

    /// Takes the pages given back so far; hand them to [`PageStore::reuse`] when a checkpoint no longer names them.
    pub(crate) fn take_freed(&self) -> Vec<PageId> {
        std::mem::take(&mut self.allocation.lock().unwrap_or_else(PoisonError::into_inner).freed)
    }

    /// These pages may be written again.
    pub(crate) fn reuse(&self, pages: Vec<PageId>) {
        self.allocation.lock().unwrap_or_else(PoisonError::into_inner).free.extend(pages);
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        let files: Vec<(PathBuf, Arc<dyn File>)> = {
            let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
            files.iter().map(|f| (f.path.clone(), Arc::clone(&f.file))).collect()
        };
        for (path, file) in files {
            file.sync_data().map_err(StorageError::io("sync", &path))?;
        }
        self.fs.sync_dir(&self.dir).map_err(StorageError::io("sync folder", &self.dir))
    }

    fn place(&self, page: PageId) -> Result<(Arc<dyn File>, PathBuf, u64), StorageError> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let at = u64::from(page % PAGES_PER_FILE) * PAGE_BYTES as u64;
        files
            .get((page / PAGES_PER_FILE) as usize)
            .map(|f| (Arc::clone(&f.file), f.path.clone(), at))
            .ok_or_else(|| StorageError::Corrupt {
                file: self.dir.clone(),
                offset: at,
                reason: format!("no file holds consume queue page {page}"),
            })
    }
}

/// The bytes of a page.
fn encode_page(seed: u32, first: u64, entries: &[QueueEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PAGE_BYTES);
    for entry in entries.iter().take(ENTRIES_PER_PAGE) {
        bytes.extend_from_slice(&entry.to_bytes());
    }
    bytes.resize(ENTRIES_BYTES, 0);
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&u16::try_from(entries.len()).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    let crc = page_crc(seed, &bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The entries of a page, if it is the one of the queue with this seed that starts at `first`.
pub(super) fn parse_page(
    bytes: &[u8; PAGE_BYTES],
    seed: u32,
    first: u64,
) -> Result<Vec<QueueEntry>, &'static str> {
    let (content, crc) = bytes.split_at(PAGE_BYTES - 4);
    if crc != page_crc(seed, content).to_le_bytes() {
        return Err("its checksum does not hold");
    }
    let (entries, tail) = content.split_at(ENTRIES_BYTES);
    let (stored_first, rest) = tail.split_at(8);
    if stored_first != first.to_le_bytes() {
        return Err("it belongs to another place in its queue");
    }
    let count = rest.first_chunk::<2>().map_or(0, |c| u16::from_le_bytes(*c)) as usize;
    let entries = entries.chunks_exact(QUEUE_ENTRY_BYTES).take(count).map(QueueEntry::decode);
    entries.collect::<Result<_, _>>().map_err(|_| "an entry cannot be read")
}

pub(super) fn file_path(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("pages-{number}"))
}

fn page_crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}
