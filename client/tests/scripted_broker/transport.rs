//! Bytes may travel another way than plain TCP: encrypted, or through memory.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mezzo_client::config::BackoffPolicy;
use mezzo_client::{ByteStreams, Client, Message, ReceivedMessage, Transport, Verdict};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::fake::{FakeBroker, settings};

/// TLS as an application would do it.
struct Tls(TlsConnector);

impl Transport for Tls {
    async fn connect(&self, address: &str) -> std::io::Result<ByteStreams> {
        let name = ServerName::try_from("broker.test").map_err(std::io::Error::other)?;
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(ByteStreams::of(self.0.connect(name, socket).await?))
    }
}

/// What decrypts in front of `broker`: its address, and a transport that trusts it.
async fn terminator(broker: SocketAddr) -> (SocketAddr, Tls) {
    let made = rcgen::generate_simple_self_signed(["broker.test".to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Whoever speaks plain text gets no further than this.
                let mut inside = acceptor.accept(socket).await?;
                let mut outside = TcpStream::connect(broker).await?;
                tokio::io::copy_bidirectional(&mut inside, &mut outside).await
            });
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (address, Tls(TlsConnector::from(Arc::new(client))))
}

async fn broker() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 4);
    broker
}

/// Produces and consumes through `client`.
async fn works(broker: &FakeBroker, client: &Client) {
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(Message::new("orders", "x").unwrap()).await.unwrap();
    let large = Message::new("orders", vec![b'x'; 200_000]).unwrap();
    let run: Vec<_> = std::iter::repeat_with(|| large.clone()).take(20).collect();
    assert!(producer.send_all(run).await.iter().all(Result::is_ok));
    broker.shared.lock().queues.put("orders", 2, "t", "by the other way");
    let (sender, mut received) = mpsc::channel(8);
    let handler = move |message: ReceivedMessage| {
        let sender = sender.clone();
        async move {
            sender.send(message.body().to_vec()).await.unwrap();
            Verdict::Done
        }
    };
    let consumer =
        client.push_consumer("readers").subscribe("orders", "*").handler(handler).start().await.unwrap();
    let body = tokio::time::timeout(Duration::from_secs(10), received.recv()).await.unwrap().unwrap();
    assert_eq!(body, b"by the other way");
    consumer.shutdown().await;
    producer.shutdown().await;
}

#[tokio::test]
async fn name_servers_and_brokers_are_reached_through_tls() {
    let broker = broker().await;
    let (address, tls) = terminator(broker.shared.address).await;
    broker.shared.lock().advertised = Some(address);
    let client =
        Client::builder(address.to_string()).config(settings()).transport(tls).build().await.unwrap();
    works(&broker, &client).await;
    client.shutdown().await;
}

#[tokio::test]
async fn a_peer_that_is_not_trusted_gets_nothing() {
    let broker = broker().await;
    let (address, _) = terminator(broker.shared.address).await;
    let (_, stranger) = terminator(broker.shared.address).await;
    broker.shared.lock().advertised = Some(address);
    let client =
        Client::builder(address.to_string()).config(settings()).transport(stranger).build().await.unwrap();
    let producer = client.producer("sellers").send_timeout_ms(300).start().await.unwrap();
    let error = producer.send(Message::new("orders", "x").unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(!error.is_outcome_unknown());
    assert_eq!(broker.all(mezzo_client::RequestCode::GET_ROUTEINFO_BY_TOPIC).len(), 0);
}

#[tokio::test]
async fn a_transport_through_memory_needs_no_socket() {
    let broker = Arc::new(broker().await);
    let asked_for = Arc::new(Mutex::new(Vec::new()));
    let transport = {
        let (broker, asked_for) = (Arc::clone(&broker), Arc::clone(&asked_for));
        move |address: String| {
            asked_for.lock().unwrap().push(address);
            let (ours, theirs) = tokio::io::duplex(4 << 10);
            broker.attach(theirs);
            async move { Ok(ByteStreams::of(ours)) }
        }
    };
    let client =
        Client::builder("in-memory:1").config(settings()).transport(transport).build().await.unwrap();
    works(&broker, &client).await;
    let asked_for = asked_for.lock().unwrap().clone();
    let expected = ["in-memory:1".to_owned(), broker.address()];
    assert_eq!(
        asked_for, expected,
        "once to the name server, once to the broker, for producers and consumers"
    );
    client.shutdown().await;
}

#[tokio::test]
async fn one_attempt_serves_all_who_wait_and_outlives_who_gives_up() {
    let broker = Arc::new(broker().await);
    let (connects, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
    let broker_address = broker.address();
    let transport = {
        let (broker, connects, gate) = (Arc::clone(&broker), Arc::clone(&connects), Arc::clone(&gate));
        move |address: String| {
            let is_broker = address == broker_address;
            let (broker, connects, gate) = (Arc::clone(&broker), Arc::clone(&connects), Arc::clone(&gate));
            async move {
                if is_broker {
                    connects.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                }
                let (ours, theirs) = tokio::io::duplex(4 << 10);
                broker.attach(theirs);
                Ok(ByteStreams::of(ours))
            }
        }
    };
    let client =
        Client::builder("in-memory:1").config(settings()).transport(transport).build().await.unwrap();
    let hasty = client.producer("hasty").send_timeout_ms(50).start().await.unwrap();
    let error = hasty.send(Message::new("orders", "x").unwrap()).await.unwrap_err();
    assert!(!error.is_outcome_unknown(), "{error}");
    let producer = client.producer("sellers").start().await.unwrap();
    let sends: Vec<_> = (0..100)
        .map(|number| {
            let producer = producer.clone();
            let message = Message::new("orders", number.to_string()).unwrap();
            tokio::spawn(async move { producer.send(message).await })
        })
        .collect();
    gate.add_permits(1);
    for send in sends {
        send.await.unwrap().unwrap();
    }
    assert_eq!(connects.load(Ordering::SeqCst), 1, "the attempt of the hasty one was gone on with");
}

#[tokio::test]
async fn a_transport_that_panics_is_an_address_that_cannot_be_reached() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let transport = {
        let attempts = Arc::clone(&attempts);
        move |_address: String| {
            let attempts = Arc::clone(&attempts);
            async move {
                attempts.fetch_add(1, Ordering::SeqCst);
                panic!("in the transport")
            }
        }
    };
    let client = Client::builder("nobody:1").config(settings()).transport(transport).build().await.unwrap();
    let producer = client.producer("sellers").send_timeout_ms(300).start().await.unwrap();
    let error = producer.send(Message::new("orders", "x").unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    let made = attempts.load(Ordering::SeqCst);
    assert!((1..=30).contains(&made), "{made} attempts in 300 ms");
}

#[tokio::test]
async fn a_transport_that_never_ends_is_given_up_and_retried_with_growing_pauses() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let transport = {
        let attempts = Arc::clone(&attempts);
        move |_address: String| {
            attempts.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<std::io::Result<ByteStreams>>()
        }
    };
    let mut config = settings();
    (config.connect_timeout_ms, config.reconnect) = (20, BackoffPolicy::new(50, 400));
    let client = Client::builder("nobody:1").config(config).transport(transport).build().await.unwrap();
    let producer = client.producer("sellers").send_timeout_ms(1_000).start().await.unwrap();
    let sends = (0..50).map(|_| producer.send(Message::new("orders", "x").unwrap()));
    let results = futures_join(sends).await;
    assert!(results.iter().all(|sent| sent.as_ref().is_err_and(|error| !error.is_outcome_unknown())));
    let made = attempts.load(Ordering::SeqCst);
    // 20 ms each, and between them half of 50, 100, 200, 400, 400 ms or more.
    assert!((2..=8).contains(&made), "{made} attempts for 50 sends in a second");
}

/// All of them at one time.
async fn futures_join<T: Send + 'static>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut ended: Vec<Option<T>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, place) in running.iter_mut().zip(&mut ended) {
            if place.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *place = Some(output);
            }
        }
        if ended.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    ended.into_iter().flatten().collect()
}
