//! Repeats of sends, as far as the log knows: whether a first send is what its key says, with which ids it was answered,
//! and which sends a restart still knows.

use std::sync::Arc;

use mezzo_protocol::ids::{PhysicalOffset, QueueId};
use mezzo_protocol::message::record::MessageView;
use mezzo_protocol::time::Timestamp;

use super::Store;
use super::read::MessageRecord;
use crate::concurrency::atomic::Ordering;
use crate::error::StorageError;
use crate::format::frame::Frame;
use crate::format::record::{MessagePrefix, RecordKind};
use crate::results::OperationResult;
use crate::state::dedup::{DedupRule, FirstSends, SendFacts, SendKey};

/// Most bytes of the newest log that a start reads to know sends again.
const REBUILD_BYTES_MAX: u64 = 1 << 30;

/// What a repeat is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstAnswer {
    /// The queue that the first one went to.
    pub queue: QueueId,
    /// The result that it had.
    pub result: OperationResult,
}

impl Store {
    /// The sends that repeats are told by.
    #[must_use]
    pub fn first_sends(&self) -> &Arc<FirstSends> {
        &self.first_sends
    }

    /// End of what is appended, within the limit or not.
    #[must_use]
    pub fn end(&self) -> PhysicalOffset {
        PhysicalOffset(self.appended.load(Ordering::Acquire))
    }

    /// Whether a read at `position` does not wait for the disk, as far as that can be known.
    #[must_use]
    pub fn is_hot_at(&self, position: PhysicalOffset) -> bool {
        self.log.is_hot(position.0)
    }

    /// What the send at `position` was answered with, if its record is there, within the limit, and has `key` under the
    /// `rule` of its topic. May read the disk.
    ///
    /// # Errors
    /// When the log or a page of a consume queue cannot be read. What retention deleted is no error: `None`.
    pub fn first_answer(
        &self,
        position: PhysicalOffset,
        key: SendKey,
        rule: DedupRule,
    ) -> Result<Option<FirstAnswer>, StorageError> {
        if position >= self.limit() {
            return Ok(None);
        }
        let record = match self.log.record(position.0) {
            Ok(record) => record,
            Err(StorageError::Gone { .. } | StorageError::NotARecord { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let payload = MessageRecord::decode(position.0, record.kind, record.flags, &record.payload);
        let Some(payload) = payload else { return Ok(None) };
        let Ok(view) = MessageView::parse(payload.message) else { return Ok(None) };
        let half = payload.transaction.is_some();
        let facts = SendFacts::of(rule, view.topic(), half, view.properties(), view.body());
        if facts.map(|facts| self.first_sends.key(&facts)) != Some(key) {
            return Ok(None);
        }
        let result = match payload.prefix {
            // one of many has no key: this is the transaction's only message, and its origin
            MessagePrefix::Prepared { .. } | MessagePrefix::Due { .. } => {
                let origin = PhysicalOffset(payload.first_position);
                if half {
                    OperationResult::Prepared { origin, position: origin }
                } else {
                    OperationResult::Scheduled { position: origin }
                }
            }
            MessagePrefix::Visible => {
                let time_ms = match self.log.frame_time_at(position.0) {
                    Ok(time_ms) => time_ms,
                    Err(StorageError::Gone { .. } | StorageError::NotARecord { .. }) => return Ok(None),
                    Err(error) => return Err(error),
                };
                let (queue_offset, _) = self.place_of(payload.message, position.0, time_ms)?;
                // its topic was deleted since
                let Some(queue_offset) = queue_offset else { return Ok(None) };
                OperationResult::Stored { queue_offset, position }
            }
        };
        Ok(Some(FirstAnswer { queue: view.queue_id(), result }))
    }

    /// Reads the newest part of the log for topics that ask for it, so that repeats of sends before this start are told:
    /// as far back as the window reaches, at most [`REBUILD_BYTES_MAX`].
    pub(super) fn restore_first_sends(&self, now: Timestamp) -> Result<(), StorageError> {
        let topics = self.topics();
        if topics.iter().all(|topic| topic.config().dedup() == DedupRule::Off) {
            return Ok(());
        }
        let end = self.log.appended();
        let since_ms = now.as_ms().saturating_sub(self.options.dedup_window_ms);
        let mut from = end;
        for segment in self.log.segments().iter().rev() {
            if end - segment.base > REBUILD_BYTES_MAX && from < end {
                break;
            }
            from = segment.base;
            let mut begun_ms = u64::MAX;
            let mut look = |frame: &Frame<'_>| {
                begun_ms = frame.header.time_ms;
                Ok(())
            };
            if segment.base < end {
                self.log.scan(segment.base, segment.base + 1, &mut look)?;
            }
            if begun_ms < since_ms {
                break;
            }
        }
        let mut known = 0_u64;
        self.log.scan(from, end, &mut |frame| {
            if frame.header.time_ms >= since_ms {
                for record in frame.records() {
                    known += u64::from(self.restore_one(
                        record.kind,
                        record.flags,
                        record.position,
                        frame.header.time_ms,
                        record.payload,
                    ));
                }
            }
            Ok(())
        })?;
        tracing::info!(sends = known, read_bytes = end - from, "sends that may be repeated are known again");
        Ok(())
    }

    /// The message of the record at `from` was carried to `to`.
    pub(super) fn move_first_send(&self, message: &MessageRecord<'_>, from: u64, to: u64) {
        let Ok(view) = MessageView::parse(message.message) else { return };
        let Some(topic) = self.topic(view.topic()) else { return };
        let half = message.transaction.is_some();
        let rule = topic.config().dedup();
        let facts = SendFacts::of(rule, view.topic(), half, view.properties(), view.body());
        if let Some(facts) = facts {
            self.first_sends.moved(self.first_sends.key(&facts), from, to);
        }
    }

    fn restore_one(&self, kind: RecordKind, flags: u16, position: u64, at_ms: u64, payload: &[u8]) -> bool {
        // carried on long after it was sent
        if kind == RecordKind::Carried {
            return false;
        }
        // a record that is no message, or one that the fold would have refused
        let Some(payload) = MessageRecord::decode(position, kind, flags, payload) else { return false };
        let Ok(view) = MessageView::parse(payload.message) else { return false };
        let Some(topic) = self.topic(view.topic()) else { return false };
        let half = payload.transaction.is_some();
        let rule = topic.config().dedup();
        let facts = SendFacts::of(rule, view.topic(), half, view.properties(), view.body());
        let Some(facts) = facts else { return false };
        self.first_sends.restore(self.first_sends.key(&facts), position, at_ms);
        true
    }
}
