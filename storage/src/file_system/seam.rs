//! The traits of the seam and the mapping handed out by them.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use bytes::Bytes;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; must exist.
    Read,
    /// For reading and writing; must exist.
    ReadWrite,
    /// For reading and writing, new and empty: a file that exists is truncated.
    Create,
}

/// A folder tree on some disk.
pub trait FileSystem: Send + Sync + 'static {
    /// Creates the folder and its parents; a folder that exists is fine.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names of the files directly inside `dir`, in any order, folders left out. Names that are not UTF-8 are
    /// left out, too: Mezzo writes none.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Whether something has this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name in one step; a file that has the new name is replaced. Durable after
    /// [`FileSystem::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Handles and mappings stay usable. Durable after [`FileSystem::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes all creations, renamings and removals directly inside `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock on a file (created if missing) without waiting, and writes who holds it into the
    /// file. A second holder gets [`io::ErrorKind::WouldBlock`].
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>>;

    /// Bytes that this process may still write to the disk that holds `dir`, quotas and reserves left out. Where that
    /// cannot be known: [`io::ErrorKind::Unsupported`].
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let _ = dir;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// One open file. All methods take offsets, so handles are shared freely.
pub trait File: Send + Sync {
    /// Bytes of the file.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file or extends it by zeros. Durable after [`File::sync_all`].
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; one system call unless the kernel writes short.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills `bytes` from `offset`; fails with [`io::ErrorKind::UnexpectedEof`] behind the end.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Makes the bytes (and the length, where reading them needs it) durable. After a failure the bytes may be
    /// lost for good, whatever a second call says: never retry.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`File::sync_data`], with all of the file's metadata.
    fn sync_all(&self) -> io::Result<()>;

    /// Gives the file `len` bytes whose space on the disk is taken: writing below `len` cannot fail for lack of
    /// space. New bytes read as zero. Where the disk cannot reserve, zeros are written.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Starts writing dirty pages of the range to the disk and does not wait. A hint: errors may be ignored.
    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Maps the whole file, at its present length, for reading.
    fn map(&self) -> io::Result<Mapping>;
}

/// An exclusive lock, held until dropped.
pub trait LockGuard: Send + Sync {}

/// What a mapping reads from.
pub trait MappedBytes: Send + Sync {
    /// The bytes of the range, if it lies inside the mapping.
    fn slice(&self, offset: u64, len: usize) -> Option<Bytes>;

    /// What lives as long as the map or a slice of it does: before that ends, the file must not be cut.
    fn life(&self) -> Weak<()>;
}

/// A file mapped for reading; clones share it.
#[derive(Clone)]
pub struct Mapping {
    source: Arc<dyn MappedBytes>,
}

impl Mapping {
    /// A mapping over some source.
    #[must_use]
    pub fn new(source: Arc<dyn MappedBytes>) -> Self {
        Self { source }
    }

    /// What lives as long as the map or a slice of it does: before that ends, the file must not be cut.
    #[must_use]
    pub fn life(&self) -> Weak<()> {
        self.source.life()
    }

    /// The bytes of the range, if it lies inside the mapping; nothing is copied on a real disk.
    ///
    /// Only ranges that will not be written again may be asked for: the slice shows later writes to them.
    #[must_use]
    pub fn slice(&self, offset: u64, len: usize) -> Option<Bytes> {
        self.source.slice(offset, len)
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mapping")
    }
}
