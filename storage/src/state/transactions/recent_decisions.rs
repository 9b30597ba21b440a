//! Decisions of one log segment while it is written: found by origin at once, by key when somebody asks for keys.
//!
//! The index by key is made by those who use it, and only as far as they need it, so that a decision costs the append
//! path one map entry, as if there were no keys.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::format::history_row::HistoryRow;

/// Rows put into the index by key under one hold of the lock that appends need.
const INDEXED_AT_ONCE: usize = 4_096;

/// The decisions of a segment, in log order.
#[derive(Debug, Clone, Default)]
pub(super) struct RecentDecisions {
    rows: Vec<HistoryRow>,
    by_origin: HashMap<u64, u32, RandomState>,
}

impl RecentDecisions {
    /// Adds one; the first decision of an origin stands.
    pub(super) fn insert(&mut self, row: HistoryRow) {
        let number = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        if let std::collections::hash_map::Entry::Vacant(place) = self.by_origin.entry(row.origin) {
            place.insert(number);
            self.rows.push(row);
        }
    }

    pub(super) fn get(&self, origin: u64) -> Option<HistoryRow> {
        let number = *self.by_origin.get(&origin)?;
        self.rows.get(number as usize).copied()
    }

    /// All rows, in log order.
    pub(super) fn rows(&self) -> &[HistoryRow] {
        &self.rows
    }
}

/// The newest row of each key, as far as somebody has asked.
#[derive(Debug, Default)]
pub(super) struct KeyIndex {
    /// By producer group hash and key hash.
    newest: HashMap<(u32, u64), u32, RandomState>,
    indexed: usize,
}

/// What the index says of a key.
pub(super) enum KeyFound {
    /// This is the newest decision about it.
    Row(HistoryRow),
    /// There is none.
    None,
    /// It cannot say yet: [`KeyIndex::take_in`] what follows, without the lock, and ask again.
    Behind(Vec<(u32, u64)>),
}

impl KeyIndex {
    /// Looks for a key among `decisions`, the ones that the index is of.
    pub(super) fn find(&self, decisions: &RecentDecisions, group_hash: u32, key_hash: u64) -> KeyFound {
        let behind: Vec<_> = decisions
            .rows
            .iter()
            .skip(self.indexed)
            .take(INDEXED_AT_ONCE)
            .map(|row| (row.group_hash, row.key_hash))
            .collect();
        if !behind.is_empty() {
            return KeyFound::Behind(behind);
        }
        let number = self.newest.get(&(group_hash, key_hash));
        match number.and_then(|number| decisions.rows.get(*number as usize)) {
            Some(row) => KeyFound::Row(*row),
            None => KeyFound::None,
        }
    }

    /// Takes in the keys of the rows that follow those it knows.
    pub(super) fn take_in(&mut self, keys: Vec<(u32, u64)>) {
        for key in keys {
            self.newest.insert(key, u32::try_from(self.indexed).unwrap_or(u32::MAX));
            self.indexed += 1;
        }
    }
}
