//! Peers that stop answering without hanging up: nothing waits for them without end, and their connections are replaced.

use std::time::{Duration, Instant};

use mezzo_client::config::ClientConfig;
use mezzo_client::{Client, Message, ReceivedMessage, Verdict};
use mezzo_protocol::remoting::RequestCode;

use crate::fake::{FakeBroker, settings};

const ROUTE: RequestCode = RequestCode::GET_ROUTEINFO_BY_TOPIC;
const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;

async fn broker() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 4);
    broker
}

/// Short times, and no heartbeat that would notice first.
fn quiet() -> ClientConfig {
    let mut config = settings();
    config.heartbeat_interval_ms = 60_000;
    config.request_timeout_ms = 200;
    config.connect_timeout_ms = 200;
    config.silence_max_ms = 300;
    config
}

fn order() -> Message {
    Message::new("orders", "x").unwrap()
}

#[tokio::test]
async fn a_connection_that_swallows_sends_is_given_up_after_some_timeouts_and_made_again() {
    let broker = broker().await;
    let client = Client::builder(broker.address()).config(quiet()).build().await.unwrap();
    let mut config = mezzo_client::config::ProducerConfig::default();
    (config.attempt_timeout_ms, config.retries, config.send_timeout_ms) = (100, 0, 2_000);
    let producer = client.producer("sellers").config(config).start().await.unwrap();
    producer.send(order()).await.unwrap();
    let first = broker.wait_nth(SEND, 1).await.connection;
    broker.shared.lock().frozen = true;
    let mut failed = 0;
    while broker.all(SEND).iter().all(|seen| seen.connection == first) && failed < 10 {
        let started = Instant::now();
        let error = producer.send(order()).await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(3), "{error}");
        failed += 1;
        if error.to_string().contains("no connection") {
            // It was given up, and whoever does not greet back is not there.
            break;
        }
    }
    assert!((3..10).contains(&failed), "{failed} sends of 100 ms each in a silence of 300 ms");
    broker.shared.lock().frozen = false;
    producer.send(order()).await.unwrap();
    let last = broker.all(SEND).last().map(|seen| seen.connection);
    assert!(last > Some(first), "on a new connection");
}

#[tokio::test]
async fn pipelined_sends_notice_a_silent_broker_as_well() {
    let broker = broker().await;
    let client = Client::builder(broker.address()).config(quiet()).build().await.unwrap();
    let mut config = mezzo_client::config::ProducerConfig::default();
    (config.attempt_timeout_ms, config.retries, config.send_timeout_ms) = (200, 0, 2_000);
    let producer = client.producer("sellers").config(config).start().await.unwrap();
    producer.send(order()).await.unwrap();
    let first = broker.wait_nth(SEND, 1).await.connection;
    broker.shared.lock().frozen = true;
    for _ in 0..2 {
        let run = producer.send_all(std::iter::repeat_with(order).take(5)).await;
        assert!(
            run.iter().all(|sent| sent.as_ref().is_err_and(|error| error.is_outcome_unknown())),
            "{run:?}"
        );
    }
    broker.shared.lock().frozen = false;
    producer.send(order()).await.unwrap();
    assert!(broker.all(SEND).last().map(|seen| seen.connection) > Some(first), "on a new connection");
}

#[tokio::test]
async fn a_broker_that_answers_others_keeps_its_connection() {
    let broker = broker().await;
    let client = Client::builder(broker.address()).config(quiet()).build().await.unwrap();
    let mut config = mezzo_client::config::ProducerConfig::default();
    (config.attempt_timeout_ms, config.retries) = (200, 0);
    let producer = client.producer("sellers").config(config).start().await.unwrap();
    let consumer = client
        .push_consumer("readers")
        .subscribe("orders", "*")
        .handler(|_: ReceivedMessage| async { Verdict::Done })
        .start()
        .await
        .unwrap();
    broker.wait_nth(RequestCode::PULL_MESSAGE, 4).await;
    producer.send(order()).await.unwrap();
    let first = broker.wait_nth(SEND, 1).await.connection;
    broker.always(SEND, Some(crate::fake::Action::Silence));
    for _ in 0..4 {
        producer.send(order()).await.unwrap_err();
    }
    broker.always(SEND, None);
    producer.send(order()).await.unwrap();
    assert!(broker.all(SEND).iter().all(|seen| seen.connection == first), "pulls were answered all the time");
    consumer.shutdown().await;
}

#[tokio::test]
async fn producers_and_consumers_share_one_connection_to_the_broker() {
    let broker = broker().await;
    let client = broker.client().await;
    let consumer = client
        .push_consumer("readers")
        .subscribe("orders", "*")
        .handler(|_: ReceivedMessage| async { Verdict::Done })
        .start()
        .await
        .unwrap();
    let producer = client.producer("sellers").start().await.unwrap();
    let sends: Vec<_> = (0..20)
        .map(|_| {
            let producer = producer.clone();
            tokio::spawn(async move { producer.send(order()).await })
        })
        .collect();
    for send in sends {
        send.await.unwrap().unwrap();
    }
    let pull = broker.wait_nth(RequestCode::PULL_MESSAGE, 4).await;
    let other = |seen: &crate::fake::Seen| seen.connection != pull.connection && seen.code() != ROUTE;
    let on_another: Vec<_> =
        [SEND, RequestCode::HEART_BEAT, RequestCode::PULL_MESSAGE, RequestCode::QUERY_CONSUMER_OFFSET]
            .iter()
            .flat_map(|code| broker.all(*code))
            .filter(other)
            .collect();
    assert!(on_another.is_empty(), "{on_another:?}");
    assert_eq!(broker.connections(), 2, "the name server at the same address has its own");
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_client_with_a_silent_broker_ends_in_time() {
    let broker = broker().await;
    let client = Client::builder(broker.address()).config(quiet()).build().await.unwrap();
    let producer = client.producer("sellers").start().await.unwrap();
    let consumer = client
        .push_consumer("readers")
        .subscribe("orders", "*")
        .handler(|_: ReceivedMessage| async { Verdict::Done })
        .start()
        .await
        .unwrap();
    producer.send(order()).await.unwrap();
    broker.shared.lock().frozen = true;
    let started = Instant::now();
    producer.shutdown().await;
    consumer.shutdown().await;
    client.shutdown().await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}
