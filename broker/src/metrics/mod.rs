//! Every number that the broker counts by itself. What the log does is counted by the store, what is open is read from
//! it; `catalogue` names all of them once for `/metrics` and for `docs/metrics.md`, `exposition` writes them.
//!
//! A counter is one relaxed addition. What counts at each message or each turn has a lane per reactor, so that no two
//! cores write to one cache line.

pub(crate) mod catalogue;
mod exposition;
mod refusals;

pub use catalogue::documentation;
pub(crate) use exposition::{CONTENT_TYPE, Exposition};
pub(crate) use refusals::Refusals;

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

/// What the connections of one reactor count at each turn; on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Lane {
    /// Bytes read from clients.
    pub(crate) bytes_read: Counter,
    /// Bytes written to clients.
    pub(crate) bytes_written: Counter,
    /// Messages that answers to pulls carried.
    pub(crate) messages_out: Counter,
    /// Their bytes.
    pub(crate) message_bytes_out: Counter,
}

/// Request codes that are remembered as already reported; beyond, nothing more is logged.
const UNSUPPORTED_CODES_MAX: usize = 256;

/// All counters of one broker, since it started.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Connections accepted.
    pub(crate) connections_accepted: Counter,
    /// Accepted connections that have ended.
    pub(crate) connections_ended: Counter,
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
    /// Requests refused because their connection has `limits.held_pulls_per_connection` of them waiting.
    pub(crate) held_by_connection: Counter,
    /// Pulls answered as empty because `limits.held_pulls` wait.
    pub(crate) held_by_broker: Counter,
    /// Requests answered with REQUEST_CODE_NOT_SUPPORTED.
    pub(crate) unsupported_requests: Counter,
    /// Requests refused, by response code.
    pub(crate) refusals: Refusals,
    /// Asks about transactions that were handed to a connection.
    pub(crate) asks_sent: Counter,
    /// Asks that were answered by a decision.
    pub(crate) asks_decided: Counter,
    /// Asks that were answered by UNKNOWN.
    pub(crate) asks_unknown: Counter,
    /// Asks that counted though nobody answered them.
    pub(crate) asks_unanswered: Counter,
    /// Sends that were answered as a first one was, and not stored again.
    pub(crate) sends_deduplicated: Counter,
    lanes: Box<[Lane]>,
    unsupported_codes: Mutex<Vec<i32>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Metrics {
    /// Nothing counted yet, for this many reactors.
    pub(crate) fn new(reactors: usize) -> Self {
        Self {
            connections_accepted: Counter::default(),
            connections_ended: Counter::default(),
            connections_refused: Counter::default(),
            slow_clients_closed: Counter::default(),
            malformed_frames: Counter::default(),
            slow_frames_closed: Counter::default(),
            requests_shed: Counter::default(),
            pushes_dropped: Counter::default(),
            held_by_connection: Counter::default(),
            held_by_broker: Counter::default(),
            unsupported_requests: Counter::default(),
            refusals: Refusals::default(),
            asks_sent: Counter::default(),
            asks_decided: Counter::default(),
            asks_unknown: Counter::default(),
            asks_unanswered: Counter::default(),
            sends_deduplicated: Counter::default(),
            lanes: (0..reactors.max(1)).map(|_| Lane::default()).collect(),
            unsupported_codes: Mutex::default(),
        }
    }

    /// The lane of the reactor that this connection was given to: they take turns.
    pub(crate) fn lane(&self, connection: u64) -> &Lane {
        let turn = usize::try_from(connection).unwrap_or_default() % self.lanes.len();
        // a remainder of the length
        &self.lanes[turn]
    }

    /// One number of all lanes.
    pub(crate) fn over_lanes(&self, counter: impl Fn(&Lane) -> &Counter) -> u64 {
        self.lanes.iter().map(|lane| counter(lane).value()).sum()
    }

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
            asks_sent = self.asks_sent.value(),
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

    #[test]
    fn reactors_count_on_lanes_of_their_own_and_the_sum_is_told() {
        let metrics = Metrics::new(2);
        for connection in 0..5 {
            metrics.lane(connection).bytes_read.add(10);
        }
        assert_eq!(metrics.lane(0).bytes_read.value(), 30);
        assert_eq!(metrics.lane(1).bytes_read.value(), 20);
        assert_eq!(metrics.over_lanes(|lane| &lane.bytes_read), 50);
        assert!(align_of::<Lane>() >= 128, "two lanes never share a cache line");
    }
}
