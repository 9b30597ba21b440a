//! The system's clock behind the seam that everything else reads time through.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use mezzo_protocol::time::{Clock, Timestamp};

/// When this process first asked for the time.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
static STEADY: SteadyTime = SteadyTime::new();

/// Time that never goes back, made of a wall clock that may and of the time that a process has been running.
#[derive(Debug, Default)]
pub struct SteadyTime {
    /// The furthest that the wall clock has been ahead of the running time, in milliseconds.
    ahead_ms: AtomicU64,
}

impl SteadyTime {
    /// Of a process that has not looked at a clock yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { ahead_ms: AtomicU64::new(0) }
    }

    /// The time, when the wall clock shows `wall_ms` and `running_ms` have passed since the start.
    pub fn at(&self, wall_ms: u64, running_ms: u64) -> Timestamp {
        let ahead = wall_ms.saturating_sub(running_ms);
        let furthest = self.ahead_ms.fetch_max(ahead, Ordering::Relaxed).max(ahead);
        Timestamp::from_ms(running_ms.saturating_add(furthest))
    }
}

/// Wall-clock time of this machine, except that it never goes back: when the wall clock is set back, it runs on from
/// where it was, at its usual pace. Deadlines, held pulls and queue locks would otherwise stand still until the wall
/// clock has caught up; the log's own time, which is monotone too, would not move for as long.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let whole_ms = |since: std::time::Duration| u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let running_ms = whole_ms(BEGUN.elapsed());
        // a clock before 1970 reads as the epoch
        let wall_ms = whole_ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        STEADY.at(wall_ms, running_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_is_set_back_does_not_stop_time_and_one_that_is_set_forward_moves_it() {
        let steady = SteadyTime::new();
        let times: Vec<u64> = [
            (1_000_000, 0),
            (1_000_010, 10),
            (400_020, 20),
            (400_120, 120),
            (2_000_000, 130),
            (2_000_005, 135),
        ]
        .map(|(wall_ms, running_ms)| steady.at(wall_ms, running_ms).as_ms())
        .to_vec();
        assert_eq!(times, [1_000_000, 1_000_010, 1_000_020, 1_000_120, 2_000_000, 2_000_005]);
    }
}
