//! The state behind a [`Client`](crate::Client) and the requests that everything in it makes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mezzo_protocol::ids::GroupName;
use mezzo_protocol::remoting::header::client::UnregisterClientHeader;
use mezzo_protocol::remoting::{RemotingCommand, RequestCode};
use mezzo_protocol::time::{Clock, Timestamp};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::members::{ConsumerMember, Members, Membership, Role};
use super::name_servers::NameServers;
use crate::config::ClientConfig;
use crate::core::route_cache::RouteCache;
use crate::error::{Error, RequestError};
use crate::metrics::Installed;
use crate::net::{Connection, Deadline, Patience, Pool, Reply};
use crate::unique_key::UniqueKeys;

/// Locks by topic: at most one task asks for one topic's route (and a few others that share the lock) at a time.
const ROUTE_LOCKS: usize = 16;

/// What producers, consumers and the client's own tasks share.
pub(crate) struct Shared {
    pub(crate) config: ClientConfig,
    pub(crate) metrics: Installed,
    pub(crate) client_id: Arc<str>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) unique_keys: UniqueKeys,
    pub(super) name_servers: NameServers,
    pub(super) brokers: Pool,
    pub(super) members: Arc<Members>,
    pub(super) routes: Mutex<RouteCache>,
    pub(super) route_locks: [tokio::sync::Mutex<()>; ROUTE_LOCKS],
    /// Addresses of all brokers that the name servers know; only asked for while there are transaction producers.
    pub(super) cluster: Mutex<BTreeSet<Arc<str>>>,
    /// Wakes the heartbeat task: a member joined, a broker was learnt, or a connection was lost.
    pub(super) upkeep_now: Arc<Notify>,
    /// Wakes the task that keeps routes and the list of brokers fresh.
    pub(super) routes_now: Arc<Notify>,
    /// Cancelled when the client is shut down or dropped.
    pub(crate) stopped: CancellationToken,
}

impl Shared {
    /// The time by the client's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The deadline of a request that has no time of its own.
    pub(crate) fn request_deadline(&self) -> Deadline {
        Deadline::after_ms(self.config.request_timeout_ms)
    }

    /// Sends a request to the broker at `address` and waits for its answer, whatever its code.
    pub(crate) async fn request(
        &self,
        address: &Arc<str>,
        patience: Patience,
        command: RemotingCommand,
        deadline: Deadline,
    ) -> Result<Reply, RequestError> {
        self.connection(address, patience, deadline).await?.request(command, deadline).await
    }

    /// The connection to the broker at `address`.
    pub(crate) async fn connection(
        &self,
        address: &Arc<str>,
        patience: Patience,
        deadline: Deadline,
    ) -> Result<Arc<Connection>, RequestError> {
        if self.stopped.is_cancelled() {
            return Err(RequestError::ShutDown);
        }
        self.brokers.connection(address, patience, deadline).await
    }

    /// The connection to the broker at `address` if there is one: for what must not wait.
    pub(crate) fn open_connection(&self, address: &str) -> Option<Arc<Connection>> {
        self.brokers.open_connection(address)
    }

    /// Joins a group as a producer and tells brokers in the background.
    pub(crate) fn join_producer(self: &Arc<Self>, group: &GroupName) -> Membership {
        let membership = self.members.join_producer(group);
        self.upkeep_now.notify_one();
        membership.with_farewell(self)
    }

    /// Joins a group as the one that answers its check-backs.
    pub(crate) fn join_transaction_producer(
        self: &Arc<Self>,
        group: &GroupName,
        check_backs: tokio::sync::mpsc::Sender<super::CheckBackRequest>,
    ) -> Result<Membership, Error> {
        Ok(self.members.join_transaction_producer(group, check_backs)?.with_farewell(self))
    }

    /// Joins a group as its consumer.
    pub(crate) fn join_consumer(
        self: &Arc<Self>,
        group: &GroupName,
        member: ConsumerMember,
    ) -> Result<Membership, Error> {
        Ok(self.members.join_consumer(group, member)?.with_farewell(self))
    }

    /// Leaves a group in an orderly way: returns when the brokers know it.
    pub(crate) async fn leave(&self, membership: Membership) {
        let Some((group, role)) = membership.give_up() else { return };
        let command = self.unregistration(&group, role);
        let deadline = self.request_deadline();
        let mut told = JoinSet::new();
        for connection in self.brokers.open_connections() {
            let command = command.clone();
            told.spawn(async move {
                if let Err(error) = connection.request(command, deadline).await {
                    // The broker finds out by itself when the heartbeats end.
                    tracing::debug!(address = %connection.address(), %error, "the broker was not told of our leaving");
                }
            });
        }
        while told.join_next().await.is_some() {}
    }

    /// Leaves a group without waiting, for destructors: the brokers learn it if their connections take it at once.
    pub(super) fn say_farewell(&self, group: &GroupName, role: Role) {
        let command = self.unregistration(group, role).oneway();
        for connection in self.brokers.open_connections() {
            if let Err(error) = connection.try_send(&command) {
                tracing::debug!(address = %connection.address(), %error, "the broker was not told of our leaving");
            }
        }
    }

    fn unregistration(&self, group: &GroupName, role: Role) -> RemotingCommand {
        let group = Some(group.as_str().into());
        let (producer_group, consumer_group) = match role {
            Role::Producer | Role::TransactionProducer => (group, None),
            Role::Consumer => (None, group),
        };
        let header =
            UnregisterClientHeader { client_id: (*self.client_id).into(), producer_group, consumer_group };
        RemotingCommand::request(RequestCode::UNREGISTER_CLIENT, header.encode(), Vec::new())
    }

    /// Ends everything at once.
    pub(crate) fn stop(&self) {
        self.stopped.cancel();
        self.brokers.close_all("the client is shut down");
        self.name_servers.close("the client is shut down");
    }

    pub(super) fn routes(&self) -> MutexGuard<'_, RouteCache> {
        // No code panics while it holds the lock, and each change of the cache is complete in itself.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
