//! Consuming inside transactions: a queue is leased from its broker before it is pulled, batches know where they begin and
//! end, and the offset moves with the transaction that acknowledges them. Only Mezzo has that.
//!
//! ```text
//!   assigned ──lease (7700011)──> Claim: epoch, where the group stands ──pulls──> LeasedBatch ──> tx.ack(&batch)
//!       ^                           │ renewed every lease_interval_ms                              │
//!       │                           │                        committed: on behind it <────────────┤
//!       │                           │                rolled back, dropped: once more <────────────┤
//!       ├── lost, over, fenced, outcome unknown: a new lease, at the committed offset <───────────┘
//!       └── taken away, shutdown: open transactions end (at most drain_timeout_ms), lease given back (7700012)
//! ```
//!
//! Whatever this side believes, the broker compares epoch and offset when it records the decision: all that is done here
//! makes a refusal rare, and none of it is needed for an effect to happen once.

mod batch;
mod builder;
mod claim;
mod consumer;
mod hold;
mod lease;

pub use batch::LeasedBatch;
pub use builder::TransactionalConsumerBuilder;
pub(super) use claim::Claim;
pub use consumer::TransactionalConsumer;
pub(crate) use hold::Hold;
