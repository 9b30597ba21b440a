//! What a decision does beyond its messages: offsets that move with it, and transactions that have nothing else. Also
//! how lease records are folded in.

use mezzo_protocol::ids::{GroupName, QueueId, QueueOffset, TopicName, TransactionId};
use mezzo_protocol::time::Timestamp;

use super::corrupt_log;
use super::leases::{LEASES_MAX, Lease};
use super::ledger::{At, Ledger};
use super::publish::{Publication, Publisher};
use super::transactions::history::decision_of;
use crate::error::StorageError;
use crate::format::history_row::{HistoryRow, group_hash, key_hash};
use crate::format::record::{Lease as LeaseRecord, Offsets, Outcome, Source};
use crate::results::Decision;

impl Ledger {
    /// A decision about a transaction without messages: its own record is its origin.
    pub(crate) fn decide_empty(
        &mut self,
        at: At,
        group: &GroupName,
        id: &TransactionId,
        outcome: Outcome,
        source: Source,
    ) -> Decision {
        let row = HistoryRow {
            origin: at.position,
            key_hash: key_hash(id),
            decided_at_ms: at.time_ms,
            first_queue_offset: None,
            decision_position: at.position,
            group_hash: group_hash(group),
            outcome,
            source,
            count: 0,
            named: true,
        };
        if let Some(history) = &self.history {
            history.record(at.position, row);
        }
        self.many.decided(row);
        decision_of(&row)
    }

    /// Offsets of the decision at `at`: appended now, told to others when the limit is past it.
    pub(crate) fn move_offsets(
        &mut self,
        at: At,
        group: &GroupName,
        entries: Vec<(TopicName, QueueId, QueueOffset)>,
        publisher: &mut dyn Publisher,
    ) {
        for (topic, queue, offset) in &entries {
            self.offsets.decide(at.position, group, topic, *queue, *offset);
        }
        let position = at.position;
        publisher.publish(position, Publication::Offsets { position, group: group.clone(), entries });
    }

    pub(crate) fn apply_offsets(
        &mut self,
        at: At,
        offsets: &Offsets<'_>,
        publisher: &mut dyn Publisher,
    ) -> Result<(), StorageError> {
        let group = GroupName::new(offsets.group).map_err(|e| corrupt_log(at.position, e))?;
        let mut entries = Vec::with_capacity(offsets.entries.len());
        for entry in &offsets.entries {
            let topic = TopicName::new(entry.topic).map_err(|e| corrupt_log(at.position, e))?;
            entries.push((topic, QueueId(entry.queue), QueueOffset(entry.offset)));
        }
        self.move_offsets(at, &group, entries, publisher);
        Ok(())
    }

    /// A lease was given, renewed or given back at this leader time.
    pub(crate) fn put_lease(
        &mut self,
        position: u64,
        now: Timestamp,
        (group, topic, queue): (&GroupName, &TopicName, QueueId),
        lease: Lease,
        publisher: &mut dyn Publisher,
    ) {
        if self.leases.len() >= LEASES_MAX && self.leases.get(group, topic, queue).is_none() {
            self.leases.forget_ended(now);
            publisher.publish(position, Publication::LeasesForgotten { now });
        }
        self.leases.set(group, topic, queue, lease.clone());
        let (group, topic) = (group.clone(), topic.clone());
        publisher.publish(position, Publication::Lease { group, topic, queue, lease });
    }

    pub(crate) fn apply_lease(
        &mut self,
        position: u64,
        now: Timestamp,
        record: &LeaseRecord<'_>,
        publisher: &mut dyn Publisher,
    ) -> Result<(), StorageError> {
        let group = GroupName::new(record.group).map_err(|e| corrupt_log(position, e))?;
        let topic = TopicName::new(record.topic).map_err(|e| corrupt_log(position, e))?;
        let lease = Lease {
            client: record.client.to_owned(),
            epoch: record.epoch,
            expires_at: Timestamp::from_ms(record.expires_ms),
            released: record.released,
        };
        self.put_lease(position, now, (&group, &topic, QueueId(record.queue)), lease, publisher);
        Ok(())
    }
}
