//! What a test wants to know of the operations that change a simulated disk, to stop at each and to name it.

use std::fmt;
use std::path::PathBuf;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskOperationKind {
    /// A file is made, or emptied by making it again.
    Create,
    /// Bytes of a file are written.
    Write,
    /// A file is cut, extended, or given space.
    Resize,
    /// A file is made durable.
    Sync,
    /// A file gets another name.
    Rename,
    /// A name is removed.
    Remove,
    /// The names of a folder are made durable.
    SyncFolder,
}

/// One operation that changed the disk, or would have if the disk had not been told to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOperation {
    /// What it does.
    pub kind: DiskOperationKind,
    /// The file or folder; of a renaming the new name. Empty for a file that has no name any more.
    pub path: PathBuf,
    /// Bytes that are written; 0 for every other kind.
    pub bytes: usize,
}

impl fmt::Display for DiskOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.path.display())?;
        if self.kind == DiskOperationKind::Write { write!(f, " ({} bytes)", self.bytes) } else { Ok(()) }
    }
}
