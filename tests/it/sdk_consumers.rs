//! Consumers of the SDK against a real broker: order over rebalances, broadcast, pause and seek, polls and streams.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use mezzo_client::config::ConsumerConfig;
use mezzo_client::{
    Client, Message, MessageQueue, PushConsumer, ReceivedMessage, SeekTo, TopicName, Verdict,
};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::wait::{self, PATIENCE};

/// What handlers saw, in the order in which they ended.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(u32, u64)>>>);

impl Log {
    fn note(&self, message: &ReceivedMessage) {
        self.0.lock().unwrap().push((message.queue_id().0, message.queue_offset().0));
    }

    fn all(&self) -> Vec<(u32, u64)> {
        self.0.lock().unwrap().clone()
    }

    fn wait_for(&self, count: usize) {
        wait::until(&format!("{count} messages"), || (self.all().len() >= count).then_some(()));
    }
}

async fn connect(broker: &TestBroker) -> Client {
    Client::connect(broker.name_server().to_string()).await.unwrap()
}

/// Sends so many messages to each of the topic's queues, which are returned.
async fn fill(client: &Client, per_queue: usize) -> Vec<MessageQueue> {
    let producer = client.producer("PG_fill").start().await.unwrap();
    let topic = TopicName::new("orders").unwrap();
    let queues = producer.queues(&topic).await.unwrap();
    for number in 0..per_queue {
        for queue in &queues {
            let message = Message::new("orders", number.to_string()).unwrap();
            producer.send_to_queue(message, queue).await.unwrap();
        }
    }
    producer.shutdown().await;
    queues
}

async fn ordered(client: &Client, log: &Log) -> PushConsumer {
    let log = log.clone();
    let builder = client.push_consumer("CG_ordered").subscribe("orders", "*");
    let handler = move |message: ReceivedMessage| {
        let log = log.clone();
        async move {
            tokio::task::yield_now().await;
            log.note(&message);
            Verdict::Done
        }
    };
    builder.ordered_handler(handler).start().await.unwrap()
}

fn held(consumer: &PushConsumer) -> usize {
    consumer.queues().iter().filter(|queue| queue.topic.as_str() == "orders").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_each_queue_holds_while_members_come_and_go() {
    let broker = TestBroker::start(&[]);
    let (one, two) = (connect(&broker).await, connect(&broker).await);
    let log = Log::default();
    let queues = fill(&one, 50).await.len();
    let first = ordered(&one, &log).await;
    wait::until("the first has all", || (held(&first) == queues).then_some(()));
    let sending = tokio::spawn(async move { fill(&one, 100).await });
    let second = ordered(&two, &log).await;
    wait::until("they share", || (held(&first) + held(&second) == queues && held(&second) > 0).then_some(()));
    sending.await.unwrap();
    assert!(second.shutdown().await);
    log.wait_for(queues * 150);
    assert!(first.shutdown().await);
    let mut last = BTreeMap::new();
    for (queue, offset) in log.all() {
        let expected = last.get(&queue).map_or(0, |last: &u64| last + 1);
        assert_eq!(offset, expected, "queue {queue}: nothing twice, nothing left out, nothing overtaken");
        last.insert(queue, offset);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_message_is_repeated_before_the_next_one() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let queues = fill(&client, 3).await.len();
    let log = Log::default();
    let config = ConsumerConfig::default().ordered_suspend_ms(5);
    let handler = {
        let log = log.clone();
        move |message: ReceivedMessage| {
            let done = message.delivery_attempt() == 3 || message.queue_offset().0 != 1;
            log.note(&message);
            async move { if done { Verdict::Done } else { Verdict::Retry } }
        }
    };
    let builder = client.push_consumer("CG_ordered").subscribe("orders", "*").config(config);
    let consumer = builder.ordered_handler(handler).start().await.unwrap();
    log.wait_for(queues * 5);
    assert!(consumer.shutdown().await);
    for queue in 0..u32::try_from(queues).unwrap() {
        let offsets: Vec<_> =
            log.all().into_iter().filter(|(id, _)| *id == queue).map(|(_, at)| at).collect();
        assert_eq!(offsets, [0, 1, 1, 1, 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broadcast_member_gets_everything_once_over_restarts() {
    let broker = TestBroker::start(&[]);
    let clients = [connect(&broker).await, connect(&broker).await];
    let logs = [Log::default(), Log::default()];
    let mut total = 0;
    for _ in 0..2 {
        total += fill(&clients[0], 5).await.len() * 5;
        let mut consumers = Vec::new();
        for (number, (client, log)) in clients.iter().zip(&logs).enumerate() {
            let log = log.clone();
            let handler = move |message: ReceivedMessage| {
                log.note(&message);
                async { Verdict::Done }
            };
            let file = broker.scratch().join(format!("member-{number}.offsets"));
            let builder = client.push_consumer("CG_broadcast").subscribe("orders", "*").broadcast(file);
            consumers.push(builder.handler(handler).start().await.unwrap());
        }
        logs.iter().for_each(|log| log.wait_for(total));
        for consumer in consumers {
            assert!(consumer.shutdown().await);
        }
    }
    for log in &logs {
        let all = log.all();
        assert_eq!(all.len(), total, "nothing twice");
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), total, "nothing missing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_consumer_falls_behind_and_a_seek_brings_everything_again() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let queues = fill(&client, 4).await;
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |message: ReceivedMessage| {
            log.note(&message);
            async { Verdict::Done }
        }
    };
    let consumer = client.push_consumer("CG_steered").subscribe("orders", "*").handler(handler);
    let consumer = consumer.start().await.unwrap();
    log.wait_for(queues.len() * 4);
    consumer.pause();
    fill(&client, 2).await;
    let mut lag = 0;
    for _ in 0..100 {
        lag = consumer.lag().await.unwrap().total();
        if lag == queues.len() as u64 * 2 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!((lag, log.all().len()), (queues.len() as u64 * 2, queues.len() * 4));
    for queue in &queues {
        consumer.seek(queue, SeekTo::Begin).await.unwrap();
    }
    assert_eq!(consumer.lag().await.unwrap().total(), queues.len() as u64 * 6);
    consumer.resume();
    log.wait_for(queues.len() * 10);
    assert!(consumer.shutdown().await);
    assert_eq!(log.all().len(), queues.len() * 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_and_streams_give_each_message_and_go_on_at_the_last_commit() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let queues = fill(&client, 10).await;
    let all = queues.len() * 10;
    let consumer = client.pull_consumer("CG_pull").subscribe("orders", "*").start().await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < all / 2 {
        for message in consumer.poll(PATIENCE, all / 2 - seen.len()).await.unwrap() {
            assert!(seen.insert((message.queue_id().0, message.queue_offset().0)));
        }
    }
    assert!(consumer.commit().await);
    let beyond = consumer.poll(PATIENCE, 3).await.unwrap();
    assert!(!beyond.is_empty());
    consumer.shutdown().await;

    let consumer = client.pull_consumer("CG_pull").assign(queues).start().await.unwrap();
    let mut stream = consumer.stream();
    while seen.len() < all {
        let message = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap();
        assert!(seen.insert((message.queue_id().0, message.queue_offset().0)), "committed and given again");
    }
    assert!(consumer.commit().await);
    assert_eq!(consumer.lag().await.unwrap().total(), 0);
    consumer.shutdown().await;
}
