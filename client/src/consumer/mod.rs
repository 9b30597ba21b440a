//! Receiving: a group's queues are divided among its members, pulled, handed to handlers, and their offsets committed.
//!
//! ```text
//!   PushConsumer: dispatch calls a handler. PullConsumer: poll and stream take messages where dispatch would.
//!
//!   rebalance ──starts / stops──> pull_loop (one per queue) ──messages──> dispatch (bounded handlers)
//!       ^                            │  waits while its HeldQueue is full        │ verdict
//!       │ 40, every 20 s             └── HeldQueue (core::ProcessQueue) <────────┴─> send_back (36)
//!   GroupMember                                   │
//!                                             offsets: where to start, what to commit (every 5 s)
//!   TransactionalConsumer: as PullConsumer, but each queue is leased first and its offset moves with transactions (leased/)
//! ```

mod backlog;
mod builder;
mod contained;
mod dispatch;
mod held_queue;
mod job;
mod jobs;
mod lag;
mod leased;
mod member;
mod offset_file;
mod offsets;
mod pause;
mod pull;
mod pull_builder;
mod pull_loop;
mod pull_stream;
mod pulled;
mod push;
mod queue_lock;
mod rebalance;
mod seek;
mod send_back;
mod stall;
mod subscription;
mod verdict;

pub use builder::PushConsumerBuilder;
pub use lag::{Lag, QueueLag};
pub(crate) use leased::Hold;
pub use leased::{LeasedBatch, TransactionalConsumer, TransactionalConsumerBuilder};
pub use pull::PullConsumer;
pub use pull_builder::PullConsumerBuilder;
pub use pull_stream::MessageStream;
pub use push::PushConsumer;
pub use seek::SeekTo;
pub use verdict::{Handler, Verdict};
