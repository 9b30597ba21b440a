//! Leases: who may move a queue's offset inside a decision. A lease ends by itself, in leader time, but stays its last
//! holder's until somebody else takes it; every other holder has a higher epoch.

use std::collections::BTreeMap;

use mezzo_protocol::ids::{GroupName, QueueId, TopicName};
use mezzo_protocol::time::Timestamp;

/// One queue of one group that is or was leased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The client that holds it, or held it last.
    pub client: String,
    /// Higher with each holder, also when group or topic were deleted in between.
    pub epoch: u64,
    /// Leader time at which others may take it.
    pub expires_at: Timestamp,
    /// It was given back.
    pub released: bool,
}

impl Lease {
    /// Whether others have to leave the queue to its holder at this leader time.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.released && now < self.expires_at
    }
}

/// Leases of all groups.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    by_group: BTreeMap<GroupName, BTreeMap<(TopicName, QueueId), Lease>>,
    len: usize,
}

impl Leases {
    pub(crate) fn get(&self, group: &str, topic: &TopicName, queue: QueueId) -> Option<&Lease> {
        if self.len == 0 { None } else { self.by_group.get(group)?.get(&(topic.clone(), queue)) }
    }

    pub(crate) fn set(&mut self, group: &GroupName, topic: &TopicName, queue: QueueId, lease: Lease) {
        let of_group = self.by_group.entry(group.clone()).or_default();
        if of_group.insert((topic.clone(), queue), lease).is_none() {
            self.len += 1;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn knows_group(&self, group: &str) -> bool {
        self.by_group.contains_key(group)
    }

    pub(crate) fn remove_group(&mut self, group: &str) {
        if let Some(gone) = self.by_group.remove(group) {
            self.len -= gone.len();
        }
    }

    pub(crate) fn remove_topic(&mut self, topic: &TopicName) {
        for leases in self.by_group.values_mut() {
            leases.retain(|(of, _), _| of != topic);
        }
        self.by_group.retain(|_, leases| !leases.is_empty());
        self.len = self.by_group.values().map(BTreeMap::len).sum();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&GroupName, &TopicName, QueueId, &Lease)> {
        self.by_group.iter().flat_map(|(group, leases)| {
            leases.iter().map(move |((topic, queue), lease)| (group, topic, *queue, lease))
        })
    }
}
