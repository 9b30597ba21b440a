//! What is counted, and when: a window with one beginning and one end for all connections.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in nanoseconds: one minute. Longer ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant digits kept of each latency.
const LATENCY_DIGITS: u8 = 3;

/// The measured part of a run.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// When load begins.
    pub origin: Instant,
    /// When measuring begins.
    pub start: Instant,
    /// When measuring ends, and no more work is begun.
    pub end: Instant,
}

impl Window {
    /// A window that opens `warmup` from `origin` and lasts `duration`.
    #[must_use]
    pub fn new(origin: Instant, warmup: Duration, duration: Duration) -> Self {
        let start = origin + warmup;
        Self { origin, start, end: start + duration }
    }

    /// True for work that ended at `at` and is to be counted.
    #[must_use]
    pub fn holds(&self, at: Instant) -> bool {
        self.start <= at && at < self.end
    }
}

/// What one connection saw.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Nanoseconds per unit of work that ended inside the window.
    pub latency_ns: Histogram<u64>,
    /// Units of work that ended inside the window.
    pub completed: u64,
    /// Answers with a code other than 0, at any time of the run.
    pub errors: u64,
    /// The first such answer, for the person who reads the result.
    pub first_error: Option<String>,
    /// CHECK_TRANSACTION_STATE requests (39) that came in: none in a healthy run.
    pub check_backs: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
            .unwrap_or_else(|_| unreachable!("the bounds are constants that hdrhistogram accepts"));
        Self { latency_ns, completed: 0, errors: 0, first_error: None, check_backs: 0 }
    }
}

impl Tally {
    /// Counts one unit of work that was begun (or due) at `began` and answered at `ended`.
    pub fn complete(&mut self, window: &Window, began: Instant, ended: Instant) {
        if window.holds(ended) {
            self.completed += 1;
            let ns = u64::try_from(ended.saturating_duration_since(began).as_nanos()).unwrap_or(u64::MAX);
            self.latency_ns.saturating_record(ns);
        }
    }

    /// Counts an answer that was a refusal.
    pub fn error(&mut self, what: impl FnOnce() -> String) {
        self.errors += 1;
        self.first_error.get_or_insert_with(what);
    }

    /// Adds what another connection saw.
    pub fn add(&mut self, other: &Self) {
        // cannot fail: every histogram here has the same bounds
        let _ = self.latency_ns.add(&other.latency_ns);
        self.completed += other.completed;
        self.errors += other.errors;
        self.check_backs += other.check_backs;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_work_that_ends_inside_the_window_counts() {
        let origin = Instant::now();
        let window = Window::new(origin, Duration::from_secs(1), Duration::from_secs(2));
        let mut tally = Tally::default();
        for ended_ms in [999, 1000, 2999, 3000] {
            tally.complete(&window, origin, origin + Duration::from_millis(ended_ms));
        }
        assert_eq!(tally.completed, 2);
        assert_eq!(tally.latency_ns.len(), 2);
    }

    #[test]
    fn sums_keep_the_first_error() {
        let mut sum = Tally::default();
        let mut one = Tally::default();
        one.error(|| "busy".to_owned());
        one.error(|| "later".to_owned());
        sum.add(&one);
        assert_eq!((sum.errors, sum.first_error.as_deref()), (2, Some("busy")));
    }
}
