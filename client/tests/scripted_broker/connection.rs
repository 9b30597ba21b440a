//! Connections: made again after a loss, known to the broker, deaf to no request of the broker.

use mezzo_client::{Client, Message};
use mezzo_protocol::remoting::body::heartbeat::HeartbeatData;
use mezzo_protocol::remoting::{RemotingCommand, RequestCode, ResponseCode};

use crate::fake::{Action, FakeBroker, settings};

const HEART_BEAT: RequestCode = RequestCode::HEART_BEAT;

async fn broker() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 4);
    broker
}

#[tokio::test]
async fn a_new_connection_is_greeted_with_a_heartbeat_before_the_first_request() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(Message::new("orders", "x").unwrap()).await.unwrap();
    let greeting = broker.all(HEART_BEAT).remove(0);
    let heartbeat = HeartbeatData::decode(&greeting.command.body).unwrap();
    assert_eq!(heartbeat.client_id, client.client_id());
    assert_eq!(heartbeat.producer_data_set[0].group_name, "sellers");
    let send = broker.wait_nth(RequestCode::SEND_MESSAGE_V2, 1).await;
    assert_eq!(send.connection, greeting.connection);
}

#[tokio::test]
async fn a_lost_connection_is_made_again_without_any_send() {
    let mut broker = broker().await;
    let client = broker.client().await;
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(Message::new("orders", "x").unwrap()).await.unwrap();
    let first = broker.wait_nth(HEART_BEAT, 1).await;
    broker.go_down().await;
    broker.come_back().await;
    let again = broker
        .wait("a heartbeat on a new connection", |seen| {
            seen.code() == HEART_BEAT && seen.connection > first.connection
        })
        .await;
    assert!(again.connection > first.connection);
}

#[tokio::test]
async fn heartbeats_go_on_and_a_connection_that_swallows_them_is_replaced() {
    let broker = broker().await;
    let config = settings().request_timeout_ms(100);
    let client = Client::builder(broker.address()).config(config).build().await.unwrap();
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(Message::new("orders", "x").unwrap()).await.unwrap();
    let first = broker.wait_nth(HEART_BEAT, 2).await;
    broker.script(HEART_BEAT, [Action::Silence]);
    broker
        .wait("a heartbeat on a new connection", |seen| {
            seen.code() == HEART_BEAT && seen.connection > first.connection
        })
        .await;
}

#[tokio::test]
async fn a_group_that_was_left_is_taken_off_and_no_longer_spoken_of() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(Message::new("orders", "x").unwrap()).await.unwrap();
    producer.shutdown().await;
    let left = broker.wait_nth(RequestCode::UNREGISTER_CLIENT, 1).await;
    assert_eq!(left.field("producerGroup"), "sellers");
    assert_eq!(left.field("clientID"), client.client_id());
    let _other = client.producer("buyers").start().await.unwrap();
    let spoken_of = |group: &'static str| {
        move |seen: &crate::fake::Seen| {
            let groups = || HeartbeatData::decode(&seen.command.body).unwrap().producer_data_set;
            seen.code() == HEART_BEAT && groups().iter().any(|producer| producer.group_name == group)
        }
    };
    let heartbeat = broker.wait("a heartbeat of the new group", spoken_of("buyers")).await;
    assert!(!spoken_of("sellers")(&heartbeat));
}

#[tokio::test]
async fn requests_that_the_client_does_not_know_are_refused() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(Message::new("orders", "x").unwrap()).await.unwrap();
    let reset_offset = RemotingCommand::request(RequestCode(220), Vec::new(), Vec::new()).with_opaque(4711);
    broker.push(&reset_offset);
    let answer = broker
        .wait("an answer to an unknown request", |seen| {
            seen.command.is_response() && seen.command.opaque == 4711
        })
        .await;
    assert_eq!(answer.command.code, ResponseCode::REQUEST_CODE_NOT_SUPPORTED.0);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_connections() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(Message::new("orders", "x").unwrap()).await.unwrap();
    assert!(broker.connections() > 0);
    drop(client);
    drop(producer);
    broker
        .wait_until("the end of the connection", |memory| memory.queues.greeted().is_empty().then_some(()))
        .await;
}

#[tokio::test]
async fn heartbeats_go_on_while_name_servers_do_not_answer() {
    let broker = broker().await;
    let topics = ["orders", "a", "b", "c", "d", "e"];
    let config = settings().route_refresh_ms(200);
    let client = Client::builder(broker.address()).config(config).build().await.unwrap();
    let producer = client.producer("sellers").start().await.unwrap();
    for topic in topics {
        broker.shared.lock().queues.add_topic(topic, 1);
        producer.send(Message::new(topic, "x").unwrap()).await.unwrap();
    }
    let asked = broker.all(RequestCode::GET_ROUTEINFO_BY_TOPIC).len();
    broker.always(RequestCode::GET_ROUTEINFO_BY_TOPIC, Some(Action::Silence));
    broker.wait_nth(RequestCode::GET_ROUTEINFO_BY_TOPIC, asked + 1).await;
    let before = broker.all(HEART_BEAT).len();
    // Heartbeats are due every 300 ms; each unanswered question takes 2 s.
    let started = std::time::Instant::now();
    broker.wait_nth(HEART_BEAT, before + 3).await;
    assert!(started.elapsed() < std::time::Duration::from_millis(1_900), "{:?}", started.elapsed());
}
