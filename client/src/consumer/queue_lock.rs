//! Queue locks of ordered consumers at the broker (41 and 42): while one member handles a queue's messages in order, no
//! other may begin with them, whatever each believes about who holds the queue.
//!
//! ```text
//!   assigned ──wait for our own earlier hold──> lock (41, until given) ──> pull and handle
//!       ^                                                                  │ renewed every 20 s
//!       └──────── lost: refused, or not renewed in time ────────────────<──┤
//!                 taken away: last handler ends, commit, unlock (42) ───<──┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::ids::MessageQueue;
use mezzo_protocol::remoting::RequestCode;
use mezzo_protocol::remoting::body::lock::{LockBatchReply, LockBatchRequest};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backlog::Lock;
use super::held_queue::HeldQueue;
use super::member::GroupMember;
use crate::clock::random_seed;
use crate::core::backoff::Backoff;
use crate::error::Error;

/// Longest time that a lock may count here without renewal, in milliseconds: brokers keep it for a minute.
const LOCK_VALID_MS_MAX: u64 = 60_000;

/// Renews the locks of all queues until it is aborted, also while the consumer drains.
pub(super) async fn run(member: Arc<GroupMember>) {
    let interval = Duration::from_millis(member.config.lock_interval_ms.max(1));
    loop {
        tokio::time::sleep(interval).await;
        let mut by_broker = BTreeMap::<Arc<str>, Vec<Arc<HeldQueue>>>::new();
        for held in member.all_held_and_leaving() {
            if matches!(held.lock_state(), Lock::Until(_)) {
                by_broker.entry(Arc::clone(&held.queue.broker_name)).or_default().push(held);
            }
        }
        // Side by side: a broker that does not answer must not cost the locks at the others.
        let mut renewing = JoinSet::new();
        for queues in by_broker.into_values() {
            let member = Arc::clone(&member);
            renewing.spawn(async move { member.renew(&queues).await });
        }
        while renewing.join_next().await.is_some() {}
    }
}

impl GroupMember {
    /// Waits until the last handler of our own earlier hold of the queue has ended.
    pub(super) async fn wait_for_earlier(&self, held: &HeldQueue) {
        while let Some(before) = self.leaving(&held.queue) {
            before.ended.cancelled().await;
        }
    }

    /// Waits until the broker gives the lock of a queue that was just assigned.
    pub(super) async fn acquire(&self, held: &HeldQueue) {
        let mut backoff = Backoff::new(self.config.pull_backoff, random_seed());
        loop {
            let until = self.lock_end();
            match self.lock_queues(std::slice::from_ref(&held.queue)).await {
                Ok(locked) if locked.contains(&held.queue) => return held.set_lock(Lock::Until(until)),
                Ok(_) => tracing::debug!(queue = %held.queue, "another member has the lock of the queue"),
                Err(error) => tracing::debug!(queue = %held.queue, %error, "the queue could not be locked"),
            }
            tokio::time::sleep(Duration::from_millis(backoff.next_delay_ms())).await;
        }
    }

    /// Renews locks of queues of one broker.
    async fn renew(self: &Arc<Self>, queues: &[Arc<HeldQueue>]) {
        let until = self.lock_end();
        let names: Vec<_> = queues.iter().map(|held| held.queue.clone()).collect();
        match self.lock_queues(&names).await {
            Ok(locked) => {
                for held in queues {
                    if locked.contains(&held.queue) {
                        held.set_lock(Lock::Until(until));
                    } else {
                        self.lose(held);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(group = %self.group, %error, "the locks of queues could not be renewed");
                for held in queues {
                    self.lock_is_over(held);
                }
            }
        }
    }

    /// Whether the lock of `held` counts no longer; if so, the queue is given up, to be assigned and locked anew.
    pub(super) fn lock_is_over(self: &Arc<Self>, held: &Arc<HeldQueue>) -> bool {
        let over = !held.lock_state().counts(Instant::now());
        if over {
            self.pass_over(held);
        }
        over
    }

    fn lose(self: &Arc<Self>, held: &Arc<HeldQueue>) {
        tracing::warn!(queue = %held.queue, "another member has taken the lock of the queue");
        self.pass_over(held);
    }

    /// Another member may have the queue: nothing more is handled or committed, and the next rebalance starts again.
    fn pass_over(self: &Arc<Self>, held: &Arc<HeldQueue>) {
        if self.leases() {
            return self.forfeit(held);
        }
        held.set_lock(Lock::Missing);
        if self.release_same(held) {
            self.retire(Arc::clone(held));
            self.changed.notify_one();
        }
    }

    /// Ends an ordered hold in the background: when its last handler has ended, its offset is committed and its lock
    /// given back. Only then does this member begin with the queue again.
    pub(super) fn retire(self: &Arc<Self>, held: Arc<HeldQueue>) {
        let member = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                // Shutdown commits and unlocks for all.
                () = member.stop.cancelled() => return,
                () = held.idle() => {}
            }
            member.commit(&held).await;
            if member.forget_leaving(&held) && member.locks() {
                member.unlock(std::slice::from_ref(&held.queue)).await;
            }
            held.ended.cancel();
        });
    }

    /// Asks for the locks of queues of one broker. Returns those that are ours now.
    async fn lock_queues(&self, queues: &[MessageQueue]) -> Result<BTreeSet<MessageQueue>, Error> {
        let Some(first) = queues.first() else { return Ok(BTreeSet::new()) };
        let body = self.lock_request(queues);
        let reply = self.ask_broker_with(first, RequestCode::LOCK_BATCH_MQ, Vec::new(), body).await?;
        reply.success()?;
        let reply = LockBatchReply::decode(reply.body())?;
        Ok(reply.locked.iter().filter_map(|name| MessageQueue::try_from(name).ok()).collect())
    }

    /// Gives locks back; a broker that does not hear of it forgets them after a minute.
    pub(super) async fn unlock(&self, queues: &[MessageQueue]) {
        let mut by_broker = BTreeMap::<&str, Vec<MessageQueue>>::new();
        for queue in queues {
            by_broker.entry(&queue.broker_name).or_default().push(queue.clone());
        }
        for queues in by_broker.values() {
            let Some(first) = queues.first() else { continue };
            let body = self.lock_request(queues);
            let asked = self.ask_broker_with(first, RequestCode::UNLOCK_BATCH_MQ, Vec::new(), body).await;
            if let Err(error) = asked.and_then(|reply| reply.success().map(|_| ())) {
                tracing::debug!(broker = %first.broker_name, %error, "locks were not given back");
            }
        }
    }

    fn lock_request(&self, queues: &[MessageQueue]) -> Vec<u8> {
        LockBatchRequest {
            consumer_group: self.group.to_string(),
            client_id: self.shared().client_id.to_string(),
            only_this_broker: false,
            mq_set: queues.iter().map(Into::into).collect(),
        }
        .encode()
    }

    fn lock_end(&self) -> Instant {
        let valid_ms = self.config.lock_valid_ms.min(LOCK_VALID_MS_MAX);
        Instant::now() + Duration::from_millis(valid_ms)
    }
}
