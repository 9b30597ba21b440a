//! Clients and their groups: UNREGISTER_CLIENT (35), GET_CONSUMER_LIST_BY_GROUP (38), NOTIFY_CONSUMER_IDS_CHANGED (40).

use std::borrow::Cow;

use super::wire_field::wire_header;

wire_header! {
    /// UNREGISTER_CLIENT (35): a client leaves one or two groups.
    UnregisterClientHeader<'a> {
        /// The client.
        client_id: Cow<'a, str> = "clientID";
        /// The producer group it leaves.
        producer_group: Option<Cow<'a, str>> = "producerGroup";
        /// The consumer group it leaves.
        consumer_group: Option<Cow<'a, str>> = "consumerGroup";
    }
}

wire_header! {
    /// GET_CONSUMER_LIST_BY_GROUP (38): who is in a consumer group? The answer is in the body.
    ConsumerListHeader<'a> {
        /// The consumer group.
        consumer_group: Cow<'a, str> = "consumerGroup";
    }
}

wire_header! {
    /// NOTIFY_CONSUMER_IDS_CHANGED (40): the broker tells consumers that their group changed.
    NotifyConsumerIdsChangedHeader<'a> {
        /// The consumer group.
        consumer_group: Cow<'a, str> = "consumerGroup";
    }
}
