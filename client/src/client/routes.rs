//! Where topics live: the cache first, then the name servers; a stale route is used while a fresh one is fetched.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use mezzo_protocol::ids::TopicName;
use mezzo_protocol::remoting::body::route::TopicRouteData;
use mezzo_protocol::remoting::header::topic::RouteHeader;
use mezzo_protocol::remoting::{RemotingCommand, RequestCode, ResponseCode};
use mezzo_protocol::system_topic::AUTO_CREATE_TOPIC;

use super::Shared;
use crate::core::route::{BrokerQueues, TopicRoute};
use crate::core::route_cache::Lookup;
use crate::error::{Error, RequestError};
use crate::net::{Deadline, Reply};

/// After a failed refresh a held route counts as fresh for so long, in milliseconds.
const RETRY_REFRESH_MS: u64 = 1_000;

impl Shared {
    /// A route to send by. A topic that does not exist gets the route by which sending creates it.
    pub(crate) async fn publish_route(
        self: &Arc<Self>,
        topic: &TopicName,
        deadline: Deadline,
    ) -> Result<Arc<TopicRoute>, Error> {
        let route = self.route(topic, deadline).await?;
        if route.publish_queues().is_empty() {
            return Err(Error::NoRoute { topic: topic.clone() });
        }
        Ok(route)
    }

    /// A route to read by; a topic that does not exist yet is an error, not an empty topic.
    pub(crate) async fn subscribe_route(
        self: &Arc<Self>,
        topic: &TopicName,
        deadline: Deadline,
    ) -> Result<Arc<TopicRoute>, Error> {
        let mut route = self.route(topic, deadline).await?;
        if route.is_borrowed() {
            // A producer of this client may just have made the topic: the stand-in's age says nothing about that.
            let _guard = tokio::time::timeout_at(deadline.at(), self.route_lock(topic).lock()).await;
            self.refresh(topic, deadline.but_at_most_ms(self.config.request_timeout_ms)).await?;
            if let Lookup::Fresh(fetched) | Lookup::Stale(fetched) = self.lookup(topic) {
                route = fetched;
            }
        }
        if route.is_borrowed() || route.subscribe_queues().is_empty() {
            return Err(Error::NoRoute { topic: topic.clone() });
        }
        Ok(route)
    }

    /// Something in the topic's route failed: it is asked for again at its next use.
    pub(crate) fn suspect_route(&self, topic: &str) {
        self.routes().suspect(topic);
    }

    /// The address of a broker's master, from any topic's route.
    pub(crate) fn master_of(&self, broker: &str) -> Option<Arc<str>> {
        self.routes().master_of(broker)
    }

    /// Asks again for the routes that are due. Returns whether every name server request was answered.
    pub(super) async fn refresh_due_routes(self: &Arc<Self>) -> bool {
        let due = self.routes().due(self.now());
        let mut all_answered = true;
        for topic in due {
            let deadline = self.request_deadline();
            // Who holds the lock asks as well, and is as soon done.
            let Ok(_guard) = tokio::time::timeout_at(deadline.at(), self.route_lock(&topic).lock()).await
            else {
                all_answered = false;
                continue;
            };
            if let Err(error) = self.refresh(&topic, deadline).await {
                // Nobody answers: asking for the other topics would only take as long again, each.
                if matches!(error, Error::NameServers { .. }) {
                    return false;
                }
                all_answered = false;
            }
        }
        all_answered
    }

    async fn route(
        self: &Arc<Self>,
        topic: &TopicName,
        deadline: Deadline,
    ) -> Result<Arc<TopicRoute>, Error> {
        match self.lookup(topic) {
            Lookup::Fresh(route) => return Ok(route),
            Lookup::Stale(route) => {
                self.refresh_in_background(topic);
                return Ok(route);
            }
            Lookup::Missing => {}
        }
        let _guard = tokio::time::timeout_at(deadline.at(), self.route_lock(topic).lock()).await;
        if let Lookup::Fresh(route) | Lookup::Stale(route) = self.lookup(topic) {
            return Ok(route);
        }
        self.refresh(topic, deadline.but_at_most_ms(self.config.request_timeout_ms)).await?;
        match self.lookup(topic) {
            Lookup::Fresh(route) | Lookup::Stale(route) => Ok(route),
            Lookup::Missing => Err(Error::NoRoute { topic: topic.clone() }),
        }
    }

    fn lookup(&self, topic: &TopicName) -> Lookup {
        let now = self.now();
        self.routes().lookup(topic, now)
    }

    fn route_lock(&self, topic: &TopicName) -> &tokio::sync::Mutex<()> {
        let mut hasher = DefaultHasher::new();
        topic.hash(&mut hasher);
        let locks = &self.route_locks;
        let index = usize::try_from(hasher.finish() % locks.len() as u64).unwrap_or(0);
        locks.get(index).unwrap_or(&locks[0])
    }

    fn refresh_in_background(self: &Arc<Self>, topic: &TopicName) {
        // Until the answer is there the held route is as good as it gets; nobody else needs to ask.
        self.routes().keep(topic, self.now(), RETRY_REFRESH_MS);
        let (shared, topic) = (Arc::clone(self), topic.clone());
        tokio::spawn(async move {
            let deadline = shared.request_deadline();
            let lock = shared.route_lock(&topic).lock();
            // Who holds the lock for so long asks in vain; the next use of the route tries again.
            let Ok(_guard) = tokio::time::timeout_at(deadline.at(), lock).await else { return };
            if let Err(error) = shared.refresh(&topic, deadline).await {
                tracing::debug!(%topic, %error, "the route could not be refreshed");
            }
        });
    }

    /// Asks the name servers and notes the answer. An error means that there was none.
    async fn refresh(&self, topic: &TopicName, deadline: Deadline) -> Result<(), Error> {
        let fetched = match self.fetch(topic, topic, deadline).await {
            Ok(Some(route)) => Ok(Some(route)),
            // A name server that was restarted knows nothing until the brokers register again: what was known a moment
            // ago is better than a stand-in or nothing.
            Ok(None) if self.routes().is_trusted(topic, self.now()) => Ok(None),
            Ok(None) => self.fetch_stand_in(topic, deadline).await,
            Err(error) => Err(error),
        };
        let now = self.now();
        match fetched {
            Ok(Some(route)) => {
                let (doubted, changed) = {
                    let mut routes = self.routes();
                    (routes.is_suspected(topic), routes.put(topic, Arc::new(route), now))
                };
                if changed {
                    tracing::debug!(%topic, "route changed");
                    // New brokers must know us before they can ask us.
                    self.upkeep_now.notify_one();
                } else if doubted {
                    self.name_servers.doubt();
                }
                Ok(())
            }
            Ok(None) => {
                self.routes().missed(topic, now, RETRY_REFRESH_MS);
                Ok(())
            }
            Err(error) => {
                self.routes().keep(topic, now, RETRY_REFRESH_MS);
                Err(error)
            }
        }
    }

    /// The route of the topic that stands in for new ones, as the route of `topic`.
    async fn fetch_stand_in(
        &self,
        topic: &TopicName,
        deadline: Deadline,
    ) -> Result<Option<TopicRoute>, Error> {
        let stand_in = TopicName::new(AUTO_CREATE_TOPIC)?;
        let route = self.fetch(&stand_in, topic, deadline).await?;
        Ok(route.map(|route| route.borrowed_for(topic, self.config.new_topic_queues)))
    }

    /// One question to the name servers; `None` if the topic does not exist.
    async fn fetch(
        &self,
        asked: &TopicName,
        topic: &TopicName,
        deadline: Deadline,
    ) -> Result<Option<TopicRoute>, Error> {
        let header = RouteHeader { topic: asked.as_str().into(), accept_standard_json_only: Some(true) };
        let command =
            RemotingCommand::request(RequestCode::GET_ROUTEINFO_BY_TOPIC, header.encode(), Vec::new());
        let knows = |reply: &Reply| {
            !reply.header().is_ok_and(|header| header.response_code() == ResponseCode::TOPIC_NOT_EXIST)
        };
        let reply = self.name_servers.request_known(&command, knows, deadline).await?;
        match reply.success() {
            Ok(_) => {
                let data = TopicRouteData::decode(reply.body())?;
                Ok(Some(route_of(topic, &data)))
            }
            Err(RequestError::Refused { code: ResponseCode::TOPIC_NOT_EXIST, .. }) => Ok(None),
            Err(last) => Err(Error::NameServers { last }),
        }
    }
}

/// The name server's answer in the form that the client computes with.
fn route_of(topic: &TopicName, data: &TopicRouteData) -> TopicRoute {
    let queues: Vec<BrokerQueues> = data
        .queue_datas
        .iter()
        .map(|queues| BrokerQueues {
            broker_name: queues.broker_name.as_str().into(),
            read_queues: u32::try_from(queues.read_queue_nums).unwrap_or(0),
            write_queues: u32::try_from(queues.write_queue_nums).unwrap_or(0),
            perm: queues.perm,
        })
        .collect();
    let brokers: BTreeMap<Arc<str>, _> = data
        .broker_datas
        .iter()
        .map(|broker| {
            let addresses =
                broker.broker_addrs.iter().map(|(id, address)| (*id, address.as_str().into())).collect();
            (broker.broker_name.as_str().into(), addresses)
        })
        .collect();
    TopicRoute::new(topic, &queues, brokers)
}
