//! Topic names that RocketMQ's clients and brokers know by heart, and the naming of retry and dead-letter topics.

use crate::ids::{GroupName, TopicName};

/// The topic whose route lets a client create its own: a producer that finds no route asks for this one and sends there
/// with its real topic, which the broker then creates.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
/// Where brokers store delayed messages.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// The topic of RocketMQ's own benchmark programs.
pub const BENCHMARK_TOPIC: &str = "BenchmarkTest";
/// Where RocketMQ stores half messages; the topic of messages in CHECK_TRANSACTION_STATE requests of old brokers.
pub const TRANSACTION_HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// Where RocketMQ stores the tombstones of half messages.
pub const TRANSACTION_OP_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
/// Where RocketMQ puts half messages that it asked about too often.
pub const TRANSACTION_CHECK_MAX_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
/// Where clients send message traces.
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
/// A topic that brokers send to themselves at start.
pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
/// Events about offsets that were moved by the broker.
pub const OFFSET_MOVED_TOPIC: &str = "OFFSET_MOVED_EVENT";
/// Offsets kept in RocketMQ's RocksDB mode.
pub const CHECKPOINT_TOPIC: &str = "CHECKPOINT_TOPIC";
/// Every topic with this prefix belongs to the system.
pub const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
/// Prefix of the topic that holds a group's messages to be consumed again.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Prefix of the topic that holds what a group could not consume.
pub const DLQ_PREFIX: &str = "%DLQ%";
/// The group that the client library uses for its own sends (send-back without a broker's help).
pub const CLIENT_INNER_PRODUCER_GROUP: &str = "CLIENT_INNER_PRODUCER";

const SYSTEM_TOPICS: [&str; 10] = [
    AUTO_CREATE_TOPIC,
    SCHEDULE_TOPIC,
    BENCHMARK_TOPIC,
    TRANSACTION_HALF_TOPIC,
    TRANSACTION_OP_TOPIC,
    TRANSACTION_CHECK_MAX_TOPIC,
    TRACE_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_TOPIC,
    CHECKPOINT_TOPIC,
];

const NOT_SENDABLE_TOPICS: [&str; 6] = [
    SCHEDULE_TOPIC,
    TRANSACTION_HALF_TOPIC,
    TRANSACTION_OP_TOPIC,
    TRANSACTION_CHECK_MAX_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_TOPIC,
];

/// Whether `topic` is one of the system's, which cannot be created or deleted by request.
#[must_use]
pub fn is_system(topic: &str) -> bool {
    topic.starts_with(SYSTEM_TOPIC_PREFIX) || SYSTEM_TOPICS.contains(&topic)
}

/// Whether clients must not send to `topic` themselves.
#[must_use]
pub fn is_not_sendable(topic: &str) -> bool {
    NOT_SENDABLE_TOPICS.contains(&topic)
}

/// All names for which [`is_system`] holds by name rather than by prefix.
#[must_use]
pub const fn system_topics() -> &'static [&'static str] {
    &SYSTEM_TOPICS
}

/// The topic that holds messages which `group` is to consume again. Group names are bounded so that it is always valid.
#[must_use]
pub fn retry_topic(group: &GroupName) -> TopicName {
    TopicName::with_prefix(RETRY_PREFIX, group)
}

/// The topic that holds messages which `group` could not consume.
#[must_use]
pub fn dlq_topic(group: &GroupName) -> TopicName {
    TopicName::with_prefix(DLQ_PREFIX, group)
}

/// Whether `topic` is a group's retry topic.
#[must_use]
pub fn is_retry(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX)
}

/// Whether `topic` is a group's dead-letter topic.
#[must_use]
pub fn is_dlq(topic: &str) -> bool {
    topic.starts_with(DLQ_PREFIX)
}

/// The group whose retry or dead-letter topic this is.
#[must_use]
pub fn group_of(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX).or_else(|| topic.strip_prefix(DLQ_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{GROUP_BYTES_MAX, GROUP_TOPIC_BYTES_MAX};

    #[test]
    fn topics_of_a_group_carry_its_name() {
        let group = GroupName::new("pay-group").unwrap();
        assert_eq!(retry_topic(&group).as_str(), "%RETRY%pay-group");
        assert_eq!(dlq_topic(&group).as_str(), "%DLQ%pay-group");
        assert_eq!(group_of("%DLQ%pay-group"), Some("pay-group"));
        assert_eq!(group_of("orders"), None);
    }

    #[test]
    fn the_retry_topic_of_the_longest_group_is_a_valid_topic() {
        let group = GroupName::new(&"g".repeat(GROUP_BYTES_MAX)).unwrap();
        let topic = retry_topic(&group);
        assert_eq!(topic.as_str().len(), GROUP_TOPIC_BYTES_MAX);
        assert_eq!(TopicName::new(topic.as_str()).unwrap(), topic);
    }

    #[test]
    fn system_topics_are_recognised_by_name_and_by_prefix() {
        assert!(is_system("TBW102"));
        assert!(is_system("rmq_sys_anything"));
        assert!(!is_system("orders"));
        assert!(is_not_sendable(TRANSACTION_HALF_TOPIC));
        assert!(!is_not_sendable(AUTO_CREATE_TOPIC));
    }
}
