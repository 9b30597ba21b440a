//! Neighbouring queues to one client, the first clients one more each if the numbers do not fit: RocketMQ's default.

use super::strategy::{AssignmentStrategy, index_of};
use crate::ids::MessageQueue;

/// The strategy `AVG`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Averagely;

impl AssignmentStrategy for Averagely {
    fn name(&self) -> &'static str {
        "AVG"
    }

    fn assign(&self, client_id: &str, queues: &[MessageQueue], clients: &[String]) -> Vec<MessageQueue> {
        let Some(index) = index_of(client_id, clients) else { return Vec::new() };
        let share = queues.len() / clients.len();
        let left_over = queues.len() % clients.len();
        let start = index * share + index.min(left_over);
        let count = share + usize::from(index < left_over);
        queues.iter().skip(start).take(count).cloned().collect()
    }
}
