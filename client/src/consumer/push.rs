//! The running consumer: what the application holds, and its orderly end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::ids::{GroupName, MessageQueue};
use tokio::task::JoinSet;
use tokio_util::sync::DropGuard;

use super::lag::Lag;
use super::member::{Commits, GroupMember};
use super::seek::SeekTo;
use super::verdict::Handler;
use super::{dispatch, offsets, queue_lock, rebalance, stall};
use crate::client::Membership;
use crate::error::Error;

/// Longest wait at shutdown for handlers that were aborted.
const ABORT_TIME: Duration = Duration::from_secs(1);

/// A consumer that pulls by itself and hands each message to a handler; made by
/// [`Client::push_consumer`](crate::Client::push_consumer).
///
/// The queues of its topics are divided among all members of the group. Handlers run concurrently, or for each queue one
/// at a time if the handler was given to [`ordered_handler`](crate::PushConsumerBuilder::ordered_handler). Offsets are committed
/// every few seconds and at [`PushConsumer::shutdown`]; dropping the consumer instead ends it at once, and messages since
/// the last commit come again (an ordered one's queues after a minute, when the broker has forgotten its locks).
///
/// No message is passed over in silence: one whose body cannot be read goes back to the broker, as after
/// [`Verdict::Retry`](crate::Verdict::Retry); a record that is damaged beyond that is asked for a few times more, then
/// logged as an error and passed over, because nothing behind it would ever come else.
///
/// ```no_run
/// # async fn example(client: mezzo_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use mezzo_client::{ReceivedMessage, Verdict};
///
/// let consumer = client
///     .push_consumer("mailers")
///     .subscribe("orders", "paid || refunded")
///     .handler(|message: ReceivedMessage| async move {
///         println!("{} (attempt {})", message.message_id(), message.delivery_attempt());
///         Verdict::Done
///     })
///     .start()
///     .await?;
/// // … until the program ends:
/// consumer.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a consumer ends it"]
pub struct PushConsumer {
    member: Arc<GroupMember>,
    membership: Membership,
    tasks: JoinSet<()>,
    workers: JoinSet<()>,
    /// Renews the locks of ordered queues until all handlers have ended.
    locks: JoinSet<()>,
    _stop: DropGuard,
    _file: FileGuard,
}

/// Leaves a broadcast consumer's file to others when the consumer has ended, in whatever way.
struct FileGuard(Arc<GroupMember>);

impl Drop for FileGuard {
    fn drop(&mut self) {
        if let Commits::InFile(file) = &self.0.commits {
            file.release();
        }
    }
}

impl PushConsumer {
    /// Starts the consumer's tasks.
    pub(super) fn start<H: Handler>(member: Arc<GroupMember>, membership: Membership, handler: H) -> Self {
        let handler = Arc::new(handler);
        let mut workers = JoinSet::new();
        for _ in 0..member.config.concurrency.max(1) {
            workers.spawn(dispatch::work(Arc::clone(&member), Arc::clone(&handler)));
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(rebalance::run(Arc::clone(&member)));
        tasks.spawn(offsets::run(Arc::clone(&member)));
        tasks.spawn(stall::run(Arc::clone(&member)));
        let mut locks = JoinSet::new();
        if member.locks() {
            locks.spawn(queue_lock::run(Arc::clone(&member)));
        }
        let stop = member.stop.clone().drop_guard();
        let file = FileGuard(Arc::clone(&member));
        Self { member, membership, tasks, workers, locks, _stop: stop, _file: file }
    }

    /// The consumer group.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.member.group
    }

    /// The queues that this member holds now, those of the group's retry topic among them.
    #[must_use]
    pub fn queues(&self) -> Vec<MessageQueue> {
        self.member.held_queues(None).into_iter().collect()
    }

    /// Hands out no more messages and pulls no more, of all queues, those assigned later too. Handlers that run go on;
    /// what was pulled waits. The member stays in its group and keeps its queues.
    ///
    /// ```no_run
    /// # async fn example(consumer: &mezzo_client::PushConsumer) -> Result<(), mezzo_client::Error> {
    /// use mezzo_client::SeekTo;
    ///
    /// consumer.pause();
    /// for queue in consumer.queues() {
    ///     consumer.seek(&queue, SeekTo::Begin).await?;
    /// }
    /// consumer.resume();
    /// println!("{} messages to go", consumer.lag().await?.total());
    /// # Ok(())
    /// # }
    /// ```
    pub fn pause(&self) {
        self.member.pause_all(true);
    }

    /// Ends [`pause`](Self::pause). Queues that were paused one by one stay so.
    pub fn resume(&self) {
        self.member.pause_all(false);
    }

    /// As [`pause`](Self::pause) for one queue, now and whenever this member holds it.
    pub fn pause_queue(&self, queue: &MessageQueue) {
        self.member.pause_queue(queue, true);
    }

    /// Ends [`pause_queue`](Self::pause_queue). A consumer that is paused as a whole stays so.
    pub fn resume_queue(&self, queue: &MessageQueue) {
        self.member.pause_queue(queue, false);
    }

    /// Goes on elsewhere in a queue, and commits that at once. Messages that were pulled and not begun with are
    /// forgotten; verdicts of handlers that run now no longer count.
    ///
    /// # Errors
    /// If this member does not hold the queue, or the broker does not say where the place is.
    pub async fn seek(&self, queue: &MessageQueue, to: SeekTo) -> Result<(), Error> {
        self.member.seek(queue, to).await
    }

    /// How many messages the queues of this member hold that it has not finished. Asks the brokers. Queues that
    /// were not assigned to it yet are not counted.
    ///
    /// # Errors
    /// If a broker does not answer.
    pub async fn lag(&self) -> Result<Lag, Error> {
        self.member.lag().await
    }

    /// Stops pulling, waits for running handlers (at most `drain_timeout_ms`), commits offsets and leaves the group.
    /// Messages that no handler had begun with are left to the other members. Returns whether all handlers ended in
    /// time and all offsets were committed.
    pub async fn shutdown(mut self) -> bool {
        let member = self.member;
        member.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let limit = Duration::from_millis(member.config.drain_timeout_ms);
        let mut ended = all_end(&mut self.workers, limit).await;
        let drained = ended;
        if !drained {
            tracing::warn!(group = %member.group, "handlers are still running; their messages will come again");
            self.workers.abort_all();
            // One that blocks its thread cannot be ended from outside, and must not keep the program from its end.
            ended = all_end(&mut self.workers, ABORT_TIME).await;
        }
        let committed = member.commit_all().await;
        self.locks.shutdown().await;
        // A handler that still runs keeps its queue locked, until the broker forgets the lock.
        if member.locks() && ended {
            let queues: Vec<_> =
                member.all_held_and_leaving().iter().map(|held| held.queue.clone()).collect();
            member.unlock(&queues).await;
        }
        member.shared().leave(self.membership).await;
        drained && committed
    }
}

/// Whether all tasks end within `limit`.
async fn all_end(tasks: &mut JoinSet<()>, limit: Duration) -> bool {
    let end = async { while tasks.join_next().await.is_some() {} };
    tokio::time::timeout(limit, end).await.is_ok()
}

impl fmt::Debug for PushConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushConsumer").field("group", self.group()).finish_non_exhaustive()
    }
}
