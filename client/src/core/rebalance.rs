//! From "the queues that are mine now" to "what to start and what to stop".

use std::collections::BTreeSet;

use mezzo_protocol::ids::MessageQueue;

/// What one rebalance of one topic changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// Queues that are ours now and were not.
    pub(crate) start: Vec<MessageQueue>,
    /// Queues that were ours and are no longer.
    pub(crate) stop: Vec<MessageQueue>,
}

/// Compares the queues held with those assigned; both results in the order of queues.
pub(crate) fn diff(held: &BTreeSet<MessageQueue>, assigned: impl IntoIterator<Item = MessageQueue>) -> Diff {
    let assigned: BTreeSet<MessageQueue> = assigned.into_iter().collect();
    Diff {
        start: assigned.difference(held).cloned().collect(),
        stop: held.difference(&assigned).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mezzo_protocol::ids::{QueueId, TopicName};

    fn queues(ids: &[u32]) -> Vec<MessageQueue> {
        ids.iter().map(|id| MessageQueue::new(TopicName::new("t").unwrap(), "b", QueueId(*id))).collect()
    }

    #[test]
    fn only_differences_are_started_and_stopped() {
        let held = queues(&[0, 1, 2]).into_iter().collect();
        let diff = diff(&held, queues(&[3, 2]));
        assert_eq!(diff, Diff { start: queues(&[3]), stop: queues(&[0, 1]) });
    }

    #[test]
    fn an_unchanged_assignment_changes_nothing() {
        let held = queues(&[0, 1]).into_iter().collect();
        assert_eq!(diff(&held, queues(&[1, 0, 1])), Diff::default());
    }
}
