//! Reading records and ranges: through the map while they are hot, with `pread` when they are cold.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::replay::FrameVisitor;
use super::segment::Segment;
use super::shared::Log;
use super::walk::{FrameSource, Window};
use crate::error::StorageError;
use crate::format::frame::FRAME_HEADER_BYTES;
use crate::format::record::{RECORD_HEADER_BYTES, RecordHeader, RecordKind};

/// One record, read by its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the payload is.
    pub kind: RecordKind,
    /// Version of the payload's layout.
    pub version: u8,
    /// Flags of this kind.
    pub flags: u16,
    /// The payload; a slice of the map when hot.
    pub payload: Bytes,
    /// Position behind the record.
    pub end: u64,
}

impl Log {
    /// Whether a read at `position` goes through the map and so does not wait for the disk, as far as that can be
    /// known: the newest `hot_bytes`.
    #[must_use]
    pub fn is_hot(&self, position: u64) -> bool {
        position.saturating_add(self.options.hot_bytes) >= self.appended()
    }

    /// The bytes of `[position, position + len)`. Hot ranges are not copied. Cold ones may wait for the disk.
    ///
    /// # Errors
    /// [`StorageError::Gone`] below the first segment, [`StorageError::NotARecord`] for a range that is not wholly
    /// inside the valid bytes of one segment.
    pub fn read(&self, position: u64, len: usize) -> Result<Bytes, StorageError> {
        let segment = self.segment_of(position)?;
        self.read_in(&segment, position, len)
    }

    /// The record whose header stands at `position`. The number may come from anywhere: the record's bounds and CRC
    /// are checked, and since the CRC starts from the log's secret, bytes inside a message body do not pass.
    ///
    /// # Errors
    /// [`StorageError::Gone`], or [`StorageError::NotARecord`] for everything that is no record.
    pub fn record(&self, position: u64) -> Result<Record, StorageError> {
        let no_record = StorageError::NotARecord { position };
        let segment = self.segment_of(position)?;
        let header = self.read_in(&segment, position, RECORD_HEADER_BYTES)?;
        let Ok(header) = RecordHeader::parse(&header) else { return Err(no_record) };
        let longest = self.layout.frame_bytes_max as usize - FRAME_HEADER_BYTES - RECORD_HEADER_BYTES;
        let length = header.length as usize;
        let (Ok(kind), true) = (header.known_kind(), length <= longest) else { return Err(no_record) };
        let start = position + RECORD_HEADER_BYTES as u64;
        let Ok(payload) = self.read_in(&segment, start, length) else { return Err(no_record) };
        if !header.holds(self.seed, &payload) {
            return Err(no_record);
        }
        let end = start + length as u64;
        Ok(Record { kind, version: header.version, flags: header.flags, payload, end })
    }

    /// Shows the frames of `[from, to)` to `visit`, in order; `from` is the start of a frame, or the end of a
    /// segment's valid bytes. Returns the position behind the last frame shown.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where no valid frame stands.
    pub fn scan(&self, from: u64, to: u64, visit: &mut FrameVisitor<'_>) -> Result<u64, StorageError> {
        let to = to.min(self.appended());
        let mut position = from;
        while position < to {
            let segment = self.segment_of(position)?;
            if position >= segment.end() {
                match self.segment_after(segment.base) {
                    Some(next) if position == segment.end() => position = self.begin_of(&next),
                    _ => return Err(StorageError::NotARecord { position }),
                }
                continue;
            }
            position = self.scan_segment(&segment, position, to, visit)?;
        }
        Ok(position)
    }

    fn scan_segment(
        &self,
        segment: &Arc<Segment>,
        from: u64,
        to: u64,
        visit: &mut FrameVisitor<'_>,
    ) -> Result<u64, StorageError> {
        let file = self.file_of(segment)?;
        let source = FrameSource {
            file: &*file,
            path: &segment.path,
            base: segment.base,
            len: segment.end() - segment.base,
            seed: self.seed,
            frame_bytes_max: self.layout.frame_bytes_max,
        };
        let mut window = Window::default();
        let mut position = from;
        while position < to && position < segment.base + source.len {
            let Some(frame) = source.frame_at(&mut window, position)? else {
                if let Some(to) = self.losses.behind(position) {
                    match source.frame_in_part_at(&mut window, position)? {
                        Some(frame) if frame.end() == to => visit(&frame)?,
                        _ => {}
                    }
                    position = to;
                    continue;
                }
                return Err(StorageError::corrupt(
                    source.path,
                    position - source.base,
                    "no valid frame here",
                ));
            };
            visit(&frame)?;
            position = frame.end();
        }
        Ok(position)
    }

    /// Where the readable frames of a segment begin: at its base, unless its head is lost.
    fn begin_of(&self, segment: &Segment) -> u64 {
        self.losses.behind(segment.base).filter(|to| *to < segment.end()).unwrap_or(segment.base)
    }

    fn segment_after(&self, base: u64) -> Option<Arc<Segment>> {
        self.with_segments(|segments| {
            let after = segments.partition_point(|segment| segment.base <= base);
            segments.get(after).map(Arc::clone)
        })
    }

    fn read_in(&self, segment: &Arc<Segment>, position: u64, len: usize) -> Result<Bytes, StorageError> {
        let inside = position.checked_add(len as u64).is_some_and(|end| end <= segment.end());
        if !inside || len > self.layout.frame_bytes_max as usize {
            return Err(StorageError::NotARecord { position });
        }
        let offset = position - segment.base;
        if self.is_hot(position) {
            let map = segment.mapping(&*self.fs).map_err(|error| self.gone_or(error, position))?;
            if let Some(bytes) = map.slice(offset, len) {
                return Ok(bytes);
            }
        }
        let file = self.file_of(segment).map_err(|error| self.gone_or(error, position))?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                StorageError::corrupt(&segment.path, offset, "the file ends here")
            }
            _ => StorageError::io("read", &segment.path)(error),
        })?;
        Ok(bytes.into())
    }

    /// A file that cannot be found was removed between finding its segment and opening it.
    fn gone_or(&self, error: StorageError, position: u64) -> StorageError {
        let first = self.first_position();
        match &error {
            StorageError::Io { source, .. }
                if source.kind() == io::ErrorKind::NotFound && position < first =>
            {
                StorageError::Gone { position, first }
            }
            _ => error,
        }
    }
}
