//! The SDK's consume, transform, produce against a whole broker: what a batch and its acknowledgement are, and how each
//! way in which a transaction can end moves the group, or does not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use mezzo_client::config::{ConsumerConfig, StartPosition, TransactionConfig};
use mezzo_client::{AckError, ManyError, Message, RolledBackBecause, TransactionOutcome, UnknownReason};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::transform::{
    BILLING, BILLS, ORDERS, bill, brisk, connect, consumer, numbered, order, producer, visible,
};
use mezzo_tests::wait;

fn message(topic: &str, body: &str) -> Message {
    Message::new(topic, body.to_owned()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_consumed_and_what_is_produced_happen_together() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    order(&client, numbered(0..8)).await;
    let consumer = consumer(&client, ConsumerConfig::default()).await;
    let (producer, _) = producer(&client, TransactionConfig::default()).await;
    let mut consumed = 0;
    while consumed < 8 {
        let batch = consumer.next_batch().await.unwrap();
        let first = batch.messages().first().unwrap();
        assert_eq!(batch.from(), first.queue_offset());
        assert_eq!(batch.next_offset().0 - batch.from().0, batch.messages().len() as u64);
        assert_eq!((batch.group().as_str(), batch.queue().topic.as_str()), (BILLING, ORDERS));
        consumed += batch.messages().len();
        let tx = bill(&producer, &batch).await.unwrap();
        let before = visible(&broker, BILLS).len();
        let outcome = tx.commit().await;
        assert!(outcome.is_committed(), "{outcome}");
        assert_eq!(visible(&broker, BILLS).len(), before + batch.messages().len());
    }
    assert_eq!(visible(&broker, BILLS), numbered(0..8));
    assert_eq!(producer.running(), 0);
    assert!(consumer.shutdown().await);
    // The group stands behind all of it: its next member has nothing to do.
    let next = connect(&broker).await;
    let again = mezzo_tests::transform::consumer(&next, ConsumerConfig::default()).await;
    order(&client, ["last".to_owned()]).await;
    let batch = again.next_batch().await.unwrap();
    assert_eq!(batch.messages().len(), 1);
    assert_eq!(&batch.messages()[0].body()[..], b"last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_comes_again_after_a_rollback_a_drop_and_a_failed_acknowledgement() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    order(&client, ["one".to_owned()]).await;
    let consumer = consumer(&client, ConsumerConfig::default()).await;
    let (producer, _) = producer(&client, TransactionConfig::default()).await;
    let batch = consumer.next_batch().await.unwrap();
    let first = (batch.from(), batch.next_offset(), batch.epoch());
    assert!(bill(&producer, &batch).await.unwrap().rollback().await.is_rolled_back());
    let batch = consumer.next_batch().await.unwrap();
    drop(bill(&producer, &batch).await.unwrap());
    drop(consumer.next_batch().await.unwrap());
    let batch = consumer.next_batch().await.unwrap();
    let mut tx = producer.begin().await.unwrap();
    tx.send(message(BILLS, "too early")).await.unwrap();
    assert_eq!(tx.ack(&batch), Err(AckError::AfterSend));
    assert!(matches!(tx.commit().await, TransactionOutcome::RolledBack(_, RolledBackBecause::AckFailed)));
    assert_eq!((batch.from(), batch.next_offset(), batch.epoch()), first, "the same, under the same lease");
    assert!(bill(&producer, &batch).await.unwrap().commit().await.is_committed());
    assert_eq!(visible(&broker, BILLS), ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_produce_nothing_move_the_group_too() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    order(&client, numbered(0..4)).await;
    let consumer = consumer(&client, ConsumerConfig::default()).await;
    let (producer, _) = producer(&client, TransactionConfig::default()).await;
    for _ in 0..4 {
        let batch = consumer.next_batch().await.unwrap();
        let mut tx = producer.begin().await.unwrap();
        tx.ack(&batch).unwrap();
        let outcome = tx.commit().await;
        assert!(outcome.is_committed() && outcome.name().messages == 0, "{outcome}");
    }
    assert!(consumer.shutdown().await);
    let next = mezzo_tests::transform::consumer(&client, ConsumerConfig::default()).await;
    wait::until("all queues are leased", || (next.leased_queues().len() == 4).then_some(()));
    assert_eq!(next.lag().await.unwrap().total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_several_queues_and_several_of_one_are_acknowledged_together() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    order(&client, numbered(0..12)).await;
    let consumer = consumer(&client, ConsumerConfig::default().batch_messages_max(1)).await;
    let (producer, _) = producer(&client, TransactionConfig::default()).await;
    let mut tx = producer.begin().await.unwrap();
    let mut batches = Vec::new();
    for _ in 0..12 {
        let batch = consumer.next_batch().await.unwrap();
        tx.ack(&batch).unwrap();
        batches.push(batch);
    }
    let queues: std::collections::BTreeSet<_> = batches.iter().map(|batch| batch.queue().clone()).collect();
    assert_eq!(queues.len(), 4);
    assert_eq!(tx.ack(&batches[0]), Err(AckError::Again), "which does the transaction no harm");
    tx.send(message(BILLS, "all twelve")).await.unwrap();
    assert!(tx.commit().await.is_committed());
    assert_eq!(visible(&broker, BILLS), ["all twelve"]);
    assert_eq!(consumer.lag().await.unwrap().total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_turn_is_refused_and_rolls_its_transaction_back() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let topic_of_one_queue =
        |n: usize| Message::builder(ORDERS).sharding_key("one").body(n.to_string()).build();
    let plain = client.producer("waiters").start().await.unwrap();
    for n in 0..3 {
        plain.send(topic_of_one_queue(n).unwrap()).await.unwrap();
    }
    let consumer = consumer(&client, ConsumerConfig::default().batch_messages_max(1)).await;
    let (producer, _) = producer(&client, TransactionConfig::default()).await;
    let first = consumer.next_batch().await.unwrap();
    let second = consumer.next_batch().await.unwrap();
    let mut tx = producer.begin().await.unwrap();
    let gap = tx.ack(&second).unwrap_err();
    assert!(
        matches!(gap, AckError::Gap { expected, from } if expected == first.from() && from == second.from())
    );
    assert_eq!(tx.ack(&first), Err(AckError::FailedBefore));
    assert!(matches!(tx.commit().await, TransactionOutcome::RolledBack(_, RolledBackBecause::AckFailed)));
    let mut tx = producer.begin().await.unwrap();
    let mut other = producer.begin().await.unwrap();
    tx.ack(&first).unwrap();
    assert_eq!(other.ack(&second), Err(AckError::OtherTransaction));
    assert!(tx.rollback().await.is_rolled_back());
    let mut late = producer.begin().await.unwrap();
    assert_eq!(late.ack(&second), Err(AckError::Superseded), "it comes again behind the first");
    assert_eq!(consumer.next_batch().await.unwrap().from(), first.from());
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_and_local_transactions_exclude_each_other() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    order(&client, ["one".to_owned()]).await;
    let consumer = consumer(&client, ConsumerConfig::default()).await;
    let (producer, asked) = producer(&client, TransactionConfig::default()).await;
    let batch = consumer.next_batch().await.unwrap();
    let mut tx = producer.begin().await.unwrap();
    tx.begin_local().unwrap();
    assert_eq!(tx.ack(&batch), Err(AckError::LocalTransaction));
    drop(tx);
    let mut tx = producer.begin().await.unwrap();
    tx.ack(&batch).unwrap();
    tx.send(message(BILLS, "one")).await.unwrap();
    assert!(matches!(tx.begin_local(), Err(ManyError::Acknowledges)));
    // Nobody else can commit it: it would leave the offsets behind.
    let name = tx.name().clone();
    let named = producer.commit_named(&name).await;
    assert!(matches!(named, TransactionOutcome::Unknown(_, UnknownReason::NeedsOffsets)), "{named}");
    let left = tx.leave_open();
    let outcome = producer.roll_back_named(&left).await;
    assert!(outcome.is_rolled_back(), "{outcome}");
    assert!(visible(&broker, BILLS).is_empty());
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(consumer.next_batch().await.unwrap().from(), batch.from());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_begins_with_the_last_message_keeps_its_start_over_a_crash() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    order(&client, numbered(0..8)).await;
    let config = || brisk().start(StartPosition::Last);
    let consumer = consumer(&client, config()).await;
    wait::until("all queues are leased", || (consumer.leased_queues().len() == 4).then_some(()));
    // Ends without a word: what comes now belongs to the group all the same.
    drop(consumer);
    order(&client, numbered(8..12)).await;
    let next = connect(&broker).await;
    let next = mezzo_tests::transform::consumer(&next, config()).await;
    let mut bodies = Vec::new();
    while bodies.len() < 4 {
        let batch = next.next_batch().await.unwrap();
        bodies.extend(batch.messages().iter().map(|m| String::from_utf8(m.body().to_vec()).unwrap()));
        std::mem::forget(batch);
    }
    bodies.sort();
    assert_eq!(bodies, numbered(8..12));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_the_subscription_leaves_out_move_with_the_batch_behind_them() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let plain = client.producer("waiters").start().await.unwrap();
    for (tag, body) in [("tea", "0"), ("coffee", "1"), ("tea", "2"), ("tea", "3"), ("coffee", "4")] {
        let message = Message::builder(ORDERS).sharding_key("one").tag(tag).body(body.to_owned()).build();
        plain.send(message.unwrap()).await.unwrap();
    }
    let builder = client.transactional_consumer(BILLING).subscribe(ORDERS, "coffee");
    let config = ConsumerConfig::default().batch_messages_max(1);
    let consumer = builder.config(config).start().await.unwrap();
    let (producer, _) = producer(&client, TransactionConfig::default()).await;
    let mut places = Vec::new();
    for _ in 0..2 {
        let batch = consumer.next_batch().await.unwrap();
        places.push((batch.from().0, batch.next_offset().0));
        assert!(bill(&producer, &batch).await.unwrap().commit().await.is_committed());
    }
    assert_eq!(places, [(0, 2), (2, 5)]);
    assert_eq!(visible(&broker, BILLS), ["1", "4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_that_ask_side_by_side_get_batches_that_follow_each_other() {
    const ORDERS_IN_ALL: u64 = 3_000;
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let plain = client.producer("waiters").start().await.unwrap();
    let messages = (0..ORDERS_IN_ALL)
        .map(|n| Message::builder(ORDERS).sharding_key("one").body(n.to_string()).build().unwrap());
    for sent in plain.send_all(messages).await {
        sent.unwrap();
    }
    let config = ConsumerConfig::default().batch_messages_max(2).pull_messages_max(32);
    let consumer = std::sync::Arc::new(consumer(&client, config).await);
    let (sender, mut batches) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..8 {
        let (consumer, sender) = (std::sync::Arc::clone(&consumer), sender.clone());
        tokio::spawn(async move {
            while let Ok(batch) = consumer.next_batch().await {
                sender.send(batch).unwrap();
            }
        });
    }
    let mut of_all = std::collections::BTreeMap::new();
    let mut count = 0;
    while count < ORDERS_IN_ALL {
        let batch = batches.recv().await.unwrap();
        count += batch.messages().len() as u64;
        of_all.insert(batch.from(), batch);
    }
    let mut place = 0;
    for batch in of_all.values() {
        let offsets: Vec<u64> = batch.messages().iter().map(|m| m.queue_offset().0).collect();
        assert_eq!((batch.from().0, offsets), (place, (place..batch.next_offset().0).collect()));
        place = batch.next_offset().0;
    }
    assert_eq!(place, ORDERS_IN_ALL);
}
