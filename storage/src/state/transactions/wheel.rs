//! A hierarchical timing wheel (Varghese and Lauck, 1987) whose links live in the rows it orders: arming and
//! disarming cost a few stores, a tick costs what is due, and there is no allocation.
//!
//! Four levels of 256 slots; a slot of level 0 is 32 ms wide, so the levels reach 8 s, 35 min, 6 days and 4 years.
//! Later deadlines wait in the last slot and are placed again when it comes round. A deadline never fires early.

/// No row.
pub(crate) const NONE: u32 = u32::MAX;
const LEVELS: usize = 4;
const SLOTS: usize = 256;
const TICK_MS: u64 = 32;
const HEADS: usize = LEVELS * SLOTS;

/// Access to the links that the rows carry.
pub(crate) trait Links {
    /// (next, previous, slot) of a row; slot is [`NONE`] when it is not armed.
    fn links(&self, row: u32) -> (u32, u32, u32);
    /// Stores them.
    fn set_links(&mut self, row: u32, next: u32, previous: u32, slot: u32);
    /// When the row is due, in milliseconds.
    fn deadline_ms(&self, row: u32) -> u64;
}

/// The heads of the lists, and how far time has come.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Vec<u32>,
    occupied: [[u64; SLOTS / 64]; LEVELS],
    /// Ticks that have been handed out completely.
    now: u64,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { heads: vec![NONE; HEADS], occupied: [[0; SLOTS / 64]; LEVELS], now: 0 }
    }
}

impl Wheel {
    /// An empty wheel whose time is `now_ms`.
    pub(crate) fn starting_at(now_ms: u64) -> Self {
        Self { now: now_ms / TICK_MS, ..Self::default() }
    }

    /// Arms a row at its deadline; it must not be armed.
    pub(crate) fn arm(&mut self, rows: &mut impl Links, row: u32) {
        self.place(rows, row, self.now, self.now + 1);
    }

    /// Puts a row into the slot that is opened in time, seen from tick `from`, but not before tick `earliest`.
    fn place(&mut self, rows: &mut impl Links, row: u32, from: u64, earliest: u64) {
        // rounding up: never early
        let due = rows.deadline_ms(row).div_ceil(TICK_MS).max(earliest);
        let ahead = (due - from).min((1 << 32) - 1);
        let level = ahead.checked_ilog2().unwrap_or(0) as usize / 8;
        // a slot of a higher level is opened when its first tick begins
        let slot = level * SLOTS + (((from + ahead) >> (8 * level)) as usize & (SLOTS - 1));
        let head = self.heads.get(slot).copied().unwrap_or(NONE);
        if head != NONE {
            let (next, _, at) = rows.links(head);
            rows.set_links(head, next, row, at);
        }
        rows.set_links(row, head, NONE, u32::try_from(slot).unwrap_or(NONE));
        self.set_head(slot, row);
    }

    /// Takes a row out, if it is armed.
    pub(crate) fn disarm(&mut self, rows: &mut impl Links, row: u32) {
        let (next, previous, slot) = rows.links(row);
        if slot == NONE {
            return;
        }
        if previous == NONE {
            self.set_head(slot as usize, next);
        } else {
            let (_, before, at) = rows.links(previous);
            rows.set_links(previous, next, before, at);
        }
        if next != NONE {
            let (after, _, at) = rows.links(next);
            rows.set_links(next, after, previous, at);
        }
        rows.set_links(row, NONE, NONE, NONE);
    }

    /// Moves time on to `now_ms` and takes out what is due, at most `max` rows, earliest slot first. When the answer
    /// is full, more may be due: call again.
    pub(crate) fn due(&mut self, rows: &mut impl Links, now_ms: u64, max: usize) -> Vec<u32> {
        let target = now_ms / TICK_MS;
        let mut due = Vec::new();
        while self.now < target {
            let Some(next) = self.next_tick(target) else {
                self.now = target;
                break;
            };
            self.now = next - 1;
            // higher levels first: their slots begin at this tick
            for level in (1..LEVELS).rev() {
                if next.trailing_zeros() as usize >= 8 * level {
                    let slot = level * SLOTS + ((next >> (8 * level)) as usize & (SLOTS - 1));
                    self.replace(rows, slot, next);
                }
            }
            let slot = next as usize & (SLOTS - 1);
            while let Some(row) = self.heads.get(slot).copied().filter(|r| *r != NONE) {
                if due.len() >= max {
                    return due;
                }
                self.disarm(rows, row);
                due.push(row);
            }
            self.now = next;
        }
        due
    }

    /// A time at or before the earliest deadline, in milliseconds; `None` when nothing is armed.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.next_tick(u64::MAX).map(|tick| tick.saturating_mul(TICK_MS))
    }

    /// The next tick, up to `target`, at which a slot must be opened.
    fn next_tick(&self, target: u64) -> Option<u64> {
        let mut best: Option<u64> = None;
        for level in 0..LEVELS {
            let shift = 8 * level;
            let from = (self.now >> shift) + 1;
            let Some(ahead) = self.first_occupied(level, from as usize & (SLOTS - 1)) else { continue };
            let tick = (from + ahead as u64) << shift;
            best = Some(best.map_or(tick, |b| b.min(tick)));
        }
        best.filter(|tick| *tick <= target)
    }

    /// Distance from slot `start` to the next occupied slot of a level, going round once.
    fn first_occupied(&self, level: usize, start: usize) -> Option<usize> {
        let bits = self.occupied.get(level)?;
        (0..SLOTS).find_map(|i| {
            let slot = (start + i) & (SLOTS - 1);
            let word = bits.get(slot / 64)?;
            (word >> (slot % 64) & 1 == 1).then_some(i)
        })
    }

    /// Opens a slot of a higher level, which begins at `tick`: its rows go where they belong now. Seen from the tick
    /// before, the last row of the slot would seem a whole turn of the level below away, and go back to this slot.
    fn replace(&mut self, rows: &mut impl Links, slot: usize, tick: u64) {
        let mut row = self.heads.get(slot).copied().unwrap_or(NONE);
        self.set_head(slot, NONE);
        while row != NONE {
            let (next, _, _) = rows.links(row);
            rows.set_links(row, NONE, NONE, NONE);
            self.place(rows, row, tick, tick);
            row = next;
        }
    }

    fn set_head(&mut self, slot: usize, row: u32) {
        if let Some(head) = self.heads.get_mut(slot) {
            *head = row;
        }
        let Some(word) = self.occupied.get_mut(slot / SLOTS).and_then(|l| l.get_mut(slot % SLOTS / 64))
        else {
            return;
        };
        let bit = 1u64 << (slot % 64);
        if row == NONE { *word &= !bit } else { *word |= bit }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Rows(Vec<(u32, u32, u32, u64)>);

    impl Links for Rows {
        fn links(&self, row: u32) -> (u32, u32, u32) {
            let r = self.0[row as usize];
            (r.0, r.1, r.2)
        }
        fn set_links(&mut self, row: u32, next: u32, previous: u32, slot: u32) {
            let r = &mut self.0[row as usize];
            (r.0, r.1, r.2) = (next, previous, slot);
        }
        fn deadline_ms(&self, row: u32) -> u64 {
            self.0[row as usize].3
        }
    }

    #[test]
    fn the_last_row_of_a_slot_is_as_punctual_as_the_first() {
        let edges =
            [255, 256, 257, 511, 512, 767, 937, 65_535, 65_536, 65_791, 131_071, 16_777_215, 16_777_471];
        for (start, tick) in [0, 1, 254, 255, 256, 1000].into_iter().flat_map(|s| edges.map(|e| (s, e))) {
            if tick <= start {
                continue;
            }
            let mut rows = Rows(vec![(NONE, NONE, NONE, tick * TICK_MS)]);
            let mut wheel = Wheel::starting_at(start * TICK_MS);
            wheel.arm(&mut rows, 0);
            for early in [tick / 2, tick - 1] {
                assert!(wheel.due(&mut rows, early * TICK_MS, 9).is_empty(), "{tick} from {start}: early");
            }
            assert_eq!(wheel.due(&mut rows, tick * TICK_MS, 9), [0], "{tick} from {start}: late");
        }
    }

    proptest! {
        /// Whatever is armed, disarmed and however time jumps: each armed row fires once, never early, and at most
        /// one tick late.
        #[test]
        fn rows_fire_once_and_on_time(
            deadlines in prop::collection::vec(0u64..20_000_000_000, 1..60),
            disarmed in prop::collection::vec(any::<bool>(), 60),
            steps in prop::collection::vec(1u64..900_000_000, 1..60),
            max in 1usize..5,
        ) {
            let mut rows = Rows::default();
            let mut wheel = Wheel::default();
            for (i, deadline) in deadlines.iter().enumerate() {
                rows.0.push((NONE, NONE, NONE, *deadline));
                wheel.arm(&mut rows, i as u32);
            }
            let mut left: Vec<usize> = (0..deadlines.len()).filter(|i| !disarmed[*i]).collect();
            for i in (0..deadlines.len()).filter(|i| disarmed[*i]) {
                wheel.disarm(&mut rows, i as u32);
            }
            let mut now = 0;
            for step in steps.into_iter().chain([20_000_000_000]) {
                now += step;
                let mut fired = Vec::new();
                loop {
                    let some = wheel.due(&mut rows, now, max);
                    if some.is_empty() { break }
                    fired.extend(some);
                }
                for row in fired {
                    prop_assert!(deadlines[row as usize] <= now, "early");
                    let before = left.len();
                    left.retain(|l| *l != row as usize);
                    prop_assert_eq!(before, left.len() + 1, "fired twice or after it was disarmed");
                }
                for l in &left {
                    prop_assert!(deadlines[*l].div_ceil(TICK_MS).max(1) > now / TICK_MS, "late");
                }
                if let Some(next) = wheel.next_due_ms() {
                    prop_assert!(left.iter().all(|l| deadlines[*l] + TICK_MS > next || next <= now + TICK_MS), "slept too long");
                }
            }
            prop_assert!(left.is_empty());
        }
    }
}
