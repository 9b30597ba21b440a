//! Log lines that clients can cause as often as they like, said at most so often.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Time in which one line of a kind is said, or one burst of them.
const EVERY: Duration = Duration::from_secs(10);

/// One kind of line.
#[derive(Debug)]
pub(crate) struct Seldom {
    burst: u32,
    said: Mutex<Said>,
}

#[derive(Debug)]
struct Said {
    /// Begin of the time in which these lines were said.
    since: Option<Instant>,
    lines: u32,
    kept_back: u64,
}

impl Seldom {
    /// Not said yet.
    pub(crate) const fn new() -> Self {
        Self::with_burst(1)
    }

    /// Not said yet; this many lines may be said close to each other.
    pub(crate) const fn with_burst(burst: u32) -> Self {
        Self { burst, said: Mutex::new(Said { since: None, lines: 0, kept_back: 0 }) }
    }

    /// `Some` if the line may be said now, with the number of those that were kept back since the last one.
    pub(crate) fn may_say(&self) -> Option<u64> {
        self.may_say_at(Instant::now())
    }

    fn may_say_at(&self, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.since.is_none_or(|since| now.saturating_duration_since(since) >= EVERY) {
            (said.since, said.lines) = (Some(now), 0);
        }
        if said.lines >= self.burst {
            said.kept_back += 1;
            return None;
        }
        said.lines += 1;
        Some(std::mem::take(&mut said.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_said_and_what_goes_beyond_is_counted() {
        let line = Seldom::with_burst(3);
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(line.may_say_at(start), Some(0));
        }
        assert_eq!(line.may_say_at(start), None);
        assert_eq!(line.may_say_at(start + EVERY), Some(1));
    }

    #[test]
    fn the_first_is_said_at_once_and_the_next_says_how_many_were_not() {
        let line = Seldom::new();
        let start = Instant::now();
        assert_eq!(line.may_say_at(start), Some(0));
        for _ in 0..7 {
            assert_eq!(line.may_say_at(start + EVERY / 2), None);
        }
        assert_eq!(line.may_say_at(start + EVERY), Some(7));
        assert_eq!(line.may_say_at(start + EVERY * 3), Some(0));
    }
}
