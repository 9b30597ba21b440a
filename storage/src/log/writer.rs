//! The one writer of the log. It lives under its caller's append lock.
//!
//! A frame is collected in a buffer that is reused, and written by one `pwrite`. Record CRCs come ready-made from the
//! caller, so under the lock each byte is copied once and not hashed.

use std::fmt;
use std::sync::Arc;

use mezzo_protocol::time::Timestamp;

use super::layout::{Class, SEGMENT_FRAME_BYTES};
use super::segment::{Segment, locked};
use super::shared::Log;
use crate::concurrency::atomic::Ordering;
use crate::error::StorageError;
use crate::file_system::File;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::format::record::{LayoutRecord, LogSeed, RecordHead, RecordHeader, RecordKind};

/// A frame that has been appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameEnd {
    /// Position of its first byte.
    pub start: u64,
    /// Position behind its last byte: durable once [`Log::synced`] has reached it.
    pub end: u64,
    /// Its index.
    pub index: u64,
    /// Its leader time.
    pub time: Timestamp,
}

/// Where a frame sequence stands: what the next frame continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) term: u32,
    /// Of the last frame.
    pub(super) index: u64,
    /// Of the last frame.
    pub(super) time_ms: u64,
}

/// Appends frames, one after another.
pub struct Writer {
    log: Arc<Log>,
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    last: Sequence,
    /// The end of what is appended: where the next frame stands.
    end: u64,
    /// The frame being built: room for its header, then records.
    frame: Vec<u8>,
    /// The CRC fields of its records, as bytes.
    crcs: Vec<u8>,
    /// Most bytes that the frame being built may take; 0 when none is.
    frame_bytes_bound: usize,
    frame_time_ms: u64,
}

impl Writer {
    pub(super) fn new(
        log: Arc<Log>,
        segment: Arc<Segment>,
        file: Arc<dyn File>,
        last: Sequence,
        end: u64,
    ) -> Self {
        Self {
            log,
            segment,
            file,
            last,
            end,
            frame: Vec::new(),
            crcs: Vec::new(),
            frame_bytes_bound: 0,
            frame_time_ms: last.time_ms,
        }
    }

    /// Starts a frame; one that was started and not committed is forgotten.
    ///
    /// `records_bytes_bound` is the most that all records together, headers included, will take. If that might not
    /// fit the segment, the next one is entered now, so that positions are known while records are pushed.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] if no frame holds that much, [`StorageError::Busy`] if it would take the last
    /// prepared segment (retry later), [`StorageError::Fenced`] after any failed write or sync.
    pub fn begin(
        &mut self,
        now: Timestamp,
        records_bytes_bound: usize,
        class: Class,
    ) -> Result<(), StorageError> {
        self.frame_bytes_bound = 0;
        self.log.check()?;
        let bound = FRAME_HEADER_BYTES.saturating_add(records_bytes_bound);
        let max = self.log.layout.frame_bytes_max as usize;
        if bound > max {
            return Err(StorageError::TooLarge { got: bound, max });
        }
        // a message leaves at least the reserve behind, wherever it is written: after a decision has rolled into
        // the reserve, messages must not fill what is left of it
        if class == Class::Message && self.log.spare_segments() == 0 {
            return Err(StorageError::Busy { reason: "only the reserve segment is left" });
        }
        self.frame_time_ms = now.as_ms().max(self.last.time_ms);
        if self.end + bound as u64 > self.segment.base + self.log.layout.segment_bytes {
            self.roll(class)?;
        }
        self.frame.clear();
        self.frame.resize(FRAME_HEADER_BYTES, 0);
        self.crcs.clear();
        self.frame_bytes_bound = bound;
        Ok(())
    }

    /// Position at which the header of the next pushed record will stand.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.end + self.frame.len().max(FRAME_HEADER_BYTES) as u64
    }

    /// Adds a record whose payload stands in `parts`, one after another; returns its position. Whether all fits the
    /// announced bound is checked by [`Writer::commit`].
    pub fn push(&mut self, head: &RecordHead, parts: &[&[u8]]) -> u64 {
        let position = self.next_position();
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let header = RecordHeader {
            length: u32::try_from(length).unwrap_or(u32::MAX),
            kind: head.kind.as_u8(),
            version: head.version,
            flags: head.flags,
            crc: head.crc,
        };
        self.frame.extend_from_slice(&header.to_bytes());
        for part in parts {
            self.frame.extend_from_slice(part);
        }
        self.crcs.extend_from_slice(&head.crc.to_le_bytes());
        position
    }

    /// Leader time of the frame being built.
    #[must_use]
    pub fn frame_time(&self) -> Timestamp {
        Timestamp::from_ms(self.frame_time_ms)
    }

    /// Writes the frame by one `pwrite`. A frame without records is not written: start and end are then the same.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] if more was pushed than announced: nothing is written, and the frame is forgotten.
    /// Any other error has fenced the log.
    pub fn commit(&mut self) -> Result<FrameEnd, StorageError> {
        let bound = std::mem::take(&mut self.frame_bytes_bound);
        self.log.check()?;
        let nothing = FrameEnd {
            start: self.end,
            end: self.end,
            index: self.last.index,
            time: Timestamp::from_ms(self.last.time_ms),
        };
        if bound == 0 || self.crcs.is_empty() {
            return Ok(nothing);
        }
        if self.frame.len() > bound {
            return Err(StorageError::TooLarge { got: self.frame.len(), max: bound });
        }
        let header = FrameHeader {
            kind: FrameKind::Records,
            length: u32::try_from(self.frame.len()).unwrap_or(u32::MAX),
            term: self.last.term,
            index: self.last.index + 1,
            time_ms: self.frame_time_ms,
            synced_to: self.log.synced(),
        };
        let bytes = header.to_bytes(self.log.seed, self.end, &self.crcs);
        self.frame[..FRAME_HEADER_BYTES].copy_from_slice(&bytes);
        let start = self.end;
        write_frame(&self.log, &self.segment, &*self.file, &self.frame, start)?;
        self.end = start + self.frame.len() as u64;
        self.last = Sequence { index: header.index, time_ms: header.time_ms, ..self.last };
        self.frame.clear();
        Ok(FrameEnd { start, end: self.end, index: header.index, time: Timestamp::from_ms(header.time_ms) })
    }

    /// The end of what is appended.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.end
    }

    /// Bytes left in the segment that is being written.
    #[must_use]
    pub fn room(&self) -> u64 {
        (self.segment.base + self.log.layout.segment_bytes).saturating_sub(self.end)
    }

    /// Index of the last frame.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.last.index
    }

    /// The term of this start.
    #[must_use]
    pub fn term(&self) -> u32 {
        self.last.term
    }

    /// Leader time of the last frame.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        Timestamp::from_ms(self.last.time_ms)
    }

    /// Enters the next prepared segment and writes its head. No file is created here: a prepared segment has its
    /// name, its space and its length on the disk already.
    fn roll(&mut self, class: Class) -> Result<(), StorageError> {
        let next = {
            let mut spares = locked(&self.log.spares);
            let needed = match class {
                Class::Message => 2,
                Class::Essential => 1,
            };
            if spares.ready.len() < needed {
                return Err(StorageError::Busy { reason: "no segment is prepared" });
            }
            let next =
                spares.ready.pop_front().ok_or(StorageError::Busy { reason: "no segment is prepared" })?;
            self.log.spare_count.store(spares.ready.len(), Ordering::Release);
            next
        };
        let (file, _) = next.file(&*self.log.fs).map_err(|error| self.log.fence_by(error))?;
        let layout = LayoutRecord {
            nonce: self.log.layout.nonce,
            segment_bytes: self.log.layout.segment_bytes,
            frame_bytes_max: self.log.layout.frame_bytes_max,
            previous_end: self.end,
        };
        let last = Sequence { time_ms: self.frame_time_ms, ..self.last };
        let head = segment_frame(self.log.seed, next.base, &layout, last, self.log.synced());
        // the segment is in the table before `appended` reaches into it, so that a sync up to there finds it
        self.log.change_segments(|segments| segments.push_back(Arc::clone(&next)));
        write_frame(&self.log, &next, &*file, &head, next.base)?;
        self.log.note_open(&self.segment);
        self.end = next.base + head.len() as u64;
        self.last = last;
        self.segment = next;
        self.file = file;
        Ok(())
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("end", &self.end).field("last", &self.last).finish_non_exhaustive()
    }
}

/// One `pwrite` of a whole frame, and what becomes visible by it. A failure fences the log: nobody knows which part of
/// the frame the file now holds.
fn write_frame(
    log: &Log,
    segment: &Segment,
    file: &dyn File,
    frame: &[u8],
    position: u64,
) -> Result<(), StorageError> {
    let offset = position - segment.base;
    segment.claim_to(offset + frame.len() as u64);
    file.write_all_at(frame, offset)
        .map_err(|error| log.fence_by(StorageError::io("append to", &segment.path)(error)))?;
    let end = position + frame.len() as u64;
    segment.set_end(end);
    log.appended.store(end, Ordering::Release);
    Ok(())
}

/// The head of a segment at `base`; it repeats the index of the frame before it.
pub(super) fn segment_frame(
    seed: LogSeed,
    base: u64,
    layout: &LayoutRecord,
    last: Sequence,
    synced_to: u64,
) -> Vec<u8> {
    let mut payload = Vec::with_capacity(SEGMENT_FRAME_BYTES);
    layout.encode(&mut payload);
    let place = FramePlace { kind: FrameKind::Segment, position: base, synced_to };
    single_record_frame(seed, place, last, RecordKind::Layout, &payload)
}

/// What a frame is and where it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct FramePlace {
    pub(super) kind: FrameKind,
    pub(super) position: u64,
    pub(super) synced_to: u64,
}

/// A frame of one record, as segment and blank frames are. `sequence` is the frame's own.
pub(super) fn single_record_frame(
    seed: LogSeed,
    place: FramePlace,
    sequence: Sequence,
    record: RecordKind,
    payload: &[u8],
) -> Vec<u8> {
    let head = RecordHead::new(seed, record, 0, &[payload]);
    let record = RecordHeader {
        length: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        kind: head.kind.as_u8(),
        version: head.version,
        flags: head.flags,
        crc: head.crc,
    }
    .to_bytes();
    let header = FrameHeader {
        kind: place.kind,
        length: u32::try_from(FRAME_HEADER_BYTES + record.len() + payload.len()).unwrap_or(u32::MAX),
        term: sequence.term,
        index: sequence.index,
        time_ms: sequence.time_ms,
        synced_to: place.synced_to,
    };
    let mut frame = header.to_bytes(seed, place.position, &head.crc.to_le_bytes()).to_vec();
    frame.extend_from_slice(&record);
    frame.extend_from_slice(payload);
    frame
}
