//! Leases: who may move a queue's offset inside a decision. A lease ends by itself, in leader time, but stays its last
//! holder's until somebody else takes it; every other holder has a higher epoch.

use std::collections::BTreeMap;

use mezzo_protocol::ids::{GroupName, QueueId, TopicName};
use mezzo_protocol::limits::LEASE_TTL_MS_MAX;
use mezzo_protocol::time::Timestamp;

/// Queues of groups that may have a lease, live or not: about 20 MB of memory. The fold depends on it, and on
/// [`LEASE_KEPT_MS`]: a log that has met one of them means something else with another.
pub(crate) const LEASES_MAX: usize = 100_000;
/// How long after its end a lease still stands when there is no room for another one, in milliseconds.
pub(crate) const LEASE_KEPT_MS: u64 = LEASE_TTL_MS_MAX;

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

    /// Leader time from which on it may be forgotten for another one.
    fn stands_until(&self) -> Timestamp {
        if self.released { Timestamp::ZERO } else { self.expires_at.saturating_add_ms(LEASE_KEPT_MS) }
    }
}

/// Leases of all groups.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    by_group: BTreeMap<GroupName, BTreeMap<(TopicName, QueueId), Lease>>,
    len: usize,
    /// None may be forgotten before: spares a walk each time that somebody asks for one more.
    all_stand_until: Timestamp,
}

impl Leases {
    pub(crate) fn get(&self, group: &str, topic: &TopicName, queue: QueueId) -> Option<&Lease> {
        if self.len == 0 { None } else { self.by_group.get(group)?.get(&(topic.clone(), queue)) }
    }

    pub(crate) fn set(&mut self, group: &GroupName, topic: &TopicName, queue: QueueId, lease: Lease) {
        self.all_stand_until = self.all_stand_until.min(lease.stands_until());
        let of_group = self.by_group.entry(group.clone()).or_default();
        if of_group.insert((topic.clone(), queue), lease).is_none() {
            self.len += 1;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether one more has room, once those are forgotten that may be.
    pub(crate) fn has_room(&mut self, now: Timestamp) -> bool {
        if self.len < LEASES_MAX {
            return true;
        }
        if now >= self.all_stand_until {
            let all = self.by_group.values().flat_map(BTreeMap::values);
            self.all_stand_until = all.map(Lease::stands_until).min().unwrap_or_default();
        }
        now >= self.all_stand_until
    }

    /// Forgets those that were given back or have ended long ago. To a decision it is as if another client had taken them.
    pub(crate) fn forget_ended(&mut self, now: Timestamp) {
        for leases in self.by_group.values_mut() {
            leases.retain(|_, lease| now < lease.stands_until());
        }
        self.count();
    }

    fn count(&mut self) {
        self.by_group.retain(|_, leases| !leases.is_empty());
        self.len = self.by_group.values().map(BTreeMap::len).sum();
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
        self.count();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&GroupName, &TopicName, QueueId, &Lease)> {
        self.by_group.iter().flat_map(|(group, leases)| {
            leases.iter().map(move |((topic, queue), lease)| (group, topic, *queue, lease))
        })
    }
}
