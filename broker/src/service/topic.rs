//! Creates and changes topics. Creation is rare, so it is the one thing a request waits for before it is translated;
//! one creation runs at a time, which makes "create if it is not there" free of races.

use std::sync::Arc;

use mezzo_protocol::ids::TopicName;
use mezzo_storage::Topic;

/// A topic that a request needs and that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicToCreate {
    /// Its name.
    pub(crate) name: TopicName,
    /// Queues to read from and to write to, at least 1.
    pub(crate) queues: u32,
    /// RocketMQ's permission bits: 4 read, 2 write, 1 inherit.
    pub(crate) permission: u32,
}
