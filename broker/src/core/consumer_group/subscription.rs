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
