//! Clients and their groups: HEART_BEAT's answer (34), UNREGISTER_CLIENT (35), GET_CONSUMER_LIST_BY_GROUP (38), NOTIFY_CONSUMER_IDS_CHANGED (40).

use std::borrow::Cow;

use super::wire_field::wire_header;

/// What [`HeartbeatReplyHeader::header_encodings`] says of a broker that reads JSON and binary headers: RocketMQ's own
/// names for them.
pub const HEADER_ENCODINGS_BOTH: &str = "JSON,ROCKETMQ";

wire_header! {
    /// The answer to HEART_BEAT (34). Clients that do not know the field pass it over.
    HeartbeatReplyHeader<'a> {
        /// The header encodings that the broker reads, separated by commas. Mezzo says it; Apache brokers do not.
        header_encodings: Option<Cow<'a, str>> = "mezzoHeaderEncodings";
    }
}

impl HeartbeatReplyHeader<'_> {
    /// Whether the broker says that it reads binary headers.
    #[must_use]
    pub fn reads_binary(&self) -> bool {
        self.header_encodings
            .as_deref()
            .is_some_and(|names| names.split(',').any(|name| name.trim() == "ROCKETMQ"))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_headers_are_read_by_whoever_names_them() {
        let says = |names: Option<&'static str>| {
            HeartbeatReplyHeader { header_encodings: names.map(Cow::Borrowed) }.reads_binary()
        };
        assert!(says(Some(HEADER_ENCODINGS_BOTH)) && says(Some("JSON, ROCKETMQ, OTHER")));
        assert!(!says(None) && !says(Some("")) && !says(Some("JSON")) && !says(Some("NOT_ROCKETMQ")));
    }
}
