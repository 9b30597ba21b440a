//! Requests under the eyes of the application's metrics. Without metrics none of this exists: no clock is read.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mezzo_protocol::remoting::{Frame, HeaderView, RequestCode};
use tokio::time::Instant;

use super::pending::AnswerSink;
use crate::metrics::{Installed, Metrics, RequestEnd, RequestOutcome};

/// What there is to say about every request alike.
struct Begun {
    metrics: Arc<dyn Metrics>,
    address: Arc<str>,
    code: RequestCode,
    at: Instant,
}

impl Begun {
    fn now(metrics: &Installed, address: &Arc<str>, code: RequestCode) -> Option<Self> {
        let metrics = Arc::clone(metrics.as_ref()?);
        Some(Self { metrics, address: Arc::clone(address), code, at: Instant::now() })
    }

    fn count(&self, count: usize) {
        self.metrics.requested(&self.address, self.code, count);
    }

    fn end(&self, outcome: RequestOutcome) {
        let (address, code, took) = (&*self.address, self.code, self.at.elapsed());
        self.metrics.ended(&RequestEnd { address, code, outcome, took });
    }
}

/// One request that wants an answer. Dropped without an end it was given up.
pub(super) struct MeasuredRequest(Option<Begun>);

impl MeasuredRequest {
    /// It was handed to the connection just now.
    pub(super) fn begin(metrics: &Installed, address: &Arc<str>, code: i32) -> Self {
        let begun = Begun::now(metrics, address, RequestCode(code));
        Self(begun.inspect(|begun| begun.count(1)))
    }

    /// Its answer came.
    pub(super) fn answered(&mut self, frame: &Frame) {
        if let Some(begun) = self.0.take() {
            begun.end(match HeaderView::parse(frame) {
                Ok(header) => RequestOutcome::Answered(header.response_code()),
                Err(_) => RequestOutcome::Unreadable,
            });
        }
    }

    /// It ended without an answer.
    pub(super) fn ended(&mut self, outcome: RequestOutcome) {
        if let Some(begun) = self.0.take() {
            begun.end(outcome);
        }
    }
}

impl Drop for MeasuredRequest {
    fn drop(&mut self) {
        self.ended(RequestOutcome::GivenUp);
    }
}

/// The requests of a run: stands before the sink that wants the answers.
pub(super) struct MeasuredRun {
    begun: Begun,
    /// Requests that have not ended.
    open: AtomicUsize,
    sink: Arc<dyn AnswerSink>,
}

impl MeasuredRun {
    /// A run that has not been handed to the connection; `None` without metrics.
    pub(super) fn new(
        metrics: &Installed,
        address: &Arc<str>,
        code: RequestCode,
        sink: &Arc<dyn AnswerSink>,
    ) -> Option<Arc<Self>> {
        let begun = Begun::now(metrics, address, code)?;
        Some(Arc::new(Self { begun, open: AtomicUsize::new(0), sink: Arc::clone(sink) }))
    }

    /// So many requests are handed to the connection now: before, so that no answer is faster.
    pub(super) fn begin(&self, count: usize) {
        self.open.store(count, Ordering::Relaxed);
        self.begun.count(count);
    }

    /// The answers that have not come will not be taken any more.
    pub(super) fn end_rest(&self, outcome: RequestOutcome) {
        for _ in 0..self.open.swap(0, Ordering::Relaxed) {
            self.begun.end(outcome);
        }
    }
}

impl AnswerSink for MeasuredRun {
    fn answer(&self, index: usize, header: &HeaderView<'_>, frame: &Frame) {
        let one_less = |open: usize| open.checked_sub(1);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            self.begun.end(RequestOutcome::Answered(header.response_code()));
        }
        self.sink.answer(index, header, frame);
    }

    fn lost(&self) {
        self.end_rest(RequestOutcome::Lost);
        self.sink.lost();
    }
}

impl fmt::Debug for MeasuredRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeasuredRun").field("open", &self.open).finish_non_exhaustive()
    }
}
