//! What a strategy of division is.

use crate::ids::MessageQueue;

/// A way to divide queues among the members of a group.
pub trait AssignmentStrategy: Send + Sync {
    /// The name that Java clients show for it.
    fn name(&self) -> &'static str;

    /// The queues of `client_id`, a part of `queues`, in their order. None if `client_id` is not among `clients`: the
    /// broker does not know it yet, and its part belongs to others until then.
    fn assign(&self, client_id: &str, queues: &[MessageQueue], clients: &[String]) -> Vec<MessageQueue>;
}

/// The place of a client among all of them.
pub(super) fn index_of(client_id: &str, clients: &[String]) -> Option<usize> {
    clients.iter().position(|other| other == client_id)
}
