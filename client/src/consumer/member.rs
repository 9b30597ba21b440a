//! This client's part in a consumer group: what the tasks of a consumer share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mezzo_protocol::assignment::AssignmentStrategy;
use mezzo_protocol::ids::{GroupName, MessageQueue};
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

/// Where a consumer keeps its offsets, and by whose decision.
#[derive(Debug)]
pub(super) enum Commits {
    /// At the brokers, regularly and when a queue is given up.
    AtBrokers,
    /// At the brokers, when the application says so.
    WhenTold,
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
    held: Mutex<BTreeMap<MessageQueue, Arc<HeldQueue>>>,
    /// Ordered queues that were taken away while a handler was running.
    leaving: Mutex<Vec<Arc<HeldQueue>>>,
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
            held: Mutex::default(),
            leaving: Mutex::default(),
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
            if let Err(error) = shared.subscribe_route(topic, shared.request_deadline()).await {
                tracing::debug!(group = %self.group, %topic, %error, "no route yet");
            }
        }
        shared.heartbeat_all().await;
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        self.client.shared()
    }

    /// The queues held now, of one topic or of all.
    pub(super) fn held_queues(&self, topic: Option<&str>) -> BTreeSet<MessageQueue> {
        let held = self.lock();
        held.keys().filter(|queue| topic.is_none_or(|topic| queue.topic == *topic)).cloned().collect()
    }

    /// All queues held now, with their state.
    pub(super) fn all_held(&self) -> Vec<Arc<HeldQueue>> {
        self.lock().values().cloned().collect()
    }

    /// Begins to hold a queue.
    pub(super) fn hold(&self, queue: MessageQueue) -> Arc<HeldQueue> {
        let lock = if self.locks() { Lock::Missing } else { Lock::NotNeeded };
        // Held while the queue joins the others, so that a pause finds it or is found by it.
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let backlog = Backlog::new(self.ordered, lock, paused.is_paused(&queue));
        let held = HeldQueue::new(queue.clone(), self.config.prefetch, backlog, self.stop.child_token());
        let held = Arc::new(held);
        self.lock().insert(queue, Arc::clone(&held));
        drop(paused);
        held
    }

    /// One queue that is held now.
    pub(super) fn held(&self, queue: &MessageQueue) -> Option<Arc<HeldQueue>> {
        self.lock().get(queue).cloned()
    }

    /// Ceases to hold a queue: its pulls end, and verdicts on its messages no longer count.
    pub(super) fn release(&self, queue: &MessageQueue) -> Option<Arc<HeldQueue>> {
        let held = self.lock().remove(queue);
        held.inspect(|held| held.dropped.cancel())
    }

    /// The same, if it is this hold and not a later one of the same queue. Returns whether it was.
    pub(super) fn release_same(&self, held: &Arc<HeldQueue>) -> bool {
        let mut all = self.lock();
        let same = all.get(&held.queue).is_some_and(|current| Arc::ptr_eq(current, held));
        if same {
            all.remove(&held.queue);
        }
        drop(all);
        if same {
            held.dropped.cancel();
        }
        same
    }

    /// Messages of `held` go to the workers.
    pub(super) fn hand_out(&self, held: &Arc<HeldQueue>, messages: Vec<Taken>) {
        self.jobs.push(messages.into_iter().map(|taken| Job { held: Arc::clone(held), taken }));
    }

    /// An ordered queue was taken away.
    pub(super) fn note_leaving(&self, held: Arc<HeldQueue>) {
        self.lock_leaving().push(held);
    }

    /// Its last handler has ended. Returns whether no other hold of the queue is in this state.
    pub(super) fn forget_leaving(&self, held: &Arc<HeldQueue>) -> bool {
        let mut leaving = self.lock_leaving();
        leaving.retain(|other| !Arc::ptr_eq(other, held));
        leaving.iter().all(|other| other.queue != held.queue)
    }

    /// An earlier hold of `queue` that has not ended yet.
    pub(super) fn leaving(&self, queue: &MessageQueue) -> Option<Arc<HeldQueue>> {
        self.lock_leaving().iter().find(|held| held.queue == *queue).cloned()
    }

    /// All of them.
    pub(super) fn all_leaving(&self) -> Vec<Arc<HeldQueue>> {
        self.lock_leaving().clone()
    }

    fn lock_leaving(&self) -> MutexGuard<'_, Vec<Arc<HeldQueue>>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MessageQueue, Arc<HeldQueue>>> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
