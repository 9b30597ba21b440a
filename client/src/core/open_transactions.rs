//! What this process knows about its own transactions. A check-back for one whose local part is still running must not
//! reach the application's handler: it would look into the database before the commit, find nothing, and answer
//! "rolled back". And one that was decided here, but whose END got lost, needs no handler to be answered.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The decision of a local transaction as this process took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The half message becomes visible.
    Commit,
    /// The half message is discarded.
    Rollback,
}

/// What is known about one transaction, by the unique key of its half message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Knowledge {
    /// Prepared here, local part not finished.
    Running,
    /// Decided here; the decision is on its way, and an answer may still come.
    Deciding(Decision),
    /// Decided here, but the broker did not confirm.
    Unconfirmed(Decision),
    /// Not ours, or confirmed, or too long ago: ask the application.
    Nothing,
}

/// Transactions of this process that the broker may ask about.
#[derive(Debug)]
pub(crate) struct OpenTransactions {
    known: HashMap<Arc<str>, Knowledge>,
    /// Unconfirmed keys, oldest first: the part of the table that would grow while a broker is away.
    unconfirmed: VecDeque<Arc<str>>,
    unconfirmed_max: usize,
    running: usize,
}

impl OpenTransactions {
    /// An empty table that remembers at most `unconfirmed_max` unconfirmed decisions. Running ones are bounded by the
    /// producer's bound on open transactions.
    pub(crate) fn new(unconfirmed_max: usize) -> Self {
        Self { known: HashMap::new(), unconfirmed: VecDeque::new(), unconfirmed_max, running: 0 }
    }

    /// A half message with `key` is about to be sent.
    pub(crate) fn begin(&mut self, key: &Arc<str>) {
        if self.known.insert(Arc::clone(key), Knowledge::Running) != Some(Knowledge::Running) {
            self.running += 1;
        }
    }

    /// The local part decided, and the broker is being told. As many as are being told stay in the table.
    pub(crate) fn deciding(&mut self, key: &Arc<str>, decision: Decision) {
        self.leave(key);
        self.known.insert(Arc::clone(key), Knowledge::Deciding(decision));
    }

    /// The local part decided, and whether the broker knows is not known.
    pub(crate) fn decided(&mut self, key: &Arc<str>, decision: Decision) {
        self.leave(key);
        while self.unconfirmed.len() >= self.unconfirmed_max.max(1) {
            if let Some(oldest) = self.unconfirmed.pop_front() {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(Arc::clone(key), Knowledge::Unconfirmed(decision));
        self.unconfirmed.push_back(Arc::clone(key));
    }

    /// The broker confirmed, the half was never stored, or the local part ended without a decision: nothing to remember.
    pub(crate) fn forget(&mut self, key: &str) {
        self.leave(key);
    }

    /// What to say when the broker asks about `key`.
    pub(crate) fn knowledge(&self, key: &str) -> Knowledge {
        self.known.get(key).copied().unwrap_or(Knowledge::Nothing)
    }

    /// Transactions whose local part is not finished.
    pub(crate) const fn running(&self) -> usize {
        self.running
    }

    fn leave(&mut self, key: &str) {
        match self.known.remove(key) {
            Some(Knowledge::Running) => self.running -= 1,
            // The confirmed one is almost always the newest or near it, so searching from the back is short.
            Some(Knowledge::Unconfirmed(_)) => {
                if let Some(index) = self.unconfirmed.iter().rposition(|held| &**held == key) {
                    self.unconfirmed.remove(index);
                }
            }
            Some(Knowledge::Deciding(_) | Knowledge::Nothing) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_running_then_unconfirmed_then_forgotten() {
        let mut open = OpenTransactions::new(8);
        let key: Arc<str> = "k".into();
        open.begin(&key);
        assert_eq!((open.knowledge("k"), open.running()), (Knowledge::Running, 1));
        open.deciding(&key, Decision::Commit);
        assert_eq!((open.knowledge("k"), open.running()), (Knowledge::Deciding(Decision::Commit), 0));
        open.decided(&key, Decision::Commit);
        assert_eq!((open.knowledge("k"), open.running()), (Knowledge::Unconfirmed(Decision::Commit), 0));
        open.forget("k");
        assert_eq!(open.knowledge("k"), Knowledge::Nothing);
        assert!(open.unconfirmed.is_empty());
    }

    #[test]
    fn only_unconfirmed_decisions_are_evicted_oldest_first() {
        let mut open = OpenTransactions::new(2);
        let running: Arc<str> = "running".into();
        open.begin(&running);
        for key in ["a", "b", "c"] {
            let key: Arc<str> = key.into();
            open.begin(&key);
            open.decided(&key, Decision::Rollback);
        }
        assert_eq!(open.knowledge("a"), Knowledge::Nothing);
        assert_eq!(open.knowledge("b"), Knowledge::Unconfirmed(Decision::Rollback));
        assert_eq!(open.knowledge("running"), Knowledge::Running);
    }

    #[test]
    fn beginning_one_key_twice_counts_once() {
        let mut open = OpenTransactions::new(2);
        let key: Arc<str> = "k".into();
        open.begin(&key);
        open.begin(&key);
        open.forget("k");
        assert_eq!(open.running(), 0);
    }
}
