//! Consumers: who gets which queue, what is committed, what comes again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mezzo_client::config::{BackoffPolicy, ConsumerConfig, StartPosition};
use mezzo_client::{Client, Handler, PushConsumer, ReceivedMessage, ResponseCode, Timestamp, Verdict};
use mezzo_protocol::remoting::{RemotingCommand, RequestCode};
use tokio::sync::{Semaphore, mpsc};

use crate::fake::{Action, FakeBroker};

pub(crate) const PULL: RequestCode = RequestCode::PULL_MESSAGE;
pub(crate) const BACK: RequestCode = RequestCode::CONSUMER_SEND_MSG_BACK;
pub(crate) const COMMIT: RequestCode = RequestCode::UPDATE_CONSUMER_OFFSET;

/// Longest wait of a test for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn broker(queues: u32) -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", queues);
    broker
}

pub(crate) fn put(broker: &FakeBroker, queue: u32, messages: &[(&str, &str)]) {
    for (tag, body) in messages {
        broker.shared.lock().queues.put("orders", queue, tag, body);
    }
}

pub(crate) fn committed(broker: &FakeBroker, queue: u32) -> Option<i64> {
    broker.shared.lock().queues.committed_of("readers", "orders", queue)
}

pub(crate) fn quick() -> ConsumerConfig {
    ConsumerConfig::default()
        .commit_interval_ms(20)
        .pull_backoff(BackoffPolicy::new(5, 20))
        .rebalance_backoff(BackoffPolicy::new(10, 50))
        .local_retry_ms(10)
}

pub(crate) async fn consume(client: &Client, config: ConsumerConfig, handler: impl Handler) -> PushConsumer {
    let builder = client.push_consumer("readers").subscribe("orders", "*").config(config);
    builder.handler(handler).start().await.unwrap()
}

/// A handler that passes on what it gets, and a place to get it from.
pub(crate) fn collecting(verdict: Verdict) -> (impl Handler, mpsc::UnboundedReceiver<ReceivedMessage>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let handler = move |message: ReceivedMessage| {
        sender.send(message).unwrap();
        async move { verdict }
    };
    (handler, receiver)
}

pub(crate) async fn next(messages: &mut mpsc::UnboundedReceiver<ReceivedMessage>) -> ReceivedMessage {
    tokio::time::timeout(PATIENCE, messages.recv()).await.expect("a message comes").unwrap()
}

pub(crate) async fn bodies(
    messages: &mut mpsc::UnboundedReceiver<ReceivedMessage>,
    count: usize,
) -> BTreeSet<String> {
    let mut bodies = BTreeSet::new();
    for _ in 0..count {
        bodies.insert(String::from_utf8(next(messages).await.body().to_vec()).unwrap());
    }
    bodies
}

pub(crate) async fn wait_committed(broker: &FakeBroker, queue: u32, offset: i64) {
    let is_there = |memory: &crate::fake::Memory| {
        (memory.queues.committed_of("readers", "orders", queue) == Some(offset)).then_some(())
    };
    broker.wait_until(&format!("commit of {offset} in queue {queue}"), is_there).await;
}

#[tokio::test]
async fn all_messages_of_all_queues_arrive_and_their_offsets_are_committed() {
    let broker = broker(2).await;
    put(&broker, 0, &[("t", "a"), ("t", "b")]);
    put(&broker, 1, &[("t", "c")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(&client, quick(), handler).await;
    assert_eq!(bodies(&mut messages, 3).await, ["a", "b", "c"].map(String::from).into());
    wait_committed(&broker, 0, 2).await;
    put(&broker, 1, &[("t", "d")]);
    let message = next(&mut messages).await;
    assert_eq!((message.topic().as_str(), message.queue_id().0, message.queue_offset().0), ("orders", 1, 1));
    assert_eq!((message.tag(), message.delivery_attempt()), (Some("t"), 1));
    assert!(consumer.shutdown().await);
    assert_eq!(committed(&broker, 1), Some(2));
    let left = broker.wait_nth(RequestCode::UNREGISTER_CLIENT, 1).await;
    assert_eq!(left.field("consumerGroup"), "readers");
}

#[tokio::test]
async fn messages_with_other_tags_are_passed_over_even_if_the_broker_sends_them() {
    let broker = broker(1).await;
    put(&broker, 0, &[("paid", "a"), ("sent", "b"), ("paid", "c"), ("other", "d")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer =
        client.push_consumer("readers").subscribe("orders", "paid || void").config(quick()).handler(handler);
    let consumer = consumer.start().await.unwrap();
    assert_eq!(bodies(&mut messages, 2).await, ["a", "c"].map(String::from).into());
    wait_committed(&broker, 0, 4).await;
    let pull = broker.wait("a pull", |seen| seen.code() == PULL && seen.field("topic") == "orders").await;
    assert_eq!((pull.field("subscription"), pull.field("sysFlag")), ("paid||void", "6"));
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_failed_message_goes_back_to_the_broker_and_does_not_hold_the_offset() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a"), ("t", "b")]);
    let client = broker.client().await;
    let consumer = consume(&client, quick(), |message: ReceivedMessage| async move {
        if message.body() == "a" { Verdict::RetryAfter(Duration::from_secs(20)) } else { Verdict::DeadLetter }
    });
    let consumer = consumer.await;
    wait_committed(&broker, 0, 2).await;
    let mut backs: Vec<_> = broker
        .all(BACK)
        .iter()
        .map(|seen| (seen.field("offset").to_owned(), seen.field("delayLevel").to_owned()))
        .collect();
    backs.sort();
    assert_eq!(backs, [("0".to_owned(), "4".to_owned()), ("100".to_owned(), "-1".to_owned())]);
    let back = broker.wait_nth(BACK, 1).await;
    assert_eq!((back.field("group"), back.field("originTopic")), ("readers", "orders"));
    assert_eq!(back.field("maxReconsumeTimes"), "16");
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_handler_that_panics_or_takes_too_long_retries_its_message() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "panics"), ("t", "hangs"), ("t", "fine")]);
    let client = broker.client().await;
    let config = quick().handler_timeout_ms(50);
    let consumer = consume(&client, config, |message: ReceivedMessage| async move {
        assert_ne!(message.body(), "panics", "as the test wants it");
        if message.body() == "hangs" {
            std::future::pending::<()>().await;
        }
        Verdict::Done
    })
    .await;
    wait_committed(&broker, 0, 3).await;
    let levels: Vec<_> = broker.all(BACK).iter().map(|seen| seen.field("delayLevel").to_owned()).collect();
    assert_eq!(levels, ["0", "0"]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_message_that_cannot_go_back_is_processed_here_again() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a")]);
    broker.script(BACK, [Action::Code(ResponseCode::SYSTEM_ERROR), Action::Code(ResponseCode::SYSTEM_ERROR)]);
    let client = broker.client().await;
    let config = quick().send_back_attempts(2);
    let (handler, mut messages) = collecting(Verdict::Retry);
    let consumer = consume(&client, config, handler).await;
    assert_eq!(next(&mut messages).await.delivery_attempt(), 1);
    assert_eq!(next(&mut messages).await.delivery_attempt(), 2);
    wait_committed(&broker, 0, 1).await;
    assert_eq!(broker.all(BACK).len(), 3);
    consumer.shutdown().await;
}

#[tokio::test]
async fn queues_are_divided_anew_when_the_broker_says_that_the_group_changed() {
    let broker = broker(4).await;
    broker.shared.lock().queues.others = vec!["zzz-other-client".to_owned()];
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(&client, quick(), handler).await;
    put(&broker, 0, &[("t", "a")]);
    next(&mut messages).await;
    let mine = || {
        consumer
            .queues()
            .iter()
            .filter(|queue| queue.topic == *"orders")
            .map(|queue| queue.queue_id.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(mine(), [0, 1]);
    broker.shared.lock().queues.others.clear();
    let changed = vec![("consumerGroup".into(), "readers".to_owned())];
    broker.push(
        &RemotingCommand::request(RequestCode::NOTIFY_CONSUMER_IDS_CHANGED, changed, Vec::new()).oneway(),
    );
    put(&broker, 3, &[("t", "b")]);
    assert_eq!(next(&mut messages).await.body(), "b");
    assert_eq!(mine(), [0, 1, 2, 3]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_queue_that_is_taken_away_is_committed_and_no_longer_pulled() {
    let broker = broker(2).await;
    put(&broker, 1, &[("t", "a")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let config = quick().commit_interval_ms(60_000);
    let consumer = consume(&client, config, handler).await;
    next(&mut messages).await;
    broker.shared.lock().queues.others = vec!["zzz-other-client".to_owned()];
    let changed = vec![("consumerGroup".into(), "readers".to_owned())];
    broker.push(
        &RemotingCommand::request(RequestCode::NOTIFY_CONSUMER_IDS_CHANGED, changed, Vec::new()).oneway(),
    );
    let is_it = |seen: &crate::fake::Seen| (seen.field("queueId"), seen.field("commitOffset")) == ("1", "1");
    broker.wait("a commit of queue 1", |seen| seen.code() == COMMIT && is_it(seen)).await;
    put(&broker, 1, &[("t", "for the other")]);
    put(&broker, 0, &[("t", "for us")]);
    assert_eq!(next(&mut messages).await.body(), "for us");
    consumer.shutdown().await;
}

#[tokio::test]
async fn no_more_is_pulled_than_the_bound_allows() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "x"); 10]);
    let client = broker.client().await;
    let config = quick().prefetch_messages(4).pull_messages_max(2).concurrency(1);
    let gate = Arc::new(Semaphore::new(0));
    let consumer = consume(&client, config, {
        let gate = Arc::clone(&gate);
        move |_: ReceivedMessage| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Verdict::Done
            }
        }
    })
    .await;
    let orders = |seen: &crate::fake::Seen| seen.code() == PULL && seen.field("topic") == "orders";
    broker.wait("the second pull", |seen| orders(seen) && seen.field("queueOffset") == "2").await;
    // The third pull needs a verdict first: the pulls of the retry topic show that time goes by without one.
    let pulls = || broker.all(PULL).len();
    let before = pulls();
    broker.wait_nth(PULL, before + 3).await;
    assert_eq!(broker.all(PULL).iter().filter(|seen| orders(seen)).count(), 2);
    gate.add_permits(1);
    broker.wait("the third pull", |seen| orders(seen) && seen.field("queueOffset") == "4").await;
    gate.add_permits(20);
    wait_committed(&broker, 0, 10).await;
    consumer.shutdown().await;
}

#[tokio::test]
async fn shutdown_lets_running_handlers_finish_and_leaves_the_rest_to_others() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a"), ("t", "b"), ("t", "c")]);
    let client = broker.client().await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let consumer = consume(&client, quick().concurrency(1), {
        let gate = Arc::clone(&gate);
        move |_: ReceivedMessage| {
            started.send(()).unwrap();
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Verdict::Done
            }
        }
    })
    .await;
    starts.recv().await.unwrap();
    let ending = tokio::spawn(consumer.shutdown());
    tokio::task::yield_now().await;
    assert!(!ending.is_finished());
    gate.add_permits(10);
    assert!(ending.await.unwrap());
    assert_eq!(committed(&broker, 0), Some(1));
}

#[tokio::test]
async fn a_committed_offset_wins_over_the_start_position() {
    let broker = broker(2).await;
    put(&broker, 0, &[("t", "a"), ("t", "b"), ("t", "c")]);
    put(&broker, 1, &[("t", "d")]);
    broker.shared.lock().queues.committed.insert(("readers".into(), "orders".into(), 0), 2);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let config = quick().start(StartPosition::Last);
    let consumer = consume(&client, config, handler).await;
    assert_eq!(next(&mut messages).await.body(), "c");
    broker.wait("the end of queue 1", |seen| seen.code() == PULL && seen.field("queueId") == "1").await;
    put(&broker, 1, &[("t", "e")]);
    assert_eq!(next(&mut messages).await.body(), "e");
    let query = broker.wait_nth(RequestCode::QUERY_CONSUMER_OFFSET, 1).await;
    assert_eq!(query.field("setZeroIfNotFound"), "false");
    consumer.shutdown().await;
}

#[tokio::test]
async fn where_a_group_began_is_committed_at_once_so_that_a_crash_does_not_move_it() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a"), ("t", "b")]);
    let client = broker.client().await;
    let config = quick().commit_interval_ms(60_000).start(StartPosition::Last);
    let (handler, _messages) = collecting(Verdict::Done);
    let consumer = consume(&client, config, handler).await;
    wait_committed(&broker, 0, 2).await;
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_group_can_start_at_a_time() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a"), ("t", "b"), ("t", "c")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let config = quick().start(StartPosition::At(Timestamp::from_ms(70_001)));
    let consumer = consume(&client, config, handler).await;
    assert_eq!(bodies(&mut messages, 2).await, ["b", "c"].map(String::from).into());
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_queue_that_continues_elsewhere_is_followed() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a"), ("t", "b")]);
    broker.shared.lock().queues.committed.insert(("readers".into(), "orders".into(), 0), 900);
    let answer =
        [("nextBeginOffset", "1"), ("minOffset", "0"), ("maxOffset", "2"), ("suggestWhichBrokerId", "0")];
    let answer = answer.map(|(name, value)| (name, value.to_owned())).to_vec();
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    // Whichever of the two queues (the topic's and the retry topic's) is pulled first, both follow the answer.
    broker.script(PULL, [(); 2].map(|()| Action::Fields(ResponseCode::PULL_OFFSET_MOVED, answer.clone())));
    let consumer = consume(&client, quick(), handler).await;
    assert_eq!(next(&mut messages).await.body(), "b");
    wait_committed(&broker, 0, 2).await;
    consumer.shutdown().await;
}

#[tokio::test]
async fn consuming_goes_on_after_the_broker_was_away() {
    let mut broker = broker(1).await;
    put(&broker, 0, &[("t", "before")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(&client, quick(), handler).await;
    assert_eq!(next(&mut messages).await.body(), "before");
    wait_committed(&broker, 0, 1).await;
    broker.go_down().await;
    put(&broker, 0, &[("t", "after")]);
    broker.come_back().await;
    assert_eq!(next(&mut messages).await.body(), "after");
    wait_committed(&broker, 0, 2).await;
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_topic_that_appears_later_is_found() {
    let broker = FakeBroker::start().await;
    // The retry topic's route leads to the broker before the topic exists.
    broker.shared.lock().queues.add_topic("%RETRY%readers", 1);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(&client, quick(), handler).await;
    broker.wait("a question for the topic", |seen| seen.field("topic") == "orders").await;
    broker.shared.lock().queues.add_topic("orders", 1);
    put(&broker, 0, &[("t", "a")]);
    assert_eq!(next(&mut messages).await.body(), "a");
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_topic_that_a_producer_of_the_same_client_made_is_found_at_once() {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("TBW102", 1);
    let client = broker.client().await;
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(mezzo_client::Message::new("orders", "x").unwrap()).await.unwrap();
    broker.shared.lock().queues.add_topic("orders", 1);
    put(&broker, 0, &[("t", "a")]);
    let (handler, mut messages) = collecting(Verdict::Done);
    // Longer than the test may take: the first rebalance has to find the topic.
    let config = quick().rebalance_backoff(BackoffPolicy::new(60_000, 60_000));
    let consumer = consume(&client, config, handler).await;
    assert_eq!(next(&mut messages).await.body(), "a");
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_damaged_body_is_given_back_without_a_handler() {
    let broker = broker(1).await;
    broker.shared.lock().queues.put_damaged("orders", 0);
    put(&broker, 0, &[("t", "fine")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(&client, quick(), handler).await;
    assert_eq!(next(&mut messages).await.body(), "fine");
    wait_committed(&broker, 0, 2).await;
    assert_eq!(broker.wait_nth(BACK, 1).await.field("offset"), "0");
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_client_has_one_consumer_of_a_group() {
    let broker = broker(1).await;
    let client = broker.client().await;
    let (handler, _messages) = collecting(Verdict::Done);
    let first = consume(&client, quick(), handler).await;
    let second = client.push_consumer("readers").subscribe("orders", "*");
    let second = second.handler(|_: ReceivedMessage| async { Verdict::Done }).start().await;
    assert!(matches!(second, Err(mezzo_client::Error::DuplicateGroup { .. })));
    first.shutdown().await;
}
