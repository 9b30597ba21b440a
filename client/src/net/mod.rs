//! Sockets: one connection per broker address, shared by everything in a client.
//!
//! ```text
//!  callers ──> outbox (bytes, bounded) ──> writer task ──> socket ──> reader task ──┬─> pending (opaque -> caller)
//!                                                                                  └─> inbound (requests of brokers)
//! ```
//! Callers encode their frames straight into the outbox; the writer takes all there is and writes it at once, so many
//! sends in flight cost few system calls. Nothing here waits without a deadline.

mod connection;
mod deadline;
mod outbox;
mod pending;
mod pool;
mod reply;

pub(crate) use connection::{Connection, Inbound, NetConfig};
pub(crate) use deadline::Deadline;
pub(crate) use pending::{AnswerSink, RunWaiter};
pub(crate) use pool::{Greeter, Patience, Pool};
pub(crate) use reply::{Reply, refused, unreadable};
