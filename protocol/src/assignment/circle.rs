//! Queues dealt out one by one, like cards.

use super::strategy::{AssignmentStrategy, index_of};
use crate::ids::MessageQueue;

/// The strategy `AVG_BY_CIRCLE`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circle;

impl AssignmentStrategy for Circle {
    fn name(&self) -> &'static str {
        "AVG_BY_CIRCLE"
    }

    fn assign(&self, client_id: &str, queues: &[MessageQueue], clients: &[String]) -> Vec<MessageQueue> {
        let Some(index) = index_of(client_id, clients) else { return Vec::new() };
        queues.iter().skip(index).step_by(clients.len()).cloned().collect()
    }
}
