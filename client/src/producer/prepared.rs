//! A transaction between prepare and decision.

use std::fmt;
use std::sync::Arc;

use mezzo_protocol::remoting::header::end_transaction::Resolution;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use super::end_transaction::{EndAnswer, EndFields, end};
use super::outcome::{Outcome, RollbackReason, TransactionError, TransactionIds, UnknownReason};
use super::transaction::Inner;
use crate::core::open_transactions::Decision;
use crate::net::Deadline;

/// What the local part of a transaction may want to write down.
///
/// ```
/// use mezzo_client::{LocalError, LocalOutcome, TransactionContext};
///
/// async fn local(context: TransactionContext) -> Result<LocalOutcome, LocalError> {
///     // In the same database transaction as the order itself, so that the check-back finds both or neither.
///     let _record = format!("INSERT INTO outcomes VALUES ('{}')", context.unique_key());
///     Ok(LocalOutcome::Commit)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct TransactionContext {
    ids: Arc<TransactionIds>,
}

impl TransactionContext {
    /// The ids of the transaction.
    #[must_use]
    pub fn ids(&self) -> &TransactionIds {
        &self.ids
    }

    /// The key under which the local part records its outcome, so that a check-back finds it: the same as
    /// [`ReceivedMessage::unique_key`](crate::ReceivedMessage::unique_key) in the check-back handler.
    #[must_use]
    pub fn unique_key(&self) -> &str {
        &self.ids.unique_key
    }
}

/// A transaction whose half message is stored and whose decision is open. Nobody sees the message yet.
///
/// ```no_run
/// # async fn take_order(_key: &str) -> Result<bool, std::io::Error> { Ok(true) }
/// # async fn example(producer: mezzo_client::TransactionProducer) -> Result<(), Box<dyn std::error::Error>> {
/// use mezzo_client::Message;
///
/// let prepared = producer.prepare(Message::new("orders", "one coffee")?).await?;
/// // An early return here, by `?`, drops it: the check-back handler decides then.
/// let taken = take_order(prepared.context().unique_key()).await?;
/// let outcome = if taken { prepared.commit().await? } else { prepared.rollback().await? };
/// println!("{outcome}");
/// # Ok(())
/// # }
/// ```
///
/// Decide with [`Prepared::commit`] or [`Prepared::rollback`]. If it is dropped instead (a panic, a cancelled task, an
/// early return), the broker is told "unknown" and asks the group's check-back handler.
#[must_use = "dropping a prepared transaction leaves the decision to the check-back handler"]
pub struct Prepared {
    inner: Arc<Inner>,
    ids: Arc<TransactionIds>,
    fields: EndFields,
    address: Arc<str>,
    /// Set when the decision was taken, so that the destructor has nothing to say.
    decided: bool,
    _place: OwnedSemaphorePermit,
}

impl Prepared {
    pub(super) fn new(
        inner: Arc<Inner>,
        ids: TransactionIds,
        fields: EndFields,
        address: Arc<str>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { inner, ids: Arc::new(ids), fields, address, decided: false, _place: place }
    }

    /// The ids of the transaction.
    #[must_use]
    pub fn ids(&self) -> &TransactionIds {
        &self.ids
    }

    /// What the local part may want to write down.
    #[must_use]
    pub fn context(&self) -> TransactionContext {
        TransactionContext { ids: Arc::clone(&self.ids) }
    }

    /// Makes the message visible. Call it after the local transaction has committed.
    ///
    /// # Errors
    /// [`TransactionError::Conflict`] if a rollback was recorded before. If the broker does not confirm, that is no
    /// error but [`Outcome::Unknown`].
    pub async fn commit(self) -> Result<Outcome, TransactionError> {
        self.decide(Decision::Commit).await
    }

    /// Discards the message. Call it only if the local transaction can no longer commit.
    ///
    /// # Errors
    /// [`TransactionError::Conflict`] if a commit was recorded before. If the broker does not confirm, that is no
    /// error but [`Outcome::Unknown`].
    pub async fn rollback(self) -> Result<Outcome, TransactionError> {
        self.decide(Decision::Rollback).await
    }

    /// Leaves the decision to the check-back handler: the broker is told "unknown" and asks later.
    pub fn leave_open(self) -> Outcome {
        self.leave_open_because(UnknownReason::Undecided)
    }

    pub(crate) fn leave_open_because(self, reason: UnknownReason) -> Outcome {
        // The destructor tells the broker.
        Outcome::Unknown((*self.ids).clone(), reason)
    }

    async fn decide(mut self, decision: Decision) -> Result<Outcome, TransactionError> {
        self.decided = true;
        // From here on a check-back is answered with this decision, even if this call is cancelled.
        let deciding = Deciding::new(&self.inner, &self.ids.unique_key, decision);
        let deadline = Deadline::after_ms(self.inner.config.end_timeout_ms);
        let broker = &self.ids.queue.broker_name;
        let sender = &self.inner.sender;
        let repeatable = &self.inner.repeatable_ends;
        let span = tracing::debug_span!(
            "end_transaction", group = %sender.group, broker = &**broker, key = %self.ids.unique_key, ?decision
        );
        let ending = end(sender, broker, &self.address, &self.fields, decision, repeatable, deadline);
        let answer = ending.instrument(span).await;
        let ids = (*self.ids).clone();
        match answer {
            EndAnswer::Confirmed => {
                deciding.settled();
                Ok(match decision {
                    Decision::Commit => Outcome::Committed(ids),
                    Decision::Rollback => Outcome::RolledBack(ids, RollbackReason::Decided),
                })
            }
            EndAnswer::Conflict(recorded) => {
                deciding.settled();
                let wanted = decision.local_outcome();
                Err(TransactionError::Conflict { ids: Box::new(ids), wanted, recorded })
            }
            EndAnswer::Refused(error) => Ok(Outcome::Unknown(ids, UnknownReason::Refused(error))),
            EndAnswer::NotConfirmed(error) => Ok(Outcome::Unknown(ids, UnknownReason::NotConfirmed(error))),
        }
    }
}

/// A decision that the broker is being told. Unless that ends with a word of the broker, a check-back is answered with
/// the decision.
struct Deciding<'a> {
    inner: &'a Inner,
    unique_key: &'a Arc<str>,
    decision: Decision,
    settled: bool,
}

impl<'a> Deciding<'a> {
    fn new(inner: &'a Inner, unique_key: &'a Arc<str>, decision: Decision) -> Self {
        inner.open().deciding(unique_key, decision);
        Self { inner, unique_key, decision, settled: false }
    }

    /// The broker said what is recorded: nobody will ask.
    fn settled(mut self) {
        self.inner.open().forget(self.unique_key);
        self.settled = true;
    }
}

impl Drop for Deciding<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.inner.open().decided(self.unique_key, self.decision);
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if self.decided {
            return;
        }
        self.inner.open().forget(&self.ids.unique_key);
        let command = self.fields.command(Resolution::Unknown).oneway();
        let connection = self.inner.sender.client.shared().open_connection(&self.address);
        let told = connection.is_some_and(|connection| connection.try_send(&command).is_ok());
        tracing::debug!(ids = %self.ids, told, "left open; the broker will ask");
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("ids", &self.ids).finish_non_exhaustive()
    }
}
