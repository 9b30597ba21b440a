//! Ordered consumers: one message of a queue at a time, under the queue's lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mezzo_client::config::ConsumerConfig;
use mezzo_client::{Client, Error, Handler, PushConsumer, QueueOffset, ReceivedMessage, SeekTo, Verdict};
use mezzo_protocol::remoting::body::lock::LockBatchRequest;
use mezzo_protocol::remoting::{RemotingCommand, RequestCode};
use tokio::sync::{Semaphore, mpsc};

use crate::consuming::{
    BACK, COMMIT, PATIENCE, broker, collecting, committed, next, put, quick, wait_committed,
};
use crate::fake::{FakeBroker, Seen};

const LOCK: RequestCode = RequestCode::LOCK_BATCH_MQ;
const UNLOCK: RequestCode = RequestCode::UNLOCK_BATCH_MQ;

async fn consume(client: &Client, config: ConsumerConfig, handler: impl Handler) -> PushConsumer {
    let builder = client.push_consumer("readers").subscribe("orders", "*").config(config);
    builder.ordered_handler(handler).start().await.unwrap()
}

fn text(message: &ReceivedMessage) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

/// Whether a request locks or unlocks this queue of the topic.
fn names(seen: &Seen, code: RequestCode, queue: i64) -> bool {
    seen.code() == code && {
        let body = LockBatchRequest::decode(&seen.command.body).unwrap();
        body.mq_set.iter().any(|name| name.topic == "orders" && name.queue_id == queue)
    }
}

fn group_changed(broker: &FakeBroker) {
    let changed = vec![("consumerGroup".into(), "readers".to_owned())];
    let code = RequestCode::NOTIFY_CONSUMER_IDS_CHANGED;
    broker.push(&RemotingCommand::request(code, changed, Vec::new()).oneway());
}

#[tokio::test]
async fn messages_of_a_queue_are_handled_one_at_a_time_and_in_order() {
    let broker = broker(1).await;
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    for body in &expected {
        put(&broker, 0, &[("t", body.as_str())]);
    }
    let client = broker.client().await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let running = Arc::new(AtomicUsize::new(0));
    let consumer = consume(&client, quick(), move |message: ReceivedMessage| {
        let (sender, running) = (sender.clone(), Arc::clone(&running));
        async move {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two messages of one queue at a time");
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            sender.send(text(&message)).unwrap();
            Verdict::Done
        }
    })
    .await;
    wait_committed(&broker, 0, 100).await;
    assert!(consumer.shutdown().await);
    let mut order = Vec::new();
    while let Ok(body) = seen.try_recv() {
        order.push(body);
    }
    assert_eq!(order, expected);
    assert!(broker.all(BACK).is_empty());
}

#[tokio::test]
async fn a_retry_suspends_its_queue_and_no_message_overtakes() {
    let broker = broker(2).await;
    put(&broker, 0, &[("t", "a"), ("t", "b")]);
    put(&broker, 1, &[("t", "free")]);
    let client = broker.client().await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let config = quick().ordered_suspend_ms(5);
    let consumer = consume(&client, config, move |message: ReceivedMessage| {
        let attempt = message.delivery_attempt();
        sender.send((text(&message), attempt)).unwrap();
        async move {
            match (text(&message).as_str(), attempt) {
                ("a", 1) => Verdict::Retry,
                ("a", 2) => Verdict::RetryAfter(Duration::from_millis(1)),
                _ => Verdict::Done,
            }
        }
    })
    .await;
    wait_committed(&broker, 0, 2).await;
    wait_committed(&broker, 1, 1).await;
    consumer.shutdown().await;
    let mut order = Vec::new();
    while let Ok((body, attempt)) = seen.try_recv() {
        if body != "free" {
            order.push((body, attempt));
        }
    }
    let expected = [("a", 1), ("a", 2), ("a", 3), ("b", 1)];
    assert_eq!(order, expected.map(|(body, attempt)| (body.to_owned(), attempt)));
    assert!(broker.all(BACK).is_empty());
}

#[tokio::test]
async fn a_dead_letter_goes_to_the_broker_before_the_next_message_is_handled() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "poison"), ("t", "b")]);
    let client = broker.client().await;
    let consumer = consume(&client, quick(), |message: ReceivedMessage| async move {
        if message.body() == "poison" { Verdict::DeadLetter } else { Verdict::Done }
    })
    .await;
    wait_committed(&broker, 0, 2).await;
    assert_eq!(broker.wait_nth(BACK, 1).await.field("delayLevel"), "-1");
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_queue_is_not_pulled_before_its_lock_is_had_and_the_lock_is_renewed_and_given_back() {
    let broker = broker(2).await;
    put(&broker, 0, &[("t", "a")]);
    put(&broker, 1, &[("t", "b")]);
    broker.shared.lock().queues.locked_elsewhere = vec![1];
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let config = quick().lock_interval_ms(20);
    let consumer = consume(&client, config, handler).await;
    assert_eq!(text(&next(&mut messages).await), "a");
    let asked = |memory_of: i64| broker.all(LOCK).iter().filter(|seen| names(seen, LOCK, memory_of)).count();
    while asked(1) < 3 {
        let locks = broker.all(LOCK).len();
        broker.wait_nth(LOCK, locks + 1).await;
    }
    let pulled = |seen: &&Seen| seen.field("topic") == "orders" && seen.field("queueId") == "1";
    assert_eq!(broker.all(RequestCode::PULL_MESSAGE).iter().filter(pulled).count(), 0);
    broker.shared.lock().queues.locked_elsewhere.clear();
    assert_eq!(text(&next(&mut messages).await), "b");
    let renewed = asked(0);
    while asked(0) < renewed + 2 {
        let locks = broker.all(LOCK).len();
        broker.wait_nth(LOCK, locks + 1).await;
    }
    assert!(consumer.shutdown().await);
    assert!(broker.all(UNLOCK).iter().any(|seen| names(seen, UNLOCK, 0) && names(seen, UNLOCK, 1)));
}

#[tokio::test]
async fn a_queue_that_is_taken_away_is_committed_and_unlocked_only_when_its_handler_has_ended() {
    let broker = broker(2).await;
    put(&broker, 1, &[("t", "a"), ("t", "b")]);
    let client = broker.client().await;
    let gate = Arc::new(Semaphore::new(0));
    let (started, mut starts) = mpsc::unbounded_channel();
    let consumer = consume(&client, quick(), {
        let gate = Arc::clone(&gate);
        move |message: ReceivedMessage| {
            started.send(text(&message)).unwrap();
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Verdict::Done
            }
        }
    })
    .await;
    assert_eq!(starts.recv().await.unwrap(), "a");
    broker.shared.lock().queues.others = vec!["zzz-other-client".to_owned()];
    group_changed(&broker);
    let left = || consumer.queues().iter().all(|queue| queue.topic != *"orders" || queue.queue_id.0 == 0);
    while !left() {
        let pulls = broker.all(RequestCode::PULL_MESSAGE).len();
        broker.wait_nth(RequestCode::PULL_MESSAGE, pulls + 1).await;
    }
    assert!(!broker.all(UNLOCK).iter().any(|seen| names(seen, UNLOCK, 1)));
    gate.add_permits(1);
    broker.wait("the unlock", |seen| names(seen, UNLOCK, 1)).await;
    assert_eq!(committed(&broker, 1), Some(1));
    assert!(starts.try_recv().is_err(), "the next message belongs to the other member");
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_lock_that_another_member_took_ends_the_hold_without_a_commit() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a"), ("t", "b")]);
    let client = broker.client().await;
    let gate = Arc::new(Semaphore::new(0));
    let (started, mut starts) = mpsc::unbounded_channel();
    let config = quick().lock_interval_ms(10).commit_interval_ms(60_000);
    let consumer = consume(&client, config, {
        let gate = Arc::clone(&gate);
        move |message: ReceivedMessage| {
            started.send(text(&message)).unwrap();
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Verdict::Done
            }
        }
    })
    .await;
    assert_eq!(starts.recv().await.unwrap(), "a");
    // The other member went on from the committed offset meanwhile and handled "a" too.
    {
        let mut memory = broker.shared.lock();
        memory.queues.locked_elsewhere = vec![0];
        memory.queues.committed.insert(("readers".into(), "orders".into(), 0), 1);
    }
    let commits = broker.all(COMMIT).len();
    let locks = broker.all(LOCK).len();
    broker.wait_nth(LOCK, locks + 3).await;
    broker.shared.lock().queues.locked_elsewhere.clear();
    gate.add_permits(1);
    assert_eq!(starts.recv().await.unwrap(), "b", "the queue begins again where the other member left it");
    assert_eq!(
        broker.all(COMMIT).iter().skip(commits).filter(|seen| seen.field("topic") == "orders").count(),
        0
    );
    gate.add_permits(1);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_seek_does_not_wait_for_a_message_that_is_suspended() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a"), ("t", "b")]);
    let client = broker.client().await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let consumer = consume(&client, quick(), move |message: ReceivedMessage| {
        sender.send(text(&message)).unwrap();
        async move {
            match text(&message).as_str() {
                "a" => Verdict::RetryAfter(Duration::from_secs(3_600)),
                _ => Verdict::Done,
            }
        }
    })
    .await;
    assert_eq!(seen.recv().await.unwrap(), "a");
    let queue = consumer.queues().into_iter().find(|queue| queue.topic == *"orders").unwrap();
    consumer.seek(&queue, SeekTo::Offset(QueueOffset(1))).await.unwrap();
    let next = tokio::time::timeout(PATIENCE, seen.recv()).await.expect("the queue goes on");
    assert_eq!(next.unwrap(), "b");
    consumer.shutdown().await;
}

#[tokio::test]
async fn locks_that_would_be_lost_before_each_renewal_are_refused() {
    let broker = broker(1).await;
    let client = broker.client().await;
    let builder = client.push_consumer("readers").subscribe("orders", "*");
    let builder = builder.config(quick().lock_interval_ms(500).lock_valid_ms(400));
    let refused = builder.ordered_handler(|_: ReceivedMessage| async { Verdict::Done }).start().await;
    assert!(matches!(refused, Err(Error::Config { setting: "lock_interval_ms", .. })));
}
