//! The composition root: opens the store, binds the listeners, starts reactors and drivers, and stops them in order.
//!
//! ```text
//!   start   bind both listeners ─► resolve advertise ─► folder ─► open store ─► services ─► reactors ─► drivers ─► accept
//!   stop    stop signal ─► acceptors and drivers end, connections finish their turn ─► background threads ─► sync,
//!           checkpoint ─► close
//! ```

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    thread::JoinHandle,
};

use mezzo_protocol::time::Clock;
use mezzo_storage::{Background, OpenReport, StorageError, Store, file_system::RealFileSystem};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};

use crate::{
    clock::SystemClock,
    config::{Config, ConfigError},
    frontend::{
        http,
        remoting::{reactor, turn::Role},
    },
    metrics::Metrics,
    service::{
        self, DiskThreads, Services,
        append::Appender,
        client_registry::ClientRegistry,
        delay::DelayedDelivery,
        group::Groups,
        in_flight::InFlight,
        long_poll::LongPolls,
        queue_lock::QueueLocks,
        route::Routes,
        stop::{self, Stop, Stopper},
        store_events::StoreEvents,
        topic::Topics,
        transaction::TransactionService,
        watched::Receiver,
    },
};

mod address;
mod open_files;
mod options;
mod stepped;

pub use address::AddressError;
pub use stepped::{SteppedBroker, Surroundings};

pub use crate::frontend::remoting::transport::Transport;

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
    #[error(
        "cannot listen on {address}: {source}; set {setting} to an address of this machine with a port that this user \
         may open"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        setting: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The data folder cannot be opened: locked, written by a newer version, damaged, unreadable.
    #[error("cannot open the data folder: {error}{todo}", error = .0, todo = what_to_do(.0))]
    Store(#[from] StorageError),
    /// The folder of [`Config::temporary`] cannot be made.
    #[error("cannot make a folder in {}: {source}; set TMPDIR to a folder that can be written", dir.display())]
    TemporaryFolder {
        /// The folder for temporary files.
        dir: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The operating system refuses threads or their runtimes.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// A running broker with its name server, on threads of its own.
///
/// End it with [`Broker::shutdown`]. Dropping it does the same but blocks the dropping thread until the threads have
/// ended (at most about `limits.stop_timeout`), and can only log what went wrong; that is fine at the end of a test, also
/// of one that panics. Shut clients down first: they would go on looking for the broker.
///
/// ```
/// use mezzo_broker::{Broker, Config};
/// use mezzo_client::{Client, Message};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = Broker::start(Config::temporary()).await?;
///
/// let client = Client::connect(broker.name_server()).await?;
/// let producer = client.producer("greeters").start().await?;
/// producer.send(Message::new("greetings", "hello")?).await?;
///
/// client.shutdown().await;
/// broker.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a broker stops it"]
pub struct Broker {
    broker_address: SocketAddr,
    name_server_address: SocketAddr,
    advertised: SocketAddr,
    metrics_address: Option<SocketAddr>,
    data_dir: PathBuf,
    recovery: OpenReport,
    fenced: Receiver<Option<String>>,
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
    /// Goes when all else is closed.
    folder: Option<TempDir>,
}

impl Broker {
    /// Starts a broker; ready when both listeners accept and the data folder is recovered. The work happens on a thread
    /// of its own, so that no executor waits for the disk, and any executor will do.
    ///
    /// If the caller gives up (drops the future), what was started is stopped again in the background.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let (done, started) = oneshot::channel();
        let starter = std::thread::Builder::new().name("starter".to_owned());
        let starting = starter.spawn(move || {
            // a caller that gave up gets nothing: the broker is dropped here, which stops it
            let _ = done.send(Self::start_blocking(config));
        });
        starting.map_err(StartError::Thread)?;
        let panicked = |_| Err(StartError::Thread(io::Error::other("it panicked while the broker started")));
        started.await.unwrap_or_else(panicked)
    }

    /// [`Broker::start`] for callers that are not async. Blocks while the data folder is recovered; needs no runtime: the
    /// broker brings its own threads.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start_blocking(config: Config) -> Result<Self, StartError> {
        Self::start_blocking_with_clock(config, Arc::new(SystemClock))
    }

    /// [`Broker::start_blocking`] with a clock of the caller's: for tests that decide what time it is.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_blocking_with_clock(mut config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        config.check()?;
        let broker = bind(config.server.listen, "server.listen")?;
        let name_server = bind(config.server.name_server_listen, "server.name_server_listen")?;
        let watch = config.metrics.listen.map(|address| bind(address, "metrics.listen")).transpose()?;
        let metrics_address = watch.as_ref().and_then(|listener| listener.local_addr().ok());
        let broker_address = broker.local_addr().map_err(StartError::Thread)?;
        let name_server_address = name_server.local_addr().map_err(StartError::Thread)?;
        let advertised = address::advertised(config.server.advertise.as_deref(), broker_address)?;
        let folder = if config.is_temporary() { Some(temporary_folder()?) } else { None };
        if let Some(folder) = &folder {
            folder.path().clone_into(&mut config.store.dir);
        }
        let config = Arc::new(config);

        let long_polls = Arc::new(LongPolls::new(&config.limits));
        let events = Arc::new(StoreEvents::new(Arc::clone(&long_polls)));
        let options = options::store_options(&config);
        let observer = Arc::<StoreEvents>::clone(&events);
        let (store, recovery) = Store::open(Arc::new(RealFileSystem), options, clock.now(), observer)?;
        let fenced = events.fenced();
        let services =
            services(&config, &store, events, &clock, advertised, long_polls, DiskThreads::OfRuntime);
        let services = Arc::new(services);

        let (stopper, stop) = stop::pair();
        let background = store.run_background(Arc::clone(&clock))?;
        let metrics = Arc::clone(&services.metrics);
        let running = Running { stopper, threads: Vec::new(), background, store, clock, metrics, folder };
        let (report_broken, broken) = watch::channel(false);
        let mut started = Self {
            broker_address,
            name_server_address,
            advertised,
            metrics_address,
            data_dir: config.store.dir.clone(),
            recovery,
            fenced,
            broken,
            running: Some(running),
        };
        // from here on an early return drops `started`, which stops what runs
        let listeners = [(broker, Role::Broker), (name_server, Role::NameServer)];
        let threads =
            threads(&services, listeners, watch, &stop, report_broken).map_err(StartError::Thread)?;
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

    /// The name server as [`Client::connect`](mezzo_client::Client::connect) takes it, for clients on this machine.
    #[must_use]
    pub fn name_server(&self) -> String {
        let mut address = self.name_server_address;
        if address.ip().is_unspecified() {
            // a listener on all addresses is not an address to connect to everywhere
            address.set_ip(if address.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            });
        }
        address.to_string()
    }

    /// Where metrics and health are served, if `metrics.listen` says so.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// The address that clients are told.
    #[must_use]
    pub fn advertised_address(&self) -> SocketAddr {
        self.advertised
    }

    /// Where the data is. The folder of [`Config::temporary`] goes with the broker.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
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
        match self.fenced.wait_for(Option::is_some).await {
            Ok(()) => self.fenced.borrow().clone().unwrap_or_default(),
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

    /// Stops accepting, lets requests in flight finish (at most `limits.stop_timeout`), syncs, checkpoints and closes;
    /// ready when ports and folder are free again. The folder of [`Config::temporary`] is removed.
    ///
    /// # Errors
    /// The log could not be synced or the checkpoint not be written.
    pub async fn shutdown(mut self) -> Result<(), StorageError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        running.stopper.stop();
        let (done, stopped) = oneshot::channel();
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
        if let Some(window_ms) = self.store.first_sends().effective_window_ms(self.clock.now()) {
            tracing::info!(window_ms, "repeated sends were told so far back");
        }
        let closed = self.store.close(self.clock.now());
        drop(self.store);
        // what cannot be removed stays in the folder for temporary files, where it is swept some time
        if let Some(Err(error)) = self.folder.map(TempDir::close) {
            tracing::warn!(%error, "the temporary data folder could not be removed");
        }
        closed
    }
}

/// What helps when the folder itself is the problem; the other errors of the store say it themselves.
fn what_to_do(error: &StorageError) -> &'static str {
    match error {
        StorageError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            "; make room on its disk and start again"
        }
        StorageError::Io { .. } => {
            "; make it writable for this user, or set store.dir (--data-dir) to another folder"
        }
        StorageError::Corrupt { .. } => {
            "; `mezzo log verify` tells what is lost with it; restore the folder from a backup, or let the loss go with \
             `mezzo log repair --accept-loss`"
        }
        _ => "",
    }
}

fn temporary_folder() -> Result<TempDir, StartError> {
    let made = tempfile::Builder::new().prefix("mezzo-").tempdir();
    made.map_err(|source| StartError::TemporaryFolder { dir: std::env::temp_dir(), source })
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
    disk_threads: DiskThreads,
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
        senders: Arc::default(),
        in_flight: InFlight::new(config.limits.in_flight_bytes),
        metrics: Arc::new(Metrics::new(reactors(config))),
        disk_threads,
        appender,
    }
}

/// How many threads serve connections.
fn reactors(config: &Config) -> usize {
    let wanted = match config.server.reactors {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        set => set,
    };
    wanted.min(REACTORS_MAX)
}

/// A part of the broker that works without being asked.
pub type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What moves with time: memberships, held pulls, check-backs, delays, offsets. Each ends with the stop signal.
fn drivers(services: &Arc<Services>, stop: &Stop) -> [Driver; 5] {
    [
        Box::pin(service::client_registry::drive(Arc::clone(services), stop.clone())),
        Box::pin(service::long_poll::drive(Arc::clone(services), stop.clone())),
        Box::pin(service::transaction::drive(Arc::clone(services), stop.clone())),
        Box::pin(service::delay::drive(Arc::clone(services), stop.clone())),
        Box::pin(service::offset::drive(Arc::clone(services), stop.clone())),
    ]
}

/// Starts the reactors and the thread of acceptors and drivers.
fn threads(
    services: &Arc<Services>,
    listeners: [(TcpListener, Role); 2],
    metrics: Option<TcpListener>,
    stop: &Stop,
    report_broken: watch::Sender<bool>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let connections_max = open_files::connections(services.config.limits.connections);
    let (handover, mut threads) =
        reactor::spawn(reactors(&services.config), connections_max, services, stop)?;
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
            match metrics.map(tokio::net::TcpListener::from_std).transpose() {
                Ok(Some(listener)) => {
                    tasks.spawn(http::serve(listener, Arc::clone(&services), stop.clone()));
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "metrics cannot be served"),
            }
            for driver in drivers(&services, &stop) {
                tasks.spawn(driver);
            }
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
