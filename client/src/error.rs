//! The errors of this crate: one enum per kind of operation. Each says whether trying again can help
//! (`is_retriable`), and where it matters whether the broker may have acted although the call failed.

use std::sync::Arc;

use mezzo_protocol::error::{DecodeError, EncodeError};
use mezzo_protocol::ids::{GroupName, MessageQueue, QueueOffset, TopicName};
use mezzo_protocol::limits::TRANSACTION_OFFSETS_MAX;
use mezzo_protocol::remoting::response_code::ResponseCode;

/// Why one request on one connection brought no good answer.
///
/// ```
/// use mezzo_client::{RequestError, ResponseCode};
///
/// let address = "10.0.0.7:10911".into();
/// let busy = RequestError::Refused { address, code: ResponseCode::SYSTEM_BUSY, remark: "later".into() };
/// assert!(busy.is_retriable() && !busy.may_have_acted());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No connection could be made. Nothing was sent.
    #[error("no connection to {address}: {reason}")]
    Unreachable {
        /// Whom it was for.
        address: Arc<str>,
        /// What the operating system or the back-off said.
        reason: String,
    },
    /// The connection has as many unanswered requests as allowed. Nothing was sent.
    #[error("{address} has not answered {max} requests yet; no further one is sent")]
    TooManyPending {
        /// Whom it was for.
        address: Arc<str>,
        /// The bound `pending_requests_max`.
        max: usize,
    },
    /// The peer reads too slowly: no room to write the request within its time. Nothing was sent.
    #[error("{address} takes no more data; the request was not sent within {waited_ms} ms")]
    Congested {
        /// Whom it was for.
        address: Arc<str>,
        /// How long it waited, in milliseconds.
        waited_ms: u64,
    },
    /// The time was over before the request could be sent: waiting for a connection or for room took all of it. Nothing
    /// was sent.
    #[error("{waited_ms} ms were over before the request could be sent to {address}")]
    TooLate {
        /// Whom it was for.
        address: Arc<str>,
        /// How long it waited, in milliseconds.
        waited_ms: u64,
    },
    /// The request cannot be written. Nothing was sent.
    #[error("the request cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// The broker has not shown that it is Mezzo, and others would ignore a part of the request in silence. Nothing was
    /// sent.
    #[error("{address} is not known to be a Mezzo broker: {what} cannot be sent to it")]
    NotMezzo {
        /// Whom it was for.
        address: Arc<str>,
        /// What only Mezzo has.
        what: &'static str,
    },
    /// The client is shut down. Nothing was sent.
    #[error("the client is shut down")]
    ShutDown,
    /// No answer came in time. The peer may have acted on the request.
    #[error("no answer from {address} within {waited_ms} ms")]
    TimedOut {
        /// Whom it was for.
        address: Arc<str>,
        /// How long it waited, in milliseconds.
        waited_ms: u64,
    },
    /// The connection ended before the answer. The peer may have acted on the request.
    #[error("the connection to {address} was lost before the answer: {reason}")]
    ConnectionLost {
        /// Whom it was for.
        address: Arc<str>,
        /// Why it ended.
        reason: String,
    },
    /// An answer came that cannot be read. The peer may have acted on the request.
    #[error("the answer of {address} cannot be read: {reason}")]
    Unreadable {
        /// Who answered.
        address: Arc<str>,
        /// What is wrong with it.
        #[source]
        reason: DecodeError,
    },
    /// The peer answered with an error code.
    #[error("{address} refused with code {} ({}): {remark}", code.0, code.name())]
    Refused {
        /// Who answered.
        address: Arc<str>,
        /// The code.
        code: ResponseCode,
        /// The peer's own words.
        remark: String,
    },
}

impl RequestError {
    /// Whether the peer may have acted on the request although there is no good answer. A refusal counts as "did not",
    /// except SYSTEM_ERROR: Apache's broker says that too when something goes wrong after it has stored a message.
    #[must_use]
    pub const fn may_have_acted(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::ConnectionLost { .. } | Self::Unreadable { .. } => true,
            Self::Refused { code, .. } => code.0 == ResponseCode::SYSTEM_ERROR.0,
            Self::Unreachable { .. }
            | Self::TooManyPending { .. }
            | Self::Congested { .. }
            | Self::TooLate { .. }
            | Self::Encode(_)
            | Self::NotMezzo { .. }
            | Self::ShutDown => false,
        }
    }

    /// Whether there was no connection to send on.
    pub(crate) const fn is_certainly_unsent(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether it says "not now" without having taken any time: the same request at once would hear it again.
    pub(crate) const fn comes_at_once(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::TooManyPending { .. })
    }

    /// Whether the same request can succeed later or elsewhere.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Encode(_) | Self::NotMezzo { .. } | Self::ShutDown => false,
            Self::Refused { code, .. } => is_retriable_code(*code),
            _ => true,
        }
    }

    /// The code, if the peer refused.
    #[must_use]
    pub const fn refusal(&self) -> Option<ResponseCode> {
        if let Self::Refused { code, .. } = self { Some(*code) } else { None }
    }
}

/// Codes after which RocketMQ's own clients try another queue. All but SYSTEM_ERROR say that nothing was stored.
fn is_retriable_code(code: ResponseCode) -> bool {
    [
        ResponseCode::SYSTEM_ERROR,
        ResponseCode::SYSTEM_BUSY,
        ResponseCode::SERVICE_NOT_AVAILABLE,
        ResponseCode::NO_PERMISSION,
        ResponseCode::TOPIC_NOT_EXIST,
        ResponseCode::FLOW_CONTROL,
        ResponseCode::GO_AWAY,
    ]
    .contains(&code)
}

/// Why the client could not start, find its way, or do a maintenance task.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use mezzo_client::{Client, Error};
///
/// let error = Client::connect("no port").await.unwrap_err();
/// assert!(matches!(error, Error::Config { setting: "name_servers", .. }) && !error.is_retriable());
/// # });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is not usable.
    #[error("{setting} is not usable: {reason}")]
    Config {
        /// The setting.
        setting: &'static str,
        /// What is wrong and what would do.
        reason: String,
    },
    /// The client already has a consumer or transaction producer of this group. Brokers know members by the client's id:
    /// two would be one to them, and take each other's messages or check-backs.
    #[error("this client already has a member of group {group}; use one client per member of a group")]
    DuplicateGroup {
        /// The group.
        group: GroupName,
    },
    /// The name servers know no queue of the topic that could be used.
    #[error(
        "no broker takes messages of topic {topic}: it does not exist and is not created by sending to it, its queues \
         cannot be written or read, or no broker is registered at the name servers"
    )]
    NoRoute {
        /// The topic.
        topic: TopicName,
    },
    /// No name server answered.
    #[error("no name server answered; the last one said: {last}")]
    NameServers {
        /// What the last one tried said.
        #[source]
        last: RequestError,
    },
    /// A broker did not answer well.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A reply body cannot be read.
    #[error("a reply cannot be read: {0}")]
    Decode(#[from] DecodeError),
}

impl Error {
    /// Whether the same call can succeed later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Config { .. } | Self::DuplicateGroup { .. } | Self::Decode(_) => false,
            Self::NoRoute { .. } => true,
            Self::NameServers { last } => last.is_retriable(),
            Self::Request(error) => error.is_retriable(),
        }
    }
}

/// Why a send did not end with a receipt. The variants answer the question that matters: is the message stored?
///
/// ```no_run
/// # async fn example(producer: mezzo_client::Producer, message: mezzo_client::Message) {
/// use mezzo_client::SendError;
///
/// match producer.send(message).await {
///     Ok(receipt) => println!("stored: {}", receipt.offset_message_id),
///     // Consumers that de-duplicate by the key may be sent it again; others need a look first.
///     Err(SendError::Unknown { unique_key, .. }) => println!("perhaps stored: {unique_key}"),
///     Err(error) if error.is_retriable() => println!("not stored, try again: {error}"),
///     Err(error) => println!("not stored, and trying again does not help: {error}"),
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message itself is at fault. It is **not** stored.
    #[error(transparent)]
    Message(#[from] crate::MessageError),
    /// There is no queue to send to. The message is **not** stored.
    #[error(transparent)]
    Route(#[from] Error),
    /// As many sends are in flight as allowed, and none ended in time. The message is **not** stored.
    #[error("{in_flight} sends are in flight; there was no room for another within {waited_ms} ms")]
    Saturated {
        /// How many sends are in flight; if that is less than `in_flight_max`, their bytes are the bound.
        in_flight: usize,
        /// How long it waited, in milliseconds.
        waited_ms: u64,
    },
    /// Every attempt surely failed. The message is **not** stored.
    #[error("not sent after {attempts} attempts: {last}")]
    NotSent {
        /// Attempts made.
        attempts: u32,
        /// What the last one said.
        #[source]
        last: RequestError,
    },
    /// At least one attempt may have stored the message, but no broker confirmed it. Sending it again may duplicate it:
    /// consumers see the same `unique_key` on both.
    #[error("the outcome is unknown after {attempts} attempts: {last}")]
    Unknown {
        /// The key of the message, under which it can be looked up.
        unique_key: Arc<str>,
        /// Attempts made.
        attempts: u32,
        /// What the last one said.
        #[source]
        last: RequestError,
    },
}

impl SendError {
    /// Whether the message may be stored although there is no receipt.
    #[must_use]
    pub const fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Whether sending again can succeed. With an unknown outcome it can also duplicate.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Message(_) => false,
            Self::Route(error) => error.is_retriable(),
            Self::Saturated { .. } => true,
            Self::NotSent { last, .. } | Self::Unknown { last, .. } => last.is_retriable(),
        }
    }
}

/// Why a transaction does not acknowledge a batch. Except after [`AckError::Again`] it can only be rolled back then: its
/// messages would be visible without the batch being done.
///
/// ```
/// use mezzo_client::AckError;
///
/// fn is_a_mistake(error: &AckError) -> bool {
///     // This one happens: the queue went to another member meanwhile, or an earlier batch was given back.
///     !matches!(error, AckError::Superseded)
/// }
/// assert!(is_a_mistake(&AckError::Again));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The queue's lease is over, or a batch before this one was given back: its messages come again in another batch, here
    /// or elsewhere.
    #[error("the batch counts no longer: its queue was lost or went back, and its messages come again")]
    Superseded,
    /// The batch is acknowledged already.
    #[error("the batch is acknowledged already")]
    Again,
    /// A batch of the queue that comes before this one is not acknowledged.
    #[error("the batch begins at offset {from}; the queue is acknowledged up to {expected}")]
    Gap {
        /// Up to where the queue is acknowledged.
        expected: QueueOffset,
        /// Where the batch begins.
        from: QueueOffset,
    },
    /// Another transaction that is still open has acknowledged a batch of the queue before this one.
    #[error("another transaction has acknowledged what comes before the batch and is still open")]
    OtherTransaction,
    /// One transaction moves the offsets of one group.
    #[error("the transaction moves offsets of the group {group}, and the batch belongs to {other}")]
    OtherGroup {
        /// The group of the transaction.
        group: GroupName,
        /// The group of the batch.
        other: GroupName,
    },
    /// One transaction is on one broker; this batch comes from another. Acknowledge before the first send, so that the
    /// messages go to the broker of the batch.
    #[error("the transaction is on {broker}, and the batch comes from {queue}")]
    OtherBroker {
        /// The broker of the transaction.
        broker: Arc<str>,
        /// The queue of the batch.
        queue: Box<MessageQueue>,
    },
    /// A transaction acknowledges at most 1,024 queues.
    #[error("a transaction moves the offsets of at most {TRANSACTION_OFFSETS_MAX} queues")]
    TooManyQueues,
    /// Messages were sent before the first batch was acknowledged. The first message of a transaction has to say that
    /// offsets move with it, or else a check-back could commit it without them.
    #[error("the first batch is acknowledged before the first message is sent")]
    AfterSend,
    /// A local transaction has begun, and its commit cannot be taken back when the broker refuses this one.
    #[error("a transaction with a local transaction acknowledges nothing: its commit could be refused")]
    LocalTransaction,
    /// A send or an acknowledgement has failed before: the transaction can only be rolled back.
    #[error("the transaction has failed before; it can only be rolled back")]
    FailedBefore,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ResponseCode) -> RequestError {
        RequestError::Refused { address: "a:1".into(), code, remark: "no".into() }
    }

    #[test]
    fn only_failures_after_the_write_leave_the_outcome_open() {
        let address: Arc<str> = "a:1".into();
        let lost = RequestError::ConnectionLost { address: Arc::clone(&address), reason: "reset".into() };
        let timed_out = RequestError::TimedOut { address: Arc::clone(&address), waited_ms: 1 };
        assert!(lost.may_have_acted() && timed_out.may_have_acted());
        assert!(!RequestError::Congested { address, waited_ms: 1 }.may_have_acted());
        assert!(!refused(ResponseCode::SYSTEM_BUSY).may_have_acted());
        assert!(refused(ResponseCode::SYSTEM_ERROR).may_have_acted(), "nobody knows when it went wrong");
    }

    #[test]
    fn a_busy_broker_is_worth_another_attempt_and_an_illegal_message_is_not() {
        assert!(refused(ResponseCode::SYSTEM_BUSY).is_retriable());
        assert!(!refused(ResponseCode::MESSAGE_ILLEGAL).is_retriable());
        assert!(!RequestError::ShutDown.is_retriable());
    }
}
