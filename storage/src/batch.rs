//! What a caller asks of the log in one go, and what it is told. Everything in one [`Batch`] becomes one frame: one
//! lock, one write. Messages are encoded and check-summed here, before any lock is taken; a message's bytes do not
//! depend on where they will stand, so nothing is left to do under the lock but to copy them.

use std::net::SocketAddr;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::properties;
use mezzo_protocol::message::record::{self, MessageParts};
use mezzo_protocol::message::tag::java_hash;
use mezzo_protocol::time::Timestamp;

use crate::format::history_row::key_hash;
use crate::format::record::{LogSeed, MessagePrefix, Outcome, ParkReason, RecordHead, Source};
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
    pub(crate) payload: std::ops::Range<usize>,
    pub(crate) tag_hash: i32,
    pub(crate) visibility: Visibility,
    pub(crate) half: Option<HalfFacts>,
}

/// What the open-transaction table keeps of a half message beyond its place.
#[derive(Debug, Clone)]
pub(crate) struct HalfFacts {
    pub(crate) group: GroupName,
    pub(crate) key_hash: u64,
    /// From `CHECK_IMMUNITY_TIME_SECONDS`, milliseconds.
    pub(crate) immunity_ms: Option<u64>,
}

impl HalfFacts {
    /// Reads them out of a message's property string; the same reading at append and at recovery.
    pub(crate) fn of(props: &[u8]) -> Result<Self, &'static str> {
        let key = properties::find(props, properties::UNIQUE_KEY).ok_or(properties::UNIQUE_KEY)?;
        let group = properties::find(props, properties::PRODUCER_GROUP).ok_or(properties::PRODUCER_GROUP)?;
        let group = GroupName::new(group).map_err(|_| properties::PRODUCER_GROUP)?;
        let immunity_ms = properties::find(props, properties::CHECK_IMMUNITY_TIME_SECONDS)
            .and_then(|v| v.trim().parse::<u64>().ok())
            .map(|s| s.saturating_mul(1000));
        Ok(Self { group, key_hash: key_hash(key), immunity_ms })
    }
}

/// END: the decision a producer, a check-back answer or a person asks for.
#[derive(Debug, Clone)]
pub struct EndTransaction {
    /// The transaction's origin (RocketMQ's `commitLogOffset`).
    pub origin: PhysicalOffset,
    /// RocketMQ's `tranStateTableOffset`; must equal the origin when given.
    pub table_offset: Option<u64>,
    /// Hashes ([`key_hash`]) of what the client sent as `msgId` and `transactionId`; one must be the half's unique key.
    /// `None` for operators, who name the origin.
    pub keys: Option<[u64; 2]>,
    /// Must be the half's producer group. `None` for operators.
    pub producer_group: Option<GroupName>,
    /// What to decide.
    pub outcome: Outcome,
    /// On whose word.
    pub source: Source,
    /// The address that asked, for the record.
    pub decider: Option<SocketAddr>,
    /// Why, for the record; operators only.
    pub reason: Option<String>,
}

/// One thing to do.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Made by [`Batch::send`].
    #[doc(hidden)]
    Send(SendOperation),
    /// Decide a transaction.
    End(EndTransaction),
    /// These transactions were asked once more, and the ask counts.
    Asked(Vec<PhysicalOffset>),
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
}

/// Opaque inside of [`Operation::Send`].
#[derive(Debug, Clone)]
pub struct SendOperation(pub(crate) MessageToAppend);

impl Operation {
    /// Whether it may use the reserve segment when the disk is full.
    pub(crate) fn is_essential(&self) -> bool {
        !matches!(self, Self::Send(_) | Self::PutTopic(_) | Self::PutGroup(_))
    }
}

/// A recorded decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What was decided.
    pub outcome: Outcome,
    /// On whose word.
    pub source: Source,
    /// Leader time of the decision.
    pub decided_at: Timestamp,
    /// Where the (first) message became visible; `None` after a rollback, or while its delay runs.
    pub queue_offset: Option<QueueOffset>,
}

/// Why an operation was not carried out. Nothing was written for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// END names another producer group than the half.
    #[error("the transaction belongs to another producer group")]
    WrongGroup,
    /// END's `tranStateTableOffset` is not the half's.
    #[error("the transaction state table offset is not this transaction's")]
    WrongTableOffset,
    /// END carries neither as `msgId` nor as `transactionId` the half's unique key.
    #[error("neither msgId nor transactionId is this transaction's unique key")]
    WrongKey,
    /// Nothing is known at this origin.
    #[error("no transaction was prepared at this offset")]
    Unknown,
    /// Older than every decision still remembered.
    #[error("the transaction is older than the history of decisions")]
    Expired,
    /// The transaction is not open, and what may hold its decision cannot be read.
    #[error(
        "what was decided cannot be read at this moment; nothing was changed, try again (the broker's log says why)"
    )]
    HistoryUnreadable,
    /// No transaction of that name is open, and none that is still remembered was decided.
    #[error(
        "no transaction of this name is open, and no decision about it is remembered: never prepared, or expired"
    )]
    UnknownOrExpired,
    /// `limits.open_messages` half and delayed messages are open.
    #[error("too many open half and delayed messages (limits.open_messages); try again later")]
    TooManyOpen,
    /// No prepared segment but the reserve is left: the disk is full, or slower than what is sent. Decisions go on.
    #[error(
        "no room for new messages at this moment; try again, and if it stays so free disk space or shorten store.retention"
    )]
    NoRoom,
    /// The topic was deleted meanwhile.
    #[error("the topic was deleted")]
    TopicGone,
    /// A topic with open half or delayed messages cannot be deleted or shrunk.
    #[error("the topic has open half or delayed messages; decide them first")]
    TopicHasOpenMessages,
    /// There is nothing of that name.
    #[error("no such topic or group")]
    NotFound,
}

/// What became of the operation at the same index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationResult {
    /// A message, visible when the limit passes it.
    Stored {
        /// Its place in its queue.
        queue_offset: QueueOffset,
        /// Its place in the log.
        position: PhysicalOffset,
    },
    /// A half message; its origin is also its `tranStateTableOffset`.
    Prepared {
        /// The transaction's identity.
        origin: PhysicalOffset,
    },
    /// A delayed message.
    Scheduled {
        /// Its place in the log.
        position: PhysicalOffset,
    },
    /// END decided the transaction now.
    Decided(Decision),
    /// END repeated what was decided before.
    AlreadyDecided(Decision),
    /// END contradicts what was decided before; this is what stands.
    Conflict(Decision),
    /// A tick made this many messages visible.
    Ticked {
        /// How many.
        messages: usize,
    },
    /// Not carried out.
    Refused(Refusal),
    /// Carried out; there is nothing to tell.
    Done,
}

/// Operations and their results. Reusable: [`Batch::clear`] keeps the memory up to [`Batch::ARENA_BYTES_KEPT`].
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) operations: Vec<Operation>,
    pub(crate) arena: Vec<u8>,
    pub(crate) results: Vec<OperationResult>,
}

impl Batch {
    /// The arena is given back when a batch grew beyond this.
    pub const ARENA_BYTES_KEPT: usize = 4 << 20;

    /// Encodes a message and adds it; returns its index.
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
        let half = match visibility {
            Visibility::Prepared { .. } => {
                Some(HalfFacts::of(parts.properties).map_err(EncodeError::MissingProperty)?)
            }
            Visibility::Now | Visibility::Due(_) => None,
        };
        let prefix = match visibility {
            Visibility::Now => MessagePrefix::Visible,
            Visibility::Prepared { delay_ms } => MessagePrefix::Prepared { joins: None, delay_ms },
            Visibility::Due(at) => MessagePrefix::Due { due_ms: at.as_ms() },
        };
        let start = self.arena.len();
        prefix.encode(&mut self.arena);
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
        let bytes = self.arena.get(payload.clone()).unwrap_or_default();
        let head = RecordHead::new(encoder.seed, prefix.kind(), prefix.flags(), &[bytes]);
        let tag_hash = properties::find(parts.properties, properties::TAGS).map_or(0, java_hash);
        self.operations.push(Operation::Send(SendOperation(MessageToAppend {
            queue,
            head,
            payload,
            tag_hash,
            visibility,
            half,
        })));
        Ok(self.operations.len() - 1)
    }

    /// Adds an operation; returns its index.
    pub fn push(&mut self, operation: Operation) -> usize {
        self.operations.push(operation);
        self.operations.len() - 1
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
        self.arena.clear();
        if self.arena.capacity() > Self::ARENA_BYTES_KEPT {
            self.arena = Vec::new();
        }
    }
}
