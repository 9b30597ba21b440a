//! Reading frames one after another out of a file, through a window that is read ahead.
//!
//! With `pread`, never through a map: damage that the disk reports is an error here, not a signal.

use std::io;
use std::path::Path;

use crate::error::StorageError;
use crate::file_system::File;
use crate::format::FormatError;
use crate::format::frame::{FRAME_HEADER_BYTES, Frame, announced_length};
use crate::format::record::LogSeed;

/// Bytes read ahead.
pub(super) const WINDOW_BYTES: usize = 1024 * 1024;

/// A part of a file in memory. One window serves one file.
#[derive(Debug, Default)]
pub(super) struct Window {
    offset: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// All bytes at hand from `offset` on, at least `least` of them; `None` if the file, `file_len` bytes long, ends
    /// before. Memory is bounded by `least` and the window's size.
    pub(super) fn from(
        &mut self,
        file: &dyn File,
        file_len: u64,
        offset: u64,
        least: usize,
    ) -> io::Result<Option<&[u8]>> {
        let left = file_len.saturating_sub(offset);
        if left < least as u64 || left == 0 {
            return Ok(None);
        }
        let at_hand = offset
            .checked_sub(self.offset)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| skip.checked_add(least.max(1)).is_some_and(|end| end <= self.bytes.len()));
        if let Some(skip) = at_hand {
            return Ok(self.bytes.get(skip..));
        }
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(least.max(WINDOW_BYTES));
        self.bytes.resize(len, 0);
        self.offset = offset;
        if let Err(error) = file.read_exact_at(&mut self.bytes, offset) {
            self.bytes.clear();
            return Err(error);
        }
        Ok(Some(&self.bytes))
    }
}

/// A segment file that is read frame by frame.
#[derive(Clone, Copy)]
pub(super) struct FrameSource<'a> {
    pub(super) file: &'a dyn File,
    pub(super) path: &'a Path,
    /// Position of the file's first byte.
    pub(super) base: u64,
    /// Bytes of the file that may be read.
    pub(super) len: u64,
    pub(super) seed: LogSeed,
    pub(super) frame_bytes_max: u32,
}

impl FrameSource<'_> {
    /// The valid frame at `position`; `None` if there is none.
    ///
    /// # Errors
    /// [`StorageError::NewerVersion`] and [`StorageError::DevelopmentVersion`] for a frame whose CRC holds but which this
    /// program cannot read; read errors.
    pub(super) fn frame_at<'w>(
        &self,
        window: &'w mut Window,
        position: u64,
    ) -> Result<Option<Frame<'w>>, StorageError> {
        self.parsed_at(window, position, Frame::parse)
    }

    /// As [`FrameSource::frame_at`], of a frame that holds but for some of its records: only the others are shown.
    pub(super) fn frame_in_part_at<'w>(
        &self,
        window: &'w mut Window,
        position: u64,
    ) -> Result<Option<Frame<'w>>, StorageError> {
        self.parsed_at(window, position, Frame::parse_in_part)
    }

    fn parsed_at<'w>(
        &self,
        window: &'w mut Window,
        position: u64,
        parse: impl FnOnce(LogSeed, u64, &'w [u8]) -> Result<Frame<'w>, FormatError>,
    ) -> Result<Option<Frame<'w>>, StorageError> {
        let offset = position - self.base;
        let read_error = StorageError::io("read", self.path);
        let header = match window.from(self.file, self.len, offset, FRAME_HEADER_BYTES) {
            Ok(header) => header,
            Err(error) => return Err(read_error(error)),
        };
        let Some(length) = header.and_then(|header| announced_length(header, self.frame_bytes_max)) else {
            return Ok(None);
        };
        let bytes = window.from(self.file, self.len, offset, length).map_err(read_error)?;
        let Some(bytes) = bytes.and_then(|bytes| bytes.get(..length)) else {
            return Ok(None);
        };
        match parse(self.seed, position, bytes) {
            Ok(frame) => Ok(Some(frame)),
            Err(FormatError::Newer { what, got, newest }) => {
                Err(StorageError::NewerVersion { what, got, newest })
            }
            Err(FormatError::Development { what, got }) => {
                Err(StorageError::DevelopmentVersion { what, got })
            }
            Err(_) => Ok(None),
        }
    }
}
