//! Ids of transactions of many messages that are decided, so that a message which arrives late begins none of them
//! anew. The newest are kept with what was decided; of a few hundred thousand before them it is known that they are,
//! in a fixed amount of memory: two generations, of which the older one goes as a whole when the younger one is full.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;

use crate::format::history_row::HistoryRow;
use crate::format::record::Outcome;

/// Decisions that are kept whole: a repeated END by id is answered from them. What is older is found in the history.
pub(super) const WHOLE_MAX: usize = 1 << 16;
/// Slots of one generation of the others: 8 MiB, taken when the first generation is begun.
const SLOTS: usize = 1 << 19;
/// A generation is full at this: a quarter of its slots stays empty, so that searches are short.
const FULL: usize = SLOTS / 4 * 3;

/// Group hash and key hash: what a history row names a transaction by.
type Names = (u32, u64);

/// Hash of the names under a secret of the process, then origin and outcome; all zero: empty.
type Slot = [u64; 2];

/// The newest decided ids.
#[derive(Debug, Default)]
pub(super) struct DecidedIds {
    rows: HashMap<Names, HistoryRow, RandomState>,
    order: VecDeque<Names>,
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    slots: Vec<Slot>,
    used: usize,
}

impl Generation {
    /// The slot of this hash, or the empty one where it belongs.
    fn place(&self, hash: u64) -> Option<usize> {
        let len = self.slots.len();
        let mut place = usize::try_from((u128::from(hash) * len as u128) >> 64).ok()?;
        loop {
            let slot = self.slots.get(place)?;
            if slot[0] == hash || *slot == [0; 2] {
                return Some(place);
            }
            place = if place + 1 == len { 0 } else { place + 1 };
        }
    }

    fn find(&self, hash: u64) -> Option<Slot> {
        self.slots.get(self.place(hash)?).copied().filter(|slot| slot[0] == hash)
    }

    fn put(&mut self, slot: Slot) {
        if self.slots.is_empty() {
            self.slots = vec![[0; 2]; SLOTS];
        }
        if let Some(place) = self.place(slot[0]).and_then(|place| self.slots.get_mut(place)) {
            self.used += usize::from(*place == [0; 2]);
            *place = slot;
        }
    }
}

impl DecidedIds {
    pub(super) fn add(&mut self, row: HistoryRow) {
        let names = (row.group_hash, row.key_hash);
        if self.rows.insert(names, row).is_none() {
            self.order.push_back(names);
        }
        if self.order.len() > WHOLE_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(row) = self.rows.remove(&oldest)
        {
            let outcome = u64::from(row.outcome == Outcome::Committed);
            let slot = [self.hash(oldest), row.origin << 1 | outcome];
            if self.young.used >= FULL {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.put(slot);
        }
    }

    /// The decision about this name, if it is among the newest.
    pub(super) fn whole(&self, names: Names) -> Option<&HistoryRow> {
        self.rows.get(&names)
    }

    /// Origin and outcome of the newest decision about this name, as far back as memory goes.
    pub(super) fn find(&self, names: Names) -> Option<(u64, Outcome)> {
        if let Some(row) = self.whole(names) {
            return Some((row.origin, row.outcome));
        }
        if self.young.slots.is_empty() {
            return None;
        }
        let hash = self.hash(names);
        let [_, what] = self.young.find(hash).or_else(|| self.old.find(hash))?;
        Some((what >> 1, if what & 1 == 1 { Outcome::Committed } else { Outcome::RolledBack }))
    }

    fn hash(&self, names: Names) -> u64 {
        self.rows.hasher().hash_one(names).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::Source;

    fn row(n: u64) -> HistoryRow {
        HistoryRow {
            origin: n,
            key_hash: n,
            decided_at_ms: 0,
            first_queue_offset: None,
            decision_position: 0,
            group_hash: 1,
            outcome: if n.is_multiple_of(3) { Outcome::Committed } else { Outcome::RolledBack },
            source: Source::Producer,
            count: 1,
            named: true,
        }
    }

    #[test]
    fn the_newest_are_kept_whole_and_more_than_a_generation_before_them_by_name() {
        let mut ids = DecidedIds::default();
        let all = (WHOLE_MAX + FULL + FULL / 2) as u64;
        for n in 0..all {
            ids.add(row(n));
        }
        assert_eq!((ids.rows.len(), ids.order.len()), (WHOLE_MAX, WHOLE_MAX));
        let whole_from = all - WHOLE_MAX as u64;
        assert_eq!(
            (ids.whole((1, whole_from)), ids.whole((1, whole_from - 1))),
            (Some(&row(whole_from)), None)
        );
        for n in (0..all).step_by(997) {
            assert_eq!(ids.find((1, n)), Some((n, row(n).outcome)), "{n}");
            assert_eq!(ids.find((2, n)), None);
        }
        for n in all..all + FULL as u64 {
            ids.add(row(n));
        }
        assert_eq!(ids.find((1, 5)), None, "the older generation has gone");
        assert_eq!(ids.find((1, FULL as u64 + 5)), Some((FULL as u64 + 5, row(FULL as u64 + 5).outcome)));
        assert!(ids.young.used <= FULL && ids.old.used <= FULL);
    }

    #[test]
    fn a_name_that_is_decided_once_more_has_the_newer_decision() {
        let mut ids = DecidedIds::default();
        ids.add(row(3));
        ids.add(HistoryRow { origin: 9, outcome: Outcome::RolledBack, ..row(3) });
        assert_eq!(ids.find((1, 3)), Some((9, Outcome::RolledBack)));
        for n in 10..10 + WHOLE_MAX as u64 {
            ids.add(row(n));
        }
        assert_eq!(ids.find((1, 3)), Some((9, Outcome::RolledBack)));
    }
}
