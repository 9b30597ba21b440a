//! Leases are given, renewed and given back here, and asked for by decisions that move offsets.

use mezzo_protocol::ids::{GroupName, QueueId, QueueOffset, TopicName};
use mezzo_protocol::time::Timestamp;

use super::Sink;
use crate::batch::LeaseRequest;
use crate::end::TransactionOffsets;
use crate::format::record::{Lease as LeaseRecord, RecordKind};
use crate::results::{OperationResult, Refusal};
use crate::state::leases::Lease;
use crate::state::ledger::{At, Ledger};
use crate::state::publish::Publisher;

impl Ledger {
    /// Gives a lease to a client, or renews it.
    pub(super) fn grant_lease(
        &mut self,
        request: &LeaseRequest,
        sink: &mut Sink<'_>,
        publisher: &mut dyn Publisher,
    ) -> OperationResult {
        let LeaseRequest { group, topic, queue, client, ttl_ms, renews } = request;
        if self.topics.get(topic).and_then(|t| t.queue(*queue)).is_none() {
            return OperationResult::Refused(Refusal::NotFound);
        }
        let now = sink.writer.frame_time();
        let is_new = self.leases.get(group, topic, *queue).is_none();
        if is_new && renews.is_none() && !self.leases.has_room(now) {
            return OperationResult::Refused(Refusal::TooManyLeases);
        }
        let epoch = match (self.leases.get(group, topic, *queue), renews) {
            // also late, as long as nobody has taken it
            (Some(held), Some(epoch)) if held.epoch == *epoch && !held.released => *epoch,
            (_, Some(_)) => return OperationResult::Refused(Refusal::LeaseLost),
            (Some(held), None) if held.is_live(now) && held.client != *client => {
                let until = sink.clock.to_wall(held.expires_at);
                return OperationResult::Refused(Refusal::LeaseHeld { until });
            }
            // a new epoch for the same client, too: it may have been restarted, and what its life before has sent may
            // still be on its way. It is where its record stands, which no epoch was before: not of an earlier life of
            // this group or topic, and not one that a client was told of and a crash has taken back
            (_, None) => sink.writer.next_position(),
        };
        let lease = Lease {
            client: client.clone(),
            epoch,
            expires_at: now.saturating_add_ms(*ttl_ms),
            released: false,
        };
        let expires_at = sink.clock.to_wall(lease.expires_at);
        let next_offset = self.offsets.appended(group, topic, *queue);
        self.write_lease((group, topic, *queue), lease, sink, publisher);
        OperationResult::Leased { epoch, expires_at, next_offset }
    }

    /// Gives a lease back.
    pub(super) fn release_lease(
        &mut self,
        (group, topic, queue): (&GroupName, &TopicName, QueueId),
        epoch: u64,
        sink: &mut Sink<'_>,
        publisher: &mut dyn Publisher,
    ) -> OperationResult {
        let held = self.leases.get(group, topic, queue).filter(|lease| lease.epoch == epoch);
        let Some(held) = held.cloned() else {
            return OperationResult::Refused(Refusal::LeaseLost);
        };
        if !held.released {
            self.write_lease((group, topic, queue), Lease { released: true, ..held }, sink, publisher);
        }
        OperationResult::Done
    }

    fn write_lease(
        &mut self,
        (group, topic, queue): (&GroupName, &TopicName, QueueId),
        lease: Lease,
        sink: &mut Sink<'_>,
        publisher: &mut dyn Publisher,
    ) {
        let record = record_of(group, topic, queue, &lease);
        record.encode(sink.scratch);
        let At { position, time_ms, .. } = sink.push_scratch(RecordKind::Lease, record.flags());
        self.put_lease(position, Timestamp::from_ms(time_ms), (group, topic, queue), lease, publisher);
    }

    /// Whether the client of these offsets still holds every queue that it moves, and the group stands there where the
    /// transaction found it: nobody has taken a lease since, none was given back, and no other transaction has consumed
    /// the same messages. Time alone takes nothing away.
    pub(super) fn may_move(&self, offsets: &TransactionOffsets) -> bool {
        offsets.entries.iter().all(|entry| {
            let lease = self.leases.get(&offsets.group, &entry.topic, entry.queue);
            lease.is_some_and(|lease| lease.epoch == entry.epoch && !lease.released)
                && self.offsets.appended(&offsets.group, &entry.topic, entry.queue) == entry.from
        })
    }
}

pub(crate) fn record_of<'a>(
    group: &'a GroupName,
    topic: &'a TopicName,
    queue: QueueId,
    lease: &'a Lease,
) -> LeaseRecord<'a> {
    LeaseRecord {
        released: lease.released,
        group,
        topic,
        queue: queue.0,
        client: &lease.client,
        epoch: lease.epoch,
        expires_ms: lease.expires_at.as_ms(),
    }
}

/// Entries as the ledger takes them.
pub(super) fn moved(offsets: &TransactionOffsets) -> Vec<(TopicName, QueueId, QueueOffset)> {
    let moved = |e: &crate::end::OffsetMove| (e.topic.clone(), e.queue, e.offset);
    offsets.entries.iter().map(moved).collect()
}
