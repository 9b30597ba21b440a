//! The SDK's producer against a whole broker: many messages in one call, and everything that arrives of them.

use std::collections::{BTreeMap, BTreeSet};
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
        let message = next(&mut received).await;
        assert_eq!(text(&message), body);
        // RocketMQ's flags: bit 0, and the algorithm in bits 8 to 10.
        let flag = match compression {
            BodyCompression::Zlib => 1 | 3 << 8,
            BodyCompression::Lz4 => 1 | 1 << 8,
            BodyCompression::Zstd => 1 | 2 << 8,
            _ => 0,
        };
        assert_eq!(message.sys_flag().bits(), flag, "{compression:?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_level_is_a_time_on_the_ladder() {
    let broker = TestBroker::with_manual_clock(&[]);
    let client = connect(&broker).await;
    let producer = client.producer("PG_level").start().await.expect("a producer starts");
    let (_consumer, mut received) = arrivals(&client).await;
    // Level 5 is a minute.
    let later = Message::builder("orders").delay_level(5).tag("t").body("later").build().expect("valid");
    producer.send(later).await.expect("stored");
    broker.clock().advance(Duration::from_secs(59));
    producer.send(Message::new("orders", "now").expect("valid")).await.expect("stored");
    assert_eq!(text(&next(&mut received).await), "now");
    broker.clock().advance(Duration::from_secs(2));
    let message = next(&mut received).await;
    assert_eq!((text(&message), message.tag()), ("later".to_owned(), Some("t")));
}

#[tokio::test(flavor = "multi_thread")]
async fn tag_keys_headers_and_flag_arrive_as_they_were_sent() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = client.producer("PG_headers").start().await.expect("a producer starts");
    let message = Message::builder("orders")
        .tag("paid")
        .key("order-17")
        .key("customer-4")
        .property("source", "till 3")
        .properties([("trace", "00-4bf9"), ("currency", "\u{20ac} \"euro\"")])
        .flag(-7)
        .body("17 paid")
        .build()
        .expect("a valid message");
    let receipt = producer.send(message).await.expect("stored");
    let (_consumer, mut received) = arrivals(&client).await;
    let message = next(&mut received).await;
    assert_eq!((text(&message), message.tag(), message.flag()), ("17 paid".to_owned(), Some("paid"), -7));
    assert_eq!(message.keys().collect::<Vec<_>>(), ["order-17", "customer-4"]);
    let headers = ["source", "trace", "currency"].map(|name| message.property(name));
    assert_eq!(headers, [Some("till 3"), Some("00-4bf9"), Some("\u{20ac} \"euro\"")]);
    assert_eq!(message.unique_key(), Some(&*receipt.unique_key));
    assert_eq!(receipt.parsed_offset_message_id(), Some(message.offset_message_id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_key_arrive_in_their_order() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = client.producer("PG_ordered").start().await.expect("a producer starts");
    let keyed = |customer: u32, step: u32| {
        let builder = Message::builder("orders").sharding_key(format!("customer-{customer}"));
        builder.body(step.to_string()).build().expect("a valid message")
    };
    for step in 0..20 {
        for customer in 0..5 {
            producer.send(keyed(customer, step)).await.expect("stored");
        }
    }
    // The same keys in one call, behind those.
    let rest = (20..40).flat_map(|step| (0..5).map(move |customer| (customer, step)));
    let sent = producer.send_all(rest.map(|(customer, step)| keyed(customer, step))).await;
    assert!(sent.iter().all(Result::is_ok));
    let (_consumer, mut received) = arrivals(&client).await;
    let mut steps: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut queues: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    for _ in 0..200 {
        let message = next(&mut received).await;
        let key = message.sharding_key().expect("sent with one").to_owned();
        queues.entry(key.clone()).or_default().insert(message.queue_id());
        steps.entry(key).or_default().push(text(&message));
    }
    let in_order: Vec<_> = (0..40).map(|step: u32| step.to_string()).collect();
    assert_eq!(steps.len(), 5);
    assert!(steps.values().all(|steps| *steps == in_order), "{steps:?}");
    assert!(queues.values().all(|queues| queues.len() == 1), "{queues:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_way_messages_arrive_although_nobody_waited_for_the_broker() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = client.producer("PG_oneway").start().await.expect("a producer starts");
    // The first makes the topic.
    producer.send(Message::new("orders", "first").expect("valid")).await.expect("stored");
    for number in 0..100 {
        let message = Message::new("orders", number.to_string()).expect("valid");
        producer.send_oneway(message).await.expect("handed over");
    }
    let (_consumer, mut received) = arrivals(&client).await;
    let mut bodies = BTreeSet::new();
    for _ in 0..101 {
        bodies.insert(text(&next(&mut received).await));
    }
    assert_eq!(bodies.len(), 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_automatic_batch_that_is_too_large_for_the_broker_arrives_in_parts() {
    // It takes 128 KiB at once.
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let policy = BatchingPolicy::default().linger_ms(1_000).messages_max(8).bytes_max(1 << 20);
    let config = ProducerConfig::default().compression(BodyCompression::Off).batching(Some(policy));
    let producer = client.producer("PG_parts").config(config).start().await.expect("a producer starts");
    let mut sends = tokio::task::JoinSet::new();
    for number in 0..8_u8 {
        let producer = producer.clone();
        let message = Message::new("orders", vec![number; 40_000]).expect("a valid message");
        sends.spawn(async move { producer.send(message).await.expect("stored in the end") });
    }
    let places: BTreeSet<_> = sends
        .join_all()
        .await
        .into_iter()
        .map(|receipt| (receipt.queue.queue_id, receipt.queue_offset))
        .collect();
    assert_eq!(places.len(), 8);
    let (_consumer, mut received) = arrivals(&client).await;
    let mut bodies = BTreeSet::new();
    for _ in 0..8 {
        let message = next(&mut received).await;
        assert_eq!(message.body().len(), 40_000);
        bodies.insert(message.body()[0]);
    }
    assert_eq!(bodies, (0..8).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn narrow_bounds_of_what_is_in_flight_lose_nothing() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let config = ProducerConfig::default().in_flight_max(3).in_flight_bytes_max(16);
    let producer = client.producer("PG_narrow").config(config).start().await.expect("a producer starts");
    let mut sends = tokio::task::JoinSet::new();
    for number in 0..200 {
        let producer = producer.clone();
        let message = Message::new("orders", number.to_string()).expect("a valid message");
        sends.spawn(async move { producer.send(message).await.expect("stored").unique_key.to_string() });
    }
    let keys: BTreeSet<_> = sends.join_all().await.into_iter().collect();
    assert_eq!(keys.len(), 200);
    assert!(producer.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_others_at_shutdown_is_sent_at_once() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let hour_ms = 3_600_000;
    let policy = BatchingPolicy::default().linger_ms(hour_ms);
    let config = ProducerConfig::default().send_timeout_ms(10 * hour_ms).batching(Some(policy));
    let producer = client.producer("PG_flush").config(config).start().await.expect("a producer starts");
    let sending = producer.send(Message::new("orders", "waits").expect("a valid message"));
    let (sent, drained) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(sending, producer.shutdown()) })
            .await
            .expect("nobody waits for the hour");
    assert!(sent.is_ok() && drained);
    let (_consumer, mut received) = arrivals(&client).await;
    assert_eq!(text(&next(&mut received).await), "waits");
}
