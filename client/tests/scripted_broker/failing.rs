//! What goes wrong at brokers and in handlers, and must neither stop a queue nor lose its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mezzo_client::config::{BackoffPolicy, StartPosition};
use mezzo_client::{
    Client, MessageQueue, PushConsumer, QueueOffset, ReceivedMessage, ResponseCode, SeekTo, Verdict,
};
use mezzo_protocol::remoting::RequestCode;
use tokio::sync::mpsc;

use crate::consuming::{
    COMMIT, PATIENCE, PULL, bodies, broker, collecting, committed, consume, next, put, quick, wait_committed,
};
use crate::fake::{Action, FakeBroker, Seen};

fn of_orders(seen: &Seen) -> bool {
    seen.field("topic") == "orders"
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_asked_for_again_and_then_passed_over() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a")]);
    broker.shared.lock().queues.put_broken("orders", 0);
    put(&broker, 0, &[("t", "b")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(&client, quick(), handler).await;
    assert_eq!(next(&mut messages).await.body(), "a");
    assert_eq!(next(&mut messages).await.body(), "b");
    wait_committed(&broker, 0, 3).await;
    let pulls: Vec<_> = broker
        .all(PULL)
        .iter()
        .filter(|seen| of_orders(seen) && seen.field("queueOffset") == "1")
        .map(|seen| seen.field("maxMsgNums").to_owned())
        .collect();
    assert_eq!(pulls, ["128", "1", "1", "1"], "alone, so that nothing else is passed over with it");
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_broker_that_points_backwards_is_not_asked_in_a_tight_loop() {
    let broker = broker(1).await;
    broker.shared.lock().queues.committed.insert(("readers".into(), "orders".into(), 0), 5);
    broker.shared.lock().queues.committed.insert(("readers".into(), "%RETRY%readers".into(), 0), 5);
    let answer =
        [("nextBeginOffset", "1"), ("minOffset", "0"), ("maxOffset", "5"), ("suggestWhichBrokerId", "0")];
    let answer = answer.map(|(name, value)| (name, value.to_owned())).to_vec();
    broker.always(PULL, Some(Action::Fields(ResponseCode::PULL_RETRY_IMMEDIATELY, answer)));
    let client = broker.client().await;
    let (handler, _messages) = collecting(Verdict::Done);
    let consumer = consume(&client, quick(), handler).await;
    broker.wait_nth(PULL, 1).await;
    let began = Instant::now();
    // Two queues, each with a pause of 20 ms between pulls.
    broker.wait_nth(PULL, 13).await;
    assert!(began.elapsed() >= Duration::from_millis(80), "{:?}", began.elapsed());
    consumer.shutdown().await;
}

/// A paused consumer whose commit of offset 1 is not answered, and the queue.
async fn with_an_open_commit(broker: &FakeBroker, client: &Client) -> (PushConsumer, MessageQueue) {
    put(broker, 0, &[("t", "a")]);
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(client, quick().commit_interval_ms(200), handler).await;
    broker.wait("the first commit", |seen| seen.code() == COMMIT && of_orders(seen)).await;
    broker.always(COMMIT, Some(Action::Silence));
    next(&mut messages).await;
    let open = |seen: &Seen| seen.code() == COMMIT && of_orders(seen) && seen.field("commitOffset") == "1";
    broker.wait("the commit that is not answered", open).await;
    consumer.pause();
    let queue = consumer.queues().into_iter().find(|queue| queue.topic == *"orders").unwrap();
    (consumer, queue)
}

#[tokio::test]
async fn an_offset_waits_until_the_one_before_it_is_answered() {
    let broker = broker(1).await;
    let client = broker.client().await;
    let (consumer, queue) = with_an_open_commit(&broker, &client).await;
    let commits = || broker.all(COMMIT).iter().filter(|seen| of_orders(seen)).count();
    let before = commits();
    let seek = consumer.seek(&queue, SeekTo::Offset(QueueOffset(5)));
    let meanwhile = async {
        broker.wait_nth(RequestCode::HEART_BEAT, broker.all(RequestCode::HEART_BEAT).len() + 2).await;
        assert_eq!(commits(), before, "it could arrive before the one that is on its way");
        broker.always(COMMIT, None);
    };
    let (sought, ()) = tokio::join!(seek, meanwhile);
    sought.unwrap();
    assert_eq!(committed(&broker, 0), Some(5));
    consumer.shutdown().await;
}

#[tokio::test]
async fn an_offset_that_may_have_arrived_is_corrected() {
    let broker = broker(1).await;
    let client = broker.client().await;
    let (consumer, queue) = with_an_open_commit(&broker, &client).await;
    broker.always(COMMIT, None);
    // 0 is what the broker confirmed last, but it may have 1 now.
    consumer.seek(&queue, SeekTo::Begin).await.unwrap();
    let last = broker.all(COMMIT).into_iter().rfind(of_orders).unwrap();
    assert_eq!(last.field("commitOffset"), "0");
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_topic_that_is_made_later_is_read_from_its_first_message_by_those_who_begin_with_the_last() {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("%RETRY%readers", 1);
    // As a broker answers that is asked for a time before all its messages.
    let first = Action::Fields(ResponseCode::SUCCESS, vec![("offset", "0".to_owned())]);
    broker.always(RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, Some(first));
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let config = quick().start(StartPosition::Last).rebalance_backoff(BackoffPolicy::new(10, 50));
    let consumer = consume(&client, config, handler).await;
    put(&broker, 0, &[("t", "first"), ("t", "second")]);
    broker.shared.lock().queues.add_topic("orders", 1);
    assert_eq!(bodies(&mut messages, 2).await, ["first", "second"].map(String::from).into());
    let asked = broker.all(RequestCode::SEARCH_OFFSET_BY_TIMESTAMP);
    let now = mezzo_client::Clock::now(&mezzo_client::SystemClock).as_ms();
    let time: u64 = asked[0].field("timestamp").parse().unwrap();
    assert!((now - 90_000..now - 59_000).contains(&time), "about when the consumer began: {time} at {now}");
    consumer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_blocks_its_thread_does_not_hold_up_the_shutdown() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a")]);
    let client = broker.client().await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let over = Arc::new(AtomicBool::new(false));
    let consumer = consume(&client, quick().drain_timeout_ms(20), {
        let over = Arc::clone(&over);
        move |_: ReceivedMessage| {
            started.send(()).unwrap();
            let over = Arc::clone(&over);
            async move {
                while !over.load(Ordering::SeqCst) {
                    std::thread::park_timeout(Duration::from_millis(5));
                }
                Verdict::Done
            }
        }
    })
    .await;
    starts.recv().await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, consumer.shutdown()).await;
    over.store(true, Ordering::SeqCst);
    assert!(!ended.expect("the shutdown ends"), "and says that a handler did not");
    assert_eq!(committed(&broker, 0), Some(0), "its message comes again");
}

#[tokio::test]
async fn what_was_pulled_before_a_queue_was_moved_is_not_handled_after_it() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "x"); 10]);
    let client = broker.client().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (started, mut starts) = mpsc::unbounded_channel();
    let consumer = consume(&client, quick().concurrency(1), {
        let gate = Arc::clone(&gate);
        move |message: ReceivedMessage| {
            started.send(message.queue_offset().0).unwrap();
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Verdict::Done
            }
        }
    })
    .await;
    starts.recv().await.unwrap();
    let queue = consumer.queues().into_iter().find(|queue| queue.topic == *"orders").unwrap();
    for _ in 0..5 {
        let pulls = broker.all(PULL).iter().filter(|seen| of_orders(seen)).count();
        consumer.seek(&queue, SeekTo::Begin).await.unwrap();
        let more = |memory: &crate::fake::Memory| (memory.count(PULL, "orders") > pulls).then_some(());
        broker.wait_until("a pull from the new place", more).await;
    }
    gate.add_permits(100);
    wait_committed(&broker, 0, 10).await;
    assert!(consumer.shutdown().await);
    let mut handled = Vec::new();
    while let Ok(offset) = starts.try_recv() {
        handled.push(offset);
    }
    assert_eq!(handled, (0..10).collect::<Vec<_>>(), "only what was pulled from the last place");
}
