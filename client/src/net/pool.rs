//! One connection per address, made on demand and again after a loss, with back-off.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mezzo_protocol::remoting::RemotingCommand;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::connection::{Connection, Inbound, NetConfig};
use super::deadline::Deadline;
use crate::clock::random_seed;
use crate::core::backoff::{Backoff, BackoffPolicy};
use crate::error::RequestError;

/// A connection that lived shorter than this counts as a failed attempt, in milliseconds: a peer that accepts and hangs
/// up at once must not be called in a tight loop.
const SHORT_LIFE_MS: u64 = 1_000;

/// Addresses remembered; past it those without a connection are forgotten.
const ENDPOINTS_MAX: usize = 1_024;

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

/// How often and when connecting failed.
#[derive(Debug)]
struct Attempts {
    backoff: Backoff,
    opened: Option<Instant>,
    not_before: Instant,
    last_error: Option<RequestError>,
}

#[derive(Debug)]
struct Endpoint {
    address: Arc<str>,
    current: Mutex<Option<Arc<Connection>>>,
    attempts: tokio::sync::Mutex<Attempts>,
}

impl Endpoint {
    fn current(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_connection(&self) -> Option<Arc<Connection>> {
        self.current().as_ref().filter(|connection| connection.is_open()).cloned()
    }
}

/// The connections of a client to brokers, or to name servers.
pub(crate) struct Pool {
    config: NetConfig,
    reconnect: BackoffPolicy,
    endpoints: Mutex<HashMap<Arc<str>, Arc<Endpoint>>>,
    inbound: mpsc::Sender<Inbound>,
    greeter: Option<Arc<dyn Greeter>>,
    lost: Arc<Notify>,
    closed: AtomicBool,
}

/// Closes a connection that its maker gave up before it was handed over: nobody else would.
struct Unfinished(Option<Arc<Connection>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.close("given up while it was being made");
        }
    }
}

impl Pool {
    /// No connections yet. `lost` is notified whenever a connection ends that was not closed by us.
    pub(crate) fn new(
        config: NetConfig,
        reconnect: BackoffPolicy,
        inbound: mpsc::Sender<Inbound>,
        greeter: Option<Arc<dyn Greeter>>,
        lost: Arc<Notify>,
    ) -> Self {
        Self {
            config,
            reconnect,
            endpoints: Mutex::default(),
            inbound,
            greeter,
            lost,
            closed: AtomicBool::new(false),
        }
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
        let mut attempts = loop {
            let Ok(mut attempts) = tokio::time::timeout_at(deadline.at(), endpoint.attempts.lock()).await
            else {
                return Err(unreachable("another attempt to connect is under way"));
            };
            if self.closed.load(Ordering::SeqCst) {
                return Err(RequestError::ShutDown);
            }
            if let Some(connection) = endpoint.open_connection() {
                return Ok(connection);
            }
            self.note_short_life(&mut attempts);
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
        match Connection::open(address, &self.config, deadline, self.inbound.clone()).await {
            Ok(connection) => {
                attempts.opened = Some(Instant::now());
                let mut unfinished = Unfinished(Some(Arc::clone(&connection)));
                self.greet(&connection, deadline).await;
                *endpoint.current() = Some(Arc::clone(&connection));
                unfinished.0 = None;
                drop(attempts);
                if self.closed.load(Ordering::SeqCst) {
                    // Closed meanwhile, when this connection was not in the table yet.
                    connection.close("the client is shut down");
                    return Err(RequestError::ShutDown);
                }
                self.watch(Arc::clone(&connection));
                tracing::debug!(%address, "connected");
                Ok(connection)
            }
            Err(error) => {
                let delay_ms = attempts.backoff.next_delay_ms();
                attempts.not_before = Instant::now() + Duration::from_millis(delay_ms);
                attempts.last_error = Some(error.clone());
                let failures = attempts.backoff.failures();
                tracing::debug!(%address, %error, failures, delay_ms, "not connected");
                Err(error)
            }
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
        self.closed.store(true, Ordering::SeqCst);
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
            endpoints.retain(|_, endpoint| endpoint.open_connection().is_some());
        }
        let attempts = Attempts {
            backoff: Backoff::new(self.reconnect, random_seed()),
            opened: None,
            not_before: Instant::now(),
            last_error: None,
        };
        let endpoint = Arc::new(Endpoint {
            address: Arc::clone(address),
            current: Mutex::new(None),
            attempts: tokio::sync::Mutex::new(attempts),
        });
        endpoints.insert(Arc::clone(&endpoint.address), Arc::clone(&endpoint));
        endpoint
    }

    /// Judges the connection before: one that lived a while forgives earlier failures, a short one is a failure.
    fn note_short_life(&self, attempts: &mut Attempts) {
        let Some(opened) = attempts.opened.take() else { return };
        if opened.elapsed() >= Duration::from_millis(SHORT_LIFE_MS) {
            attempts.backoff.reset();
            attempts.not_before = Instant::now();
        } else {
            attempts.not_before = Instant::now() + Duration::from_millis(attempts.backoff.next_delay_ms());
        }
        attempts.last_error = None;
    }

    async fn greet(&self, connection: &Connection, deadline: Deadline) {
        let Some(greeting) = self.greeter.as_ref().and_then(|greeter| greeter.greeting()) else { return };
        let answer = connection.request(greeting, deadline).await;
        if let Err(error) =
            answer.as_ref().map_err(Clone::clone).and_then(|reply| reply.success().map(|_| ()))
        {
            // The next heartbeat says it again; requests may work all the same.
            tracing::warn!(address = %connection.address(), %error, "the broker did not take the first heartbeat");
        }
    }

    fn watch(&self, connection: Arc<Connection>) {
        let lost = Arc::clone(&self.lost);
        tokio::spawn(async move {
            connection.closed().await;
            lost.notify_one();
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Endpoint>>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
