//! Every time, bound and size of the client, with its default. Begin with the default and say what is to differ:
//!
//! ```
//! use mezzo_client::config::ClientConfig;
//!
//! let config = ClientConfig::default().request_timeout_ms(1_000).new_topic_queues(8);
//! assert_eq!((config.request_timeout_ms, config.heartbeat_interval_ms), (1_000, 30_000));
//! ```

use mezzo_protocol::limits;
use mezzo_protocol::time::Timestamp;

use crate::error::Error;

pub use crate::core::backoff::BackoffPolicy;
pub use crate::core::process_queue::PrefetchLimits;
pub use crate::net::HeaderEncoding;

/// Writes a struct of settings: the fields with their defaults, and a method of the same name for each that sets it.
/// The structs may get further fields, so programs begin with the default and change what they want to differ.
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $($(#[$doc:meta])* pub $field:ident: $type:ty = $default:expr,)*
        }
    ) => {
        $(#[$about])*
        #[non_exhaustive]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $name {
            $(
                $(#[$doc])*
                #[must_use]
                pub const fn $field(mut self, value: $type) -> Self {
                    self.$field = value;
                    self
                }
            )*
        }
    };
}

settings! {
    /// Settings of a [`Client`](crate::Client): connections, routes, heartbeats.
    #[derive(Debug, Clone)]
    pub struct ClientConfig {
        /// How the headers of requests are written. Default: as JSON, and in the binary form to brokers that show that
        /// they read it.
        pub header_encoding: HeaderEncoding = HeaderEncoding::Auto,
        /// Longest wait for a connection to be made, in milliseconds. Default: 3,000.
        pub connect_timeout_ms: u64 = 3_000,
        /// Longest wait for the answer to a request that has no time of its own, in milliseconds. Default: 3,000.
        pub request_timeout_ms: u64 = 3_000,
        /// Longest time that one write to a socket may take before the connection is given up, in milliseconds.
        /// Default: 10,000.
        pub write_timeout_ms: u64 = 10_000,
        /// How long a peer may be silent while it owes answers, in milliseconds: once several requests have timed out and
        /// not one byte came for so long, the connection is given up and made again. Default: 3,000.
        pub silence_max_ms: u64 = 3_000,
        /// Time between heartbeats to each broker, in milliseconds; brokers forget a client after 120,000. Default: 30,000.
        pub heartbeat_interval_ms: u64 = 30_000,
        /// Age at which a route is asked for again, in milliseconds. Default: 30,000.
        pub route_refresh_ms: u64 = 30_000,
        /// The same for a topic that is just being created by sending to it, in milliseconds. Default: 1,000.
        pub new_topic_refresh_ms: u64 = 1_000,
        /// Queues of a topic that a broker creates because of our first message. Default: 4.
        pub new_topic_queues: u32 = 4,
        /// Most topics whose routes are held; past it the one unused for longest is forgotten. Default: 4,096.
        pub route_topics_max: usize = 4_096,
        /// Most unanswered requests on one connection; past it a request fails at once. Default: 65,536.
        pub pending_requests_max: usize = 65_536,
        /// Most bytes that wait to be written to one connection; past it senders wait. Default: 8 MiB.
        pub write_buffer_bytes_max: usize = 8 << 20,
        /// Largest frame that is read, in bytes; a larger one ends the connection. Default: 16 MiB.
        pub frame_bytes_max: usize = limits::FRAME_BYTES_MAX,
        /// Most requests of brokers (check-backs, changes of groups) that wait to be looked at; past it they are dropped,
        /// and brokers repeat what matters. Default: 1,024.
        pub inbound_requests_max: usize = 1_024,
        /// Waiting times before a lost connection is made again. Default: 100 ms, doubling to 10 s.
        pub reconnect: BackoffPolicy = BackoffPolicy::new(100, 10_000),
    }
}

settings! {
    /// Settings of a [`Producer`](crate::Producer).
    ///
    /// ```
    /// use mezzo_client::config::{BackoffPolicy, BodyCompression, ProducerConfig};
    ///
    /// let config = ProducerConfig::default()
    ///     .send_timeout_ms(2_000)
    ///     .retries(4)
    ///     .retry_backoff(BackoffPolicy::new(20, 200))
    ///     .compression(BodyCompression::Lz4);
    /// assert_eq!(config.in_flight_max, 4_096);
    /// ```
    #[derive(Debug, Clone)]
    pub struct ProducerConfig {
        /// Longest time of a whole send, retries and waiting for room included, in milliseconds. Default: 6,000.
        pub send_timeout_ms: u64 = 6_000,
        /// Longest wait for the answer to one attempt, in milliseconds. Default: 3,000.
        pub attempt_timeout_ms: u64 = 3_000,
        /// Further attempts after the first, each on another broker or queue if there is one. Default: 2.
        pub retries: u32 = 2,
        /// Whether an attempt with unknown outcome is followed by another. `true` favours delivery (at least once),
        /// `false` favours no duplicates. Halves of transactions and ordered messages are never repeated after an unknown
        /// outcome. Default: true.
        pub retry_unknown: bool = true,
        /// Waiting times before another attempt after a broker refused one (it is busy, mostly). Default: 10 ms, doubling
        /// to 500 ms.
        pub retry_backoff: BackoffPolicy = BackoffPolicy::new(10, 500),
        /// Retries in a burst; later one per ten successful sends. Default: 100.
        pub retry_budget: u32 = 100,
        /// Most sends in flight; past it `send` waits. Default: 4,096.
        pub in_flight_max: usize = 4_096,
        /// Most body bytes in flight; past it `send` waits. Default: 64 MiB.
        pub in_flight_bytes_max: usize = 64 << 20,
        /// Whether single sends wait for others of their topic and travel as one batch. Default: no.
        pub batching: Option<BatchingPolicy> = None,
        /// Bodies of at least so many bytes are compressed. Default: 4,096.
        pub compress_from_bytes: usize = 4_096,
        /// How they are compressed. Default: zlib, which every client reads.
        pub compression: BodyCompression = BodyCompression::Zlib,
        /// Level of zlib and Zstandard, 1 (fast) to 9 (small). Default: 5.
        pub compression_level: u32 = 5,
        /// How long a broker that failed is passed over while there are others, in milliseconds. Default: 5,000.
        pub spare_broker_ms: u64 = 5_000,
        /// Longest wait at shutdown for sends in flight, in milliseconds. Default: 10,000.
        pub drain_timeout_ms: u64 = 10_000,
    }
}

impl ProducerConfig {
    /// From which size on bodies are compressed; `None` if they never are.
    pub(crate) fn compressed_from_bytes(&self) -> Option<usize> {
        (self.compression != BodyCompression::Off).then(|| self.compress_from_bytes.max(1))
    }
}

/// How large bodies are compressed. Consumers learn it from the message and read all of them.
///
/// ```
/// use mezzo_client::config::{BodyCompression, ProducerConfig};
///
/// let config = ProducerConfig::default().compression(BodyCompression::Zstd).compress_from_bytes(1_024);
/// assert_eq!(ProducerConfig::default().compression, BodyCompression::Zlib);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BodyCompression {
    /// Not at all.
    Off,
    /// zlib: every client of every language reads it.
    #[default]
    Zlib,
    /// LZ4: the fastest. Clients before RocketMQ 5 do not read it.
    Lz4,
    /// Zstandard: smaller and faster than zlib. Clients before RocketMQ 5 do not read it.
    Zstd,
}

settings! {
    /// When a batch of single sends is complete; see [`ProducerBuilder::batching`](crate::ProducerBuilder::batching). Messages with a sharding key or a delay travel alone, and so do those whose
    /// body is to be compressed, which batches are not.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct BatchingPolicy {
        /// Longest wait of a message for others, in milliseconds; at most a quarter of the send timeout, which goes on
        /// meanwhile. Default: 5.
        pub linger_ms: u64 = 5,
        /// Most messages of a batch; at most 4,096, and at most as many as may be in flight. Default: 512.
        pub messages_max: usize = 512,
        /// Most bytes of a batch, properties included; at most 4 MiB. Default: 256 KiB.
        pub bytes_max: usize = 256 << 10,
    }
}

settings! {
    /// Settings of a [`TransactionProducer`](crate::TransactionProducer), beside those of its sends.
    ///
    /// ```
    /// use mezzo_client::config::{ProducerConfig, TransactionConfig};
    ///
    /// let halves = ProducerConfig::default().send_timeout_ms(2_000);
    /// let config = TransactionConfig::default().producer(halves).check_back_timeout_ms(5_000);
    /// assert_eq!(config.running_max, 10_000);
    /// ```
    #[derive(Debug, Clone)]
    pub struct TransactionConfig {
        /// How half messages are sent.
        pub producer: ProducerConfig = ProducerConfig::default(),
        /// Longest wait for the broker's answer to a decision, in milliseconds; then the outcome is
        /// [`Unknown`](crate::Outcome::Unknown) and the broker's check-back settles it. Default: 3,000.
        pub end_timeout_ms: u64 = 3_000,
        /// Most transactions whose local part runs at one time; past it `prepare` waits. Default: 10,000.
        pub running_max: usize = 10_000,
        /// Decisions remembered until the broker confirms them, so that a check-back is answered without asking the
        /// handler; past it the oldest is forgotten and the handler is asked. Default: 4,096.
        pub unconfirmed_max: usize = 4_096,
        /// Most check-backs that are being answered at one time. Default: 16.
        pub check_back_concurrency: usize = 16,
        /// Most check-backs that wait for it; past it they are dropped, and the broker asks again. Default: 1,024.
        pub check_backs_waiting_max: usize = 1_024,
        /// Longest time of the handler; then the answer is "unknown", in milliseconds. Default: 30,000.
        pub check_back_timeout_ms: u64 = 30_000,
        /// Longest time that a transaction with acknowledged batches may take from its first message on, in milliseconds: then
        /// the broker asks about it, and a producer of the group in another process answers with a rollback. 0: the broker's
        /// own time. Default: 60,000.
        pub consuming_max_ms: u64 = 60_000,
        /// Longest wait at shutdown for running local parts, in milliseconds. Default: 10,000.
        pub drain_timeout_ms: u64 = 10_000,
    }
}

/// Where a group begins on a queue of which it has committed no offset yet.
///
/// ```
/// use mezzo_client::config::{ConsumerConfig, StartPosition};
/// use mezzo_client::{Clock as _, SystemClock};
///
/// let an_hour_ago = SystemClock.now().saturating_sub_ms(3_600_000);
/// let config = ConsumerConfig::default().start(StartPosition::At(an_hour_ago));
/// assert_eq!(ConsumerConfig::default().start, StartPosition::First);
/// # drop(config);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartPosition {
    /// With the oldest message still kept. The default: nothing is missed.
    #[default]
    First,
    /// With the first message that arrives after the group's first start; of a topic or queue that is made while the
    /// consumer runs, that is all of them.
    Last,
    /// With the first message that became visible at this time or later.
    At(Timestamp),
}

settings! {
    /// Settings of a [`PushConsumer`](crate::PushConsumer), a [`PullConsumer`](crate::PullConsumer) or a
    /// [`TransactionalConsumer`](crate::TransactionalConsumer).
    ///
    /// ```
    /// use mezzo_client::config::{ConsumerConfig, StartPosition};
    ///
    /// let config = ConsumerConfig::default()
    ///     .concurrency(8)
    ///     .prefetch_messages(200)
    ///     .prefetch_bytes(4 << 20)
    ///     .start(StartPosition::Last);
    /// assert_eq!((config.concurrency, config.prefetch.messages), (8, 200));
    /// ```
    #[derive(Debug, Clone)]
    pub struct ConsumerConfig {
        /// Most handlers that run at one time. Default: 20.
        pub concurrency: usize = 20,
        /// Bounds of what one queue holds between pull and verdict; a consumer of many queues holds as many times that.
        /// One pull may go beyond them, because they are looked at before it. Default: 1,000 messages, 16 MiB, a span of 2,000.
        pub prefetch: PrefetchLimits = PrefetchLimits { messages: 1_000, bytes: 16 << 20, span: 2_000 },
        /// Largest body after inflating, in bytes; a message with a larger one cannot be read here. At most `concurrency` of
        /// them are inflated at one time; what waits for a handler stays compressed. Default: 64 MiB.
        pub inflated_bytes_max: usize = 64 << 20,
        /// How long an ordered queue stands still after [`Verdict::Retry`](crate::Verdict::Retry), in milliseconds.
        /// Default: 1,000.
        pub ordered_suspend_ms: u64 = 1_000,
        /// Time between renewals of the locks that ordered consumers have on their queues, in milliseconds; brokers keep a
        /// lock for 60,000. Default: 20,000.
        pub lock_interval_ms: u64 = 20_000,
        /// How long after its last renewal a lock counts here, in milliseconds: less than at the broker, so that two members
        /// never both believe to have it. At most 60,000. Default: 30,000.
        pub lock_valid_ms: u64 = 30_000,
        /// For how long a transactional consumer leases a queue, in milliseconds: after a crash others wait as long. 1,000 to
        /// 600,000. Default: 30,000.
        pub lease_ttl_ms: u64 = 30_000,
        /// Time between renewals of a lease, in milliseconds; at most half of the former, so that one lost renewal does no
        /// harm. Default: 10,000.
        pub lease_interval_ms: u64 = 10_000,
        /// Waiting times while another client has the lease of a queue, or its broker does not give it. Default: 100 ms,
        /// doubling to 2 s.
        pub lease_backoff: BackoffPolicy = BackoffPolicy::new(100, 2_000),
        /// Most messages of one batch of a transactional consumer. Default: 100.
        pub batch_messages_max: usize = 100,
        /// Time between warnings about a message that keeps its queue from being committed, in milliseconds.
        /// Default: 60,000.
        pub stall_warning_ms: u64 = 60_000,
        /// Most messages that one pull asks for (brokers give less when they like). Default: 128.
        pub pull_messages_max: u32 = 128,
        /// How long a broker may hold a pull that finds nothing, in milliseconds. Default: 15,000.
        pub pull_suspend_ms: u64 = 15_000,
        /// Longest wait for a pull's answer beyond the former, in milliseconds. Default: 10,000.
        pub pull_grace_ms: u64 = 10_000,
        /// Waiting times after a failed pull. Default: 100 ms, doubling to 3 s.
        pub pull_backoff: BackoffPolicy = BackoffPolicy::new(100, 3_000),
        /// Pause after a pull that found nothing and was not held, in milliseconds: a broker that does not hold pulls is
        /// not polled in a tight loop. Default: 20.
        pub empty_pull_pause_ms: u64 = 20,
        /// Time between commits of offsets, in milliseconds. Default: 5,000.
        pub commit_interval_ms: u64 = 5_000,
        /// Time between rebalances that nothing else caused, in milliseconds. Default: 20,000.
        pub rebalance_interval_ms: u64 = 20_000,
        /// Waiting times after a rebalance that could not be completed. Default: 500 ms, doubling to 20 s.
        pub rebalance_backoff: BackoffPolicy = BackoffPolicy::new(500, 20_000),
        /// Longest time of a handler, in milliseconds; then its future is dropped and the message retried. Default: 900,000 (15 minutes).
        pub handler_timeout_ms: u64 = 900_000,
        /// Deliveries after the first before a message becomes a dead letter (a broadcast one is given up). An ordered
        /// consumer repeats a message until it is done, because the next one may depend on it. Default: 16.
        pub retries_max: u32 = 16,
        /// Attempts to hand a message back to the broker before it is processed here again. Default: 3.
        pub send_back_attempts: u32 = 3,
        /// How long a message waits here if it could not be handed back, in milliseconds. Default: 5,000.
        pub local_retry_ms: u64 = 5_000,
        /// Longest wait at shutdown for running handlers, and for the batches of a leased queue that goes to another member,
        /// in milliseconds. Default: 30,000.
        pub drain_timeout_ms: u64 = 30_000,
        /// Where the group begins on queues that are new to it.
        pub start: StartPosition = StartPosition::First,
    }
}

impl ConsumerConfig {
    /// Most unfinished messages of one queue. Default: 1,000.
    #[must_use]
    pub const fn prefetch_messages(mut self, messages: usize) -> Self {
        self.prefetch.messages = messages;
        self
    }

    /// Most bytes of unfinished messages of one queue, as they came. Default: 16 MiB.
    #[must_use]
    pub const fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch.bytes = bytes;
        self
    }

    /// Greatest distance between the lowest unfinished offset of a queue and the next one to pull. Default: 2,000.
    #[must_use]
    pub const fn prefetch_span(mut self, offsets: u64) -> Self {
        self.prefetch.span = offsets;
        self
    }

    /// Says what cannot work, where it can still be changed.
    pub(crate) fn check(&self, locks: bool) -> Result<(), Error> {
        if locks && self.lock_interval_ms >= self.lock_valid_ms {
            let (interval, valid) = (self.lock_interval_ms, self.lock_valid_ms);
            let reason =
                format!("{interval} ms is not less than lock_valid_ms, {valid}: each lock would be lost");
            return Err(Error::Config { setting: "lock_interval_ms", reason });
        }
        Ok(())
    }

    /// The same for consumers with leases.
    pub(crate) fn check_leases(&self) -> Result<(), Error> {
        let (ttl, interval) = (self.lease_ttl_ms, self.lease_interval_ms);
        if !(limits::LEASE_TTL_MS_MIN..=limits::LEASE_TTL_MS_MAX).contains(&ttl) {
            let reason = format!(
                "{ttl} ms is not within {} to {}",
                limits::LEASE_TTL_MS_MIN,
                limits::LEASE_TTL_MS_MAX
            );
            return Err(Error::Config { setting: "lease_ttl_ms", reason });
        }
        if interval == 0 || interval > ttl / 2 {
            let reason = format!("{interval} ms is not within 1 to half of lease_ttl_ms, {ttl}");
            return Err(Error::Config { setting: "lease_interval_ms", reason });
        }
        Ok(())
    }
}
