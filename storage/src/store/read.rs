//! Reads of what is published. Nothing here takes the append lock but look-ups of open transactions.

use bytes::Bytes;
use mezzo_protocol::ids::{PhysicalOffset, QueueOffset};
use mezzo_protocol::message::record::MessageView;
use mezzo_protocol::time::Timestamp;

use super::Store;
use crate::error::StorageError;
use crate::format::queue_entry::QueueEntry;
use crate::format::record::{
    Carried, MessagePayload, MessagePrefix, NO_TRANSACTION, Outcome, RECORD_HEADER_BYTES, RecordHeader,
    RecordKind,
};
use crate::state::queues::EntriesRead;
use crate::state::topics::Queue;

/// Most entries one read passes over; a filter that matches little gives its caller a turn after this many.
pub(super) const SCAN_ENTRIES_MAX: usize = 16_000;

/// A message's bytes as they are stored: position-independent, to be patched for delivery.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// One message in RocketMQ's encoding.
    pub bytes: Bytes,
    /// Where its record stands: the physical offset that clients see.
    pub position: PhysicalOffset,
    /// It was a half message: the origin of its transaction.
    pub origin: Option<PhysicalOffset>,
}

/// A record that holds a message, whichever kind it is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageRecord<'a> {
    /// When the message becomes visible.
    pub(super) prefix: MessagePrefix,
    /// Where it was first written: its identity.
    pub(super) first_position: u64,
    /// Origin of its transaction.
    pub(super) transaction: Option<u64>,
    pub(super) message: &'a [u8],
}

impl<'a> MessageRecord<'a> {
    /// Of the record at `position`; `None` for one of another kind, or whose payload does not hold together.
    pub(super) fn decode(position: u64, kind: RecordKind, flags: u16, payload: &'a [u8]) -> Option<Self> {
        if kind == RecordKind::Carried {
            let carried = Carried::decode(flags, payload).ok()?;
            let transaction = Some(carried.transaction_origin).filter(|origin| *origin != NO_TRANSACTION);
            let first_position = carried.origin;
            let prefix = carried.prefix();
            return Some(Self { prefix, first_position, transaction, message: carried.message });
        }
        let decoded = MessagePayload::decode(kind, flags, payload).ok()?;
        let transaction = match decoded.prefix {
            MessagePrefix::Prepared { joins, .. } => Some(joins.unwrap_or(position)),
            MessagePrefix::Visible | MessagePrefix::Due { .. } => None,
        };
        let (prefix, message) = (decoded.prefix, decoded.message);
        Some(Self { prefix, first_position: position, transaction, message })
    }
}

/// A visible message found by its position.
#[derive(Debug, Clone)]
pub struct PositionRead {
    /// The message.
    pub message: StoredMessage,
    /// Its place in its queue, if that could be found.
    pub queue_offset: Option<QueueOffset>,
    /// When it became visible, if that could be found.
    pub visible_at: Option<Timestamp>,
}

impl Store {
    /// Up to `count` published entries from `from` on that `keep` wants. `next_offset` of the answer says where to go
    /// on, also when nothing was wanted.
    ///
    /// # Errors
    /// When a page of the consume queue cannot be read.
    pub fn read_entries(
        &self,
        queue: &Queue,
        from: QueueOffset,
        count: usize,
        keep: &mut dyn FnMut(&QueueEntry) -> bool,
    ) -> Result<EntriesRead, StorageError> {
        loop {
            let plan = queue.log().plan(from.0, SCAN_ENTRIES_MAX);
            let read = plan.run(&self.view.pages, count, SCAN_ENTRIES_MAX, keep);
            // a page that was dropped since may be another queue's by now: that is no damage
            if read.is_ok() || queue.log().still_holds(&plan) {
                return read.inspect_err(|error| self.damage.note_read(error));
            }
        }
    }

    /// Whether the entry's message is read from memory; if not, read it on a thread that may block.
    #[must_use]
    pub fn is_hot(&self, entry: &QueueEntry) -> bool {
        self.log.is_hot(entry.position)
    }

    /// The message an entry points at.
    ///
    /// # Errors
    /// [`StorageError::Gone`] when retention has deleted it, [`StorageError::Corrupt`] when its bytes do not hold.
    pub fn read_message(&self, entry: &QueueEntry) -> Result<StoredMessage, StorageError> {
        self.stored_message(entry).inspect_err(|error| self.damage.note_read(error))
    }

    fn stored_message(&self, entry: &QueueEntry) -> Result<StoredMessage, StorageError> {
        let bytes = self.log.read(entry.position, entry.size as usize)?;
        let damaged = |reason: &str| self.log.damaged(entry.position, reason);
        let header = RecordHeader::parse(&bytes).map_err(|e| damaged(&e.to_string()))?;
        let payload = bytes.slice(RECORD_HEADER_BYTES..);
        if header.length as usize != payload.len() || !header.holds(self.encoder.seed, &payload) {
            return Err(damaged("a message's checksum does not hold"));
        }
        self.message_of(entry.position, &header, payload)?.ok_or_else(|| damaged("not a message"))
    }

    fn message_of(
        &self,
        position: u64,
        header: &RecordHeader,
        payload: Bytes,
    ) -> Result<Option<StoredMessage>, StorageError> {
        let bad = |source| StorageError::Format { position, source };
        let kind = header.known_kind().map_err(bad)?;
        let Some(decoded) = MessageRecord::decode(position, kind, header.flags, &payload) else {
            return Ok(None);
        };
        let origin = decoded.transaction.map(PhysicalOffset);
        let skip = payload.len() - decoded.message.len();
        Ok(Some(StoredMessage { bytes: payload.slice(skip..), position: PhysicalOffset(position), origin }))
    }

    /// The message whose record starts at `position`, a raw number from the network: only if a record does start
    /// there, and its message is visible. Reads the disk; call it where that may block.
    ///
    /// # Errors
    /// [`StorageError::NotARecord`] for anything that is not a visible message, [`StorageError::Gone`] for what
    /// retention deleted.
    pub fn read_by_position(&self, position: PhysicalOffset) -> Result<PositionRead, StorageError> {
        let at = position.0;
        let hidden = || StorageError::NotARecord { position: at };
        if position >= self.limit() {
            return Err(hidden());
        }
        let record = self.log.record(at)?;
        let payload = MessageRecord::decode(at, record.kind, record.flags, &record.payload);
        let payload = payload.ok_or_else(hidden)?;
        let skip = record.payload.len() - payload.message.len();
        let origin = payload.transaction.map(PhysicalOffset);
        let (queue_offset, visible_at) = match payload.prefix {
            MessagePrefix::Prepared { joins, .. } => {
                let transaction = joins.unwrap_or(payload.first_position);
                let row = self.history.find(transaction)?.filter(|r| r.outcome == Outcome::Committed);
                let row = row.ok_or_else(hidden)?;
                // the history knows the place of the first message
                match row.first_queue_offset.filter(|_| joins.is_none()) {
                    Some(offset) if self.is_published(payload.message, offset) => {
                        (Some(QueueOffset(offset)), Some(Timestamp::from_ms(row.decided_at_ms)))
                    }
                    Some(_) => return Err(hidden()),
                    // one that joined, or one committed with a delay: found by its entry
                    None => self.place_of(payload.message, at, row.decided_at_ms)?,
                }
            }
            MessagePrefix::Due { due_ms } => {
                if self.appender().ledger.due.get(due_ms, payload.first_position).is_some() {
                    return Err(hidden());
                }
                self.place_of(payload.message, at, due_ms)?
            }
            MessagePrefix::Visible => {
                let time_ms = self.log.frame_time_at(at)?;
                self.place_of(payload.message, at, time_ms)?
            }
        };
        // its effect may still wait for the limit
        if visible_at.is_none() && queue_offset.is_none() {
            return Err(hidden());
        }
        let bytes = record.payload.slice(skip..);
        let message = StoredMessage { bytes, position, origin };
        Ok(PositionRead { message, queue_offset, visible_at })
    }

    /// Whether the limit has passed the decision that gave a message this offset.
    fn is_published(&self, message: &[u8], offset: u64) -> bool {
        let view = MessageView::parse(message).ok();
        let queue = view.and_then(|v| self.topic(v.topic())?.queue(v.queue_id()));
        queue.is_some_and(|q| q.max_offset().0 > offset)
    }

    /// Looks for the entry that points at `position` among those that became visible at `from_ms` or later.
    pub(super) fn place_of(
        &self,
        message: &[u8],
        position: u64,
        from_ms: u64,
    ) -> Result<(Option<QueueOffset>, Option<Timestamp>), StorageError> {
        let Ok(view) = MessageView::parse(message) else { return Ok((None, None)) };
        let Some(queue) = self.topic(view.topic()).and_then(|t| t.queue(view.queue_id())) else {
            return Ok((None, None));
        };
        let mut from = QueueOffset(self.search_queue(&queue, from_ms)?);
        while from < queue.max_offset() {
            let read = self.read_entries(&queue, from, 1, &mut |e| e.position == position)?;
            if let Some((offset, entry)) = read.entries.first() {
                return Ok((Some(QueueOffset(*offset)), Some(Timestamp::from_ms(entry.visible_at_ms))));
            }
            if read.next_offset <= from.0 {
                break;
            }
            from = QueueOffset(read.next_offset);
        }
        Ok((None, None))
    }

    /// First offset whose message became visible at or after `at`; the end when none did.
    ///
    /// # Errors
    /// When a page of the consume queue cannot be read.
    pub fn search_by_time(&self, queue: &Queue, at: Timestamp) -> Result<QueueOffset, StorageError> {
        Ok(QueueOffset(self.search_queue(queue, at.as_ms())?))
    }

    /// As [`Store::search_by_time`].
    fn search_queue(&self, queue: &Queue, at_ms: u64) -> Result<u64, StorageError> {
        loop {
            let plan = queue.log().plan_search(at_ms);
            let found = plan.run(&self.view.pages);
            // as in `read_entries`
            if found.is_ok() || queue.log().still_holds_search(&plan) {
                return found.inspect_err(|error| self.damage.note_read(error));
            }
        }
    }
}
