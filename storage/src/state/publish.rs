//! What waits for the limit. Applying a record says what will be visible; it becomes visible when the limit (what is
//! appended, or what is synced) passes the record that caused it, in log order.

use std::collections::VecDeque;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, QueueId, QueueOffset, TopicName};
use mezzo_protocol::time::Timestamp;

use super::groups::GroupConfig;
use super::leases::Lease;
use super::topics::{Queue, Topic};
use crate::format::queue_entry::QueueEntry;
use crate::results::LeftDoubt;

/// One visible effect of a record.
#[derive(Debug)]
pub(crate) enum Publication {
    /// A message takes its place in its queue.
    Entry { queue: Arc<Queue>, offset: u64, entry: QueueEntry },
    /// A topic can be looked up.
    Topic(Arc<Topic>),
    /// A topic is gone.
    TopicDeleted(Arc<Topic>),
    /// A group has this configuration.
    Group(Arc<GroupConfig>),
    /// A group is gone.
    GroupDeleted(GroupName),
    /// A decision has moved a group's offsets.
    Offsets { position: u64, group: GroupName, entries: Vec<(TopicName, QueueId, QueueOffset)> },
    /// A lease was given, renewed or given back.
    Lease { group: GroupName, topic: TopicName, queue: QueueId, lease: Lease },
    /// Leases that had ended by this leader time are forgotten.
    LeasesForgotten { now: Timestamp },
    /// A transaction that was IN_DOUBT is decided. Only of a decision that is taken now, never of one that is folded again.
    LeftDoubt(LeftDoubt),
    /// No later entry of the queue has a lower offset.
    Skip { queue: Arc<Queue>, offset: u64 },
}

/// Takes publications as records are applied.
pub(crate) trait Publisher {
    /// `position` is the record's; the effect may be seen once the limit is past it.
    fn publish(&mut self, position: u64, publication: Publication);
}

/// For folds whose result nobody reads, such as that of the base.
pub(crate) struct Unseen;

impl Publisher for Unseen {
    fn publish(&mut self, _position: u64, _publication: Publication) {}
}

/// Publications in log order.
#[derive(Debug, Default)]
pub(crate) struct Pending(pub(crate) VecDeque<(u64, Publication)>);

impl Publisher for Pending {
    fn publish(&mut self, position: u64, publication: Publication) {
        self.0.push_back((position, publication));
    }
}
