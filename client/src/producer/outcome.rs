//! How a transaction ended, and the words for it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use mezzo_protocol::ids::{MessageQueue, OffsetMessageId, TopicName};

use super::many::TransactionName;
use crate::error::{Error, RequestError, SendError};

/// What the local part of a transaction came to, said by the application.
///
/// ```
/// use mezzo_client::LocalOutcome;
///
/// let row: Option<&str> = Some("paid");
/// let outcome = match row {
///     Some("paid") => LocalOutcome::Commit,
///     Some("refused") => LocalOutcome::Rollback,
///     // No row yet is no rollback: it may be written in this moment.
///     _ => LocalOutcome::Unknown,
/// };
/// assert_eq!(outcome, LocalOutcome::Commit);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LocalOutcome {
    /// The local transaction is committed: deliver the message.
    Commit,
    /// The local transaction is rolled back, for good: never deliver the message.
    Rollback,
    /// Not known now: the broker asks again later. The right answer whenever there is a doubt.
    Unknown,
}

/// The error of an application's own code, of any type: `?` turns every error into it. It means
/// [`LocalOutcome::Unknown`], never a rollback: a database call that failed may still have committed.
///
/// ```
/// use mezzo_client::{LocalError, LocalOutcome};
///
/// fn parse(amount: &str) -> Result<LocalOutcome, LocalError> {
///     let _amount: u32 = amount.parse()?;
///     Ok(LocalOutcome::Commit)
/// }
/// assert!(parse("a lot").unwrap_err().inner().is::<std::num::ParseIntError>());
/// ```
#[derive(Clone)]
pub struct LocalError {
    source: Arc<dyn StdError + Send + Sync>,
}

impl LocalError {
    /// The application's error.
    #[must_use]
    pub fn inner(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.source
    }
}

// Not an `Error` itself: the conversion below could not be for all errors then. `inner` gives the error.
impl<E: StdError + Send + Sync + 'static> From<E> for LocalError {
    fn from(error: E) -> Self {
        Self { source: Arc::new(error) }
    }
}

impl fmt::Debug for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

/// What identifies a transaction, to the broker and to consumers.
///
/// ```
/// use mezzo_client::TransactionIds;
///
/// fn for_the_operator(ids: &TransactionIds) -> String {
///     format!("mezzo tx show {}   # on {}", ids.offset_message_id.physical_offset, ids.queue.broker_name)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionIds {
    /// The transaction's id, as the broker gave it.
    pub transaction_id: Arc<str>,
    /// The unique key of the message: what consumers see, and what a check-back asks about.
    pub unique_key: Arc<str>,
    /// Where the half message is stored.
    pub offset_message_id: OffsetMessageId,
    /// The topic of the message.
    pub topic: TopicName,
    /// The queue it was prepared for.
    pub queue: MessageQueue,
}

impl TransactionIds {
    /// What another process of the producer group needs to finish this transaction on a broker of Mezzo's, if this process
    /// dies between its local commit and the broker's word: written down beside the work, and handed to
    /// [`TransactionProducer::commit_named`](crate::TransactionProducer::commit_named).
    ///
    /// ```no_run
    /// # async fn example(producer: mezzo_client::TransactionProducer) -> Result<(), Box<dyn std::error::Error>> {
    /// let prepared = producer.prepare(mezzo_client::Message::new("orders", "one coffee")?).await?;
    /// let name = prepared.ids().name();
    /// std::mem::forget(prepared); // this process is killed here; another one goes on
    /// println!("{}", producer.commit_named(&name).await);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn name(&self) -> TransactionName {
        TransactionName {
            id: Arc::clone(&self.unique_key),
            broker_name: Some(Arc::clone(&self.queue.broker_name)),
            messages: 1,
            moves_offsets: false,
        }
    }
}

impl fmt::Display for TransactionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {} (message {})", self.transaction_id, self.unique_key)
    }
}

/// Why an outcome is unknown.
///
/// ```
/// use mezzo_client::UnknownReason;
///
/// fn is_ours_to_mend(why: &UnknownReason) -> bool {
///     matches!(why, UnknownReason::Undecided | UnknownReason::LocalFailed(_))
/// }
/// assert!(is_ours_to_mend(&UnknownReason::Undecided));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum UnknownReason {
    /// The local part said so.
    Undecided,
    /// The local part failed, which does not say what its database did.
    LocalFailed(LocalError),
    /// The decision was sent, and no answer came: the broker may have recorded it or not. What may have happened stands
    /// in the error.
    NotConfirmed(RequestError),
    /// The broker refused the decision without saying what is recorded; the remark says why.
    Refused(RequestError),
    /// Offsets move with the transaction, and only the process that has acknowledged its batches can commit it. Nothing was
    /// sent.
    NeedsOffsets,
}

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecided => f.write_str("the local part did not decide"),
            Self::LocalFailed(error) => write!(f, "the local part failed: {error}"),
            Self::NotConfirmed(error) => write!(f, "the decision was not confirmed: {error}"),
            Self::Refused(error) => write!(f, "the decision was not taken: {error}"),
            Self::NeedsOffsets => f.write_str("only the process that acknowledged its batches can commit it"),
        }
    }
}

/// Why a transaction was rolled back.
///
/// ```
/// use mezzo_client::RollbackReason;
///
/// fn for_the_customer(why: &RollbackReason) -> String {
///     match why {
///         RollbackReason::LocalFailed(error) => format!("not ordered: {error}"),
///         _ => "not ordered".to_owned(),
///     }
/// }
/// assert_eq!(for_the_customer(&RollbackReason::Decided), "not ordered");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RollbackReason {
    /// The local part said so.
    Decided,
    /// The local part failed, and its database transaction was rolled back.
    LocalFailed(LocalError),
    /// A check-back of the group came before the local transaction, which has run nothing.
    Fenced,
}

impl fmt::Display for RollbackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decided => f.write_str("the local part decided so"),
            Self::LocalFailed(error) => write!(f, "the local part failed: {error}"),
            Self::Fenced => f.write_str("a check-back came before the local transaction"),
        }
    }
}

/// How a transaction ended. There is no "failed": either the broker has confirmed a decision, or it will ask.
///
/// ```
/// use mezzo_client::Outcome;
///
/// fn reply(outcome: &Outcome) -> &'static str {
///     match outcome {
///         Outcome::Committed(_) => "ordered",
///         Outcome::RolledBack(..) => "not ordered",
///         Outcome::Unknown(..) => "we will tell you",
///     }
/// }
/// ```
///
/// It cannot be overlooked: this does not compile where unused results are denied.
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # use mezzo_client::{Prepared, TransactionError};
/// async fn forgets(prepared: Prepared) -> Result<(), TransactionError> {
///     prepared.commit().await?;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
#[must_use = "an outcome may be Unknown: then the check-back handler decides later"]
pub enum Outcome {
    /// The broker confirmed the commit: the message is or will be delivered.
    Committed(TransactionIds),
    /// The broker confirmed the rollback: the message is never delivered.
    RolledBack(TransactionIds, RollbackReason),
    /// Open as far as this process knows. The broker asks the group's [`CheckBack`](crate::CheckBack) handlers until
    /// it has a decision; if this process decided, its answer is the same decision.
    Unknown(TransactionIds, UnknownReason),
}

impl Outcome {
    /// What identifies the transaction.
    #[must_use]
    pub const fn ids(&self) -> &TransactionIds {
        match self {
            Self::Committed(ids) | Self::RolledBack(ids, _) | Self::Unknown(ids, _) => ids,
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
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed(ids) => write!(f, "{ids} is committed"),
            Self::RolledBack(ids, reason) => write!(f, "{ids} is rolled back: {reason}"),
            Self::Unknown(ids, reason) => write!(f, "the outcome of {ids} is unknown: {reason}"),
        }
    }
}

/// Why a transaction did not come to an [`Outcome`].
///
/// ```
/// use mezzo_client::TransactionError;
///
/// fn log(error: &TransactionError) {
///     match error {
///         TransactionError::Conflict { ids, recorded, .. } => eprintln!("{ids} is {recorded}: a person must look"),
///         other if other.is_retriable() => eprintln!("nothing was done, try again: {other}"),
///         other => eprintln!("nothing was done: {other}"),
///     }
/// }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The half message was not prepared, so the local part was **not** run. If the half may be stored all the same
    /// ([`SendError::is_outcome_unknown`]), this client answers the broker's check-back with a rollback.
    #[error("the transaction was not prepared: {0}")]
    Prepare(#[from] SendError),
    /// The database of [`TransactionProducer::transaction`](crate::TransactionProducer) cannot be used. Nothing was
    /// prepared, and the local part was **not** run.
    #[error("the database cannot be used: {0}")]
    Database(LocalError),
    /// The broker stored the half less safely than it is set to. The local part was **not** run; the broker is told to
    /// roll back, and if it does not hear that, its check-back is answered so while this process lives.
    #[error("the half message was not stored safely ({0:?}); it is being rolled back")]
    NotSafe(super::Stored),
    /// The producer is shut down. The local part was **not** run.
    #[error("the transaction was not begun: {0}")]
    NotBegun(#[source] Error),
    /// As many transactions are running as `running_max` allows, and none was decided in time. The local part was
    /// **not** run.
    #[error("{running} transactions are running; none was decided within {waited_ms} ms (see running_max)")]
    Saturated {
        /// The bound that was reached.
        running: usize,
        /// How long it waited, in milliseconds.
        waited_ms: u64,
    },
    /// Not all messages of a transaction of many were stored, so the local part was **not** run, and they are rolled back.
    #[error("the transaction was not prepared: {0}")]
    Join(#[source] Box<super::ManyError>),
    /// The broker had recorded the opposite decision before this one. The recorded one stands: compare it with what
    /// the local transaction did.
    #[error("{ids}: {wanted:?} was refused, the recorded decision is {recorded}")]
    Conflict {
        /// The transaction.
        ids: Box<TransactionIds>,
        /// What was asked for.
        wanted: LocalOutcome,
        /// What is recorded, in the broker's word.
        recorded: String,
    },
}

impl TransactionError {
    /// Whether the whole transaction can be tried again. The local part has not run then.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Prepare(error) => error.is_retriable(),
            Self::NotSafe(_) | Self::Saturated { .. } => true,
            Self::NotBegun(error) => error.is_retriable(),
            Self::Join(error) => matches!(&**error, super::ManyError::Send(error) if error.is_retriable()),
            Self::Database(_) | Self::Conflict { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_becomes_a_local_error_by_question_mark() {
        fn local() -> Result<LocalOutcome, LocalError> {
            let _number: u32 = "none".parse()?;
            Ok(LocalOutcome::Commit)
        }
        let error = local().unwrap_err();
        assert!(error.inner().is::<std::num::ParseIntError>());
        assert_eq!(error.to_string(), "invalid digit found in string");
    }
}
