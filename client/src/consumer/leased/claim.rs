//! What the holder of a lease knows of its queue: where the group stands, how far batches were handed out, how far they
//! are acknowledged, and in which transaction that is still open.
//!
//! ```text
//!   begin ──────────── acked ──────────── handed ──────────── (prefetched)
//!     │  acknowledged in   │   in the hands of  │
//!     │  an open           │   the application  │
//!     │  transaction       │                    │
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mezzo_protocol::ids::QueueOffset;
use tokio::sync::Notify;

use crate::error::AckError;

/// A lease of one queue, from its acquisition until it is lost or given back.
#[derive(Debug)]
pub(crate) struct Claim {
    epoch: u64,
    places: Mutex<Places>,
    /// Notified when nothing is under way any more.
    settled: Notify,
}

#[derive(Debug)]
struct Places {
    /// The group's offset at the broker, as the next transaction has to find it; `None` if the group never had one.
    committed: Option<QueueOffset>,
    /// Where handing out begins again after a rollback.
    begin: QueueOffset,
    acked: QueueOffset,
    handed: QueueOffset,
    /// Counts how often the queue went back: batches from before no longer count.
    round: u64,
    /// Batches of this round that are neither acknowledged nor dropped.
    unacked: usize,
    /// The transaction that acknowledged what lies between `begin` and `acked`.
    owner: Option<Arc<str>>,
    /// The lease was lost or given back.
    over: bool,
}

/// Where a batch begins, and in which round it was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HandedOut {
    pub(super) from: QueueOffset,
    pub(super) round: u64,
}

impl Places {
    fn go_back(&mut self, to: QueueOffset) {
        (self.acked, self.handed, self.unacked) = (to, to, 0);
        self.round += 1;
    }

    fn is_settled(&self) -> bool {
        self.over || (self.unacked == 0 && self.owner.is_none())
    }
}

impl Claim {
    /// A lease that was just given, of a group that stands at `committed`; messages are handed out from `begin` on.
    pub(super) fn new(epoch: u64, committed: Option<QueueOffset>, begin: QueueOffset) -> Self {
        let places = Places {
            committed,
            begin,
            acked: begin,
            handed: begin,
            round: 0,
            unacked: 0,
            owner: None,
            over: false,
        };
        Self { epoch, places: Mutex::new(places), settled: Notify::const_new() }
    }

    /// What transactions name the lease by.
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where pulls begin.
    pub(super) fn begin(&self) -> QueueOffset {
        self.lock().begin
    }

    /// A batch that ends before `next` is handed out, unless the lease is over or `counts` says that the messages are
    /// not the next ones any more.
    pub(super) fn hand_out(&self, next: QueueOffset, counts: impl FnOnce() -> bool) -> Option<HandedOut> {
        let mut places = self.lock();
        if places.over || !counts() {
            return None;
        }
        let from = std::mem::replace(&mut places.handed, next);
        places.unacked += 1;
        Some(HandedOut { from, round: places.round })
    }

    /// The transaction `id` acknowledges a batch. Returns where the group has to stand when it commits.
    pub(super) fn ack(
        &self,
        id: &Arc<str>,
        batch: HandedOut,
        next: QueueOffset,
    ) -> Result<Option<QueueOffset>, AckError> {
        let mut places = self.lock();
        if places.over || places.round != batch.round {
            return Err(AckError::Superseded);
        }
        if places.owner.as_ref().is_some_and(|owner| owner != id) {
            return Err(AckError::OtherTransaction);
        }
        if places.acked != batch.from {
            return Err(AckError::Gap { expected: places.acked, from: batch.from });
        }
        places.acked = next;
        places.unacked = places.unacked.saturating_sub(1);
        places.owner = Some(Arc::clone(id));
        Ok(places.committed)
    }

    /// The transaction `id` is committed: the group stands behind what it acknowledged.
    pub(super) fn committed(&self, id: &str) {
        let mut places = self.lock();
        if places.owner.as_deref() == Some(id) {
            places.owner = None;
            (places.committed, places.begin) = (Some(places.acked), places.acked);
            self.wake_if_settled(&places);
        }
    }

    /// The transaction `id` will not happen: all since the last commit is handed out again. `reset` moves the pulls, and
    /// nothing is handed out meanwhile. Returns whether it was called.
    pub(super) fn rolled_back(&self, id: &str, reset: impl FnOnce(QueueOffset)) -> bool {
        let mut places = self.lock();
        if places.owner.as_deref() != Some(id) {
            return false;
        }
        places.owner = None;
        let begin = places.begin;
        places.go_back(begin);
        reset(begin);
        self.wake_if_settled(&places);
        true
    }

    /// A batch was dropped unacknowledged: it is handed out again, with all behind it. As [`Claim::rolled_back`].
    pub(super) fn put_back(&self, batch: HandedOut, reset: impl FnOnce(QueueOffset)) -> bool {
        let mut places = self.lock();
        if places.over || places.round != batch.round {
            return false;
        }
        let acked = places.acked;
        places.go_back(acked);
        reset(acked);
        self.wake_if_settled(&places);
        true
    }

    /// Whether the open acknowledgements are those of the transaction `id`.
    pub(super) fn is_owned_by(&self, id: &str) -> bool {
        self.lock().owner.as_deref() == Some(id)
    }

    /// The lease is lost or given back: no batch counts any more. Returns whether it was not over before.
    pub(super) fn end(&self) -> bool {
        let mut places = self.lock();
        let was_over = std::mem::replace(&mut places.over, true);
        places.owner = None;
        self.wake_if_settled(&places);
        !was_over
    }

    /// Whether the lease was lost or given back.
    pub(super) fn is_over(&self) -> bool {
        self.lock().over
    }

    /// Waits until no batch is in the application's hands and no transaction with acknowledgements is open, or the lease
    /// is over.
    pub(super) async fn settled(&self) {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if self.lock().is_settled() {
                return;
            }
            settled.await;
        }
    }

    fn wake_if_settled(&self, places: &Places) {
        if places.is_settled() {
            self.settled.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const BEGIN: QueueOffset = QueueOffset(5);

    fn claim() -> (Claim, Arc<str>) {
        (Claim::new(7, Some(BEGIN), BEGIN), "tx".into())
    }

    fn hand(claim: &Claim, next: u64) -> HandedOut {
        claim.hand_out(QueueOffset(next), || true).unwrap()
    }

    #[test]
    fn batches_of_one_transaction_follow_each_other_and_move_the_group_together() {
        let (claim, tx) = claim();
        let (first, second) = (hand(&claim, 8), hand(&claim, 9));
        assert_eq!(claim.ack(&tx, first, QueueOffset(8)), Ok(Some(BEGIN)));
        assert_eq!(claim.ack(&tx, second, QueueOffset(9)), Ok(Some(BEGIN)), "the group still stands there");
        claim.committed("tx");
        let third = hand(&claim, 10);
        assert_eq!(third.from, QueueOffset(9));
        assert_eq!(claim.ack(&"next".into(), third, QueueOffset(10)), Ok(Some(QueueOffset(9))));
    }

    #[test]
    fn what_is_out_of_turn_is_refused() {
        let (claim, tx) = claim();
        let (first, second) = (hand(&claim, 8), hand(&claim, 9));
        let gap = AckError::Gap { expected: BEGIN, from: QueueOffset(8) };
        assert_eq!(claim.ack(&tx, second, QueueOffset(9)), Err(gap));
        claim.ack(&tx, first, QueueOffset(8)).unwrap();
        assert_eq!(claim.ack(&"other".into(), second, QueueOffset(9)), Err(AckError::OtherTransaction));
        assert!(matches!(claim.ack(&tx, first, QueueOffset(8)), Err(AckError::Gap { .. })));
    }

    #[test]
    fn a_rollback_hands_all_out_again_and_batches_from_before_no_longer_count() {
        let (claim, tx) = claim();
        let (first, second) = (hand(&claim, 8), hand(&claim, 9));
        claim.ack(&tx, first, QueueOffset(8)).unwrap();
        let reset = Cell::new(None);
        assert!(!claim.rolled_back("other", |to| reset.set(Some(to))));
        assert!(claim.rolled_back("tx", |to| reset.set(Some(to))));
        assert_eq!(reset.get(), Some(BEGIN));
        assert_eq!(claim.ack(&tx, second, QueueOffset(9)), Err(AckError::Superseded));
        assert!(!claim.put_back(second, |_| panic!("it was put back before")));
        assert_eq!(hand(&claim, 8).from, BEGIN);
    }

    #[test]
    fn a_dropped_batch_comes_again_and_keeps_what_is_acknowledged() {
        let (claim, tx) = claim();
        let (first, second) = (hand(&claim, 8), hand(&claim, 9));
        claim.ack(&tx, first, QueueOffset(8)).unwrap();
        let reset = Cell::new(None);
        assert!(claim.put_back(second, |to| reset.set(Some(to))));
        assert_eq!(reset.get(), Some(QueueOffset(8)));
        let again = hand(&claim, 9);
        assert_eq!(claim.ack(&tx, again, QueueOffset(9)), Ok(Some(BEGIN)));
        claim.committed("tx");
        assert_eq!(claim.begin(), QueueOffset(9));
    }

    #[test]
    fn nothing_is_handed_out_or_acknowledged_under_a_lease_that_is_over() {
        let (claim, tx) = claim();
        let batch = hand(&claim, 8);
        assert!(claim.hand_out(QueueOffset(9), || false).is_none(), "moved meanwhile");
        assert!(claim.end() && !claim.end());
        assert!(claim.hand_out(QueueOffset(9), || true).is_none());
        assert_eq!(claim.ack(&tx, batch, QueueOffset(8)), Err(AckError::Superseded));
    }

    #[tokio::test]
    async fn a_claim_is_settled_when_batches_and_transactions_have_ended() {
        let (claim, tx) = claim();
        claim.settled().await;
        let batch = hand(&claim, 8);
        let claim = Arc::new(claim);
        let waiting = tokio::spawn({
            let claim = Arc::clone(&claim);
            async move { claim.settled().await }
        });
        tokio::task::yield_now().await;
        claim.ack(&tx, batch, QueueOffset(8)).unwrap();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        claim.committed("tx");
        waiting.await.unwrap();
    }
}
