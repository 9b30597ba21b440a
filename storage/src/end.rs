//! END: what a producer, a check-back answer or a person asks to be decided.

use std::net::SocketAddr;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName, TransactionId};

use crate::format::record::{Outcome, Source};

/// Which transaction is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndTarget {
    /// The one that was prepared here (RocketMQ's `commitLogOffset`).
    Origin(PhysicalOffset),
    /// The one of many messages that a client of this producer group gave this id; or the one whose only message has this
    /// unique key, unless several of the group have it.
    Id {
        /// Its producer group.
        group: GroupName,
        /// Its id within the group, or its message's unique key.
        id: TransactionId,
    },
}

/// Offsets of one consumer group that a transaction moves: what it consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionOffsets {
    /// The consumer group.
    pub group: GroupName,
    /// At most [`TRANSACTION_OFFSETS_MAX`](mezzo_protocol::limits::TRANSACTION_OFFSETS_MAX).
    pub entries: Vec<OffsetMove>,
}

/// One queue's part of [`TransactionOffsets`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetMove {
    /// The topic.
    pub topic: TopicName,
    /// The queue within the topic.
    pub queue: QueueId,
    /// Where the group stood when the transaction consumed: what the lease said, or the transaction before left. `None` if
    /// it had never stood anywhere. If it stands elsewhere by now, the decision is not a commit.
    pub from: Option<QueueOffset>,
    /// The next offset to consume.
    pub offset: QueueOffset,
    /// The lease under which the queue was consumed.
    pub epoch: u64,
}

/// END: the decision a producer, a check-back answer or a person asks for.
#[derive(Debug, Clone)]
pub struct EndTransaction {
    /// Which transaction.
    pub target: EndTarget,
    /// RocketMQ's `tranStateTableOffset`; must equal the origin when given.
    pub table_offset: Option<u64>,
    /// Hashes ([`crate::key_hash`]) of what the client sent as `msgId` and `transactionId`; one must be the half's
    /// unique key, or the transaction's id if it has one. `None` for operators, who name the origin.
    pub keys: Option<[u64; 2]>,
    /// Must be the half's producer group. `None` for operators.
    pub producer_group: Option<GroupName>,
    /// What to decide.
    pub outcome: Outcome,
    /// On whose word.
    pub source: Source,
    /// How many messages the producer has prepared. A commit of a transaction with an id, on the word of its producer,
    /// needs the right number; one that is given is always checked.
    pub count: Option<u16>,
    /// Consumer offsets that a commit moves together with its messages. A rollback moves none.
    pub offsets: Option<TransactionOffsets>,
    /// Decides nothing while the transaction is PREPARED: its producer may be about to.
    pub only_in_doubt: bool,
    /// The address that asked, for the record.
    pub decider: Option<SocketAddr>,
    /// Why, for the record; operators only.
    pub reason: Option<String>,
}

impl EndTransaction {
    /// A decision that is matched by its target alone and says no more than it must.
    #[must_use]
    pub const fn new(target: EndTarget, outcome: Outcome, source: Source) -> Self {
        Self {
            target,
            table_offset: None,
            keys: None,
            producer_group: None,
            outcome,
            source,
            count: None,
            offsets: None,
            only_in_doubt: false,
            decider: None,
            reason: None,
        }
    }
}
