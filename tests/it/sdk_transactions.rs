//! The SDK's transaction producer when things do not go as planned, against a whole broker: a handler that is a type of its
//! own, a panic, a decision that was dropped, a shutdown with an open transaction.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use mezzo_client::config::TransactionConfig;
use mezzo_client::{
    CheckBack, Client, LocalError, LocalOutcome, Message, PushConsumer, ReceivedMessage, TransactionName,
    TransactionProducer, Verdict,
};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::wait::{self, PATIENCE};
use tokio::sync::mpsc;

/// What a database would remember: outcomes by the order's number, and who was asked about.
#[derive(Clone, Default)]
struct Ledger {
    outcomes: Arc<Mutex<HashMap<String, LocalOutcome>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Ledger {
    fn record(&self, order: &str, outcome: LocalOutcome) {
        self.outcomes.lock().expect("no test panics with it").insert(order.to_owned(), outcome);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no test panics with it").clone()
    }
}

impl CheckBack for Ledger {
    async fn check(&self, half: ReceivedMessage) -> Result<LocalOutcome, LocalError> {
        let order = half.property("order").unwrap_or_default().to_owned();
        self.asked.lock().expect("no test panics with it").push(order.clone());
        let outcomes = self.outcomes.lock().expect("no test panics with it");
        Ok(outcomes.get(&order).copied().unwrap_or(LocalOutcome::Unknown))
    }
}

/// Asks back soon, and then not again for long.
fn impatient() -> TestBroker {
    TestBroker::start(&["transaction.timeout=300ms", "transaction.check_interval=15s"])
}

async fn connect(broker: &TestBroker) -> Client {
    Client::connect(broker.name_server().to_string()).await.expect("the broker is there")
}

async fn producer(client: &Client, ledger: &Ledger) -> TransactionProducer {
    let config = TransactionConfig::default().drain_timeout_ms(50);
    let builder = client.transaction_producer("PG_ledger").config(config).check_back(ledger.clone());
    builder.start().await.expect("a producer starts")
}

fn order(number: &str) -> Message {
    let builder = Message::builder("orders").property("order", number).body(number.to_owned());
    builder.build().expect("a valid message")
}

/// A consumer, and the bodies that arrive at it.
async fn arrivals(client: &Client) -> (PushConsumer, mpsc::Receiver<String>) {
    let (sender, received) = mpsc::channel(100);
    let handler = move |message: ReceivedMessage| {
        let sender = sender.clone();
        async move {
            let body = String::from_utf8_lossy(message.body()).into_owned();
            // A test that has seen enough listens no more.
            let _ = sender.send(body).await;
            Verdict::Done
        }
    };
    let consumer = client.push_consumer("CG_ledger").subscribe("orders", "*").handler(handler).start().await;
    (consumer.expect("a consumer starts"), received)
}

async fn next(received: &mut mpsc::Receiver<String>) -> String {
    let next = tokio::time::timeout(PATIENCE, received.recv()).await;
    next.expect("a message arrives").expect("the consumer runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_of_its_own_type_settles_what_was_dropped() {
    let broker = impatient();
    let client = connect(&broker).await;
    let ledger = Ledger::default();
    let producer = producer(&client, &ledger).await;
    ledger.record("17", LocalOutcome::Commit);
    ledger.record("18", LocalOutcome::Rollback);
    for number in ["18", "17"] {
        drop(producer.prepare(order(number)).await.expect("prepared"));
    }
    let (_consumer, mut received) = arrivals(&client).await;
    assert_eq!(next(&mut received).await, "17");
    wait::until("both are asked about", || (ledger.asked().len() == 2).then_some(()));
    assert!(received.try_recv().is_err(), "what was rolled back does not arrive");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_behind_the_local_commit_loses_nothing() {
    let broker = impatient();
    let client = connect(&broker).await;
    let ledger = Ledger::default();
    let producer = producer(&client, &ledger).await;
    let (panicking, records) = (producer.clone(), ledger.clone());
    let panicked = tokio::spawn(async move {
        let local = |_| async move {
            records.record("19", LocalOutcome::Commit);
            panic!("after the commit, before anybody knows")
        };
        panicking.send_in_transaction(order("19"), local).await.map(drop)
    });
    assert!(panicked.await.expect_err("the panic comes through").is_panic());
    let (_consumer, mut received) = arrivals(&client).await;
    assert_eq!(next(&mut received).await, "19");
    assert_eq!((ledger.asked(), producer.running()), (vec!["19".to_owned()], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_open_at_shutdown_can_still_be_decided() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let ledger = Ledger::default();
    let producer = producer(&client, &ledger).await;
    let prepared = producer.prepare(order("20")).await.expect("prepared");
    assert!(!producer.shutdown().await, "it says that something is open");
    assert!(producer.prepare(order("21")).await.is_err(), "nothing new begins");
    assert!(prepared.commit().await.expect("no conflict").is_committed());
    let (_consumer, mut received) = arrivals(&client).await;
    assert_eq!(next(&mut received).await, "20");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_of_a_producer_that_was_shut_down_is_settled_by_the_next_one() {
    let broker = impatient();
    let client = connect(&broker).await;
    let ledger = Ledger::default();
    let first = producer(&client, &ledger).await;
    let prepared = first.prepare(order("22")).await.expect("prepared");
    assert!(!first.shutdown().await);
    drop((prepared, first));
    ledger.record("22", LocalOutcome::Commit);
    let _second = producer(&client, &ledger).await;
    let (_consumer, mut received) = arrivals(&client).await;
    assert_eq!(next(&mut received).await, "22");
    assert_eq!(ledger.asked(), ["22"]);
}

/// Prepares an order in a runtime of its own, and ends as a process that is killed: without a word to the broker.
fn dead_process(broker: &TestBroker, ledger: &Ledger, number: &'static str) -> TransactionName {
    let (address, ledger) = (broker.name_server().to_string(), ledger.clone());
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
        let name = runtime.block_on(async {
            let client = Client::connect(address).await.expect("the broker is there");
            let prepared = producer(&client, &ledger).await.prepare(order(number)).await.expect("prepared");
            let name = prepared.ids().name();
            std::mem::forget((prepared, client));
            name
        });
        runtime.shutdown_background();
        name
    });
    process.join().expect("it ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_producer_finishes_its_own_transaction_by_the_key_it_wrote_down() {
    let mut broker = TestBroker::start(&[]);
    let ledger = Ledger::default();
    let (kept, undone) = (dead_process(&broker, &ledger, "23"), dead_process(&broker, &ledger, "24"));
    broker.restart();
    let client = connect(&broker).await;
    let producer = producer(&client, &ledger).await;
    assert!(producer.roll_back_named(&undone).await.is_rolled_back());
    let outcome = producer.commit_named(&kept).await;
    assert!(outcome.is_committed(), "{outcome}");
    assert!(producer.commit_named(&kept).await.is_committed(), "saying it again is safe");
    assert!(producer.commit_named(&undone).await.is_rolled_back(), "the first decision stands");
    let (_consumer, mut received) = arrivals(&client).await;
    assert_eq!(next(&mut received).await, "23");
    assert!(ledger.asked().is_empty(), "nobody had to ask");
}
