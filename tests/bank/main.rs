//! The promise of the whole project in one test: money moves from the accounts of one database to those of another, by
//! transactional messages, while the broker, the producers and the consumers are killed (`kill -9`) and frozen at random
//! moments. Afterwards no coin is lost or made, and the broker's decisions are those of the database.
//!
//! ```text
//!  producer A, producer B          mezzo          consumer A, consumer B
//!  debits.db: debit + barrier  --> one log -->  credits.db: credit + barrier
//!  `transaction(&db, …)`                        `process_once(&db, …)`
//! ```
//!
//! All five are processes of their own; this program starts itself again to become a producer or a consumer. Among the
//! transfers are some that fail, some that hold the database for long, and some whose process dies between its
//! database's COMMIT and its END: another process of the group has to commit those.
//!
//! | variable | default | what it sets |
//! |---|---|---|
//! | `MEZZO_BANK_SECONDS` | 20 | how long things are killed |
//! | `MEZZO_SEED` | the time | repeats a run's choices (not the machine's timing) |
//! | `MEZZO_BINARY` | built from here | the broker to kill |

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod accounts;
mod audit;
mod consumer;
mod journal;
mod ledger;
mod oracle;
mod process;
mod producer;
mod storm;
mod transfer;
