//! Delayed messages: stored, not visible before their time. A `tick` record makes all that are due visible, in
//! (due, position) order, so their order does not depend on when the leader came round to it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use foldhash::fast::RandomState;

/// A delayed message, kept under (due_ms, position of its first record): it stays in its place when it is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DueRow {
    pub(crate) location: u64,
    pub(crate) size: u32,
    /// Index into the ledger's queue list.
    pub(crate) queue: u32,
    pub(crate) tag_hash: i32,
}

/// What is due at one time.
#[derive(Debug, Clone, Copy)]
struct Load {
    messages: u32,
    /// How much later the first time with room was, when this one was last found full; milliseconds.
    room_after_ms: u32,
}

/// All delayed messages.
#[derive(Debug, Default)]
pub(crate) struct DueMessages {
    rows: BTreeMap<(u64, u64), DueRow>,
    loads: HashMap<u64, Load, RandomState>,
}

impl DueMessages {
    pub(crate) fn insert(&mut self, due_ms: u64, position: u64, row: DueRow) {
        if self.rows.insert((due_ms, position), row).is_none() {
            self.loads.entry(due_ms).or_insert(Load { messages: 0, room_after_ms: 1 }).messages += 1;
        }
    }

    fn removed(&mut self, due_ms: u64) {
        if let Some(load) = self.loads.get_mut(&due_ms) {
            load.messages -= 1;
            if load.messages == 0 {
                self.loads.remove(&due_ms);
            }
        }
    }

    /// The time from `due_ms` on at which less than `max` messages are due: a tick takes all messages of its time, so
    /// when everybody wants their message at midnight, some get theirs a few milliseconds later.
    pub(crate) fn with_room(&mut self, due_ms: u64, max: usize) -> u64 {
        let full = |load: &&mut Load| load.messages as usize >= max;
        let mut at_ms = due_ms;
        while let Some(load) = self.loads.get_mut(&at_ms).filter(full) {
            let Some(later_ms) = at_ms.checked_add(u64::from(load.room_after_ms)) else { break };
            at_ms = later_ms;
        }
        if let Some(load) = self.loads.get_mut(&due_ms).filter(full) {
            // the next one need not pass through all of them again
            load.room_after_ms = u32::try_from(at_ms - due_ms).unwrap_or(u32::MAX).max(1);
        }
        at_ms
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.rows.first_key_value().map(|((due, _), _)| *due)
    }

    /// The time a tick should name so that at most `max` messages become visible, or all of the first time if it has
    /// more; `None` when nothing is due.
    pub(crate) fn tick_time(&self, now_ms: u64, max: usize) -> Option<u64> {
        let mut tick_ms = self.next_due_ms().filter(|due_ms| *due_ms <= now_ms)?;
        let mut messages = self.messages_at(tick_ms);
        while tick_ms < now_ms {
            let mut later = self.rows.range((tick_ms + 1, 0)..=(now_ms, u64::MAX));
            let Some(((next_ms, _), _)) = later.next() else { break };
            messages += self.messages_at(*next_ms);
            if messages > max {
                break;
            }
            tick_ms = *next_ms;
        }
        Some(tick_ms)
    }

    fn messages_at(&self, due_ms: u64) -> usize {
        self.loads.get(&due_ms).map_or(0, |load| load.messages as usize)
    }

    /// Takes out all due at or before `due_ms`, in order.
    pub(crate) fn take(&mut self, due_ms: u64) -> Vec<DueRow> {
        // one by one: splitting the map would count all that stay, under the append lock
        let mut taken = Vec::new();
        while let Some(first) = self.rows.first_entry().filter(|row| row.key().0 <= due_ms) {
            let ((due_ms, _), row) = first.remove_entry();
            taken.push(row);
            self.removed(due_ms);
        }
        taken
    }

    /// The message kept under (due_ms, position).
    pub(crate) fn get(&self, due_ms: u64, position: u64) -> Option<&DueRow> {
        self.rows.get(&(due_ms, position))
    }

    pub(crate) fn get_mut(&mut self, due_ms: u64, position: u64) -> Option<&mut DueRow> {
        self.rows.get_mut(&(due_ms, position))
    }

    /// Messages behind the one with this key, in order, for those who look at all in several steps.
    pub(crate) fn rows_behind(&self, key: Option<(u64, u64)>) -> impl Iterator<Item = (u64, u64, &DueRow)> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.rows.range((from, Bound::Unbounded)).map(|((due, position), row)| (*due, *position, row))
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
        assert_eq!(due.tick_time(25, 3), Some(20));
        assert_eq!(due.tick_time(25, 2), Some(10));
        assert_eq!(due.tick_time(25, 1), Some(10), "the first time goes as a whole");
        let taken: Vec<_> = due.take(20).into_iter().map(|row| row.location).collect();
        assert_eq!(taken, [3, 5, 9]);
        assert_eq!(due.next_due_ms(), Some(30));
    }

    #[test]
    fn messages_that_are_all_due_at_once_are_spread_so_that_no_time_has_too_many() {
        let mut due = DueMessages::default();
        due.insert(102, 0, ROW);
        for position in 1..=20 {
            let at = due.with_room(100, 4);
            due.insert(at, position, ROW);
        }
        let times: Vec<u64> = due.iter().map(|(at, ..)| at).collect();
        let want: Vec<u64> = [100, 101, 102, 103, 104, 105].iter().flat_map(|at| [*at; 4]).take(21).collect();
        assert_eq!(times, want);
        assert_eq!(due.with_room(101, 4), 105);
        assert_eq!(due.take(100).len(), 4);
        assert_eq!(due.with_room(100, 4), 100, "room again");
        due.take(u64::MAX);
        assert!(due.loads.is_empty());
        for position in 0..9 {
            let at = due.with_room(u64::MAX - 1, 4);
            due.insert(at, position, ROW);
        }
        assert_eq!(due.take(u64::MAX).len(), 9, "the end of time has room for all");
    }
}
