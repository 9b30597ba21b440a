//! What became of an operation: results, decisions, refusals.

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueOffset};
use mezzo_protocol::time::Timestamp;

use crate::format::record::{Outcome, Source};

/// A recorded decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The transaction.
    pub origin: PhysicalOffset,
    /// What was decided.
    pub outcome: Outcome,
    /// On whose word.
    pub source: Source,
    /// Leader time of the decision.
    pub decided_at: Timestamp,
    /// How many messages were decided.
    pub count: u16,
    /// Where the (first) message became visible; `None` after a rollback, or while its delay runs.
    pub queue_offset: Option<QueueOffset>,
    /// Where each message became visible, in the order of their prepares: known to the END that decides a commit of
    /// more than one message, empty otherwise. `None` for a message whose delay runs.
    pub queue_offsets: Box<[Option<QueueOffset>]>,
}

/// A transaction that was IN_DOUBT and is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftDoubt {
    /// Which one.
    pub origin: PhysicalOffset,
    /// Its producer group.
    pub group: GroupName,
    /// How long it was open, in milliseconds.
    pub age_ms: u64,
    /// What was decided.
    pub outcome: Outcome,
    /// On whose word.
    pub source: Source,
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
    /// It is PREPARED, and was to be decided only if it is IN_DOUBT.
    #[error("the transaction is still PREPARED: its producer may be about to decide it")]
    StillPrepared,
    /// [`mezzo_protocol::limits::CHECK_POLICIES_MAX`] producer groups have a check-back policy of their own.
    #[error("too many producer groups have a check-back policy of their own; clear some first")]
    TooManyPolicies,
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
    /// END by unique key alone, and several transactions of the producer group have it: open ones, or one that is open and
    /// one that is decided.
    #[error("several transactions of this producer group have this unique key: name the one by its offsets")]
    Ambiguous,
    /// A commit whose producer counts other messages than the log holds: some may still be on their way. The
    /// transaction stays as it is.
    #[error("the transaction has {expected} messages, the commit counts {}", got.map_or_else(|| "none".to_owned(), |n| n.to_string()))]
    Incomplete {
        /// Messages that are prepared.
        expected: u16,
        /// What END said.
        got: Option<u16>,
    },
    /// A half message for a transaction that is decided already.
    #[error("the transaction was {} already", match outcome { Outcome::Committed => "committed", Outcome::RolledBack => "rolled back" })]
    Decided {
        /// The transaction.
        origin: PhysicalOffset,
        /// What was decided.
        outcome: Outcome,
    },
    /// A half message that is not the first of its transaction, and the transaction is not open.
    #[error("no transaction of this id is open")]
    NotOpen,
    /// A half message before which others of its transaction are missing. It may be sent again after them.
    #[error("out of sequence: the next message of this transaction is number {expected}")]
    OutOfSequence {
        /// The number that comes next.
        expected: u16,
    },
    /// Another message has this place in the transaction.
    #[error("another message of this transaction has this sequence number")]
    SequenceReused,
    /// [`TRANSACTION_MESSAGES_MAX`](mezzo_protocol::limits::TRANSACTION_MESSAGES_MAX) or
    /// [`TRANSACTION_BYTES_MAX`](mezzo_protocol::limits::TRANSACTION_BYTES_MAX).
    #[error("the transaction is full: at most 1000 messages and 64 MiB")]
    TransactionFull,
    /// More offsets in one decision than
    /// [`TRANSACTION_OFFSETS_MAX`](mezzo_protocol::limits::TRANSACTION_OFFSETS_MAX).
    #[error("too many offsets in one transaction: at most 1024")]
    TooManyOffsets,
    /// Another client holds the lease of this queue.
    #[error("another client holds the lease of this queue until {} ms", until.as_ms())]
    LeaseHeld {
        /// When it ends unless it is renewed, by the caller's clock.
        until: Timestamp,
    },
    /// The lease that was named is not the queue's: it was taken by another client, or never given.
    #[error("the lease of this queue has another epoch")]
    LeaseLost,
    /// As many leases as the broker keeps.
    #[error("too many leases")]
    TooManyLeases,
    /// `limits.open_messages` half and delayed messages are open.
    #[error("too many open half and delayed messages (limits.open_messages); try again later")]
    TooManyOpen,
    /// No prepared segment but the reserve is left: the disk is full, or slower than what is sent. Decisions go on.
    #[error(
        "no room for new messages at this moment; try again, and if it stays so free disk space or shorten store.retention"
    )]
    NoRoom,
    /// Half and delayed messages take half of `store.max_bytes`.
    #[error(
        "open half and delayed messages take half of store.max_bytes; decide some, or wait until some are due, and \
         try again"
    )]
    TooManyOpenBytes,
    /// The data folder takes all of `store.max_bytes`. Decisions go on.
    #[error(
        "store.max_bytes is reached: no room for new messages until retention has made some; try again later, raise \
         store.max_bytes or shorten store.retention"
    )]
    AtMaxBytes,
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
    /// A half message; its transaction's origin is also its `tranStateTableOffset`.
    Prepared {
        /// The transaction's identity: where its first message stands.
        origin: PhysicalOffset,
        /// Where this message stands.
        position: PhysicalOffset,
    },
    /// A delayed message.
    Scheduled {
        /// Its place in the log.
        position: PhysicalOffset,
    },
    /// A guarded message that was not stored: an equal one came first and stands here. It may not be within the limit yet.
    Repeats {
        /// The first one's place in the log.
        position: PhysicalOffset,
    },
    /// END decided the transaction now.
    Decided(Decision),
    /// END repeated what was decided before.
    AlreadyDecided(Decision),
    /// END contradicts what was decided before; this is what stands.
    Conflict(Decision),
    /// END names by its id a transaction that has no messages, moves no offsets, and was never heard of: there is
    /// nothing to decide.
    NothingToDecide,
    /// A lease was given or renewed.
    Leased {
        /// What decisions name it by.
        epoch: u64,
        /// When it ends unless it is renewed, by the caller's clock.
        expires_at: Timestamp,
        /// Where to consume from, decisions of earlier holders included; `None` if the group never said.
        next_offset: Option<QueueOffset>,
    },
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
