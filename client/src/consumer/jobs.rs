//! The messages of all queues that wait for a worker.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::held_queue::HeldQueue;
use super::job::{Job, Taken};

/// Messages that wait for a worker, in order of arrival. Bounded by the prefetch limits of the queues that they come from.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    waiting: Mutex<VecDeque<Job>>,
    /// While jobs wait there is a permit, or a worker that was woken and passes it on.
    some: Notify,
}

impl Jobs {
    /// Adds jobs behind those that wait.
    pub(super) fn push(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut waiting = self.lock();
        waiting.extend(jobs);
        let any = !waiting.is_empty();
        drop(waiting);
        if any {
            self.some.notify_one();
        }
    }

    /// Puts jobs back that were taken too early: before those that wait, in their order.
    pub(super) fn put_back(&self, jobs: &mut VecDeque<Job>) {
        if jobs.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        while let Some(job) = jobs.pop_back() {
            waiting.push_front(job);
        }
        drop(waiting);
        self.some.notify_one();
    }

    /// Takes back all that waits of one queue, in its order.
    pub(super) fn withdraw(&self, held: &Arc<HeldQueue>) -> Vec<Taken> {
        let mut waiting = self.lock();
        let (withdrawn, rest): (VecDeque<_>, VecDeque<_>) =
            waiting.drain(..).partition(|job| Arc::ptr_eq(&job.held, held));
        *waiting = rest;
        drop(waiting);
        withdrawn.into_iter().map(|job| job.taken).collect()
    }

    /// Waits until there are jobs and takes up to `max` of them. Nothing is lost if the wait is given up.
    pub(super) async fn take(&self, max: usize, into: &mut VecDeque<Job>) {
        loop {
            if self.try_take(max, into) {
                return;
            }
            self.some.notified().await;
        }
    }

    /// Waits until there are jobs, and takes none.
    pub(super) async fn some(&self) {
        while self.lock().is_empty() {
            self.some.notified().await;
        }
        // Who waited may be gone before it takes any: the next one has to know.
        self.some.notify_one();
    }

    /// Takes up to `max` jobs that wait now. Returns whether there were any.
    pub(super) fn try_take(&self, max: usize, into: &mut VecDeque<Job>) -> bool {
        self.try_take_counted(into, |waiting| waiting.len().min(max.max(1)))
    }

    /// The same with the jobs of one queue that stand before those of others.
    pub(super) fn try_take_of_one(&self, max: usize, into: &mut VecDeque<Job>) -> bool {
        self.try_take_counted(into, |waiting| {
            let mut jobs = waiting.iter().take(max.max(1));
            let Some(first) = jobs.next() else { return 0 };
            1 + jobs.take_while(|job| Arc::ptr_eq(&job.held, &first.held)).count()
        })
    }

    fn try_take_counted(
        &self,
        into: &mut VecDeque<Job>,
        count: impl FnOnce(&VecDeque<Job>) -> usize,
    ) -> bool {
        let mut waiting = self.lock();
        let count = count(&waiting);
        into.extend(waiting.drain(..count));
        let more = !waiting.is_empty();
        drop(waiting);
        if more {
            self.some.notify_one();
        }
        count > 0
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Job>> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::backlog::tests::taken;
    use crate::consumer::backlog::{Backlog, Lock};
    use crate::core::process_queue::PrefetchLimits;
    use mezzo_protocol::ids::{MessageQueue, QueueId, TopicName};
    use tokio_util::sync::CancellationToken;

    #[test]
    fn one_queue_takes_back_its_own_messages_in_their_order() {
        let limits = PrefetchLimits { messages: 10, bytes: 10, span: 10 };
        let held = |id| {
            let queue = MessageQueue::new(TopicName::new("t").unwrap(), "b", QueueId(id));
            let backlog = Backlog::new(false, Lock::NotNeeded, false);
            Arc::new(HeldQueue::new(queue, limits, backlog, CancellationToken::new()))
        };
        let (one, other) = (held(0), held(1));
        let jobs = Jobs::default();
        for number in 0..3 {
            for held in [&one, &other] {
                jobs.push(taken(&[number]).into_iter().map(|taken| Job { held: Arc::clone(held), taken }));
            }
        }
        let offsets = |taken: Vec<Taken>| taken.iter().map(|taken| taken.offset.0).collect::<Vec<_>>();
        assert_eq!(offsets(jobs.withdraw(&one)), [0, 1, 2]);
        assert!(jobs.withdraw(&one).is_empty());
        assert_eq!(offsets(jobs.withdraw(&other)), [0, 1, 2]);
    }
}
