//! Pull consumers: messages when asked, commits when told.

use std::time::Duration;

use mezzo_client::{Error, MessageQueue, PullConsumer, QueueId, QueueOffset, SeekTo, TopicName};
use mezzo_protocol::remoting::RequestCode;

use crate::consuming::{PATIENCE, PULL, broker, committed, put, quick};

fn orders(id: u32) -> MessageQueue {
    MessageQueue::new(TopicName::new("orders").unwrap(), "fake", QueueId(id))
}

/// The next `count` bodies.
async fn texts(consumer: &PullConsumer, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        let messages = consumer.poll(PATIENCE, count - texts.len()).await.unwrap();
        assert!(!messages.is_empty(), "only {texts:?} came");
        texts.extend(messages.iter().map(|message| String::from_utf8(message.body().to_vec()).unwrap()));
    }
    texts
}

#[tokio::test]
async fn messages_come_in_order_when_asked_for_and_are_committed_when_told() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a"), ("other", "b"), ("t", "c"), ("t", "d")]);
    let client = broker.client().await;
    let builder = client.pull_consumer("readers").subscribe("orders", "t").config(quick());
    let consumer = builder.start().await.unwrap();
    assert_eq!(texts(&consumer, 2).await, ["a", "c"]);
    assert_eq!(committed(&broker, 0), Some(0), "where the group begins, and nothing more");
    assert_eq!(consumer.lag().await.unwrap().total(), 1);
    assert!(consumer.commit().await);
    assert_eq!(committed(&broker, 0), Some(3));
    assert_eq!(texts(&consumer, 1).await, ["d"]);
    assert!(consumer.poll(Duration::from_millis(30), 10).await.unwrap().is_empty());
    consumer.shutdown().await;
    assert_eq!(committed(&broker, 0), Some(3), "what was handed out after the last commit comes again");
    assert_eq!(broker.all(RequestCode::UNREGISTER_CLIENT).len(), 1);
}

#[tokio::test]
async fn assigned_queues_are_read_without_joining_the_group() {
    let broker = broker(3).await;
    for (id, body) in [(0, "a"), (1, "b"), (2, "c")] {
        put(&broker, id, &[("t", body)]);
    }
    let client = broker.client().await;
    let builder = client.pull_consumer("readers").assign([orders(0), orders(2)]).config(quick());
    let consumer = builder.start().await.unwrap();
    let mut found = texts(&consumer, 2).await;
    found.sort();
    assert_eq!(found, ["a", "c"]);
    assert_eq!(consumer.queues(), [orders(0), orders(2)]);
    consumer.shutdown().await;
    assert!(broker.all(RequestCode::GET_CONSUMER_LIST_BY_GROUP).is_empty());
    assert!(broker.all(RequestCode::HEART_BEAT).is_empty());
    assert!(!broker.all(PULL).iter().any(|seen| seen.field("queueId") == "1"));
}

#[tokio::test]
async fn a_seek_forgets_what_was_pulled_and_is_not_committed_by_itself() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a"), ("t", "b"), ("t", "c")]);
    let client = broker.client().await;
    let consumer = client.pull_consumer("readers").assign([orders(0)]).config(quick()).start().await.unwrap();
    assert_eq!(texts(&consumer, 2).await, ["a", "b"]);
    consumer.seek(&orders(0), SeekTo::Offset(QueueOffset(1))).await.unwrap();
    assert_eq!(committed(&broker, 0), Some(0));
    assert_eq!(texts(&consumer, 2).await, ["b", "c"]);
    consumer.seek(&orders(0), SeekTo::Begin).await.unwrap();
    assert!(consumer.commit().await);
    assert_eq!(texts(&consumer, 3).await, ["a", "b", "c"]);
    assert_eq!(committed(&broker, 0), Some(0));
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_stream_gives_every_message_and_ends_with_its_consumer() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a"), ("t", "b")]);
    broker.shared.lock().queues.put_damaged("orders", 0);
    let client = broker.client().await;
    let consumer = client.pull_consumer("readers").subscribe("orders", "*").config(quick());
    let consumer = consumer.start().await.unwrap();
    let mut stream = consumer.stream();
    for body in ["a", "b"] {
        assert_eq!(stream.next().await.unwrap().body(), body);
    }
    assert!(consumer.commit().await);
    assert_eq!(committed(&broker, 0), Some(2));
    let waiting = tokio::spawn(async move { (stream.next().await.map(|next| next.body().clone()), stream) });
    tokio::task::yield_now().await;
    put(&broker, 0, &[("t", "after the damaged one")]);
    let (next, mut stream) = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(next.unwrap(), "after the damaged one");
    consumer.shutdown().await;
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_consumer_of_a_client_that_is_shut_down_says_so() {
    let broker = broker(1).await;
    let client = broker.client().await;
    let consumer = client.pull_consumer("readers").subscribe("orders", "*").start().await.unwrap();
    let endless = consumer.poll(Duration::MAX, 0);
    let ((), ended) = tokio::join!(client.shutdown(), endless);
    assert!(matches!(ended, Err(Error::Request(_))));
    assert!(matches!(consumer.poll(PATIENCE, 1).await, Err(Error::Request(_))));
    let both = client.pull_consumer("g").subscribe("orders", "*").assign([orders(0)]).start().await;
    assert!(matches!(both, Err(Error::Config { .. })));
}

#[tokio::test]
async fn a_paused_queue_gives_nothing_until_it_is_resumed_and_keeps_its_order() {
    let broker = broker(2).await;
    put(&broker, 0, &[("t", "a"), ("t", "b"), ("t", "c"), ("t", "d")]);
    let client = broker.client().await;
    let builder = client.pull_consumer("readers").assign([orders(0), orders(1)]).config(quick());
    let consumer = builder.start().await.unwrap();
    assert_eq!(texts(&consumer, 1).await, ["a"]);
    consumer.pause_queue(&orders(0));
    put(&broker, 0, &[("t", "e")]);
    put(&broker, 1, &[("t", "other")]);
    assert_eq!(texts(&consumer, 1).await, ["other"]);
    assert!(consumer.poll(Duration::from_millis(30), 10).await.unwrap().is_empty());
    assert_eq!(consumer.lag().await.unwrap().total(), 4);
    consumer.pause();
    consumer.resume_queue(&orders(0));
    assert!(consumer.poll(Duration::from_millis(30), 10).await.unwrap().is_empty(), "all are paused");
    consumer.resume();
    assert_eq!(texts(&consumer, 2).await, ["b", "c"]);
    // Paused and resumed at once: what was ready before keeps its place before what comes.
    consumer.pause();
    consumer.resume();
    assert_eq!(texts(&consumer, 2).await, ["d", "e"]);
    consumer.shutdown().await;
}
