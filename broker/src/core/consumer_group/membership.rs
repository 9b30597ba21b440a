//! The members of one consumer group and the group's subscriptions, as heartbeats and closed connections change them.
//! Answers what changed, so that the caller knows whom to tell.

use std::collections::BTreeMap;

use mezzo_protocol::{ids::TopicName, time::Timestamp};

use super::Subscription;

/// Whether each message goes to one member or to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ConsumptionModel {
    /// Members share the queues.
    #[default]
    Clustering,
    /// Every member reads every queue; nobody cares who else is there.
    Broadcasting,
}

/// What a heartbeat changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Changes {
    /// A member is new.
    pub(crate) members: bool,
    /// The subscriptions are others than before.
    pub(crate) subscriptions: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    client_id: String,
    seen_at: Timestamp,
}

/// Memory of a member beyond its id: here, and among the groups of its connection.
const MEMBER_OVERHEAD_BYTES: usize = 256;

impl Member {
    fn bytes(&self) -> usize {
        MEMBER_OVERHEAD_BYTES + self.client_id.len()
    }
}

/// What one group may grow to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Topics that it subscribes to.
    pub(crate) subscriptions: usize,
    /// Bytes of all of its subscriptions.
    pub(crate) subscription_bytes: usize,
}

/// Why a heartbeat was not taken. The group is as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutOfBounds {
    /// [`Bounds::subscription_bytes`].
    Group,
    /// All groups together have no room for it.
    AllGroups,
}

/// One group. `M` names a member's connection.
#[derive(Debug)]
pub(crate) struct Membership<M> {
    model: ConsumptionModel,
    members: BTreeMap<M, Member>,
    member_bytes: usize,
    subscriptions: BTreeMap<TopicName, Subscription>,
    subscription_bytes: usize,
    bounds: Bounds,
}

impl<M: Ord + Copy> Membership<M> {
    /// A group without members.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            model: ConsumptionModel::default(),
            members: BTreeMap::new(),
            member_bytes: 0,
            subscriptions: BTreeMap::new(),
            subscription_bytes: 0,
            bounds,
        }
    }

    /// Bytes that members and subscriptions take, about.
    pub(crate) fn bytes(&self) -> usize {
        self.member_bytes + self.subscription_bytes
    }

    /// A heartbeat of `member`. `subscriptions` is `None` when the heartbeat says that they are as before. `room`: bytes by
    /// which the group may grow.
    ///
    /// # Errors
    /// [`OutOfBounds`], if the group would grow beyond a bound: who says nothing new is always heard.
    pub(crate) fn handle_heartbeat(
        &mut self,
        now: Timestamp,
        member: M,
        client_id: &str,
        model: ConsumptionModel,
        subscriptions: Option<Vec<Subscription>>,
        room: usize,
    ) -> Result<Changes, OutOfBounds> {
        let before = self.members.get(&member);
        let known = before.is_some_and(|known| known.client_id == client_id);
        let next = Member { client_id: client_id.to_owned(), seen_at: now };
        let member_bytes = self.member_bytes - before.map_or(0, Member::bytes) + next.bytes();
        let wanted_bytes =
            subscriptions.as_ref().map_or(self.subscription_bytes, |wanted| self.bytes_with(wanted));
        if wanted_bytes > self.bounds.subscription_bytes.max(self.subscription_bytes) {
            return Err(OutOfBounds::Group);
        }
        if member_bytes + wanted_bytes > self.bytes() + room && member_bytes + wanted_bytes > self.bytes() {
            return Err(OutOfBounds::AllGroups);
        }
        self.model = model;
        self.members.insert(member, next);
        self.member_bytes = member_bytes;
        let subscriptions = subscriptions.is_some_and(|wanted| self.replace_subscriptions(wanted));
        Ok(Changes { members: !known, subscriptions })
    }

    /// What the subscriptions would take after this heartbeat.
    fn bytes_with(&self, wanted: &[Subscription]) -> usize {
        let standing = |wanted: &Subscription| match self.subscriptions.get(&wanted.topic) {
            Some(known) if known.version >= wanted.version => known.bytes(),
            _ => wanted.bytes(),
        };
        wanted.iter().map(standing).sum()
    }

    /// Topics that are no longer wanted go; of a topic that stays the newer version stands.
    fn replace_subscriptions(&mut self, wanted: Vec<Subscription>) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|topic, _| wanted.iter().any(|wanted| wanted.topic == *topic));
        let mut changed = self.subscriptions.len() != before;
        for subscription in wanted.into_iter().take(self.bounds.subscriptions) {
            match self.subscriptions.get(&subscription.topic) {
                None => changed = true,
                Some(known) if known.version >= subscription.version => continue,
                // a newer version with the same wish is no change that members must hear of
                Some(known) => changed |= known.expression != subscription.expression,
            }
            self.subscriptions.insert(subscription.topic.clone(), subscription);
        }
        self.subscription_bytes = self.subscriptions.values().map(Subscription::bytes).sum();
        changed
    }

    /// A member left or its connection closed; true if it was one.
    pub(crate) fn handle_leave(&mut self, member: M) -> bool {
        let left = self.members.remove(&member);
        self.member_bytes -= left.as_ref().map_or(0, Member::bytes);
        left.is_some()
    }

    /// Removes the members whose last heartbeat is more than `timeout_ms` milliseconds old, and names them.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp, timeout_ms: u64) -> Vec<M> {
        let silent: Vec<M> = self
            .members
            .iter()
            .filter(|(_, member)| now.saturating_since_ms(member.seen_at) > timeout_ms)
            .map(|(name, _)| *name)
            .collect();
        for member in &silent {
            self.handle_leave(*member);
        }
        silent
    }

    /// The members' connections.
    pub(crate) fn members(&self) -> impl Iterator<Item = M> + '_ {
        self.members.keys().copied()
    }

    /// The members' client ids, sorted, each once: a client that reconnects is one member even while its old connection
    /// lingers.
    pub(crate) fn client_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.members.values().map(|member| member.client_id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Whether nobody is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How the group consumes, as its last heartbeat said.
    pub(crate) fn model(&self) -> ConsumptionModel {
        self.model
    }

    /// What the group wants of `topic`.
    pub(crate) fn subscription(&self, topic: &str) -> Option<&Subscription> {
        self.subscriptions.get(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;
    const BOUNDS: Bounds = Bounds { subscriptions: 8, subscription_bytes: 5_000 };
    const ROOM: usize = 100_000;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    fn wants(topic: &str, expression: &str, version: i64) -> Subscription {
        Subscription {
            topic: TopicName::new(topic).unwrap(),
            expression: expression.to_owned(),
            expression_type: "TAG".to_owned(),
            version,
        }
    }

    fn beat(
        group: &mut Membership<u64>,
        now: u64,
        member: u64,
        client: &str,
        wanted: Vec<Subscription>,
    ) -> (bool, bool) {
        let changes = group
            .handle_heartbeat(at(now), member, client, ConsumptionModel::Clustering, Some(wanted), ROOM)
            .unwrap();
        (changes.members, changes.subscriptions)
    }

    #[test]
    fn only_the_first_heartbeat_changes_the_membership() {
        let mut group = Membership::new(BOUNDS);
        assert_eq!(beat(&mut group, 1, 1, "a", vec![wants("t", "*", 1)]), (true, true));
        assert_eq!(beat(&mut group, 2, 1, "a", vec![wants("t", "*", 1)]), (false, false));
        assert_eq!(beat(&mut group, 3, 2, "b", vec![wants("t", "*", 1)]), (true, false));
        assert_eq!(group.client_ids(), ["a", "b"]);
    }

    #[test]
    fn an_older_subscription_does_not_replace_a_newer_one() {
        let mut group = Membership::new(BOUNDS);
        beat(&mut group, 1, 1, "a", vec![wants("t", "new", 5)]);
        assert_eq!(beat(&mut group, 2, 2, "b", vec![wants("t", "old", 4)]), (true, false));
        assert_eq!(group.subscription("t").unwrap().expression, "new");
        assert_eq!(beat(&mut group, 3, 2, "b", vec![wants("t", "newest", 6)]), (false, true));
        assert_eq!(group.subscription("t").unwrap().expression, "newest");
    }

    #[test]
    fn a_topic_that_is_no_longer_wanted_goes() {
        let mut group = Membership::new(BOUNDS);
        beat(&mut group, 1, 1, "a", vec![wants("t", "*", 1), wants("u", "*", 1)]);
        assert_eq!(beat(&mut group, 2, 1, "a", vec![wants("u", "*", 1)]), (false, true));
        assert!(group.subscription("t").is_none());
    }

    #[test]
    fn a_heartbeat_without_subscriptions_keeps_them() {
        let mut group = Membership::new(BOUNDS);
        beat(&mut group, 1, 1, "a", vec![wants("t", "*", 1)]);
        let changes = group.handle_heartbeat(at(2), 1, "a", ConsumptionModel::Clustering, None, 0).unwrap();
        assert_eq!(changes, Changes::default());
        assert!(group.subscription("t").is_some());
    }

    #[test]
    fn subscriptions_are_bounded() {
        let mut group = Membership::new(Bounds { subscriptions: 2, ..BOUNDS });
        beat(&mut group, 1, 1, "a", vec![wants("t", "*", 1), wants("u", "*", 1), wants("v", "*", 1)]);
        assert!(group.subscription("u").is_some());
        assert!(group.subscription("v").is_none());
    }

    #[test]
    fn silence_beyond_the_timeout_is_leaving() {
        let mut group = Membership::new(BOUNDS);
        beat(&mut group, 0, 1, "a", vec![]);
        beat(&mut group, MINUTE_MS, 2, "b", vec![]);
        assert_eq!(group.handle_timeout(at(2 * MINUTE_MS), 2 * MINUTE_MS), Vec::<u64>::new());
        assert_eq!(group.handle_timeout(at(2 * MINUTE_MS + 1), 2 * MINUTE_MS), [1]);
        assert_eq!(group.client_ids(), ["b"]);
    }

    #[test]
    fn a_reconnected_client_is_listed_once() {
        let mut group = Membership::new(BOUNDS);
        beat(&mut group, 1, 1, "a", vec![]);
        beat(&mut group, 2, 7, "a", vec![]);
        assert_eq!(group.client_ids(), ["a"]);
        assert!(group.handle_leave(1));
        assert!(!group.handle_leave(1));
        assert_eq!(group.client_ids(), ["a"]);
        assert!(group.handle_leave(7));
        assert!(group.is_empty());
    }

    #[test]
    fn long_expressions_are_refused_whole_and_what_is_said_again_is_heard() {
        let mut group = Membership::new(BOUNDS);
        let long = "x".repeat(2_000);
        let two = || vec![wants("t", &long, 1), wants("u", &long, 1)];
        beat(&mut group, 1, 1, "a", two());
        let full = group.bytes();
        let third = [two(), vec![wants("v", &long, 1)]].concat();
        let model = ConsumptionModel::Clustering;
        let refused = group.handle_heartbeat(at(2), 2, "b", model, Some(third), ROOM);
        assert_eq!(refused, Err(OutOfBounds::Group));
        assert_eq!((group.bytes(), group.client_ids().len()), (full, 1), "nothing of it was taken");
        // a member that is known, with what is known, needs no room; a new one does
        assert!(group.handle_heartbeat(at(3), 1, "a", model, Some(two()), 0).is_ok());
        assert_eq!(group.handle_heartbeat(at(3), 2, "b", model, None, 100), Err(OutOfBounds::AllGroups));
        assert!(group.handle_heartbeat(at(3), 2, "b", model, None, 1_000).is_ok());
        assert!(group.handle_leave(2) && group.bytes() == full);
        beat(&mut group, 4, 1, "a", vec![]);
        group.handle_leave(1);
        assert_eq!(group.bytes(), 0, "all of it is given back");
    }
}
