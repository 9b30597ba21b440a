//! The table itself: two generations of fixed size. When the young one is full, the old one is emptied and takes its
//! place: what is forgotten is always the older half, and nothing is ever moved.
//!
//! A slot is five words, and all of them zero is an empty slot, so a table costs memory only as it fills:
//!
//! ```text
//! | key, 2 words | position | sender 32 bits, index 16, count 16 | leader time 48 bits, tag 16 |
//! ```
//!
//! A slot whose tag is not its generation's is empty, too: emptying a generation is giving it the next tag.

use super::first_sends::{Part, SenderId};
use super::key::SendKey;

/// One slot, in words of 64 bits.
type Slot = [u64; 5];

const SLOT_BYTES: usize = size_of::<Slot>();
/// A generation is full when this share of its slots is taken: beyond, searches get long.
const FULL: (usize, usize) = (3, 4);
/// Slots of one generation, at least.
const SLOTS_MIN: usize = 16;

/// What is known of one send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: SendKey,
    /// Where its record stands.
    pub(super) position: u64,
    /// Leader time of its frame.
    pub(super) at_ms: u64,
    /// The connection that may still get, or has got, the answer.
    pub(super) sender: Option<SenderId>,
    pub(super) part: Part,
}

impl Row {
    fn to_slot(self, tag: u16) -> Slot {
        let sender = self.sender.map_or(0, SenderId::number);
        let who = u64::from(sender) << 32 | u64::from(self.part.index) << 16 | u64::from(self.part.count);
        [self.key.0[0], self.key.0[1], self.position, who, self.at_ms << 16 | u64::from(tag)]
    }

    fn of_slot([low, high, position, who, when]: Slot) -> Self {
        let part = Part { index: (who >> 16 & 0xFFFF) as u16, count: (who & 0xFFFF) as u16 };
        let sender = SenderId::from_number((who >> 32) as u32);
        Self { key: SendKey([low, high]), position, at_ms: when >> 16, sender, part }
    }
}

#[derive(Debug)]
struct Generation {
    slots: Vec<Slot>,
    used: usize,
    tag: u16,
    /// Of its first row.
    oldest_ms: u64,
}

impl Generation {
    fn new(slots: usize) -> Self {
        Self { slots: vec![[0; 5]; slots], used: 0, tag: 1, oldest_ms: 0 }
    }

    fn is_full(&self) -> bool {
        self.used >= self.slots.len() / FULL.1 * FULL.0
    }

    fn clear(&mut self) {
        self.used = 0;
        self.tag = self.tag.wrapping_add(1);
        if self.tag == 0 {
            // after 65,535 rounds: rows that old would be taken for new ones
            self.slots.fill([0; 5]);
            self.tag = 1;
        }
    }

    /// The place of `key`, or the empty place where it belongs.
    fn place(&self, key: SendKey) -> usize {
        let slots = self.slots.len();
        let spread = u128::from(key.0[0]) * slots as u128;
        let mut place = usize::try_from(spread >> 64).unwrap_or(0);
        // ends: a quarter of the slots is empty
        while let Some(slot) = self.slots.get(place) {
            if !self.holds(slot) || (slot[0], slot[1]) == (key.0[0], key.0[1]) {
                break;
            }
            place = if place + 1 == slots { 0 } else { place + 1 };
        }
        place
    }

    fn holds(&self, slot: &Slot) -> bool {
        slot[4] & 0xFFFF == u64::from(self.tag)
    }

    fn find(&self, key: SendKey) -> Option<Row> {
        let slot = self.slots.get(self.place(key)).filter(|slot| self.holds(slot))?;
        Some(Row::of_slot(*slot))
    }

    fn put(&mut self, row: Row) {
        let (place, tag) = (self.place(row.key), self.tag);
        let Some(slot) = self.slots.get_mut(place) else { return };
        if slot[4] & 0xFFFF != u64::from(tag) {
            if self.used == 0 {
                self.oldest_ms = row.at_ms;
            }
            self.used += 1;
        }
        *slot = row.to_slot(tag);
    }
}

/// Both generations.
#[derive(Debug)]
pub(super) struct Table {
    young: Generation,
    old: Generation,
}

impl Table {
    /// A table of about `bytes`, taken from the system as it fills.
    pub(super) fn new(bytes: usize) -> Self {
        let slots = (bytes / 2 / SLOT_BYTES).max(SLOTS_MIN);
        Self { young: Generation::new(slots), old: Generation::new(slots) }
    }

    /// The newest row of `key`.
    pub(super) fn find(&self, key: SendKey) -> Option<Row> {
        self.young.find(key).or_else(|| self.old.find(key))
    }

    /// Adds a row; an earlier one of the same key is forgotten. Returns the time of the newest row that had to go for
    /// it, if a generation went.
    pub(super) fn put(&mut self, row: Row) -> Option<u64> {
        let mut gone = None;
        if self.young.is_full() {
            gone = (self.old.used > 0).then_some(self.young.oldest_ms);
            self.old.clear();
            std::mem::swap(&mut self.young, &mut self.old);
        }
        self.young.put(row);
        gone
    }

    /// Who has, or has not, the answer of this send: only if the newest row of the key is that send.
    pub(super) fn set_sender(&mut self, key: SendKey, position: u64, sender: Option<SenderId>) {
        let generation = if self.young.find(key).is_some() { &mut self.young } else { &mut self.old };
        if let Some(row) = generation.find(key).filter(|row| row.position == position) {
            generation.put(Row { sender, ..row });
        }
    }

    /// Leader time of the oldest row.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        [&self.old, &self.young].into_iter().find(|g| g.used > 0).map(|g| g.oldest_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u64) -> Row {
        // far apart, and some of them beside each other
        let low = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) & !(n & 1);
        Row {
            key: SendKey([low, n]),
            position: n,
            at_ms: 1_700_000_000_000 + n,
            sender: SenderId::from_number(u32::try_from(n).unwrap()),
            part: Part { index: 3, count: 0xFFFF },
        }
    }

    #[test]
    fn a_row_is_found_as_it_was_put_and_the_newest_of_a_key_counts() {
        let mut table = Table::new(1 << 16);
        for n in 1..200 {
            table.put(row(n));
        }
        for n in 1..200 {
            assert_eq!(table.find(row(n).key), Some(row(n)));
        }
        assert_eq!(table.find(row(200).key), None);
        let newer = Row { position: 9_999, ..row(7) };
        table.put(newer);
        assert_eq!(table.find(row(7).key), Some(newer));
    }

    #[test]
    fn the_older_half_goes_when_the_young_one_is_full_and_memory_stays_as_it_is() {
        let mut table = Table::new(16 * 2 * SLOT_BYTES);
        let full = 16 / FULL.1 * FULL.0;
        for n in 0..full as u64 * 1_000 {
            table.put(row(n + 1));
            let kept = (n + 1) as usize;
            let oldest = kept - kept.min(full);
            assert!(table.find(row(oldest as u64 + 1).key).is_some(), "one generation is always whole");
        }
        assert_eq!(table.young.slots.len(), 16);
        let last = full as u64 * 1_000;
        assert_eq!(table.find(row(last - 2 * full as u64).key), None);
        assert!(table.oldest_ms().unwrap() > row(last - 2 * full as u64).at_ms);
    }

    #[test]
    fn a_generation_whose_tag_begins_anew_holds_nothing_of_before() {
        let mut generation = Generation::new(16);
        generation.put(row(1));
        for _ in 0..u16::MAX {
            generation.clear();
        }
        assert_eq!(generation.tag, 1);
        assert_eq!(generation.find(row(1).key), None);
    }

    #[test]
    fn a_lost_answer_is_that_of_one_send() {
        let mut table = Table::new(16 * 2 * SLOT_BYTES);
        table.put(row(1));
        table.set_sender(row(1).key, 2, None);
        assert_eq!(table.find(row(1).key), Some(row(1)), "another send of the same key");
        // found in the old generation, too
        for n in 2..16 {
            table.put(row(n));
        }
        table.set_sender(row(1).key, 1, None);
        assert_eq!(table.find(row(1).key), Some(Row { sender: None, ..row(1) }));
    }
}
