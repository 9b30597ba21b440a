//! Transactions of many messages: all become visible by one decision, or none does. Only Mezzo has them.
//!
//! ```text
//!   begin ──> Transaction ──send──> joining   number the messages, keep to one broker, repeat what is not answered
//!                         ──commit / rollback──> ending   END by id with the count ──> TransactionOutcome
//!                         ──drop──> rolled back, here or by the answer to the broker's question
//!   TransactionName ──commit_named / roll_back_named──> ending, by another process
//! ```
//!
//! `ack` adds batches that a `TransactionalConsumer` handed out: END carries their offsets, and they hear how it ended.
//!
//! Every message carries the transaction's id and its own number, so the broker knows a repeat: nothing is stored twice,
//! and an answer that was lost is simply asked for again.

mod acks;
mod answer;
mod ending;
mod joining;
mod outcome;
mod transaction;

pub use outcome::{ManyError, RolledBackBecause, TransactionName, TransactionOutcome};
pub use transaction::Transaction;
