//! From pulled messages to verdicts: a bounded number of handlers takes messages of all queues in turn.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use mezzo_protocol::ids::QueueOffset;
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::held_queue::HeldQueue;
use super::member::GroupMember;
use super::send_back::BackReference;
use super::verdict::{Handler, Verdict};
use crate::message::ReceivedMessage;

/// What a worker has to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Hand the message to the handler.
    Handle(Box<ReceivedMessage>),
    /// The body cannot be read here: give the message back, another client of the group may be able to.
    GiveBack(BackReference),
}

/// One message of one queue.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) held: Arc<HeldQueue>,
    pub(super) offset: QueueOffset,
    /// When it was taken in, see [`HeldQueue::epoch`].
    pub(super) epoch: u64,
    pub(super) work: Work,
}

/// Messages that wait for a worker. Bounded by the prefetch limits of the queues that they come from.
#[derive(Debug)]
pub(super) struct Jobs {
    waiting: Mutex<VecDeque<Job>>,
    /// One permit per waiting job.
    count: Semaphore,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { waiting: Mutex::default(), count: Semaphore::new(0) }
    }
}

impl Jobs {
    /// Adds jobs behind those that wait.
    pub(super) fn push(&self, jobs: Vec<Job>) {
        let added = jobs.len();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(jobs);
        self.count.add_permits(added);
    }

    /// Waits for the next job.
    async fn next(&self) -> Option<Job> {
        self.count.acquire().await.ok()?.forget();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// One worker: takes jobs until the consumer stops. Finishes the one it has.
pub(super) async fn work<H: Handler>(member: Arc<GroupMember>, handler: Arc<H>) {
    loop {
        let job = tokio::select! {
            biased;
            () = member.stop.cancelled() => return,
            job = member.jobs.next() => job,
        };
        let Some(job) = job else { return };
        if !job.held.counts(job.epoch) {
            continue;
        }
        let verdict = match &job.work {
            Work::Handle(message) => judge(&member, &*handler, message).await,
            Work::GiveBack(_) => Verdict::Retry,
        };
        settle(&member, job, verdict).await;
    }
}

/// Runs the handler; whatever goes wrong there means "retry".
async fn judge<H: Handler>(member: &GroupMember, handler: &H, message: &ReceivedMessage) -> Verdict {
    let limit_ms = member.config.handler_timeout_ms;
    let span = tracing::debug_span!("handle", topic = %message.topic(), offset = %message.queue_offset());
    let handling = contained(|| handler.handle(message.clone()), Duration::from_millis(limit_ms));
    match handling.instrument(span).await {
        Contained::Ended(verdict) => verdict,
        Contained::Panicked => {
            tracing::error!(
                id = message.message_id(),
                "the handler panicked; the message will be delivered again"
            );
            Verdict::Retry
        }
        Contained::TooLong => {
            tracing::warn!(
                id = message.message_id(),
                limit_ms,
                "the handler took too long; delivering again"
            );
            Verdict::Retry
        }
    }
}

/// What became of a future that must not take its worker with it.
#[derive(Debug, PartialEq, Eq)]
enum Contained<T> {
    Ended(T),
    Panicked,
    TooLong,
}

/// Runs a future to its end, to its panic, or until `limit`. A panicked future is never polled again. A panic in its
/// destructor ends here too: a worker that dies of it would be missed by nobody but the messages.
async fn contained<F: Future>(make: impl FnOnce() -> F, limit: Duration) -> Contained<F::Output> {
    let Ok(future) = catch_unwind(AssertUnwindSafe(make)) else { return Contained::Panicked };
    let mut place = pin!(Some(future));
    let polls = poll_fn(|context| {
        let poll = || place.as_mut().as_pin_mut().map_or(Poll::Pending, |future| future.poll(context));
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(polled) => polled.map(Contained::Ended),
            Err(_) => Poll::Ready(Contained::Panicked),
        }
    });
    let result = tokio::time::timeout(limit, polls).await.unwrap_or(Contained::TooLong);
    if catch_unwind(AssertUnwindSafe(|| place.set(None))).is_err() {
        tracing::error!("a destructor in the handler panicked");
    }
    result
}

/// Does what the verdict says. The message is finished only when the broker has it back, so that a failure here repeats
/// it instead of losing it.
async fn settle(member: &Arc<GroupMember>, job: Job, verdict: Verdict) {
    let Some(delay_level) = verdict.delay_level() else { return job.held.finish(job.offset, job.epoch) };
    let reference = match &job.work {
        Work::Handle(message) => BackReference::from(&**message),
        Work::GiveBack(reference) => reference.clone(),
    };
    match member.send_back(&job.held.queue, &reference, delay_level).await {
        Ok(()) => job.held.finish(job.offset, job.epoch),
        Err(error) => {
            let wait_ms = member.config.local_retry_ms;
            tracing::warn!(
                queue = %job.held.queue, offset = %job.offset, %error, wait_ms,
                "the message could not be handed back; it will be processed here again"
            );
            retry_here(Arc::clone(member), job, wait_ms);
        }
    }
}

/// Puts the job back after a while, unless its queue is taken away meanwhile.
fn retry_here(member: Arc<GroupMember>, job: Job, wait_ms: u64) {
    tokio::spawn(async move {
        tokio::select! {
            () = job.held.dropped.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {
                let Job { held, offset, epoch, work } = job;
                let work = match work {
                    Work::Handle(message) => Work::Handle(Box::new(message.delivered_again())),
                    give_back @ Work::GiveBack(_) => give_back,
                };
                member.jobs.push(vec![Job { held, offset, epoch, work }]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_panic_ends_the_future_and_nothing_else() {
        assert_eq!(contained(|| async { 7 }, LONG).await, Contained::Ended(7));
        assert_eq!(contained(|| async { panic!("in the handler") }, LONG).await, Contained::<()>::Panicked);
        let broken: fn() -> std::future::Ready<()> = || panic!("before the future");
        assert_eq!(contained(broken, LONG).await, Contained::Panicked);
    }

    #[tokio::test]
    async fn a_destructor_that_panics_when_the_time_is_over_ends_nothing_else() {
        struct Breaks;
        impl Drop for Breaks {
            fn drop(&mut self) {
                panic!("in the destructor");
            }
        }
        let endless = || async {
            let _breaks = Breaks;
            std::future::pending::<()>().await;
        };
        assert_eq!(contained(endless, Duration::from_millis(1)).await, Contained::TooLong);
    }
}
