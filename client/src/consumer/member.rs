//! This client's part in a consumer group: what the tasks of a consumer share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mezzo_protocol::assignment::AssignmentStrategy;
use mezzo_protocol::ids::{GroupName, MessageQueue, TopicName};
use mezzo_protocol::time::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::backlog::{Backlog, Lock};
use super::held_queue::HeldQueue;
use super::job::{Job, Taken};
use super::jobs::Jobs;
use super::offset_file::OffsetFile;
use super::pause::Paused;
use super::subscription::Subscriptions;
use crate::client::{Client, Shared};
use crate::config::ConsumerConfig;
use crate::error::Error;

/// Where a consumer keeps its offsets, and by whose decision.
#[derive(Debug)]
pub(super) enum Commits {
    /// At the brokers, regularly and when a queue is given up.
    AtBrokers,
    /// At the brokers, when the application says so.
    WhenTold,
    /// At the brokers, with the commits of transactions, under leases.
    InTransactions,
    /// In a file, regularly: every member handles all queues.
    InFile(OffsetFile),
}

/// The state of one consumer.
pub(super) struct GroupMember {
    pub(super) client: Client,
    pub(super) group: GroupName,
    pub(super) config: ConsumerConfig,
    pub(super) strategy: Box<dyn AssignmentStrategy>,
    pub(super) subscriptions: Subscriptions,
    /// Whether the messages of one queue are handled one at a time.
    pub(super) ordered: bool,
    /// Where offsets are kept, and by whose decision.
    pub(super) commits: Commits,
    pub(super) paused: Mutex<Paused>,
    pub(super) jobs: Jobs,
    /// Notified when a broker says that the group has changed.
    pub(super) changed: Arc<Notify>,
    /// Cancelled when the consumer stops.
    pub(super) stop: CancellationToken,
    /// When this member began.
    began: Timestamp,
    /// The queues of each topic when it was looked at first: none, if there was no such topic.
    first_seen: Mutex<BTreeMap<TopicName, BTreeSet<MessageQueue>>>,
    holdings: Mutex<Holdings>,
}

/// The queues of one member.
#[derive(Debug, Default)]
struct Holdings {
    current: BTreeMap<MessageQueue, Arc<HeldQueue>>,
    /// Queues that were taken away and are not done with: their offset is not committed yet, or, in an ordered one, a
    /// handler runs. A queue enters here in the moment in which it leaves the others: a new hold of it must find this.
    leaving: Vec<Arc<HeldQueue>>,
}

impl GroupMember {
    #[expect(clippy::too_many_arguments, reason = "called by two builders, with one value per field")]
    pub(super) fn new(
        client: Client,
        group: GroupName,
        config: ConsumerConfig,
        strategy: Box<dyn AssignmentStrategy>,
        subscriptions: Subscriptions,
        ordered: bool,
        commits: Commits,
        changed: Arc<Notify>,
    ) -> Self {
        // A client that is shut down first takes its consumers with it.
        let stop = client.shared().stopped.child_token();
        let began = client.shared().now();
        Self {
            client,
            group,
            config,
            strategy,
            subscriptions,
            ordered,
            commits,
            paused: Mutex::default(),
            jobs: Jobs::default(),
            changed,
            stop,
            began,
            first_seen: Mutex::default(),
            holdings: Mutex::default(),
        }
    }

    /// Whether queues have to be locked at the broker: not where every member handles all of them.
    pub(super) const fn locks(&self) -> bool {
        self.ordered && !self.is_broadcast()
    }

    /// Whether every member handles all queues.
    pub(super) const fn is_broadcast(&self) -> bool {
        matches!(self.commits, Commits::InFile(_))
    }

    /// Learns the brokers of the topics and makes this member known to them, as far as that works now.
    pub(super) async fn introduce(&self) {
        let shared = self.shared();
        for topic in self.subscriptions.keys() {
            // Only to learn the brokers before the first heartbeat; the tasks keep looking for the rest.
            match shared.subscribe_route(topic, shared.request_deadline()).await {
                Ok(route) => self.see(topic, route.subscribe_queues()),
                Err(error) => {
                    tracing::debug!(group = %self.group, %topic, %error, "no route yet");
                    if matches!(error, Error::NoRoute { .. }) {
                        self.see(topic, &[]);
                    }
                }
            }
        }
        shared.heartbeat_all().await;
    }

    /// Remembers which queues a topic has, if this is the first look at it.
    pub(super) fn see(&self, topic: &TopicName, queues: &[MessageQueue]) {
        let mut first_seen = self.first_seen.lock().unwrap_or_else(PoisonError::into_inner);
        first_seen.entry(topic.clone()).or_insert_with(|| queues.iter().cloned().collect());
    }

    /// When this member began, if `queue` was not there then.
    pub(super) fn appeared_since(&self, queue: &MessageQueue) -> Option<Timestamp> {
        let first_seen = self.first_seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = first_seen.get(&queue.topic).is_some_and(|queues| !queues.contains(queue));
        is_new.then_some(self.began)
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        self.client.shared()
    }

    /// The queues held now, of one topic or of all.
    pub(super) fn held_queues(&self, topic: Option<&str>) -> BTreeSet<MessageQueue> {
        let holdings = self.lock();
        let of_topic = |queue: &&MessageQueue| topic.is_none_or(|topic| queue.topic == *topic);
        holdings.current.keys().filter(of_topic).cloned().collect()
    }

    /// All queues held now, with their state.
    pub(super) fn all_held(&self) -> Vec<Arc<HeldQueue>> {
        self.lock().current.values().cloned().collect()
    }

    /// The same, and those that were taken away and are not done with.
    pub(super) fn all_held_and_leaving(&self) -> Vec<Arc<HeldQueue>> {
        let holdings = self.lock();
        // A later hold of the same queue knows better how far it came, so it comes later.
        holdings.leaving.iter().chain(holdings.current.values()).cloned().collect()
    }

    /// Begins to hold a queue.
    pub(super) fn hold(&self, queue: MessageQueue) -> Arc<HeldQueue> {
        let lock = if self.locks() || self.leases() { Lock::Missing } else { Lock::NotNeeded };
        // Held while the queue joins the others, so that a pause finds it or is found by it.
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let backlog = Backlog::new(self.ordered, lock, paused.is_paused(&queue));
        let held = HeldQueue::new(queue.clone(), self.config.prefetch, backlog, self.stop.child_token());
        let held = Arc::new(held);
        self.lock().current.insert(queue, Arc::clone(&held));
        drop(paused);
        held
    }

    /// One queue that is held now.
    pub(super) fn held(&self, queue: &MessageQueue) -> Option<Arc<HeldQueue>> {
        self.lock().current.get(queue).cloned()
    }

    /// Ceases to hold a queue: its pulls end, and verdicts on its messages no longer count, except that of the handler
    /// which runs in an ordered one. It is leaving until [`forget_leaving`](Self::forget_leaving).
    pub(super) fn release(&self, queue: &MessageQueue) -> Option<Arc<HeldQueue>> {
        self.release_if(queue, |_| true)
    }

    /// The same, if it is this hold and not a later one of the same queue. Returns whether it was.
    pub(super) fn release_same(&self, held: &Arc<HeldQueue>) -> bool {
        self.release_if(&held.queue, |current| Arc::ptr_eq(current, held)).is_some()
    }

    fn release_if(
        &self,
        queue: &MessageQueue,
        fits: impl FnOnce(&Arc<HeldQueue>) -> bool,
    ) -> Option<Arc<HeldQueue>> {
        let mut holdings = self.lock();
        holdings.current.get(queue).filter(|current| fits(current))?;
        let held = holdings.current.remove(queue)?;
        // Before anybody can see that the queue is gone: what a held pull brings from then on is the next member's.
        if !self.ordered {
            held.freeze();
        }
        held.dropped.cancel();
        holdings.leaving.push(Arc::clone(&held));
        drop(holdings);
        self.recall(&held);
        Some(held)
    }

    /// Messages of `held` go to the workers.
    pub(super) fn hand_out(&self, held: &Arc<HeldQueue>, messages: impl IntoIterator<Item = Taken>) {
        self.jobs.push(messages.into_iter().map(|taken| Job { held: Arc::clone(held), taken }));
    }

    /// Takes back what no worker has begun with: messages of a queue that stands still wait, those of a queue that was
    /// moved or taken away are forgotten. Else they would use memory that no bound counts any more.
    pub(super) fn recall(&self, held: &Arc<HeldQueue>) {
        for taken in self.jobs.withdraw(held) {
            if held.counts(taken.epoch) {
                self.hand_out(held, held.admit(taken));
            } else {
                self.pass(held);
            }
        }
    }

    /// A queue that was leaving is done with. Returns whether no other hold of it is in this state.
    pub(super) fn forget_leaving(&self, held: &Arc<HeldQueue>) -> bool {
        let mut holdings = self.lock();
        holdings.leaving.retain(|other| !Arc::ptr_eq(other, held));
        holdings.leaving.iter().all(|other| other.queue != held.queue)
    }

    /// An earlier hold of `queue` that has not ended yet.
    pub(super) fn leaving(&self, queue: &MessageQueue) -> Option<Arc<HeldQueue>> {
        self.lock().leaving.iter().find(|held| held.queue == *queue).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Holdings> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
