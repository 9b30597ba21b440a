//! One queue of one topic on one broker.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::names::TopicName;
use super::numbers::QueueId;

/// A queue, named as all clients of a group must name it: they divide queues among themselves by the order of this type
/// and by its text, so both are those of RocketMQ's Java client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MessageQueue {
    /// The topic.
    pub topic: TopicName,
    /// The name of the broker that holds the queue.
    pub broker_name: Arc<str>,
    /// Its number within the topic on that broker.
    pub queue_id: QueueId,
}

impl MessageQueue {
    /// Names a queue.
    #[must_use]
    pub fn new(topic: TopicName, broker_name: impl Into<Arc<str>>, queue_id: QueueId) -> Self {
        Self { topic, broker_name: broker_name.into(), queue_id }
    }
}

/// Java compares strings by UTF-16 units, which differs from the order of UTF-8 bytes beyond the basic plane.
pub(crate) fn java_string_order(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

impl Ord for MessageQueue {
    fn cmp(&self, other: &Self) -> Ordering {
        self.topic
            .cmp(&other.topic)
            .then_with(|| java_string_order(&self.broker_name, &other.broker_name))
            .then_with(|| self.queue_id.cmp(&other.queue_id))
    }
}

impl PartialOrd for MessageQueue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The text that RocketMQ's consistent hashing hashes: do not change it.
impl fmt::Display for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, broker_name, queue_id } = self;
        write!(f, "MessageQueue [topic={topic}, brokerName={broker_name}, queueId={queue_id}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(topic: &str, broker: &str, id: u32) -> MessageQueue {
        MessageQueue::new(TopicName::new(topic).unwrap(), broker, QueueId(id))
    }

    #[test]
    fn queues_are_ordered_by_topic_then_broker_then_number() {
        let sorted = [queue("a", "x", 9), queue("a", "y", 2), queue("a", "y", 10), queue("b", "a", 0)];
        let mut shuffled = [sorted[3].clone(), sorted[2].clone(), sorted[0].clone(), sorted[1].clone()];
        shuffled.sort();
        assert_eq!(shuffled, sorted);
    }

    #[test]
    fn broker_names_are_ordered_by_utf16_units() {
        // U+1F600 is a surrogate pair (D83D …) and so stands before U+FB01 in Java, behind it in UTF-8.
        assert!(queue("a", "\u{1F600}", 0) < queue("a", "\u{FB01}", 0));
    }

    #[test]
    fn the_text_is_that_of_the_java_client() {
        assert_eq!(
            queue("t", "broker-a", 3).to_string(),
            "MessageQueue [topic=t, brokerName=broker-a, queueId=3]"
        );
    }
}
