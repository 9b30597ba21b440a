//! One queue that this member holds: its unfinished messages, its place among the pulls, and whether it was taken away.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mezzo_protocol::ids::{MessageQueue, QueueOffset};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::core::process_queue::{PrefetchLimits, ProcessQueue};
use crate::core::route::MASTER_ID;

#[derive(Debug)]
struct State {
    /// `None` until it is known where to start.
    process: Option<ProcessQueue>,
    /// What the broker is known to have.
    committed: Option<QueueOffset>,
}

/// A queue between the rebalance that assigned it and the one that takes it away.
#[derive(Debug)]
pub(super) struct HeldQueue {
    pub(super) queue: MessageQueue,
    limits: PrefetchLimits,
    state: Mutex<State>,
    room: Notify,
    /// Cancelled when the queue was taken away or the consumer stops.
    pub(super) dropped: CancellationToken,
    /// The member of the broker to pull from, as the broker suggested.
    pull_from: AtomicI64,
    /// How often the queue was reset. After a reset the same offset may stand for another message, so a verdict counts
    /// only in the epoch in which its message was taken in. Changed under the lock of `state`.
    epoch: AtomicU64,
}

impl HeldQueue {
    /// A queue that was just assigned.
    pub(super) const fn new(queue: MessageQueue, limits: PrefetchLimits, dropped: CancellationToken) -> Self {
        let state = State { process: None, committed: None };
        Self {
            queue,
            limits,
            state: Mutex::new(state),
            room: Notify::const_new(),
            dropped,
            pull_from: AtomicI64::new(MASTER_ID),
            epoch: AtomicU64::new(0),
        }
    }

    /// Pulls begin at `start`; `committed` says whether the broker has this offset already.
    pub(super) fn begin(&self, start: QueueOffset, committed: bool) {
        let mut state = self.lock();
        state.process = Some(ProcessQueue::new(start));
        state.committed = committed.then_some(start);
    }

    /// Takes in what one pull brought: calls `accept` for each message with a function that says whether it is new.
    pub(super) fn take_in(
        &self,
        next: QueueOffset,
        messages: impl FnOnce(&mut dyn FnMut(QueueOffset, usize) -> bool),
    ) {
        let mut state = self.lock();
        if let Some(process) = state.process.as_mut() {
            messages(&mut |offset, bytes| process.accept(offset, bytes));
            process.advance(next);
        }
    }

    /// The broker says that the queue continues elsewhere: what was taken in before no longer counts.
    pub(super) fn reset(&self, next: QueueOffset) {
        let mut state = self.lock();
        self.epoch.fetch_add(1, Ordering::Relaxed);
        if let Some(process) = state.process.as_mut() {
            process.reset(next);
        }
        drop(state);
        self.room.notify_one();
    }

    /// The epoch of what is taken in now.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// A message that was taken in during `epoch` needs no more work.
    pub(super) fn finish(&self, offset: QueueOffset, epoch: u64) {
        let mut state = self.lock();
        if epoch != self.epoch() {
            return;
        }
        let Some(process) = state.process.as_mut() else { return };
        let was_full = !process.has_room(&self.limits);
        process.finish(offset);
        let wake = was_full && process.has_room(&self.limits);
        drop(state);
        if wake {
            self.room.notify_one();
        }
    }

    /// Waits until another pull is allowed and returns where to pull.
    pub(super) async fn room(&self) -> QueueOffset {
        loop {
            let woken = self.room.notified();
            {
                let state = self.lock();
                if let Some(process) = state.process.as_ref().filter(|process| process.has_room(&self.limits))
                {
                    return process.next_pull();
                }
            }
            woken.await;
        }
    }

    /// The offset to commit, if the broker does not have it yet.
    pub(super) fn uncommitted(&self) -> Option<QueueOffset> {
        let state = self.lock();
        let offset = state.process.as_ref()?.commit_offset();
        (state.committed != Some(offset)).then_some(offset)
    }

    /// The broker has `offset`.
    pub(super) fn committed(&self, offset: QueueOffset) {
        self.lock().committed = Some(offset);
    }

    /// Messages without a verdict.
    pub(super) fn unfinished(&self) -> usize {
        self.lock().process.as_ref().map_or(0, ProcessQueue::unfinished)
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

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mezzo_protocol::ids::{QueueId, TopicName};
    use std::sync::Arc;

    fn held(messages: usize) -> HeldQueue {
        let queue = MessageQueue::new(TopicName::new("t").unwrap(), "b", QueueId(0));
        let limits = PrefetchLimits { messages, bytes: 1_000, span: 1_000 };
        HeldQueue::new(queue, limits, CancellationToken::new())
    }

    fn pull(held: &HeldQueue, offsets: std::ops::Range<u64>) {
        held.take_in(QueueOffset(offsets.end), |accept| {
            for offset in offsets {
                accept(QueueOffset(offset), 1);
            }
        });
    }

    #[test]
    fn nothing_is_committed_before_the_start_is_known_and_nothing_twice() {
        let held = held(10);
        assert_eq!(held.uncommitted(), None);
        held.begin(QueueOffset(5), true);
        assert_eq!(held.uncommitted(), None);
        pull(&held, 5..7);
        held.finish(QueueOffset(5), 0);
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
        held.finish(QueueOffset(0), 0);
        assert_eq!((held.unfinished(), held.uncommitted()), (1, None));
        assert!(!held.counts(0) && held.counts(1));
        held.finish(QueueOffset(0), held.epoch());
        assert_eq!(held.uncommitted(), Some(QueueOffset(1)));
    }

    #[tokio::test]
    async fn a_full_queue_waits_for_a_verdict_before_the_next_pull() {
        let held = Arc::new(held(2));
        held.begin(QueueOffset(0), false);
        assert_eq!(held.room().await, QueueOffset(0));
        pull(&held, 0..2);
        let waiting = tokio::spawn({
            let held = Arc::clone(&held);
            async move { held.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        held.finish(QueueOffset(1), 0);
        assert_eq!(waiting.await.unwrap(), QueueOffset(2));
    }
}
