//! What a client has to know to reach a topic: this broker's name and address, and how many queues it may read and
//! write. The embedded name server answers from the same topics that the broker serves, so a topic is routable from the
//! moment that its creation is durable.

use std::{net::SocketAddr, sync::Arc};

use mezzo_protocol::system_topic;
use mezzo_storage::{Store, Topic};

use crate::config::Config;

/// Permission of the topic that others are created from: read, write, inherit.
const DEFAULT_TOPIC_PERMISSION: u32 = 7;

/// The route of one topic. One broker serves all of its queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// Queues to pull from.
    pub(crate) read_queues: u32,
    /// Queues to send to.
    pub(crate) write_queues: u32,
    /// RocketMQ's permission bits.
    pub(crate) permission: u32,
    /// RocketMQ's `topicSysFlag`.
    pub(crate) system_flag: u32,
}

/// This broker as clients see it, and the routes to its topics.
pub(crate) struct Routes {
    store: Arc<Store>,
    broker_name: String,
    cluster: String,
    advertised: SocketAddr,
    auto_create: bool,
    default_queues: u32,
}

impl Routes {
    /// The routes to the topics of `store`, served under `advertised`.
    pub(crate) fn new(store: Arc<Store>, config: &Config, advertised: SocketAddr) -> Self {
        Self {
            store,
            broker_name: config.broker.name.clone(),
            cluster: config.broker.cluster.clone(),
            advertised,
            auto_create: config.topic.auto_create,
            default_queues: config.topic.default_queues,
        }
    }

    /// The route of a topic; `None` if there is no such topic. The default topic TBW102 has a route for as long as sends
    /// may create topics: clients look it up to learn where an unknown topic can be created.
    pub(crate) fn find(&self, topic: &str) -> Option<Route> {
        if let Some(topic) = self.store.topic(topic) {
            let config = topic.config();
            return Some(Route {
                read_queues: config.read_queues,
                write_queues: config.write_queues,
                permission: config.permission,
                system_flag: config.system_flag,
            });
        }
        (self.auto_create && topic == system_topic::AUTO_CREATE_TOPIC).then_some(Route {
            read_queues: self.default_queues,
            write_queues: self.default_queues,
            permission: DEFAULT_TOPIC_PERMISSION,
            system_flag: 0,
        })
    }

    /// The names of all topics, sorted.
    pub(crate) fn topic_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.store.topics().iter().map(|topic: &Arc<Topic>| topic.name().as_str().to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// The broker's name.
    pub(crate) fn broker_name(&self) -> &str {
        &self.broker_name
    }

    /// The cluster's name.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Where clients reach the broker.
    pub(crate) fn broker_address(&self) -> SocketAddr {
        self.advertised
    }
}
