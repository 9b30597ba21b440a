//! Sockets: one connection per broker address, shared by everything in a client.
//!
//! ```text
//!  callers ──> outbox (bytes, bounded) ──> writer task ──> socket ──> reader task ──┬─> pending (opaque -> caller)
//!                                                                                  └─> inbound (requests of brokers)
//! ```
//! Callers encode their frames straight into the outbox; the writer takes all there is and writes it at once, so many
//! sends in flight cost few system calls.
//!
//! ```text
//!   pool      one connection per address: one attempt at a time, in a task of its own; back-off between attempts
//!   endpoint  how connecting to one address went so far         encoding  JSON or binary headers
//!   silence   when a peer that owes answers counts as gone      measured  requests under the eyes of metrics
//! ```
//! Nothing here waits without a deadline, except the two tasks of a connection for work: closing it ends both.

mod connection;
mod deadline;
mod encoding;
mod endpoint;
mod measured;
mod outbox;
mod pending;
mod pool;
mod reply;
mod run;
mod silence;

pub(crate) use connection::{Connection, Inbound, NetConfig};
pub(crate) use deadline::Deadline;
pub use encoding::HeaderEncoding;
pub(crate) use pending::AnswerSink;
pub(crate) use pool::{Greeter, Patience, Pool};
pub(crate) use reply::{Reply, refused, unreadable};
pub(crate) use run::RunWaiter;
