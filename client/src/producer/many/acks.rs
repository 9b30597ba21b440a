//! What a transaction has consumed: the batches that it acknowledged, as offsets that move with its commit, and the queues
//! that have to hear what became of it.

use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, QueueOffset};
use mezzo_protocol::limits::TRANSACTION_OFFSETS_MAX;
use mezzo_protocol::remoting::body::transaction_offsets::{TransactionOffset, TransactionOffsetsBody};

use crate::consumer::{Hold, LeasedBatch};
use crate::error::AckError;

/// One queue, from where the group stands to behind the last batch.
#[derive(Debug)]
struct Entry {
    hold: Hold,
    committed: Option<QueueOffset>,
    next: QueueOffset,
}

/// The acknowledgements of one transaction. Whoever takes them has to say what became of it.
#[derive(Debug, Default)]
pub(super) struct Acks {
    entries: Vec<Entry>,
}

impl Acks {
    pub(super) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The consumer group, if there is anything.
    pub(super) fn group(&self) -> Option<&GroupName> {
        self.entries.first().map(|entry| entry.hold.group())
    }

    /// Adds a batch to those of the transaction `id`.
    pub(super) fn add(&mut self, id: &Arc<str>, batch: &LeasedBatch) -> Result<(), AckError> {
        if let Some(group) = self.group().filter(|group| *group != batch.group()) {
            return Err(AckError::OtherGroup { group: group.clone(), other: batch.group().clone() });
        }
        let place = self.entries.iter().position(|entry| entry.hold.is_same(batch.hold()));
        if place.is_none() && self.entries.len() >= TRANSACTION_OFFSETS_MAX {
            return Err(AckError::TooManyQueues);
        }
        let committed = batch.ack(id)?;
        let next = batch.next_offset();
        match place.and_then(|place| self.entries.get_mut(place)) {
            Some(entry) => entry.next = next,
            None => self.entries.push(Entry { hold: batch.hold().clone(), committed, next }),
        }
        Ok(())
    }

    /// As END_TRANSACTION says it.
    pub(super) fn body(&self) -> Option<TransactionOffsetsBody> {
        let consumer_group = self.group()?.to_string();
        let offset = |entry: &Entry| {
            let queue = entry.hold.queue();
            TransactionOffset {
                topic: queue.topic.to_string(),
                queue_id: queue.queue_id.0,
                from: entry.committed.map(|offset| offset.0),
                offset: entry.next.0,
                epoch: entry.hold.epoch(),
            }
        };
        Some(TransactionOffsetsBody { consumer_group, offsets: self.entries.iter().map(offset).collect() })
    }

    /// The broker has moved them.
    pub(super) fn committed(&mut self, id: &str) {
        self.entries.drain(..).for_each(|entry| entry.hold.committed(id));
    }

    /// They will not move: nothing that was sent can commit the transaction.
    pub(super) fn rolled_back(&mut self, id: &str) {
        self.entries.drain(..).for_each(|entry| entry.hold.rolled_back(id));
    }

    /// Refused because of a lease, or nobody knows.
    pub(super) fn in_doubt(&mut self, id: &str) {
        self.entries.drain(..).for_each(|entry| entry.hold.in_doubt(id));
    }
}
