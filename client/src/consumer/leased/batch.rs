//! Messages of one leased queue that one transaction acknowledges together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mezzo_protocol::ids::{GroupName, MessageQueue, QueueOffset};

use super::claim::HandedOut;
use super::hold::Hold;
use crate::error::AckError;
use crate::message::ReceivedMessage;

/// Messages of one queue, in their order, from a [`TransactionalConsumer`](crate::TransactionalConsumer). It is done with
/// when a transaction that [acknowledged](crate::Transaction::ack) it is committed.
///
/// A batch that is dropped before it was acknowledged comes again at once, with all behind it, and so does one whose
/// transaction is rolled back or dropped. Whoever cannot process a message and drops its batch should pause before.
#[must_use = "a batch that is dropped comes again"]
pub struct LeasedBatch {
    hold: Hold,
    handed: HandedOut,
    next: QueueOffset,
    messages: Vec<ReceivedMessage>,
    acked: AtomicBool,
}

impl LeasedBatch {
    pub(super) const fn new(
        hold: Hold,
        handed: HandedOut,
        next: QueueOffset,
        messages: Vec<ReceivedMessage>,
    ) -> Self {
        Self { hold, handed, next, messages, acked: AtomicBool::new(false) }
    }

    /// The messages, at least one.
    #[must_use]
    pub fn messages(&self) -> &[ReceivedMessage] {
        &self.messages
    }

    /// The queue that they come from.
    #[must_use]
    pub fn queue(&self) -> &MessageQueue {
        self.hold.queue()
    }

    /// The consumer group.
    #[must_use]
    pub const fn group(&self) -> &GroupName {
        self.hold.group()
    }

    /// Which of the queue's leases this is: the broker compares it at the commit. Each holder has a higher one than those
    /// before.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.hold.epoch()
    }

    /// Where the batch before it ended. The first message may lie further on: the subscription leaves others out.
    #[must_use]
    pub const fn from(&self) -> QueueOffset {
        self.handed.from
    }

    /// Where the group goes on behind this batch.
    #[must_use]
    pub const fn next_offset(&self) -> QueueOffset {
        self.next
    }

    pub(crate) const fn hold(&self) -> &Hold {
        &self.hold
    }

    /// The transaction `id` acknowledges it. Returns where the group has to stand when that commits.
    pub(crate) fn ack(&self, id: &Arc<str>) -> Result<Option<QueueOffset>, AckError> {
        if self.acked.load(Ordering::Relaxed) {
            return Err(AckError::Again);
        }
        let committed = self.hold.ack(id, self.handed, self.next)?;
        self.acked.store(true, Ordering::Relaxed);
        Ok(committed)
    }
}

impl<'a> IntoIterator for &'a LeasedBatch {
    type Item = &'a ReceivedMessage;
    type IntoIter = std::slice::Iter<'a, ReceivedMessage>;

    fn into_iter(self) -> Self::IntoIter {
        self.messages.iter()
    }
}

impl Drop for LeasedBatch {
    fn drop(&mut self) {
        if !*self.acked.get_mut() {
            self.hold.put_back(self.handed);
        }
    }
}

impl fmt::Debug for LeasedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedBatch")
            .field("queue", self.queue())
            .field("epoch", &self.epoch())
            .field("from", &self.handed.from)
            .field("next_offset", &self.next)
            .field("messages", &self.messages.len())
            .finish_non_exhaustive()
    }
}
