//! What a program holds: the client and its builder.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mezzo_protocol::ids::GroupName;
use mezzo_protocol::limits::CLIENT_ID_BYTES_MAX;
use mezzo_protocol::time::Clock;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::members::Members;
use super::name_servers::{NameServers, parse_addresses};
use super::{Shared, inbound, upkeep};
use crate::clock::{SystemClock, random_seed};
use crate::config::ClientConfig;
use crate::consumer::{PullConsumerBuilder, PushConsumerBuilder, TransactionalConsumerBuilder};
use crate::core::route_cache::{RouteCache, RouteCachePolicy};
use crate::error::Error;
use crate::metrics::{Installed, Metrics, install};
use crate::net::{NetConfig, Pool};
use crate::producer::{ProducerBuilder, TransactionProducerBuilder};
use crate::transport::{AnyTransport, TcpTransport, Transport};
use crate::unique_key::UniqueKeys;

/// A program's way into a cluster: connections, routes and heartbeats, shared by the producers and consumers made from
/// it. Cheap to clone; one per program is enough, except that each member of a consumer group needs its own.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use mezzo_client::{Client, Message};
///
/// let client = Client::connect("127.0.0.1:9876").await?;
/// let producer = client.producer("greeters").start().await?;
/// producer.send(Message::new("greetings", "hello")?).await?;
/// client.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// Stops the client's tasks when the last handle is dropped.
    _stop: Arc<StopGuard>,
}

/// Ends connections and tasks when the last handle goes.
struct StopGuard {
    shared: Arc<Shared>,
    _cancel: DropGuard,
}

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Client {
    /// A client with default settings for the cluster that these name servers (`host:port`, several separated by `;`)
    /// know. Nothing is sent yet: an address that nobody listens at shows at the first use.
    ///
    /// # Errors
    /// If the list is empty or holds something else than addresses.
    pub async fn connect(name_servers: impl Into<String>) -> Result<Self, Error> {
        Self::builder(name_servers).build().await
    }

    /// Builds a client with other settings.
    pub fn builder(name_servers: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            name_servers: vec![name_servers.into()],
            instance: None,
            config: ClientConfig::default(),
            clock: Arc::new(SystemClock),
            transport: None,
            metrics: None,
        }
    }

    /// Builds a producer in `group`.
    pub fn producer(&self, group: impl AsRef<str>) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), group.as_ref())
    }

    /// Builds a producer of transactions in `group`.
    pub fn transaction_producer(&self, group: impl AsRef<str>) -> TransactionProducerBuilder {
        TransactionProducerBuilder::new(self.clone(), group.as_ref())
    }

    /// Builds a consumer in `group`.
    pub fn push_consumer(&self, group: impl AsRef<str>) -> PushConsumerBuilder {
        PushConsumerBuilder::new(self.clone(), group.as_ref())
    }

    /// Builds a consumer in `group` that gives messages when it is asked.
    pub fn pull_consumer(&self, group: impl AsRef<str>) -> PullConsumerBuilder {
        PullConsumerBuilder::new(self.clone(), group.as_ref())
    }

    /// Begins to build a consumer for *consume, transform, produce*: its offsets move with transactions.
    pub fn transactional_consumer(&self, group: impl AsRef<str>) -> TransactionalConsumerBuilder {
        TransactionalConsumerBuilder::new(self.clone(), group.as_ref())
    }

    /// How brokers call this client: `address@process#random`, or `address@instance`.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.shared.client_id
    }

    /// Closes all connections. Shut producers and consumers down first: what they still have in flight fails.
    pub async fn shutdown(&self) {
        self.shared.stop();
        // Lets the tasks see it, so that a runtime that ends right after has nothing to cut off.
        tokio::task::yield_now().await;
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("client_id", &self.shared.client_id).finish_non_exhaustive()
    }
}

/// Builds a [`Client`]; made by [`Client::builder`].
///
/// ```no_run
/// # async fn example() -> Result<(), mezzo_client::Error> {
/// use mezzo_client::Client;
/// use mezzo_client::config::ClientConfig;
///
/// let config = ClientConfig::default().request_timeout_ms(1_000);
/// let client = Client::builder("10.0.0.1:9876;10.0.0.2:9876").config(config).build().await?;
/// # drop(client);
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until build() is awaited"]
pub struct ClientBuilder {
    name_servers: Vec<String>,
    instance: Option<String>,
    config: ClientConfig,
    clock: Arc<dyn Clock>,
    transport: Option<Arc<dyn AnyTransport>>,
    metrics: Installed,
}

impl ClientBuilder {
    /// One more name server, or a list of them.
    pub fn name_server(mut self, address: impl Into<String>) -> Self {
        self.name_servers.push(address.into());
        self
    }

    /// A name for this client that stays the same over restarts. Without it the client makes one up.
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// All settings at once.
    pub fn config(mut self, config: ClientConfig) -> Self {
        self.config = config;
        self
    }

    /// Another clock than the system's: for tests that decide what time it is. Timeouts stay those of the runtime.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How bytes travel to name servers and brokers, instead of plain TCP: TLS, for example, see [`Transport`].
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// Counts and times what the client does.
    pub fn metrics(mut self, metrics: impl Metrics) -> Self {
        self.metrics = install(metrics);
        self
    }

    /// Checks the settings and starts the client's tasks on the current tokio runtime. Looks up the first name server's
    /// host name, if it has one, for at most `connect_timeout_ms`.
    ///
    /// # Errors
    /// If a setting is not usable.
    pub async fn build(self) -> Result<Client, Error> {
        let addresses = parse_addresses(&self.name_servers)?;
        let own_transport = self.transport.is_some();
        let local = match addresses.first() {
            Some(first) => local_address_towards(first, own_transport, self.config.connect_timeout_ms).await,
            None => Ipv4Addr::LOCALHOST.into(),
        };
        let client_id: Arc<str> = client_id(local, self.instance.as_deref())?.into();
        let (inbound_sender, inbound_receiver) = mpsc::channel(self.config.inbound_requests_max.max(1));
        let members = Arc::new(Members::default());
        let upkeep_now = Arc::new(Notify::new());
        let greeter =
            upkeep::HeartbeatGreeter { members: Arc::clone(&members), client_id: Arc::clone(&client_id) };
        let transport = self.transport.unwrap_or_else(|| Arc::new(TcpTransport));
        let net = NetConfig::new(&self.config, transport, self.metrics.clone());
        let reconnect = self.config.reconnect;
        let name_servers = NameServers::new(
            addresses,
            Pool::new(net.clone(), reconnect, inbound_sender.clone(), None, Arc::new(Notify::new())),
        );
        let brokers =
            Pool::new(net, reconnect, inbound_sender, Some(Arc::new(greeter)), Arc::clone(&upkeep_now));
        let routes = RouteCache::new(RouteCachePolicy {
            refresh_ms: self.config.route_refresh_ms,
            borrowed_refresh_ms: self.config.new_topic_refresh_ms,
            topics_max: self.config.route_topics_max,
        });
        let now = self.clock.now();
        let stopped = CancellationToken::new();
        let shared = Arc::new(Shared {
            unique_keys: UniqueKeys::new(local, std::process::id(), random_seed(), now),
            config: self.config,
            metrics: self.metrics,
            client_id,
            clock: self.clock,
            name_servers,
            brokers,
            members,
            routes: Mutex::new(routes),
            route_locks: Default::default(),
            cluster: Mutex::default(),
            upkeep_now,
            routes_now: Arc::default(),
            stopped: stopped.clone(),
        });
        tokio::spawn(upkeep::run_heartbeats(Arc::downgrade(&shared)));
        tokio::spawn(upkeep::run_routes(Arc::downgrade(&shared)));
        tokio::spawn(inbound::run(Arc::downgrade(&shared), inbound_receiver));
        let guard = StopGuard { shared: Arc::clone(&shared), _cancel: stopped.drop_guard() };
        Ok(Client { shared, _stop: Arc::new(guard) })
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("name_servers", &self.name_servers)
            .field("instance", &self.instance)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Checks a group's name.
pub(crate) fn group_name(group: &str) -> Result<GroupName, Error> {
    GroupName::new(group).map_err(|error| Error::Config { setting: "group", reason: error.to_string() })
}

fn client_id(local: IpAddr, instance: Option<&str>) -> Result<String, Error> {
    let id = instance.map_or_else(
        || format!("{local}@{}#{:016x}", std::process::id(), random_seed()),
        |instance| format!("{local}@{instance}"),
    );
    if id.len() > CLIENT_ID_BYTES_MAX || instance.is_some_and(|instance| instance.is_empty()) {
        let reason = format!("it must have 1 to about {CLIENT_ID_BYTES_MAX} bytes");
        return Err(Error::Config { setting: "instance", reason });
    }
    Ok(id)
}

/// Our address on the way to `peer`, asked of the routing table: connecting a datagram socket sends nothing. An address
/// for a transport of the application's own may mean nothing to the system's name service: it is not looked up.
async fn local_address_towards(peer: &str, own_transport: bool, limit_ms: u64) -> IpAddr {
    let peer = match peer.parse::<SocketAddr>() {
        Ok(peer) => Some(peer),
        Err(_) if own_transport => None,
        Err(_) => {
            let found = timeout(Duration::from_millis(limit_ms), tokio::net::lookup_host(peer)).await;
            found.ok().and_then(Result::ok).and_then(|mut found| found.next())
        }
    };
    let ask = |peer: SocketAddr| {
        let any: IpAddr =
            if peer.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(peer)?;
        socket.local_addr()
    };
    let local = peer.and_then(|peer| ask(peer).ok());
    local.map_or(Ipv4Addr::LOCALHOST.into(), |local| local.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn settings_are_checked_before_anything_starts() {
        assert!(matches!(
            Client::connect("nowhere").await,
            Err(Error::Config { setting: "name_servers", .. })
        ));
        let unnamed = Client::builder("127.0.0.1:9876").instance("").build().await;
        assert!(matches!(unnamed, Err(Error::Config { setting: "instance", .. })));
    }

    #[tokio::test]
    async fn client_ids_differ_unless_they_are_given() {
        let first = Client::connect("127.0.0.1:9876").await.unwrap();
        let second = Client::connect("127.0.0.1:9876").await.unwrap();
        assert_ne!(first.client_id(), second.client_id());
        let named = Client::builder("127.0.0.1:9876").instance("pay-1").build().await.unwrap();
        assert_eq!(named.client_id(), "127.0.0.1@pay-1");
    }
}
