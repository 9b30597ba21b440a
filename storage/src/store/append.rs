//! The append path: everything in a batch is admitted and applied under one lock and written with one `pwrite` per
//! frame. What the caller may tell its client once the limit reaches the returned position is in the batch's results.

use mezzo_protocol::ids::PhysicalOffset;
use mezzo_protocol::time::Timestamp;

use super::background::SPARE_SEGMENTS;
use super::counts::Counts;
use super::sync::Published;
use super::{Appender, Store, lock};
use crate::batch::{Batch, Operation};
use crate::concurrency::atomic::Ordering;
use crate::end::{EndTarget, EndTransaction};
use crate::error::StorageError;
use crate::format::frame::FRAME_HEADER_BYTES;
use crate::format::history_row::{group_hash, key_hash};
use crate::format::record::Outcome;
use crate::log::Class;
use crate::options::AckLevel;
use crate::results::{OperationResult, Refusal};
use crate::state::admit::{Admission, Bounds, Sink, bytes_max, repeated};
use crate::state::topics::TopicConfig;

/// At acknowledgement `memory`: published messages that may wait for a sync; an append beyond leads one itself. The
/// jump of queue offsets after an unclean stop rests on this bound.
pub(crate) const UNSYNCED_MESSAGES_MAX: u64 = 1 << 20;

/// A frame of offsets is ended when it has grown to this; at a quarter of the largest frame if that is less.
const OFFSETS_PER_FRAME_BYTES: usize = 64 << 10;
/// Bytes of one entry beyond the topic's name.
const OFFSET_ENTRY_BYTES: usize = 14;

impl Store {
    /// Appends a batch. `now`, like every time in the batch, is that of the caller's wall clock. Before anything in its results is told to a client, wait until [`Store::limit`] has reached
    /// the returned position (at acknowledgement `memory` it has).
    ///
    /// # Errors
    /// [`StorageError::Fenced`] when writing has failed, now or before. [`StorageError::TooLarge`] and
    /// [`StorageError::TooManyQueues`] for an operation that no frame can hold or no restart would accept; nothing of
    /// the batch is written then. Operations that are refused one by one are in the results instead.
    pub fn append(&self, now: Timestamp, batch: &mut Batch) -> Result<PhysicalOffset, StorageError> {
        batch.results.clear();
        if batch.operations.is_empty() {
            return Ok(self.limit());
        }
        self.check_sizes(batch)?;
        let mut asks_history: Vec<AsksHistory> = Vec::new();
        let wall = now;
        let mut published = Published::default();
        let mut end = {
            let mut appender = self.appender();
            let now = appender.leader_time(now);
            self.leader_ms.store(now.as_ms(), Ordering::Relaxed);
            if let Err(e) = self.write_frames(now, batch, &mut appender, &mut asks_history) {
                // what was admitted may be in the ledger and not in the log: from here on only a restart knows
                self.log.fence(e.to_string());
                drop(appender);
                self.report_if_fenced();
                return Err(e);
            }
            let end = appender.writer.position();
            lock(&self.pending).0.append(&mut appender.outgoing.0);
            self.appended.store(end, Ordering::Release);
            if self.options.ack == AckLevel::Memory && batch.operations.iter().any(makes_queues) {
                // under the lock, so that no other append shows it before
                published = self.sync_unannounced()?;
            }
            end
        };
        self.announce(published);
        if self.options.ack == AckLevel::Memory {
            self.announce(self.publish(end)?);
            if self.unsynced_messages.load(Ordering::Relaxed) >= UNSYNCED_MESSAGES_MAX {
                self.sync()?;
            }
        }
        self.log.writeback();
        if self.log.spare_segments() < SPARE_SEGMENTS {
            self.segments_wanted.raise();
        }
        let mut unheard_of = Vec::new();
        for AsksHistory { index, open } in asks_history {
            let (Some(operation), Some(result)) = (batch.operations.get(index), batch.results.get_mut(index))
            else {
                continue;
            };
            let (Operation::End(end) | Operation::EndUnheardOf(end)) = operation else { continue };
            *result = match open {
                Some(origin) => self.answer_about_open(end, origin),
                None => self.answer_from_history(end),
            };
            self.appender().counts.count(operation, result, false);
            let unknown = *result == OperationResult::Refused(Refusal::UnknownOrExpired);
            let is_first = matches!(operation, Operation::End(_));
            if unknown && is_first && (open.is_some() || moves_only_offsets(end)) {
                // the one that was open then, and no other
                let table_offset = end.table_offset.or(open);
                unheard_of.push((index, EndTransaction { table_offset, ..end.clone() }));
            }
        }
        for (index, ending) in unheard_of {
            let mut later = Batch::default();
            later.push(Operation::EndUnheardOf(ending));
            end = end.max(self.append(wall, &mut later)?.0);
            if let (Some(place), Some(result)) = (batch.results.get_mut(index), later.results.pop()) {
                *place = result;
            }
        }
        Ok(PhysicalOffset(end))
    }

    /// Refuses what could only be found out in the middle of a batch, when a part of it is written already.
    fn check_sizes(&self, batch: &Batch) -> Result<(), StorageError> {
        let max = self.options.frame_bytes_max as usize - FRAME_HEADER_BYTES;
        for operation in &batch.operations {
            let got = bytes_max(operation);
            if got > max {
                return Err(StorageError::TooLarge { got, max });
            }
            if let Operation::PutTopic(config) = operation
                && config.queue_count() > TopicConfig::QUEUES_MAX
            {
                let (got, max) = (config.queue_count(), TopicConfig::QUEUES_MAX);
                return Err(StorageError::TooManyQueues { got, max });
            }
        }
        Ok(())
    }

    fn write_frames(
        &self,
        now: Timestamp,
        batch: &mut Batch,
        appender: &mut Appender,
        asks_history: &mut Vec<AsksHistory>,
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
            // each fits alone, or the batch would have been refused
            let end = batch.frame_end(start, start + fitting.count().max(1));
            self.write_frame(now, batch, start..end, appender, asks_history)?;
            start = end;
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
        asks_history: &mut Vec<AsksHistory>,
    ) -> Result<(), StorageError> {
        let operations = batch.operations.get(range.clone()).unwrap_or_default();
        let all_essential = operations.iter().all(Operation::is_essential);
        let bytes = |essential_only: bool| -> usize {
            operations.iter().filter(|o| !essential_only || o.is_essential()).map(bytes_max).sum()
        };
        let class = if all_essential { Class::Essential } else { Class::Message };
        let begun = if self.view.pages.is_crowded() && !all_essential {
            Err(StorageError::Busy { reason: "no room for pages of consume queues" })
        } else if !all_essential && self.log.is_over_bound() {
            Err(StorageError::Busy { reason: "store.max_bytes is reached" })
        } else {
            appender.writer.begin(now, bytes(false), class)
        };
        let room = match begun {
            Ok(()) => true,
            Err(StorageError::Busy { .. }) if !all_essential => {
                match appender.writer.begin(now, bytes(true), Class::Essential) {
                    Ok(()) => {}
                    Err(StorageError::Busy { .. }) => {
                        self.refuse_all(operations, &mut batch.results, &mut appender.counts);
                        return Ok(());
                    }
                    Err(e) => return Err(e),
                }
                false
            }
            Err(StorageError::Busy { .. }) => {
                self.refuse_all(operations, &mut batch.results, &mut appender.counts);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let Appender { writer, ledger, outgoing, scratch, clock, counts } = appender;
        let mut sink = Sink { writer, seed: self.encoder.seed, scratch, clock };
        let bounds = Bounds {
            open_messages: self.options.open_messages_max,
            open_bytes: self.options.open_bytes_max(),
            transaction_messages: self.options.transaction_messages_max,
            transaction_bytes: self.options.transaction_bytes_max,
        };
        for (i, operation) in operations.iter().enumerate() {
            if !room && !operation.is_essential() {
                self.refuse_all(std::slice::from_ref(operation), &mut batch.results, counts);
                continue;
            }
            let before = sink.writer.next_position();
            let admission = ledger.admit(operation, &batch.arena, bounds, &mut sink, outgoing);
            batch.results.push(match admission {
                Admission::Result(result) => {
                    counts.count(operation, &result, sink.writer.next_position() > before);
                    result
                }
                Admission::AskHistory { open } => {
                    asks_history.push(AsksHistory { index: range.start + i, open });
                    OperationResult::Refused(Refusal::Unknown)
                }
            });
        }
        appender.writer.commit()?;
        Ok(())
    }

    /// END by unique key alone found one transaction open, at `origin`. If the history knows another one of that key, it
    /// cannot be told which is meant: a late END must not hit what its producer does not know of.
    /// [`Refusal::UnknownOrExpired`]: it knows none, so the open one is to be decided.
    fn answer_about_open(&self, end: &EndTransaction, origin: u64) -> OperationResult {
        let EndTarget::Id { group, id } = &end.target else {
            return OperationResult::Refused(Refusal::Unknown);
        };
        match self.history.find_by_key(group_hash(group), key_hash(id)) {
            // by another END since
            Ok(Some(row)) if row.origin == origin => repeated(&row, end),
            Ok(Some(_)) => OperationResult::Refused(Refusal::Ambiguous),
            Ok(None) => OperationResult::Refused(Refusal::UnknownOrExpired),
            Err(error) => {
                tracing::warn!(%error, target = ?end.target, "the history of decisions cannot be read");
                OperationResult::Refused(Refusal::HistoryUnreadable)
            }
        }
    }

    /// There is no room for these.
    fn refuse_all(&self, operations: &[Operation], results: &mut Vec<OperationResult>, counts: &mut Counts) {
        for operation in operations {
            let refused = self.no_room();
            counts.count(operation, &refused, false);
            results.push(refused);
        }
    }

    /// Why there is no room for new messages: the operator's bound, or the disk.
    fn no_room(&self) -> OperationResult {
        let at_bound = self.log.is_at_bound() && !self.log.is_disk_full();
        OperationResult::Refused(if at_bound { Refusal::AtMaxBytes } else { Refusal::NoRoom })
    }

    /// The rest of the batch is written by now, so what the disk refuses here concerns this END alone. The answer is
    /// then "try again", never that nothing is known.
    fn answer_from_history(&self, end: &EndTransaction) -> OperationResult {
        let (found, unknown) = match &end.target {
            EndTarget::Origin(origin) => {
                let expired = origin.0 < self.history.complete_from(self.log.first_position());
                (self.history.find(origin.0), if expired { Refusal::Expired } else { Refusal::Unknown })
            }
            EndTarget::Id { group, id } => {
                (self.history.find_by_key(group_hash(group), key_hash(id)), Refusal::UnknownOrExpired)
            }
        };
        match found {
            Ok(Some(row)) => repeated(&row, end),
            Ok(None) if has_nothing(end) => OperationResult::NothingToDecide,
            Ok(None) => OperationResult::Refused(unknown),
            Err(error) => {
                tracing::warn!(%error, target = ?end.target, "the history of decisions cannot be read");
                OperationResult::Refused(Refusal::HistoryUnreadable)
            }
        }
    }

    /// Logs the offsets reported since the last call. Many groups share a frame, but the append lock is held for one
    /// frame of about [`OFFSETS_PER_FRAME_BYTES`] at a time.
    ///
    /// # Errors
    /// As [`Store::append`]. Nothing is lost: offsets that could not be logged are logged next time.
    pub fn flush_offsets(&self, now: Timestamp) -> Result<(), StorageError> {
        let frame_max = OFFSETS_PER_FRAME_BYTES.min(self.options.frame_bytes_max as usize / 4);
        let mut batch = Batch::default();
        let mut bytes = 0;
        let mut flushed = Ok(());
        for (group, offsets) in self.offsets.take_changed() {
            let mut entries = Vec::new();
            for ((topic, queue), offset) in offsets {
                bytes += topic.as_str().len() + OFFSET_ENTRY_BYTES;
                entries.push((topic, queue, offset));
                if bytes >= frame_max {
                    let entries = std::mem::take(&mut entries);
                    batch.push(Operation::Offsets { group: group.clone(), entries });
                    flushed = flushed.and(self.log_offsets(now, &mut batch));
                    bytes = 0;
                }
            }
            if !entries.is_empty() {
                bytes += group.as_str().len();
                batch.push(Operation::Offsets { group, entries });
            }
        }
        flushed.and(self.log_offsets(now, &mut batch))
    }

    fn log_offsets(&self, now: Timestamp, batch: &mut Batch) -> Result<(), StorageError> {
        let appended = self.append(now, batch).map(|_| ());
        if appended.is_err() || batch.results.iter().any(|r| matches!(r, OperationResult::Refused(_))) {
            for operation in &batch.operations {
                if let Operation::Offsets { group, .. } = operation {
                    self.offsets.put_back(group.clone());
                }
            }
        }
        batch.clear();
        appended
    }
}

/// Whether it may make queues. Were one taken back by a power cut and made again, it would give the offsets of lost
/// messages to other ones, and no jump could tell: consumers that have seen the lost ones would pass over these. So a
/// topic is on the disk before anybody sees it, also at acknowledgement `memory`.
fn makes_queues(operation: &Operation) -> bool {
    matches!(operation, Operation::PutTopic(_))
}

/// An END that the history has to be asked about.
struct AsksHistory {
    /// Its place in the batch.
    index: usize,
    /// The open transaction that it means, if the history knows no other one of that key.
    open: Option<u64>,
}

/// Whether it ends, by id, a transaction of which its producer says that it has no messages.
fn is_empty(end: &EndTransaction) -> bool {
    matches!(end.target, EndTarget::Id { .. }) && end.count == Some(0)
}

fn moves_only_offsets(end: &EndTransaction) -> bool {
    is_empty(end) && end.outcome == Outcome::Committed && end.offsets.is_some()
}

fn has_nothing(end: &EndTransaction) -> bool {
    is_empty(end) && !moves_only_offsets(end)
}
