//! The consumer whose offsets move with transactions: what the application holds, and how batches get to it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use mezzo_protocol::ids::{GroupName, MessageQueue};
use tokio::task::JoinSet;
use tokio_util::sync::DropGuard;

use super::super::job::Job;
use super::super::lag::Lag;
use super::super::member::GroupMember;
use super::super::rebalance;
use super::batch::LeasedBatch;
use super::hold::Hold;
use super::lease;
use crate::client::Membership;
use crate::error::{Error, RequestError};

/// A consumer for *consume, transform, produce*: what it consumes and what is produced from it happen together, once, or
/// not at all. Made by [`Client::transactional_consumer`](crate::Client::transactional_consumer).
///
/// It shares the queues of its group with the other members. Each queue is leased from its broker before anything of it is
/// handed out, and its offset moves only with the commit of a [`Transaction`](crate::Transaction) that has acknowledged
/// its batches. A consumer that was away for too long, so that another one has the queue, finds its commit refused as
/// [`Fenced`](crate::RolledBackBecause::Fenced): nothing of its output is seen by anybody.
///
/// All members of a group must be of this kind: brokers refuse plain offsets for a leased queue. Only Mezzo brokers have
/// leases; queues of others are not consumed.
///
/// ```no_run
/// # async fn example(client: mezzo_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use mezzo_client::{LocalOutcome, Message, ReceivedMessage};
///
/// let consumer = client.transactional_consumer("billing").subscribe("orders", "*").start().await?;
/// // Transactions of a process that died are rolled back, without asking anybody: their batches come again.
/// let producer = client
///     .transaction_producer("billing")
///     .check_back(|_: ReceivedMessage| async { Ok(LocalOutcome::Unknown) })
///     .start()
///     .await?;
/// loop {
///     let batch = consumer.next_batch().await?;
///     let mut tx = producer.begin().await?;
///     tx.ack(&batch)?;
///     for order in &batch {
///         tx.send(Message::new("bills", order.body().clone())?).await?;
///     }
///     let outcome = tx.commit().await;
///     if !outcome.is_committed() {
///         println!("once more: {outcome}");
///     }
/// }
/// # }
/// ```
#[must_use = "dropping a consumer ends it"]
pub struct TransactionalConsumer {
    member: Arc<GroupMember>,
    membership: Membership,
    tasks: JoinSet<()>,
    /// Renews leases until all batches have ended.
    renewals: JoinSet<()>,
    /// Held from taking messages until their batch has its place: the batch of a task that asks at the same time must not
    /// get between.
    handing_out: Mutex<()>,
    _stop: DropGuard,
}

impl TransactionalConsumer {
    /// Starts to share the queues of the group.
    pub(super) fn join(member: Arc<GroupMember>, membership: Membership) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(rebalance::run(Arc::clone(&member)));
        let mut renewals = JoinSet::new();
        renewals.spawn(lease::run(Arc::clone(&member)));
        let stop = member.stop.clone().drop_guard();
        Self { member, membership, tasks, renewals, handing_out: Mutex::new(()), _stop: stop }
    }

    /// Waits for messages and returns those of one queue that are there, at most `batch_messages_max`, with bodies of at
    /// most `inflated_bytes_max` together. Giving the call up loses no message. Batches of one queue come in their order,
    /// also while those before are not acknowledged, and whoever asks: several tasks may, but one transaction at a time
    /// acknowledges batches of one queue. A message whose body cannot be read is logged and passed over.
    ///
    /// # Errors
    /// If the client was shut down.
    pub async fn next_batch(&self) -> Result<LeasedBatch, Error> {
        loop {
            tokio::select! {
                biased;
                () = self.member.stop.cancelled() => return Err(RequestError::ShutDown.into()),
                () = self.member.jobs.some() => {}
            }
            if let Some(batch) = self.try_next_batch() {
                return Ok(batch);
            }
        }
    }

    fn try_next_batch(&self) -> Option<LeasedBatch> {
        let _one_at_a_time = self.handing_out.lock().unwrap_or_else(PoisonError::into_inner);
        let mut jobs = VecDeque::new();
        self.member.jobs.try_take_of_one(self.member.config.batch_messages_max, &mut jobs);
        self.member.batch_of(&mut jobs)
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

    /// The queues assigned to this member now, leased or waiting for their lease.
    #[must_use]
    pub fn queues(&self) -> Vec<MessageQueue> {
        self.member.held_queues(None).into_iter().collect()
    }

    /// The queues of which this member has the lease now, as far as it knows.
    #[must_use]
    pub fn leased_queues(&self) -> Vec<MessageQueue> {
        let leased = |queue: &MessageQueue| self.member.has_lease(queue);
        self.member.held_queues(None).into_iter().filter(leased).collect()
    }

    /// Stops pulling, waits until the batches that were handed out are dropped or their transactions have ended (at most
    /// `drain_timeout_ms`), gives the leases back and leaves the group, so that other members can go on at once. Returns
    /// whether all had ended in time; transactions that had not are refused at their commit. Drop batches that you hold
    /// before.
    pub async fn shutdown(mut self) -> bool {
        let member = self.member;
        member.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let mut settling = JoinSet::new();
        for held in member.all_held_and_leaving() {
            let member = Arc::clone(&member);
            settling.spawn(async move { member.settle(&held).await });
        }
        let mut all = true;
        while let Some(settled) = settling.join_next().await {
            all &= settled.unwrap_or(false);
        }
        self.renewals.shutdown().await;
        member.shared().leave(self.membership).await;
        all
    }
}

impl fmt::Debug for TransactionalConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionalConsumer").field("group", self.group()).finish_non_exhaustive()
    }
}

impl GroupMember {
    /// A batch of messages of one queue; `None` if none of them can be handed out after all. Jobs that have no room in it
    /// are put back.
    fn batch_of(self: &Arc<Self>, jobs: &mut VecDeque<Job>) -> Option<LeasedBatch> {
        let held = Arc::clone(&jobs.front()?.held);
        let mut room = self.config.inflated_bytes_max;
        let mut messages = Vec::with_capacity(jobs.len());
        let mut done = Vec::with_capacity(jobs.len());
        while let Some(job) = jobs.pop_front() {
            let Some((job, message)) = self.open(job) else { continue };
            let bytes = message.body().len();
            if bytes > room && !messages.is_empty() {
                jobs.push_front(job);
                self.jobs.put_back(jobs);
                break;
            }
            room = room.saturating_sub(bytes);
            messages.push(message);
            done.push(job);
        }
        let last = &done.last()?.taken;
        let (next, epoch) = (last.offset.next(), last.epoch);
        let claim = held.claim.get()?;
        let handed = claim.hand_out(next, || held.counts(epoch));
        for job in done {
            self.done(job);
        }
        let hold = Hold::new(self, Arc::clone(&held), Arc::clone(claim));
        Some(LeasedBatch::new(hold, handed?, next, messages))
    }

    /// Whether the lease of `queue` is here and counts.
    fn has_lease(&self, queue: &MessageQueue) -> bool {
        let held = self.held(queue);
        held.is_some_and(|held| held.lock_state().counts(tokio::time::Instant::now()))
    }
}
