//! Several name servers, of which some are dead, silent, or know nothing.

use std::time::{Duration, Instant};

use mezzo_client::{Client, Message};
use mezzo_protocol::remoting::RequestCode;
use tokio::net::TcpListener;

use crate::fake::{FakeBroker, settings};

const ROUTE: RequestCode = RequestCode::GET_ROUTEINFO_BY_TOPIC;

async fn knows_orders() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 4);
    broker
}

/// An address that nobody listens at.
async fn dead() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

async fn client(name_servers: String) -> Client {
    let mut config = settings();
    // Routes are asked for again all the time.
    config.route_refresh_ms = 20;
    Client::builder(name_servers).config(config).build().await.unwrap()
}

async fn send(client: &Client) -> Result<(), mezzo_client::SendError> {
    let producer = client.producer("sellers").send_timeout_ms(5_000).start().await.unwrap();
    producer.send(Message::new("orders", "x").unwrap()).await.map(drop)
}

#[tokio::test]
async fn a_dead_name_server_in_front_costs_no_message_and_hardly_time() {
    let broker = knows_orders().await;
    let client = client(format!("{};{}", dead().await, broker.address())).await;
    let started = Instant::now();
    send(&client).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_silent_name_server_leaves_time_for_the_others() {
    let (silent, broker) = (knows_orders().await, knows_orders().await);
    silent.shared.lock().frozen = true;
    let client = client(format!("{},{}", silent.address(), broker.address())).await;
    let started = Instant::now();
    send(&client).await.unwrap();
    // Its share of 2 s, and then the other one answers at once.
    assert!(started.elapsed() < Duration::from_millis(1_900), "{:?}", started.elapsed());
    assert!(!silent.all(ROUTE).is_empty());
    assert_eq!(broker.all(RequestCode::SEND_MESSAGE_V2).len(), 1);
}

#[tokio::test]
async fn the_client_goes_over_to_another_name_server_and_back() {
    let (mut first, mut second) = (knows_orders().await, knows_orders().await);
    // Both lead to one broker that stays.
    let broker = knows_orders().await;
    for name_server in [&first, &second] {
        name_server.shared.lock().advertised = Some(broker.shared.address);
    }
    let client = client(format!("{};{}", first.address(), second.address())).await;
    send(&client).await.unwrap();
    assert!(second.all(ROUTE).is_empty(), "the first one answers");
    first.go_down().await;
    second.wait_nth(ROUTE, 2).await;
    send(&client).await.unwrap();
    first.come_back().await;
    let before = first.all(ROUTE).len();
    second.go_down().await;
    first.wait_nth(ROUTE, before + 2).await;
    send(&client).await.unwrap();
    assert_eq!(broker.all(RequestCode::SEND_MESSAGE_V2).len(), 3);
}

#[tokio::test]
async fn a_name_server_that_froze_is_reached_again_on_a_new_connection() {
    let name_server = knows_orders().await;
    let mut config = settings();
    (config.route_refresh_ms, config.request_timeout_ms, config.silence_max_ms) = (20, 100, 150);
    let client = Client::builder(name_server.address()).config(config).build().await.unwrap();
    send(&client).await.unwrap();
    let first = name_server.all(ROUTE)[0].connection;
    name_server.shared.lock().frozen = true;
    name_server
        .wait("a question on a new connection", |seen| seen.code() == ROUTE && seen.connection > first)
        .await;
    name_server.shared.lock().frozen = false;
    send(&client).await.unwrap();
}

#[tokio::test]
async fn a_name_server_that_knows_nothing_yet_does_not_hide_a_topic() {
    let (restarted, broker) = (FakeBroker::start().await, knows_orders().await);
    let client = client(format!("{};{}", restarted.address(), broker.address())).await;
    send(&client).await.unwrap();
    assert!(!restarted.all(ROUTE).is_empty());
}

#[tokio::test]
async fn a_name_server_that_leads_to_a_broker_that_is_gone_is_doubted() {
    let (stale, broker) = (knows_orders().await, knows_orders().await);
    let nobody = dead().await.parse().unwrap();
    stale.shared.lock().advertised = Some(nobody);
    let client = client(format!("{};{}", stale.address(), broker.address())).await;
    send(&client).await.unwrap();
    assert!(!stale.all(ROUTE).is_empty());
    assert_eq!(broker.all(RequestCode::SEND_MESSAGE_V2).len(), 1);
}

#[tokio::test]
async fn a_topic_that_nobody_knows_is_an_error_in_time() {
    let (silent, knowing) = (knows_orders().await, FakeBroker::start().await);
    silent.shared.lock().frozen = true;
    let client = client(format!("{};{}", knowing.address(), silent.address())).await;
    let started = Instant::now();
    let error = send(&client).await.unwrap_err();
    assert!(matches!(error, mezzo_client::SendError::Route(mezzo_client::Error::NoRoute { .. })), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_thousand_failing_sends_do_not_flood_the_name_server() {
    let name_server = knows_orders().await;
    let nobody = dead().await.parse().unwrap();
    name_server.shared.lock().advertised = Some(nobody);
    let client = name_server.client().await;
    let producer = client.producer("sellers").send_timeout_ms(1_000).start().await.unwrap();
    let sends: Vec<_> = (0..1_000)
        .map(|_| {
            let producer = producer.clone();
            tokio::spawn(async move { producer.send(Message::new("orders", "x").unwrap()).await })
        })
        .collect();
    for send in sends {
        let error = send.await.unwrap().unwrap_err();
        assert!(!error.is_outcome_unknown(), "{error}");
    }
    let asked = name_server.all(ROUTE).len();
    assert!((2..=40).contains(&asked), "{asked} questions in about a second");
}
