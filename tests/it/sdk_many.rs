//! The SDK's transactions of many messages against a whole broker: all of them or none, whoever dies when; and what a
//! transaction's message may be besides: delayed, ordered, with tag, keys and headers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mezzo_client::{
    Client, LocalError, LocalOutcome, ManyError, Message, ReceivedMessage, RolledBackBecause,
    TransactionName, TransactionOutcome, TransactionProducer,
};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::wait;

const GROUP: &str = "PG_many_sdk";
/// Queues of a topic that the broker creates by itself.
const QUEUES: u32 = 4;

/// Asks back soon, and then not again for long.
fn impatient() -> TestBroker {
    TestBroker::start(&["transaction.timeout=300ms", "transaction.check_interval=15s"])
}

async fn connect(broker: &TestBroker) -> Client {
    Client::connect(broker.name_server().to_string()).await.unwrap()
}

/// Whom the broker asked about, with what it is told.
#[derive(Clone)]
struct Asked {
    answer: LocalOutcome,
    ids: Arc<Mutex<Vec<String>>>,
}

impl Asked {
    fn answering(answer: LocalOutcome) -> Self {
        Self { answer, ids: Arc::default() }
    }

    fn ids(&self) -> Vec<String> {
        self.ids.lock().unwrap().clone()
    }
}

impl mezzo_client::CheckBack for Asked {
    async fn check(&self, half: ReceivedMessage) -> Result<LocalOutcome, LocalError> {
        self.ids.lock().unwrap().push(half.unique_key().unwrap_or_default().to_owned());
        Ok(self.answer)
    }
}

async fn producer(client: &Client, asked: &Asked) -> TransactionProducer {
    client.transaction_producer(GROUP).check_back(asked.clone()).start().await.unwrap()
}

async fn silent(client: &Client) -> TransactionProducer {
    producer(client, &Asked::answering(LocalOutcome::Unknown)).await
}

fn message(topic: &str, body: impl Into<String>) -> Message {
    Message::new(topic, body.into()).unwrap()
}

/// All bodies of a topic that are visible now, sorted.
fn visible(broker: &TestBroker, topic: &str) -> Vec<String> {
    let mut consumer = Consumer::connect(broker.address(), "CG_many_sdk");
    consumer.join(&[topic]);
    let messages = (0..QUEUES).flat_map(|queue| consumer.drain_if_there(topic, queue, 0));
    let mut bodies: Vec<String> = messages.map(|message| message.text().to_owned()).collect();
    bodies.sort();
    bodies
}

/// A transaction of a process that dies behind two messages, without a word to anybody.
fn dead_process(broker: &TestBroker) -> TransactionName {
    let address = broker.name_server().to_string();
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let name = runtime.block_on(async {
            let client = Client::connect(address).await.unwrap();
            let mut tx = silent(&client).await.begin().await.unwrap();
            tx.send(message("orders", "order")).await.unwrap();
            tx.send(message("bills", "bill")).await.unwrap();
            let name = tx.name().clone();
            // A process that is killed runs no destructor.
            std::mem::forget((tx, client));
            name
        });
        runtime.shutdown_background();
        name
    });
    process.join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_several_topics_become_visible_together() {
    let broker = TestBroker::start(&[]);
    let producer = silent(&connect(&broker).await).await;
    let mut tx = producer.begin().await.unwrap();
    tx.send(message("orders", "0")).await.unwrap();
    let more: Vec<Message> = (1..150).map(|n| message(["orders", "bills"][n % 2], n.to_string())).collect();
    let receipts = tx.send_all(more).await.unwrap();
    assert_eq!((receipts.len(), tx.name().messages), (149, 150));
    assert!(visible(&broker, "orders").is_empty() && visible(&broker, "bills").is_empty());
    let outcome = tx.commit().await;
    assert!(outcome.is_committed(), "{outcome}");
    assert_eq!(visible(&broker, "orders").len(), 75);
    assert_eq!(visible(&broker, "bills").len(), 75);
    assert_eq!(producer.running(), 0);
    // Whoever says it again hears the same.
    assert!(producer.commit_named(outcome.name()).await.is_committed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_and_a_drop_leave_nothing() {
    let broker = impatient();
    let asked = Asked::answering(LocalOutcome::Commit);
    let producer = producer(&connect(&broker).await, &asked).await;
    let mut tx = producer.begin().await.unwrap();
    tx.send(message("orders", "rolled back")).await.unwrap();
    assert!(tx.rollback().await.is_rolled_back());
    let mut tx = producer.begin().await.unwrap();
    tx.send_all([message("orders", "dropped"), message("bills", "dropped")]).await.unwrap();
    let name = tx.name().clone();
    drop(tx);
    // What was dropped is decided for good: a commit comes too late.
    let late = producer.commit_named(&name).await;
    assert!(matches!(late, TransactionOutcome::RolledBack(_, RolledBackBecause::DecidedBefore)), "{late}");
    assert!(visible(&broker, "orders").is_empty() && visible(&broker, "bills").is_empty());
    assert!(asked.ids().is_empty(), "this process knows; its handler is not asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_behind_a_local_transaction_is_left_to_the_handler() {
    let broker = impatient();
    let asked = Asked::answering(LocalOutcome::Commit);
    let producer = producer(&connect(&broker).await, &asked).await;
    let mut tx = producer.begin().await.unwrap();
    let id = tx.begin_local().unwrap();
    tx.send_all([message("orders", "order"), message("bills", "bill")]).await.unwrap();
    drop(tx);
    wait::until("the handler's commit is visible", || {
        (visible(&broker, "orders") == ["order"] && visible(&broker, "bills") == ["bill"]).then_some(())
    });
    assert_eq!(asked.ids(), [&*id], "asked once for both messages, by the transaction's id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_finishes_by_name_what_a_dead_process_left() {
    let broker = TestBroker::start(&[]);
    let name = dead_process(&broker);
    assert!(visible(&broker, "orders").is_empty());
    let producer = silent(&connect(&broker).await).await;
    let outcome = producer.commit_named(&name).await;
    assert!(outcome.is_committed(), "{outcome}");
    assert_eq!(
        (visible(&broker, "orders"), visible(&broker, "bills")),
        (vec!["order".into()], vec!["bill".into()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_is_asked_about_what_a_dead_process_left() {
    let broker = impatient();
    let name = dead_process(&broker);
    let asked = Asked::answering(LocalOutcome::Commit);
    let _producer = producer(&connect(&broker).await, &asked).await;
    wait::until("both are visible", || {
        (visible(&broker, "orders") == ["order"] && visible(&broker, "bills") == ["bill"]).then_some(())
    });
    assert_eq!(asked.ids(), [&*name.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_goes_on_behind_a_restart_of_its_broker() {
    let mut broker = TestBroker::start(&[]);
    let producer = silent(&connect(&broker).await).await;
    let mut tx = producer.begin().await.unwrap();
    tx.send(message("orders", "before")).await.unwrap();
    let broker = tokio::task::spawn_blocking(move || {
        broker.restart();
        broker
    });
    let broker = broker.await.unwrap();
    tx.send(message("orders", "behind")).await.unwrap();
    let outcome = tx.commit().await;
    assert!(outcome.is_committed(), "{outcome}");
    assert_eq!(visible(&broker, "orders"), ["before", "behind"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_counts_what_the_broker_has_not_rolls_back_and_says_so() {
    let broker = TestBroker::start(&[]);
    let producer = silent(&connect(&broker).await).await;
    let mut tx = producer.begin().await.unwrap();
    tx.send(message("orders", "one")).await.unwrap();
    let name = TransactionName { messages: 2, ..tx.name().clone() };
    let outcome = producer.commit_named(&name).await;
    assert!(
        matches!(
            &outcome,
            TransactionOutcome::RolledBack(_, RolledBackBecause::Incomplete { stored: 1, sent: 2 })
        ),
        "{outcome}"
    );
    let late = tx.send(message("orders", "two")).await.unwrap_err();
    assert!(matches!(&late, ManyError::Decided { recorded } if recorded == "ROLLED_BACK"), "{late}");
    assert!(tx.commit().await.is_rolled_back());
    assert!(visible(&broker, "orders").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_without_messages_is_legal_and_one_too_large_is_refused() {
    let broker = TestBroker::start(&[]);
    let producer = silent(&connect(&broker).await).await;
    assert!(producer.begin().await.unwrap().commit().await.is_committed());
    assert!(producer.begin().await.unwrap().rollback().await.is_rolled_back());
    let mut tx = producer.begin().await.unwrap();
    let many = (0..1_001).map(|n| message("orders", n.to_string()));
    let error = tx.send_all(many).await.unwrap_err();
    assert!(matches!(error, ManyError::Full), "{error}");
    let local = tx.begin_local();
    assert!(matches!(local, Err(ManyError::FailedBefore)), "nothing may commit for it any more: {local:?}");
    let outcome = tx.commit().await;
    assert!(
        matches!(&outcome, TransactionOutcome::RolledBack(_, RolledBackBecause::SendFailed)),
        "{outcome}"
    );
    assert_eq!(producer.running(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_of_a_transaction_waits_from_the_commit_on() {
    let broker = TestBroker::with_manual_clock(&[]);
    let producer = silent(&connect(&broker).await).await;
    let delayed = |body: &str| {
        let builder = Message::builder("orders").delay(Duration::from_secs(60)).body(body.to_owned());
        builder.build().unwrap()
    };
    let prepared = producer.prepare(delayed("one")).await.unwrap();
    let mut tx = producer.begin().await.unwrap();
    tx.send_all([delayed("two"), message("bills", "now")]).await.unwrap();
    assert!(prepared.commit().await.unwrap().is_committed());
    assert!(tx.commit().await.is_committed());
    assert_eq!(visible(&broker, "bills"), ["now"]);
    assert!(visible(&broker, "orders").is_empty(), "their minute has not begun before the commit");
    broker.clock().advance(Duration::from_secs(60));
    wait::until("both are due", || (visible(&broker, "orders") == ["one", "two"]).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn order_tags_keys_and_headers_go_through_a_transaction() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = silent(&client).await;
    let mut tx = producer.begin().await.unwrap();
    let ordered = (0..20).map(|n| {
        let builder = Message::builder("orders").sharding_key("customer-7").tag("paid").key(format!("k{n}"));
        builder.property("source", "till 3").body(n.to_string()).build().unwrap()
    });
    let receipts = tx.send_all(ordered).await.unwrap();
    assert!(receipts.iter().all(|receipt| receipt.queue == receipts[0].queue), "one queue");
    assert!(tx.commit().await.is_committed());
    let consumer =
        client.pull_consumer("CG_ordered").assign([receipts[0].queue.clone()]).start().await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let messages = consumer.poll(wait::PATIENCE, 20).await.unwrap();
        assert!(!messages.is_empty(), "only {} came", seen.len());
        for message in messages {
            assert_eq!((message.tag(), message.property("source")), (Some("paid"), Some("till 3")));
            assert!(message.keys().any(|key| key == format!("k{}", seen.len())));
            seen.push(String::from_utf8_lossy(message.body()).into_owned());
        }
    }
    assert_eq!(seen, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    consumer.shutdown().await;
}
