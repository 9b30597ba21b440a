//! Leases: the right of one client to move a group's offset of a queue inside its transactions.

use std::borrow::Cow;

use super::wire_field::wire_header;
use crate::ids::QueueId;

wire_header! {
    /// MEZZO_LEASE_QUEUE (7,700,011): gives the lease, or renews it.
    LeaseQueueHeader<'a> {
        /// The consumer group.
        consumer_group: Cow<'a, str> = "consumerGroup";
        /// The topic.
        topic: Cow<'a, str> = "topic";
        /// The queue.
        queue_id: QueueId = "queueId";
        /// Who asks.
        client_id: Cow<'a, str> = "clientId";
        /// For how many milliseconds, [`LEASE_TTL_MS_MIN`](crate::limits::LEASE_TTL_MS_MIN) to
        /// [`LEASE_TTL_MS_MAX`](crate::limits::LEASE_TTL_MS_MAX).
        ttl_ms: i64 = "ttlMs";
        /// The lease that is to be renewed; absent to be given a new one.
        epoch: Option<i64> = "epoch";
    }
}

wire_header! {
    /// The answer to it.
    LeaseQueueReply {
        /// What transactions name the lease by.
        epoch: i64 = "epoch";
        /// When it ends unless it is renewed, milliseconds since 1970 by the broker's clock.
        expires_at_ms: i64 = "expiresAtMs";
        /// Where to consume from; absent if the group never said.
        next_offset: Option<i64> = "nextOffset";
    }
}

wire_header! {
    /// MEZZO_RELEASE_QUEUE (7,700,012): gives the lease with this epoch back.
    ReleaseQueueHeader<'a> {
        /// The consumer group.
        consumer_group: Cow<'a, str> = "consumerGroup";
        /// The topic.
        topic: Cow<'a, str> = "topic";
        /// The queue.
        queue_id: QueueId = "queueId";
        /// As the answer to MEZZO_LEASE_QUEUE said.
        epoch: i64 = "epoch";
    }
}
