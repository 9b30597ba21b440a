//! What a group wants of one topic. Members send their subscriptions with every heartbeat; the newest version stands.

use mezzo_protocol::ids::TopicName;

/// One topic of a group's subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// The topic.
    pub(crate) topic: TopicName,
    /// The tags that are wanted, as the client wrote them: `*`, `a`, `a || b`.
    pub(crate) expression: String,
    /// `TAG`, `SQL92`, or empty for tags.
    pub(crate) expression_type: String,
    /// Grows with each change at the client; milliseconds of its clock.
    pub(crate) version: i64,
}

/// Memory of a subscription beyond its strings: the struct, its place in a map, and what the allocator rounds up.
const OVERHEAD_BYTES: usize = 192;

impl Subscription {
    /// Bytes of memory, about. The topic stands in a group's map twice, as key and in the value.
    pub(crate) fn bytes(&self) -> usize {
        OVERHEAD_BYTES + 2 * self.topic.as_str().len() + self.expression.len() + self.expression_type.len()
    }
}
