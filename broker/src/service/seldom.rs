//! Log lines that clients can cause as often as they like, said at most so often.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Shortest time between two lines of one kind.
const EVERY: Duration = Duration::from_secs(10);

/// One kind of line.
#[derive(Debug)]
pub(crate) struct Seldom(Mutex<Said>);

#[derive(Debug)]
struct Said {
    last: Option<Instant>,
    kept_back: u64,
}

impl Seldom {
    /// Not said yet.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Said { last: None, kept_back: 0 }))
    }

    /// `Some` if the line may be said now, with the number of those that were kept back since the last one.
    pub(crate) fn may_say(&self) -> Option<u64> {
        self.may_say_at(Instant::now())
    }

    fn may_say_at(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            said.kept_back += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
