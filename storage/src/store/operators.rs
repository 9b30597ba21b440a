//! What a person may want to know about transactions: which are open, and everything that is still known about one.
//! Nothing here is on the way of a message. Times are leader time, as they stand in the log.

use std::collections::BinaryHeap;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, TopicName};
use mezzo_protocol::time::Timestamp;

use super::{Store, StoredMessage};
use crate::error::StorageError;
use crate::format::history_row::{group_hash, key_hash};
use crate::format::record::{MessagePayload, MessagePrefix};
use crate::results::Decision;
use crate::state::transactions::history::decision_of;
use crate::state::transactions::{OpenState, OpenTransaction};

/// Rows looked at under one hold of the append lock, so that a list never keeps senders waiting for long.
const ROWS_PER_LOOK: usize = 4_096;

/// Which open transactions are wanted; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct OpenFilter {
    /// PREPARED or IN_DOUBT.
    pub state: Option<OpenState>,
    /// Of this producer group.
    pub group: Option<GroupName>,
    /// Whose message goes to this topic.
    pub topic: Option<TopicName>,
    /// [`crate::key_hash`] of the message's unique key.
    pub key_hash: Option<u64>,
    /// Prepared at least this many milliseconds ago.
    pub older_than_ms: Option<u64>,
}

/// An open transaction and where its message will appear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenDetails {
    /// Identity, state, group, time of the prepare, asks.
    pub transaction: OpenTransaction,
    /// The topic and queue its message is meant for; `None` if they are gone.
    pub queue: Option<(TopicName, QueueId)>,
    /// When the latest ask that counted was recorded; `None` before the first.
    pub asked_at: Option<Timestamp>,
}

/// Everything that is known about one transaction.
#[derive(Debug, Clone)]
pub struct TransactionRecord {
    /// Its row, while it is open.
    pub open: Option<OpenDetails>,
    /// How it ended, once it has.
    pub decision: Option<Decision>,
    /// Its message, as long as the log holds it.
    pub half: Option<StoredMessage>,
    /// When it was prepared, if its row or its message tells.
    pub prepared_at: Option<Timestamp>,
}

impl Store {
    /// Open transactions behind `after` that `filter` wants, in order of origin, at most `max`. Looks at every open
    /// transaction, some at a time: what is prepared or decided meanwhile may be missed.
    #[must_use]
    pub fn open_transactions_page(
        &self,
        filter: &OpenFilter,
        now: Timestamp,
        after: Option<PhysicalOffset>,
        max: usize,
    ) -> Vec<OpenDetails> {
        // the smallest origins so far, the largest of them on top
        let mut smallest: BinaryHeap<u64> = BinaryHeap::with_capacity(max.min(ROWS_PER_LOOK) + 1);
        let mut slot = 0;
        loop {
            let mut appender = self.appender();
            let now_ms = appender.leader_time(now).as_ms();
            let ledger = &appender.ledger;
            let Some(rows) = ledger.open.rows_from(slot, ROWS_PER_LOOK) else { break };
            for row in rows {
                let behind = after.is_none_or(|after| row.origin > after.0);
                let near = smallest.len() < max || smallest.peek().is_some_and(|top| row.origin < *top);
                let age_ms = now_ms.saturating_sub(row.prepared_at_ms);
                let group = || ledger.open.groups().name(row.group);
                let queue = || ledger.registry.get(row.queue);
                let wanted = behind
                    && near
                    && filter.state.is_none_or(|state| (state == OpenState::InDoubt) == row.in_doubt)
                    && filter.older_than_ms.is_none_or(|old| age_ms >= old)
                    && filter.key_hash.is_none_or(|hash| hash == row.key_hash)
                    && filter.group.as_ref().is_none_or(|wanted| group() == Some(wanted))
                    && filter.topic.as_ref().is_none_or(|topic| queue().is_some_and(|q| q.topic() == topic));
                if wanted {
                    smallest.push(row.origin);
                    if smallest.len() > max {
                        smallest.pop();
                    }
                }
            }
            slot += ROWS_PER_LOOK;
        }
        let origins = smallest.into_sorted_vec();
        origins.into_iter().filter_map(|origin| self.open_details(PhysicalOffset(origin))).collect()
    }

    /// The end of what is appended so far: once the limit has reached it, what was read before is durable.
    #[must_use]
    pub fn appended(&self) -> PhysicalOffset {
        PhysicalOffset(self.log.appended())
    }

    /// An open transaction with its place.
    #[must_use]
    pub fn open_details(&self, origin: PhysicalOffset) -> Option<OpenDetails> {
        let appender = self.appender();
        let ledger = &appender.ledger;
        let row = ledger.open.get(origin.0)?;
        Some(OpenDetails {
            transaction: ledger.open.describe(row)?,
            queue: ledger.registry.get(row.queue).map(|queue| (queue.topic().clone(), queue.id())),
            asked_at: (row.asks > 0).then(|| Timestamp::from_ms(row.touched_at_ms)),
        })
    }

    /// What is known about the transaction that was prepared at `origin`, a raw number from the network; `None` if
    /// nothing was prepared there, or nobody remembers it. Reads the disk; call it where that may block.
    ///
    /// # Errors
    /// When the history of decisions cannot be read.
    pub fn transaction_record(
        &self,
        origin: PhysicalOffset,
    ) -> Result<Option<TransactionRecord>, StorageError> {
        let open = self.open_details(origin);
        let decision = match open {
            Some(_) => None,
            // decided before it was looked for, or never there
            None => self.history.find(origin.0)?.as_ref().map(decision_of),
        };
        if open.is_none() && decision.is_none() {
            return Ok(None);
        }
        let half = match &open {
            // its bytes may have been carried forward
            Some(_) => self.half_message(origin).ok().flatten(),
            None => self.half_in_log(origin),
        };
        let prepared_at = match (&open, &half) {
            (Some(open), _) => Some(open.transaction.prepared_at),
            (None, Some(_)) => self.log.frame_time_at(origin.0).ok().map(Timestamp::from_ms),
            (None, None) => None,
        };
        Ok(Some(TransactionRecord { open, decision, half, prepared_at }))
    }

    /// The newest transaction of a producer group with this unique key that is decided, and how. Reads the disk; call it
    /// where that may block.
    ///
    /// # Errors
    /// When the history of decisions cannot be read.
    pub fn decided_by_key(
        &self,
        group: &str,
        unique_key: &str,
    ) -> Result<Option<(PhysicalOffset, Decision)>, StorageError> {
        let row = self.history.find_by_key(group_hash(group), key_hash(unique_key))?;
        Ok(row.map(|row| (PhysicalOffset(row.origin), decision_of(&row))))
    }

    /// The half message at the origin of a decided transaction; `None` once retention has deleted it.
    fn half_in_log(&self, origin: PhysicalOffset) -> Option<StoredMessage> {
        let record = self.log.record(origin.0).ok()?;
        let payload = MessagePayload::decode(record.kind, record.flags, &record.payload).ok()?;
        let MessagePrefix::Prepared { .. } = payload.prefix else { return None };
        let skip = record.payload.len() - payload.message.len();
        Some(StoredMessage { bytes: record.payload.slice(skip..), position: origin, origin: Some(origin) })
    }
}
