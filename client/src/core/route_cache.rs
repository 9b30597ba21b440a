//! Routes by topic, each with an age. A stale route stays usable: a name server that is away must not stop senders whose
//! brokers are fine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mezzo_protocol::ids::TopicName;
use mezzo_protocol::time::Timestamp;

use super::route::{MASTER_ID, TopicRoute};

/// Ages and bounds of the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteCachePolicy {
    /// Age at which a route is asked for again, in milliseconds.
    pub(crate) refresh_ms: u64,
    /// The same for a borrowed route: its topic exists a moment after the first message.
    pub(crate) borrowed_refresh_ms: u64,
    /// Most topics held; past it the one unused for longest goes.
    pub(crate) topics_max: usize,
}

/// How long a route outlives its last confirmation when name servers no longer know its topic, in milliseconds: brokers
/// register again every 30 s, and name servers hold a silent broker's registration for 120 s.
const TRUST_MS: u64 = 120_000;

/// After a question a suspicion does not lead to another one for so long, in milliseconds: a broker that is gone makes
/// thousands of sends fail at one time, and the name servers need to hear of it once.
const SUSPICION_PAUSE_MS: u64 = 100;

/// What the cache knows about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Use it.
    Fresh(Arc<TopicRoute>),
    /// Ask again; use it if nobody answers.
    Stale(Arc<TopicRoute>),
    /// Ask.
    Missing,
}

#[derive(Debug)]
struct Entry {
    route: Arc<TopicRoute>,
    due: Timestamp,
    used: Timestamp,
    /// When a name server last said it.
    confirmed: Timestamp,
    /// When a name server was last asked.
    asked: Timestamp,
    /// Something in it failed since it was confirmed.
    suspected: bool,
}

/// The routes of the topics that this client uses.
#[derive(Debug)]
pub(crate) struct RouteCache {
    policy: RouteCachePolicy,
    entries: HashMap<TopicName, Entry>,
}

impl RouteCache {
    /// An empty cache.
    pub(crate) fn new(policy: RouteCachePolicy) -> Self {
        Self { policy, entries: HashMap::new() }
    }

    /// What is known about `topic` at `now`.
    pub(crate) fn lookup(&mut self, topic: &str, now: Timestamp) -> Lookup {
        let Some(entry) = self.entries.get_mut(topic) else { return Lookup::Missing };
        entry.used = now;
        let route = Arc::clone(&entry.route);
        if now < entry.due { Lookup::Fresh(route) } else { Lookup::Stale(route) }
    }

    /// Holds a route that was answered at `now`. Returns whether it differs from the one held before.
    pub(crate) fn put(&mut self, topic: &TopicName, route: Arc<TopicRoute>, now: Timestamp) -> bool {
        let age = if route.is_borrowed() { self.policy.borrowed_refresh_ms } else { self.policy.refresh_ms };
        let due = now.saturating_add_ms(age);
        if let Some(entry) = self.entries.get_mut(topic.as_str()) {
            let changed = *entry.route != *route;
            entry.due = due;
            entry.confirmed = now;
            entry.asked = now;
            entry.suspected = false;
            entry.route = route;
            return changed;
        }
        if self.entries.len() >= self.policy.topics_max.max(1) {
            let unused =
                self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(topic, _)| topic.clone());
            if let Some(unused) = unused {
                self.entries.remove(&unused);
            }
        }
        self.entries.insert(
            topic.clone(),
            Entry { route, due, used: now, confirmed: now, asked: now, suspected: false },
        );
        true
    }

    /// Something in the route failed: ask again at its next use, unless somebody asked a moment ago.
    pub(crate) fn suspect(&mut self, topic: &str) {
        if let Some(entry) = self.entries.get_mut(topic) {
            entry.due = entry.due.min(entry.asked.saturating_add_ms(SUSPICION_PAUSE_MS));
            entry.suspected = true;
        }
    }

    /// Whether something in the held route failed since it was confirmed: to be told again the same is no help then.
    pub(crate) fn is_suspected(&self, topic: &str) -> bool {
        self.entries.get(topic).is_some_and(|entry| entry.suspected)
    }

    /// The name servers could not be asked at `now`: keep what is held for another refresh time.
    pub(crate) fn keep(&mut self, topic: &str, now: Timestamp, retry_ms: u64) {
        if let Some(entry) = self.entries.get_mut(topic) {
            entry.due = now.saturating_add_ms(retry_ms);
            entry.asked = now;
        }
    }

    /// Whether the topic's own route was confirmed so short a time before `now` that a name server without it may have
    /// forgotten it.
    pub(crate) fn is_trusted(&self, topic: &str, now: Timestamp) -> bool {
        self.entries.get(topic).is_some_and(|entry| {
            !entry.route.is_borrowed() && now < entry.confirmed.saturating_add_ms(TRUST_MS)
        })
    }

    /// A name server said at `now` that the topic does not exist. A route that is trusted is kept for another refresh
    /// time; the brokers in it say themselves if the topic is gone.
    pub(crate) fn missed(&mut self, topic: &str, now: Timestamp, retry_ms: u64) {
        if self.is_trusted(topic, now) {
            self.keep(topic, now, retry_ms);
        } else {
            self.entries.remove(topic);
        }
    }

    /// Topics to ask about at `now`, in order.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<TopicName> {
        let mut due: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.due <= now)
            .map(|(topic, _)| topic.clone())
            .collect();
        due.sort();
        due
    }

    /// Addresses of all masters in all routes, and of replicas if asked for: where heartbeats go.
    pub(crate) fn addresses(&self, with_replicas: bool) -> BTreeSet<Arc<str>> {
        let members = self.routes().flat_map(|(_, members)| members);
        members
            .filter(|(id, _)| with_replicas || **id == MASTER_ID)
            .map(|(_, address)| Arc::clone(address))
            .collect()
    }

    /// The master of a broker by its name, whatever the topic.
    pub(crate) fn master_of(&self, broker: &str) -> Option<Arc<str>> {
        self.entries.values().find_map(|entry| entry.route.master(broker).cloned())
    }

    fn routes(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeMap<i64, Arc<str>>)> {
        self.entries.values().flat_map(|entry| entry.route.brokers())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::route::tests::route;

    const POLICY: RouteCachePolicy =
        RouteCachePolicy { refresh_ms: 30_000, borrowed_refresh_ms: 1_000, topics_max: 2 };

    fn topic(name: &str) -> TopicName {
        TopicName::new(name).unwrap()
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn a_route_is_fresh_then_stale_and_stays_usable() {
        let mut cache = RouteCache::new(POLICY);
        let held = Arc::new(route("t", &[("a", "a:1")], 1));
        assert_eq!(cache.lookup("t", at(0)), Lookup::Missing);
        assert!(cache.put(&topic("t"), Arc::clone(&held), at(0)));
        assert_eq!(cache.lookup("t", at(29_999)), Lookup::Fresh(Arc::clone(&held)));
        assert_eq!(cache.lookup("t", at(30_000)), Lookup::Stale(Arc::clone(&held)));
        assert_eq!(cache.due(at(30_000)), vec![topic("t")]);
        cache.keep("t", at(30_000), 1_000);
        assert_eq!(cache.lookup("t", at(30_500)), Lookup::Fresh(held));
    }

    #[test]
    fn a_suspected_route_is_asked_for_at_its_next_use() {
        let mut cache = RouteCache::new(POLICY);
        let held = Arc::new(route("t", &[("a", "a:1")], 1));
        cache.put(&topic("t"), Arc::clone(&held), at(5));
        assert!(!cache.is_suspected("t"));
        cache.suspect("t");
        assert_eq!(cache.lookup("t", at(104)), Lookup::Fresh(Arc::clone(&held)), "it was asked for at 5");
        assert_eq!(cache.lookup("t", at(105)), Lookup::Stale(Arc::clone(&held)));
        cache.keep("t", at(105), 1_000);
        assert!(cache.is_suspected("t"), "until somebody confirms it");
        cache.put(&topic("t"), held, at(107));
        assert!(!cache.is_suspected("t"));
    }

    #[test]
    fn a_borrowed_route_is_refreshed_soon() {
        let mut cache = RouteCache::new(POLICY);
        let borrowed = Arc::new(route("TBW102", &[("a", "a:1")], 1).borrowed_for(&topic("t"), 4));
        cache.put(&topic("t"), Arc::clone(&borrowed), at(0));
        assert_eq!(cache.lookup("t", at(1_000)), Lookup::Stale(borrowed));
    }

    #[test]
    fn put_tells_whether_the_route_changed() {
        let mut cache = RouteCache::new(POLICY);
        let one = route("t", &[("a", "a:1")], 1);
        assert!(cache.put(&topic("t"), Arc::new(one.clone()), at(0)));
        assert!(!cache.put(&topic("t"), Arc::new(one), at(1)));
        assert!(cache.put(&topic("t"), Arc::new(route("t", &[("a", "a:1")], 2)), at(2)));
    }

    #[test]
    fn past_the_bound_the_topic_unused_for_longest_goes() {
        let mut cache = RouteCache::new(POLICY);
        for (index, name) in ["x", "y"].iter().enumerate() {
            cache.put(&topic(name), Arc::new(route(name, &[("a", "a:1")], 1)), at(index as u64));
        }
        cache.lookup("x", at(10));
        cache.put(&topic("z"), Arc::new(route("z", &[("b", "b:1")], 1)), at(11));
        assert_eq!(cache.lookup("y", at(12)), Lookup::Missing);
        assert_eq!(cache.addresses(false).len(), 2);
        assert_eq!(cache.master_of("b").as_deref(), Some("b:1"));
    }

    #[test]
    fn a_name_server_that_forgot_a_topic_does_not_take_its_route_at_once() {
        let mut cache = RouteCache::new(POLICY);
        let held = Arc::new(route("t", &[("a", "a:1")], 1));
        cache.put(&topic("t"), Arc::clone(&held), at(0));
        cache.missed("t", at(30_000), 1_000);
        assert_eq!(cache.lookup("t", at(30_500)), Lookup::Fresh(Arc::clone(&held)));
        assert_eq!(cache.lookup("t", at(31_000)), Lookup::Stale(held));
        cache.missed("t", at(TRUST_MS), 1_000);
        assert_eq!(cache.lookup("t", at(TRUST_MS)), Lookup::Missing);
        let borrowed = route("TBW102", &[("a", "a:1")], 1).borrowed_for(&topic("t"), 4);
        cache.put(&topic("t"), Arc::new(borrowed), at(0));
        cache.missed("t", at(1), 1_000);
        assert_eq!(cache.lookup("t", at(1)), Lookup::Missing);
    }
}
