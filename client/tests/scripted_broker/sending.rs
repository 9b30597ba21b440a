//! Sends: what reaches the broker, when they are tried again, and what their errors say.

use mezzo_client::config::{BackoffPolicy, ProducerConfig};
use mezzo_client::{Client, Message, Producer, RequestError, ResponseCode, SendError};
use mezzo_protocol::remoting::RequestCode;
use tokio::task::JoinSet;

use crate::fake::{Action, FakeBroker, settings};

const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;

async fn broker() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 4);
    broker
}

async fn producer(client: &Client, config: ProducerConfig) -> Producer {
    client.producer("sellers").config(config).start().await.unwrap()
}

fn message(body: &str) -> Message {
    Message::new("orders", body.to_owned()).unwrap()
}

fn quick() -> ProducerConfig {
    ProducerConfig::default().attempt_timeout_ms(1_000)
}

#[tokio::test]
async fn a_receipt_says_where_the_message_is() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = producer(&client, quick()).await;
    let tagged = Message::builder("orders").tag("paid").key("k").body("x").build().unwrap();
    let receipt = producer.send(tagged).await.unwrap();
    let seen = broker.wait_nth(SEND, 1).await;
    assert_eq!((seen.field("a"), seen.field("b"), seen.field("f")), ("sellers", "orders", "0"));
    assert!(seen.field("i").contains(&format!("UNIQ_KEY\u{1}{}\u{2}", receipt.unique_key)));
    assert_eq!(seen.field("e"), receipt.queue.queue_id.to_string());
    assert_eq!(receipt.parsed_offset_message_id().unwrap().physical_offset.0, 1_000);
    assert_eq!((receipt.attempts, receipt.may_be_duplicated), (1, false));
}

#[tokio::test]
async fn many_sends_share_one_connection_and_each_gets_its_own_receipt() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = producer(&client, ProducerConfig::default()).await;
    let mut sends = JoinSet::new();
    for number in 0..500 {
        let producer = producer.clone();
        sends.spawn(async move { producer.send(message(&number.to_string())).await.unwrap() });
    }
    let receipts = sends.join_all().await;
    let keys: std::collections::BTreeSet<_> =
        receipts.iter().map(|receipt| receipt.unique_key.clone()).collect();
    let ids: std::collections::BTreeSet<_> =
        receipts.iter().map(|receipt| &receipt.offset_message_id).collect();
    assert_eq!((keys.len(), ids.len()), (500, 500));
    let connections: std::collections::BTreeSet<_> =
        broker.all(SEND).iter().map(|seen| seen.connection).collect();
    assert_eq!(connections.len(), 1);
}

#[tokio::test]
async fn a_busy_broker_is_tried_again_on_another_queue() {
    let broker = broker().await;
    broker.script(SEND, [Action::Code(ResponseCode::SYSTEM_BUSY)]);
    let client = broker.client().await;
    let receipt = producer(&client, quick()).await.send(message("x")).await.unwrap();
    assert_eq!((receipt.attempts, receipt.may_be_duplicated), (2, false));
    let queues: Vec<_> = broker.all(SEND).iter().map(|seen| seen.field("e").to_owned()).collect();
    assert_ne!(queues[0], queues[1]);
}

#[tokio::test]
async fn a_refused_message_is_surely_not_stored() {
    let broker = broker().await;
    broker.script(SEND, [Action::Code(ResponseCode::MESSAGE_ILLEGAL)]);
    let client = broker.client().await;
    let error = producer(&client, quick()).await.send(message("x")).await.unwrap_err();
    assert!(
        matches!(&error, SendError::NotSent { attempts: 1, last: RequestError::Refused { .. } }),
        "{error}"
    );
    assert!(!error.is_outcome_unknown() && !error.is_retriable());
}

#[tokio::test]
async fn without_an_answer_the_outcome_is_unknown() {
    let broker = broker().await;
    broker.always(SEND, Some(Action::Silence));
    let client = broker.client().await;
    let config = quick().retries(1).attempt_timeout_ms(50);
    let error = producer(&client, config).await.send(message("x")).await.unwrap_err();
    let SendError::Unknown { attempts: 2, last: RequestError::TimedOut { .. }, unique_key } = error else {
        panic!("{error}");
    };
    assert!(broker.all(SEND).iter().all(|seen| seen.field("i").contains(&*unique_key)));
}

#[tokio::test]
async fn a_receipt_after_a_lost_answer_admits_that_there_may_be_two() {
    let broker = broker().await;
    broker.script(SEND, [Action::HangUp]);
    let client = broker.client().await;
    let receipt = producer(&client, quick()).await.send(message("x")).await.unwrap();
    assert!(receipt.may_be_duplicated);
    assert_eq!(receipt.attempts, 2);
}

#[tokio::test]
async fn who_wants_no_duplicates_gets_no_second_attempt_after_a_lost_answer() {
    let broker = broker().await;
    broker.script(SEND, [Action::HangUp]);
    let client = broker.client().await;
    let config = quick().retry_unknown(false);
    let error = producer(&client, config).await.send(message("x")).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    assert_eq!(broker.all(SEND).len(), 1);
}

#[tokio::test]
async fn a_send_waits_for_a_broker_that_comes_back_in_time() {
    let mut broker = broker().await;
    let client = broker.client().await;
    let producer = producer(&client, ProducerConfig::default()).await;
    producer.send(message("before")).await.unwrap();
    broker.go_down().await;
    let waiting = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(message("during")).await }
    });
    // The send has begun, and there is nobody to connect to.
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    broker.come_back().await;
    assert!(!waiting.await.unwrap().unwrap().may_be_duplicated);
}

#[tokio::test]
async fn a_broker_that_stays_away_ends_the_send_in_time_and_surely_not_stored() {
    let mut broker = broker().await;
    let client = broker.client().await;
    let config = quick().send_timeout_ms(300);
    let producer = producer(&client, config).await;
    producer.send(message("before")).await.unwrap();
    broker.go_down().await;
    let error = producer.send(message("during")).await.unwrap_err();
    assert!(matches!(error, SendError::NotSent { last: RequestError::Unreachable { .. }, .. }), "{error}");
}

#[tokio::test]
async fn a_send_beyond_the_bound_begins_when_another_ends() {
    let broker = broker().await;
    broker.script(SEND, [Action::Silence]);
    let client = broker.client().await;
    let config = quick().in_flight_max(1).retries(0);
    let producer = producer(&client, config).await;
    let first = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(message("1")).await }
    });
    broker.wait_nth(SEND, 1).await;
    producer.send(message("2")).await.unwrap();
    // The second could only be sent after the first had given its place free.
    assert!(first.is_finished());
    assert!(first.await.unwrap().unwrap_err().is_outcome_unknown());
}

#[tokio::test]
async fn messages_of_one_sharding_key_go_to_one_queue() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = producer(&client, quick()).await;
    for _ in 0..6 {
        let keyed = Message::builder("orders").sharding_key("customer-7").body("x").build().unwrap();
        producer.send(keyed).await.unwrap();
    }
    let queues: std::collections::BTreeSet<_> =
        broker.all(SEND).iter().map(|seen| seen.field("e").to_owned()).collect();
    assert_eq!(queues.len(), 1);
}

#[tokio::test]
async fn large_bodies_are_compressed_and_one_way_sends_are_marked() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = producer(&client, quick()).await;
    let large = "much the same ".repeat(1_000);
    producer.send_oneway(message(&large)).await.unwrap();
    let seen = broker.wait_nth(SEND, 1).await;
    assert!(seen.command.is_oneway());
    assert!(seen.command.body.len() < large.len() / 10);
    let flags: i32 = seen.field("f").parse().unwrap();
    assert_eq!(flags & 1, 1);
}

#[tokio::test]
async fn a_topic_that_does_not_exist_is_sent_to_by_the_route_of_its_stand_in() {
    let broker = broker().await;
    broker.shared.lock().queues.add_topic("TBW102", 8);
    let client = broker.client().await;
    let producer = producer(&client, quick()).await;
    producer.send(Message::new("brand-new", "x").unwrap()).await.unwrap();
    let seen = broker.wait_nth(SEND, 1).await;
    assert_eq!((seen.field("b"), seen.field("c"), seen.field("d")), ("brand-new", "TBW102", "4"));
}

#[tokio::test]
async fn without_any_route_nothing_is_sent() {
    let broker = FakeBroker::start().await;
    let client = broker.client().await;
    let error = producer(&client, quick()).await.send(message("x")).await.unwrap_err();
    assert!(matches!(error, SendError::Route(mezzo_client::Error::NoRoute { .. })), "{error}");
}

#[tokio::test]
async fn a_dead_name_server_is_passed_over() {
    let broker = broker().await;
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client =
        Client::builder(format!("{dead};{}", broker.address())).config(settings()).build().await.unwrap();
    producer(&client, quick()).await.send(message("x")).await.unwrap();
}

#[tokio::test]
async fn shutdown_waits_for_sends_in_flight_and_takes_no_more() {
    let broker = broker().await;
    broker.script(SEND, [Action::Silence]);
    let client = broker.client().await;
    let producer = producer(&client, quick()).await;
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(message("x")).await }
    });
    broker.wait_nth(SEND, 1).await;
    assert!(producer.shutdown().await);
    assert!(sending.await.unwrap().is_ok());
    broker.wait_nth(RequestCode::UNREGISTER_CLIENT, 1).await;
    let refused = producer.send(message("late")).await.unwrap_err();
    assert!(
        matches!(refused, SendError::Route(mezzo_client::Error::Request(RequestError::ShutDown))),
        "{refused}"
    );
}

#[tokio::test]
async fn a_refusal_at_the_end_of_the_time_stays_a_refusal() {
    let broker = broker().await;
    broker.always(SEND, Some(Action::Code(ResponseCode::SYSTEM_BUSY)));
    let client = broker.client().await;
    let retry_backoff = BackoffPolicy::new(10_000, 10_000);
    let config = quick().send_timeout_ms(300).retry_backoff(retry_backoff);
    let error = producer(&client, config).await.send(message("x")).await.unwrap_err();
    assert!(matches!(error, SendError::NotSent { attempts: 1, .. }), "{error}");
    assert_eq!(broker.all(SEND).len(), 1);
}

#[tokio::test]
async fn a_name_server_that_forgot_its_topics_does_not_stop_a_send() {
    let broker = broker().await;
    let config = settings().route_refresh_ms(1);
    let client = Client::builder(broker.address()).config(config).build().await.unwrap();
    let producer = producer(&client, quick()).await;
    producer.send(message("before")).await.unwrap();
    let route = RequestCode::GET_ROUTEINFO_BY_TOPIC;
    broker.always(route, Some(Action::Code(ResponseCode::TOPIC_NOT_EXIST)));
    let asked = broker.all(route).len();
    producer.send(message("asks again")).await.unwrap();
    // The second question is asked after the answer to the first was taken in.
    broker.wait_nth(route, asked + 2).await;
    producer.send(message("after")).await.unwrap();
}

#[tokio::test]
async fn a_name_server_that_never_answers_leaves_time_for_the_next() {
    let (silent, broker) = (FakeBroker::start().await, broker().await);
    silent.always(RequestCode::GET_ROUTEINFO_BY_TOPIC, Some(Action::Silence));
    let addresses = format!("{};{}", silent.address(), broker.address());
    let config = settings().request_timeout_ms(400);
    let client = Client::builder(addresses).config(config).build().await.unwrap();
    producer(&client, quick()).await.send(message("x")).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_that_gave_up_is_not_called_drained_the_second_time() {
    let broker = broker().await;
    broker.script(SEND, [Action::Silence]);
    let client = broker.client().await;
    let producer = producer(&client, quick().drain_timeout_ms(20)).await;
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(message("x")).await }
    });
    broker.wait_nth(SEND, 1).await;
    assert!(!producer.shutdown().await);
    assert!(!producer.shutdown().await);
    assert!(sending.await.unwrap().is_ok());
    assert!(producer.shutdown().await);
}
