//! Long polling: a pull that finds its queue at the end waits here until the queue grows or its time is up.
//!
//! ```text
//!   pull finds nothing ──► hold ──► watched queue grows ──┐
//!                                   deadline passes ──────┴──► ready ──► driver reads again ──► waiter answers
//!                                     ▲                                    │ nothing that its filter wants
//!                                     └────────────── held again ──────────┘
//! ```

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{Ordering, fence},
    },
};

use mezzo_protocol::{ids::QueueOffset, time::Timestamp};
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

/// Gets the answer of a pull that waited. Implemented by the front-end; must not block.
pub(crate) trait PullWaiter: Send {
    /// Called at most once; never after the connection has closed.
    fn answer(self: Box<Self>, pulled: Result<Pulled, PullError>);
}

/// What a held pull carries.
struct Waiting {
    pull: Pull,
    waiter: Box<dyn PullWaiter>,
}

type Held = HeldPull<ChannelId, Waiting>;

struct State {
    machine: core::LongPolls<ChannelId, Waiting>,
    /// The queues that are watched because somebody waits for them.
    watched: HashMap<QueueKey, Arc<Queue>>,
    ready: VecDeque<(Held, WakeCause)>,
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
        let state =
            State { machine: core::LongPolls::new(bounds), watched: HashMap::new(), ready: VecDeque::new() };
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
        let key = QueueKey { topic: queue.topic().clone(), queue: queue.id() };
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

    /// A watched queue has grown. Called by whoever published; does not block.
    pub(crate) fn queue_grew(&self, queue: &Arc<Queue>) {
        let key = QueueKey { topic: queue.topic().clone(), queue: queue.id() };
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
        state.ready.retain(|(held, _)| held.connection != connection);
        state.settle();
    }

    /// Look at the clock now.
    pub(crate) fn ring(&self) {
        self.alarm.ring();
    }

    /// How many pulls wait now.
    pub(crate) fn len(&self) -> usize {
        self.lock().machine.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next pulls to answer, and when there will be more without anything new arriving.
    fn take_ready(&self, now: Timestamp) -> (Vec<(Held, WakeCause)>, Option<Timestamp>) {
        let mut state = self.lock();
        state.machine.handle_timeout(now);
        state.settle();
        let count = state.ready.len().min(ANSWERS_PER_TURN);
        let ready = state.ready.drain(..count).collect();
        let next = if state.ready.is_empty() { state.machine.next_timeout() } else { Some(now) };
        (ready, next)
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
                    self.ready.push_back((held, cause));
                    woken = true;
                }
            }
        }
        woken
    }
}

/// Answers pulls that are ready, until the stop signal.
pub(crate) async fn drive(services: Arc<Services>, mut stop: Stop) {
    loop {
        let (ready, next) = services.long_polls.take_ready(services.now());
        for (held, cause) in ready {
            answer(&services, held, cause);
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
fn answer(services: &Arc<Services>, held: Held, cause: WakeCause) {
    let Held { connection, deadline, payload: Waiting { mut pull, waiter }, .. } = held;
    let mut scans = 0;
    loop {
        scans += 1;
        match pull::pull(&services.store, services.advertised, &pull, Reach::Hot) {
            Ok(Attempt::Done(pulled)) if cause == WakeCause::Arrived && is_nothing(&pulled) => {
                // what the filter does not want is passed over here, not by another round trip of the client
                let progress = pulled.next > pull.from;
                pull.from = pulled.next;
                if progress && pull.from < pulled.max && scans < SCANS_PER_TURN {
                    continue;
                }
                // if there is more already, it is ready again at once
                if let Err(waiter) = services.long_polls.hold(pull, connection, deadline, waiter) {
                    waiter.answer(Ok(pulled));
                }
            }
            Ok(Attempt::Done(pulled)) => waiter.answer(Ok(pulled)),
            Ok(Attempt::Cold) => answer_from_disk(services, pull, waiter),
            Err(error) => waiter.answer(Err(error)),
        }
        return;
    }
}

fn is_nothing(pulled: &Pulled) -> bool {
    matches!(pulled.status, PullStatus::NoMatch | PullStatus::Empty)
}

/// Reads on a thread that may wait for the disk, and answers from there.
pub(crate) fn answer_from_disk(services: &Arc<Services>, pull: Pull, waiter: Box<dyn PullWaiter>) {
    let services = Arc::clone(services);
    tokio::task::spawn_blocking(move || {
        let attempt = pull::pull(&services.store, services.advertised, &pull, Reach::Disk);
        let pulled = attempt.map(|attempt| match attempt {
            Attempt::Done(pulled) => pulled,
            // a read that may use the disk is never cold; were it so, the client asks again
            Attempt::Cold => nothing_yet(&pull.queue, pull.from),
        });
        waiter.answer(pulled);
    });
}

/// The answer "nothing here yet".
pub(crate) fn nothing_yet(queue: &Queue, from: QueueOffset) -> Pulled {
    Pulled {
        status: PullStatus::Empty,
        body: bytes::Bytes::new(),
        next: from,
        min: queue.min_offset(),
        max: queue.max_offset(),
    }
}
