//! Metrics that may panic: a counter behind a poisoned lock panics at every call, and must cost neither a message, nor a
//! worker, nor (called while another panic unwinds) the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mezzo_protocol::ids::{MessageQueue, TopicName};
use mezzo_protocol::remoting::RequestCode;

use super::{Metrics, RequestEnd};
use crate::consumer::Verdict;
use crate::error::RequestError;

/// The application's metrics, with every panic ended here.
pub(super) struct Contained<M> {
    metrics: M,
    /// The first panic is told; a metric that is broken would else be told of with every request.
    told: AtomicBool,
}

impl<M: Metrics> Contained<M> {
    /// Contains `metrics`.
    pub(super) const fn new(metrics: M) -> Self {
        Self { metrics, told: AtomicBool::new(false) }
    }

    fn call(&self, what: impl FnOnce(&M)) {
        let called = catch_unwind(AssertUnwindSafe(|| what(&self.metrics)));
        if called.is_err() && !self.told.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "the application's metrics panicked; what they would have counted is missing from now on"
            );
        }
    }
}

impl<M: Metrics> Metrics for Contained<M> {
    fn connected(&self, address: &str, took: Duration) {
        self.call(|metrics| metrics.connected(address, took));
    }
    fn not_connected(&self, address: &str, error: &RequestError) {
        self.call(|metrics| metrics.not_connected(address, error));
    }
    fn disconnected(&self, address: &str, reason: &str) {
        self.call(|metrics| metrics.disconnected(address, reason));
    }
    fn bytes_written(&self, address: &str, bytes: usize) {
        self.call(|metrics| metrics.bytes_written(address, bytes));
    }
    fn bytes_read(&self, address: &str, bytes: usize) {
        self.call(|metrics| metrics.bytes_read(address, bytes));
    }
    fn requested(&self, address: &str, code: RequestCode, count: usize) {
        self.call(|metrics| metrics.requested(address, code, count));
    }
    fn ended(&self, end: &RequestEnd<'_>) {
        self.call(|metrics| metrics.ended(end));
    }
    fn sent_oneway(&self, address: &str, code: RequestCode) {
        self.call(|metrics| metrics.sent_oneway(address, code));
    }
    fn retried(&self, topic: &TopicName, error: &RequestError) {
        self.call(|metrics| metrics.retried(topic, error));
    }
    fn prefetched(&self, queue: &MessageQueue, messages: usize, bytes: usize) {
        self.call(|metrics| metrics.prefetched(queue, messages, bytes));
    }
    fn handled(&self, queue: &MessageQueue, verdict: Verdict, took: Duration) {
        self.call(|metrics| metrics.handled(queue, verdict, took));
    }
}
