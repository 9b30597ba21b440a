//! From a record back to the frame that holds it: for the rare questions that only the frame's header answers.

use super::shared::Log;
use super::walk::{FrameSource, Window};
use crate::error::StorageError;

/// Bytes looked at first before the record; each further look is four times as long. Most groups are small.
const FIRST_LOOK_BYTES: u64 = 16 * 1024;

impl Log {
    /// Leader time, in milliseconds since 1970, of the frame that holds the record at `position`.
    ///
    /// Looks backwards for a frame whose CRC holds and which reaches over `position`: at most `frame_bytes_max` bytes
    /// are read (a few times), so this is no way to serve a pull.
    ///
    /// # Errors
    /// [`StorageError::Gone`], or [`StorageError::NotARecord`] if no frame holds a record there.
    pub fn frame_time_at(&self, position: u64) -> Result<u64, StorageError> {
        let segment = self.segment_of(position)?;
        let end = segment.end();
        if position >= end {
            return Err(StorageError::NotARecord { position });
        }
        let file = self.file_of(&segment)?;
        let source = FrameSource {
            file: &*file,
            path: &segment.path,
            base: segment.base,
            len: end - segment.base,
            seed: self.seed,
            frame_bytes_max: self.layout.frame_bytes_max,
        };
        let lowest = position.saturating_sub(u64::from(self.layout.frame_bytes_max)).max(segment.base);
        let (mut look, mut to) = (FIRST_LOOK_BYTES, position);
        while to > lowest {
            let from = position.saturating_sub(look).max(lowest);
            if let Some(time_ms) = time_between(&source, from, to, position)? {
                return Ok(time_ms);
            }
            to = from;
            look = look.saturating_mul(4);
        }
        Err(StorageError::NotARecord { position })
    }
}

/// Time of the frame that begins in `[from, to)` and holds a record at `position`, the nearest one first.
fn time_between(
    source: &FrameSource<'_>,
    from: u64,
    to: u64,
    position: u64,
) -> Result<Option<u64>, StorageError> {
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
    source
        .file
        .read_exact_at(&mut bytes, from - source.base)
        .map_err(StorageError::io("read", source.path))?;
    let mut window = Window::default();
    for found in memchr::memrchr_iter(b'M', &bytes) {
        if bytes.get(found + 1).is_some_and(|next| *next != b'Z') {
            continue;
        }
        let Some(frame) = source.frame_at(&mut window, from + found as u64)? else { continue };
        if frame.records().any(|record| record.position == position) {
            return Ok(Some(frame.header.time_ms));
        }
    }
    Ok(None)
}
