//! What a database must be able to do for the barrier; one file per database implements it.

use std::future::Future;
use std::time::Duration;

use sqlx::{Pool, Transaction};

use super::barrier::{Key, Reason};

/// Longest wait of a check-back for a local transaction that still runs; then it says "unknown" and is asked again.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) const FENCE_LOCK_WAIT: Duration = Duration::from_secs(2);

/// A database that can hold a barrier: [`sqlx::Sqlite`], [`sqlx::Postgres`], [`sqlx::MySql`], each with its feature.
pub trait Dialect: sqlx::Database + steps::Steps {}

/// Public only for the compiler: nobody else implements or calls it.
pub(super) mod steps {
    use super::*;

    /// The steps, with this database's words and locks.
    pub trait Steps: sqlx::Database {
        /// Makes the table and its index, and its first row with `identity`, where they are not there yet.
        fn create(pool: &Pool<Self>, identity: &str) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

        /// The identity in the first row.
        fn identity(pool: &Pool<Self>) -> impl Future<Output = Result<Option<String>, sqlx::Error>> + Send;

        /// Begins a local transaction, which is about to write.
        fn begin(
            pool: &Pool<Self>,
        ) -> impl Future<Output = Result<Transaction<'static, Self>, sqlx::Error>> + Send;

        /// Makes sure that a ROLLBACK succeeds, also of a transaction that was undone before.
        fn mend(_connection: &mut Self::Connection) -> impl Future<Output = ()> + Send {
            std::future::ready(())
        }

        /// Inserts a row; `false` if there is one with this key. Waits for a transaction that has inserted it and is not
        /// over. Does not end the transaction if there is one.
        fn insert(
            connection: &mut Self::Connection,
            key: &Key,
            reason: Reason,
        ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

        /// The reason in the row of `key`, as this connection's transaction sees it.
        fn find(
            connection: &mut Self::Connection,
            key: &Key,
        ) -> impl Future<Output = Result<Option<Reason>, sqlx::Error>> + Send;

        /// Inserts [`Reason::Rollback`] in a transaction of its own, commits, and reads the reason that stands in a snapshot
        /// taken after that. Waits for a local transaction that still runs, but not long.
        fn fence(
            pool: &Pool<Self>,
            key: &Key,
        ) -> impl Future<Output = Result<Option<Reason>, sqlx::Error>> + Send;

        /// Deletes at most `rows_max` rows older than `age` by the database's clock; how many there were.
        fn purge(
            pool: &Pool<Self>,
            age: Duration,
            rows_max: u32,
        ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;
    }
}
