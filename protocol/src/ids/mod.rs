//! Names and numbers that identify things, each a type of its own, so that a queue offset cannot be passed where a log
//! position is meant.
//!
//! Names are validated once, where they enter; after that they are cheap to clone and compare like strings.

mod message_queue;
mod names;
mod numbers;
mod offset_message_id;

pub use message_queue::MessageQueue;
pub use names::{GroupName, TopicName, TransactionId};
pub use numbers::{Opaque, PhysicalOffset, QueueId, QueueOffset};
pub use offset_message_id::{OFFSET_MESSAGE_ID_BYTES_MAX, OffsetMessageId};
