//! What can go wrong with a database, and with processing a message in one.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::producer::LocalError;

/// Why a database did not do its part.
///
/// ```
/// use mezzo_client::database::DatabaseError;
///
/// fn advice(error: &DatabaseError) -> &'static str {
///     match error {
///         DatabaseError::NotPrepared => "call prepare_schema when the service starts",
///         DatabaseError::Fenced => "nothing has run; begin again with a new message",
///         _ => "see the log",
///     }
/// }
/// assert_eq!(advice(&DatabaseError::NotPrepared), "call prepare_schema when the service starts");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The database or the way to it failed.
    #[error("{0}")]
    Sqlx(#[source] Arc<sqlx::Error>),
    /// There is no barrier table, or one without its first row.
    #[error("the table mezzo_barrier is not prepared: call Database::prepare_schema once")]
    NotPrepared,
    /// The local transaction was over before its commit: a statement failed and ended it, and the closure did not return
    /// that statement's error. Nothing that belongs to it was committed.
    #[error("the local transaction was undone before its commit: return the errors of its statements")]
    Undone,
    /// A check-back came before the local transaction, which has run nothing.
    #[error("a check-back has rolled this transaction back before it began")]
    Fenced,
    /// It took too long, which does not say what the database did.
    #[error("the database did not {step} within {} s", limit.as_secs())]
    TimedOut {
        /// What it was to do.
        step: &'static str,
        /// The bound.
        limit: Duration,
    },
    /// A row that was just there is gone: somebody deletes rows too early.
    #[error("a row of mezzo_barrier vanished while it was needed: are rows purged too early?")]
    Vanished,
    /// The key of a message cannot key a row.
    #[error("a message key has {got} bytes; 1 to {max} without control characters can be kept")]
    Key {
        /// Its length in bytes.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// The producer was started without [`database`](crate::TransactionProducerBuilder::database): nobody could answer the
    /// broker's questions.
    #[error("the producer was started without a database to answer check-backs from")]
    NoCheckBack,
    /// Rows that young may still be asked about.
    #[error("rows younger than {} days must be kept", super::PURGE_AGE_MIN.as_secs() / 86_400)]
    PurgeTooYoung,
}

impl DatabaseError {
    /// Whether the same can succeed if it is tried again at once: two transactions stood in each other's way, and this
    /// one was undone.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Sqlx(error) => {
                let code = error.as_database_error().and_then(|error| error.code());
                // Serialisation failure (also what MySQL calls a deadlock) and deadlock, as SQLSTATE.
                code.is_some_and(|code| ["40001", "40P01"].contains(&&*code))
            }
            _ => false,
        }
    }

    /// Whether the database itself said so, so that whatever it was asked to do is over.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Sqlx(error) if error.as_database_error().is_some())
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlx(Arc::new(error))
    }
}

/// Why a message was not processed. Let it be delivered again, whatever it is: if the local transaction was committed all
/// the same, the next delivery finds that out.
///
/// ```
/// use mezzo_client::database::{DatabaseError, ProcessError};
///
/// let error = ProcessError::from(DatabaseError::NotPrepared);
/// assert!(error.to_string().contains("prepare_schema"));
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The closure failed, and its transaction was rolled back.
    #[error("{0}")]
    Local(LocalError),
    /// The database failed; if it was the commit that failed, the work may be committed.
    #[error("{0}")]
    Database(#[from] DatabaseError),
    /// The name of the group is not valid.
    #[error("{0}")]
    Group(#[source] Error),
}
