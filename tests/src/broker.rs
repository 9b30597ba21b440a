//! A whole broker inside the test's process: ports of its own, a folder that vanishes, small segments.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mezzo_broker::{Broker, Config};
use mezzo_protocol::time::Clock;
use tempfile::TempDir;

use crate::clock::ManualClock;

/// What makes a broker small: segments are prepared ahead, and dozens of tests run side by side.
const SMALL: [&str; 4] = [
    "limits.message_size=128KiB",
    "store.segment_size=4MiB",
    "store.checkpoint_size=4MiB",
    "server.reactors=2",
];

/// A running broker, or one that has been stopped and can be started again on the same folder.
pub struct TestBroker {
    broker: Option<Broker>,
    config: Config,
    clock: Option<Arc<ManualClock>>,
    dir: TempDir,
}

impl TestBroker {
    /// Starts with the system's clock and these settings (`section.key=value`).
    pub fn start(settings: &[&str]) -> Self {
        Self::new(settings, None)
    }

    /// Starts with a clock that stands still until [`TestBroker::clock`] is moved.
    pub fn with_manual_clock(settings: &[&str]) -> Self {
        Self::new(settings, Some(Arc::new(ManualClock::default())))
    }

    fn new(settings: &[&str], clock: Option<Arc<ManualClock>>) -> Self {
        let dir = TempDir::new().expect("a temporary folder can be made");
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".parse().expect("an address");
        config.server.name_server_listen = config.server.listen;
        config.store.dir = dir.path().join("data");
        for setting in SMALL.iter().chain(settings) {
            config.set(setting).unwrap_or_else(|error| panic!("{setting}: {error}"));
        }
        let mut this = Self { broker: None, config, clock, dir };
        this.open();
        this
    }

    fn open(&mut self) {
        let config = self.config.clone();
        let broker = match &self.clock {
            Some(clock) => {
                Broker::start_blocking_with_clock(config, Arc::<ManualClock>::clone(clock) as Arc<dyn Clock>)
            }
            None => Broker::start_blocking(config),
        };
        let broker = broker.unwrap_or_else(|error| panic!("the broker does not start: {error}"));
        // found the first time, kept ever after
        self.config.server.listen = broker.broker_address();
        self.config.server.name_server_listen = broker.name_server_address();
        self.broker = Some(broker);
    }

    /// Stops in order, as SIGTERM does.
    pub fn stop(&mut self) {
        self.broker = None;
    }

    /// Stops in order and starts again, on the same folder and ports.
    pub fn restart(&mut self) {
        self.stop();
        self.open();
    }

    fn running(&self) -> &Broker {
        self.broker.as_ref().expect("the broker runs")
    }

    /// Where the broker listens.
    pub fn address(&self) -> SocketAddr {
        self.running().broker_address()
    }

    /// Where its name server listens.
    pub fn name_server(&self) -> SocketAddr {
        self.running().name_server_address()
    }

    /// How many transactions are IN_DOUBT, as the store has it.
    pub fn in_doubt(&self) -> usize {
        self.running().store().map_or(0, |store| store.in_doubt())
    }

    /// Where metrics and health are served, if they are.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.running().metrics_address()
    }

    /// The clock, of a broker that was started with one.
    pub fn clock(&self) -> &ManualClock {
        self.clock.as_ref().expect("started with a manual clock")
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.config.store.dir
    }

    /// A folder beside the data that vanishes with it.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }
}
