//! A broker without threads and sockets of its own: whoever drives it brings the disk, the clock and the connections,
//! polls its futures, and takes the steps that threads of the store take otherwise. For simulations that repeat
//! themselves: with one thread, a clock that is moved by hand and a simulated disk, nothing in it depends on chance.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mezzo_protocol::time::{Clock, Timestamp};
use mezzo_storage::{OpenReport, StorageError, Store, StoreOptions, file_system::FileSystem};

use super::{Driver, StartError, Transport, drivers, options, services};
use crate::{
    config::Config,
    frontend::remoting::{connection, reactor, turn::Role},
    service::{
        DiskThreads, Services,
        client_channel::ChannelId,
        long_poll::LongPolls,
        stop::{self, Stop, Stopper},
        store_events::StoreEvents,
        watched::Receiver,
    },
};

/// What a broker otherwise takes from the machine that it runs on.
pub struct Surroundings {
    /// The disk.
    pub disk: Arc<dyn FileSystem>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The secret of a log that is created.
    pub nonce: [u8; 16],
    /// Whether whoever appends to an idle log syncs it, too; if not, every sync is a step of [`Store::sync_step`].
    pub appends_sync: bool,
    /// Has the last word about what the store is opened with: a simulated folder may be smaller than what people are
    /// let choose, so that retention begins after kilobytes.
    pub adjust: Box<dyn FnOnce(&mut StoreOptions) + Send>,
}

/// A broker that takes steps. Dropping it is what a crash is to a real one: nothing is written any more.
pub struct SteppedBroker {
    services: Arc<Services>,
    recovery: OpenReport,
    fenced: Receiver<Option<String>>,
    stopper: Stopper,
    stop: Stop,
    next_connection: AtomicU64,
}

impl SteppedBroker {
    /// Opens the data folder of `config` on the given disk. `server.listen` is what clients are told as its address.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open(config: Config, surroundings: Surroundings) -> Result<Self, StartError> {
        config.check()?;
        let config = Arc::new(config);
        let Surroundings { disk, clock, nonce, appends_sync, adjust } = surroundings;
        let long_polls = Arc::new(LongPolls::new(&config.limits));
        let events = Arc::new(StoreEvents::new(Arc::clone(&long_polls)));
        let mut options = options::store_options(&config);
        options.nonce = Some(nonce);
        // how long a sync takes is nothing that repeats itself
        options.inline_sync_max = if appends_sync { Duration::MAX } else { Duration::ZERO };
        adjust(&mut options);
        let observer = Arc::<StoreEvents>::clone(&events);
        let (store, recovery) = Store::open(disk, options, clock.now(), observer)?;
        let fenced = events.fenced();
        let advertised = config.server.listen;
        let services = services(&config, &store, events, &clock, advertised, long_polls, DiskThreads::None);
        let (stopper, stop) = stop::pair();
        let next_connection = AtomicU64::new(1);
        Ok(Self { services: Arc::new(services), recovery, fenced, stopper, stop, next_connection })
    }

    /// The store, for the steps that its threads would take: [`Store::sync_step`], [`Store::prepare_step`] and
    /// [`Store::keep_step`].
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.services.store
    }

    /// The broker's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.services.now()
    }

    /// What was found in the data folder.
    #[must_use]
    pub fn recovery(&self) -> &OpenReport {
        &self.recovery
    }

    /// Why the store refuses all further work, if it does: a process would end now.
    #[must_use]
    pub fn fenced(&self) -> Option<String> {
        self.fenced.borrow().clone()
    }

    /// What moves with time: memberships, held pulls, check-backs, delays, offsets. To be polled on a runtime with
    /// tokio's timers; each ends with [`SteppedBroker::stop`].
    #[must_use]
    pub fn drivers(&self) -> [Driver; 5] {
        drivers(&self.services, &self.stop)
    }

    /// Serves a client that has connected; ends with the connection.
    pub fn serve<T: Transport>(
        &self,
        stream: T,
        remote: SocketAddr,
    ) -> impl Future<Output = ()> + Send + use<T> {
        let id = ChannelId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let connection = reactor::connect(&self.services, stream, remote, Role::Broker, id, &self.stop);
        connection::serve(connection)
    }

    /// Tells drivers and connections to end in order.
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// Ends in order, once drivers and connections have ended: everything durable, a clean checkpoint.
    ///
    /// # Errors
    /// The log could not be synced or the checkpoint not be written.
    pub fn close(&self) -> Result<(), StorageError> {
        self.services.store.close(self.services.now())
    }
}
