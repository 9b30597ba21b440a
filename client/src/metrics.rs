//! What an application can count and time: one trait with a method for each thing that happens, called where it happens.

use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::ids::{MessageQueue, TopicName};
use mezzo_protocol::remoting::{RequestCode, ResponseCode};

use crate::consumer::Verdict;
use crate::error::RequestError;

mod contained;

/// Receives what a client does, to be turned into counters, gauges and histograms of whatever kind the application uses.
/// Set it with [`ClientBuilder::metrics`](crate::ClientBuilder::metrics); without it nothing is measured.
///
/// Every method does nothing unless it is overridden. They are called outside of the client's locks, but on its hot
/// paths and on the runtime's threads: they must not block and should not allocate. A panic in one of them is logged, the
/// first time, and has no other effect.
///
/// `address` is `host:port` of a broker or a name server. Requests in flight are those of
/// [`requested`](Self::requested) less those of [`ended`](Self::ended).
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
///
/// use mezzo_client::metrics::{Metrics, RequestEnd, RequestOutcome};
/// use mezzo_client::{Client, RequestCode};
///
/// #[derive(Default)]
/// struct Counters {
///     in_flight: AtomicI64,
///     timed_out: AtomicU64,
///     slowest_us: AtomicU64,
/// }
///
/// impl Metrics for Counters {
///     fn requested(&self, _address: &str, _code: RequestCode, count: usize) {
///         self.in_flight.fetch_add(count as i64, Relaxed);
///     }
///
///     fn ended(&self, end: &RequestEnd<'_>) {
///         self.in_flight.fetch_sub(1, Relaxed);
///         match end.outcome {
///             RequestOutcome::TimedOut => drop(self.timed_out.fetch_add(1, Relaxed)),
///             _ => drop(self.slowest_us.fetch_max(end.took.as_micros() as u64, Relaxed)),
///         }
///     }
/// }
///
/// # async fn example() -> Result<(), mezzo_client::Error> {
/// let counters = Arc::new(Counters::default());
/// let client = Client::builder("127.0.0.1:9876").metrics(Arc::clone(&counters)).build().await?;
/// println!("{} requests in flight", counters.in_flight.load(Relaxed));
/// # Ok(())
/// # }
/// ```
pub trait Metrics: Send + Sync + 'static {
    /// A connection was made.
    fn connected(&self, address: &str, took: Duration) {
        let _ = (address, took);
    }

    /// An attempt to connect failed.
    fn not_connected(&self, address: &str, error: &RequestError) {
        let _ = (address, error);
    }

    /// A connection ended, by the peer's doing or ours.
    fn disconnected(&self, address: &str, reason: &str) {
        let _ = (address, reason);
    }

    /// So many bytes were written with one write.
    fn bytes_written(&self, address: &str, bytes: usize) {
        let _ = (address, bytes);
    }

    /// So many bytes came with one read.
    fn bytes_read(&self, address: &str, bytes: usize) {
        let _ = (address, bytes);
    }

    /// So many requests that want an answer were handed to a connection. For each of them [`ended`](Self::ended) follows,
    /// once.
    fn requested(&self, address: &str, code: RequestCode, count: usize) {
        let _ = (address, code, count);
    }

    /// A request got its answer, or will get none.
    fn ended(&self, end: &RequestEnd<'_>) {
        let _ = end;
    }

    /// A request that wants no answer was handed to a connection.
    fn sent_oneway(&self, address: &str, code: RequestCode) {
        let _ = (address, code);
    }

    /// An attempt to send failed, and there will be another. For a pipelined run it is called once for each broker that
    /// failed.
    fn retried(&self, topic: &TopicName, error: &RequestError) {
        let _ = (topic, error);
    }

    /// A pull brought so many messages, with so many bytes altogether, into a consumer's prefetch.
    fn prefetched(&self, queue: &MessageQueue, messages: usize, bytes: usize) {
        let _ = (queue, messages, bytes);
    }

    /// A handler said this about a message. A panic and a handler that took too long count as [`Verdict::Retry`].
    fn handled(&self, queue: &MessageQueue, verdict: Verdict, took: Duration) {
        let _ = (queue, verdict, took);
    }
}

/// Shared metrics are metrics: the application keeps one handle and gives the client the other.
impl<M: Metrics + ?Sized> Metrics for Arc<M> {
    fn connected(&self, address: &str, took: Duration) {
        (**self).connected(address, took);
    }
    fn not_connected(&self, address: &str, error: &RequestError) {
        (**self).not_connected(address, error);
    }
    fn disconnected(&self, address: &str, reason: &str) {
        (**self).disconnected(address, reason);
    }
    fn bytes_written(&self, address: &str, bytes: usize) {
        (**self).bytes_written(address, bytes);
    }
    fn bytes_read(&self, address: &str, bytes: usize) {
        (**self).bytes_read(address, bytes);
    }
    fn requested(&self, address: &str, code: RequestCode, count: usize) {
        (**self).requested(address, code, count);
    }
    fn ended(&self, end: &RequestEnd<'_>) {
        (**self).ended(end);
    }
    fn sent_oneway(&self, address: &str, code: RequestCode) {
        (**self).sent_oneway(address, code);
    }
    fn retried(&self, topic: &TopicName, error: &RequestError) {
        (**self).retried(topic, error);
    }
    fn prefetched(&self, queue: &MessageQueue, messages: usize, bytes: usize) {
        (**self).prefetched(queue, messages, bytes);
    }
    fn handled(&self, queue: &MessageQueue, verdict: Verdict, took: Duration) {
        (**self).handled(queue, verdict, took);
    }
}

/// The end of one request.
///
/// ```
/// use mezzo_client::metrics::RequestEnd;
///
/// fn label(end: &RequestEnd<'_>) -> String {
///     format!("{} {} {:?} in {} us", end.address, end.code.0, end.outcome, end.took.as_micros())
/// }
/// # let _: fn(&RequestEnd<'_>) -> String = label;
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RequestEnd<'a> {
    /// Whom it was sent to.
    pub address: &'a str,
    /// What was asked.
    pub code: RequestCode,
    /// How it ended.
    pub outcome: RequestOutcome,
    /// Time from when it was handed to the connection.
    pub took: Duration,
}

/// How a request ended.
///
/// ```
/// use mezzo_client::ResponseCode;
/// use mezzo_client::metrics::RequestOutcome;
///
/// fn went_well(outcome: RequestOutcome) -> bool {
///     matches!(outcome, RequestOutcome::Answered(code) if code == ResponseCode::SUCCESS)
/// }
/// assert!(went_well(RequestOutcome::Answered(ResponseCode::SUCCESS)));
/// assert!(!went_well(RequestOutcome::TimedOut));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestOutcome {
    /// With an answer with this code; refusals are answers too.
    Answered(ResponseCode),
    /// With an answer that cannot be read.
    Unreadable,
    /// Without an answer in its time.
    TimedOut,
    /// Without an answer: the connection ended before.
    Lost,
    /// Nobody wants the answer any more, because whoever waited for it was dropped; or the connection had no room for the
    /// request after all.
    GivenUp,
}

/// The installed metrics, if any; made by [`install`].
pub(crate) type Installed = Option<Arc<dyn Metrics>>;

/// Takes the application's metrics into use, so that a panic in them ends there.
pub(crate) fn install(metrics: impl Metrics) -> Installed {
    Some(Arc::new(contained::Contained::new(metrics)))
}
