//! Which client of a group may consume which queue: the lock that ordered consumers take before they read. A lock is
//! renewed by asking again and ends when its owner gives it back or does not renew it for [`LOCK_TIMEOUT_MS`].

use std::collections::HashMap;

use mezzo_protocol::{
    ids::{GroupName, QueueId, TopicName},
    time::Timestamp,
};

/// Milliseconds after which a lock that was not renewed is free. Clients renew every 20 s and believe in a lock for 30 s.
pub(crate) const LOCK_TIMEOUT_MS: u64 = 60_000;

/// A queue as a lock names it.
pub(crate) type LockedQueue = (TopicName, QueueId);

#[derive(Debug)]
struct Lock {
    client_id: String,
    renewed_at: Timestamp,
}

impl Lock {
    fn is_expired(&self, now: Timestamp) -> bool {
        now.saturating_since_ms(self.renewed_at) > LOCK_TIMEOUT_MS
    }
}

/// All locks of all groups.
#[derive(Debug)]
pub(crate) struct LockTable {
    groups: HashMap<GroupName, HashMap<LockedQueue, Lock>>,
    locks: usize,
    locks_max: usize,
}

impl LockTable {
    /// An empty table that holds at most `locks_max` locks.
    pub(crate) fn new(locks_max: usize) -> Self {
        Self { groups: HashMap::new(), locks: 0, locks_max }
    }

    /// Takes or renews locks for `client_id`; returns for each queue whether that client owns it now.
    pub(crate) fn handle_lock(
        &mut self,
        now: Timestamp,
        group: &GroupName,
        client_id: &str,
        queues: &[LockedQueue],
    ) -> Vec<bool> {
        let locks = self.groups.entry(group.clone()).or_default();
        let owned = queues
            .iter()
            .map(|queue| match locks.get_mut(queue) {
                Some(lock) if lock.client_id == client_id || lock.is_expired(now) => {
                    client_id.clone_into(&mut lock.client_id);
                    lock.renewed_at = now;
                    true
                }
                Some(_) => false,
                None if self.locks >= self.locks_max => false,
                None => {
                    locks.insert(queue.clone(), Lock { client_id: client_id.to_owned(), renewed_at: now });
                    self.locks += 1;
                    true
                }
            })
            .collect();
        if locks.is_empty() {
            self.groups.remove(group);
        }
        owned
    }

    /// Gives back the locks among `queues` that `client_id` owns; those of others stay.
    pub(crate) fn handle_unlock(&mut self, group: &GroupName, client_id: &str, queues: &[LockedQueue]) {
        let Some(locks) = self.groups.get_mut(group) else { return };
        for queue in queues {
            if locks.get(queue).is_some_and(|lock| lock.client_id == client_id) {
                locks.remove(queue);
                self.locks -= 1;
            }
        }
        if locks.is_empty() {
            self.groups.remove(group);
        }
    }

    /// Whether any client of the group owns a lock: the group consumes in order then.
    pub(crate) fn holds_any(&self, group: &str, now: Timestamp) -> bool {
        self.groups.get(group).is_some_and(|locks| locks.values().any(|lock| !lock.is_expired(now)))
    }

    /// Forgets expired locks, so that groups that are gone cost nothing.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        for locks in self.groups.values_mut() {
            locks.retain(|_, lock| !lock.is_expired(now));
        }
        self.groups.retain(|_, locks| !locks.is_empty());
        self.locks = self.groups.values().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    fn group(name: &str) -> GroupName {
        GroupName::new(name).unwrap()
    }

    fn queue(id: u32) -> LockedQueue {
        (TopicName::new("t").unwrap(), QueueId(id))
    }

    #[test]
    fn one_client_owns_a_queue_until_it_gives_it_back() {
        let mut table = LockTable::new(10);
        assert_eq!(table.handle_lock(at(0), &group("g"), "a", &[queue(0), queue(1)]), [true, true]);
        assert_eq!(table.handle_lock(at(1), &group("g"), "b", &[queue(1), queue(2)]), [false, true]);
        table.handle_unlock(&group("g"), "b", &[queue(1)]);
        assert_eq!(
            table.handle_lock(at(2), &group("g"), "b", &[queue(1)]),
            [false],
            "only its owner gives a lock back"
        );
        table.handle_unlock(&group("g"), "a", &[queue(1)]);
        assert_eq!(table.handle_lock(at(3), &group("g"), "b", &[queue(1)]), [true]);
    }

    #[test]
    fn groups_do_not_share_locks() {
        let mut table = LockTable::new(10);
        table.handle_lock(at(0), &group("g"), "a", &[queue(0)]);
        assert_eq!(table.handle_lock(at(0), &group("h"), "b", &[queue(0)]), [true]);
    }

    #[test]
    fn a_lock_that_is_not_renewed_goes_to_the_next_who_asks() {
        let mut table = LockTable::new(10);
        table.handle_lock(at(0), &group("g"), "a", &[queue(0)]);
        table.handle_lock(at(10), &group("g"), "a", &[queue(0)]);
        assert_eq!(table.handle_lock(at(10 + LOCK_TIMEOUT_MS), &group("g"), "b", &[queue(0)]), [false]);
        assert_eq!(table.handle_lock(at(11 + LOCK_TIMEOUT_MS), &group("g"), "b", &[queue(0)]), [true]);
        assert_eq!(table.handle_lock(at(12 + LOCK_TIMEOUT_MS), &group("g"), "a", &[queue(0)]), [false]);
    }

    #[test]
    fn the_table_is_bounded_and_expiry_makes_room() {
        let mut table = LockTable::new(1);
        assert_eq!(table.handle_lock(at(0), &group("g"), "a", &[queue(0), queue(1)]), [true, false]);
        table.handle_timeout(at(1 + LOCK_TIMEOUT_MS));
        assert!(table.groups.is_empty());
        assert_eq!(table.handle_lock(at(2 + LOCK_TIMEOUT_MS), &group("g"), "a", &[queue(1)]), [true]);
    }
}
