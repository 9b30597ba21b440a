//! Delayed messages: stored, not visible before their time. A `tick` record makes all that are due visible, in
//! (due, position) order, so their order does not depend on when the leader came round to it.

use std::collections::BTreeMap;

/// A delayed message, kept under (due_ms, position).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DueRow {
    pub(crate) location: u64,
    pub(crate) size: u32,
    /// Index into the ledger's queue list.
    pub(crate) queue: u32,
    pub(crate) tag_hash: i32,
}

/// All delayed messages.
#[derive(Debug, Default)]
pub(crate) struct DueMessages {
    rows: BTreeMap<(u64, u64), DueRow>,
}

impl DueMessages {
    pub(crate) fn insert(&mut self, due_ms: u64, position: u64, row: DueRow) {
        self.rows.insert((due_ms, position), row);
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn contains(&self, due_ms: u64, position: u64) -> bool {
        self.rows.contains_key(&(due_ms, position))
    }

    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.rows.first_key_value().map(|((due, _), _)| *due)
    }

    /// The time a tick should name so that about `max` messages become visible; `None` when nothing is due.
    pub(crate) fn tick_time(&self, now_ms: u64, max: usize) -> Option<u64> {
        let mut due = self.rows.range(..=(now_ms, u64::MAX)).map(|((due, _), _)| *due);
        let first = due.next()?;
        Some(due.take(max.saturating_sub(1)).last().unwrap_or(first))
    }

    /// Takes out all due at or before `due_ms`, in order.
    pub(crate) fn take(&mut self, due_ms: u64) -> Vec<DueRow> {
        // one by one: splitting the map would count all that stay, under the append lock
        let mut taken = Vec::new();
        while let Some(first) = self.rows.first_entry().filter(|row| row.key().0 <= due_ms) {
            taken.push(first.remove());
        }
        taken
    }

    /// Takes out one message.
    pub(crate) fn take_one(&mut self, due_ms: u64, position: u64) -> Option<DueRow> {
        self.rows.remove(&(due_ms, position))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64, &DueRow)> {
        self.rows.iter().map(|((due, position), row)| (*due, *position, row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: DueRow = DueRow { location: 0, size: 0, queue: 0, tag_hash: 0 };

    #[test]
    fn a_tick_takes_what_is_due_in_order_and_no_more() {
        let mut due = DueMessages::default();
        for (at, position) in [(30, 1), (10, 5), (10, 3), (20, 9)] {
            due.insert(at, position, DueRow { location: position, ..ROW });
        }
        assert_eq!(due.tick_time(9, 10), None);
        assert_eq!(due.tick_time(25, 10), Some(20));
        assert_eq!(due.tick_time(25, 1), Some(10));
        let taken: Vec<_> = due.take(20).into_iter().map(|row| row.location).collect();
        assert_eq!(taken, [3, 5, 9]);
        assert_eq!(due.next_due_ms(), Some(30));
    }
}
