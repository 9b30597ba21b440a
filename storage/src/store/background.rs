//! The threads of a store: syncer, segment preparer and keeper (checkpoints, history files, retention),
//! scrubber (`scrub.rs`). Tests that
//! need every step under control start none of them and call the steps themselves.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use mezzo_protocol::time::{Clock, Timestamp};

use super::scrub::{Scrub, ScrubStep};
use super::{Store, lock};
use crate::concurrency::atomic::{AtomicBool, Ordering};
use crate::concurrency::thread::{Builder, JoinHandle, sleep};
use crate::concurrency::{Condvar, Mutex};
use crate::error::StorageError;
use crate::log::PrepareStep;
use crate::options::AckLevel;

/// Segments kept prepared: one for new messages to roll into, and the reserve.
pub(super) const SPARE_SEGMENTS: usize = 2;
/// Pause between steps of zero-filling (1 MiB each): bounds it to about 500 MB/s.
const FILL_PAUSE: Duration = Duration::from_millis(2);
/// Longest time a thread sleeps before it looks around, should a wake-up ever be missed.
const LOOK_AROUND: Duration = Duration::from_millis(500);
/// How often the keeper looks for work.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between its steps while retention has work: bounds carrying to about 30 MB/s, and cutting files to 4 GB/s.
const STEP_PAUSE: Duration = Duration::from_millis(4);
/// Pause after a preparation step that failed, such as for want of disk space.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// At least that long between two attempts to prepare a segment on a full disk.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);
/// A failure of the keeper that repeats itself is told so seldom.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// A flag that a thread can wait for.
#[derive(Debug, Default)]
pub(super) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    pub(super) fn raise(&self) {
        *lock(&self.raised) = true;
        self.changed.notify_all();
    }

    /// Waits until it is raised, at most `timeout`, and lowers it; whether it was.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let raised = lock(&self.raised);
        let (mut raised, _) = self
            .changed
            .wait_timeout_while(raised, timeout, |raised| !*raised)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *raised)
    }

    /// Lowers it; whether it was raised.
    fn take(&self) -> bool {
        std::mem::take(&mut *lock(&self.raised))
    }
}

/// The running threads. [`Background::stop`] ends them; dropping it does too.
#[derive(Debug)]
pub struct Background {
    store: Arc<Store>,
    stopping: Arc<Stopping>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stopping {
    flag: AtomicBool,
    keeper: Signal,
    scrubber: Signal,
}

impl Stopping {
    fn now(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

impl Store {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn run_background(self: &Arc<Self>, clock: Arc<dyn Clock>) -> Result<Background, StorageError> {
        let stopping = Arc::new(Stopping::default());
        let mut background =
            Background { store: Arc::clone(self), stopping: Arc::clone(&stopping), threads: Vec::new() };
        let (store, stop) = (Arc::clone(self), Arc::clone(&stopping));
        background.spawn("mezzo-syncer", move || sync_loop(&store, &stop))?;
        let (store, stop) = (Arc::clone(self), Arc::clone(&stopping));
        background.spawn("mezzo-preparer", move || prepare_loop(&store, &stop))?;
        if self.options.scrub_bytes_per_second > 0 {
            let (store, stop) = (Arc::clone(self), Arc::clone(&stopping));
            background.spawn("mezzo-scrubber", move || scrub_loop(&store, &stop))?;
        }
        let (store, stop) = (Arc::clone(self), stopping);
        background.spawn("mezzo-keeper", move || keep_loop(&store, &stop, &*clock))?;
        Ok(background)
    }
}

impl Store {
    /// What the syncer does each time that it wakes: syncs if somebody asked for it, or if an append that nobody waits
    /// for was left behind; at acknowledgement `memory` always. For those who run no threads.
    ///
    /// # Errors
    /// A failed sync has fenced the log; the observer has been told.
    pub fn sync_step(&self) -> Result<(), StorageError> {
        self.sync_if(self.sync_requested.take())
    }

    fn sync_if(&self, requested: bool) -> Result<(), StorageError> {
        let memory = self.options.ack == AckLevel::Memory;
        // also when nobody asked: an append that nobody waits for is not left behind either
        let behind = requested || memory || self.limit().0 < self.appended.load(Ordering::Acquire);
        if behind { self.sync() } else { Ok(()) }
    }

    /// One step of preparing segments ahead; false when there is nothing to do, or no room. For those who run no
    /// threads.
    ///
    /// # Errors
    /// A failed write or sync has fenced the log; the observer has been told.
    pub fn prepare_step(&self) -> Result<bool, StorageError> {
        let step = self.log.prepare_segments().inspect_err(|_| self.report_if_fenced())?;
        Ok(step == PrepareStep::Worked)
    }

    /// What the keeper does each time that it wakes: [`Store::keep`], true if it has more to do at once; and the observer is told if it fenced the log. For
    /// those who run no threads.
    ///
    /// # Errors
    /// As [`Store::keep`].
    pub fn keep_step(&self, now: Timestamp) -> Result<bool, StorageError> {
        self.keep(now).inspect_err(|_| self.report_if_fenced())
    }
}

impl Background {
    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StorageError> {
        let thread = Builder::new().name(name.to_owned()).spawn(run);
        let dir = &self.store.options.dir;
        self.threads.push(thread.map_err(StorageError::io("start a thread for", dir))?);
        Ok(())
    }

    /// Ends the threads and waits for them.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stopping.flag.store(true, Ordering::Release);
        self.store.request_sync();
        self.store.segments_wanted.raise();
        self.stopping.keeper.raise();
        self.stopping.scrubber.raise();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a storage thread panicked");
            }
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end();
    }
}

fn sync_loop(store: &Store, stopping: &Stopping) {
    let memory = store.options.ack == AckLevel::Memory;
    let patience =
        if memory { Duration::from_millis(store.options.flush_interval_ms.max(1)) } else { LOOK_AROUND };
    while !stopping.now() {
        let requested = store.sync_requested.wait(patience);
        if store.sync_if(requested).is_err() {
            // the observer has been told; nothing will be synced any more
            return;
        }
    }
}

fn prepare_loop(store: &Store, stopping: &Stopping) {
    let mut full = false;
    while !stopping.now() {
        match store.log.prepare_segments() {
            Ok(PrepareStep::Idle) => {
                full = false;
                if store.log.is_pressed() {
                    stopping.keeper.raise();
                }
                store.segments_wanted.wait(LOOK_AROUND);
            }
            Ok(PrepareStep::Worked) => sleep(FILL_PAUSE),
            Ok(PrepareStep::NoSpace) => {
                if !std::mem::replace(&mut full, true) {
                    tracing::warn!(
                        "the disk has no room for another log segment; new messages are refused when none is left"
                    );
                }
                stopping.keeper.raise();
                // each attempt takes for a moment what retention needs to make room, and those who send keep asking
                sleep(FULL_DISK_PAUSE);
                store.segments_wanted.wait(FAILURE_PAUSE);
            }
            Err(e) => {
                tracing::warn!(error = %e, "cannot prepare a log segment");
                store.report_if_fenced();
                if store.is_fenced() {
                    return;
                }
                store.segments_wanted.wait(FAILURE_PAUSE);
            }
        }
    }
}

/// Reads at the rate that is asked for, so that nobody else waits for the disk because of it.
fn scrub_loop(store: &Store, stopping: &Stopping) {
    crate::file_system::step_back();
    let rate = store.options.scrub_bytes_per_second.max(1);
    let mut scrub = Scrub::default();
    while !stopping.now() {
        let pause = match store.scrub_step(&mut scrub) {
            Ok(ScrubStep::Read(bytes)) => Duration::from_millis(bytes.saturating_mul(1000) / rate),
            Ok(ScrubStep::RoundDone) => {
                let counts = store.damage_counts();
                tracing::info!(
                    bytes = counts.scrubbed_bytes,
                    damages = counts.scrub_damages,
                    "a scrub round is done"
                );
                Duration::from_millis(store.options.scrub_interval_ms).max(FAILURE_PAUSE)
            }
            Err(e) => {
                tracing::warn!(error = %e, "the scrub cannot read; it goes on");
                FAILURE_PAUSE
            }
        };
        stopping.scrubber.wait(pause);
    }
}

fn keep_loop(store: &Store, stopping: &Stopping, clock: &dyn Clock) {
    let mut told: Option<Instant> = None;
    while !stopping.now() {
        let pause = match store.keep_step(clock.now()) {
            Ok(true) => {
                store.segments_wanted.raise();
                STEP_PAUSE
            }
            Ok(false) => KEEP_INTERVAL,
            Err(e) => {
                if store.is_fenced() {
                    return;
                }
                if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                    told = Some(Instant::now());
                    tracing::warn!(error = %e, "checkpoint or retention failed; it is tried again");
                }
                KEEP_INTERVAL
            }
        };
        stopping.keeper.wait(pause);
    }
}
