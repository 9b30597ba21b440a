//! The consumer that is asked: what the application holds, and how messages get to it.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::ids::{GroupName, MessageQueue};
use tokio::task::JoinSet;
use tokio_util::sync::DropGuard;

use super::job::Job;
use super::lag::Lag;
use super::member::GroupMember;
use super::pull_stream::MessageStream;
use super::seek::SeekTo;
use super::{pull_loop, rebalance};
use crate::client::Membership;
use crate::error::{Error, RequestError};
use crate::message::ReceivedMessage;

/// A consumer that gives messages when it is asked; made by [`Client::pull_consumer`](crate::Client::pull_consumer).
///
/// It pulls ahead in the background, within the bounds of [`PrefetchLimits`](crate::config::PrefetchLimits) per queue,
/// and hands out each queue's messages in their order. Nothing is committed unless [`PullConsumer::commit`] says so: after
/// a crash, or when a queue goes to another member, everything since the last commit comes again. There are no
/// redeliveries of single messages and no dead letters; a message whose body cannot be read is logged and passed over.
///
/// ```no_run
/// # async fn example(client: mezzo_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// let consumer = client.pull_consumer("reports").subscribe("orders", "*").start().await?;
/// for _ in 0..10 {
///     let messages = consumer.poll(Duration::from_secs(5), 100).await?;
///     for message in &messages {
///         println!("{}", message.message_id());
///     }
///     consumer.commit().await;
/// }
/// consumer.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a consumer ends it"]
pub struct PullConsumer {
    member: Arc<GroupMember>,
    /// `None` for a consumer of assigned queues: it takes part in no division.
    membership: Option<Membership>,
    tasks: JoinSet<()>,
    _stop: DropGuard,
}

impl PullConsumer {
    /// Starts to share the queues of the group.
    pub(super) fn join(member: Arc<GroupMember>, membership: Membership) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(rebalance::run(Arc::clone(&member)));
        Self::new(member, Some(membership), tasks)
    }

    /// Starts to read these queues.
    pub(super) fn of_queues(member: Arc<GroupMember>, queues: Vec<MessageQueue>) -> Self {
        let mut tasks = JoinSet::new();
        for queue in queues {
            let held = member.hold(queue);
            tasks.spawn(pull_loop::run(Arc::clone(&member), held));
        }
        Self::new(member, None, tasks)
    }

    fn new(member: Arc<GroupMember>, membership: Option<Membership>, tasks: JoinSet<()>) -> Self {
        let stop = member.stop.clone().drop_guard();
        Self { member, membership, tasks, _stop: stop }
    }

    /// Waits for messages, at most `timeout`, and returns those that are there, at least one and at most `max` (0 counts
    /// as 1), with bodies of at most `inflated_bytes_max` together. An empty list means that the time was over. Giving
    /// the call up loses no message.
    ///
    /// # Errors
    /// If the client was shut down.
    pub async fn poll(&self, timeout: Duration, max: usize) -> Result<Vec<ReceivedMessage>, Error> {
        let mut end = pin!(tokio::time::sleep(timeout));
        let mut jobs = VecDeque::new();
        loop {
            tokio::select! {
                biased;
                () = self.member.stop.cancelled() => return Err(RequestError::ShutDown.into()),
                () = self.member.jobs.take(max, &mut jobs) => {}
                () = &mut end => return Ok(Vec::new()),
            }
            // No await from here on: what was taken is handed out.
            let messages = self.open_all(&mut jobs);
            if !messages.is_empty() {
                return Ok(messages);
            }
        }
    }

    /// Opens jobs until the bodies fill the bound; puts the others back. A few kilobytes on the wire can be gigabytes
    /// here, so how many there are says little.
    fn open_all(&self, jobs: &mut VecDeque<Job>) -> Vec<ReceivedMessage> {
        let mut room = self.member.config.inflated_bytes_max;
        let mut messages = Vec::new();
        while let Some(job) = jobs.pop_front() {
            let Some((job, message)) = self.member.open(job) else { continue };
            let bytes = message.body().len();
            if bytes > room && !messages.is_empty() {
                jobs.push_front(job);
                self.member.jobs.put_back(jobs);
                break;
            }
            room = room.saturating_sub(bytes);
            self.member.done(job);
            messages.push(message);
        }
        messages
    }

    /// The messages one after the other, as a [`futures_core::Stream`]. It ends when the consumer does. A message counts
    /// as handed out, for [`commit`](Self::commit), when the stream has given it.
    ///
    /// ```no_run
    /// # async fn example(consumer: &mezzo_client::PullConsumer) {
    /// let mut messages = consumer.stream();
    /// while let Some(message) = messages.next().await {
    ///     println!("{}", message.message_id());
    ///     consumer.commit().await;
    /// }
    /// # }
    /// ```
    pub fn stream(&self) -> MessageStream {
        MessageStream::new(Arc::clone(&self.member))
    }

    /// Goes on elsewhere in a queue. What was pulled and not handed out is forgotten. Not committed by itself.
    ///
    /// # Errors
    /// If this consumer does not hold the queue, or the broker does not say where the place is.
    pub async fn seek(&self, queue: &MessageQueue, to: SeekTo) -> Result<(), Error> {
        self.member.seek(queue, to).await
    }

    /// Gives no more messages and pulls no more, of all queues, those assigned later too. What was pulled waits, in its
    /// order. The member stays in its group and keeps its queues.
    ///
    /// ```no_run
    /// # async fn example(consumer: &mezzo_client::PullConsumer) -> Result<(), mezzo_client::Error> {
    /// use std::time::Duration;
    ///
    /// // One queue is too far ahead of the others: it waits until they have caught up.
    /// if let Some(ahead) = consumer.queues().first() {
    ///     consumer.pause_queue(ahead);
    ///     let others = consumer.poll(Duration::from_secs(1), 100).await?;
    ///     println!("{} messages of other queues", others.len());
    ///     consumer.resume_queue(ahead);
    /// }
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

    /// Tells the brokers that the group is done with everything that was handed out. Returns whether they took it; if
    /// not, the next commit says it again.
    pub async fn commit(&self) -> bool {
        self.member.commit_all().await
    }

    /// How many messages the queues held now have that were not handed out. Asks the brokers.
    ///
    /// # Errors
    /// If a broker does not answer.
    pub async fn lag(&self) -> Result<Lag, Error> {
        self.member.lag().await
    }

    /// The consumer group.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.member.group
    }

    /// The queues held now.
    #[must_use]
    pub fn queues(&self) -> Vec<MessageQueue> {
        self.member.held_queues(None).into_iter().collect()
    }

    /// Stops pulling and leaves the group. Commits nothing.
    pub async fn shutdown(mut self) {
        self.member.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        if let Some(membership) = self.membership {
            self.member.shared().leave(membership).await;
        }
    }
}

impl fmt::Debug for PullConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullConsumer").field("group", self.group()).finish_non_exhaustive()
    }
}

impl GroupMember {
    /// A job with its message; `None` if its queue stands still or was moved or taken away meanwhile, or if the message
    /// cannot be read. It counts as handed out when the job is [`done`](Self::done).
    pub(super) fn open(self: &Arc<Self>, job: Job) -> Option<(Job, ReceivedMessage)> {
        let job = self.admit(job)?;
        match job.message(self.config.inflated_bytes_max) {
            Ok(message) => Some((job, message)),
            Err(error) => {
                let (queue, offset) = (&job.held.queue, job.taken.offset);
                tracing::error!(%queue, %offset, %error, "a message cannot be read and is passed over");
                self.done(job);
                None
            }
        }
    }

    /// The message of a job, which counts as handed out.
    pub(super) fn receive(self: &Arc<Self>, job: Job) -> Option<ReceivedMessage> {
        let (job, message) = self.open(job)?;
        self.done(job);
        Some(message)
    }
}
