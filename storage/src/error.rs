//! What can go wrong between Mezzo and its disk, with the place where it went wrong.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::format::FormatError;

/// Failure of a storage operation.
///
/// [`StorageError::Busy`] and [`StorageError::PageDamaged`] are worth retrying as they stand; [`StorageError::Fenced`]
/// ends the process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The operating system refused an operation on a file or a folder.
    #[error("cannot {op} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb phrase ("write", "open for reading").
        op: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Bytes that were known durable are not what was written. Nothing has been changed.
    #[error("{} is damaged at offset {offset}: {reason}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Byte offset inside that file.
        offset: u64,
        /// What does not hold there.
        reason: String,
    },
    /// A page of a consume queue is not what was written. It is derived, and made anew from the log while the broker
    /// runs: retryable.
    #[error(
        "{} is damaged at offset {offset}: consume queue page: {reason}; it is made anew from the log, try again later",
        file.display()
    )]
    PageDamaged {
        /// The damaged file.
        file: PathBuf,
        /// Byte offset inside that file.
        offset: u64,
        /// What does not hold there.
        reason: String,
    },
    /// A newer program wrote this data. Nothing has been changed.
    #[error("written by a newer version of Mezzo: {what} {got}, this program knows up to {newest}")]
    NewerVersion {
        /// Which number is too new.
        what: &'static str,
        /// The number found.
        got: u32,
        /// The greatest number that this program reads.
        newest: u32,
    },
    /// A development version wrote this data, before the format was fixed. Nothing has been changed.
    #[error(
        "written by a development version of Mezzo, before the format on the disk was fixed ({what} {got}): decide or \
         let go what is in this folder with the program that wrote it, then start this one with an empty folder \
         (--data-dir)"
    )]
    DevelopmentVersion {
        /// Which number says so.
        what: &'static str,
        /// The number found.
        got: u32,
    },
    /// Another process owns the data folder.
    #[error("{} is held by another process ({owner}); stop it or choose another folder", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote into it, usually its process id.
        owner: String,
    },
    /// A write or a sync has failed before; nothing is written or acknowledged any more.
    #[error("the log is fenced: {reason}")]
    Fenced {
        /// The first failure.
        reason: String,
    },
    /// Sizes that contradict each other or the data on the disk.
    #[error("storage layout: {reason}")]
    Layout {
        /// Which rule is broken, with the numbers.
        reason: String,
    },
    /// No room at this moment: retryable.
    #[error("storage is busy: {reason}")]
    Busy {
        /// What is short.
        reason: &'static str,
    },
    /// The bytes at this position were deleted by retention.
    #[error("position {position} is gone: the log begins at {first}")]
    Gone {
        /// The position asked for.
        position: u64,
        /// The first position that still exists.
        first: u64,
    },
    /// No record (or no readable range) starts at this position.
    #[error("no record at position {position}")]
    NotARecord {
        /// The position asked for; may come from the network.
        position: u64,
    },
    /// More bytes than a frame may hold. Nothing has been written.
    #[error("{got} bytes do not fit a frame of at most {max}")]
    TooLarge {
        /// Bytes of the frame that was asked for.
        got: usize,
        /// Most bytes of a frame.
        max: usize,
    },
    /// More queues than a topic may have. Nothing has been written.
    #[error("{got} queues, a topic has at most {max}")]
    TooManyQueues {
        /// Queues asked for.
        got: u32,
        /// Most queues of a topic.
        max: u32,
    },
    /// A stored payload could not be decoded although its CRC holds.
    #[error("stored bytes at position {position}: {source}")]
    Format {
        /// Where the record stands in the log, or the offset inside a file.
        position: u64,
        /// What does not hold.
        source: FormatError,
    },
}

/// What a person can do about it, where the system's own words do not say.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; whoever runs the broker must be able to read and write everything in the data folder"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; mount the file system so that it can be written",
        io::ErrorKind::IsADirectory => "; a folder stands where a file belongs: move it away",
        io::ErrorKind::NotADirectory => "; a file stands where a folder belongs: move it away",
        _ => "",
    }
}

impl StorageError {
    /// Makes the closure that wraps an [`io::Error`] with its place, for `map_err`.
    pub fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_path_buf(), op, source }
    }

    /// Whether an operation failed for lack of room on the disk.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// A damaged place.
    pub fn corrupt(file: &Path, offset: u64, reason: impl fmt::Display) -> Self {
        Self::Corrupt { file: file.to_path_buf(), offset, reason: reason.to_string() }
    }
}
