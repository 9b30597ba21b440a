//! How a transaction of many messages ended, and why a message did not join one.

use std::fmt;
use std::sync::Arc;

use mezzo_protocol::ids::TopicName;
use mezzo_protocol::limits::TRANSACTION_MESSAGES_MAX;

use crate::error::SendError;
use crate::producer::{RollbackReason, Stored, UnknownReason};

/// All that another process needs to finish a transaction: see
/// [`TransactionProducer::commit_named`](crate::TransactionProducer::commit_named).
///
/// ```
/// use mezzo_client::TransactionName;
///
/// // What was written down beside the work, and read by the process that came after.
/// let name = TransactionName { id: "7F00".into(), broker_name: Some("broker-a".into()), messages: 2, moves_offsets: false };
/// assert_eq!(name.to_string(), "transaction 7F00 of 2 messages on broker-a");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionName {
    /// The id that the SDK gave the transaction; also the unique key of its first message, or of its only one.
    pub id: Arc<str>,
    /// The broker that has the messages; `None` as long as there are none.
    pub broker_name: Option<Arc<str>>,
    /// How many messages have joined, 0 to 1,000.
    pub messages: u16,
    /// Whether offsets of a consumer group move with it: then only the process that has the leases can commit it.
    pub moves_offsets: bool,
}

impl fmt::Display for TransactionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {} of {} messages", self.id, self.messages)?;
        self.broker_name.as_deref().map_or(Ok(()), |broker| write!(f, " on {broker}"))
    }
}

/// Why a transaction of many messages is rolled back.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RolledBackBecause {
    /// This process decided so.
    Decided,
    /// A commit was asked for, but a send before had failed in a way that leaves open what the transaction holds.
    SendFailed,
    /// A commit was asked for, but the broker has another number of messages than were sent.
    Incomplete {
        /// What the broker has.
        stored: u16,
        /// What joined, as its answers said.
        sent: u16,
    },
    /// A commit was asked for, but a rollback is recorded: of an operator, a policy or a check-back.
    DecidedBefore,
    /// A commit was asked for, but another client has a queue of the batches that it acknowledges, or the group stands
    /// elsewhere: those batches are processed by the queue's new holder.
    Fenced,
    /// A commit was asked for, but a batch could not be acknowledged.
    AckFailed,
    /// The local transaction of
    /// [`transaction_many`](crate::TransactionProducer#method.transaction_many) did not commit, and can no longer.
    Local(RollbackReason),
}

impl fmt::Display for RolledBackBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decided => f.write_str("the producer decided so"),
            Self::SendFailed => f.write_str("a send failed, so what it would have held is not certain"),
            Self::Incomplete { stored, sent } => {
                write!(f, "the broker has {stored} of its messages, {sent} were sent")
            }
            Self::DecidedBefore => f.write_str("a rollback was recorded before"),
            Self::Fenced => f.write_str(
                "what it consumed belongs to another by now, who processes it; nothing is visible",
            ),
            Self::AckFailed => f.write_str("a batch could not be acknowledged"),
            Self::Local(reason) => write!(f, "{reason}"),
        }
    }
}

/// How a transaction of many messages ended: what is recorded, or that it is not known here.
///
/// ```
/// use mezzo_client::TransactionOutcome;
///
/// fn reply(outcome: &TransactionOutcome) -> &'static str {
///     match outcome {
///         TransactionOutcome::Committed(_) => "all of it is on its way",
///         TransactionOutcome::RolledBack(..) => "none of it happened",
///         _ => "we will tell you",
///     }
/// }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a commit can end as RolledBack or Unknown"]
#[non_exhaustive]
pub enum TransactionOutcome {
    /// All messages are visible, or will be when their delay is over.
    Committed(TransactionName),
    /// None will ever be visible.
    RolledBack(TransactionName, RolledBackBecause),
    /// The broker did not confirm within `end_timeout_ms`. If this process decided, its check-backs are answered with the
    /// same decision while it lives; the decision can be said again by name, any number of times.
    Unknown(TransactionName, UnknownReason),
}

impl TransactionOutcome {
    /// Which transaction it was.
    #[must_use]
    pub const fn name(&self) -> &TransactionName {
        match self {
            Self::Committed(name) | Self::RolledBack(name, _) | Self::Unknown(name, _) => name,
        }
    }

    /// Whether the broker confirmed a commit.
    #[must_use]
    pub const fn is_committed(&self) -> bool {
        matches!(self, Self::Committed(_))
    }

    /// Whether the broker confirmed a rollback.
    #[must_use]
    pub const fn is_rolled_back(&self) -> bool {
        matches!(self, Self::RolledBack(..))
    }

    /// Whether the broker has refused the commit because what was consumed belongs to another by now. Nothing became
    /// visible, and the queue's new holder processes the batches.
    #[must_use]
    pub const fn is_fenced(&self) -> bool {
        matches!(self, Self::RolledBack(_, RolledBackBecause::Fenced))
    }
}

impl fmt::Display for TransactionOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed(name) => write!(f, "{name} is committed"),
            Self::RolledBack(name, reason) => write!(f, "{name} is rolled back: {reason}"),
            Self::Unknown(name, reason) => write!(f, "the outcome of {name} is unknown: {reason}"),
        }
    }
}

/// Why a message did not join a transaction.
///
/// ```
/// use mezzo_client::ManyError;
///
/// fn can_go_on(error: &ManyError) -> bool {
///     // The others say that this message is not in it, or that there is nothing to go on with.
///     !matches!(error, ManyError::Decided { .. } | ManyError::Lost { .. })
/// }
/// assert!(can_go_on(&ManyError::Full));
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ManyError {
    /// It was not sent, or not with a certain outcome ([`SendError::is_outcome_unknown`]): the transaction can only be
    /// rolled back in that case.
    #[error(transparent)]
    Send(#[from] SendError),
    /// All messages of a transaction go to the broker of its first, and this one has no place there.
    #[error(
        "the transaction is on {broker}, where topic {topic} has {}; all messages of one transaction go to one broker",
        if *.ordered { "not the queue of this message's sharding key" } else { "no queue to send to" }
    )]
    OtherBroker {
        /// The topic of the message.
        topic: TopicName,
        /// The broker of the transaction.
        broker: Arc<str>,
        /// Whether it is its sharding key that asks for another broker.
        ordered: bool,
    },
    /// A transaction has at most 1,000 messages and 64 MiB. This one is not in it.
    #[error("the transaction is full: at most {TRANSACTION_MESSAGES_MAX} messages and 64 MiB")]
    Full,
    /// The transaction has been decided by somebody else.
    #[error("the transaction is decided already: {recorded}")]
    Decided {
        /// What is recorded, in the broker's word.
        recorded: String,
    },
    /// The broker has fewer messages of it than it had confirmed.
    #[error(
        "the broker has lost messages of the transaction that it had confirmed; it can only be rolled back"
    )]
    Lost,
    /// The broker stored the message less safely than it is set to. The transaction can only be rolled back.
    #[error("a message of the transaction was not stored safely ({0:?}); it can only be rolled back")]
    NotSafe(Stored),
    /// A send before has failed: the transaction can only be rolled back.
    #[error("a send of this transaction has failed before; it can only be rolled back")]
    FailedBefore,
    /// It has acknowledged batches: its commit can be refused, and a local transaction that has committed by then could not
    /// be taken back.
    #[error(
        "the transaction has acknowledged batches, so it takes no local transaction: its commit could be refused"
    )]
    Acknowledges,
}
