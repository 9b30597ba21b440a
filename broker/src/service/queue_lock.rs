//! The queue locks of ordered consumers, shared by all connections. Leader-local: after a restart clients lock again.

use std::sync::{Mutex, PoisonError};

use mezzo_protocol::{ids::GroupName, time::Timestamp};

use crate::core::queue_lock::LockTable;
pub(crate) use crate::core::queue_lock::LockedQueue;

/// The one table of locks. Requests for it are rare (each client renews every 20 s), so a mutex serves.
pub(crate) struct QueueLocks(Mutex<LockTable>);

impl QueueLocks {
    /// No locks; at most `locks_max` of them.
    pub(crate) fn new(locks_max: usize) -> Self {
        Self(Mutex::new(LockTable::new(locks_max)))
    }

    /// Takes or renews locks; for each queue whether `client_id` owns it now.
    pub(crate) fn lock(
        &self,
        now: Timestamp,
        group: &GroupName,
        client_id: &str,
        queues: &[LockedQueue],
    ) -> Vec<bool> {
        self.table().handle_lock(now, group, client_id, queues)
    }

    /// Gives locks back.
    pub(crate) fn unlock(&self, group: &GroupName, client_id: &str, queues: &[LockedQueue]) {
        self.table().handle_unlock(group, client_id, queues);
    }

    /// Whether any client of the group owns a lock.
    pub(crate) fn holds_any(&self, group: &str, now: Timestamp) -> bool {
        self.table().holds_any(group, now)
    }

    /// Forgets expired locks.
    pub(crate) fn expire(&self, now: Timestamp) {
        self.table().handle_timeout(now);
    }

    fn table(&self) -> std::sync::MutexGuard<'_, LockTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
