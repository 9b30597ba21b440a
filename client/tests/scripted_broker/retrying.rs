//! When a send is tried again, where, and how often; and that its room comes back whatever becomes of it.

use std::net::SocketAddr;

use mezzo_client::config::{BackoffPolicy, ProducerConfig};
use mezzo_client::{
    Message, MessageQueue, Producer, QueueId, RequestError, ResponseCode, SendError, TopicName,
};
use mezzo_protocol::message::tag::java_hash;
use mezzo_protocol::remoting::RequestCode;

use crate::fake::{Action, FakeBroker};

const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;

async fn broker() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 4);
    broker
}

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn producer(broker: &FakeBroker, config: ProducerConfig) -> Producer {
    broker.client().await.producer("sellers").config(config).start().await.unwrap()
}

fn quick() -> ProducerConfig {
    ProducerConfig::default().attempt_timeout_ms(1_000).retry_backoff(BackoffPolicy::new(1, 2))
}

fn message(body: &str) -> Message {
    Message::new("orders", body.to_owned()).unwrap()
}

fn keyed(key: &str) -> Message {
    Message::builder("orders").sharding_key(key).body("x").build().unwrap()
}

/// A sharding key whose queue is among the first four of eight, or the last four.
fn key_of(first_half: bool) -> String {
    let is_first = |key: &String| (java_hash(key) % 8).unsigned_abs() < 4;
    (0..).map(|number| format!("customer-{number}")).find(|key| is_first(key) == first_half).unwrap()
}

#[tokio::test]
async fn a_broker_that_cannot_be_reached_is_passed_over() {
    let broker = broker().await;
    broker.shared.lock().queues.second = Some(nobody().await);
    let producer = producer(&broker, quick()).await;
    let mut attempts = Vec::new();
    for _ in 0..8 {
        let receipt = producer.send(message("x")).await.unwrap();
        assert!(!receipt.may_be_duplicated, "nothing was sent to the other");
        attempts.push(receipt.attempts);
    }
    assert!(attempts.iter().sum::<u32>() <= 9, "after one failure it is spared: {attempts:?}");
    for _ in 0..8 {
        producer.send_oneway(message("x")).await.unwrap();
    }
    broker.wait_nth(SEND, 16).await;
}

#[tokio::test]
async fn a_one_way_send_goes_on_to_a_broker_that_can_be_reached() {
    let broker = broker().await;
    broker.shared.lock().queues.second = Some(nobody().await);
    // Nobody is spared: each one-way send may try the dead one first.
    let producer = producer(&broker, quick().spare_broker_ms(0)).await;
    for _ in 0..8 {
        producer.send_oneway(message("x")).await.unwrap();
    }
    broker.wait_nth(SEND, 8).await;
}

#[tokio::test]
async fn an_ordered_message_goes_to_its_own_broker_or_nowhere() {
    let broker = broker().await;
    broker.shared.lock().queues.second = Some(nobody().await);
    let producer = producer(&broker, quick().send_timeout_ms(200)).await;
    let error = producer.send(keyed(&key_of(true))).await.unwrap_err();
    assert!(matches!(error, SendError::NotSent { last: RequestError::Unreachable { .. }, .. }), "{error}");
    assert!(broker.all(SEND).is_empty());
    assert!(producer.send(keyed(&key_of(false))).await.is_ok());
}

#[tokio::test]
async fn an_ordered_message_is_not_repeated_after_an_unknown_outcome() {
    let broker = broker().await;
    broker.script(SEND, [Action::HangUp]);
    let producer = producer(&broker, quick()).await;
    let error = producer.send(keyed("k")).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    assert_eq!(broker.all(SEND).len(), 1);
}

#[tokio::test]
async fn an_ordered_message_that_is_surely_not_stored_is_tried_again_on_its_queue() {
    let broker = broker().await;
    broker.script(SEND, [Action::Code(ResponseCode::SYSTEM_BUSY)]);
    let producer = producer(&broker, quick()).await;
    assert_eq!(producer.send(keyed("k")).await.unwrap().attempts, 2);
    broker.script(SEND, [Action::Code(ResponseCode::SYSTEM_BUSY)]);
    assert!(producer.send_all([keyed("k"), keyed("k")]).await.iter().all(Result::is_ok));
    let queues: std::collections::BTreeSet<_> =
        broker.all(SEND).iter().map(|seen| seen.field("e").to_owned()).collect();
    assert_eq!((queues.len(), broker.all(SEND).len()), (1, 5));
}

#[tokio::test]
async fn a_broker_that_is_going_is_passed_over() {
    let (broker, other) = (broker().await, FakeBroker::start().await);
    broker.shared.lock().queues.second = Some(other.shared.address);
    broker.always(SEND, Some(Action::Code(ResponseCode::SERVICE_NOT_AVAILABLE)));
    let producer = producer(&broker, quick()).await;
    for _ in 0..8 {
        assert!(!producer.send(message("x")).await.unwrap().may_be_duplicated);
    }
    assert_eq!(other.all(SEND).len(), 8);
    assert!(broker.all(SEND).len() <= 1);
}

#[tokio::test]
async fn a_used_up_budget_ends_retries_and_not_sends() {
    let broker = broker().await;
    broker.always(SEND, Some(Action::Code(ResponseCode::SYSTEM_BUSY)));
    let producer = producer(&broker, quick().retries(10).retry_budget(3)).await;
    for expected in [4, 1, 1] {
        let error = producer.send(message("x")).await.unwrap_err();
        assert!(matches!(&error, SendError::NotSent { attempts, .. } if *attempts == expected), "{error}");
    }
    broker.always(SEND, None);
    for _ in 0..10 {
        producer.send(message("x")).await.unwrap();
    }
    broker.script(SEND, [Action::Code(ResponseCode::SYSTEM_BUSY)]);
    assert_eq!(producer.send(message("x")).await.unwrap().attempts, 2, "ten successes bought a retry");
}

#[tokio::test]
async fn a_system_error_does_not_say_that_nothing_is_stored() {
    let broker = broker().await;
    let error = Action::Code(ResponseCode::SYSTEM_ERROR);
    broker.script(SEND, [error.clone()]);
    assert!(producer(&broker, quick()).await.send(message("x")).await.unwrap().may_be_duplicated);
    broker.script(SEND, [error.clone()]);
    let once = producer(&broker, quick().retry_unknown(false)).await;
    assert!(once.send(message("x")).await.unwrap_err().is_outcome_unknown());
    broker.script(SEND, [error]);
    let sent = once.send_all([message("1"), message("2")]).await;
    assert!(matches!(&sent[0], Err(SendError::Unknown { .. })) && sent[1].is_ok(), "{sent:?}");
}

#[tokio::test]
async fn a_queue_of_a_broker_that_is_not_there_is_waited_for_without_keeping_the_thread() {
    let broker = broker().await;
    let producer = producer(&broker, quick().send_timeout_ms(300)).await;
    let gone = MessageQueue::new(TopicName::new("orders").unwrap(), "gone", QueueId(0));
    let sending = producer.send_to_queue(message("x"), &gone);
    tokio::pin!(sending);
    tokio::select! {
        biased;
        sent = &mut sending => panic!("it kept the thread to its end: {sent:?}"),
        () = async { broker.client().await.producer("other").start().await.map(drop).unwrap() } => {}
    }
    let error = sending.await.unwrap_err();
    assert!(matches!(error, SendError::NotSent { last: RequestError::Unreachable { .. }, .. }), "{error}");
}

#[tokio::test]
async fn bytes_in_flight_hold_senders_back() {
    let broker = broker().await;
    broker.script(SEND, [Action::Silence]);
    let config = quick().in_flight_bytes_max(10).retries(0).attempt_timeout_ms(100);
    let producer = producer(&broker, config).await;
    let first = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(message("8 bytes.")).await }
    });
    broker.wait_nth(SEND, 1).await;
    producer.send(message("8 more..")).await.unwrap();
    assert!(first.is_finished(), "the second could only go when the first had ended");
    assert!(first.await.unwrap().unwrap_err().is_outcome_unknown());
}

#[tokio::test]
async fn a_send_that_is_cancelled_gives_its_room_back() {
    let broker = broker().await;
    broker.script(SEND, [Action::Silence]);
    let producer = producer(&broker, ProducerConfig::default().in_flight_max(1)).await;
    let cancelled = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(message("x")).await }
    });
    broker.wait_nth(SEND, 1).await;
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    assert_eq!(producer.send(message("next")).await.unwrap().attempts, 1);
    broker.script(SEND, [Action::Silence]);
    let many = producer.clone();
    let cancelled = tokio::spawn(async move { many.send_all([message("1"), message("2")]).await });
    broker.wait_nth(SEND, 3).await;
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    assert!(producer.send(message("last")).await.is_ok());
}
