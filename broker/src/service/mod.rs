//! What the broker does, one file per operation, free of any wire format: a front-end translates into these calls.
//!
//! [`Services`] is the one handle that front-ends and drivers share. Its parts own their state and their bounds;
//! whatever must survive a restart goes through [`append::Appender`] or a connection's batch into the log.

use std::{net::SocketAddr, sync::Arc};

use mezzo_protocol::time::{Clock, Timestamp};
use mezzo_storage::Store;
use tokio::task::JoinHandle;

use crate::{config::Config, metrics::Metrics};

pub(crate) mod alarm;
pub(crate) mod append;
pub(crate) mod client_channel;
pub(crate) mod client_registry;
pub(crate) mod dedup;
pub(crate) mod delay;
pub(crate) mod doubt;
pub(crate) mod group;
pub(crate) mod in_flight;
pub(crate) mod long_poll;
pub(crate) mod offset;
pub(crate) mod pull;
pub(crate) mod queue_lock;
pub(crate) mod redelivery;
pub(crate) mod route;
pub(crate) mod scrape;
pub(crate) mod seldom;
pub(crate) mod send;
pub(crate) mod stop;
pub(crate) mod store_events;
pub(crate) mod topic;
pub(crate) mod transaction;
pub(crate) mod transaction_admin;
pub(crate) mod watched;

/// Everything a request can need, built once at start and shared by all reactors and drivers.
pub(crate) struct Services {
    /// The log and all views of it.
    pub(crate) store: Arc<Store>,
    /// The only source of time; tests give their own.
    pub(crate) clock: Arc<dyn Clock>,
    /// The settings the broker was started with, already checked.
    pub(crate) config: Arc<Config>,
    /// Where clients reach the broker: in routes, in offset message ids and as the store host of messages.
    pub(crate) advertised: SocketAddr,
    /// Appends outside a connection's batch, and the wait for the limit.
    pub(crate) appender: append::Appender,
    /// Who is connected: producers by group, consumers by group.
    pub(crate) clients: client_registry::ClientRegistry,
    /// What a client needs to know to reach a topic.
    pub(crate) routes: route::Routes,
    /// Creates and changes topics.
    pub(crate) topics: topic::Topics,
    /// Creates and changes consumer groups.
    pub(crate) groups: group::Groups,
    /// Which client of a group owns which queue (ordered consumers).
    pub(crate) locks: queue_lock::QueueLocks,
    /// Pulls that wait for their queue to grow.
    pub(crate) long_polls: Arc<long_poll::LongPolls>,
    /// Check-backs: who is asked when about undecided transactions.
    pub(crate) transactions: transaction::TransactionService,
    /// Wakes the driver that makes delayed messages visible when they are due.
    pub(crate) delay: delay::DelayedDelivery,
    /// Connections that send to topics with de-duplication.
    pub(crate) senders: Arc<dedup::Senders>,
    /// Bytes of requests and answers under way, over all connections.
    pub(crate) in_flight: Arc<in_flight::InFlight>,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Where work runs that may wait for the disk.
    pub(crate) disk_threads: DiskThreads,
}

/// Where work runs that may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskThreads {
    /// On threads of the runtime that may block; each runtime bounds their number.
    OfRuntime,
    /// On the thread of its caller, as one more task: a simulation has one thread, and a disk that never makes it wait.
    None,
}

impl Services {
    /// The clock's time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Runs `work` where it may wait for the disk.
    pub(crate) fn on_disk_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        match self.disk_threads {
            DiskThreads::OfRuntime => tokio::task::spawn_blocking(work),
            DiskThreads::None => tokio::spawn(async move { work() }),
        }
    }
}
