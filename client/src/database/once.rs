//! Processing a message exactly once: the work and the note that it was done are one local transaction.

use super::barrier::Key;
use super::dialect::Dialect;
use super::error::ProcessError;
use super::handle::{CommitSent, Database, roll_back};
use super::local::LocalTransaction;
use crate::client::group_name;
use crate::consumer::Verdict;
use crate::message::ReceivedMessage;
use crate::producer::LocalError;

/// What became of a delivery.
///
/// ```
/// use mezzo_client::Verdict;
/// use mezzo_client::database::{ProcessError, Processed};
///
/// let first = Processed::Done(3);
/// assert!(first.is_first() && !Processed::<i32>::AlreadyDone.is_first());
/// // both are the end of the message
/// for processed in [first, Processed::AlreadyDone] {
///     assert_eq!(Verdict::from(Ok::<_, ProcessError>(processed)), Verdict::Done);
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a repeat has run nothing"]
pub enum Processed<T> {
    /// The work ran now, and is committed; what it returned.
    Done(T),
    /// An earlier delivery did it. Nothing has run.
    AlreadyDone,
}

impl<T> Processed<T> {
    /// Whether the work ran now.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// Processes `message` in a local transaction of `db`, once per `group` however often it is delivered: after a crash, a
/// rebalance, a retry, or because its producer sent it again under the same unique key. Deliveries at one time wait for
/// each other. An error of `work` rolls back, and the next delivery runs it again.
///
/// Repeats are found by the message's unique key; without a usable one (1 to 255 bytes, no control characters) by the
/// place of its first record. A Java producer that sends one `Message` object twice on purpose gives both the same key:
/// name such messages by a key of your own with [`process_once_as`].
///
/// Its result is a handler's [`Verdict`]: done, or deliver it again.
///
/// ```no_run
/// # #[cfg(feature = "sqlite")]
/// # async fn example(
/// #     client: mezzo_client::Client,
/// #     db: mezzo_client::database::Database<mezzo_client::database::sqlx::Sqlite>,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use mezzo_client::ReceivedMessage;
/// use mezzo_client::database::{process_once, sqlx};
///
/// let consumer = client
///     .push_consumer("shipping")
///     .subscribe("orders", "*")
///     .handler(move |message: ReceivedMessage| {
///         let db = db.clone();
///         async move {
///             process_once(&db, "shipping", &message, async |tx| {
///                 sqlx::query("INSERT INTO parcels (content) VALUES (?)")
///                     .bind(&message.body()[..])
///                     .execute(&mut **tx)
///                     .await?;
///                 Ok(())
///             })
///             .await
///         }
///     })
///     .start()
///     .await?;
/// # consumer.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the work or the database failed. After a failed commit the work may be done; the next delivery finds out.
pub async fn process_once<DB: Dialect, T>(
    db: &Database<DB>,
    group: &str,
    message: &ReceivedMessage,
    work: impl AsyncFnOnce(&mut LocalTransaction<DB>) -> Result<T, LocalError>,
) -> Result<Processed<T>, ProcessError> {
    let group = group_name(group).map_err(ProcessError::Group)?;
    process(db, &Key::of_processing(group, message)?, work).await
}

/// As [`process_once`], under a name of the application's own, such as the number of an order: what has the same name is
/// the same. 1 to 255 bytes without control characters.
///
/// # Errors
/// As [`process_once`], or if the name cannot be kept.
pub async fn process_once_as<DB: Dialect, T>(
    db: &Database<DB>,
    group: &str,
    name: &str,
    work: impl AsyncFnOnce(&mut LocalTransaction<DB>) -> Result<T, LocalError>,
) -> Result<Processed<T>, ProcessError> {
    let group = group_name(group).map_err(ProcessError::Group)?;
    process(db, &Key::of_processing_as(group, name)?, work).await
}

async fn process<DB: Dialect, T>(
    db: &Database<DB>,
    key: &Key,
    work: impl AsyncFnOnce(&mut LocalTransaction<DB>) -> Result<T, LocalError>,
) -> Result<Processed<T>, ProcessError> {
    let Some(mut tx) = db.begin(key).await? else { return Ok(Processed::AlreadyDone) };
    match work(&mut tx).await {
        Ok(done) => match db.commit(tx, key).await {
            Ok(()) => Ok(Processed::Done(done)),
            Err((error, CommitSent(sent))) => {
                tracing::debug!(%error, sent, "a message was not processed for certain");
                Err(error.into())
            }
        },
        Err(error) => {
            roll_back(tx).await;
            Err(ProcessError::Local(error))
        }
    }
}

/// Done, now or before, is [`Verdict::Done`]; an error is logged and means [`Verdict::Retry`].
impl<T> From<Result<Processed<T>, ProcessError>> for Verdict {
    fn from(result: Result<Processed<T>, ProcessError>) -> Self {
        result.map(drop).into()
    }
}
