//! Carrying open messages forward: out of the segment that is about to go, to the log's end.
//!
//! Which messages are open is asked of the tables, some rows under each hold of the append lock. Bytes are read and
//! check-summed without it; under it each message is looked at once more, since it may have been decided meanwhile, and
//! what is still open is written as one frame.

use std::collections::VecDeque;
use std::ops::Range;

use mezzo_protocol::time::Timestamp;

use super::read::MessageRecord;
use super::{Appender, Store, lock};
use crate::batch::RECORD_OVERHEAD_MAX;
use crate::concurrency::atomic::Ordering;
use crate::error::StorageError;
use crate::format::frame::FRAME_HEADER_BYTES;
use crate::format::record::{
    Carried, CarriedTiming, MessagePrefix, NO_TRANSACTION, RECORD_HEADER_BYTES, RecordHead, RecordHeader,
    RecordKind,
};
use crate::log::Class;
use crate::options::AckLevel;
use crate::state::corrupt_log;
use crate::state::ledger::{At, Ledger};

/// Bytes of carried messages in one frame, if the first does not have more: the append lock is held that long.
const CARRIED_BYTES_PER_FRAME: usize = 128 << 10;
/// Rows looked at under one hold of the append lock.
const ROWS_PER_LOOK: usize = 4096;

/// An open message in the segment that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    location: u64,
    size: u32,
    /// Set if it waits for a tick, whatever its record says: its transaction may have been committed.
    due_ms: Option<u64>,
}

/// What is left to carry of one segment.
#[derive(Debug, Default)]
pub(super) struct CarryWork {
    /// Base of the segment.
    base: u64,
    /// By location, so that the segment is read from its beginning to its end.
    left: VecDeque<Place>,
}

/// A carried record that is ready to be written.
struct Ready<'a> {
    record: Carried<'a>,
    head: RecordHead,
    /// Inside the arena.
    payload: Range<usize>,
}

impl Store {
    /// Carries some of the open messages in `segment` to the log's end; the bytes that were written. `now` is leader
    /// time. 0: there is no room at this moment, or nothing was open any more.
    pub(super) fn carry_some(&self, segment: &Range<u64>, now: Timestamp) -> Result<u64, StorageError> {
        let mut work = lock(&self.carrying);
        if work.base != segment.start || work.left.is_empty() {
            *work = CarryWork { base: segment.start, left: self.open_within(segment) };
        }
        let bytes_max = CARRIED_BYTES_PER_FRAME
            .min(self.options.frame_bytes_max as usize - FRAME_HEADER_BYTES - RECORD_OVERHEAD_MAX);
        let mut read = Vec::new();
        let mut bytes = 0;
        while let Some(place) = work.left.front() {
            let size = place.size as usize + RECORD_OVERHEAD_MAX;
            if !read.is_empty() && bytes + size > bytes_max {
                break;
            }
            bytes += size;
            read.push((*place, self.log.read(place.location, place.size as usize)?));
            work.left.pop_front();
        }
        let mut arena = Vec::with_capacity(bytes);
        let mut ready = Vec::with_capacity(read.len());
        for (place, bytes) in &read {
            let decoded = self.open_message(place, bytes)?;
            let record = carried_of(place, &decoded);
            let start = arena.len();
            record.encode(&mut arena);
            let payload = start..arena.len();
            let written = arena.get(payload.clone()).unwrap_or_default();
            let head = RecordHead::new(self.encoder.seed, RecordKind::Carried, record.flags(), &[written]);
            ready.push(Ready { record, head, payload });
        }
        let carried = self.append_carried(now, &ready, &arena);
        if !matches!(carried, Ok(Some(_))) {
            // looked up anew
            work.left.clear();
        }
        let Some((written, moved)) = carried? else { return Ok(0) };
        for (at, ready) in moved {
            let record = &ready.record;
            let decoded = MessageRecord {
                prefix: record.prefix(),
                first_position: record.origin,
                transaction: Some(record.transaction_origin).filter(|origin| *origin != NO_TRANSACTION),
                message: record.message,
            };
            self.move_first_send(&decoded, record.old_location, at);
        }
        Ok(written)
    }

    /// Open messages whose bytes are in `segment`, as far as nothing changes meanwhile.
    fn open_within(&self, segment: &Range<u64>) -> VecDeque<Place> {
        let mut found = Vec::new();
        let mut slot = 0;
        loop {
            let appender = self.appender();
            let ledger = &appender.ledger;
            let Some(rows) = ledger.open.rows_from(slot, ROWS_PER_LOOK) else { break };
            for row in rows {
                let further = ledger.many.get(row.origin).map_or(&[][..], |many| &many.further);
                let places = further.iter().map(|member| (member.location, member.size));
                for (location, size) in places.chain([(row.location, row.size)]) {
                    if segment.contains(&location) {
                        found.push(Place { location, size, due_ms: None });
                    }
                }
            }
            slot += ROWS_PER_LOOK;
        }
        let mut key = None;
        loop {
            let appender = self.appender();
            let before = key;
            for (due_ms, position, row) in appender.ledger.due.rows_behind(key).take(ROWS_PER_LOOK) {
                key = Some((due_ms, position));
                if segment.contains(&row.location) {
                    found.push(Place { location: row.location, size: row.size, due_ms: Some(due_ms) });
                }
            }
            if key == before {
                break;
            }
        }
        // one that was committed with a delay in between was seen as both; what it is is looked at again when written
        found.sort_unstable();
        found.into()
    }

    fn open_message<'a>(&self, place: &Place, record: &'a [u8]) -> Result<MessageRecord<'a>, StorageError> {
        let damaged = |reason: &str| corrupt_log(place.location, reason);
        let header = RecordHeader::parse(record).map_err(|e| damaged(&e.to_string()))?;
        let payload = record.get(RECORD_HEADER_BYTES..).unwrap_or_default();
        if header.length as usize != payload.len() || !header.holds(self.encoder.seed, payload) {
            return Err(damaged("the checksum of an open message does not hold"));
        }
        let kind = header
            .known_kind()
            .map_err(|source| StorageError::Format { position: place.location, source })?;
        MessageRecord::decode(place.location, kind, header.flags, payload)
            .ok_or_else(|| damaged("not a message"))
    }

    /// Writes those of them that are still open. `None` when there is no room.
    #[expect(clippy::type_complexity, reason = "bytes, and where each message that was moved is now")]
    fn append_carried<'a, 'b>(
        &self,
        now: Timestamp,
        ready: &'a [Ready<'b>],
        arena: &[u8],
    ) -> Result<Option<(u64, Vec<(u64, &'a Ready<'b>)>)>, StorageError> {
        let mut moved = Vec::with_capacity(ready.len());
        let (end, written) = {
            let mut appender = self.appender();
            let Appender { writer, ledger, .. } = &mut *appender;
            let bytes = arena.len() + ready.len() * RECORD_HEADER_BYTES;
            match writer.begin(now, bytes, Class::Essential) {
                Ok(()) => {}
                Err(StorageError::Busy { .. }) => return Ok(None),
                Err(e) => return Err(e),
            }
            for ready in ready {
                if ledger.can_carry(&ready.record) {
                    let payload = arena.get(ready.payload.clone()).unwrap_or_default();
                    let position = writer.push(&ready.head, &[payload]);
                    apply(ledger, position, writer.frame_time(), ready);
                    moved.push((position, ready));
                }
            }
            let frame = match writer.commit() {
                Ok(frame) => frame,
                Err(e) => {
                    // the ledger knows places that the log may not have
                    self.log.fence(e.to_string());
                    drop(appender);
                    self.report_if_fenced();
                    return Err(e);
                }
            };
            let end = writer.position();
            self.appended.store(end, Ordering::Release);
            (end, frame.end - frame.start)
        };
        if self.options.ack == AckLevel::Memory {
            self.announce(self.publish(end)?);
        }
        self.log.writeback();
        self.segments_wanted.raise();
        Ok(Some((written, moved)))
    }
}

fn apply(ledger: &mut Ledger, position: u64, time: Timestamp, ready: &Ready<'_>) {
    let size = u32::try_from(RECORD_HEADER_BYTES + ready.payload.len()).unwrap_or(u32::MAX);
    ledger.carried(At { position, size, time_ms: time.as_ms() }, &ready.record);
}

fn carried_of<'a>(place: &Place, message: &MessageRecord<'a>) -> Carried<'a> {
    let (joins, delay_ms) = match message.prefix {
        MessagePrefix::Prepared { joins, delay_ms } => (joins, delay_ms),
        MessagePrefix::Visible | MessagePrefix::Due { .. } => (None, None),
    };
    let timing = match (place.due_ms, delay_ms) {
        (Some(due_ms), _) => CarriedTiming::Due { due_ms },
        (None, Some(delay_ms)) => CarriedTiming::DelayedDecision { delay_ms },
        (None, None) => CarriedTiming::Decision,
    };
    let joined =
        joins.is_some() || message.transaction.is_some_and(|origin| origin != message.first_position);
    Carried {
        origin: message.first_position,
        old_location: place.location,
        timing,
        transaction_origin: message.transaction.unwrap_or(NO_TRANSACTION),
        joined,
        message: message.message,
    }
}
