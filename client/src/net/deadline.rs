//! A point in time by which something has to be over, together with the time that was given, for error messages.

use std::time::Duration;

use tokio::time::Instant;

/// When to give up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    started: Instant,
    at: Instant,
}

impl Deadline {
    /// `ms` milliseconds from now.
    pub(crate) fn after_ms(ms: u64) -> Self {
        let started = Instant::now();
        Self { started, at: later(started, ms) }
    }

    /// This deadline or `ms` milliseconds from now, whichever is first.
    pub(crate) fn but_at_most_ms(self, ms: u64) -> Self {
        let now = Instant::now();
        Self { started: now, at: self.at.min(later(now, ms)) }
    }

    /// This deadline or an equal share of the time that is left, if it has to do for `parts` attempts.
    pub(crate) fn share(self, parts: usize) -> Self {
        let started = Instant::now();
        let left = self.at.saturating_duration_since(started);
        let share = left / u32::try_from(parts.max(1)).unwrap_or(u32::MAX);
        Self { started, at: self.at.min(started + share) }
    }

    /// When it was set.
    pub(crate) const fn started(self) -> Instant {
        self.started
    }

    /// When it is over.
    pub(crate) const fn at(self) -> Instant {
        self.at
    }

    /// Whether it is over.
    pub(crate) fn is_over(self) -> bool {
        Instant::now() >= self.at
    }

    /// Milliseconds since it was set.
    pub(crate) fn waited_ms(self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// `ms` milliseconds after `from`; a time beyond what the clock can express becomes a year.
fn later(from: Instant, ms: u64) -> Instant {
    from.checked_add(Duration::from_millis(ms)).unwrap_or_else(|| from + Duration::from_secs(365 * 86_400))
}
