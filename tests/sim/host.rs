//! The machine that the broker runs on: starts its process on the simulated disk, takes the steps of the store's
//! threads, ends the process when it dies, fences itself or is told to, and starts it again.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mezzo_broker::clock::SteadyTime;
use mezzo_broker::server::{SteppedBroker, Surroundings};
use mezzo_protocol::time::{Clock, Timestamp};
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::disk::{Watch, WatchedDisk};
use crate::history::Crash;
use crate::net::BrokerEnd;
use crate::retention;
use crate::trace::note;
use crate::world::World;

/// The wall clock's time when a run begins, milliseconds since 1970.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// How often the keeper looks, as in the product.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How often the syncer looks though nobody asked, as in the product.
const LOOK_AROUND: Duration = Duration::from_millis(500);
/// Starts in a row that may fail for faults that were ordered.
const STARTS_MAX: u32 = 40;

/// What the nemesis orders.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// The process is gone; the disk is found so.
    End(CrashMode),
    /// It is stopped in order.
    Restart,
}

/// The wall clock of the machine.
#[derive(Debug)]
pub struct WallClock {
    begun: Instant,
    set_by_ms: AtomicI64,
}

impl WallClock {
    fn now_ms(&self) -> u64 {
        let running = self.begun.elapsed().as_millis() as u64;
        (EPOCH_MS + running).saturating_add_signed(self.set_by_ms.load(Ordering::Relaxed))
    }

    /// Sets it forward, or back.
    pub fn jump(&self, by_ms: i64) {
        self.set_by_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

/// The clock of one process: the product's own rule over the simulated wall clock.
struct ProcessClock {
    wall: Arc<WallClock>,
    begun: Instant,
    steady: SteadyTime,
}

impl Clock for ProcessClock {
    fn now(&self) -> Timestamp {
        self.steady.at(self.wall.now_ms(), self.begun.elapsed().as_millis() as u64)
    }
}

/// A running broker.
pub struct Process {
    /// The broker.
    pub broker: SteppedBroker,
    /// Its disk.
    pub disk: SimulatedDisk,
    watch: Arc<Watch>,
}

impl Process {
    /// Whether some operation on the disk has failed as it was ordered to.
    pub fn has_failed(&self) -> bool {
        self.watch.failures.load(Ordering::Relaxed) > 0
    }
}

/// The machine.
pub struct Host {
    /// Its wall clock.
    pub wall: Arc<WallClock>,
    current: Mutex<Option<Arc<Process>>>,
    accepted: mpsc::UnboundedSender<BrokerEnd>,
    orders: mpsc::UnboundedSender<Order>,
    up: Notify,
    /// How often the broker was started.
    pub starts: AtomicU64,
}

/// The host's ends of its channels.
pub struct Inbox {
    accepted: mpsc::UnboundedReceiver<BrokerEnd>,
    orders: mpsc::UnboundedReceiver<Order>,
}

impl Host {
    /// A machine that is switched off.
    pub fn new() -> (Self, Inbox) {
        let (accepted, accepting) = mpsc::unbounded_channel();
        let (orders, ordered) = mpsc::unbounded_channel();
        let wall = WallClock { begun: Instant::now(), set_by_ms: AtomicI64::new(0) };
        let host = Self {
            wall: Arc::new(wall),
            current: Mutex::new(None),
            accepted,
            orders,
            up: Notify::new(),
            starts: AtomicU64::new(0),
        };
        (host, Inbox { accepted: accepting, orders: ordered })
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running process.
    pub fn process(&self) -> Option<Arc<Process>> {
        self.slot().clone()
    }

    /// A client connects; false if nobody listens.
    pub fn accept(&self, end: BrokerEnd) -> bool {
        let listens = self.slot().is_some();
        listens && self.accepted.send(end).is_ok()
    }

    /// Gives an order; it is carried out if a process runs.
    pub fn order(&self, order: Order) {
        // the host lives as long as the run
        let _ = self.orders.send(order);
    }

    /// Returns once a broker serves.
    pub async fn serves(&self) {
        while self.slot().is_none() {
            self.up.notified().await;
        }
    }
}

/// How a process ended.
enum End {
    Died,
    Fenced(String),
    Ordered(CrashMode),
    Stopped,
}

/// Runs brokers, one after another, for ever.
pub async fn run(world: Arc<World>, mut inbox: Inbox) {
    let mut dice = world.dice.of("host");
    let mut disk = SimulatedDisk::new();
    let mut failed_starts = 0;
    loop {
        let watch = Arc::new(Watch { alive: Arc::new(AtomicBool::new(true)), ..Watch::default() });
        let watched =
            WatchedDisk::new(disk.clone(), Arc::clone(&watch), Arc::clone(&world.trace), world.disk_lies);
        let clock = ProcessClock {
            wall: Arc::clone(&world.host.wall),
            begun: Instant::now(),
            steady: SteadyTime::new(),
        };
        let surroundings = Surroundings {
            disk: Arc::new(watched),
            clock: Arc::new(clock),
            nonce: world.dice.of("nonce").next().to_le_bytes().repeat(2).try_into().expect("sixteen bytes"),
            appends_sync: world.plan.appends_sync,
            adjust: {
                let retention = world.plan.retention;
                Box::new(move |options| retention.iter().for_each(|retention| retention.adjust(options)))
            },
        };
        world.host.starts.fetch_add(1, Ordering::Relaxed);
        if world.is_chaos() && dice.one_in(12) {
            // recovery is as good a moment to die as any
            disk.fail_after_ops(dice.below(60));
        }
        let ended = Arc::clone(&watch);
        let end = match SteppedBroker::open(world.plan.config.clone(), surroundings) {
            Ok(broker) => {
                failed_starts = 0;
                note!(world.trace, "host: serves; {}", found(&broker));
                world.history().serves(world.now_ms());
                let process = Arc::new(Process { broker, disk: disk.clone(), watch });
                if world.plan.retention.is_some() {
                    retention::look(&world, &process);
                }
                let end = serve(&world, &process, &mut inbox, &mut dice).await;
                *world.host.slot() = None;
                end
            }
            Err(error) => {
                note!(world.trace, "host: the broker does not start: {error}");
                failed_starts += 1;
                if watch.failures.load(Ordering::Relaxed) == 0 || failed_starts > STARTS_MAX {
                    world.history().violation(format!("the broker does not start: {error}"));
                    std::future::pending::<()>().await;
                }
                if disk.has_died() { End::Died } else { End::Fenced(error.to_string()) }
            }
        };
        let (mode, what) = match end {
            End::Died => (crash_mode(&mut dice), "died".to_owned()),
            End::Fenced(reason) => (crash_after_fence(&mut dice), format!("fenced itself: {reason}")),
            End::Ordered(mode) => (mode, "was ended".to_owned()),
            End::Stopped => (crash_after_fence(&mut dice), "stopped in order".to_owned()),
        };
        note!(world.trace, "host: the broker {what}; the disk is left {mode:?}");
        world.history().stats.ended(mode, &what);
        let failed = *ended.sync_failed.lock().unwrap_or_else(PoisonError::into_inner);
        let failed_ms_ago = failed.map_or(0, |failed| failed.elapsed().as_millis() as u64);
        let ended_ms = world.now_ms();
        world.history().crashed(Crash {
            synced_nothing_from_ms: ended_ms - failed_ms_ago,
            ended_ms,
            loses_unsynced: mode != CrashMode::KeepAll,
        });
        while inbox.accepted.try_recv().is_ok() {}
        disk = disk.crash(mode);
        tokio::time::sleep(dice.pause(1, if world.is_chaos() { 1_500 } else { 50 })).await;
        while inbox.orders.try_recv().is_ok() {}
    }
}

fn found(broker: &SteppedBroker) -> String {
    let report = broker.recovery();
    format!(
        "created {} checkpoint {:?} damaged {} open {} limit {}",
        report.created,
        report.checkpoint,
        report.damaged.len(),
        report.open_messages,
        broker.store().limit().0,
    )
}

fn crash_mode(dice: &mut Dice) -> CrashMode {
    match dice.below(6) {
        0 => CrashMode::LoseUnsynced,
        1 => CrashMode::KeepAll,
        2 | 3 => CrashMode::Seeded(dice.next()),
        _ => CrashMode::SeededWithFlips(dice.next()),
    }
}

/// The process ends by itself; sometimes the machine goes with it.
fn crash_after_fence(dice: &mut Dice) -> CrashMode {
    if dice.one_in(3) { crash_mode(dice) } else { CrashMode::KeepAll }
}

/// One process, from its start to its end.
async fn serve(world: &Arc<World>, process: &Arc<Process>, inbox: &mut Inbox, dice: &mut Dice) -> End {
    let mut tasks = JoinSet::new();
    for driver in process.broker.drivers() {
        tasks.spawn(driver);
    }
    let of = |who: &str| Dice::new(dice.of(who).next() ^ world.host.starts.load(Ordering::Relaxed));
    tasks.spawn(syncer(Arc::clone(process), of("syncer"), world.plan.memory));
    tasks.spawn(preparer(Arc::clone(process), of("preparer")));
    tasks.spawn(keeper(Arc::clone(process), of("keeper"), Arc::clone(world)));
    *world.host.slot() = Some(Arc::clone(process));
    world.host.up.notify_waiters();
    let end = loop {
        tokio::select! {
            biased;
            () = process.watch.failed.notified() => {
                if process.disk.has_died() {
                    break End::Died;
                }
                // whoever waits may still be answered before the process ends
                tokio::time::sleep(dice.pause(0, 5)).await;
                if let Some(reason) = process.broker.fenced() {
                    break End::Fenced(reason);
                }
            }
            Some(order) = inbox.orders.recv() => match order {
                Order::End(mode) => break End::Ordered(mode),
                Order::Restart => break stop(world, process, &mut tasks).await,
            },
            Some(end) = inbox.accepted.recv() => {
                let remote = ([10, 0, 0, 1], 1_024 + (end.id() % 60_000) as u16).into();
                let end = end.of_process(Arc::clone(&process.watch.alive));
                tasks.spawn(process.broker.serve(end, remote));
            }
            Some(ended) = tasks.join_next() => world.judge_task(ended),
            () = tokio::time::sleep(LOOK_AROUND) => {
                if let Some(reason) = process.broker.fenced() {
                    break End::Fenced(reason);
                }
            }
        }
    };
    if let End::Fenced(reason) = &end
        && process.watch.failures.load(Ordering::Relaxed) == 0
    {
        world.history().violation(format!("the broker fenced itself without a reason: {reason}"));
    }
    // a process that lost its machine closes no connections; a killed one does
    let silent = match end {
        End::Died | End::Ordered(_) => dice.one_in(2),
        End::Fenced(_) | End::Stopped => false,
    };
    if silent {
        process.watch.alive.store(false, Ordering::Relaxed);
    }
    tasks.abort_all();
    while let Some(ended) = tasks.join_next().await {
        world.judge_task(ended);
    }
    process.watch.alive.store(false, Ordering::Relaxed);
    end
}

/// Stops in order: connections finish, then the store is closed.
async fn stop(world: &Arc<World>, process: &Arc<Process>, tasks: &mut JoinSet<()>) -> End {
    process.broker.stop();
    let patience = world.plan.config.limits.stop_timeout;
    let until = Instant::now() + patience;
    // the steps of the store go on until the end, so they are the last
    while tasks.len() > STORE_TASKS && Instant::now() < until {
        tokio::select! {
            biased;
            () = process.watch.failed.notified() => {
                if process.disk.has_died() {
                    return End::Died;
                }
            }
            Some(ended) = tasks.join_next() => world.judge_task(ended),
            () = tokio::time::sleep_until(until) => {}
        }
    }
    match process.broker.close() {
        Ok(()) => End::Stopped,
        Err(_) if process.disk.has_died() => End::Died,
        Err(error) => {
            if process.watch.failures.load(Ordering::Relaxed) == 0 {
                world.history().violation(format!("the broker does not close: {error}"));
            }
            End::Fenced(error.to_string())
        }
    }
}

/// Syncer, preparer, keeper.
const STORE_TASKS: usize = 3;

async fn syncer(process: Arc<Process>, mut dice: Dice, memory: bool) {
    let patience = if memory {
        Duration::from_millis(process.broker.store().options().flush_interval_ms)
    } else {
        LOOK_AROUND
    };
    loop {
        if memory {
            tokio::time::sleep(patience).await;
        } else {
            tokio::select! {
                biased;
                () = process.watch.wrote.notified() => {}
                () = tokio::time::sleep(patience) => {}
            }
        }
        tokio::time::sleep(Duration::from_micros(dice.below(3_000))).await;
        if process.broker.store().sync_step().is_err() {
            return std::future::pending().await;
        }
    }
}

async fn preparer(process: Arc<Process>, mut dice: Dice) {
    loop {
        match process.broker.store().prepare_step() {
            Ok(true) => tokio::time::sleep(dice.pause(1, 4)).await,
            Ok(false) => tokio::time::sleep(dice.pause(20, 500)).await,
            Err(_) if process.broker.store().is_fenced() => return std::future::pending().await,
            Err(_) => tokio::time::sleep(KEEP_INTERVAL).await,
        }
    }
}

async fn keeper(process: Arc<Process>, mut dice: Dice, world: Arc<World>) {
    let mut goes_on = false;
    loop {
        // one step may follow another before anything else happens
        if !(goes_on && dice.one_in(2)) {
            let pause = if goes_on { dice.pause(1, 20) } else { KEEP_INTERVAL + dice.pause(0, 20) };
            tokio::time::sleep(pause).await;
        }
        let kept = match world.plan.retention {
            Some(retention) => retention::keep(&world, &process, retention, goes_on, &mut dice),
            None => process.broker.store().keep_step(process.broker.now()),
        };
        goes_on = kept.unwrap_or_else(|error| {
            note!(world.trace, "keeper: {error}");
            false
        });
        if process.broker.store().is_fenced() {
            return std::future::pending().await;
        }
    }
}
