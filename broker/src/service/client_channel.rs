//! How a service reaches a connected client without knowing the wire: the trait that each front-end implements.

use std::net::SocketAddr;

use bytes::Bytes;
use mezzo_protocol::ids::{GroupName, PhysicalOffset};

/// Names one connection for as long as the process runs; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelId(pub(crate) u64);

/// Why something could not be handed to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PushRefused {
    /// The connection is gone.
    #[error("the connection is closed")]
    Closed,
    /// The connection's outbound queue is at its bound: the client does not read.
    #[error("the client does not read: its outbound queue is full")]
    Full,
    /// It is longer than the wire allows.
    #[error("the request does not fit a frame")]
    Unwritable,
}

/// What a producer is asked about one undecided transaction.
#[derive(Debug, Clone)]
pub(crate) struct DecisionAsk {
    /// The transaction's identity: position of its half message.
    pub(crate) origin: PhysicalOffset,
    /// The half message's unique key, empty if it carries none.
    pub(crate) unique_key: String,
    /// The topic the message is meant for.
    pub(crate) topic: String,
    /// The half message as a client reads it (delivery fields patched in).
    pub(crate) message: Bytes,
}

/// One connected client, whatever wire it speaks. None of these calls blocks.
pub(crate) trait ClientChannel: Send + Sync {
    /// The connection's name.
    fn id(&self) -> ChannelId;
    /// The client's end of the connection.
    fn remote(&self) -> SocketAddr;
    /// False from the moment the connection is being closed.
    fn is_open(&self) -> bool;
    /// The highest number, as [`ClientChannel::ask_decision`] gives it, that had been written to the client when the
    /// latest frame was read from it: whoever sends a frame after that has had the chance to read it.
    fn heard_after(&self) -> u64;
    /// Tells a consumer that its group's members changed.
    ///
    /// # Errors
    /// [`PushRefused`]; the notice is dropped and counted.
    fn notify_members_changed(&self, group: &GroupName) -> Result<(), PushRefused>;
    /// Asks a producer for the outcome of a transaction; gives the ask's number among what is sent unasked.
    ///
    /// # Errors
    /// [`PushRefused`]; the ask was not sent and does not count.
    fn ask_decision(&self, ask: &DecisionAsk) -> Result<u64, PushRefused>;
}
