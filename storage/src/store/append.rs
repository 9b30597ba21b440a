//! The append path: everything in a batch is admitted and applied under one lock and written with one `pwrite` per
//! frame. What the caller may tell its client once the limit reaches the returned position is in the batch's results.

use std::sync::atomic::Ordering;

use mezzo_protocol::ids::PhysicalOffset;
use mezzo_protocol::time::Timestamp;

use super::background::SPARE_SEGMENTS;
use super::{Appender, Store, lock};
use crate::batch::{Batch, EndTransaction, Operation, OperationResult, Refusal};
use crate::error::StorageError;
use crate::format::frame::FRAME_HEADER_BYTES;
use crate::log::Class;
use crate::options::AckLevel;
use crate::state::admit::{Admission, Sink, bytes_max, repeated};

/// At acknowledgement `memory`: published messages that may wait for a sync; an append beyond leads one itself. The
/// jump of queue offsets after an unclean stop rests on this bound.
pub(super) const UNSYNCED_MESSAGES_MAX: u64 = 1 << 20;

/// Most offsets of one record.
const OFFSETS_PER_RECORD: usize = 4096;

impl Store {
    /// Appends a batch. Before anything in its results is told to a client, wait until [`Store::limit`] has reached
    /// the returned position (at acknowledgement `memory` it has).
    ///
    /// # Errors
    /// [`StorageError::Fenced`] when writing has failed, now or before; [`StorageError::TooLarge`] for an operation
    /// that no frame can hold. Operations that are refused one by one are in the results instead.
    pub fn append(&self, now: Timestamp, batch: &mut Batch) -> Result<PhysicalOffset, StorageError> {
        batch.results.clear();
        if batch.operations.is_empty() {
            return Ok(self.limit());
        }
        let mut asks_history = Vec::new();
        let end = {
            let mut appender = lock(&self.appender);
            let written = self.write_frames(now, batch, &mut appender, &mut asks_history);
            let end = match written {
                Ok(()) => appender.writer.position(),
                Err(e) => {
                    drop(appender);
                    self.report_if_fenced();
                    return Err(e);
                }
            };
            lock(&self.pending).0.append(&mut appender.outgoing.0);
            self.appended.store(end, Ordering::Release);
            end
        };
        for index in asks_history {
            let (Some(Operation::End(end)), Some(result)) =
                (batch.operations.get(index), batch.results.get_mut(index))
            else {
                continue;
            };
            *result = self.answer_from_history(end)?;
        }
        if self.options.ack == AckLevel::Memory {
            self.publish(end)?;
            if self.unsynced_messages.load(Ordering::Relaxed) >= UNSYNCED_MESSAGES_MAX {
                self.sync()?;
            }
        }
        self.log.writeback();
        if self.log.spare_segments() < SPARE_SEGMENTS {
            self.segments_wanted.raise();
        }
        Ok(PhysicalOffset(end))
    }

    fn write_frames(
        &self,
        now: Timestamp,
        batch: &mut Batch,
        appender: &mut Appender,
        asks_history: &mut Vec<usize>,
    ) -> Result<(), StorageError> {
        let frame_max = self.options.frame_bytes_max as usize - FRAME_HEADER_BYTES;
        let mut start = 0;
        while start < batch.operations.len() {
            let mut bytes = 0;
            let rest = batch.operations.iter().skip(start);
            let fitting = rest.take_while(|operation| {
                bytes += bytes_max(operation);
                bytes <= frame_max
            });
            // an operation that is too large alone is tried alone, and refused by the writer
            let count = fitting.count().max(1);
            self.write_frame(now, batch, start..start + count, appender, asks_history)?;
            start += count;
        }
        Ok(())
    }

    /// Writes one frame, or two when only the reserve segment is left: then new messages are refused, and what has to
    /// go on (decisions, asks, offsets, ticks) is written alone.
    fn write_frame(
        &self,
        now: Timestamp,
        batch: &mut Batch,
        range: std::ops::Range<usize>,
        appender: &mut Appender,
        asks_history: &mut Vec<usize>,
    ) -> Result<(), StorageError> {
        let operations = batch.operations.get(range.clone()).unwrap_or_default();
        let all_essential = operations.iter().all(Operation::is_essential);
        let bytes = |essential_only: bool| -> usize {
            operations.iter().filter(|o| !essential_only || o.is_essential()).map(bytes_max).sum()
        };
        let class = if all_essential { Class::Essential } else { Class::Message };
        let room = match appender.writer.begin(now, bytes(false), class) {
            Ok(()) => true,
            Err(StorageError::Busy { .. }) if !all_essential => {
                match appender.writer.begin(now, bytes(true), Class::Essential) {
                    Ok(()) => {}
                    Err(StorageError::Busy { .. }) => {
                        batch.results.extend(operations.iter().map(|_| no_room()));
                        return Ok(());
                    }
                    Err(e) => return Err(e),
                }
                false
            }
            Err(StorageError::Busy { .. }) => {
                batch.results.extend(operations.iter().map(|_| no_room()));
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let Appender { writer, ledger, outgoing, scratch } = appender;
        let mut sink = Sink { writer, seed: self.encoder.seed, scratch };
        for (i, operation) in operations.iter().enumerate() {
            if !room && !operation.is_essential() {
                batch.results.push(no_room());
                continue;
            }
            let admission =
                ledger.admit(operation, &batch.arena, self.options.open_messages_max, &mut sink, outgoing);
            batch.results.push(match admission {
                Admission::Result(result) => result,
                Admission::AskHistory => {
                    asks_history.push(range.start + i);
                    OperationResult::Refused(Refusal::Unknown)
                }
            });
        }
        appender.writer.commit()?;
        Ok(())
    }

    fn answer_from_history(&self, end: &EndTransaction) -> Result<OperationResult, StorageError> {
        let origin = end.origin.0;
        if let Some(row) = self.history.find(origin)? {
            return Ok(repeated(&row, end));
        }
        let expired = origin < self.history.complete_from(self.log.first_position());
        Ok(OperationResult::Refused(if expired { Refusal::Expired } else { Refusal::Unknown }))
    }

    /// Logs the offsets reported since the last call, one record per group.
    ///
    /// # Errors
    /// As [`Store::append`]. Nothing is lost: offsets that could not be logged are logged next time.
    pub fn flush_offsets(&self, now: Timestamp) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        let changed = self.offsets.take_changed();
        for (group, offsets) in &changed {
            let all: Vec<_> = offsets.iter().map(|((t, q), o)| (t.clone(), *q, *o)).collect();
            for entries in all.chunks(OFFSETS_PER_RECORD) {
                batch.push(Operation::Offsets { group: group.clone(), entries: entries.to_vec() });
            }
        }
        let appended = self.append(now, &mut batch).map(|_| ());
        let refused = batch.results().iter().any(|r| matches!(r, OperationResult::Refused(_)));
        if appended.is_err() || refused {
            changed.into_iter().for_each(|(group, _)| self.offsets.put_back(group));
        }
        appended
    }
}

fn no_room() -> OperationResult {
    OperationResult::Refused(Refusal::NoRoom)
}
