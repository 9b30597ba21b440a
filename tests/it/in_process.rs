//! A broker inside another program: it starts from async code, leaves nothing behind, keeps what is to be kept, and does
//! not disturb others.

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test, also in what tests share")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use mezzo_broker::{Broker, Config, StartError};
use mezzo_client::{Client, Message, ReceivedMessage};
use mezzo_tests::{binary::mezzo, wait};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn send(broker: &Broker, body: &'static str) {
    let client = Client::connect(broker.name_server()).await.unwrap();
    let producer = client.producer("PG_in_process").start().await.unwrap();
    producer.send(Message::new("orders", body).unwrap()).await.unwrap();
    producer.shutdown().await;
    client.shutdown().await;
}

/// The first message that a new group receives.
async fn first(broker: &Broker) -> String {
    let client = Client::connect(broker.name_server()).await.unwrap();
    let (seen, mut bodies) = mpsc::channel(1);
    let handler = move |message: ReceivedMessage| {
        let seen = seen.clone();
        async move { seen.send(String::from_utf8_lossy(message.body()).into_owned()).await }
    };
    let consumer = client.push_consumer("CG_in_process").subscribe("orders", "*").handler(handler).start();
    let consumer = consumer.await.unwrap();
    let body = tokio::time::timeout(PATIENCE, bodies.recv()).await.unwrap().unwrap();
    consumer.shutdown().await;
    client.shutdown().await;
    body
}

#[tokio::test]
async fn a_temporary_broker_serves_and_leaves_no_folder_behind() {
    let broker = Broker::start(Config::temporary()).await.unwrap();
    let dir = broker.data_dir().to_owned();
    assert!(dir.is_dir() && dir.starts_with(std::env::temp_dir()), "{}", dir.display());
    send(&broker, "one coffee").await;
    assert_eq!(first(&broker).await, "one coffee");
    broker.shutdown().await.unwrap();
    assert!(!dir.exists(), "{} is left", dir.display());
}

#[tokio::test]
async fn a_temporary_broker_that_is_dropped_leaves_no_folder_behind_either() {
    let broker = Broker::start(Config::temporary()).await.unwrap();
    let (dir, address) = (broker.data_dir().to_owned(), broker.broker_address());
    send(&broker, "one coffee").await;
    drop(broker);
    assert!(!dir.exists(), "{} is left", dir.display());
    assert!(std::net::TcpStream::connect(address).is_err(), "somebody still listens");
}

#[tokio::test]
async fn brokers_of_one_process_share_nothing() {
    let (one, other) = tokio::join!(Broker::start(Config::temporary()), Broker::start(Config::temporary()));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(one.data_dir(), other.data_dir());
    send(&one, "for one").await;
    send(&other, "for the other").await;
    assert_eq!((first(&one).await, first(&other).await), ("for one".to_owned(), "for the other".to_owned()));
}

#[tokio::test]
async fn an_embedded_broker_finds_its_messages_again() {
    let dir = TempDir::new().unwrap();
    let config = Config::embedded(dir.path().join("data"));
    let broker = Broker::start(config.clone()).await.unwrap();
    send(&broker, "kept").await;
    broker.shutdown().await.unwrap();
    let broker = Broker::start(config).await.unwrap();
    assert_eq!(broker.data_dir(), dir.path().join("data"));
    assert_eq!(first(&broker).await, "kept");
    broker.shutdown().await.unwrap();
    assert!(dir.path().join("data").is_dir());
}

#[tokio::test]
async fn starting_does_not_hold_up_a_runtime_of_one_thread() {
    let starting = Broker::start(Config::temporary());
    let mut other_work = 0_u64;
    let work = async {
        loop {
            other_work += 1;
            tokio::task::yield_now().await;
        }
    };
    let broker = tokio::select! {
        broker = starting => broker.unwrap(),
        () = work => unreachable!("it works for ever"),
    };
    assert!(other_work > 1, "nothing else ran while the broker started");
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_any_more_is_undone() {
    let dir = TempDir::new().unwrap();
    let config = Config::embedded(dir.path().join("data"));
    // the first look starts the thread; then the caller gives up
    let given_up = tokio::time::timeout(Duration::ZERO, Broker::start(config.clone())).await;
    drop(given_up);
    let free_again = async {
        loop {
            match Broker::start(config.clone()).await {
                Ok(broker) => return broker,
                Err(StartError::Store(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let broker = tokio::time::timeout(PATIENCE, free_again).await.unwrap();
    broker.shutdown().await.unwrap();
}

/// What a newcomer does first: `mezzo tail` in one terminal, then the first `mezzo send` ever in another.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_prints_the_message_that_creates_its_topic() {
    let broker = Broker::start(Config::temporary()).await.unwrap();
    let tail =
        ["tail", "orders", "--count", "1", "--group", "GID_tail", "--name-server", &broker.name_server()];
    let mut tail = Command::new(mezzo()).args(tail).stdout(Stdio::piped()).spawn().unwrap();
    wait::until("the tail waits", || broker.store()?.group("GID_tail"));
    send(&broker, "one coffee").await;
    let mut printed = String::new();
    BufReader::new(tail.stdout.take().unwrap()).read_line(&mut printed).unwrap();
    assert!(printed.contains("one coffee"), "{printed}");
    assert!(tail.wait().unwrap().success());
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_before_anything_starts() {
    let mut config = Config::temporary();
    config.set("store.segment_size=1MiB").unwrap();
    assert!(matches!(Broker::start(config).await, Err(StartError::Config(_))));
}

#[test]
fn a_caller_without_a_runtime_starts_one_too() {
    let broker = Broker::start_blocking(Config::temporary()).unwrap();
    assert!(std::net::TcpStream::connect(broker.broker_address()).is_ok());
    assert_eq!(broker.name_server(), broker.name_server_address().to_string());
}

#[test]
fn a_name_server_on_all_addresses_is_reached_by_the_loopback() {
    let mut config = Config::temporary();
    config.set("server.name_server_listen=0.0.0.0:0").unwrap();
    let broker = Broker::start_blocking(config).unwrap();
    assert_eq!(broker.name_server(), format!("127.0.0.1:{}", broker.name_server_address().port()));
}
