//! Pull consumers against a real broker: bounds of what is pulled ahead, pause, seek, lag, commits, streams.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::time::Duration;

use mezzo_client::config::ConsumerConfig;
use mezzo_client::{
    Client, Clock as _, Message, MessageQueue, PullConsumer, QueueOffset, SeekTo, SystemClock, TopicName,
};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::wait::{self, PATIENCE};

/// Long enough for what is there already: a poll that finds nothing takes this time.
const SHORT: Duration = Duration::from_millis(50);

async fn connect(broker: &TestBroker) -> Client {
    Client::connect(broker.name_server().to_string()).await.unwrap()
}

/// One queue with messages "0", "1", … of so many bytes at least.
async fn one_queue(client: &Client, count: usize, bytes: usize) -> MessageQueue {
    let producer = client.producer("PG_pull").start().await.unwrap();
    let queue = producer.queues(&TopicName::new("orders").unwrap()).await.unwrap().remove(0);
    append(client, &queue, 0..count, bytes).await;
    queue
}

async fn append(client: &Client, queue: &MessageQueue, numbers: std::ops::Range<usize>, bytes: usize) {
    let producer = client.producer("PG_pull").start().await.unwrap();
    for number in numbers {
        let message = Message::new("orders", format!("{number:<bytes$}")).unwrap();
        producer.send_to_queue(message, queue).await.unwrap();
    }
}

async fn assigned(client: &Client, queue: &MessageQueue, config: ConsumerConfig) -> PullConsumer {
    client.pull_consumer("CG_pull").assign([queue.clone()]).config(config).start().await.unwrap()
}

/// The next so many offsets.
async fn offsets(consumer: &PullConsumer, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        let messages = consumer.poll(PATIENCE, count - offsets.len()).await.unwrap();
        assert!(!messages.is_empty(), "only {offsets:?} came");
        offsets.extend(messages.iter().map(|message| message.queue_offset().0));
    }
    offsets
}

/// What was pulled ahead shows when the broker is gone: nothing else can come then.
async fn pulled_ahead(config: ConsumerConfig, bytes: usize) -> usize {
    let mut broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let queue = one_queue(&client, 60, bytes).await;
    let consumer = assigned(&client, &queue, config).await;
    assert_eq!(offsets(&consumer, 1).await, [0]);
    broker = tokio::task::spawn_blocking(move || {
        broker.stop();
        broker
    })
    .await
    .unwrap();
    let mut ahead = 0;
    loop {
        let messages = consumer.poll(SHORT, 1_000).await.unwrap();
        if messages.is_empty() {
            break;
        }
        ahead += messages.len();
    }
    let broker = tokio::task::spawn_blocking(move || {
        broker.restart();
        broker
    })
    .await
    .unwrap();
    let rest = offsets(&consumer, 59 - ahead).await;
    assert_eq!(rest.last().copied().unwrap_or(59), 59, "the rest comes when the broker is back");
    consumer.shutdown().await;
    tokio::task::spawn_blocking(move || drop(broker)).await.unwrap();
    ahead
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_messages_are_pulled_ahead_than_the_bound_says() {
    let ahead = pulled_ahead(ConsumerConfig::default().prefetch_messages(4).pull_messages_max(2), 1).await;
    assert!(ahead <= 5, "{ahead}: four, and what one more pull brought before the bound was reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_bytes_are_pulled_ahead_than_the_bound_says() {
    let ahead =
        pulled_ahead(ConsumerConfig::default().prefetch_bytes(4_000).pull_messages_max(1), 1_000).await;
    assert!(ahead <= 4, "{ahead} messages of more than 1,000 bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_pull_consumer_gives_nothing_falls_behind_and_keeps_its_order() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let queue = one_queue(&client, 10, 1).await;
    let consumer = assigned(&client, &queue, ConsumerConfig::default()).await;
    assert_eq!(offsets(&consumer, 3).await, [0, 1, 2]);
    consumer.pause();
    append(&client, &queue, 10..15, 1).await;
    assert!(consumer.poll(SHORT, 100).await.unwrap().is_empty());
    assert_eq!(consumer.lag().await.unwrap().total(), 12);
    consumer.resume();
    assert_eq!(offsets(&consumer, 4).await, [3, 4, 5, 6]);
    consumer.pause_queue(&queue);
    assert!(consumer.poll(SHORT, 100).await.unwrap().is_empty());
    consumer.resume_queue(&queue);
    assert_eq!(offsets(&consumer, 8).await, (7..15).collect::<Vec<_>>());
    assert_eq!(consumer.lag().await.unwrap().total(), 0);
    consumer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_consumer_goes_on_wherever_it_is_told_to() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let queue = one_queue(&client, 3, 1).await;
    let sent = SystemClock.now();
    let between = wait::until("a later time", || Some(SystemClock.now()).filter(|now| *now > sent));
    append(&client, &queue, 3..5, 1).await;
    let consumer = assigned(&client, &queue, ConsumerConfig::default()).await;
    assert_eq!(offsets(&consumer, 5).await, [0, 1, 2, 3, 4]);
    for (to, expected) in [
        (SeekTo::Offset(QueueOffset(4)), vec![4]),
        (SeekTo::Time(between), vec![3, 4]),
        (SeekTo::Begin, vec![0, 1, 2, 3, 4]),
    ] {
        consumer.seek(&queue, to).await.unwrap();
        assert_eq!(offsets(&consumer, expected.len()).await, expected, "{to:?}");
    }
    consumer.seek(&queue, SeekTo::Begin).await.unwrap();
    consumer.seek(&queue, SeekTo::End).await.unwrap();
    append(&client, &queue, 5..6, 1).await;
    assert_eq!(offsets(&consumer, 1).await, [5]);
    assert!(consumer.commit().await);
    consumer.shutdown().await;
    let consumer = assigned(&client, &queue, ConsumerConfig::default()).await;
    assert!(consumer.poll(SHORT, 1).await.unwrap().is_empty(), "the commit counts");
    consumer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_or_a_step_of_a_stream_that_is_given_up_loses_nothing() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let queue = one_queue(&client, 0, 1).await;
    let consumer = assigned(&client, &queue, ConsumerConfig::default()).await;
    let mut stream = consumer.stream();
    let sending = tokio::spawn({
        let (client, queue) = (client.clone(), queue.clone());
        async move { append(&client, &queue, 0..200, 1).await }
    });
    let mut seen = Vec::new();
    while seen.len() < 200 {
        // Given up at once, again and again, while messages come.
        if let Ok(message) = tokio::time::timeout(Duration::from_micros(50), stream.next()).await {
            seen.push(message.unwrap().queue_offset().0);
        }
        let poll = consumer.poll(PATIENCE, 3);
        if let Ok(messages) = tokio::time::timeout(Duration::from_micros(50), poll).await {
            seen.extend(messages.unwrap().iter().map(|message| message.queue_offset().0));
        }
    }
    sending.await.unwrap();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    consumer.shutdown().await;
    assert!(stream.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_consumers_and_broadcasts_leave_no_retry_topic_behind() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    one_queue(&client, 1, 1).await;
    let consumer = client.pull_consumer("CG_passing").subscribe("orders", "*").start().await.unwrap();
    assert_eq!(offsets(&consumer, 1).await, [0]);
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let broadcast = client.push_consumer("CG_all").subscribe("orders", "*");
    let broadcast = broadcast.broadcast(broker.scratch().join("all.offsets"));
    let handler = move |_: mezzo_client::ReceivedMessage| {
        sender.send(()).unwrap();
        async { mezzo_client::Verdict::Done }
    };
    let broadcast = broadcast.handler(handler).start().await.unwrap();
    tokio::time::timeout(PATIENCE, seen.recv()).await.unwrap();
    let mut names = mezzo_tests::wire::Wire::connect(broker.name_server());
    let topics: serde_json::Value = serde_json::from_slice(&names.call(206, &[], b"").body).unwrap();
    assert_eq!(topics["topicList"], serde_json::json!(["orders"]));
    broadcast.shutdown().await;
    consumer.shutdown().await;
    // Who gives messages back has one.
    let mut raw = Consumer::connect(broker.address(), "CG_raw");
    raw.join(&["orders"]);
    let topics: serde_json::Value = serde_json::from_slice(&names.call(206, &[], b"").body).unwrap();
    assert_eq!(topics["topicList"], serde_json::json!(["%RETRY%CG_raw", "orders"]));
}
