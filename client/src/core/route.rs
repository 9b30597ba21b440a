//! Where a topic's queues live, in the form senders and consumers need: computed once from the name server's answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use mezzo_protocol::ids::{MessageQueue, QueueId, TopicName};
use mezzo_protocol::limits::QUEUES_PER_TOPIC_MAX;

/// The broker id of a master; all others are replicas.
pub(crate) const MASTER_ID: i64 = 0;

/// Permission bits of a queue in a route.
const PERM_READ: i32 = 4;
const PERM_WRITE: i32 = 2;

/// What the name server says about a topic on one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerQueues {
    /// The broker's name.
    pub(crate) broker_name: Arc<str>,
    /// Queues to read from.
    pub(crate) read_queues: u32,
    /// Queues to write to; differs from the former while a topic is grown or shrunk.
    pub(crate) write_queues: u32,
    /// Permission bits.
    pub(crate) perm: i32,
}

/// Addresses of one broker, by broker id.
pub(crate) type BrokerAddresses = BTreeMap<i64, Arc<str>>;

/// The route of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicRoute {
    publish: Vec<MessageQueue>,
    subscribe: Vec<MessageQueue>,
    brokers: BTreeMap<Arc<str>, BrokerAddresses>,
    borrowed: bool,
}

impl TopicRoute {
    /// Computes the queues to write to (brokers with a master only) and to read from, both in the order of queues.
    pub(crate) fn new(
        topic: &TopicName,
        queues: &[BrokerQueues],
        brokers: BTreeMap<Arc<str>, BrokerAddresses>,
    ) -> Self {
        let list = |broker: &BrokerQueues, count: u32, bit: i32| {
            let count = if broker.perm & bit == 0 { 0 } else { count.min(QUEUES_PER_TOPIC_MAX) };
            let broker_name = Arc::clone(&broker.broker_name);
            let topic = topic.clone();
            (0..count).map(move |id| MessageQueue::new(topic.clone(), Arc::clone(&broker_name), QueueId(id)))
        };
        let has_master = |name: &str| brokers.get(name).is_some_and(|ids| ids.contains_key(&MASTER_ID));
        let mut publish: Vec<_> = queues
            .iter()
            .filter(|broker| has_master(&broker.broker_name))
            .flat_map(|broker| list(broker, broker.write_queues, PERM_WRITE))
            .collect();
        let mut subscribe: Vec<_> = queues
            .iter()
            .filter(|broker| brokers.contains_key(&broker.broker_name))
            .flat_map(|broker| list(broker, broker.read_queues, PERM_READ))
            .collect();
        publish.sort();
        publish.dedup();
        subscribe.sort();
        subscribe.dedup();
        Self { publish, subscribe, brokers, borrowed: false }
    }

    /// The route for a topic that does not exist yet, from the route of the topic that stands in for new ones: the
    /// broker creates the topic with the first message, with at most `queues_max` queues.
    pub(crate) fn borrowed_for(self, topic: &TopicName, queues_max: u32) -> Self {
        let rename = |queues: Vec<MessageQueue>| {
            queues
                .into_iter()
                .filter(|queue| queue.queue_id.0 < queues_max)
                .map(|queue| MessageQueue { topic: topic.clone(), ..queue })
                .collect()
        };
        Self {
            publish: rename(self.publish),
            subscribe: rename(self.subscribe),
            brokers: self.brokers,
            borrowed: true,
        }
    }

    /// Queues to write to, in order.
    pub(crate) fn publish_queues(&self) -> &[MessageQueue] {
        &self.publish
    }

    /// Queues to read from, in order.
    pub(crate) fn subscribe_queues(&self) -> &[MessageQueue] {
        &self.subscribe
    }

    /// Whether this is another topic's route that stands in.
    pub(crate) const fn is_borrowed(&self) -> bool {
        self.borrowed
    }

    /// The address of a broker's master.
    pub(crate) fn master(&self, broker: &str) -> Option<&Arc<str>> {
        self.brokers.get(broker)?.get(&MASTER_ID)
    }

    /// Where to read from: the member that the broker suggested, else the master, else any member.
    pub(crate) fn readable(&self, broker: &str, suggested: i64) -> Option<&Arc<str>> {
        let members = self.brokers.get(broker)?;
        members.get(&suggested).or_else(|| members.get(&MASTER_ID)).or_else(|| members.values().next())
    }

    /// All brokers with their addresses.
    pub(crate) fn brokers(&self) -> impl Iterator<Item = (&Arc<str>, &BrokerAddresses)> {
        self.brokers.iter()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A route with `queues` queues on each of `brokers` (name, address).
    pub(crate) fn route(topic: &str, brokers: &[(&str, &str)], queues: u32) -> TopicRoute {
        let specs: Vec<_> = brokers
            .iter()
            .map(|(name, _)| BrokerQueues {
                broker_name: (*name).into(),
                read_queues: queues,
                write_queues: queues,
                perm: PERM_READ | PERM_WRITE,
            })
            .collect();
        let addresses = brokers
            .iter()
            .map(|(name, address)| ((*name).into(), BrokerAddresses::from([(MASTER_ID, (*address).into())])))
            .collect();
        TopicRoute::new(&TopicName::new(topic).unwrap(), &specs, addresses)
    }

    #[test]
    fn a_broker_without_master_can_be_read_but_not_written() {
        let spec =
            |name: &str| BrokerQueues { broker_name: name.into(), read_queues: 2, write_queues: 1, perm: 6 };
        let brokers = BTreeMap::from([
            ("a".into(), BrokerAddresses::from([(MASTER_ID, "a:1".into()), (1, "a:2".into())])),
            ("b".into(), BrokerAddresses::from([(1, "b:2".into())])),
        ]);
        let route =
            TopicRoute::new(&TopicName::new("t").unwrap(), &[spec("a"), spec("b"), spec("gone")], brokers);
        assert_eq!(route.publish_queues().len(), 1);
        assert_eq!(route.subscribe_queues().len(), 4);
        assert_eq!(route.master("b"), None);
        assert_eq!(route.readable("b", MASTER_ID).map(|a| &**a), Some("b:2"));
        assert_eq!(route.readable("a", 1).map(|a| &**a), Some("a:2"));
        assert_eq!(route.readable("a", 7).map(|a| &**a), Some("a:1"));
    }

    #[test]
    fn permissions_are_honoured_and_counts_are_bounded() {
        let spec =
            BrokerQueues { broker_name: "a".into(), read_queues: u32::MAX, write_queues: 4, perm: PERM_READ };
        let brokers = BTreeMap::from([("a".into(), BrokerAddresses::from([(MASTER_ID, "a:1".into())]))]);
        let route = TopicRoute::new(&TopicName::new("t").unwrap(), &[spec], brokers);
        assert!(route.publish_queues().is_empty());
        assert_eq!(route.subscribe_queues().len(), QUEUES_PER_TOPIC_MAX as usize);
    }

    #[test]
    fn a_borrowed_route_names_the_new_topic_and_has_few_queues() {
        let topic = TopicName::new("new").unwrap();
        let route = route("TBW102", &[("a", "a:1")], 8).borrowed_for(&topic, 4);
        assert!(route.is_borrowed());
        assert_eq!(route.publish_queues().len(), 4);
        assert!(route.publish_queues().iter().all(|queue| queue.topic == topic));
    }
}
