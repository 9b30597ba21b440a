//! The two databases: accounts, what moved on them, and the barrier rows of the SDK.

use std::collections::BTreeMap;
use std::path::Path;

use mezzo_client::database::Database;
use mezzo_client::database::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use mezzo_client::database::sqlx::{self, Row, Sqlite, SqliteConnection, SqlitePool};
use mezzo_client::{LocalError, ReceivedMessage};

use crate::transfer::Transfer;

/// Accounts in each database.
pub(crate) const ACCOUNTS: i64 = 12;
/// What each account holds at first: far more than any run moves.
pub(crate) const INITIAL: i64 = 1_000_000_000;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Debits,
    Credits,
}

/// The account does not hold that much: nothing may move.
#[derive(Debug, thiserror::Error)]
#[error("the account holds less than {0}")]
struct Overdrawn(i64);

/// Opens a database with so many connections; makes it where it is missing.
pub(crate) async fn open(folder: &Path, side: Side, connections: u32) -> Database<Sqlite> {
    let name = match side {
        Side::Debits => "debits.db",
        Side::Credits => "credits.db",
    };
    let options = SqliteConnectOptions::new()
        .filename(folder.join(name))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(connections).connect_with(options).await;
    Database::new(pool.expect("the file can be opened"))
}

/// Tables and accounts, once for a run.
pub(crate) async fn furnish(db: &Database<Sqlite>, side: Side) {
    db.prepare_schema().await.expect("the barrier table can be made");
    let moved = match side {
        Side::Debits => {
            "CREATE TABLE debits (transfer TEXT PRIMARY KEY, from_account INTEGER, to_account INTEGER, amount INTEGER)"
        }
        // no key on purpose: nothing but the barrier may keep a second credit out
        Side::Credits => {
            "CREATE TABLE credits (transfer TEXT, to_account INTEGER, amount INTEGER, message_key TEXT)"
        }
    };
    for statement in ["CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)", moved] {
        sqlx::query(statement).execute(db.pool()).await.expect("the table can be made");
    }
    for account in 0..ACCOUNTS {
        let row = sqlx::query("INSERT INTO accounts VALUES (?, ?)").bind(account).bind(INITIAL);
        row.execute(db.pool()).await.expect("the account can be made");
    }
}

/// Takes the money, if it is there.
pub(crate) async fn debit(connection: &mut SqliteConnection, transfer: &Transfer) -> Result<(), LocalError> {
    let taken = sqlx::query("UPDATE accounts SET balance = balance - ?1 WHERE id = ?2 AND balance >= ?1")
        .bind(transfer.amount)
        .bind(transfer.from)
        .execute(&mut *connection)
        .await?;
    if taken.rows_affected() == 0 {
        return Err(Overdrawn(transfer.amount).into());
    }
    sqlx::query("INSERT INTO debits VALUES (?, ?, ?, ?)")
        .bind(&transfer.name)
        .bind(transfer.from)
        .bind(transfer.to)
        .bind(transfer.amount)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// Gives the money.
pub(crate) async fn credit(
    connection: &mut SqliteConnection,
    transfer: &Transfer,
    message: &ReceivedMessage,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE accounts SET balance = balance + ? WHERE id = ?")
        .bind(transfer.amount)
        .bind(transfer.to)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO credits VALUES (?, ?, ?, ?)")
        .bind(&transfer.name)
        .bind(transfer.to)
        .bind(transfer.amount)
        .bind(message.unique_key())
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// Balances by account.
pub(crate) async fn balances(pool: &SqlitePool) -> BTreeMap<i64, i64> {
    let rows = sqlx::query("SELECT id, balance FROM accounts").fetch_all(pool).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// All debits that are committed.
pub(crate) async fn debits(pool: &SqlitePool) -> Vec<Transfer> {
    let rows =
        sqlx::query("SELECT transfer, from_account, to_account, amount FROM debits").fetch_all(pool).await;
    let transfer = |row: &sqlx::sqlite::SqliteRow| Transfer {
        name: row.get(0),
        from: row.get(1),
        to: row.get(2),
        amount: row.get(3),
    };
    rows.unwrap().iter().map(transfer).collect()
}

/// Whether the debit of this transfer is committed.
pub(crate) async fn is_debited(pool: &SqlitePool, transfer: &str) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT 1 FROM debits WHERE transfer = ?").bind(transfer);
    Ok(row.fetch_optional(pool).await?.is_some())
}

/// A credit that is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credit {
    pub(crate) transfer: String,
    pub(crate) to: i64,
    pub(crate) amount: i64,
    /// The unique key of the message that brought it.
    pub(crate) message_key: String,
}

/// All credits that are committed.
pub(crate) async fn credits(pool: &SqlitePool) -> Vec<Credit> {
    let rows =
        sqlx::query("SELECT transfer, to_account, amount, message_key FROM credits").fetch_all(pool).await;
    let credit = |row: &sqlx::sqlite::SqliteRow| Credit {
        transfer: row.get(0),
        to: row.get(1),
        amount: row.get(2),
        message_key: row.get(3),
    };
    rows.unwrap().iter().map(credit).collect()
}

/// The reasons of the barrier rows of an operation, by message key.
pub(crate) async fn barrier(pool: &SqlitePool, operation: &str) -> BTreeMap<String, String> {
    let rows =
        sqlx::query("SELECT message_key, reason FROM mezzo_barrier WHERE operation = ?").bind(operation);
    rows.fetch_all(pool).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Debits that have no credit yet.
pub(crate) async fn in_flight(debits: &SqlitePool, credits: &SqlitePool) -> i64 {
    let count = |rows: sqlx::sqlite::SqliteRow| rows.get::<i64, _>(0);
    let taken = sqlx::query("SELECT count(*) FROM debits").fetch_one(debits).await.unwrap();
    let given = sqlx::query("SELECT count(DISTINCT transfer) FROM credits").fetch_one(credits).await.unwrap();
    count(taken) - count(given)
}
