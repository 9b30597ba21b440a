//! The limit: how it moves, and what happens when it does.
//!
//! At acknowledgement `durable` whoever holds `syncing` syncs everything appended so far and publishes it; those who
//! appended meanwhile form the next group. An append on an idle broker leads its own sync, which saves two thread
//! switches; under load the syncer thread does it.

use std::sync::{Arc, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use mezzo_protocol::ids::PhysicalOffset;

use super::view::Grown;
use super::{Store, lock};
use crate::concurrency::atomic::Ordering;
use crate::error::StorageError;
use crate::options::AckLevel;
use crate::results::LeftDoubt;
use crate::state::publish::Publication;
use crate::state::topics::Queue;

/// What the last syncs were like.
#[derive(Debug, Default)]
pub(super) struct SyncState {
    last: Duration,
}

/// What the observer has to be told of.
#[derive(Debug, Default)]
#[must_use = "to be announced"]
pub(super) struct Published {
    /// Where the limit was moved.
    limit: Option<u64>,
    /// Watched queues with new entries.
    grown: Vec<Arc<Queue>>,
    /// Transactions that are IN_DOUBT no longer.
    left_doubt: Vec<LeftDoubt>,
}

impl Store {
    /// Syncs what was appended so far and publishes it. Concurrent callers share syncs.
    ///
    /// # Errors
    /// [`StorageError::Fenced`] after the first failure, for ever.
    pub fn sync(&self) -> Result<(), StorageError> {
        let mut syncing = lock(&self.syncing);
        let published = self.sync_holding(&mut syncing)?;
        drop(syncing);
        self.announce(published);
        Ok(())
    }

    /// As [`Store::sync`], for a caller that holds the append lock: it announces what was published after that.
    pub(super) fn sync_unannounced(&self) -> Result<Published, StorageError> {
        self.sync_holding(&mut lock(&self.syncing))
    }

    fn sync_holding(&self, syncing: &mut SyncState) -> Result<Published, StorageError> {
        // what is appended from here on belongs to the next group
        let target = self.appended.load(Ordering::Acquire);
        if self.log.synced() < target {
            let begin = Instant::now();
            let unsynced = self.unsynced_messages.load(Ordering::Relaxed);
            if let Err(e) = self.log.sync() {
                self.report_if_fenced();
                return Err(e);
            }
            self.unsynced_messages.fetch_sub(unsynced, Ordering::Relaxed);
            syncing.last = begin.elapsed();
            self.sync_times.add(syncing.last);
        }
        self.publish(target)
    }

    /// For an append that ended at `end`: if nobody is syncing and nobody appended after it, sync here and now.
    /// True when the limit has reached `end`.
    pub fn sync_now_if_idle(&self, end: PhysicalOffset) -> bool {
        if self.limit() >= end {
            return true;
        }
        if self.appended.load(Ordering::Acquire) != end.0 {
            return false;
        }
        let mut syncing = match self.syncing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(e)) => PoisonError::into_inner(e),
            Err(TryLockError::WouldBlock) => return false,
        };
        let max = self.options.inline_sync_max;
        if max.is_zero() || syncing.last > max {
            return false;
        }
        let Ok(published) = self.sync_holding(&mut syncing) else { return false };
        drop(syncing);
        self.announce(published);
        self.limit() >= end
    }

    /// Wakes the syncer thread.
    pub fn request_sync(&self) {
        self.sync_requested.raise();
    }

    /// Publishes every effect of records below `limit`, in log order, and moves the limit there.
    pub(super) fn publish(&self, limit: u64) -> Result<Published, StorageError> {
        let _publishing = lock(&self.publishing);
        if self.limit.load(Ordering::Acquire) >= limit {
            return Ok(Published::default());
        }
        let ready: Vec<Publication> = {
            let mut pending = lock(&self.pending);
            let count = pending.0.partition_point(|(position, _)| *position < limit);
            pending.0.drain(..count).map(|(_, publication)| publication).collect()
        };
        let mut grown = Grown::default();
        let mut messages = 0;
        for publication in ready {
            if let Err(e) = self.view.show(publication, &mut grown, &mut messages) {
                self.log.fence(e.to_string());
                self.report_if_fenced();
                return Err(e);
            }
        }
        if self.options.ack == AckLevel::Memory {
            self.unsynced_messages.fetch_add(messages, Ordering::Relaxed);
        }
        self.limit.store(limit, Ordering::Release);
        let left_doubt = std::mem::take(&mut grown.left_doubt);
        Ok(Published { limit: Some(limit), grown: grown.into_queues(), left_doubt })
    }

    /// Tells the observer; no lock may be held.
    pub(super) fn announce(&self, published: Published) {
        for queue in &published.grown {
            self.observer.queue_grew(queue);
        }
        for left in &published.left_doubt {
            self.observer.left_doubt(left);
        }
        if let Some(limit) = published.limit {
            self.observer.limit_advanced(PhysicalOffset(limit));
        }
    }

    /// Tells the observer, once per call, when writing has ended.
    pub(super) fn report_if_fenced(&self) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        if let Err(StorageError::Fenced { reason }) = self.log.check() {
            self.observer.fenced(&reason);
        }
    }
}
