//! One connection per address, made on demand and again after a loss, with back-off. An attempt to connect runs in a task
//! of its own: whoever asked for it may give up waiting, and the next one finds it further on instead of starting anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mezzo_protocol::remoting::RemotingCommand;
use tokio::sync::{Notify, OwnedMutexGuard, mpsc};
use tokio::time::Instant;
use tracing::Instrument;

use super::connection::{Connection, Inbound, NetConfig};
use super::deadline::Deadline;
use super::encoding::{HeaderEncoding, Shown};
use super::endpoint::{Attempts, Endpoint};
use crate::core::backoff::BackoffPolicy;
use crate::error::RequestError;

/// Addresses remembered; past it those without a connection are forgotten.
const ENDPOINTS_MAX: usize = 1_024;

/// Longest wait for the answer to a heartbeat with a binary header that shows whether the peer reads such headers, in
/// milliseconds: it answered one in JSON just before.
const PROBE_MS: u64 = 1_000;

/// What to do while back-off forbids another attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Fail at once: there are other peers, or the next round will do.
    FailFast,
    /// Wait as long as the deadline allows.
    Wait,
}

/// What is said first on each new connection, so that the peer knows us before the first request.
pub(crate) trait Greeter: Send + Sync {
    /// The greeting, if there is anything to say yet.
    fn greeting(&self) -> Option<RemotingCommand>;
}

/// The connections of a client to brokers, or to name servers.
pub(crate) struct Pool {
    reconnect: BackoffPolicy,
    endpoints: Mutex<HashMap<Arc<str>, Arc<Endpoint>>>,
    maker: Arc<Maker>,
}

/// What it takes to make a connection; shared with the tasks that do.
struct Maker {
    config: NetConfig,
    inbound: mpsc::Sender<Inbound>,
    greeter: Option<Arc<dyn Greeter>>,
    lost: Arc<Notify>,
    closed: AtomicBool,
}

/// Closes a connection whose making was cut off before it was handed over: nobody else would.
struct Unfinished(Option<Arc<Connection>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.close("given up while it was being made");
        }
    }
}

impl Pool {
    /// No connections yet. `lost` is notified whenever a connection ends.
    pub(crate) fn new(
        config: NetConfig,
        reconnect: BackoffPolicy,
        inbound: mpsc::Sender<Inbound>,
        greeter: Option<Arc<dyn Greeter>>,
        lost: Arc<Notify>,
    ) -> Self {
        let maker = Maker { config, inbound, greeter, lost, closed: AtomicBool::new(false) };
        Self { reconnect, endpoints: Mutex::default(), maker: Arc::new(maker) }
    }

    /// The open connection to `address`, or a new one.
    pub(crate) async fn connection(
        &self,
        address: &Arc<str>,
        patience: Patience,
        deadline: Deadline,
    ) -> Result<Arc<Connection>, RequestError> {
        let endpoint = self.endpoint(address);
        if let Some(connection) = endpoint.open_connection() {
            return Ok(connection);
        }
        let unreachable = |reason: &str| RequestError::Unreachable {
            address: Arc::clone(address),
            reason: reason.to_owned(),
        };
        let attempts = loop {
            let lock = Arc::clone(&endpoint.attempts).lock_owned();
            let Ok(mut attempts) = tokio::time::timeout_at(deadline.at(), lock).await else {
                return Err(unreachable("another attempt to connect is under way"));
            };
            if self.maker.is_closed() {
                return Err(RequestError::ShutDown);
            }
            if let Some(connection) = endpoint.open_connection() {
                return Ok(connection);
            }
            attempts.note_short_life();
            let not_before = attempts.not_before;
            if not_before <= Instant::now() {
                break attempts;
            }
            let last = attempts.last_error.clone();
            // Whoever does not want to wait must learn so at once: nobody sleeps with the lock.
            drop(attempts);
            if patience == Patience::Wait {
                tokio::time::sleep_until(not_before.min(deadline.at())).await;
            }
            if patience == Patience::FailFast || deadline.is_over() {
                return Err(last.unwrap_or_else(|| unreachable("waiting before the next attempt to connect")));
            }
        };
        let span = tracing::debug_span!("connect", %address);
        let making = Arc::clone(&self.maker).make(Arc::clone(&endpoint), attempts).instrument(span);
        match tokio::time::timeout_at(deadline.at(), tokio::spawn(making)).await {
            Ok(Ok(made)) => made,
            Ok(Err(ended)) if ended.is_panic() => {
                let error = unreachable("the transport panicked");
                // Without this the next attempt would follow at once.
                if let Ok(mut attempts) = endpoint.attempts.try_lock() {
                    attempts.failed(address, &error);
                }
                Err(error)
            }
            Ok(Err(_runtime_ends)) => Err(RequestError::ShutDown),
            Err(_) => Err(unreachable(&format!("not connected within {} ms", deadline.waited_ms()))),
        }
    }

    /// The connection to `address` if it is open: for what must not wait.
    pub(crate) fn open_connection(&self, address: &str) -> Option<Arc<Connection>> {
        let endpoint = self.lock().get(address).cloned();
        endpoint.and_then(|endpoint| endpoint.open_connection())
    }

    /// All open connections.
    pub(crate) fn open_connections(&self) -> Vec<Arc<Connection>> {
        let endpoints: Vec<_> = self.lock().values().cloned().collect();
        endpoints.iter().filter_map(|endpoint| endpoint.open_connection()).collect()
    }

    /// Closes everything, for good.
    pub(crate) fn close_all(&self, reason: &str) {
        self.maker.closed.store(true, Ordering::SeqCst);
        for connection in self.open_connections() {
            connection.close(reason);
        }
    }

    fn endpoint(&self, address: &Arc<str>) -> Arc<Endpoint> {
        let mut endpoints = self.lock();
        if let Some(endpoint) = endpoints.get(address) {
            return Arc::clone(endpoint);
        }
        if endpoints.len() >= ENDPOINTS_MAX {
            // One that is being connected to stays as well: its connection is to be found by others.
            endpoints.retain(|_, endpoint| {
                endpoint.open_connection().is_some() || endpoint.attempts.try_lock().is_err()
            });
        }
        let endpoint = Arc::new(Endpoint::new(address, self.reconnect));
        endpoints.insert(Arc::clone(&endpoint.address), Arc::clone(&endpoint));
        endpoint
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Endpoint>>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maker {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// One attempt to connect, whoever waits for it: at most twice the time for connecting and greeting. Ends with the
    /// connection in its endpoint, or with the failure noted.
    async fn make(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        mut attempts: OwnedMutexGuard<Attempts>,
    ) -> Result<Arc<Connection>, RequestError> {
        let began = Instant::now();
        let address = &endpoint.address;
        let connection = match self.meet(address, &mut attempts.json_only).await {
            Ok(connection) => connection,
            Err(error) => {
                attempts.failed(address, &error);
                drop(attempts);
                if let Some(metrics) = &self.config.metrics {
                    metrics.not_connected(address, &error);
                }
                return Err(error);
            }
        };
        attempts.succeeded(address);
        endpoint.put(&connection);
        drop(attempts);
        if self.is_closed() {
            // Closed meanwhile, when this connection was not in the table yet.
            connection.close("the client is shut down");
            return Err(RequestError::ShutDown);
        }
        if let Some(metrics) = &self.config.metrics {
            metrics.connected(address, began.elapsed());
        }
        tokio::spawn(self.watch(Arc::clone(&connection)));
        Ok(connection)
    }

    /// Connects, says who we are, and finds out how headers may be written.
    async fn meet(&self, address: &Arc<str>, json_only: &mut bool) -> Result<Arc<Connection>, RequestError> {
        let (connection, shown) = self.open_and_greet(address).await?;
        if shown != Shown::Likely || self.config.encoding != HeaderEncoding::Auto || *json_only {
            return Ok(connection);
        }
        // What a peer that cannot read a frame makes of the rest of it nobody knows: that connection is closed.
        let mut unfinished = Unfinished(Some(Arc::clone(&connection)));
        connection.use_binary();
        if self.is_answered_again(&connection).await {
            unfinished.0 = None;
            return Ok(connection);
        }
        drop(unfinished);
        *json_only = true;
        tracing::info!(%address, "the broker does not read binary headers; it gets JSON");
        let (connection, _) = self.open_and_greet(address).await?;
        Ok(connection)
    }

    /// Connects and says who we are; a peer that takes the connection and says nothing is not there.
    async fn open_and_greet(&self, address: &Arc<str>) -> Result<(Arc<Connection>, Shown), RequestError> {
        let limit_ms = self.config.connect_timeout_ms;
        let connection =
            Connection::open(address, &self.config, Deadline::after_ms(limit_ms), self.inbound.clone())
                .await?;
        let mut unfinished = Unfinished(Some(Arc::clone(&connection)));
        let shown = self.greet(&connection, Deadline::after_ms(limit_ms)).await.map_err(|error| {
            let reason = format!("it did not answer the first heartbeat: {error}");
            RequestError::Unreachable { address: Arc::clone(address), reason }
        })?;
        unfinished.0 = None;
        Ok((connection, shown))
    }

    /// An error means that there was no answer that could be read.
    async fn greet(&self, connection: &Connection, deadline: Deadline) -> Result<Shown, RequestError> {
        let Some(greeting) = self.greeting() else { return Ok(Shown::Nothing) };
        let answer = connection.request(greeting, deadline).await?;
        if let Err(error) = answer.success() {
            // The next heartbeat says it again; requests may work all the same.
            tracing::warn!(address = %connection.address(), %error, "the broker did not take the first heartbeat");
        }
        Ok(connection.learn(&answer.header()?))
    }

    /// Whether a second heartbeat is taken as the first was, now that its header is binary.
    async fn is_answered_again(&self, connection: &Connection) -> bool {
        let Some(greeting) = self.greeting() else { return false };
        let deadline = Deadline::after_ms(self.config.connect_timeout_ms.min(PROBE_MS));
        connection.request(greeting, deadline).await.is_ok_and(|answer| answer.success().is_ok())
    }

    fn greeting(&self) -> Option<RemotingCommand> {
        self.greeter.as_ref().and_then(|greeter| greeter.greeting())
    }

    async fn watch(self: Arc<Self>, connection: Arc<Connection>) {
        connection.closed().await;
        if let Some(metrics) = &self.config.metrics {
            metrics.disconnected(connection.address(), &connection.reason());
        }
        self.lost.notify_one();
    }
}
