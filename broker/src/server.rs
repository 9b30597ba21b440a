//! The composition root: opens the store, binds the listeners, starts reactors and drivers, and stops them in order.
//!
//! ```text
//!   start   bind both listeners ─► resolve advertise ─► open store ─► services ─► reactors ─► drivers ─► accept
//!   stop    stop signal ─► acceptors and drivers end, connections finish their turn ─► background threads ─► sync,
//!           checkpoint ─► close
//! ```

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
};

use mezzo_protocol::time::Clock;
use mezzo_storage::{Background, OpenReport, StorageError, Store, file_system::RealFileSystem};
use tokio::sync::watch;

use crate::{
    clock::SystemClock,
    config::{Config, ConfigError},
    frontend::remoting::{reactor, turn::Role},
    metrics::Metrics,
    service::{
        self, Services,
        append::Appender,
        client_registry::ClientRegistry,
        delay::DelayedDelivery,
        group::Groups,
        long_poll::LongPolls,
        queue_lock::QueueLocks,
        route::Routes,
        stop::{self, Stop, Stopper},
        store_events::StoreEvents,
        topic::Topics,
        transaction::TransactionService,
    },
};

mod address;
mod open_files;
mod options;

pub use address::AddressError;

/// Most reactor threads, whatever the settings or the machine say.
const REACTORS_MAX: usize = 256;
/// Threads that may wait for the disk at a time: cold pulls of all connections, and check-backs.
const DISK_THREADS_MAX: usize = 64;

/// Why the broker did not start. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings that do not fit each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `server.advertise` cannot be resolved.
    #[error(transparent)]
    Advertise(#[from] AddressError),
    /// A listener's address is taken.
    #[error("{address} is in use: stop the program that listens there, or set {setting} to another address")]
    PortInUse {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
    },
    /// A listener cannot be opened for another reason.
    #[error("cannot listen on {address} ({setting}): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The data folder cannot be opened: locked, written by a newer version, damaged, unreadable.
    #[error("cannot open the data folder: {0}")]
    Store(#[from] StorageError),
    /// The operating system refuses threads or their runtimes.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// A running broker with its name server. Dropping it stops it as [`Broker::shutdown`] does, but blocks.
pub struct Broker {
    broker_address: SocketAddr,
    name_server_address: SocketAddr,
    advertised: SocketAddr,
    recovery: OpenReport,
    fenced: watch::Receiver<Option<String>>,
    broken: watch::Receiver<bool>,
    running: Option<Running>,
}

/// What has to be stopped.
struct Running {
    stopper: Stopper,
    threads: Vec<JoinHandle<()>>,
    background: Background,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Broker {
    /// Starts a broker with the system's clock; returns when both listeners accept. Needs no runtime of the caller's:
    /// the broker brings its own threads. Blocks while the data folder is recovered.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with_clock(config, Arc::new(SystemClock))
    }

    /// [`Broker::start`] with a clock of the caller's.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        config.check()?;
        let config = Arc::new(config);
        let broker = bind(config.server.listen, "server.listen")?;
        let name_server = bind(config.server.name_server_listen, "server.name_server_listen")?;
        let broker_address = broker.local_addr().map_err(StartError::Thread)?;
        let name_server_address = name_server.local_addr().map_err(StartError::Thread)?;
        let advertised = address::advertised(config.server.advertise.as_deref(), broker_address)?;

        let long_polls = Arc::new(LongPolls::new(&config.limits));
        let events = Arc::new(StoreEvents::new(Arc::clone(&long_polls)));
        let options = options::store_options(&config);
        let observer = Arc::<StoreEvents>::clone(&events);
        let (store, recovery) = Store::open(Arc::new(RealFileSystem), options, clock.now(), observer)?;
        let fenced = events.fenced();
        let services = Arc::new(services(&config, &store, events, &clock, advertised, long_polls));

        let (stopper, stop) = stop::pair();
        let background = store.run_background(Arc::clone(&clock))?;
        let metrics = Arc::clone(&services.metrics);
        let running = Running { stopper, threads: Vec::new(), background, store, clock, metrics };
        let (report_broken, broken) = watch::channel(false);
        let mut started = Self {
            broker_address,
            name_server_address,
            advertised,
            recovery,
            fenced,
            broken,
            running: Some(running),
        };
        // from here on an early return drops `started`, which stops what runs
        let listeners = [(broker, Role::Broker), (name_server, Role::NameServer)];
        let threads = threads(&services, listeners, &stop, report_broken).map_err(StartError::Thread)?;
        if let Some(running) = &mut started.running {
            running.threads = threads;
        }
        Ok(started)
    }

    /// Where the broker listens; the port is known even when port 0 was asked for.
    #[must_use]
    pub fn broker_address(&self) -> SocketAddr {
        self.broker_address
    }

    /// Where the name server listens.
    #[must_use]
    pub fn name_server_address(&self) -> SocketAddr {
        self.name_server_address
    }

    /// The address that clients are told.
    #[must_use]
    pub fn advertised_address(&self) -> SocketAddr {
        self.advertised
    }

    /// What was found in the data folder.
    #[must_use]
    pub fn recovery(&self) -> &OpenReport {
        &self.recovery
    }

    /// The store itself, for tests that read the log beside the broker.
    #[must_use]
    pub fn store(&self) -> Option<&Arc<Store>> {
        self.running.as_ref().map(|running| &running.store)
    }

    /// Returns the reason when the store refuses all further work because the disk failed it. Nothing is acknowledged
    /// any more then; the process has to end and recover from the disk.
    pub async fn fenced(&self) -> String {
        let mut fenced = self.fenced.clone();
        match fenced.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // the observer lives as long as the store, so there is nothing to wait for any more
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns when a part that every client relies on (accepting, check-backs, delays, offsets) has ended by a defect of
    /// this program. What is acknowledged is safe; the process should stop in order and start again.
    pub async fn broken(&self) {
        let mut broken = self.broken.clone();
        if broken.wait_for(|broken| *broken).await.is_err() {
            // the drivers ended in order
            std::future::pending::<()>().await;
        }
    }

    /// Stops accepting, lets requests in flight finish (at most `limits.stop_timeout`), syncs, checkpoints and closes.
    ///
    /// # Errors
    /// The log could not be synced or the checkpoint not be written.
    pub async fn shutdown(mut self) -> Result<(), StorageError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        running.stopper.stop();
        let (done, stopped) = tokio::sync::oneshot::channel();
        // joining blocks, and the caller's runtime may have one thread only
        let closer = std::thread::spawn(move || {
            // the receiver is gone only if the caller gave up waiting
            let _ = done.send(running.close());
        });
        let closed = stopped.await;
        if closer.join().is_err() {
            tracing::error!("stopping panicked");
        }
        closed.unwrap_or(Ok(()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        if let Err(error) = running.close() {
            tracing::error!(%error, "the store did not close cleanly");
        }
    }
}

impl Running {
    fn close(self) -> Result<(), StorageError> {
        self.stopper.stop();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the broker had panicked");
            }
        }
        self.background.stop();
        self.metrics.log();
        self.store.close(self.clock.now())
    }
}

fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse { address, setting },
        _ => StartError::Listen { address, setting, source },
    })
}

fn services(
    config: &Arc<Config>,
    store: &Arc<Store>,
    events: Arc<StoreEvents>,
    clock: &Arc<dyn Clock>,
    advertised: SocketAddr,
    long_polls: Arc<LongPolls>,
) -> Services {
    let appender = Appender::new(Arc::clone(store), events);
    Services {
        store: Arc::clone(store),
        clock: Arc::clone(clock),
        config: Arc::clone(config),
        advertised,
        clients: ClientRegistry::new(&config.limits),
        routes: Routes::new(Arc::clone(store), config, advertised),
        topics: Topics::new(Arc::clone(store), appender.clone(), config),
        groups: Groups::new(Arc::clone(store), appender.clone(), config),
        locks: QueueLocks::new(config.limits.locked_queues),
        long_polls,
        transactions: TransactionService::new(config),
        delay: DelayedDelivery::default(),
        metrics: Arc::new(Metrics::default()),
        appender,
    }
}

/// Starts the reactors and the thread of acceptors and drivers.
fn threads(
    services: &Arc<Services>,
    listeners: [(TcpListener, Role); 2],
    stop: &Stop,
    report_broken: watch::Sender<bool>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let count = match services.config.server.reactors {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        set => set,
    };
    let connections_max = open_files::connections(services.config.limits.connections);
    let (handover, mut threads) = reactor::spawn(count.min(REACTORS_MAX), connections_max, services, stop)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(DISK_THREADS_MAX)
        .build()?;
    let services = Arc::clone(services);
    let stop = stop.clone();
    let drivers = std::thread::Builder::new().name("drivers".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let mut tasks = tokio::task::JoinSet::new();
            for (listener, role) in listeners {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => {
                        let (handover, services) = (handover.clone(), Arc::clone(&services));
                        tasks.spawn(reactor::accept(listener, role, handover, services, stop.clone()));
                    }
                    Err(error) => {
                        tracing::error!(%error, "a listener could not be served");
                        report_broken.send_replace(true);
                    }
                }
            }
            tasks.spawn(service::client_registry::drive(Arc::clone(&services), stop.clone()));
            tasks.spawn(service::long_poll::drive(Arc::clone(&services), stop.clone()));
            tasks.spawn(service::transaction::drive(Arc::clone(&services), stop.clone()));
            tasks.spawn(service::delay::drive(Arc::clone(&services), stop.clone()));
            tasks.spawn(service::offset::drive(services, stop));
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a driver of the broker failed");
                    report_broken.send_replace(true);
                }
            }
        });
    })?;
    threads.push(drivers);
    Ok(threads)
}
