//! Sending: plain messages, and messages that appear only if a local transaction commits.
//!
//! ```text
//!   Producer ───────────┐
//!                       ├──> Sender   choose a queue, bound what is in flight, try again where that is safe
//!   TransactionProducer ┘
//!     prepare ──> Prepared ──commit / rollback──> END_TRANSACTION ──> Outcome
//!     begin ──> Transaction (many)  several messages, one decision
//!     CheckBack <── check_back tasks <── the broker asks (39)
//! ```

mod batch;
mod check_back;
mod end_transaction;
mod linger;
mod many;
mod outcome;
mod pipeline;
mod plain;
mod prepared;
mod receipt;
mod receipts;
mod room;
mod send;
mod transaction;

pub use check_back::CheckBack;
pub(crate) use end_transaction::{OUTCOME_COMMITTED, OUTCOME_FIELD};
pub use many::{ManyError, RolledBackBecause, Transaction, TransactionName, TransactionOutcome};
pub use outcome::{
    LocalError, LocalOutcome, Outcome, RollbackReason, TransactionError, TransactionIds, UnknownReason,
};
pub use plain::{Producer, ProducerBuilder};
pub use prepared::{Prepared, TransactionContext};
pub use receipt::{SendReceipt, Stored};
pub use transaction::{TransactionProducer, TransactionProducerBuilder};
