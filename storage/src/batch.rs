//! What a caller asks of the log in one go, and what it is told. Everything in one [`Batch`] becomes one frame, or a few
//! if one does not hold it: one lock, one write each. Messages are encoded and check-summed here, before any lock is taken; a message's bytes do not
//! depend on where they will stand, so nothing is left to do under the lock but to copy them.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use mezzo_protocol::check_policy::CheckPolicy;
use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::properties;
use mezzo_protocol::message::record::{self, MessageParts};
use mezzo_protocol::message::tag::java_hash;
use mezzo_protocol::time::Timestamp;

use crate::end::EndTransaction;
use crate::format::record::{AskAnswer, LogSeed, MessagePrefix, ParkReason, RecordHead};
use crate::half::{Fingerprint, HalfError, HalfFacts};
use crate::results::OperationResult;
use crate::state::dedup::Guarded;
use crate::state::groups::GroupConfig;
use crate::state::topics::{Queue, Topic, TopicConfig};

/// Bytes a record may need beyond its message: header and the longest prefix.
pub(crate) const RECORD_OVERHEAD_MAX: usize = 64;

/// When a message becomes visible.
#[derive(Debug, Clone)]
pub enum Visibility {
    /// At once.
    Now,
    /// When its transaction commits, `delay_ms` milliseconds later if one is given.
    Prepared {
        /// Milliseconds between commit and visibility, for a delayed transactional message.
        delay_ms: Option<u64>,
    },
    /// At the first tick at or after this time, or a few milliseconds later when thousands of others are due then.
    Due(Timestamp),
}

impl MessageToAppend {
    /// Milliseconds between commit and visibility, of a delayed half message.
    pub(crate) fn delay_ms(&self) -> Option<u64> {
        match self.visibility {
            Visibility::Prepared { delay_ms } => delay_ms,
            Visibility::Now | Visibility::Due(_) => None,
        }
    }

    /// The message without the prefix, of its `payload`.
    pub(crate) fn bytes_of<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        payload.get(self.prefix_bytes..).unwrap_or_default()
    }
}

/// Why a message cannot be put into a batch at all.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The protocol's own bounds (topic, properties, body).
    #[error(transparent)]
    Message(#[from] mezzo_protocol::error::EncodeError),
    /// The topic has no such queue.
    #[error("topic {topic} has no queue {queue}: it has {count}")]
    NoSuchQueue {
        /// The topic that was named.
        topic: String,
        /// The queue that was asked for.
        queue: u32,
        /// How many it has.
        count: u32,
    },
    /// A half message without the property that END is matched by.
    #[error("a transactional message needs the property {0}")]
    MissingProperty(&'static str),
    /// A half message with a property that cannot be read.
    #[error("the property {property} of a transactional message must be {expected}")]
    BadProperty {
        /// Its name.
        property: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// The message does not fit a frame of this log.
    #[error(
        "message of {got} bytes, at most {max} fit this log's frames; make segments larger or messages smaller"
    )]
    TooLarge {
        /// Its encoded size.
        got: usize,
        /// What fits.
        max: usize,
    },
}

impl From<HalfError> for EncodeError {
    fn from(error: HalfError) -> Self {
        match error {
            HalfError::Missing(property) => Self::MissingProperty(property),
            HalfError::Bad { property, expected } => Self::BadProperty { property, expected },
        }
    }
}

/// What encoding outside the lock needs to know of the log; cheap to copy, from [`crate::Store::encoder`].
#[derive(Debug, Clone, Copy)]
pub struct Encoder {
    pub(crate) seed: LogSeed,
    pub(crate) payload_bytes_max: usize,
}

/// An encoded message on its way into the log.
#[derive(Debug, Clone)]
pub(crate) struct MessageToAppend {
    pub(crate) queue: Arc<Queue>,
    pub(crate) head: RecordHead,
    /// Payload (prefix and message) inside the batch's arena.
    pub(crate) payload: Range<usize>,
    /// Bytes of the payload before the message.
    pub(crate) prefix_bytes: usize,
    pub(crate) tag_hash: i32,
    pub(crate) visibility: Visibility,
    pub(crate) half: Option<HalfFacts>,
    /// Only on topics that ask for it: others pay eight bytes.
    pub(crate) guarded: Option<Box<Guarded>>,
}

/// An ask about a transaction that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedAsk {
    /// The transaction.
    pub origin: PhysicalOffset,
    /// Who was asked, if known.
    pub peer: Option<SocketAddr>,
    /// What came of it.
    pub answer: AskAnswer,
    /// How long ago that was, in milliseconds.
    pub waited_ms: u32,
}

/// Who wants the lease of which queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRequest {
    /// The consumer group.
    pub group: GroupName,
    /// The topic.
    pub topic: TopicName,
    /// The queue within the topic.
    pub queue: QueueId,
    /// Who asks.
    pub client: String,
    /// For how long, in milliseconds from now.
    pub ttl_ms: u64,
    /// The epoch of the lease that is to be renewed; `None` asks for a new one, which a client that has been restarted
    /// under its old name must do.
    pub renews: Option<u64>,
}

/// One thing to do.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Made by [`Batch::send`].
    #[doc(hidden)]
    Send(SendOperation),
    /// Decide a transaction.
    End(EndTransaction),
    /// These transactions were asked about once more, and the ask counts.
    Asked(Vec<CountedAsk>),
    /// As [`Operation::End`], for a transaction without messages that the history was asked about.
    #[doc(hidden)]
    EndUnheardOf(EndTransaction),
    /// Give a client the lease of a queue, or renew it.
    Lease(LeaseRequest),
    /// Give the lease with this epoch back.
    ReleaseLease {
        /// The consumer group.
        group: GroupName,
        /// The topic.
        topic: TopicName,
        /// The queue within the topic.
        queue: QueueId,
        /// As [`OperationResult::Leased`] said.
        epoch: u64,
    },
    /// Asking ends: the transaction is IN_DOUBT.
    Park {
        /// Which transaction.
        origin: PhysicalOffset,
        /// Why.
        reason: ParkReason,
    },
    /// An IN_DOUBT transaction is PREPARED again, asked from zero.
    Resume {
        /// Which transaction.
        origin: PhysicalOffset,
        /// Who wants it so, for the record.
        by: Option<SocketAddr>,
    },
    /// Delayed messages due at or before this time become visible (a bounded number; call again while some are due).
    Tick(Timestamp),
    /// Logs consumer offsets of one group that memory holds already; see [`crate::Store::flush_offsets`].
    Offsets {
        /// The consumer group.
        group: GroupName,
        /// Next offset to consume, per queue.
        entries: Vec<(TopicName, QueueId, QueueOffset)>,
    },
    /// Create or change a topic.
    PutTopic(TopicConfig),
    /// Delete a topic that has no open messages.
    DeleteTopic(TopicName),
    /// Create or change a consumer group.
    PutGroup(GroupConfig),
    /// Delete a consumer group and its offsets; refused when there is neither.
    DeleteGroup(GroupName),
    /// Give a producer group a check-back policy of its own; it holds from each transaction's next deadline on.
    PutPolicy {
        /// The producer group.
        group: GroupName,
        /// Its policy.
        policy: CheckPolicy,
    },
    /// A producer group follows the broker's policy again, if it had one of its own.
    DeletePolicy(GroupName),
}

/// Opaque inside of [`Operation::Send`].
#[derive(Debug, Clone)]
pub struct SendOperation(pub(crate) MessageToAppend);

impl Operation {
    /// Whether it may use the reserve segment when the disk is full.
    pub(crate) fn is_essential(&self) -> bool {
        !matches!(self, Self::Send(_) | Self::PutTopic(_) | Self::PutGroup(_) | Self::PutPolicy { .. })
    }
}

/// Operations and their results. Reusable: [`Batch::clear`] keeps the memory up to [`Batch::ARENA_BYTES_KEPT`].
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) operations: Vec<Operation>,
    pub(crate) arena: Vec<u8>,
    pub(crate) results: Vec<OperationResult>,
    /// Ranges of operations that go into one frame, in order and apart.
    together: Vec<Range<usize>>,
}

impl Batch {
    /// The arena is given back when a batch grew beyond this.
    pub const ARENA_BYTES_KEPT: usize = 4 << 20;

    /// Encodes a message and adds it; returns its index. A half message with the properties `MEZZO_TX` and
    /// `MEZZO_TX_SEQ` opens a transaction of many messages or joins it.
    ///
    /// # Errors
    /// See [`EncodeError`]; the batch is unchanged then.
    pub fn send(
        &mut self,
        encoder: &Encoder,
        topic: &Topic,
        queue: QueueId,
        visibility: Visibility,
        parts: &MessageParts<'_>,
    ) -> Result<usize, EncodeError> {
        let queue = topic.queue(queue).ok_or_else(|| EncodeError::NoSuchQueue {
            topic: topic.name().as_str().to_owned(),
            queue: queue.0,
            count: topic.queue_count(),
        })?;
        let mut half = match visibility {
            Visibility::Prepared { .. } => Some(HalfFacts::of(parts.properties)?),
            Visibility::Now | Visibility::Due(_) => None,
        };
        let prefix = match visibility {
            Visibility::Now => MessagePrefix::Visible,
            Visibility::Prepared { delay_ms } => MessagePrefix::Prepared { joins: None, delay_ms },
            Visibility::Due(at) => MessagePrefix::Due { due_ms: at.as_ms() },
        };
        let start = self.arena.len();
        prefix.encode(&mut self.arena);
        let message_at = self.arena.len();
        if let Err(e) = record::encode(parts, &mut self.arena) {
            self.arena.truncate(start);
            return Err(e.into());
        }
        let payload = start..self.arena.len();
        let max = encoder.payload_bytes_max;
        if payload.len() > max {
            self.arena.truncate(start);
            return Err(EncodeError::TooLarge { got: payload.len(), max });
        }
        if let Some(one) = half.as_mut().and_then(|half| half.of_many.as_mut()) {
            one.fingerprint = Fingerprint::of(self.arena.get(message_at..).unwrap_or_default());
        }
        let bytes = self.arena.get(payload.clone()).unwrap_or_default();
        let head = RecordHead::new(encoder.seed, prefix.kind(), prefix.flags(), &[bytes]);
        let tag_hash = properties::find(parts.properties, properties::TAGS).map_or(0, java_hash);
        self.operations.push(Operation::Send(SendOperation(MessageToAppend {
            queue,
            head,
            payload,
            prefix_bytes: message_at - start,
            tag_hash,
            visibility,
            half,
            guarded: None,
        })));
        Ok(self.operations.len() - 1)
    }

    /// These operations, the last ones added, go into one frame if one holds them: after a crash all of them are there or
    /// none, and all of them find room or none.
    pub fn keep_together(&mut self, operations: Range<usize>) {
        debug_assert!(operations.end == self.operations.len(), "not the last ones");
        self.together.push(operations);
    }

    /// Where a frame that would end before operation `end` ends better, if it is to begin with `start`.
    pub(crate) fn frame_end(&self, start: usize, end: usize) -> usize {
        let after = self.together.partition_point(|range| range.start < end);
        let last = after.checked_sub(1).and_then(|index| self.together.get(index));
        // one that is larger than a frame has to be cut
        last.filter(|range| range.end > end && range.start > start).map_or(end, |range| range.start)
    }

    /// Adds an operation; returns its index.
    pub fn push(&mut self, operation: Operation) -> usize {
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// The operations in it, by index.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// How many operations wait in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether nothing waits in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Results of the last append, by operation index. Empty before it.
    #[must_use]
    pub fn results(&self) -> &[OperationResult] {
        &self.results
    }

    /// Forgets operations and results.
    pub fn clear(&mut self) {
        self.operations.clear();
        self.results.clear();
        self.together.clear();
        self.arena.clear();
        if self.arena.capacity() > Self::ARENA_BYTES_KEPT {
            self.arena = Vec::new();
        }
    }
}
