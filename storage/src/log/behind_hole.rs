//! Looking at what stands behind a hole: the only thing that tells damage from a torn tail.
//!
//! Unsynced pages reach the disk in any order, so valid frames may stand behind a hole that was never on the disk.
//! Each of them says, in `synced_to`, what was. The search takes every "MZ" for a candidate and believes only CRCs.

use super::walk::{FrameSource, Window};
use crate::error::StorageError;
use crate::format::frame::Frame;

/// Zeros are skipped in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;
static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// What was found behind a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct BehindHole {
    /// Greatest `synced_to` of the valid frames.
    pub(super) synced_to: u64,
    /// Greatest term of the valid frames.
    pub(super) term: u32,
    /// Valid frames.
    pub(super) frames: u64,
    /// Bytes up to the last one that is not zero.
    pub(super) data_bytes: u64,
}

impl BehindHole {
    /// Looks through `source` from `offset` in the file to its end and adds what is found.
    pub(super) fn search(&mut self, source: &FrameSource<'_>, offset: u64) -> Result<(), StorageError> {
        let mut pieces = Window::default();
        let mut frames = Window::default();
        let mut at = offset;
        let mut data_end = offset;
        loop {
            let piece = pieces
                .from(source.file, source.len, at, 1)
                .map_err(StorageError::io("read", source.path))?
                .map(|bytes| bytes.get(..PIECE_BYTES).unwrap_or(bytes));
            let Some(piece) = piece else { break };
            let len = piece.len() as u64;
            if ZEROS.starts_with(piece) {
                at += len;
                continue;
            }
            let last = piece.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            data_end = data_end.max(at + last as u64 + 1);
            at = self.candidates(source, &mut frames, at, piece)?;
        }
        self.data_bytes += data_end.saturating_sub(offset);
        Ok(())
    }

    /// Tries each "M" of a piece that begins at `at` in the file; returns where to go on: behind the piece, or behind
    /// a valid frame that was found in it.
    fn candidates(
        &mut self,
        source: &FrameSource<'_>,
        window: &mut Window,
        at: u64,
        piece: &[u8],
    ) -> Result<u64, StorageError> {
        // one byte is enough for a candidate, so that none is missed where pieces meet
        for found in memchr::memchr_iter(b'M', piece) {
            if piece.get(found + 1).is_some_and(|next| *next != b'Z') {
                continue;
            }
            let position = source.base + at + found as u64;
            if let Some(frame) = source.frame_at(window, position)? {
                self.synced_to = self.synced_to.max(frame.header.synced_to);
                self.term = self.term.max(frame.header.term);
                self.frames += 1;
                return Ok(frame.end() - source.base);
            }
        }
        Ok(at + piece.len() as u64)
    }
}

/// Position of the first valid frame of `source`, from `offset` in the file on, that `accepts` takes.
pub(super) fn first_frame_from(
    source: &FrameSource<'_>,
    offset: u64,
    accepts: &dyn Fn(&Frame<'_>) -> bool,
) -> Result<Option<u64>, StorageError> {
    let mut pieces = Window::default();
    let mut frames = Window::default();
    let mut at = offset;
    loop {
        let piece = pieces
            .from(source.file, source.len, at, 1)
            .map_err(StorageError::io("read", source.path))?
            .map(|bytes| bytes.get(..PIECE_BYTES).unwrap_or(bytes));
        let Some(piece) = piece else { return Ok(None) };
        for found in memchr::memchr_iter(b'M', piece) {
            if piece.get(found + 1).is_some_and(|next| *next != b'Z') {
                continue;
            }
            let position = source.base + at + found as u64;
            if source.frame_at(&mut frames, position)?.is_some_and(|frame| accepts(&frame)) {
                return Ok(Some(position));
            }
        }
        at += piece.len() as u64;
    }
}

/// Whether the bytes of `[from, to)` in the file, as far as it reaches, are all zero.
pub(super) fn is_zero(source: &FrameSource<'_>, from: u64, to: u64) -> Result<bool, StorageError> {
    let mut window = Window::default();
    let mut at = from;
    let end = to.min(source.len);
    while at < end {
        let bytes =
            window.from(source.file, source.len, at, 1).map_err(StorageError::io("read", source.path))?;
        let Some(bytes) = bytes else { break };
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let piece = bytes.get(..wanted).unwrap_or(bytes);
        if !ZEROS.starts_with(piece) {
            return Ok(false);
        }
        at += piece.len() as u64;
    }
    Ok(true)
}
