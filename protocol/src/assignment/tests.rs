//! The division is complete, without overlap, and that of the Java client.

use proptest::prelude::*;

use super::{AssignmentStrategy, Averagely, Circle, ConsistentHash};
use crate::ids::{MessageQueue, QueueId, TopicName};

fn queues(count: u32) -> Vec<MessageQueue> {
    let topic = TopicName::new("topic").unwrap();
    (0..count).map(|id| MessageQueue::new(topic.clone(), "broker-a", QueueId(id))).collect()
}

fn clients(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("10.0.0.{index}@1")).collect()
}

fn division(strategy: &dyn AssignmentStrategy, queue_count: u32, client_count: usize) -> Vec<Vec<u32>> {
    let (queues, clients) = (queues(queue_count), clients(client_count));
    let ids = |mine: Vec<MessageQueue>| mine.iter().map(|queue| queue.queue_id.0).collect();
    clients.iter().map(|client| ids(strategy.assign(client, &queues, &clients))).collect()
}

#[test]
fn averagely_gives_neighbours() {
    assert_eq!(division(&Averagely, 8, 3), [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]]);
    assert_eq!(division(&Averagely, 4, 2), [vec![0, 1], vec![2, 3]]);
    assert_eq!(division(&Averagely, 2, 3), [vec![0], vec![1], vec![]]);
    assert_eq!(division(&Averagely, 0, 2), [vec![], Vec::<u32>::new()]);
}

#[test]
fn circle_deals_one_by_one() {
    assert_eq!(division(&Circle, 8, 3), [vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]]);
    assert_eq!(division(&Circle, 2, 3), [vec![0], vec![1], vec![]]);
}

#[test]
fn consistent_hashing_is_that_of_the_java_client() {
    // Computed from the description of the ring by another program.
    assert_eq!(
        division(&ConsistentHash::default(), 12, 3),
        [vec![1, 4, 6, 9], vec![0, 8, 10], vec![2, 3, 5, 7, 11]]
    );
}

#[test]
fn a_client_that_the_broker_does_not_list_gets_nothing() {
    let strategies: [&dyn AssignmentStrategy; 3] = [&Averagely, &Circle, &ConsistentHash::default()];
    for strategy in strategies {
        assert!(strategy.assign("stranger", &queues(4), &clients(2)).is_empty(), "{}", strategy.name());
        assert!(strategy.assign("stranger", &queues(4), &[]).is_empty(), "{}", strategy.name());
    }
}

#[test]
fn consistent_hashing_moves_few_queues_when_a_client_leaves() {
    let before = division(&ConsistentHash::default(), 64, 5);
    let after = division(&ConsistentHash::default(), 64, 4);
    for (kept, now) in before.iter().zip(&after) {
        assert!(kept.iter().all(|queue| now.contains(queue)), "nobody who stays loses a queue");
    }
}

proptest! {
    #[test]
    fn every_queue_has_exactly_one_reader(queue_count in 0_u32..40, client_count in 1_usize..12) {
        let strategies: [&dyn AssignmentStrategy; 3] = [&Averagely, &Circle, &ConsistentHash::default()];
        for strategy in strategies {
            let parts = division(strategy, queue_count, client_count);
            let mut all: Vec<u32> = parts.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..queue_count).collect::<Vec<_>>(), "{}", strategy.name());
        }
    }

    #[test]
    fn averagely_is_the_javas_formula(queue_count in 1_u32..60, client_count in 1_usize..20) {
        // The formula as RocketMQ's documents state it: a share, one more for the first ones.
        let parts = division(&Averagely, queue_count, client_count);
        let total = queue_count as usize;
        for (index, part) in parts.iter().enumerate() {
            let rest = total % client_count;
            let size = if total <= client_count { 1 } else { total / client_count + usize::from(rest > 0 && index < rest) };
            let start = if rest > 0 && index < rest { index * size } else { index * size + rest };
            let expected: Vec<u32> = (start..total.min(start + size)).map(|id| u32::try_from(id).unwrap()).collect();
            prop_assert_eq!(part, &expected);
        }
    }
}
