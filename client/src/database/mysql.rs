//! The barrier in MySQL and MariaDB. A plain insert waits for a transaction that holds the row, then succeeds or fails with
//! a duplicate key, which ends the statement but not the transaction. `INSERT IGNORE` would do the same and also hide
//! other errors, such as a key cut to the column's length.
//!
//! The columns are binary: MySQL's collations hold `a` and `A`, and most of them `a` and `a ` too, to be the same.
//!
//! At REPEATABLE READ, the default, a snapshot is as old as the transaction's first read: the reason is read by a
//! statement of its own, after the insert's transaction is over.

use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{Connection as _, MySql, Pool, Row, SqlSafeStr, Transaction};

use super::barrier::{IDENTITY, Key, NEVER_S, Reason};
use super::dialect::{Dialect, FENCE_LOCK_WAIT, steps::Steps};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS mezzo_barrier (
    operation    VARBINARY(64)  NOT NULL,
    owner_group  VARBINARY(255) NOT NULL,
    message_key  VARBINARY(255) NOT NULL,
    reason       VARBINARY(64)  NOT NULL,
    created_at_s BIGINT         NOT NULL,
    PRIMARY KEY (operation, owner_group, message_key),
    KEY mezzo_barrier_age (created_at_s)
) ENGINE = InnoDB";

fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

fn text(row: &sqlx::mysql::MySqlRow) -> Result<String, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(0)?;
    String::from_utf8(bytes).map_err(|error| sqlx::Error::Decode(error.into()))
}

impl Dialect for MySql {}

impl Steps for MySql {
    async fn create(pool: &Pool<Self>, identity: &str) -> Result<(), sqlx::Error> {
        sqlx::query(TABLE).execute(pool).await?;
        let inserted = sqlx::query("INSERT INTO mezzo_barrier VALUES (?, '', '', ?, ?)")
            .bind(IDENTITY.as_bytes())
            .bind(identity.as_bytes())
            .bind(NEVER_S)
            .execute(pool)
            .await;
        match inserted {
            Err(error) if !is_duplicate(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn identity(pool: &Pool<Self>) -> Result<Option<String>, sqlx::Error> {
        let row =
            sqlx::query("SELECT reason FROM mezzo_barrier WHERE operation = ?").bind(IDENTITY.as_bytes());
        row.fetch_optional(pool).await?.map(|row| text(&row)).transpose()
    }

    async fn begin(pool: &Pool<Self>) -> Result<Transaction<'static, Self>, sqlx::Error> {
        pool.begin().await
    }

    async fn insert(
        connection: &mut MySqlConnection,
        key: &Key,
        reason: Reason,
    ) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query(
            "INSERT INTO mezzo_barrier (operation, owner_group, message_key, reason, created_at_s) \
             VALUES (?, ?, ?, ?, UNIX_TIMESTAMP())",
        )
        .bind(key.operation.word().as_bytes())
        .bind(key.group.as_str().as_bytes())
        .bind(key.message.as_bytes())
        .bind(reason.word().as_bytes())
        .execute(connection)
        .await;
        match inserted {
            Ok(_) => Ok(true),
            Err(error) if is_duplicate(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn find(connection: &mut MySqlConnection, key: &Key) -> Result<Option<Reason>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT reason FROM mezzo_barrier WHERE operation = ? AND owner_group = ? AND message_key = ?",
        )
        .bind(key.operation.word().as_bytes())
        .bind(key.group.as_str().as_bytes())
        .bind(key.message.as_bytes())
        .fetch_optional(connection)
        .await?;
        row.map(|row| Reason::read(&text(&row)?)).transpose()
    }

    async fn fence(pool: &Pool<Self>, key: &Key) -> Result<Option<Reason>, sqlx::Error> {
        let mut connection = pool.acquire().await?;
        // Its waits are made short below, and the pool's other users must not inherit that.
        connection.close_on_drop();
        let wait = format!("SET SESSION innodb_lock_wait_timeout = {}", FENCE_LOCK_WAIT.as_secs());
        sqlx::query(sqlx::AssertSqlSafe(wait).into_sql_str()).execute(&mut *connection).await?;
        let mut tx = connection.begin().await?;
        Self::insert(&mut tx, key, Reason::Rollback).await?;
        tx.commit().await?;
        Self::find(&mut connection, key).await
    }

    async fn purge(pool: &Pool<Self>, age: Duration, rows_max: u32) -> Result<u64, sqlx::Error> {
        let deleted = sqlx::query(
            "DELETE FROM mezzo_barrier WHERE created_at_s < UNIX_TIMESTAMP() - ? ORDER BY created_at_s LIMIT ?",
        )
        .bind(i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
        .bind(rows_max)
        .execute(pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}
