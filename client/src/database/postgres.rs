//! The barrier in PostgreSQL. An insert waits for a transaction that holds the same entry of the unique index. Such a wait
//! ends with a conflict or with a success; `ON CONFLICT DO NOTHING` makes both an answer instead of an error.
//!
//! At REPEATABLE READ or SERIALIZABLE (which a database or a role can have as its default) a conflict with a row that the
//! snapshot does not show is an error, so the check-back's transaction names READ COMMITTED itself. The local transaction
//! keeps the default: the application chose it, and an error there is safe.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Pool, Postgres, Row, SqlSafeStr, Transaction};

use super::barrier::{IDENTITY, Key, NEVER_S, Reason};
use super::dialect::{Dialect, FENCE_LOCK_WAIT, steps::Steps};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS mezzo_barrier (
    operation    VARCHAR(64)  NOT NULL,
    owner_group  VARCHAR(255) NOT NULL,
    message_key  VARCHAR(255) NOT NULL,
    reason       VARCHAR(64)  NOT NULL,
    created_at_s BIGINT       NOT NULL,
    PRIMARY KEY (operation, owner_group, message_key)
)";
const INDEX: &str = "CREATE INDEX IF NOT EXISTS mezzo_barrier_age ON mezzo_barrier (created_at_s)";

/// Two sessions that create one table at one time get in each other's way in spite of IF NOT EXISTS. The number is the
/// lock's name: "mezzo" as ASCII.
const CREATE_LOCK: &str = "SELECT pg_advisory_xact_lock(470290229871)";

const BEGIN_FENCE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

impl Dialect for Postgres {}

impl Steps for Postgres {
    async fn create(pool: &Pool<Self>, identity: &str) -> Result<(), sqlx::Error> {
        let mut tx = pool.begin_with(BEGIN_FENCE).await?;
        for statement in [CREATE_LOCK, TABLE, INDEX] {
            sqlx::query(statement).execute(&mut *tx).await?;
        }
        sqlx::query("INSERT INTO mezzo_barrier VALUES ($1, '', '', $2, $3) ON CONFLICT DO NOTHING")
            .bind(IDENTITY)
            .bind(identity)
            .bind(NEVER_S)
            .execute(&mut *tx)
            .await?;
        tx.commit().await
    }

    async fn identity(pool: &Pool<Self>) -> Result<Option<String>, sqlx::Error> {
        let row = sqlx::query("SELECT reason FROM mezzo_barrier WHERE operation = $1").bind(IDENTITY);
        row.fetch_optional(pool).await?.map(|row| row.try_get(0)).transpose()
    }

    async fn begin(pool: &Pool<Self>) -> Result<Transaction<'static, Self>, sqlx::Error> {
        pool.begin().await
    }

    async fn insert(connection: &mut PgConnection, key: &Key, reason: Reason) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query(
            "INSERT INTO mezzo_barrier (operation, owner_group, message_key, reason, created_at_s) \
             VALUES ($1, $2, $3, $4, extract(epoch FROM now())::bigint) ON CONFLICT DO NOTHING",
        )
        .bind(key.operation.word())
        .bind(key.group.as_str())
        .bind(key.message.as_str())
        .bind(reason.word())
        .execute(connection)
        .await?;
        Ok(inserted.rows_affected() > 0)
    }

    async fn find(connection: &mut PgConnection, key: &Key) -> Result<Option<Reason>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT reason FROM mezzo_barrier WHERE operation = $1 AND owner_group = $2 AND message_key = $3",
        )
        .bind(key.operation.word())
        .bind(key.group.as_str())
        .bind(key.message.as_str())
        .fetch_optional(connection)
        .await?;
        row.map(|row| Reason::read(row.try_get(0)?)).transpose()
    }

    async fn fence(pool: &Pool<Self>, key: &Key) -> Result<Option<Reason>, sqlx::Error> {
        let mut tx = pool.begin_with(BEGIN_FENCE).await?;
        let wait = format!("SET LOCAL lock_timeout = {}", FENCE_LOCK_WAIT.as_millis());
        sqlx::query(sqlx::AssertSqlSafe(wait).into_sql_str()).execute(&mut *tx).await?;
        Self::insert(&mut tx, key, Reason::Rollback).await?;
        tx.commit().await?;
        Self::find(&mut *pool.acquire().await?, key).await
    }

    async fn purge(pool: &Pool<Self>, age: Duration, rows_max: u32) -> Result<u64, sqlx::Error> {
        let deleted = sqlx::query(
            "DELETE FROM mezzo_barrier WHERE ctid = ANY (ARRAY( \
             SELECT ctid FROM mezzo_barrier WHERE created_at_s < extract(epoch FROM now())::bigint - $1 \
             ORDER BY created_at_s LIMIT $2))",
        )
        .bind(i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
        .bind(i64::from(rows_max))
        .execute(pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}
