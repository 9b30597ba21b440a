//! Open transactions and delayed messages as the broker's drivers see them. Times that come and go here are those of
//! the caller's wall clock; inside, everything is leader time.

use mezzo_protocol::ids::{GroupName, PhysicalOffset};
use mezzo_protocol::time::Timestamp;

use super::{Store, StoredMessage};
use crate::concurrency::atomic::Ordering;
use crate::error::StorageError;
use crate::format::queue_entry::QueueEntry;
use crate::options::CheckPolicy;
use crate::state::transactions::{DueCheck, OpenState, OpenTransaction};

impl Store {
    /// Transactions whose time to be asked (or parked) has come, in due order, at most `max`. They are off the timer
    /// until [`Store::reschedule`]; what is not yet within the limit is left for the next call.
    #[must_use]
    pub fn due_checks(&self, now: Timestamp, max: usize) -> Vec<DueCheck> {
        let mut appender = self.appender();
        let now_ms = appender.leader_time(now).as_ms();
        self.leader_ms.store(now_ms, Ordering::Relaxed);
        let mut due = appender.ledger.open.due(now_ms, max);
        let limit = self.limit();
        due.retain(|check| {
            let settled = check.transaction.origin < limit;
            if !settled {
                appender.ledger.open.reschedule(check.transaction.origin.0, now_ms + 1);
            }
            settled
        });
        due
    }

    /// Asks again at `at`; nothing happens if it was decided meanwhile. IN_DOUBT ones may be scheduled too: they are
    /// asked once more when a producer of their group appears. `now` is what the caller's clock showed when it chose
    /// `at`: had that clock been set since the store saw it last, `at` would mean another leader time.
    pub fn reschedule(&self, origin: PhysicalOffset, now: Timestamp, at: Timestamp) {
        let mut appender = self.appender();
        appender.leader_time(now);
        let at = appender.clock.of_wall(at);
        appender.ledger.open.reschedule(origin.0, at.as_ms());
    }

    /// When [`Store::due_checks`] may have something, at the earliest.
    #[must_use]
    pub fn next_check_at(&self) -> Option<Timestamp> {
        let appender = self.appender();
        let at_ms = appender.ledger.open.next_check_ms()?;
        Some(appender.clock.to_wall(Timestamp::from_ms(at_ms)))
    }

    /// An open transaction.
    #[must_use]
    pub fn transaction(&self, origin: PhysicalOffset) -> Option<OpenTransaction> {
        let appender = self.appender();
        let table = &appender.ledger.open;
        table.get(origin.0).and_then(|row| table.describe(row))
    }

    /// Half and delayed messages that are not visible yet.
    #[must_use]
    pub fn open_messages(&self) -> usize {
        self.appender().ledger.open_messages()
    }

    /// Parked transactions of a producer group, at most `max`.
    #[must_use]
    pub fn in_doubt_of_group(&self, group: &str, max: usize) -> Vec<PhysicalOffset> {
        let appender = self.appender();
        appender.ledger.open.in_doubt_of(group).take(max).map(PhysicalOffset).collect()
    }

    /// How many transactions are IN_DOUBT.
    #[must_use]
    pub fn in_doubt(&self) -> usize {
        self.appender().ledger.open.in_doubt_len()
    }

    /// A producer group's own check-back policy.
    #[must_use]
    pub fn check_policy(&self, group: &GroupName) -> Option<CheckPolicy> {
        self.appender().ledger.open.policies().of_group(group)
    }

    /// State of one open transaction.
    #[must_use]
    pub fn open_state(&self, origin: PhysicalOffset) -> Option<OpenState> {
        self.transaction(origin).map(|t| t.state)
    }

    /// The half message of an open transaction, for a check-back. `None` if it is not open.
    ///
    /// # Errors
    /// When its bytes cannot be read.
    pub fn half_message(&self, origin: PhysicalOffset) -> Result<Option<StoredMessage>, StorageError> {
        let entry = {
            let appender = self.appender();
            appender.ledger.open.get(origin.0).map(|row| QueueEntry {
                position: row.location,
                size: row.size,
                tag_hash: row.tag_hash,
                visible_at_ms: row.prepared_at_ms,
            })
        };
        let Some(entry) = entry else { return Ok(None) };
        let mut message = self.read_message(&entry)?;
        message.origin = Some(origin);
        Ok(Some(message))
    }

    /// When the next delayed message is due.
    #[must_use]
    pub fn next_due_at(&self) -> Option<Timestamp> {
        let appender = self.appender();
        let due_ms = appender.ledger.due.next_due_ms()?;
        Some(appender.clock.to_wall(Timestamp::from_ms(due_ms)))
    }
}
