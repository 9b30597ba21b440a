//! The barrier in SQLite. One transaction writes at a time, so a check-back and a local transaction never overlap: the
//! second one waits for the writer lock, at most for the pool's `busy_timeout`.

use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Pool, Row, Sqlite, Transaction};

use super::barrier::{IDENTITY, Key, NEVER_S, Reason};
use super::dialect::{Dialect, steps::Steps};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS mezzo_barrier (
    operation    TEXT    NOT NULL,
    owner_group  TEXT    NOT NULL,
    message_key  TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    created_at_s INTEGER NOT NULL,
    PRIMARY KEY (operation, owner_group, message_key)
) WITHOUT ROWID";
const INDEX: &str = "CREATE INDEX IF NOT EXISTS mezzo_barrier_age ON mezzo_barrier (created_at_s)";

/// The writer lock from the start: a transaction that reads first and then writes can fail where it need not.
const BEGIN: &str = "BEGIN IMMEDIATE";

impl Dialect for Sqlite {}

impl Steps for Sqlite {
    async fn create(pool: &Pool<Self>, identity: &str) -> Result<(), sqlx::Error> {
        let mut tx = pool.begin_with(BEGIN).await?;
        sqlx::query(TABLE).execute(&mut *tx).await?;
        sqlx::query(INDEX).execute(&mut *tx).await?;
        sqlx::query("INSERT INTO mezzo_barrier VALUES (?, '', '', ?, ?) ON CONFLICT DO NOTHING")
            .bind(IDENTITY)
            .bind(identity)
            .bind(NEVER_S)
            .execute(&mut *tx)
            .await?;
        tx.commit().await
    }

    async fn identity(pool: &Pool<Self>) -> Result<Option<String>, sqlx::Error> {
        let row = sqlx::query("SELECT reason FROM mezzo_barrier WHERE operation = ?").bind(IDENTITY);
        row.fetch_optional(pool).await?.map(|row| row.try_get(0)).transpose()
    }

    async fn begin(pool: &Pool<Self>) -> Result<Transaction<'static, Self>, sqlx::Error> {
        pool.begin_with(BEGIN).await
    }

    /// SQLite refuses a ROLLBACK without a transaction, and sqlx then takes the connection for one inside a transaction for
    /// ever: every later BEGIN from the pool that meets it would fail. If there is a transaction, this one is refused, which
    /// does no harm.
    async fn mend(connection: &mut SqliteConnection) {
        if sqlx::query("BEGIN").execute(connection).await.is_ok() {
            tracing::debug!("the transaction had been undone before its rollback");
        }
    }

    async fn insert(
        connection: &mut SqliteConnection,
        key: &Key,
        reason: Reason,
    ) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query(
            "INSERT INTO mezzo_barrier (operation, owner_group, message_key, reason, created_at_s) \
             VALUES (?, ?, ?, ?, CAST(strftime('%s', 'now') AS INTEGER)) ON CONFLICT DO NOTHING",
        )
        .bind(key.operation.word())
        .bind(key.group.as_str())
        .bind(key.message.as_str())
        .bind(reason.word())
        .execute(connection)
        .await?;
        Ok(inserted.rows_affected() > 0)
    }

    async fn find(connection: &mut SqliteConnection, key: &Key) -> Result<Option<Reason>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT reason FROM mezzo_barrier WHERE operation = ? AND owner_group = ? AND message_key = ?",
        )
        .bind(key.operation.word())
        .bind(key.group.as_str())
        .bind(key.message.as_str())
        .fetch_optional(connection)
        .await?;
        row.map(|row| Reason::read(row.try_get(0)?)).transpose()
    }

    async fn fence(pool: &Pool<Self>, key: &Key) -> Result<Option<Reason>, sqlx::Error> {
        let mut tx = pool.begin_with(BEGIN).await?;
        Self::insert(&mut tx, key, Reason::Rollback).await?;
        // Nobody else writes between here and the commit, so what is read here is what stands.
        let found = Self::find(&mut tx, key).await?;
        tx.commit().await?;
        Ok(found)
    }

    async fn purge(pool: &Pool<Self>, age: Duration, rows_max: u32) -> Result<u64, sqlx::Error> {
        let deleted = sqlx::query(
            "DELETE FROM mezzo_barrier WHERE (operation, owner_group, message_key) IN ( \
             SELECT operation, owner_group, message_key FROM mezzo_barrier \
             WHERE created_at_s < CAST(strftime('%s', 'now') AS INTEGER) - ? ORDER BY created_at_s LIMIT ?)",
        )
        .bind(i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
        .bind(rows_max)
        .execute(pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}
