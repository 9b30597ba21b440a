//! Which queue a message goes to: in turn, around failing brokers, or always the same one for a sharding key.

use std::sync::Arc;

use mezzo_protocol::ids::MessageQueue;
use mezzo_protocol::message::tag::java_hash;
use mezzo_protocol::time::Timestamp;

use super::broker_faults::BrokerFaults;

/// Takes queues in turn.
#[derive(Debug)]
pub(crate) struct QueueSelector {
    cursor: usize,
    faults: BrokerFaults,
}

impl QueueSelector {
    /// Starts at a place chosen by `seed`, so that many clients do not all begin with the first queue.
    pub(crate) fn new(seed: usize) -> Self {
        Self { cursor: seed, faults: BrokerFaults::default() }
    }

    /// The next queue. Prefers brokers that are neither spared nor in `tried`; then brokers not in `tried`; then any but
    /// the broker that failed last. `None` only if there is no queue.
    pub(crate) fn next<'q>(
        &mut self,
        queues: &'q [MessageQueue],
        tried: &[Arc<str>],
        now: Timestamp,
    ) -> Option<&'q MessageQueue> {
        let was_tried = |queue: &MessageQueue| tried.contains(&queue.broker_name);
        let failed_last = |queue: &MessageQueue| tried.last().is_some_and(|last| *last == queue.broker_name);
        let chosen = self
            .first_from_cursor(queues, |queue| {
                !was_tried(queue) && !self.faults.is_spared(&queue.broker_name, now)
            })
            .or_else(|| self.first_from_cursor(queues, |queue| !was_tried(queue)))
            .or_else(|| self.first_from_cursor(queues, |queue| !failed_last(queue)))
            .or_else(|| self.first_from_cursor(queues, |_| true))?;
        self.cursor = chosen.wrapping_add(1);
        queues.get(chosen)
    }

    /// The brokers that failed lately.
    pub(crate) const fn faults_mut(&mut self) -> &mut BrokerFaults {
        &mut self.faults
    }

    fn first_from_cursor(
        &self,
        queues: &[MessageQueue],
        fits: impl Fn(&MessageQueue) -> bool,
    ) -> Option<usize> {
        let count = queues.len();
        let start = self.cursor.checked_rem(count)?;
        (start..count).chain(0..start).find(|index| queues.get(*index).is_some_and(&fits))
    }
}

/// The queue of a sharding key: the same for all clients and languages that use the Java client's hash, as long as the
/// topic's queues do not change. `None` only if there is no queue.
pub(crate) fn by_sharding_key<'q>(queues: &'q [MessageQueue], key: &str) -> Option<&'q MessageQueue> {
    let count = i32::try_from(queues.len()).unwrap_or(i32::MAX);
    // The remainder first, then its absolute value: the other order has no answer for i32::MIN.
    let index = java_hash(key).checked_rem(count)?.unsigned_abs();
    queues.get(usize::try_from(index).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::route::tests::route;

    const NOW: Timestamp = Timestamp::from_ms(1_000);

    fn names(
        selector: &mut QueueSelector,
        queues: &[MessageQueue],
        tried: &[Arc<str>],
        count: usize,
    ) -> Vec<String> {
        (0..count)
            .map(|_| {
                let queue = selector.next(queues, tried, NOW).unwrap();
                format!("{}{}", queue.broker_name, queue.queue_id.0)
            })
            .collect()
    }

    #[test]
    fn queues_are_taken_in_turn() {
        let route = route("t", &[("a", "a:1"), ("b", "b:1")], 2);
        let mut selector = QueueSelector::new(3);
        assert_eq!(names(&mut selector, route.publish_queues(), &[], 5), ["b1", "a0", "a1", "b0", "b1"]);
    }

    #[test]
    fn a_retry_goes_to_another_broker_and_then_to_another_queue() {
        let route = route("t", &[("a", "a:1"), ("b", "b:1")], 2);
        let mut selector = QueueSelector::new(0);
        assert_eq!(names(&mut selector, route.publish_queues(), &["a".into()], 2), ["b0", "b1"]);
        let both: [Arc<str>; 2] = ["a".into(), "b".into()];
        assert_eq!(names(&mut selector, route.publish_queues(), &both, 2), ["a0", "a1"]);
    }

    #[test]
    fn spared_brokers_are_used_only_when_there_is_no_other() {
        let route = route("t", &[("a", "a:1"), ("b", "b:1")], 1);
        let mut selector = QueueSelector::new(0);
        selector.faults_mut().failed(&"a".into(), Timestamp::from_ms(2_000));
        assert_eq!(names(&mut selector, route.publish_queues(), &[], 3), ["b0", "b0", "b0"]);
        selector.faults_mut().failed(&"b".into(), Timestamp::from_ms(2_000));
        assert_eq!(names(&mut selector, route.publish_queues(), &[], 2), ["a0", "b0"]);
    }

    #[test]
    fn a_single_queue_is_used_again_and_none_gives_none() {
        let route = route("t", &[("a", "a:1")], 1);
        let mut selector = QueueSelector::new(usize::MAX);
        assert_eq!(names(&mut selector, route.publish_queues(), &["a".into()], 2), ["a0", "a0"]);
        assert_eq!(selector.next(&[], &[], NOW), None);
    }

    #[test]
    fn a_sharding_key_always_finds_its_queue() {
        let route = route("t", &[("a", "a:1"), ("b", "b:1")], 4);
        let queues = route.publish_queues();
        // "invoice-12".hashCode() is 1911816385 in Java.
        assert_eq!(by_sharding_key(queues, "invoice-12"), queues.get(1));
        // A text whose hash is i32::MIN, which has no absolute value: its remainder by 6 is -2.
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
        assert_eq!(by_sharding_key(&queues[..6], "polygenelubricants"), queues.get(2));
        assert_eq!(by_sharding_key(&[], "x"), None);
    }
}
