//! The fold over the log: `state = fold(apply, base, frames)`.
//!
//! ```text
//!  operation --admit--> record --apply--> Ledger (what is appended: offsets, open transactions, due messages)
//!                                  |
//!                                  v publications, in log order
//!                             limit passes
//!                                  |
//!                                  v
//!                             published view (consume queues, topics) --> reads
//! ```
//!
//! `ledger.rs` holds the one `apply` that runs at append, at recovery and when the base is advanced. `admit.rs` decides
//! what may be appended; it sees what is not durable yet. `publish.rs` holds what waits for the limit. `leader_clock.rs`
//! says what time it is.

pub mod admit;
mod after_loss;
mod consumed;
pub mod dedup;
pub mod due;
pub mod groups;
pub(crate) mod leader_clock;
pub mod leases;
pub mod ledger;
pub mod offsets;
pub mod publish;
pub mod queues;
pub mod segments;
pub mod snapshot;
pub mod topics;
pub mod transactions;

pub(crate) use after_loss::AfterLoss;

use crate::error::StorageError;

/// A record whose checksum holds says something that cannot be.
pub(crate) fn corrupt_log(position: u64, reason: impl std::fmt::Display) -> StorageError {
    StorageError::corrupt(std::path::Path::new("log"), position, reason)
}
