//! Open transactions by what their producer calls them: producer group and key (the message's unique key, or the id of a
//! transaction of many). A restarted producer knows no more than that.
//!
//! A row costs five bytes at the table's load, at most twelve: its number and the table's own byte; the key is read in the
//! row. Where several open rows of a group have one key, which clients bring about by sending one message object twice,
//! none of them stands there, but their count and the sum (XOR) of their numbers, from which the last one comes back.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::groups::GroupSymbol;

/// Producer group and hash of the key.
pub(super) type RowKey = (GroupSymbol, u64);

/// What is open under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenOfKey<T> {
    /// Nothing.
    None,
    /// This one.
    One(T),
    /// More than one: the key does not say which is meant.
    Several,
}

/// Open rows that share their key.
#[derive(Debug, Clone, Copy)]
struct Sharing {
    count: u32,
    rows_xor: u32,
}

/// Rows by key.
#[derive(Debug, Default)]
pub(super) struct ByKey {
    hasher: RandomState,
    alone: HashTable<u32>,
    /// By the 64-bit hash of their key.
    sharing: HashMap<u64, Sharing, RandomState>,
}

impl ByKey {
    /// A row is open from here on. `key_of` tells the key of each row that stands here.
    pub(super) fn insert(&mut self, row: u32, key: RowKey, key_of: impl Fn(u32) -> RowKey) {
        let hash = self.hasher.hash_one(key);
        if let Some(sharing) = self.sharing.get_mut(&hash) {
            sharing.count += 1;
            sharing.rows_xor ^= row;
            return;
        }
        match self.alone.find_entry(hash, |other| key_of(*other) == key) {
            Ok(entry) => {
                let (other, _) = entry.remove();
                self.sharing.insert(hash, Sharing { count: 2, rows_xor: other ^ row });
            }
            Err(_) => self.insert_alone(row, hash, key_of),
        }
    }

    fn insert_alone(&mut self, row: u32, hash: u64, key_of: impl Fn(u32) -> RowKey) {
        let hasher = &self.hasher;
        self.alone.insert_unique(hash, row, |row| hasher.hash_one(key_of(*row)));
    }

    /// A row is about to go: `key_of` still knows it.
    pub(super) fn remove(&mut self, row: u32, key: RowKey, key_of: impl Fn(u32) -> RowKey) {
        let hash = self.hasher.hash_one(key);
        if let Some(sharing) = self.sharing.get_mut(&hash) {
            sharing.count -= 1;
            sharing.rows_xor ^= row;
            if sharing.count == 1 {
                let left = sharing.rows_xor;
                self.sharing.remove(&hash);
                self.insert_alone(left, hash, key_of);
            }
        } else if let Ok(entry) = self.alone.find_entry(hash, |other| *other == row) {
            entry.remove();
        }
    }

    /// What is open under this key.
    pub(super) fn find(&self, key: RowKey, key_of: impl Fn(u32) -> RowKey) -> OpenOfKey<u32> {
        let hash = self.hasher.hash_one(key);
        if self.sharing.contains_key(&hash) {
            return OpenOfKey::Several;
        }
        self.alone.find(hash, |row| key_of(*row) == key).map_or(OpenOfKey::None, |row| OpenOfKey::One(*row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row `n` has the key `keys[n]`.
    fn key_of(keys: &[u64]) -> impl Fn(u32) -> RowKey + '_ {
        |row| (1, keys[row as usize])
    }

    #[test]
    fn a_key_that_rows_share_names_the_last_one_once_the_others_are_gone() {
        let keys = [7, 7, 7, 8];
        let mut rows = ByKey::default();
        for (row, key) in keys.iter().enumerate() {
            rows.insert(row as u32, (1, *key), key_of(&keys));
        }
        assert_eq!(rows.find((1, 7), key_of(&keys)), OpenOfKey::Several);
        assert_eq!(rows.find((1, 8), key_of(&keys)), OpenOfKey::One(3));
        assert_eq!(rows.find((2, 8), key_of(&keys)), OpenOfKey::None);
        rows.remove(0, (1, 7), key_of(&keys));
        assert_eq!(rows.find((1, 7), key_of(&keys)), OpenOfKey::Several);
        rows.remove(2, (1, 7), key_of(&keys));
        assert_eq!(rows.find((1, 7), key_of(&keys)), OpenOfKey::One(1));
        rows.remove(1, (1, 7), key_of(&keys));
        rows.remove(3, (1, 8), key_of(&keys));
        assert_eq!(rows.find((1, 7), key_of(&keys)), OpenOfKey::None);
        assert!(rows.alone.is_empty() && rows.sharing.is_empty());
    }

    #[test]
    fn a_row_costs_at_most_twelve_bytes() {
        let keys: Vec<u64> = (0..100_000).collect();
        let mut rows = ByKey::default();
        for row in 0..keys.len() {
            rows.insert(row as u32, (1, keys[row]), key_of(&keys));
            let len = row + 1;
            assert!(len < 1_000 || rows.alone.allocation_size() <= 12 * len, "{len} rows");
        }
    }

    #[test]
    fn thousands_of_rows_with_one_key_cost_no_walk() {
        let keys = vec![5; 200_000];
        let mut rows = ByKey::default();
        for row in 0..keys.len() as u32 {
            rows.insert(row, (1, 5), key_of(&keys));
        }
        assert!(rows.alone.is_empty() && rows.sharing.len() == 1);
        for row in 1..keys.len() as u32 {
            rows.remove(row, (1, 5), key_of(&keys));
        }
        assert_eq!(rows.find((1, 5), key_of(&keys)), OpenOfKey::One(0));
    }
}
