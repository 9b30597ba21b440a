//! Transactions with a database: a message that exists exactly if a database transaction committed, without any code that
//! answers check-backs, and messages that are processed exactly once in a database.
//!
//! ```no_run
//! # #[cfg(feature = "sqlite")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use mezzo_client::database::{Database, sqlx};
//! use mezzo_client::{Client, Message};
//!
//! let db = Database::new(sqlx::SqlitePool::connect("sqlite:shop.db").await?);
//! db.prepare_schema().await?;
//!
//! let client = Client::connect("127.0.0.1:9876").await?;
//! let producer = client.transaction_producer("order-service").database(&db).start().await?;
//!
//! let outcome = producer
//!     .transaction(&db, Message::new("orders", "one coffee")?, async |tx| {
//!         sqlx::query("UPDATE stock SET pieces = pieces - 1 WHERE article = 'coffee'").execute(&mut **tx).await?;
//!         Ok(())
//!     })
//!     .await?;
//! println!("{outcome}");
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! One feature per database: `sqlite` (bundled), `postgres`, `mysql` (MySQL and MariaDB). None is on by default: the SDK
//! alone is 55 crates and each of them brings 70 to 90 more, SQLite its C source, too. All of it from nothing took close to
//! six minutes of processor time in this workspace's debug build. [`sqlx`] is re-exported, so that the application uses the
//! same version; its TLS and authentication features can be turned on by naming it in the application's own manifest.
//!
//! # The fence
//!
//! A check-back that only *looks* into the database cannot tell "rolled back" from "not committed yet". This one
//! *writes*. Both sides insert a row with the same key into the table `mezzo_barrier`, the local transaction first thing
//! with the reason `commit`, the check-back with the reason `rollback`; the key is unique, so one of them stands.
//!
//! ```text
//!   transaction(&db, message, work)                   check-back, in any process of the group
//!   ------------------------------                    ---------------------------------------
//!   1 prepare the half message
//!   2 BEGIN
//!   3 insert (group, message, 'commit')   <-- one --> insert (group, message, 'rollback'), COMMIT
//!   4 work(tx)                                        read the reason in a new snapshot
//!   5 read the row back                                 'commit'    -> END commit
//!   6 COMMIT                                            'rollback'  -> END rollback
//!   7 END commit                                        no answer   -> END unknown: asked again later
//! ```
//!
//! If the check-back's row stands, a local transaction that still runs can no longer commit, because its own insert
//! conflicts. If the local transaction inserted first, the check-back waits for its end (or gives up, and says
//! "unknown"): what it reads afterwards is final.
//!
//! | the producer dies after | the database holds | the check-back |
//! |---|---|---|
//! | nothing (1 not answered) | nothing | inserts `rollback`: rolled back |
//! | 1, 2 | nothing | inserts `rollback`: rolled back; a producer that was only slow finds it at 3, runs nothing |
//! | 3, 4, 5 | nothing, once the database has noticed the death; until then the row is locked | waits, "unknown" if that takes long; then inserts `rollback`: rolled back |
//! | 6, no answer to COMMIT | either | waits for the COMMIT's end; `commit`: committed, or inserts `rollback`: rolled back |
//! | 6 | `commit` | committed |
//! | 7 | `commit` | not asked any more |
//!
//! Where the producer lives and only the work fails, it rolls back and settles its own transaction by the same fence
//! before it tells the broker: END is never said on suspicion.
//!
//! Step 5 is for statements whose errors `work` swallows: PostgreSQL answers the COMMIT of a failed transaction with success
//! and a rollback, MySQL ends the whole transaction at a deadlock. A row that is not there any more means "undone".
//!
//! # What each database does while both insert
//!
//! | | local transaction | check-back meanwhile | gives up ("unknown") |
//! |---|---|---|---|
//! | SQLite | `BEGIN IMMEDIATE`: holds the one writer lock | waits for the writer lock | after the pool's `busy_timeout`, at most 10 s |
//! | PostgreSQL | holds the entry of the unique index | `INSERT … ON CONFLICT DO NOTHING` waits for it, at READ COMMITTED, then reads with a new snapshot | after 2 s (`lock_timeout`) |
//! | MySQL, MariaDB | holds the row lock | `INSERT` waits for it, ends with a duplicate key or succeeds, then reads with a new snapshot | after 2 s (`innodb_lock_wait_timeout`) |
//!
//! Deadlocks and serialisation failures of the check-back are tried again at most three times, then "unknown".
//!
//! # Limits
//!
//! - All processes of the group must use the same database. Each message carries the identity of the database it was
//!   fenced with (a random number in the barrier table): a check-back with another one says "unknown" and logs it.
//! - The fence is as durable as the database's commits: PostgreSQL's `synchronous_commit = off`, MySQL's
//!   `innodb_flush_log_at_trx_commit` other than 1, SQLite's `synchronous` below `FULL`, and a fail-over to a replica that
//!   lags can take back what was answered.
//! - `work` must not end the transaction: no `COMMIT`, and in MySQL no statement that commits by itself (DDL).
//! - Rows must outlive the questions about them, see [`Database::purge`].

mod barrier;
mod check_back;
mod dialect;
mod error;
mod handle;
mod local;
#[cfg(feature = "mysql")]
mod mysql;
mod once;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod transaction;

pub use dialect::Dialect;
pub use error::{DatabaseError, ProcessError};
pub use handle::{Database, PURGE_AGE_MIN, PURGE_ROWS_MAX};
pub use local::LocalTransaction;
pub use once::{Processed, process_once, process_once_as};
/// The database library: its pools, transactions and queries are what [`Database`] and the closures work with.
pub use sqlx;
