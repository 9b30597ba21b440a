//! Through the SDK: several brokers, brokers that go and come back, name servers that are gone, and what travels on the
//! connections.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use mezzo_client::config::{BackoffPolicy, ClientConfig};
use mezzo_client::{ByteStreams, Client, Message, Producer, PushConsumer, ReceivedMessage, Verdict};
use mezzo_protocol::limits::FRAME_BYTES_MAX;
use mezzo_protocol::remoting::{HeaderEncoding, HeaderView, RequestCode, frame};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::name_server::NameServer;
use mezzo_tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Everything that a consumer was given.
type Arrived = Arc<Mutex<BTreeSet<String>>>;

/// A client that does not wait long before it connects again.
async fn client(name_servers: &str) -> Client {
    let mut config = ClientConfig::default();
    (config.reconnect, config.heartbeat_interval_ms) = (BackoffPolicy::new(20, 200), 1_000);
    Client::builder(name_servers).config(config).build().await.unwrap()
}

fn order(body: &str) -> Message {
    Message::new("orders", body.to_owned()).unwrap()
}

async fn consume(client: &Client) -> (PushConsumer, Arrived) {
    let arrived = Arrived::default();
    let handler = {
        let arrived = Arc::clone(&arrived);
        move |message: ReceivedMessage| {
            arrived.lock().unwrap().insert(String::from_utf8(message.body().to_vec()).unwrap());
            async { Verdict::Done }
        }
    };
    let consumer = client.push_consumer("CG_net").subscribe("orders", "*").handler(handler).start().await;
    (consumer.unwrap(), arrived)
}

/// Sends numbered messages, one after the other, until it is told to stop; returns those that were confirmed, with the
/// name of the broker that has each.
fn keep_sending(producer: Producer, stop: Arc<AtomicBool>) -> JoinHandle<Vec<(String, String)>> {
    tokio::spawn(async move {
        let mut confirmed = Vec::new();
        for number in 0.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let body = format!("{number}");
            if let Ok(receipt) = producer.send(order(&body)).await {
                confirmed.push((body, receipt.queue.broker_name.to_string()));
            }
        }
        confirmed
    })
}

async fn two_brokers() -> (TestBroker, TestBroker, NameServer) {
    let (a, b) = (TestBroker::start(&["broker.name=a"]), TestBroker::start(&["broker.name=b"]));
    let name_server = NameServer::start([("a", a.address()), ("b", b.address())]).await;
    (a, b, name_server)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_brokers_share_what_is_sent_and_are_both_read() {
    let (_a, _b, name_server) = two_brokers().await;
    let client = client(&name_server.address().to_string()).await;
    let producer = client.producer("PG_net").start().await.unwrap();
    let (consumer, arrived) = consume(&client).await;
    let mut brokers = BTreeSet::new();
    for number in 0..40 {
        brokers
            .insert(producer.send(order(&number.to_string())).await.unwrap().queue.broker_name.to_string());
    }
    for receipt in producer.send_all((40..400).map(|number| order(&number.to_string()))).await {
        brokers.insert(receipt.unwrap().queue.broker_name.to_string());
    }
    assert_eq!(brokers, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    wait::until("all messages of both", || (arrived.lock().unwrap().len() == 400).then_some(()));
    consumer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_is_passed_over_and_used_again_when_it_is_back() {
    let (_a, mut b, name_server) = two_brokers().await;
    let client = client(&name_server.address().to_string()).await;
    let producer = client.producer("PG_net").start().await.unwrap();
    let (consumer, arrived) = consume(&client).await;
    for number in 0..8 {
        producer.send(order(&format!("early {number}"))).await.unwrap();
    }
    b.stop();
    for number in 0..40 {
        let receipt = producer.send(order(&format!("without {number}"))).await.unwrap();
        assert_eq!(&*receipt.queue.broker_name, "a");
    }
    b.restart();
    let mut later = 0;
    loop {
        let receipt = producer.send(order(&format!("later {later}"))).await.unwrap();
        later += 1;
        if &*receipt.queue.broker_name == "b" {
            break;
        }
        assert!(later < 2_000, "the broker that is back is not used");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    wait::until("everything from both", || (arrived.lock().unwrap().len() == 48 + later).then_some(()));
    consumer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_confirmed_is_lost_while_brokers_restart_in_turn() {
    let (mut a, mut b, name_server) = two_brokers().await;
    let client = client(&name_server.address().to_string()).await;
    let producer = client.producer("PG_net").start().await.unwrap();
    let (consumer, arrived) = consume(&client).await;
    let stop = Arc::new(AtomicBool::new(false));
    let sending: Vec<_> = [producer.clone()].map(|producer| keep_sending(producer, Arc::clone(&stop))).into();
    for _ in 0..2 {
        for broker in [&mut a, &mut b] {
            let before = arrived.lock().unwrap().len();
            wait::until("messages go through", || {
                (arrived.lock().unwrap().len() > before + 50).then_some(())
            });
            broker.restart();
        }
    }
    let before = arrived.lock().unwrap().len();
    wait::until("messages go through again", || (arrived.lock().unwrap().len() > before + 50).then_some(()));
    stop.store(true, Ordering::SeqCst);
    let mut confirmed = Vec::new();
    for sender in sending {
        confirmed.extend(sender.await.unwrap());
    }
    wait::until("all that was confirmed", || {
        let arrived = arrived.lock().unwrap();
        confirmed.iter().all(|(body, _)| arrived.contains(body)).then_some(())
    });
    assert!(["a", "b"].iter().all(|name| confirmed.iter().any(|(_, broker)| broker == name)));
    consumer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_broker_comes_back_and_producers_and_consumers_go_on() {
    let mut broker = TestBroker::start(&[]);
    let client = client(&broker.name_server().to_string()).await;
    let producer = client.producer("PG_net").send_timeout_ms(15_000).start().await.unwrap();
    let (consumer, arrived) = consume(&client).await;
    producer.send(order("before")).await.unwrap();
    wait::until("the first message", || arrived.lock().unwrap().contains("before").then_some(()));
    broker.stop();
    let waiting = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(order("meanwhile")).await }
    });
    tokio::task::yield_now().await;
    broker.restart();
    waiting.await.unwrap().unwrap();
    producer.send(order("after")).await.unwrap();
    wait::until("the messages of both times", || {
        let arrived = arrived.lock().unwrap();
        ["meanwhile", "after"].iter().all(|body| arrived.contains(*body)).then_some(())
    });
    consumer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_name_servers_works_as_long_as_one_of_them_does() {
    let (mut gone, broker) = (TestBroker::start(&[]), TestBroker::start(&[]));
    let list = format!("{};{}", gone.name_server(), broker.name_server());
    gone.stop();
    let client = client(&list).await;
    let producer = client.producer("PG_net").start().await.unwrap();
    let (consumer, arrived) = consume(&client).await;
    producer.send(order("found")).await.unwrap();
    wait::until("the message", || arrived.lock().unwrap().contains("found").then_some(()));
    consumer.shutdown().await;
}

/// Request codes and header encodings that a client has written, in order.
type Written = Arc<Mutex<Vec<(i32, HeaderEncoding)>>>;

/// TCP that remembers what the client writes.
fn listening(written: &Written) -> impl mezzo_client::Transport + use<> {
    let written = Arc::clone(written);
    move |address: String| {
        let written = Arc::clone(&written);
        async move {
            let (mut from_broker, mut to_broker) = TcpStream::connect(address).await?.into_split();
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let (mut from_client, mut to_client) = tokio::io::split(theirs);
            tokio::spawn(async move { tokio::io::copy(&mut from_broker, &mut to_client).await });
            tokio::spawn(async move {
                let mut input = BytesMut::new();
                while from_client.read_buf(&mut input).await? > 0 {
                    while let Some(view) =
                        frame::peek(&input, FRAME_BYTES_MAX).map_err(std::io::Error::other)?
                    {
                        let frame_bytes = view.frame_len();
                        to_broker.write_all(&input[..frame_bytes]).await?;
                        let encoding = view.encoding;
                        let whole =
                            frame::split(&mut input, FRAME_BYTES_MAX).map_err(std::io::Error::other)?;
                        let code =
                            whole.and_then(|whole| HeaderView::parse(&whole).ok().map(|head| head.code));
                        written.lock().unwrap().push((code.unwrap_or(-1), encoding));
                    }
                }
                Ok::<_, std::io::Error>(())
            });
            Ok(ByteStreams::of(ours))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mezzo_is_spoken_to_with_binary_headers_once_it_has_said_that_it_reads_them() {
    let broker = TestBroker::start(&[]);
    let written = Written::default();
    let builder = Client::builder(broker.name_server().to_string()).transport(listening(&written));
    let client = builder.build().await.unwrap();
    let producer = client.producer("PG_net").start().await.unwrap();
    let (consumer, arrived) = consume(&client).await;
    let sent = producer.send_all((0..50).map(|number| order(&number.to_string()))).await;
    assert!(sent.iter().all(Result::is_ok));
    wait::until("all messages", || (arrived.lock().unwrap().len() == 50).then_some(()));
    consumer.shutdown().await;
    let of = |code: RequestCode| -> Vec<_> {
        let written = written.lock().unwrap();
        written.iter().filter(|(of, _)| *of == code.0).map(|(_, encoding)| *encoding).collect()
    };
    assert_eq!(of(RequestCode::HEART_BEAT)[0], HeaderEncoding::Json);
    for code in [RequestCode::SEND_MESSAGE_V2, RequestCode::PULL_MESSAGE] {
        let used = of(code);
        assert!(
            !used.is_empty() && used.iter().all(|used| *used == HeaderEncoding::Binary),
            "{code:?} {used:?}"
        );
    }
    let asked = of(RequestCode::GET_ROUTEINFO_BY_TOPIC);
    assert!(asked.iter().all(|used| *used == HeaderEncoding::Json), "name servers get JSON");
}
