//! One run: builds machine, network and clients out of a seed, lets faults happen, stops them, waits until everything
//! has come to rest, and looks at what is left.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;

use crate::dice::Dice;
use crate::history::History;
use crate::host::{self, Host};
use crate::judge::Offsets;
use crate::net::Net;
use crate::plan::Plan;
use crate::retention::Watched;
use crate::stats::Stats;
use crate::trace::{Trace, Traced, note};
use crate::{consumer, nemesis, operator, producer, repeat, settle, transform};

/// The topic that has de-duplication, in some runs.
pub const REPEATS: &str = "bills";
/// The topics that producers send to.
pub const TOPICS: [&str; 2] = [transform::FROM, REPEATS];
/// All topics that consumers read.
pub const ALL_TOPICS: [&str; 3] = [transform::FROM, REPEATS, transform::TO];

/// All of one run.
pub struct World {
    /// What the seed decided in advance.
    pub plan: Plan,
    /// The seed's chance; everyone takes dice of their own from it.
    pub dice: Dice,
    /// What happens.
    pub trace: Arc<Trace>,
    /// The network.
    pub net: Arc<Net>,
    /// The broker's machine.
    pub host: Host,
    /// Its disk says that it has synced the log, and has not: a broker that nobody can hold to its word.
    pub disk_lies: bool,
    history: Mutex<History>,
    offsets: Mutex<Offsets>,
    watched: Mutex<Watched>,
    begun: Instant,
    chaos: AtomicBool,
    /// The topics that must be created are there.
    founded: AtomicBool,
    /// Clients that are to die.
    dying: AtomicU64,
    tasks: Mutex<JoinSet<()>>,
}

/// What a run has come to.
pub struct Outcome {
    /// Events.
    pub traced: Traced,
    /// What was wrong.
    pub violations: Vec<String>,
    /// What happened.
    pub stats: Stats,
    /// The plan, for people.
    pub plan: Plan,
}

/// Runs a seed to its end; with a disk that lies, to see that this is found out.
pub fn run(seed: u64, disk_lies: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets can be made");
    let outcome = runtime.block_on(play(seed, disk_lies));
    runtime.shutdown_background();
    outcome
}

async fn play(seed: u64, disk_lies: bool) -> Outcome {
    let dice = Dice::new(seed);
    let plan = Plan::new(&mut dice.of("plan"));
    let trace = Arc::new(Trace::new());
    note!(trace, "seed {seed}: {plan:?}");
    let (host, inbox) = Host::new();
    let net = Net::new(dice.of("net"), Arc::clone(&trace));
    let world = Arc::new(World {
        net: Arc::clone(&net),
        host,
        disk_lies,
        history: Mutex::default(),
        offsets: Mutex::default(),
        watched: Mutex::default(),
        begun: Instant::now(),
        chaos: AtomicBool::new(true),
        founded: AtomicBool::new(plan.dedup.is_none()),
        dying: AtomicU64::new(0),
        tasks: Mutex::default(),
        plan,
        dice,
        trace,
    });
    world.history().lost_ms_max = world.plan.memory.then(|| world.lost_ms_max());
    world.history().dedup = world.plan.dedup;
    world.history().forgets = world.plan.retention.is_some();
    world.spawn(net.run());
    world.spawn(host::run(Arc::clone(&world), inbox));
    world.spawn(repeat::found(Arc::clone(&world)));
    if world.plan.operator.is_some() {
        world.spawn(operator::run(Arc::clone(&world)));
    }
    for number in 0..world.plan.producers {
        world.spawn(producer::run(Arc::clone(&world), number));
    }
    for number in 0..world.plan.consumers {
        world.spawn(consumer::run(Arc::clone(&world), number));
    }
    for number in 0..world.plan.transformers {
        world.spawn(transform::run(Arc::clone(&world), number));
    }
    let chaos = world.spawn(nemesis::run(Arc::clone(&world)));
    let until = world.begun + world.plan.chaos;
    while Instant::now() < until && world.history().violations.is_empty() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    chaos.abort();
    nemesis::calm(&world);
    if world.history().violations.is_empty() {
        settle::settle(&world).await;
    }
    let mut tasks = std::mem::take(&mut *locked(&world.tasks));
    tasks.abort_all();
    while let Some(ended) = tasks.join_next().await {
        world.judge_task(ended);
    }
    let traced = world.trace.traced();
    let mut history = world.history();
    history.stats.seeds = 1;
    history.stats.events = traced.events;
    history.stats.virtual_ms = world.now_ms();
    Outcome {
        traced,
        violations: std::mem::take(&mut history.violations),
        stats: history.stats.clone(),
        plan: world.plan.clone(),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// What the clients know.
    pub fn history(&self) -> MutexGuard<'_, History> {
        locked(&self.history)
    }

    /// What is known of the groups' offsets.
    pub fn offsets(&self) -> MutexGuard<'_, Offsets> {
        locked(&self.offsets)
    }

    /// What is known of what retention has left and deleted.
    pub fn watched(&self) -> MutexGuard<'_, Watched> {
        locked(&self.watched)
    }

    /// Virtual milliseconds since the run began. Nobody sets this clock.
    pub fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Whether faults happen.
    pub fn is_chaos(&self) -> bool {
        self.chaos.load(Ordering::Relaxed)
    }

    /// Topics are there as the plan has them.
    pub fn founded(&self) {
        self.founded.store(true, Ordering::Relaxed);
    }

    /// Whether they are.
    pub fn is_founded(&self) -> bool {
        self.founded.load(Ordering::Relaxed)
    }

    /// Whether producers have left for good, and the operator is alone with what they have left.
    pub fn is_abandoned(&self) -> bool {
        !self.is_chaos() && self.plan.operator.is_some_and(|operator| operator.alone)
    }

    /// No more faults from now on.
    pub fn end_chaos(&self) {
        self.chaos.store(false, Ordering::Relaxed);
        self.dying.store(0, Ordering::Relaxed);
    }

    /// One client is to die.
    pub fn kill_a_client(&self) {
        self.dying.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the client that asks dies now.
    pub fn client_dies(&self, dice: &mut Dice) -> bool {
        let dies = self.dying.load(Ordering::Relaxed) > 0 && dice.one_in(3);
        if dies {
            self.dying.fetch_sub(1, Ordering::Relaxed);
        }
        dies
    }

    /// A task that ends with the run at the latest.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = locked(&self.tasks);
        while let Some(ended) = tasks.try_join_next() {
            self.judge_task(ended);
        }
        tasks.spawn(task)
    }

    /// Nothing in the broker, and nothing in the simulation, may panic.
    pub fn judge_task(&self, ended: Result<(), JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            self.history().violation(format!("a task panicked: {error}"));
        }
    }
}
