//! One address: its connection, and how connecting to it went so far.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;
use crate::clock::random_seed;
use crate::core::backoff::{Backoff, BackoffPolicy};
use crate::error::RequestError;

/// A connection that lived shorter than this counts as a failed attempt, in milliseconds: a peer that accepts and hangs
/// up at once must not be called in a tight loop.
const SHORT_LIFE_MS: u64 = 1_000;

/// One address and its connection.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: Arc<str>,
    current: Mutex<Option<Arc<Connection>>>,
    /// Held by whoever connects: there is one attempt at a time.
    pub(super) attempts: Arc<tokio::sync::Mutex<Attempts>>,
}

impl Endpoint {
    /// An address that nobody has connected to.
    pub(super) fn new(address: &Arc<str>, reconnect: BackoffPolicy) -> Self {
        Self {
            address: Arc::clone(address),
            current: Mutex::new(None),
            attempts: Arc::new(tokio::sync::Mutex::new(Attempts::new(reconnect))),
        }
    }

    /// Its connection, if it has an open one.
    pub(super) fn open_connection(&self) -> Option<Arc<Connection>> {
        self.current().as_ref().filter(|connection| connection.is_open()).cloned()
    }

    /// From now on everybody uses `connection`.
    pub(super) fn put(&self, connection: &Arc<Connection>) {
        *self.current() = Some(Arc::clone(connection));
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often and when connecting failed.
#[derive(Debug)]
pub(super) struct Attempts {
    backoff: Backoff,
    opened: Option<Instant>,
    /// Attempts that failed since the last that did not.
    failed: u32,
    pub(super) not_before: Instant,
    pub(super) last_error: Option<RequestError>,
    /// The peer seemed to read binary headers and does not.
    pub(super) json_only: bool,
}

impl Attempts {
    fn new(reconnect: BackoffPolicy) -> Self {
        Self {
            backoff: Backoff::new(reconnect, random_seed()),
            opened: None,
            failed: 0,
            not_before: Instant::now(),
            last_error: None,
            json_only: false,
        }
    }

    /// Judges the connection before: one that lived a while forgives earlier failures, a short one is a failure.
    pub(super) fn note_short_life(&mut self) {
        let Some(opened) = self.opened.take() else { return };
        if opened.elapsed() >= Duration::from_millis(SHORT_LIFE_MS) {
            self.backoff.reset();
            self.not_before = Instant::now();
        } else {
            self.not_before = Instant::now() + Duration::from_millis(self.backoff.next_delay_ms());
        }
        self.last_error = None;
    }

    /// A connection was made.
    pub(super) fn succeeded(&mut self, address: &str) {
        self.opened = Some(Instant::now());
        match std::mem::take(&mut self.failed) {
            0 => tracing::debug!(address, "connected"),
            failed => tracing::info!(address, failed, "connected again"),
        }
    }

    /// An attempt failed; the next one has to wait. A peer that stays away is spoken of with the first failure and then
    /// twice as seldom each time.
    pub(super) fn failed(&mut self, address: &str, error: &RequestError) {
        let delay_ms = self.backoff.next_delay_ms();
        self.not_before = Instant::now() + Duration::from_millis(delay_ms);
        self.last_error = Some(error.clone());
        self.failed = self.failed.saturating_add(1);
        let failed = self.failed;
        if failed.is_power_of_two() {
            tracing::warn!(address, %error, failed, delay_ms, "not connected");
        } else {
            tracing::debug!(address, %error, failed, delay_ms, "not connected");
        }
    }
}
