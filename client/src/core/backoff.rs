//! Waiting times between attempts: doubling, bounded, and spread so that many clients do not return at one instant.

/// Longest waiting time that a policy can ask for, in milliseconds: a year. More is more than clocks can express.
const DELAY_MS_MAX: u64 = 365 * 86_400_000;

/// First and longest waiting time; more than a year counts as a year.
///
/// ```
/// use mezzo_client::config::{BackoffPolicy, ClientConfig};
///
/// // 50 ms, 100 ms, 200 ms and so on to 5 s, each spread over its second half.
/// let config = ClientConfig::default().reconnect(BackoffPolicy::new(50, 5_000));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// Waiting time after the first failure, in milliseconds.
    pub first_ms: u64,
    /// Longest waiting time, in milliseconds.
    pub max_ms: u64,
}

impl BackoffPolicy {
    /// A policy that starts at `first_ms` and doubles up to `max_ms`.
    #[must_use]
    pub const fn new(first_ms: u64, max_ms: u64) -> Self {
        Self { first_ms, max_ms }
    }
}

/// Counts failures in a row and says how long to wait after each.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    policy: BackoffPolicy,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// A fresh count. `seed` spreads the waits; equal seeds give equal waits.
    pub(crate) const fn new(policy: BackoffPolicy, seed: u64) -> Self {
        // xorshift has one fixed point, zero, which must not be its state.
        Self { policy, failures: 0, random: seed | 1 }
    }

    /// Counts a failure and returns how long to wait, in milliseconds: between half of the doubled time and all of it.
    pub(crate) fn next_delay_ms(&mut self) -> u64 {
        let doublings = self.failures.min(32);
        self.failures = self.failures.saturating_add(1);
        let full =
            self.policy.first_ms.saturating_mul(1 << doublings).min(self.policy.max_ms).min(DELAY_MS_MAX);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let half = full / 2;
        full - half + self.random % (half + 1)
    }

    /// Forgets the failures: something worked.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row so far.
    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_stay_within_half_of_it() {
        let mut backoff = Backoff::new(BackoffPolicy::new(100, 1_000), 42);
        for full in [100, 200, 400, 800, 1_000, 1_000] {
            let delay = backoff.next_delay_ms();
            assert!((full / 2..=full).contains(&delay), "{delay} of {full}");
        }
        assert_eq!(backoff.failures(), 6);
        backoff.reset();
        assert!(backoff.next_delay_ms() <= 100);
    }

    #[test]
    fn a_long_row_of_failures_does_not_overflow() {
        let mut backoff = Backoff::new(BackoffPolicy::new(u64::MAX / 2, u64::MAX), 0);
        for _ in 0..100 {
            let delay_ms = backoff.next_delay_ms();
            assert!((1..=DELAY_MS_MAX).contains(&delay_ms), "{delay_ms} ms from now is no time");
        }
    }

    #[test]
    fn different_seeds_spread_the_waits() {
        let delays: std::collections::BTreeSet<u64> = (0..50)
            .map(|seed| Backoff::new(BackoffPolicy::new(10_000, 10_000), seed * 7919).next_delay_ms())
            .collect();
        assert!(delays.len() > 20, "{delays:?}");
    }
}
