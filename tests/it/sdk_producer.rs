//! The SDK's producer against a whole broker: many messages in one call, and everything that arrives of them.

use std::collections::BTreeSet;
use std::time::Duration;

use mezzo_client::config::{BatchingPolicy, BodyCompression, ProducerConfig};
use mezzo_client::{Client, Clock as _, Message, PushConsumer, ReceivedMessage, Verdict};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::wait::PATIENCE;
use tokio::sync::mpsc;

async fn connect(broker: &TestBroker) -> Client {
    Client::connect(broker.name_server().to_string()).await.expect("the broker is there")
}

/// A consumer of `orders` that keeps the order of each queue, and what it receives.
async fn arrivals(client: &Client) -> (PushConsumer, mpsc::Receiver<ReceivedMessage>) {
    let (sender, received) = mpsc::channel(10_000);
    let handler = move |message: ReceivedMessage| {
        let sender = sender.clone();
        async move {
            sender.send(message).await.expect("the test listens as long as it consumes");
            Verdict::Done
        }
    };
    let consumer =
        client.push_consumer("CG_producer").subscribe("orders", "*").ordered_handler(handler).start().await;
    (consumer.expect("a consumer starts"), received)
}

async fn next(received: &mut mpsc::Receiver<ReceivedMessage>) -> ReceivedMessage {
    let next = tokio::time::timeout(PATIENCE, received.recv()).await;
    next.expect("a message arrives").expect("the consumer runs")
}

fn text(message: &ReceivedMessage) -> String {
    String::from_utf8(message.body().to_vec()).expect("this test's bodies are text")
}

#[tokio::test(flavor = "multi_thread")]
async fn all_messages_of_one_call_arrive_once_and_where_their_receipts_say() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = client.producer("PG_many").start().await.expect("a producer starts");
    let messages = (0..2_000).map(|number| Message::new("orders", number.to_string()).expect("valid"));
    // In a task of its own: the call can be spawned.
    let sending = tokio::spawn({
        let (producer, messages) = (producer.clone(), messages.collect::<Vec<_>>());
        async move { producer.send_all(messages).await }
    });
    let receipts: BTreeSet<_> = sending
        .await
        .expect("it does not panic")
        .into_iter()
        .map(|sent| {
            let receipt = sent.expect("a healthy broker stores everything");
            (receipt.unique_key.to_string(), receipt.queue.queue_id, receipt.queue_offset)
        })
        .collect();
    assert_eq!(receipts.len(), 2_000);
    let (_consumer, mut received) = arrivals(&client).await;
    let (mut bodies, mut places) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..2_000 {
        let message = next(&mut received).await;
        bodies.insert(text(&message));
        let key = message.unique_key().expect("the client gives keys").to_owned();
        places.insert((key, message.queue_id(), message.queue_offset()));
    }
    assert_eq!(bodies, (0..2_000).map(|number: u32| number.to_string()).collect());
    assert_eq!(places, receipts);
    assert!(received.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_stored_in_its_order_on_one_queue() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = client.producer("PG_batch").start().await.expect("a producer starts");
    let messages = (0..50).map(|number| {
        Message::builder("orders").tag("t").body(number.to_string()).build().expect("a valid message")
    });
    let receipts = producer.send_batch(messages).await.expect("a healthy broker stores it");
    assert_eq!(receipts.len(), 50);
    let (_consumer, mut received) = arrivals(&client).await;
    for (number, receipt) in receipts.iter().enumerate() {
        let message = next(&mut received).await;
        assert_eq!((text(&message), message.tag()), (number.to_string(), Some("t")));
        assert_eq!(message.unique_key(), Some(&*receipt.unique_key));
        assert_eq!(
            (message.queue_id(), message.queue_offset()),
            (receipt.queue.queue_id, receipt.queue_offset)
        );
        assert_eq!(receipt.offset_message_id, message.offset_message_id().encode());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn single_sends_that_linger_arrive_once_each() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer =
        client.producer("PG_linger").batching(BatchingPolicy::default()).start().await.expect("it starts");
    let mut sends = tokio::task::JoinSet::new();
    for number in 0..300 {
        let producer = producer.clone();
        let message = Message::new("orders", number.to_string()).expect("a valid message");
        sends.spawn(async move { producer.send(message).await.expect("stored").queue_offset });
    }
    sends.join_all().await;
    assert!(producer.shutdown().await);
    let (_consumer, mut received) = arrivals(&client).await;
    let mut bodies = BTreeSet::new();
    for _ in 0..300 {
        bodies.insert(text(&next(&mut received).await));
    }
    assert_eq!(bodies, (0..300).map(|number: u32| number.to_string()).collect());
    assert!(received.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_arrive_as_they_were_sent_whatever_compresses_them() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let (_consumer, mut received) = arrivals(&client).await;
    for compression in
        [BodyCompression::Off, BodyCompression::Zlib, BodyCompression::Lz4, BodyCompression::Zstd]
    {
        let config = ProducerConfig::default().compression(compression);
        let producer = client.producer("PG_small").config(config).start().await.expect("a producer starts");
        let body = format!("{compression:?} ").repeat(2_000);
        producer.send(Message::new("orders", body.clone()).expect("valid")).await.expect("stored");
        assert_eq!(text(&next(&mut received).await), body);
        producer.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_appears_when_its_time_has_come() {
    let broker = TestBroker::with_manual_clock(&[]);
    let client = connect(&broker).await;
    let producer = client.producer("PG_late").start().await.expect("a producer starts");
    let (_consumer, mut received) = arrivals(&client).await;
    let builder = |body: &str| Message::builder("orders").body(body.to_owned());
    let hour = Duration::from_secs(3_600);
    let at = broker.clock().now().saturating_add_ms(7_200_000);
    producer.send(builder("in an hour").delay(hour).build().expect("valid")).await.expect("stored");
    producer.send(builder("at a time").deliver_at(at).build().expect("valid")).await.expect("stored");
    producer.send(builder("now").build().expect("valid")).await.expect("stored");
    for expected in ["now", "in an hour", "at a time"] {
        assert_eq!(text(&next(&mut received).await), expected);
        assert!(received.try_recv().is_err(), "nothing comes before its time");
        broker.clock().advance(hour + Duration::from_millis(1));
    }
}
