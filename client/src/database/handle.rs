//! The database as an application hands it to producers and consumers.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Pool;
use tokio::sync::OnceCell;

use super::barrier::{Key, Reason};
use super::dialect::Dialect;
use super::error::DatabaseError;
use super::local::LocalTransaction;
use crate::clock::random_seed;

/// Youngest age at which rows may be purged: a Mezzo broker's default horizon of decisions (`history.horizon`, 7 days) and
/// the default age at which it stops asking (`transaction.max_age`, 1 day).
pub const PURGE_AGE_MIN: Duration = Duration::from_secs(8 * 24 * 3600);
/// Most rows that one call of [`Database::purge`] deletes: its transaction stays short.
pub const PURGE_ROWS_MAX: u32 = 10_000;

/// Longest time of one step in the database that is not the application's own, from getting a connection to COMMIT.
const STEP_LIMIT: Duration = Duration::from_secs(30);
/// Longest time of one attempt to fence. Above the databases' own lock waits, which are the better answer.
const FENCE_LIMIT: Duration = Duration::from_secs(10);
/// Attempts to fence before the answer is "unknown".
const FENCE_ATTEMPTS_MAX: u32 = 3;

/// A database with a barrier table. Cheap to clone; all clones share the pool.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use mezzo_client::database::{Database, sqlx};
///
/// let db = Database::new(sqlx::SqlitePool::connect("sqlite:shop.db?mode=rwc").await?);
/// db.prepare_schema().await?;
/// # Ok(())
/// # }
/// ```
pub struct Database<DB: Dialect> {
    pool: Pool<DB>,
    /// Read once: it never changes.
    identity: Arc<OnceCell<String>>,
}

impl<DB: Dialect> Clone for Database<DB> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), identity: Arc::clone(&self.identity) }
    }
}

impl<DB: Dialect> Database<DB> {
    /// The database behind `pool`. Local transactions and check-backs take their connections from it: a check-back while
    /// all are taken waits, so give a pool of a busy service some connections more than it has workers.
    #[must_use]
    pub fn new(pool: Pool<DB>) -> Self {
        Self { pool, identity: Arc::new(OnceCell::new()) }
    }

    /// The pool, for everything else that the application does with its database.
    #[must_use]
    pub const fn pool(&self) -> &Pool<DB> {
        &self.pool
    }

    /// Creates the table `mezzo_barrier` where it is missing; harmless where it is there, also from several processes at
    /// one time. The statements stand in `docs/transactions.md`, for those who create tables themselves; they must then
    /// insert the first row too.
    ///
    /// # Errors
    /// If the database refuses, or takes more than 30 s.
    pub async fn prepare_schema(&self) -> Result<(), DatabaseError> {
        let identity = format!("{:016x}{:016x}", random_seed(), random_seed());
        within(STEP_LIMIT, "create the barrier table", DB::create(&self.pool, &identity)).await
    }

    /// Deletes at most [`PURGE_ROWS_MAX`] rows that are older than `age` by the database's clock, and says how many: call it
    /// now and then, and again at once while it deletes as many as it may.
    ///
    /// A row must outlive every question about its message. If the row of a committed local transaction is gone, a
    /// check-back finds nothing and would roll the message back, although the database has committed; if the row of a
    /// processed message is gone, the next delivery processes it again. So `age` must exceed
    ///
    /// - for producers: the broker's `history.horizon` plus its `transaction.max_age`, and the age of the oldest transaction
    ///   that waits for a person (`mezzo tx list --state in-doubt`). Below [`PURGE_AGE_MIN`], which is the sum of the
    ///   defaults, this refuses; about messages older than seven days a check-back never takes a missing row for a
    ///   rollback;
    /// - for consumers: how long a message can come again, which is the topic's retention.
    ///
    /// # Errors
    /// If `age` is below [`PURGE_AGE_MIN`], or the database fails.
    pub async fn purge(&self, age: Duration) -> Result<u64, DatabaseError> {
        if age < PURGE_AGE_MIN {
            return Err(DatabaseError::PurgeTooYoung);
        }
        within(STEP_LIMIT, "purge rows", DB::purge(&self.pool, age, PURGE_ROWS_MAX)).await
    }

    /// What tells this database from all others.
    pub(super) async fn identity(&self) -> Result<&str, DatabaseError> {
        let read = || async {
            let step = within(STEP_LIMIT, "show its barrier table", DB::identity(&self.pool));
            match step.await {
                Ok(identity) => identity.ok_or(DatabaseError::NotPrepared),
                Err(error) if error.is_answer() => {
                    tracing::warn!(%error, "the barrier table cannot be read");
                    Err(DatabaseError::NotPrepared)
                }
                Err(error) => Err(error),
            }
        };
        self.identity.get_or_try_init(read).await.map(String::as_str)
    }

    /// Begins a local transaction with its row; [`None`] if another stands in its place.
    pub(super) async fn begin(&self, key: &Key) -> Result<Option<LocalTransaction<DB>>, DatabaseError> {
        let begun = async {
            let mut tx = DB::begin(&self.pool).await?;
            let is_first = DB::insert(&mut tx, key, Reason::Commit).await?;
            Ok(is_first.then(|| LocalTransaction::new(tx)))
        };
        within(STEP_LIMIT, "begin the local transaction", begun).await
    }

    /// Commits, if the row is still there: else the transaction was undone in the meantime, and a COMMIT could answer with
    /// success all the same. The flag says whether COMMIT was sent.
    pub(super) async fn commit(
        &self,
        mut tx: LocalTransaction<DB>,
        key: &Key,
    ) -> Result<(), (DatabaseError, CommitSent)> {
        let found = within(STEP_LIMIT, "show the barrier row", DB::find(&mut tx, key)).await;
        match found {
            Ok(Some(Reason::Commit)) => {}
            other => {
                let error = match other {
                    Err(error) if !error.is_answer() => error,
                    _ => DatabaseError::Undone,
                };
                roll_back(tx).await;
                return Err((error, CommitSent(false)));
            }
        }
        within(STEP_LIMIT, "commit", tx.into_inner().commit())
            .await
            .map_err(|error| (error, CommitSent(true)))
    }

    /// Makes sure that one reason stands for good, and says which. While a local transaction runs it waits, though not
    /// long, and fails then.
    pub(super) async fn settle(&self, key: &Key) -> Result<Reason, DatabaseError> {
        let mut attempt = 1;
        loop {
            match within(FENCE_LIMIT, "fence the local transaction", DB::fence(&self.pool, key)).await {
                Ok(found) => return found.ok_or(DatabaseError::Vanished),
                Err(error) if error.is_transient() && attempt < FENCE_ATTEMPTS_MAX => {
                    tracing::debug!(%error, attempt, "another transaction stood in the way of a fence");
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The reason that stands, if any does.
    pub(super) async fn look(&self, key: &Key) -> Result<Option<Reason>, DatabaseError> {
        let found = async { DB::find(&mut *self.pool.acquire().await?, key).await };
        within(FENCE_LIMIT, "show the barrier row", found).await
    }
}

/// Whether the word COMMIT went out, so that its result may be unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommitSent(pub(super) bool);

/// Rolls back. If that fails, the connection is gone or will be, and the database rolls back by itself.
pub(super) async fn roll_back<DB: Dialect>(mut tx: LocalTransaction<DB>) {
    let rolled_back = async {
        DB::mend(&mut tx).await;
        tx.into_inner().rollback().await
    };
    if let Err(error) = within(STEP_LIMIT, "roll back", rolled_back).await {
        tracing::debug!(%error, "a rollback was not confirmed");
    }
}

async fn within<T>(
    limit: Duration,
    step: &'static str,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, DatabaseError> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(DatabaseError::TimedOut { step, limit }),
    }
}

impl<DB: Dialect> fmt::Debug for Database<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("kind", &DB::NAME).finish_non_exhaustive()
    }
}
