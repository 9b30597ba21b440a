//! Leader time: the one notion of time that everything in the store is compared in. Frames carry it, so a restart goes
//! on from it, and it never goes back. Callers bring the time of their wall clock, which may: leader time then runs
//! ahead of it by a constant distance, at the wall clock's pace, and deadlines come in order and after as long as they
//! should. Pure: the time is an argument.

use mezzo_protocol::time::Timestamp;

/// A step back up to this long is no step but callers that have waited for the append lock, or a clock being adjusted:
/// time stands still for as long.
const STEP_BACK_MIN_MS: u64 = 5_000;
/// While the wall clock is behind, leader time moves on by at most this much between two readings (housekeeping reads
/// it every second): a wall clock that is put right again does not carry it along.
const STEP_FORWARD_MAX_MS: u64 = 60_000;
/// Time that moves on by this much between two readings was set, not waited for.
const LEAP_MS: u64 = 24 * 3_600_000;

/// What leader time is, and how it is related to the wall clock.
#[derive(Debug)]
pub(crate) struct LeaderClock {
    leader_ms: u64,
    /// The wall clock at the last reading; at the one before a small step back.
    wall_ms: u64,
    leap: Leap,
}

#[derive(Debug, Clone, Copy)]
enum Leap {
    None,
    Seen(u64),
    Told,
}

impl LeaderClock {
    /// Goes on from `leader`, the time of the log's last frame, when the wall clock shows `wall`.
    pub(crate) fn starting_at(leader: Timestamp, wall: Timestamp) -> Self {
        let (leader_ms, wall_ms) = (leader.max(wall).as_ms(), wall.as_ms());
        let wall_ms = if leader_ms - wall_ms <= STEP_BACK_MIN_MS { leader_ms } else { wall_ms };
        Self { leader_ms, wall_ms, leap: Leap::None }
    }

    /// Leader time, now that the wall clock shows `wall`.
    pub(crate) fn advance(&mut self, wall: Timestamp) -> Timestamp {
        let wall_ms = wall.as_ms();
        if wall_ms < self.wall_ms && self.wall_ms - wall_ms <= STEP_BACK_MIN_MS {
            return self.now();
        }
        let elapsed = wall_ms.saturating_sub(self.wall_ms);
        self.wall_ms = wall_ms;
        let leader_ms = self.leader_ms.saturating_add(elapsed.min(STEP_FORWARD_MAX_MS)).max(wall_ms);
        let by = leader_ms - self.leader_ms;
        if by >= LEAP_MS && matches!(self.leap, Leap::None) {
            self.leap = Leap::Seen(by);
        }
        self.leader_ms = leader_ms;
        self.now()
    }

    /// Leader time at the last reading.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.leader_ms)
    }

    /// By how much leader time is ahead of the wall clock, in milliseconds.
    pub(crate) fn ahead_ms(&self) -> u64 {
        self.leader_ms.saturating_sub(self.wall_ms)
    }

    /// The leader time at which the wall clock will show `wall`.
    pub(crate) fn of_wall(&self, wall: Timestamp) -> Timestamp {
        wall.saturating_add_ms(self.ahead_ms())
    }

    /// What the wall clock will show at leader time `leader`.
    pub(crate) fn to_wall(&self, leader: Timestamp) -> Timestamp {
        leader.saturating_sub_ms(self.ahead_ms())
    }

    /// The first leap forward by a day or more, in milliseconds; told once.
    pub(crate) fn take_leap(&mut self) -> Option<u64> {
        let Leap::Seen(by) = self.leap else { return None };
        self.leap = Leap::Told;
        Some(by)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn a_wall_clock_set_back_leaves_leader_time_running_at_its_pace() {
        let mut clock = LeaderClock::starting_at(at(0), at(10 * HOUR));
        assert_eq!(clock.advance(at(9 * HOUR)), at(10 * HOUR));
        assert_eq!(clock.advance(at(9 * HOUR + 7)), at(10 * HOUR + 7));
        assert_eq!(clock.of_wall(at(9 * HOUR + 10)), at(10 * HOUR + 10));
        assert_eq!(clock.to_wall(at(10 * HOUR + 10)), at(9 * HOUR + 10));
        // put right again: no second hour is added
        assert_eq!(clock.advance(at(10 * HOUR + 7)), at(10 * HOUR + 7 + STEP_FORWARD_MAX_MS));
    }

    #[test]
    fn callers_that_come_late_do_not_drive_leader_time_ahead() {
        let mut clock = LeaderClock::starting_at(at(0), at(HOUR));
        for i in 0..1000 {
            clock.advance(at(HOUR + i * 10));
            clock.advance(at(HOUR + i * 10 - 3));
        }
        assert_eq!(clock.ahead_ms(), 0);
    }

    #[test]
    fn a_leap_is_told_once() {
        let mut clock = LeaderClock::starting_at(at(0), at(HOUR));
        clock.advance(at(2 * HOUR));
        assert_eq!(clock.take_leap(), None);
        clock.advance(at(1000 * HOUR));
        assert_eq!(clock.take_leap(), Some(998 * HOUR));
        clock.advance(at(9000 * HOUR));
        assert_eq!(clock.take_leap(), None);
    }

    proptest! {
        #[test]
        fn leader_time_never_falls_and_is_never_behind_by_more_than_a_late_caller(
            first in 0u64..10 * HOUR,
            walls in prop::collection::vec(0u64..20 * HOUR, 1..50),
        ) {
            let mut clock = LeaderClock::starting_at(at(first), at(5 * HOUR));
            for wall in walls {
                let before = clock.now();
                let now = clock.advance(at(wall));
                prop_assert!(now >= before && now >= at(wall));
            }
        }
    }
}
