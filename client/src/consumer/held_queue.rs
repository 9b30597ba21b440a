//! One queue that this member holds: its unfinished messages, its place among the pulls, and whether it was taken away.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mezzo_protocol::ids::{MessageQueue, QueueOffset};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backlog::{Backlog, Lock};
use super::job::Taken;
use super::leased::Claim;
use crate::core::process_queue::{PrefetchLimits, ProcessQueue};
use crate::core::route::MASTER_ID;

#[derive(Debug)]
struct State {
    /// `None` until it is known where to start.
    process: Option<ProcessQueue>,
    /// What the broker is known to have.
    committed: Option<QueueOffset>,
    backlog: Backlog,
    /// The lowest unfinished offset when it was last looked at, and since when it is that.
    lowest: Option<(QueueOffset, Instant)>,
    /// Verdicts no longer count: another member goes on from the offset that is committed now.
    frozen: bool,
}

/// A queue between the rebalance that assigned it and the one that takes it away.
#[derive(Debug)]
pub(super) struct HeldQueue {
    pub(super) queue: MessageQueue,
    limits: PrefetchLimits,
    state: Mutex<State>,
    /// Held from the moment in which messages may go to the workers until they have them: those of the next pull must
    /// not overtake those that waited for the end of a pause. Taken before `state`.
    handing_out: Mutex<()>,
    room: Notify,
    /// Notified when the queue continues elsewhere: a pull under way asks for the wrong messages, and what waits for its
    /// next attempt waits in vain.
    pub(super) moved: Notify,
    /// Held while an offset is on its way to the broker, so that an older one never arrives after a newer one.
    pub(super) committing: tokio::sync::Mutex<()>,
    /// Notified when no message of an ordered queue is at a worker any more.
    idle: Notify,
    /// Cancelled when the queue was taken away or the consumer stops.
    pub(super) dropped: CancellationToken,
    /// The lease, of a consumer that has its queues leased.
    pub(super) claim: OnceLock<Arc<Claim>>,
    /// Cancelled when an ordered queue that was taken away has seen its last handler end, or the lease of a leased one is
    /// given back or lost.
    pub(super) ended: CancellationToken,
    /// The member of the broker to pull from, as the broker suggested.
    pull_from: AtomicI64,
    /// How often the queue was reset. After a reset the same offset may stand for another message, so a verdict counts
    /// only in the epoch in which its message was taken in. Changed under the lock of `state`.
    epoch: AtomicU64,
}

/// Where to pull, and in which epoch that is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PullPoint {
    pub(super) from: QueueOffset,
    pub(super) epoch: u64,
}

impl HeldQueue {
    /// A queue that was just assigned.
    pub(super) fn new(
        queue: MessageQueue,
        limits: PrefetchLimits,
        backlog: Backlog,
        dropped: CancellationToken,
    ) -> Self {
        Self {
            queue,
            limits,
            state: Mutex::new(State { process: None, committed: None, backlog, lowest: None, frozen: false }),
            handing_out: Mutex::new(()),
            room: Notify::const_new(),
            moved: Notify::const_new(),
            committing: tokio::sync::Mutex::const_new(()),
            idle: Notify::const_new(),
            dropped,
            claim: OnceLock::new(),
            ended: CancellationToken::new(),
            pull_from: AtomicI64::new(MASTER_ID),
            epoch: AtomicU64::new(0),
        }
    }

    /// Pulls begin at `start`, unless the application has said meanwhile where; `committed` says whether the broker has
    /// this offset already.
    pub(super) fn begin(&self, start: QueueOffset, committed: bool) {
        let mut state = self.lock();
        state.committed = committed.then_some(start);
        if state.process.is_none() {
            state.process = Some(ProcessQueue::new(start));
        }
    }

    /// Takes in what one pull brought in `epoch`; everything before `next` was pulled then. Returns those messages that
    /// may go to the workers now, and how many were new.
    pub(super) fn take_in(
        &self,
        epoch: u64,
        next: QueueOffset,
        mut messages: Vec<Taken>,
    ) -> (Vec<Taken>, usize) {
        let mut state = self.lock();
        if epoch != self.epoch() {
            return (Vec::new(), 0);
        }
        let Some(process) = state.process.as_mut() else { return (Vec::new(), 0) };
        messages.retain(|taken| process.accept(taken.offset, taken.bytes()));
        process.advance(next);
        let new = messages.len();
        (state.backlog.offer(messages), new)
    }

    /// The queue continues elsewhere: what was taken in before no longer counts.
    pub(super) fn reset(&self, next: QueueOffset) {
        self.reset_locked(&mut self.lock(), next);
    }

    /// The same, if the queue has not been moved since `epoch`: what the application said last stands.
    pub(super) fn reset_in(&self, epoch: u64, next: QueueOffset) {
        let mut state = self.lock();
        if self.epoch() == epoch {
            self.reset_locked(&mut state, next);
        }
    }

    fn reset_locked(&self, state: &mut State, next: QueueOffset) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        state.process.get_or_insert_with(|| ProcessQueue::new(next)).reset(next);
        state.backlog.clear();
        self.room.notify_one();
        self.moved.notify_waiters();
    }

    /// Keeps the queue's messages from handlers and stops its pulls, or lets them go on. Returns what is due then.
    pub(super) fn pause(&self, paused: bool) -> Vec<Taken> {
        let due = self.lock().backlog.pause(paused);
        self.room.notify_one();
        due
    }

    /// The lowest unfinished offset, once it is known where the queue begins.
    pub(super) fn position(&self) -> Option<QueueOffset> {
        self.lock().process.as_ref().map(ProcessQueue::commit_offset)
    }

    /// The message that has kept the offset from moving since it was last asked for here, and since when.
    pub(super) fn stalled(&self, now: Instant) -> Option<(QueueOffset, Instant)> {
        let mut state = self.lock();
        let waits = state.process.as_ref().filter(|process| process.unfinished() > 0);
        let lowest = waits.filter(|_| !state.backlog.is_paused()).map(ProcessQueue::commit_offset);
        let before = state.lowest.filter(|(offset, _)| Some(*offset) == lowest);
        state.lowest = before.or_else(|| lowest.map(|offset| (offset, now)));
        before
    }

    /// The epoch of what is taken in now.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Messages that were taken in during `epoch` need no more work.
    pub(super) fn finish(&self, offsets: &[QueueOffset], epoch: u64) {
        let mut state = self.lock();
        if state.frozen || epoch != self.epoch() {
            return;
        }
        let Some(process) = state.process.as_mut() else { return };
        let was_full = !process.has_room(&self.limits);
        for offset in offsets {
            process.finish(*offset);
        }
        let wake = was_full && process.has_room(&self.limits);
        drop(state);
        if wake {
            self.room.notify_one();
        }
    }

    /// Waits until another pull is allowed and returns where to pull.
    pub(super) async fn room(&self) -> PullPoint {
        loop {
            let woken = self.room.notified();
            {
                let state = self.lock();
                let open = state.process.as_ref().filter(|process| process.has_room(&self.limits));
                if let Some(process) = open.filter(|_| !state.backlog.is_paused()) {
                    return PullPoint { from: process.next_pull(), epoch: self.epoch() };
                }
            }
            woken.await;
        }
    }

    /// The offset to commit, if the broker does not have it yet.
    pub(super) fn uncommitted(&self) -> Option<QueueOffset> {
        let state = self.lock();
        let offset = state.process.as_ref()?.commit_offset();
        // Once the lock is over, another member may have it, and may have come further.
        let mine = state.backlog.lock.counts(Instant::now());
        (mine && state.committed != Some(offset)).then_some(offset)
    }

    /// Nobody knows what the broker has: a commit was not answered, and may have arrived all the same.
    pub(super) fn commit_is_open(&self) {
        self.lock().committed = None;
    }

    /// The broker has `offset`.
    pub(super) fn committed(&self, offset: QueueOffset) {
        self.lock().committed = Some(offset);
    }

    /// The offset stays where it is, whatever handlers say that still run.
    pub(super) fn freeze(&self) {
        self.lock().frozen = true;
    }

    /// Messages without a verdict.
    pub(super) fn unfinished(&self) -> usize {
        self.lock().process.as_ref().map_or(0, ProcessQueue::unfinished)
    }

    /// Keeps others from handing out messages of this queue meanwhile.
    pub(super) fn handing_out(&self) -> MutexGuard<'_, ()> {
        self.handing_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which member of the broker to pull from.
    pub(super) fn pull_from(&self) -> i64 {
        self.pull_from.load(Ordering::Relaxed)
    }

    /// The broker suggests another member.
    pub(super) fn suggest(&self, member: i64) {
        self.pull_from.store(member, Ordering::Relaxed);
    }

    /// Whether verdicts on messages that were taken in during `epoch` still count.
    pub(super) fn counts(&self, epoch: u64) -> bool {
        !self.dropped.is_cancelled() && epoch == self.epoch()
    }

    /// A worker has `taken`: returns it unless the queue is paused and keeps it.
    pub(super) fn admit(&self, taken: Taken) -> Option<Taken> {
        let mut state = self.lock();
        let admitted = state.backlog.admit(taken);
        let idle = state.backlog.is_idle();
        drop(state);
        if admitted.is_none() && idle {
            self.idle.notify_waiters();
        }
        admitted
    }

    /// What was at a worker needs no more work. Returns what is due now.
    pub(super) fn advance(&self) -> Vec<Taken> {
        let mut state = self.lock();
        if self.dropped.is_cancelled() {
            state.backlog.clear();
        }
        let due = state.backlog.advance();
        let idle = state.backlog.is_idle();
        drop(state);
        if idle {
            self.idle.notify_waiters();
        }
        due
    }

    /// Waits until no message of an ordered queue is at a worker.
    pub(super) async fn idle(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.lock().backlog.is_idle() {
                return;
            }
            idle.await;
        }
    }

    /// The broker gave the lock until `lock`, or it is gone.
    pub(super) fn set_lock(&self, lock: Lock) {
        self.lock().backlog.lock = lock;
    }

    /// What is known of the queue's lock.
    pub(super) fn lock_state(&self) -> Lock {
        self.lock().backlog.lock
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::backlog::tests::taken;
    use mezzo_protocol::ids::{QueueId, TopicName};

    fn held(messages: usize) -> HeldQueue {
        let queue = MessageQueue::new(TopicName::new("t").unwrap(), "b", QueueId(0));
        let limits = PrefetchLimits { messages, bytes: 100_000, span: 1_000 };
        HeldQueue::new(queue, limits, Backlog::new(false, Lock::NotNeeded, false), CancellationToken::new())
    }

    fn pull(held: &HeldQueue, offsets: std::ops::Range<u64>) {
        let messages = taken(&offsets.clone().collect::<Vec<_>>());
        held.take_in(held.epoch(), QueueOffset(offsets.end), messages);
    }

    #[test]
    fn nothing_is_committed_before_the_start_is_known_and_nothing_twice() {
        let held = held(10);
        assert_eq!(held.uncommitted(), None);
        held.begin(QueueOffset(5), true);
        assert_eq!(held.uncommitted(), None);
        pull(&held, 5..7);
        held.finish(&[QueueOffset(5)], 0);
        assert_eq!(held.uncommitted(), Some(QueueOffset(6)));
        held.committed(QueueOffset(6));
        assert_eq!(held.uncommitted(), None);
    }

    #[test]
    fn a_verdict_from_before_a_reset_does_not_finish_the_message_that_has_its_offset_now() {
        let held = held(10);
        held.begin(QueueOffset(0), true);
        pull(&held, 0..2);
        held.reset(QueueOffset(0));
        pull(&held, 0..1);
        held.finish(&[QueueOffset(0)], 0);
        assert_eq!((held.unfinished(), held.uncommitted()), (1, None));
        assert!(!held.counts(0) && held.counts(1));
        held.finish(&[QueueOffset(0)], held.epoch());
        assert_eq!(held.uncommitted(), Some(QueueOffset(1)));
    }

    #[test]
    fn what_was_pulled_before_the_application_moved_the_queue_is_not_taken_in() {
        let held = held(10);
        held.begin(QueueOffset(0), true);
        held.reset(QueueOffset(7));
        assert_eq!(held.take_in(0, QueueOffset(2), taken(&[0, 1])).1, 0);
        assert_eq!((held.unfinished(), held.uncommitted()), (0, Some(QueueOffset(7))));
    }

    #[test]
    fn a_broker_that_moves_the_queue_does_not_undo_what_the_application_said_meanwhile() {
        let held = held(10);
        held.begin(QueueOffset(0), true);
        held.reset(QueueOffset(7));
        held.reset_in(0, QueueOffset(3));
        assert_eq!(held.position(), Some(QueueOffset(7)));
        held.reset_in(1, QueueOffset(3));
        assert_eq!(held.position(), Some(QueueOffset(3)));
    }

    #[test]
    fn a_verdict_after_the_queue_was_taken_away_moves_no_offset() {
        let held = held(10);
        held.begin(QueueOffset(0), true);
        pull(&held, 0..2);
        held.finish(&[QueueOffset(0)], 0);
        held.freeze();
        held.finish(&[QueueOffset(1)], 0);
        assert_eq!(held.uncommitted(), Some(QueueOffset(1)), "its next holder begins here");
    }

    #[test]
    fn nothing_is_committed_once_the_lock_is_over() {
        let held = held(10);
        held.begin(QueueOffset(0), true);
        pull(&held, 0..1);
        held.finish(&[QueueOffset(0)], 0);
        held.set_lock(Lock::Until(Instant::now() + std::time::Duration::from_secs(30)));
        assert_eq!(held.uncommitted(), Some(QueueOffset(1)));
        held.set_lock(Lock::Until(Instant::now()));
        assert_eq!(held.uncommitted(), None, "another member may have come further");
    }

    #[test]
    fn a_message_that_stops_its_queue_is_told_until_it_is_finished() {
        let held = held(10);
        held.begin(QueueOffset(0), true);
        let now = Instant::now();
        assert_eq!(held.stalled(now), None);
        pull(&held, 0..2);
        assert_eq!(held.stalled(now), None);
        let later = now + std::time::Duration::from_secs(60);
        assert_eq!(held.stalled(later), Some((QueueOffset(0), now)));
        held.finish(&[QueueOffset(0)], 0);
        assert_eq!(held.stalled(later), None);
        held.pause(true);
        assert_eq!(held.stalled(later), None, "nobody waits for a paused queue");
    }

    #[tokio::test]
    async fn a_full_queue_waits_for_a_verdict_before_the_next_pull() {
        let held = Arc::new(held(2));
        held.begin(QueueOffset(0), false);
        assert_eq!(held.room().await.from, QueueOffset(0));
        pull(&held, 0..2);
        let waiting = tokio::spawn({
            let held = Arc::clone(&held);
            async move { held.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        held.finish(&[QueueOffset(1)], 0);
        assert_eq!(waiting.await.unwrap().from, QueueOffset(2));
    }
}
