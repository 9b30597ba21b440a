//! A program that consumes orders and produces bills, one for each, inside transactions; and what it needs around it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mezzo_client::assignment::AssignmentStrategy;
use mezzo_client::config::{BackoffPolicy, ConsumerConfig, TransactionConfig};
use mezzo_client::{
    Client, LeasedBatch, LocalOutcome, ManyError, Message, MessageQueue, ReceivedMessage, Transaction,
    TransactionOutcome, TransactionProducer, TransactionalConsumer,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::broker::TestBroker;
use crate::consumer::Consumer;
use crate::wait;

/// What is consumed.
pub const ORDERS: &str = "orders";
/// What is produced.
pub const BILLS: &str = "bills";
/// The group that consumes, and the one that produces.
pub const BILLING: &str = "billing";
/// Queues of a topic that the broker creates by itself.
pub const QUEUES: u32 = 4;

/// A client of its own: another process, as far as brokers can tell.
///
/// # Panics
/// If the broker is not there.
pub async fn connect(broker: &TestBroker) -> Client {
    Client::connect(broker.name_server().to_string()).await.expect("the broker is there")
}

/// Sends orders with these bodies.
///
/// # Panics
/// If one cannot be sent.
pub async fn order(client: &Client, bodies: impl IntoIterator<Item = String>) {
    let producer = client.producer("waiters").start().await.expect("a producer starts");
    for body in bodies {
        producer.send(Message::new(ORDERS, body).expect("a message")).await.expect("sent");
    }
    producer.shutdown().await;
}

/// Settings with short times: leases of a second, that others take soon.
#[must_use]
pub fn brisk() -> ConsumerConfig {
    ConsumerConfig::default()
        .lease_ttl_ms(1_000)
        .lease_interval_ms(200)
        .lease_backoff(BackoffPolicy::new(20, 100))
        .rebalance_backoff(BackoffPolicy::new(20, 200))
        .pull_suspend_ms(1_000)
}

/// A consumer of the orders.
///
/// # Panics
/// If it does not start.
pub async fn consumer(client: &Client, config: ConsumerConfig) -> TransactionalConsumer {
    let builder = client.transactional_consumer(BILLING).subscribe(ORDERS, "*").config(config);
    builder.start().await.expect("a consumer starts")
}

/// A consumer to which all queues are assigned, whoever else is in the group: so that members meet at one queue.
///
/// # Panics
/// If it does not start.
pub async fn greedy(client: &Client, config: ConsumerConfig) -> TransactionalConsumer {
    let builder = client.transactional_consumer(BILLING).subscribe(ORDERS, "*").config(config);
    builder.assignment(Everything).start().await.expect("a consumer starts")
}

struct Everything;

impl AssignmentStrategy for Everything {
    fn assign(&self, _: &str, queues: &[MessageQueue], _: &[String]) -> Vec<MessageQueue> {
        queues.to_vec()
    }

    fn name(&self) -> &'static str {
        "EVERYTHING"
    }
}

/// A producer of bills whose check-back handler would commit whatever it is asked about, and the number of questions.
///
/// # Panics
/// If it does not start.
pub async fn producer(client: &Client, config: TransactionConfig) -> (TransactionProducer, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let builder =
        client.transaction_producer(BILLING).config(config).check_back(move |_: ReceivedMessage| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Ok(LocalOutcome::Commit) }
        });
    (builder.start().await.expect("a producer starts"), asked)
}

/// Puts a bill for each order of the batch into a new transaction that acknowledges the batch.
///
/// # Errors
/// If a bill does not join.
///
/// # Panics
/// If no transaction begins.
pub async fn bill(producer: &TransactionProducer, batch: &LeasedBatch) -> Result<Transaction, ManyError> {
    let mut tx = producer.begin().await.expect("there is room");
    if tx.ack(batch).is_err() {
        // Its commit says why.
        return Ok(tx);
    }
    for order in batch {
        tx.send(Message::new(BILLS, order.body().clone()).expect("a message")).await?;
    }
    Ok(tx)
}

/// The program at work until it is told to leave.
pub struct Worker {
    leave: watch::Sender<bool>,
    task: JoinHandle<Worked>,
}

/// What came of a worker's transactions.
#[derive(Debug, Default)]
pub struct Worked {
    /// Committed ones.
    pub committed: u64,
    /// Refused because another had the queue.
    pub fenced: u64,
    /// All others.
    pub other: u64,
    /// Whether it gave all back in order.
    pub in_order: bool,
}

impl Worker {
    /// Starts a member of the group with a client of its own.
    pub async fn start(broker: &TestBroker, config: ConsumerConfig) -> Self {
        let client = connect(broker).await;
        let consumer = consumer(&client, config).await;
        let (producer, _) = producer(&client, TransactionConfig::default()).await;
        let (leave, left) = watch::channel(false);
        Self { leave, task: tokio::spawn(work(client, consumer, producer, left)) }
    }

    /// Tells it to leave in order and waits until it has.
    ///
    /// # Panics
    /// If it panicked.
    pub async fn leave(self) -> Worked {
        // It may have ended by itself.
        let _ = self.leave.send(true);
        self.task.await.expect("the worker runs")
    }
}

async fn work(
    client: Client,
    consumer: TransactionalConsumer,
    producer: TransactionProducer,
    mut left: watch::Receiver<bool>,
) -> Worked {
    let mut worked = Worked::default();
    loop {
        let batch = tokio::select! {
            _ = left.wait_for(|left| *left) => break,
            batch = consumer.next_batch() => batch,
        };
        let Ok(batch) = batch else { break };
        // A bill that does not join drops the transaction: the batch comes again.
        let Ok(tx) = bill(&producer, &batch).await else { continue };
        match tx.commit().await {
            TransactionOutcome::Committed(_) => worked.committed += 1,
            outcome if outcome.is_fenced() => worked.fenced += 1,
            _ => worked.other += 1,
        }
    }
    worked.in_order = consumer.shutdown().await;
    producer.shutdown().await;
    client.shutdown().await;
    worked
}

/// All bodies of a topic that are visible now, sorted.
#[must_use]
pub fn visible(broker: &TestBroker, topic: &str) -> Vec<String> {
    let mut consumer = Consumer::connect(broker.address(), "onlookers");
    consumer.join(&[topic]);
    let messages = (0..QUEUES).flat_map(|queue| consumer.drain_if_there(topic, queue, 0));
    let mut bodies: Vec<String> = messages.map(|message| message.text().to_owned()).collect();
    bodies.sort();
    bodies
}

/// The numbers `of` as the bodies of orders, sorted as [`visible`] sorts them.
#[must_use]
pub fn numbered(of: std::ops::Range<usize>) -> Vec<String> {
    of.map(|number| format!("{number:05}")).collect()
}

/// Waits until each of `count` orders has its bill.
///
/// # Panics
/// If one has none in time, or two.
pub fn all_billed(broker: &TestBroker, count: usize) {
    wait::until("every order has its bill", || (visible(broker, BILLS).len() >= count).then_some(()));
    assert_eq!(visible(broker, BILLS), numbered(0..count));
}
