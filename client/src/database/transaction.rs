//! A message and a local transaction, both or neither.

use std::sync::Arc;

use super::barrier::{Key, Reason};
use super::check_back::Fence;
use super::dialect::Dialect;
use super::error::DatabaseError;
use super::handle::{CommitSent, Database, roll_back};
use super::local::LocalTransaction;
use crate::message::Message;
use crate::producer::{
    LocalError, Outcome, RollbackReason, RolledBackBecause, TransactionError, TransactionOutcome,
    TransactionProducer, TransactionProducerBuilder, UnknownReason,
};

/// What the local transaction came to.
enum Local {
    /// It is committed.
    Committed,
    /// It is rolled back, and nothing can commit it any more.
    RolledBack(RollbackReason),
    /// A check-back will find out.
    Open(LocalError),
}

impl TransactionProducerBuilder {
    /// Answers check-backs about messages of [`TransactionProducer::transaction`] by fencing them in `db`, see
    /// [`crate::database`]. A handler for other transactions of the group can be given beside it
    /// ([`TransactionProducerBuilder::check_back`]); without one they are answered "unknown".
    pub fn database<DB: Dialect>(self, db: &Database<DB>) -> Self {
        let fence = Fence::new(db);
        self.fence(Arc::new(move |group, half, now| {
            let fence = Arc::clone(&fence);
            Box::pin(async move { fence.check(&group, &half, now).await })
        }))
    }
}

impl TransactionProducer {
    /// Prepares `message`, runs `work` in a local transaction of `db`, commits that, and then the message. Exactly one of
    /// three things happens to both, whoever crashes when: committed, rolled back, or open until a check-back settles it
    /// without any code of the application ([`crate::database`] has the table of crashes).
    ///
    /// `work` gets the transaction, which it must not end itself. It may borrow from its surroundings. Its error rolls
    /// both back, and [`Outcome::RolledBack`] holds it.
    ///
    /// ```no_run
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example(
    /// #     producer: mezzo_client::TransactionProducer,
    /// #     db: mezzo_client::database::Database<mezzo_client::database::sqlx::Sqlite>,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// use mezzo_client::database::sqlx;
    /// use mezzo_client::{Message, Outcome, RollbackReason};
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// #[error("{0} is sold out")]
    /// struct SoldOut(String);
    ///
    /// let article = "coffee".to_owned();
    /// let outcome = producer
    ///     .transaction(&db, Message::new("orders", article.clone())?, async |tx| {
    ///         let taken = sqlx::query("UPDATE stock SET pieces = pieces - 1 WHERE article = ? AND pieces > 0")
    ///             .bind(&article)
    ///             .execute(&mut **tx)
    ///             .await?;
    ///         if taken.rows_affected() == 0 {
    ///             return Err(SoldOut(article.clone()).into());
    ///         }
    ///         Ok(())
    ///     })
    ///     .await?;
    /// match outcome {
    ///     Outcome::Committed(ids) => println!("{ids} is on its way"),
    ///     Outcome::RolledBack(_, RollbackReason::LocalFailed(why)) if why.inner().is::<SoldOut>() => println!("{why}"),
    ///     Outcome::RolledBack(ids, why) => println!("{ids} never happened: {why}"),
    ///     Outcome::Unknown(ids, why) => println!("{ids} will be settled by the check-back: {why}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionProducer::send_in_transaction`]; `work` has not run then, except with
    /// [`TransactionError::Conflict`]. Also if the producer was started without
    /// [`TransactionProducerBuilder::database`], or the barrier table cannot be read.
    pub async fn transaction<DB: Dialect>(
        &self,
        db: &Database<DB>,
        message: Message,
        work: impl AsyncFnOnce(&mut LocalTransaction<DB>) -> Result<(), LocalError>,
    ) -> Result<Outcome, TransactionError> {
        if !self.is_fenced() {
            return Err(TransactionError::Database(DatabaseError::NoCheckBack.into()));
        }
        let identity = db.identity().await.map_err(|error| TransactionError::Database(error.into()))?;
        let message = message.fenced_with(identity).map_err(crate::SendError::from)?;
        let prepared = self.prepare(message).await?;
        let local = match Key::of_sending(self.group(), &prepared.ids().unique_key) {
            Ok(key) => run(db, &key, work).await,
            Err(error) => Local::Open(error.into()),
        };
        match local {
            Local::Committed => prepared.commit().await,
            Local::RolledBack(why) => Ok(match prepared.rollback().await? {
                Outcome::RolledBack(ids, _) => Outcome::RolledBack(ids, why),
                other => {
                    tracing::info!(%why, "rolled back in the database, not confirmed by the broker");
                    other
                }
            }),
            Local::Open(error) => Ok(prepared.leave_open_because(UnknownReason::LocalFailed(error))),
        }
    }
}

impl TransactionProducer {
    /// As [`TransactionProducer::transaction`] with up to 1,000 messages to any topics and queues of one broker: the local
    /// transaction and all of them, or none. Only Mezzo brokers have that.
    ///
    /// ```no_run
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example(
    /// #     producer: mezzo_client::TransactionProducer,
    /// #     db: mezzo_client::database::Database<mezzo_client::database::sqlx::Sqlite>,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// use mezzo_client::Message;
    /// use mezzo_client::database::sqlx;
    ///
    /// let messages = [Message::new("orders", "coffee")?, Message::new("bills", "2.40")?];
    /// let outcome = producer
    ///     .transaction_many(&db, messages, async |tx| {
    ///         sqlx::query("UPDATE stock SET pieces = pieces - 1").execute(&mut **tx).await?;
    ///         Ok(())
    ///     })
    ///     .await?;
    /// println!("{outcome}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`TransactionProducer::transaction`]; and if not all messages could be stored. `work` has not run then, and the
    /// messages are rolled back.
    pub async fn transaction_many<DB: Dialect>(
        &self,
        db: &Database<DB>,
        messages: impl IntoIterator<Item = Message>,
        work: impl AsyncFnOnce(&mut LocalTransaction<DB>) -> Result<(), LocalError>,
    ) -> Result<TransactionOutcome, TransactionError> {
        if !self.is_fenced() {
            return Err(TransactionError::Database(DatabaseError::NoCheckBack.into()));
        }
        let identity = db.identity().await.map_err(|error| TransactionError::Database(error.into()))?;
        let mut tx = self.begin().await?;
        // Check-backs show the first message.
        let mut is_first = true;
        let mut fence = |message: Message| {
            if std::mem::take(&mut is_first) { message.fenced_with(identity) } else { Ok(message) }
        };
        let messages: Result<Vec<Message>, _> = messages.into_iter().map(&mut fence).collect();
        let messages = messages.map_err(crate::SendError::from)?;
        // An error drops the transaction, which rolls it back: the local one has not begun.
        tx.send_all(messages).await.map_err(|error| TransactionError::Join(Box::new(error)))?;
        let id = tx.begin_local().map_err(|error| TransactionError::Join(Box::new(error)))?;
        let local = match Key::of_sending(self.group(), &id) {
            Ok(key) => run(db, &key, work).await,
            Err(error) => Local::Open(error.into()),
        };
        Ok(match local {
            Local::Committed => tx.commit().await,
            Local::RolledBack(why) => match tx.rollback().await {
                TransactionOutcome::RolledBack(name, _) => {
                    TransactionOutcome::RolledBack(name, RolledBackBecause::Local(why))
                }
                other => {
                    tracing::info!(%why, "rolled back in the database, not confirmed by the broker");
                    other
                }
            },
            Local::Open(error) => {
                TransactionOutcome::Unknown(tx.leave_open(), UnknownReason::LocalFailed(error))
            }
        })
    }
}

/// The local transaction from BEGIN to its end.
async fn run<DB: Dialect>(
    db: &Database<DB>,
    key: &Key,
    work: impl AsyncFnOnce(&mut LocalTransaction<DB>) -> Result<(), LocalError>,
) -> Local {
    let mut tx = match db.begin(key).await {
        Ok(Some(tx)) => tx,
        Ok(None) => return settle(db, key, DatabaseError::Fenced.into(), CommitSent(false)).await,
        Err(error) => return settle(db, key, error.into(), CommitSent(false)).await,
    };
    if let Err(error) = work(&mut tx).await {
        roll_back(tx).await;
        return settle(db, key, error, CommitSent(false)).await;
    }
    match db.commit(tx, key).await {
        Ok(()) => Local::Committed,
        // The way to the database broke while it committed: only a later look can tell.
        Err((error, CommitSent(true))) if !error.is_answer() => Local::Open(error.into()),
        Err((error, sent)) => settle(db, key, error.into(), sent).await,
    }
}

/// The local transaction failed with `error` and is over, or will be as soon as the database notices: nothing is said to
/// the broker before the fence stands.
async fn settle<DB: Dialect>(db: &Database<DB>, key: &Key, error: LocalError, sent: CommitSent) -> Local {
    match db.settle(key).await {
        Ok(Reason::Rollback) => {
            let fenced = error.inner().downcast_ref::<DatabaseError>();
            Local::RolledBack(match fenced {
                Some(DatabaseError::Fenced) => RollbackReason::Fenced,
                _ => RollbackReason::LocalFailed(error),
            })
        }
        Ok(Reason::Commit) if sent == CommitSent(true) => Local::Committed,
        Ok(Reason::Commit) => {
            tracing::error!(%error, "a local transaction failed, and its barrier row is committed: was it ended inside the closure?");
            Local::Open(error)
        }
        Err(fence) => {
            tracing::warn!(%fence, %error, "a failed local transaction is left to the check-back");
            Local::Open(error)
        }
    }
}
