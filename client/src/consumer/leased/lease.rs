//! Leases at the broker (7700011 and 7700012): taken before the first pull, renewed well before their end, given back when
//! the queue is taken away. How long a lease counts here is measured from before the request was sent, by the clock that
//! only goes forward: it ends here before it ends at the broker.

use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::error::DecodeError;
use mezzo_protocol::ids::{MessageQueue, QueueOffset};
use mezzo_protocol::remoting::body::transaction_offsets::{TransactionOffset, TransactionOffsetsBody};
use mezzo_protocol::remoting::header::end_transaction::{EndTransactionHeader, Resolution};
use mezzo_protocol::remoting::header::lease::{LeaseQueueHeader, LeaseQueueReply, ReleaseQueueHeader};
use mezzo_protocol::remoting::{RemotingCommand, RequestCode};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::backlog::Lock;
use super::super::held_queue::HeldQueue;
use super::super::member::{Commits, GroupMember};
use super::claim::Claim;
use crate::clock::random_seed;
use crate::config::StartPosition;
use crate::core::backoff::Backoff;
use crate::error::RequestError;
use crate::net::{Patience, Reply};
use crate::producer::{OUTCOME_COMMITTED, OUTCOME_FIELD};

/// Renewals that are on their way at one time.
const RENEWALS_MAX: usize = 64;
/// After the first failure in a row, every so many are told as loudly.
const TELL_EVERY: u32 = 20;
/// Stands for "no offset": a transaction is named by its id.
const BY_ID: i64 = -1;

/// What the broker says to whoever wants a lease.
enum LeaseAnswer {
    Given {
        epoch: u64,
        /// Where the group stands, if it ever stood anywhere.
        committed: Option<QueueOffset>,
        /// Until when it counts here.
        until: Instant,
    },
    /// Another client has it.
    Held,
    /// It was to be renewed, and another client has it or had it since.
    Lost,
}

/// Renews the leases of all queues until it is aborted, also while the consumer drains.
pub(super) async fn run(member: Arc<GroupMember>) {
    let interval = Duration::from_millis(member.config.lease_interval_ms.max(1));
    loop {
        tokio::time::sleep(interval).await;
        let mut renewing = JoinSet::new();
        for held in member.all_held_and_leaving() {
            if renewing.len() >= RENEWALS_MAX {
                renewing.join_next().await;
            }
            let member = Arc::clone(&member);
            renewing.spawn(async move { member.renew_lease(&held).await });
        }
        while renewing.join_next().await.is_some() {}
    }
}

impl GroupMember {
    /// Whether offsets move with transactions, under leases.
    pub(in crate::consumer) const fn leases(&self) -> bool {
        matches!(self.commits, Commits::InTransactions)
    }

    /// Waits until the broker gives the lease of a queue that was just assigned.
    pub(in crate::consumer) async fn claim(self: &Arc<Self>, held: &Arc<HeldQueue>) {
        self.wait_for_earlier(held).await;
        let mut backoff = Backoff::new(self.config.lease_backoff, random_seed());
        let mut failures = 0_u32;
        loop {
            let (member, of) = (Arc::clone(self), Arc::clone(held));
            // A task of its own, so that a lease is given back that comes when nobody waits for it any more.
            match tokio::spawn(async move { member.claim_once(&of).await }).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {
                    tracing::debug!(queue = %held.queue, "another client has the lease of the queue")
                }
                Ok(Err(error)) => {
                    failures += 1;
                    if failures == 1 || failures.is_multiple_of(TELL_EVERY) {
                        tracing::warn!(queue = %held.queue, %error, failures, "the queue could not be leased");
                    } else {
                        tracing::debug!(queue = %held.queue, %error, failures, "the queue could not be leased");
                    }
                }
                Err(error) => tracing::error!(queue = %held.queue, %error, "leasing a queue has panicked"),
            }
            tokio::time::sleep(Duration::from_millis(backoff.next_delay_ms())).await;
        }
    }

    /// Asks for the lease once and finds out where to begin. Returns whether the lease is ours.
    async fn claim_once(self: &Arc<Self>, held: &Arc<HeldQueue>) -> Result<bool, RequestError> {
        let queue = &held.queue;
        let LeaseAnswer::Given { epoch, committed, until } = self.lease_queue(queue, None).await? else {
            return Ok(false);
        };
        let (committed, begin) = match committed {
            Some(offset) => (committed, offset),
            None => self.first_start(queue, epoch).await?,
        };
        let claim = Arc::new(Claim::new(epoch, committed, begin));
        held.begin(claim.begin(), true);
        held.set_lock(Lock::Until(until));
        tracing::debug!(%queue, epoch, %begin, "leased");
        // One hold takes one lease: whoever sees it from here on gives it back.
        let _ = held.claim.set(Arc::clone(&claim));
        if held.dropped.is_cancelled() {
            self.give_back(held, &claim).await;
        }
        Ok(true)
    }

    /// Where a group that has no offset begins, and what is recorded of that. A start that depends on the time is: after a
    /// crash before the first commit it would be another one, and what came meanwhile would be passed over.
    async fn first_start(
        &self,
        queue: &MessageQueue,
        epoch: u64,
    ) -> Result<(Option<QueueOffset>, QueueOffset), RequestError> {
        let start = self.start_of(queue).await?;
        if start.committed {
            return Ok((Some(start.offset), start.offset));
        }
        if self.config.start == StartPosition::First {
            return Ok((None, start.offset));
        }
        let body = TransactionOffsetsBody {
            consumer_group: self.group.to_string(),
            offsets: vec![TransactionOffset {
                topic: queue.topic.to_string(),
                queue_id: queue.queue_id.0,
                from: None,
                offset: start.offset.0,
                epoch,
            }],
        };
        let shared = self.shared();
        let header = EndTransactionHeader {
            topic: None,
            producer_group: self.group.as_str().into(),
            tran_state_table_offset: BY_ID,
            commit_log_offset: BY_ID,
            resolution: Resolution::Commit,
            from_transaction_check: false,
            msg_id: None,
            transaction_id: Some(shared.unique_keys.next(shared.now()).into()),
            mezzo_tx_count: Some(0),
            mezzo_offsets: Some(true),
        };
        let command = RemotingCommand::request(RequestCode::END_TRANSACTION, header.encode(), body.encode());
        let reply = self.ask_mezzo(queue, command).await?;
        let header = reply.header()?;
        match header.ext.get(OUTCOME_FIELD).as_deref() {
            Some(OUTCOME_COMMITTED) => Ok((Some(start.offset), start.offset)),
            _ => Err(reply.refusal(&header)),
        }
    }

    /// Renews one lease, if there is one.
    async fn renew_lease(&self, held: &Arc<HeldQueue>) {
        let Some(claim) = held.claim.get().filter(|claim| !claim.is_over()) else { return };
        match self.lease_queue(&held.queue, Some(claim.epoch())).await {
            Ok(LeaseAnswer::Given { until, .. }) => held.set_lock(Lock::Until(until)),
            Ok(LeaseAnswer::Held | LeaseAnswer::Lost) => {
                tracing::warn!(queue = %held.queue, "another client has taken the lease of the queue");
                self.forfeit(held);
            }
            Err(error) => {
                tracing::warn!(queue = %held.queue, %error, "the lease of a queue could not be renewed");
                if !held.lock_state().counts(Instant::now()) {
                    self.forfeit(held);
                }
            }
        }
    }

    /// The lease counts no more: nothing is handed out or acknowledged under it, and the next rebalance asks for another.
    pub(in crate::consumer) fn forfeit(&self, held: &Arc<HeldQueue>) {
        held.set_lock(Lock::Missing);
        if let Some(claim) = held.claim.get() {
            claim.end();
        }
        if self.release_same(held) {
            self.forget_leaving(held);
            held.ended.cancel();
            self.changed.notify_one();
        }
    }

    /// Gives a queue back in the background that was taken away: its batches and transactions end first, if they do so in
    /// time. Only then does this member begin with the queue again.
    pub(in crate::consumer) fn retire_lease(self: &Arc<Self>, held: Arc<HeldQueue>) {
        let member = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                // Shutdown does it for all.
                () = member.stop.cancelled() => return,
                _ = member.settle(&held) => {}
            }
            member.forget_leaving(&held);
            held.ended.cancel();
        });
    }

    /// Waits until what is under way has ended, at most `drain_timeout_ms`, and gives the lease back. Returns whether it
    /// did end.
    pub(super) async fn settle(&self, held: &HeldQueue) -> bool {
        let Some(claim) = held.claim.get().filter(|claim| !claim.is_over()) else { return true };
        let limit = Duration::from_millis(self.config.drain_timeout_ms);
        let settled = tokio::time::timeout(limit, claim.settled()).await.is_ok();
        if !settled {
            tracing::warn!(
                group = %self.group, queue = %held.queue,
                "batches are still being processed; their transactions will be refused, and they come again elsewhere"
            );
        }
        self.give_back(held, claim).await;
        settled
    }

    /// Gives a lease back; a broker that does not hear of it waits for its end.
    async fn give_back(&self, held: &HeldQueue, claim: &Claim) {
        held.set_lock(Lock::Missing);
        if !claim.end() {
            return;
        }
        let queue = &held.queue;
        let header = ReleaseQueueHeader {
            consumer_group: self.group.as_str().into(),
            topic: queue.topic.as_str().into(),
            queue_id: queue.queue_id,
            epoch: on_the_wire(claim.epoch()),
        };
        let command = RemotingCommand::request(RequestCode::MEZZO_RELEASE_QUEUE, header.encode(), Vec::new());
        let asked = self.ask_mezzo(queue, command).await;
        if let Err(error) = asked.and_then(|reply| reply.success().map(|_| ())) {
            tracing::debug!(%queue, %error, "a lease was not given back");
        }
    }

    /// Asks for a new lease, or for more time under the one of this epoch.
    async fn lease_queue(
        &self,
        queue: &MessageQueue,
        renews: Option<u64>,
    ) -> Result<LeaseAnswer, RequestError> {
        let ttl_ms = self.config.lease_ttl_ms;
        let until = Instant::now() + Duration::from_millis(ttl_ms);
        let header = LeaseQueueHeader {
            consumer_group: self.group.as_str().into(),
            topic: queue.topic.as_str().into(),
            queue_id: queue.queue_id,
            client_id: (&*self.shared().client_id).into(),
            ttl_ms: i64::try_from(ttl_ms).unwrap_or(i64::MAX),
            epoch: renews.map(on_the_wire),
        };
        let command = RemotingCommand::request(RequestCode::MEZZO_LEASE_QUEUE, header.encode(), Vec::new());
        let reply = self.ask_mezzo(queue, command).await?;
        let header = reply.header()?;
        match header.ext.get(OUTCOME_FIELD).as_deref() {
            Some("HELD") => return Ok(LeaseAnswer::Held),
            Some("LOST") => return Ok(LeaseAnswer::Lost),
            _ => {}
        }
        let header = reply.success()?;
        let given = LeaseQueueReply::decode(&header.ext).map_err(|reason| reply.unreadable(reason))?;
        let epoch = u64::try_from(given.epoch).map_err(|_| {
            reply.unreadable(DecodeError::bad_value("epoch", given.epoch.to_string(), "0 or more"))
        })?;
        let committed = given.next_offset.and_then(QueueOffset::from_wire);
        Ok(LeaseAnswer::Given { epoch, committed, until })
    }

    /// One request to the master of a queue's broker that only Mezzo understands.
    async fn ask_mezzo(&self, queue: &MessageQueue, command: RemotingCommand) -> Result<Reply, RequestError> {
        let shared = self.shared();
        let address = shared.master_of(&queue.broker_name).ok_or_else(|| RequestError::Unreachable {
            address: Arc::clone(&queue.broker_name),
            reason: "no route has a master for this broker".to_owned(),
        })?;
        let deadline = shared.request_deadline();
        let connection = shared.connection(&address, Patience::FailFast, deadline).await?;
        connection.require_mezzo("a lease of a queue")?;
        connection.request(command, deadline).await
    }
}

/// An epoch as the wire says it: brokers give none that does not fit.
fn on_the_wire(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}
