//! This client's part in a consumer group: what the tasks of a consumer share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mezzo_protocol::assignment::AssignmentStrategy;
use mezzo_protocol::ids::{GroupName, MessageQueue};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::dispatch::Jobs;
use super::held_queue::HeldQueue;
use super::subscription::Subscriptions;
use crate::client::{Client, Shared};
use crate::config::ConsumerConfig;

/// The state of one consumer.
pub(super) struct GroupMember {
    pub(super) client: Client,
    pub(super) group: GroupName,
    pub(super) config: ConsumerConfig,
    pub(super) strategy: Box<dyn AssignmentStrategy>,
    pub(super) subscriptions: Subscriptions,
    pub(super) jobs: Jobs,
    /// Notified when a broker says that the group has changed.
    pub(super) changed: Arc<Notify>,
    /// Cancelled when the consumer stops.
    pub(super) stop: CancellationToken,
    held: Mutex<BTreeMap<MessageQueue, Arc<HeldQueue>>>,
}

impl GroupMember {
    pub(super) fn new(
        client: Client,
        group: GroupName,
        config: ConsumerConfig,
        strategy: Box<dyn AssignmentStrategy>,
        subscriptions: Subscriptions,
        changed: Arc<Notify>,
    ) -> Self {
        let (jobs, stop, held) = (Jobs::default(), CancellationToken::new(), Mutex::default());
        Self { client, group, config, strategy, subscriptions, jobs, changed, stop, held }
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
        let held = Arc::new(HeldQueue::new(queue.clone(), self.config.prefetch, self.stop.child_token()));
        self.lock().insert(queue, Arc::clone(&held));
        held
    }

    /// Ceases to hold a queue: its pulls end, and verdicts on its messages no longer count.
    pub(super) fn release(&self, queue: &MessageQueue) -> Option<Arc<HeldQueue>> {
        let held = self.lock().remove(queue);
        held.inspect(|held| held.dropped.cancel())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MessageQueue, Arc<HeldQueue>>> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
