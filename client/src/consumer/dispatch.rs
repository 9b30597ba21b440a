//! From pulled messages to verdicts: a bounded number of handlers takes messages of all queues in turn.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mezzo_protocol::ids::QueueOffset;
use tokio::time::Instant;
use tracing::Instrument;

use super::contained::{Contained, contained, poll_once};
use super::held_queue::HeldQueue;
use super::job::Job;
use super::member::GroupMember;
use super::verdict::{Handler, Verdict};

/// Most jobs that a worker takes at one time.
const BATCH_MAX: usize = 32;

/// A worker that needs longer for its jobs than this gives those it has not begun with back to the others.
const BATCH_TIME: Duration = Duration::from_millis(1);

/// Dead letter, as CONSUMER_SEND_MSG_BACK says it.
const DEAD_LETTER: i32 = -1;

/// Finished messages of one queue that the queue has not been told of.
#[derive(Default)]
struct Finished {
    of: Option<(Arc<HeldQueue>, u64)>,
    offsets: Vec<QueueOffset>,
}

impl Finished {
    fn note(&mut self, job: Job) {
        let same =
            |(held, epoch): &(Arc<HeldQueue>, u64)| Arc::ptr_eq(held, &job.held) && *epoch == job.taken.epoch;
        if !self.of.as_ref().is_some_and(same) {
            self.tell();
            self.of = Some((job.held, job.taken.epoch));
        }
        self.offsets.push(job.taken.offset);
    }

    fn tell(&mut self) {
        if let Some((held, epoch)) = self.of.take() {
            held.finish(&self.offsets, epoch);
        }
        self.offsets.clear();
    }
}

/// What is to be done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    /// What the handler said.
    Said(Verdict),
    /// The body cannot be read here; another client of the group may be able to.
    Unreadable,
}

/// One worker: takes jobs until the consumer stops. Finishes the one it has.
pub(super) async fn work<H: Handler>(member: Arc<GroupMember>, handler: Arc<H>) {
    let stop = member.stop.clone();
    let mut stopped = pin!(stop.cancelled());
    let mut batch = VecDeque::with_capacity(BATCH_MAX);
    let mut size = 1;
    let mut finished = Finished::default();
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => return,
            () = member.jobs.take(size, &mut batch) => {}
        }
        // Handlers that never wait get many messages at a time, all others one.
        size = (size * 2).min(BATCH_MAX);
        let began = Instant::now();
        while let Some(job) = batch.pop_front() {
            if stop.is_cancelled() {
                break;
            }
            let Some(job) = member.admit(job) else { continue };
            let judgement = {
                let mut judging = pin!(judge(&member, &*handler, &job));
                match poll_once(judging.as_mut()).await {
                    Poll::Ready(judgement) => judgement,
                    Poll::Pending => {
                        finished.tell();
                        member.jobs.put_back(&mut batch);
                        size = 1;
                        judging.await
                    }
                }
            };
            if judgement == Judgement::Said(Verdict::Done) {
                if member.ordered {
                    member.done(job);
                } else {
                    finished.note(job);
                }
            } else {
                finished.tell();
                member.jobs.put_back(&mut batch);
                settle(&member, job, judgement).await;
            }
            if began.elapsed() > BATCH_TIME {
                finished.tell();
                member.jobs.put_back(&mut batch);
                size = 1;
            }
        }
        finished.tell();
        // Messages without end must not keep the runtime from its other tasks.
        tokio::task::yield_now().await;
    }
}

/// Reads the message and runs the handler; whatever goes wrong there means "retry".
async fn judge<H: Handler>(member: &GroupMember, handler: &H, job: &Job) -> Judgement {
    let (queue, offset) = (&job.held.queue, job.taken.offset);
    let message = match job.message(member.config.inflated_bytes_max) {
        Ok(message) => message,
        Err(error) => {
            tracing::error!(%queue, %offset, %error, "a message cannot be read");
            return Judgement::Unreadable;
        }
    };
    let limit_ms = member.config.handler_timeout_ms;
    let span = tracing::debug_span!(
        "handle", topic = %queue.topic, group = %member.group, broker = %queue.broker_name, queue = queue.queue_id.0,
        %offset
    );
    let handling = contained(|| handler.handle(message), Duration::from_millis(limit_ms));
    let metrics = member.shared().metrics.as_ref().map(|metrics| (metrics, Instant::now()));
    let verdict = match handling.instrument(span).await {
        Contained::Ended(verdict) => verdict,
        Contained::Panicked => {
            tracing::error!(%queue, %offset, "the handler panicked; the message will be delivered again");
            Verdict::Retry
        }
        Contained::TooLong => {
            tracing::warn!(%queue, %offset, limit_ms, "the handler took too long; delivering again");
            Verdict::Retry
        }
    };
    if let Some((metrics, began)) = metrics {
        metrics.handled(queue, verdict, began.elapsed());
    }
    Judgement::Said(verdict)
}

/// Does what the verdict says. The message is finished only when the broker has it back, so that a failure here repeats
/// it instead of losing it.
async fn settle(member: &Arc<GroupMember>, job: Job, judgement: Judgement) {
    let verdict = match judgement {
        Judgement::Said(verdict) => verdict,
        Judgement::Unreadable => Verdict::Retry,
    };
    if member.ordered && judgement != Judgement::Unreadable {
        let suspend_ms = match verdict {
            Verdict::Retry => Some(member.config.ordered_suspend_ms),
            Verdict::RetryAfter(wait) => Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            Verdict::Done | Verdict::DeadLetter => None,
        };
        if let Some(suspend_ms) = suspend_ms {
            return retry_here(Arc::clone(member), job, suspend_ms);
        }
    }
    if member.is_broadcast() {
        return settle_broadcast(member, job, judgement);
    }
    let Some(delay_level) = verdict.delay_level() else { return member.done(job) };
    let reference = match job.reference() {
        Ok(reference) => reference,
        Err(error) => {
            // It was read once to be taken in, so this cannot happen; finishing it loses nothing that could be read.
            tracing::error!(queue = %job.held.queue, offset = %job.taken.offset, %error, "a message is passed over");
            return member.done(job);
        }
    };
    let delay_level = if verdict == Verdict::DeadLetter { DEAD_LETTER } else { delay_level };
    match member.send_back(&job.held.queue, &reference, delay_level).await {
        Ok(()) => member.done(job),
        Err(error) => {
            let wait_ms = member.config.local_retry_ms;
            tracing::warn!(
                queue = %job.held.queue, offset = %job.taken.offset, %error, wait_ms,
                "the message could not be handed back; it will be processed here again"
            );
            retry_here(Arc::clone(member), job, wait_ms);
        }
    }
}

/// The same where no broker takes the message back: it is repeated here so often, and then passed over.
fn settle_broadcast(member: &Arc<GroupMember>, job: Job, judgement: Judgement) {
    let wait_ms = match judgement {
        Judgement::Said(Verdict::Retry) => Some(member.config.local_retry_ms),
        Judgement::Said(Verdict::RetryAfter(wait)) => {
            Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
        }
        Judgement::Said(Verdict::Done | Verdict::DeadLetter) | Judgement::Unreadable => None,
    };
    if let Some(wait_ms) = wait_ms.filter(|_| job.taken.repeats < member.config.retries_max) {
        return retry_here(Arc::clone(member), job, wait_ms);
    }
    tracing::error!(
        queue = %job.held.queue, offset = %job.taken.offset, attempts = job.taken.repeats + 1,
        "a broadcast message is passed over"
    );
    member.done(job);
}

/// Puts the job back after a while, unless its queue is moved or taken away meanwhile: then it does not stand in the way
/// of what comes next.
fn retry_here(member: Arc<GroupMember>, mut job: Job, wait_ms: u64) {
    tokio::spawn(async move {
        let held = Arc::clone(&job.held);
        let mut waited = pin!(tokio::time::sleep(Duration::from_millis(wait_ms)));
        loop {
            let mut moved = pin!(held.moved.notified());
            moved.as_mut().enable();
            if !job.counts() {
                return member.pass(&held);
            }
            tokio::select! {
                () = held.dropped.cancelled() => {}
                () = moved => {}
                () = &mut waited => break,
            }
        }
        job.taken.repeats = job.taken.repeats.saturating_add(1);
        member.jobs.push([job]);
    });
}

impl GroupMember {
    /// Whether a worker may handle `job` now; if not, the job is kept for later or forgotten, as its queue is.
    pub(super) fn admit(self: &Arc<Self>, job: Job) -> Option<Job> {
        if !job.counts() || self.lock_is_over(&job.held) {
            self.pass(&job.held);
            return None;
        }
        let Job { held, taken } = job;
        let taken = held.admit(taken)?;
        Some(Job { held, taken })
    }

    /// The message needs no more work.
    pub(super) fn done(&self, job: Job) {
        job.held.finish(&[job.taken.offset], job.taken.epoch);
        self.pass(&job.held);
    }

    /// A message left its worker: the next one of an ordered queue is due.
    pub(super) fn pass(&self, held: &Arc<HeldQueue>) {
        if self.ordered {
            self.hand_out(held, held.advance());
        }
    }
}
