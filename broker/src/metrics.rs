//! Every number the broker counts, named once.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Request codes that are remembered as already reported; beyond, nothing more is logged.
const UNSUPPORTED_CODES_MAX: usize = 256;

/// All counters of one broker, since it started.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Connections accepted.
    pub(crate) connections_accepted: Counter,
    /// Connections closed at once because `limits.connections` were open.
    pub(crate) connections_refused: Counter,
    /// Connections closed because the client did not read its answers.
    pub(crate) slow_clients_closed: Counter,
    /// Connections closed because what arrived was no remoting frame.
    pub(crate) malformed_frames: Counter,
    /// Connections closed because a request began and did not arrive in full in time.
    pub(crate) slow_frames_closed: Counter,
    /// Requests refused as busy because `limits.in_flight_bytes` were under way.
    pub(crate) requests_shed: Counter,
    /// One-way requests to clients (39, 40) dropped because their connection's queue was full.
    pub(crate) pushes_dropped: Counter,
    /// Requests answered with REQUEST_CODE_NOT_SUPPORTED.
    pub(crate) unsupported_requests: Counter,
    /// Transactions that became IN_DOUBT.
    pub(crate) transactions_parked: Counter,
    /// Transactions rolled back by their check-back policy.
    pub(crate) transactions_rolled_back_by_policy: Counter,
    /// Sends that were answered as a first one was, and not stored again.
    pub(crate) sends_deduplicated: Counter,
    unsupported_codes: Mutex<Vec<i32>>,
}

impl Metrics {
    /// Writes what was counted to the log, once, when the broker stops.
    pub(crate) fn log(&self) {
        tracing::info!(
            connections_accepted = self.connections_accepted.value(),
            connections_refused = self.connections_refused.value(),
            slow_clients_closed = self.slow_clients_closed.value(),
            malformed_frames = self.malformed_frames.value(),
            slow_frames_closed = self.slow_frames_closed.value(),
            requests_shed = self.requests_shed.value(),
            pushes_dropped = self.pushes_dropped.value(),
            unsupported_requests = self.unsupported_requests.value(),
            transactions_parked = self.transactions_parked.value(),
            transactions_rolled_back_by_policy = self.transactions_rolled_back_by_policy.value(),
            sends_deduplicated = self.sends_deduplicated.value(),
            "counted since the start"
        );
    }

    /// Counts a request whose code is not served; true the first time this code is seen.
    pub(crate) fn first_unsupported(&self, code: i32) -> bool {
        self.unsupported_requests.add(1);
        let mut seen = self.unsupported_codes.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !seen.contains(&code) && seen.len() < UNSUPPORTED_CODES_MAX;
        if first {
            seen.push(code);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_code_is_reported_once() {
        let metrics = Metrics::default();
        assert!(metrics.first_unsupported(9999));
        assert!(!metrics.first_unsupported(9999));
        assert!(metrics.first_unsupported(9998));
        assert_eq!(metrics.unsupported_requests.value(), 3);
    }

    #[test]
    fn reported_codes_are_bounded() {
        let metrics = Metrics::default();
        for code in 0..10_000 {
            metrics.first_unsupported(code);
        }
        assert_eq!(metrics.unsupported_codes.lock().unwrap().len(), UNSUPPORTED_CODES_MAX);
    }
}
