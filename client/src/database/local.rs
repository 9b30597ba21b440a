//! The local transaction as the application's closure gets it.

use std::fmt;
use std::ops::{Deref, DerefMut};

use sqlx::Transaction;

use super::dialect::Dialect;

/// A local transaction with its barrier row in it. It is a connection to the database: `&mut **tx` is what queries are
/// executed on, and `tx` itself can be given to functions that take a connection (`&mut sqlx::SqliteConnection`).
///
/// It cannot be committed or rolled back: that is done by whoever made it.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # mod example {
/// use mezzo_client::LocalError;
/// use mezzo_client::database::{LocalTransaction, sqlx};
///
/// /// What the closures of `transaction` and `process_once` call.
/// pub async fn sell(tx: &mut LocalTransaction<sqlx::Sqlite>, article: &str) -> Result<(), LocalError> {
///     sqlx::query("UPDATE stock SET pieces = pieces - 1 WHERE article = ?")
///         .bind(article)
///         .execute(&mut **tx)
///         .await?;
///     Ok(())
/// }
/// # }
/// ```
pub struct LocalTransaction<DB: Dialect> {
    // A type without a lifetime: futures that hold an sqlx transaction's could not be shown to be `Send` in closures.
    transaction: Transaction<'static, DB>,
}

impl<DB: Dialect> LocalTransaction<DB> {
    pub(super) const fn new(transaction: Transaction<'static, DB>) -> Self {
        Self { transaction }
    }

    pub(super) fn into_inner(self) -> Transaction<'static, DB> {
        self.transaction
    }

    /// For functions that take an sqlx transaction (`&mut sqlx::Transaction<'_, DB>`).
    pub const fn as_sqlx(&mut self) -> &mut Transaction<'static, DB> {
        &mut self.transaction
    }
}

impl<DB: Dialect> Deref for LocalTransaction<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        &self.transaction
    }
}

impl<DB: Dialect> DerefMut for LocalTransaction<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        &mut self.transaction
    }
}

impl<DB: Dialect> fmt::Debug for LocalTransaction<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTransaction").finish_non_exhaustive()
    }
}
