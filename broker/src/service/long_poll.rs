//! Pulls that are not answered at once: a pull that finds its queue at the end waits until the queue grows or its time
//! is up, and a pull of old messages waits for a thread that may read the disk.
//!
//! ```text
//!   pull finds nothing ──► hold ──► watched queue grows ──┐
//!                                   deadline passes ──────┴──► ready ──► driver reads again ──► waiter answers
//!                                     ▲                        ▲   │ nothing that its filter wants
//!                                     └───── held again ───────│───┘
//!   pull finds old messages ───────────────────────────────────┴──► blocking thread reads ──► waiter answers
//! ```
//! A client that is slow to read its answers gets the next one when it has room for it; its pulls stay ready until then.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{Ordering, fence},
    },
};

use mezzo_protocol::{message::tag::TagFilter, time::Timestamp};
use mezzo_storage::Queue;

use super::{
    Services,
    alarm::Alarm,
    client_channel::ChannelId,
    pull::{self, Attempt, Pull, PullError, PullStatus, Pulled, Reach},
    stop::Stop,
};
use crate::{
    config::Limits,
    core::long_poll::{self as core, Effect, HeldPull, HoldBounds, QueueKey, WakeCause},
};

/// Woken pulls that the driver answers before it lets other tasks of its thread run.
const ANSWERS_PER_TURN: usize = 64;
/// Reads in a row for one woken pull whose filter passes over what it finds.
const SCANS_PER_TURN: usize = 8;
/// Reads from the disk at a time for one connection; the bound of what they hold in memory is this many answers.
const DISK_READS_PER_CONNECTION: usize = 4;
/// Milliseconds after which a pull is looked at again whose client had no room for its answer.
const STALLED_MS: u64 = 10;

/// Gets the answer of a pull that waited. Implemented by the front-end; must not block.
pub(crate) trait PullWaiter: Send {
    /// Whether the client has room for one more answer.
    fn has_room(&self) -> bool;
    /// Called at most once; never after the connection has closed.
    fn answer(self: Box<Self>, pulled: Result<Pulled, PullError>);
}

/// What a held pull carries.
struct Waiting {
    pull: Pull,
    waiter: Box<dyn PullWaiter>,
}

type Held = HeldPull<ChannelId, Waiting>;

/// Why a pull is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Arrived,
    TimedOut,
    /// It was never held: it needs the disk.
    Disk,
}

/// A pull to be answered now.
struct Ready {
    pull: Pull,
    waiter: Box<dyn PullWaiter>,
    connection: ChannelId,
    deadline: Timestamp,
    cause: Cause,
}

struct State {
    machine: core::LongPolls<ChannelId, Waiting>,
    /// The queues that are watched because somebody waits for them.
    watched: HashMap<QueueKey, Arc<Queue>>,
    ready: VecDeque<Ready>,
    /// Ready, but their client has no room, or as many reads from the disk as it may.
    stalled: VecDeque<Ready>,
    /// When they are looked at again, though others are ready all the time.
    retry_at: Timestamp,
    disk_reads: HashMap<ChannelId, usize>,
}

/// All pulls that wait.
pub(crate) struct LongPolls {
    state: Mutex<State>,
    alarm: Alarm,
}

impl LongPolls {
    /// Nobody waits yet.
    pub(crate) fn new(limits: &Limits) -> Self {
        let bounds =
            HoldBounds { per_connection: limits.held_pulls_per_connection, total: limits.held_pulls };
        let state = State {
            machine: core::LongPolls::new(bounds),
            watched: HashMap::new(),
            ready: VecDeque::new(),
            stalled: VecDeque::new(),
            retry_at: Timestamp::ZERO,
            disk_reads: HashMap::new(),
        };
        Self { state: Mutex::new(state), alarm: Alarm::default() }
    }

    /// Holds `pull` for `connection` until its queue reaches beyond its offset, at the latest until `deadline`. Gives
    /// the waiter back when no place is free.
    ///
    /// # Errors
    /// The waiter, to be answered at once.
    pub(crate) fn hold(
        &self,
        pull: Pull,
        connection: ChannelId,
        deadline: Timestamp,
        waiter: Box<dyn PullWaiter>,
    ) -> Result<(), Box<dyn PullWaiter>> {
        let queue = Arc::clone(&pull.queue);
        let key = key_of(&queue);
        let from = pull.from;
        let held =
            HeldPull { queue: key.clone(), connection, from, deadline, payload: Waiting { pull, waiter } };
        let mut state = self.lock();
        state.machine.handle_hold(held).map_err(|(_, held)| held.payload.waiter)?;
        state.watched.entry(key.clone()).or_insert_with(|| Arc::clone(&queue));
        state.settle();
        // what was published before the queue was watched is told by nobody else; the fence orders our watching before
        // our looking, as the publisher orders its publishing before its asking who watches
        fence(Ordering::SeqCst);
        state.machine.handle_queue_grew(&key, queue.max_offset());
        let woken = state.settle();
        drop(state);
        if woken {
            self.alarm.ring()
        } else {
            self.alarm.set(deadline)
        }
        Ok(())
    }

    /// How many pulls wait for their queue to grow.
    pub(crate) fn held(&self) -> usize {
        self.lock().machine.len()
    }

    /// Has `pull` read by a thread that may wait for the disk. How many wait here is bounded by the places that waiters
    /// take at their connections.
    pub(crate) fn read_from_disk(&self, pull: Pull, connection: ChannelId, waiter: Box<dyn PullWaiter>) {
        let deadline = Timestamp::ZERO;
        self.lock().ready.push_back(Ready { pull, waiter, connection, deadline, cause: Cause::Disk });
        self.alarm.ring();
    }

    fn disk_read_done(&self, connection: ChannelId) {
        let mut state = self.lock();
        if let Some(reads) = state.disk_reads.get_mut(&connection) {
            *reads -= 1;
            if *reads == 0 {
                state.disk_reads.remove(&connection);
            }
        }
        drop(state);
        self.alarm.ring();
    }

    /// A watched queue has grown. Called by whoever published; does not block.
    pub(crate) fn queue_grew(&self, queue: &Arc<Queue>) {
        let key = key_of(queue);
        let mut state = self.lock();
        state.machine.handle_queue_grew(&key, queue.max_offset());
        let woken = state.settle();
        drop(state);
        if woken {
            self.alarm.ring();
        }
    }

    /// The connection has closed: its pulls are forgotten.
    pub(crate) fn channel_closed(&self, connection: ChannelId) {
        let mut state = self.lock();
        state.machine.handle_connection_closed(connection);
        state.settle();
        state.ready.retain(|ready| ready.connection != connection);
        state.stalled.retain(|ready| ready.connection != connection);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next pulls to answer, and when there will be more without anything new arriving.
    fn take_ready(&self, now: Timestamp) -> (Vec<Ready>, Option<Timestamp>) {
        let mut state = self.lock();
        let state = &mut *state;
        state.machine.handle_timeout(now);
        state.settle();
        // each of them once in a while, however many there are: whoever looked all the time would do nothing else
        if state.ready.is_empty() || now >= state.retry_at {
            state.ready.append(&mut state.stalled);
            state.retry_at = now.saturating_add_ms(STALLED_MS);
        }
        let mut taken = Vec::new();
        for _ in 0..ANSWERS_PER_TURN {
            let Some(ready) = state.ready.pop_front() else { break };
            if state.may_go(&ready) {
                taken.push(ready);
            } else {
                state.stalled.push_back(ready);
            }
        }
        let next = if !state.ready.is_empty() {
            Some(now)
        } else {
            let retry = (!state.stalled.is_empty()).then(|| now.saturating_add_ms(STALLED_MS));
            [retry, state.machine.next_timeout()].into_iter().flatten().min()
        };
        (taken, next)
    }
}

impl State {
    /// Carries out the machine's effects; true if pulls became ready.
    fn settle(&mut self) -> bool {
        let mut woken = false;
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Watch(key) => {
                    if let Some(queue) = self.watched.get(&key) {
                        queue.watch();
                    }
                }
                Effect::Unwatch(key) => {
                    if let Some(queue) = self.watched.remove(&key) {
                        queue.unwatch();
                    }
                }
                Effect::Wake(held, cause) => {
                    let Held { connection, deadline, payload: Waiting { pull, waiter }, .. } = held;
                    let cause = match cause {
                        WakeCause::Arrived => Cause::Arrived,
                        WakeCause::TimedOut => Cause::TimedOut,
                    };
                    self.ready.push_back(Ready { pull, waiter, connection, deadline, cause });
                    woken = true;
                }
            }
        }
        woken
    }

    /// Whether the pull can be answered now; counts it if that takes a read from the disk.
    fn may_go(&mut self, ready: &Ready) -> bool {
        if !ready.waiter.has_room() {
            return false;
        }
        if ready.cause == Cause::Disk {
            let reads = self.disk_reads.entry(ready.connection).or_default();
            if *reads >= DISK_READS_PER_CONNECTION {
                return false;
            }
            *reads += 1;
        }
        true
    }
}

/// The queue's key. Its address is its own for as long as anybody who waits for it keeps it.
fn key_of(queue: &Arc<Queue>) -> QueueKey {
    let life = Arc::as_ptr(queue).addr();
    QueueKey { topic: queue.topic().clone(), queue: queue.id(), life }
}

/// Answers pulls that are ready, until the stop signal.
pub(crate) async fn drive(services: Arc<Services>, mut stop: Stop) {
    loop {
        let (ready, next) = services.long_polls.take_ready(services.now());
        for ready in ready {
            answer(&services, ready);
        }
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = services.long_polls.alarm.wait(&*services.clock, next) => {}
        }
    }
}

/// Reads again for a pull that was woken: answers it, or holds it again when nothing new is for it.
fn answer(services: &Arc<Services>, ready: Ready) {
    let Ready { mut pull, waiter, connection, deadline, cause } = ready;
    if cause == Cause::Disk {
        return answer_from_disk(services, pull, connection, waiter);
    }
    let mut scans = 0;
    loop {
        scans += 1;
        match pull::pull(&services.store, services.advertised, &pull, Reach::Hot) {
            Ok(Attempt::Done(_)) if wants_something_else(services, &pull) => {
                waiter.answer(Ok(nothing_yet(&pull, PullStatus::NoMatch)));
            }
            Ok(Attempt::Done(pulled)) if cause == Cause::Arrived && is_nothing(&pulled) => {
                // what the filter does not want is passed over here, not by another round trip of the client
                let progress = pulled.next > pull.from;
                pull.from = pulled.next;
                if progress && pull.from < pulled.max && scans < SCANS_PER_TURN {
                    continue;
                }
                // if there is more already, it is ready again at once
                if let Err(waiter) = services.long_polls.hold(pull, connection, deadline, waiter) {
                    services.metrics.held_by_broker.add(1);
                    waiter.answer(Ok(pulled));
                }
            }
            Ok(Attempt::Done(pulled)) => waiter.answer(Ok(pulled)),
            Ok(Attempt::Cold) => services.long_polls.read_from_disk(pull, connection, waiter),
            Err(error) => waiter.answer(Err(error)),
        }
        return;
    }
}

/// Whether the group wants something else of the topic by now than when it pulled. To be asked after each read: what was
/// published before the group's heartbeat was answered may be passed over by the old filter, what came later must not.
fn wants_something_else(services: &Services, pull: &Pull) -> bool {
    let Some(group) = &pull.group else { return false };
    let now = services.clients.subscription(group, pull.queue.topic().as_str());
    now.and_then(|now| TagFilter::parse(&now.expression).ok()).is_some_and(|now| now != pull.filter)
}

fn is_nothing(pulled: &Pulled) -> bool {
    matches!(pulled.status, PullStatus::NoMatch | PullStatus::Empty)
}

/// Reads on a thread that may wait for the disk, and answers from there.
fn answer_from_disk(
    services: &Arc<Services>,
    pull: Pull,
    connection: ChannelId,
    waiter: Box<dyn PullWaiter>,
) {
    let reading = Arc::clone(services);
    // it answers by itself; nobody waits for its end
    drop(services.on_disk_thread(move || {
        let services = reading;
        let attempt = pull::pull(&services.store, services.advertised, &pull, Reach::Disk);
        let pulled = attempt.map(|attempt| match attempt {
            Attempt::Done(_) if wants_something_else(&services, &pull) => {
                nothing_yet(&pull, PullStatus::NoMatch)
            }
            Attempt::Done(pulled) => pulled,
            // a read that may use the disk is never cold; were it so, the client asks again
            Attempt::Cold => nothing_yet(&pull, PullStatus::Empty),
        });
        waiter.answer(pulled);
        services.long_polls.disk_read_done(connection);
    }));
}

/// The answer "nothing here yet, ask again from the same place".
fn nothing_yet(pull: &Pull, status: PullStatus) -> Pulled {
    let (min, max) = (pull.queue.min_offset(), pull.queue.max_offset());
    Pulled { status, body: bytes::Bytes::new(), messages: 0, next: pull.from, min, max }
}

#[cfg(test)]
mod tests {
    use mezzo_protocol::ids::{QueueId, QueueOffset, TopicName};
    use mezzo_storage::{Batch, Operation, TopicConfig};

    use super::*;
    use crate::{Broker, Config};

    /// A client that reads nothing.
    struct Full;

    impl PullWaiter for Full {
        fn has_room(&self) -> bool {
            false
        }

        fn answer(self: Box<Self>, _: Result<Pulled, PullError>) {}
    }

    #[test]
    fn pulls_of_clients_without_room_are_looked_at_now_and_then_however_many_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.store.dir = dir.path().join("data");
        config.server.listen.set_port(0);
        config.server.name_server_listen.set_port(0);
        let broker = Broker::start_blocking(config).unwrap();
        let store = broker.store().unwrap();
        let now = Timestamp::from_ms(1);
        let mut batch = Batch::default();
        batch.push(Operation::PutTopic(TopicConfig::new(TopicName::new("T").unwrap(), 1)));
        store.append(now, &mut batch).unwrap();
        store.sync().unwrap();
        let queue = store.topic("T").unwrap().queue(QueueId(0)).unwrap();

        let polls = LongPolls::new(&Limits::default());
        let pulls = 5 * ANSWERS_PER_TURN;
        for _ in 0..pulls {
            let pull = Pull {
                queue: Arc::clone(&queue),
                from: QueueOffset(0),
                messages_max: 1,
                bytes_max: 1,
                filter: TagFilter::parse("*").unwrap(),
                group: None,
            };
            polls.read_from_disk(pull, ChannelId(1), Box::new(Full));
        }
        for round in 0..3 {
            let mut turns = 1;
            loop {
                let (taken, next) = polls.take_ready(now);
                assert!(taken.is_empty());
                if next > Some(now) {
                    break;
                }
                turns += 1;
                assert!(turns <= pulls, "round {round} does not end");
            }
            assert_eq!(polls.lock().stalled.len(), pulls);
        }
    }
}
