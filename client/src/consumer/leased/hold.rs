//! What batches and transactions have of the consumer that they come from: its queue, and a way to say what became of it.

use std::fmt;
use std::sync::{Arc, Weak};

use mezzo_protocol::ids::{GroupName, MessageQueue, QueueOffset};

use super::super::held_queue::HeldQueue;
use super::super::member::GroupMember;
use super::claim::{Claim, HandedOut};
use crate::error::AckError;

/// A leased queue of a consumer that may have ended meanwhile: what its broker decides still holds.
#[derive(Clone)]
pub(crate) struct Hold {
    group: GroupName,
    member: Weak<GroupMember>,
    held: Arc<HeldQueue>,
    claim: Arc<Claim>,
}

impl Hold {
    pub(super) fn new(member: &Arc<GroupMember>, held: Arc<HeldQueue>, claim: Arc<Claim>) -> Self {
        Self { group: member.group.clone(), member: Arc::downgrade(member), held, claim }
    }

    /// The consumer group.
    pub(crate) const fn group(&self) -> &GroupName {
        &self.group
    }

    /// The queue.
    pub(crate) fn queue(&self) -> &MessageQueue {
        &self.held.queue
    }

    /// What transactions name the lease by.
    pub(crate) fn epoch(&self) -> u64 {
        self.claim.epoch()
    }

    /// Whether both are the same lease.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.claim, &other.claim)
    }

    /// A transaction acknowledges a batch; see [`Claim::ack`].
    pub(super) fn ack(
        &self,
        id: &Arc<str>,
        batch: HandedOut,
        next: QueueOffset,
    ) -> Result<Option<QueueOffset>, AckError> {
        self.claim.ack(id, batch, next)
    }

    /// The transaction `id` is committed.
    pub(crate) fn committed(&self, id: &str) {
        self.claim.committed(id);
    }

    /// The transaction `id` is rolled back, and nothing that was sent can commit it: what it acknowledged comes again.
    pub(crate) fn rolled_back(&self, id: &str) {
        if self.claim.rolled_back(id, |to| self.held.reset(to)) {
            self.recall();
        }
    }

    /// The transaction `id` was refused because of the lease, or nobody knows what became of it: only a new lease tells
    /// where the group stands, and makes sure that what is still on its way to the broker does not move it.
    pub(crate) fn in_doubt(&self, id: &str) {
        if !self.claim.is_owned_by(id) {
            return;
        }
        match self.member.upgrade() {
            Some(member) => member.forfeit(&self.held),
            None => {
                self.claim.end();
            }
        }
    }

    /// A batch was dropped unacknowledged.
    pub(super) fn put_back(&self, batch: HandedOut) {
        if self.claim.put_back(batch, |to| self.held.reset(to)) {
            tracing::debug!(queue = %self.held.queue, from = %batch.from, "a batch comes again");
            self.recall();
        }
    }

    fn recall(&self) {
        if let Some(member) = self.member.upgrade() {
            member.recall(&self.held);
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("queue", self.queue())
            .field("claim", &self.claim)
            .finish_non_exhaustive()
    }
}
