//! Consume, transform, produce exactly once: each order becomes one bill, although the program that writes the bills dies
//! in the middle of its work.
//!
//! Start a broker (`cargo run --release`), then: `cargo run -p mezzo-client --example consume_transform_produce`.
//! Another name server than the local one: give its address as the first argument.
//!
//! Twenty orders are sent. The first process bills one batch, and dies when it has sent the bills of the next one and not
//! yet committed: nobody sees those, and the offset of the queue has not moved. The second process waits until the leases
//! of the first have ended (two seconds here) and bills the rest, that batch among it. Ends with an error if an order has
//! no bill or two.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, SystemTime};

use mezzo_client::config::ConsumerConfig;
use mezzo_client::{
    Client, LeasedBatch, LocalOutcome, Message, ReceivedMessage, Transaction, TransactionProducer,
    TransactionalConsumer,
};
use tokio::time::timeout;

const ORDERS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// What one process of the billing service has.
struct Billing {
    client: Client,
    consumer: TransactionalConsumer,
    producer: TransactionProducer,
}

impl Billing {
    async fn start(name_server: &str, run: &str) -> Result<Self, Box<dyn Error>> {
        let client = Client::connect(name_server).await?;
        // Short leases: after a crash others wait as long. The default is 30 s.
        let config =
            ConsumerConfig::default().lease_ttl_ms(2_000).lease_interval_ms(500).batch_messages_max(3);
        let consumer = client
            .transactional_consumer(format!("billing-{run}"))
            .subscribe(format!("orders-{run}"), "*")
            .config(config)
            .start()
            .await?;
        // Not asked about transactions with acknowledged batches: what their process left behind is rolled back.
        let producer = client
            .transaction_producer(format!("billing-{run}"))
            .check_back(|_: ReceivedMessage| async { Ok(LocalOutcome::Unknown) })
            .start()
            .await?;
        Ok(Self { client, consumer, producer })
    }

    /// A transaction that has consumed the batch and produced its bills. Nobody sees them yet.
    async fn bill(&self, batch: &LeasedBatch, run: &str) -> Result<Transaction, Box<dyn Error>> {
        let mut tx = self.producer.begin().await?;
        tx.ack(batch)?;
        for order in batch {
            let bill = format!("bill for {}", String::from_utf8_lossy(order.body()));
            tx.send(Message::new(format!("bills-{run}"), bill)?).await?;
        }
        Ok(tx)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name_server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    // Names of its own for each run, so that none sees the orders of another.
    let run = SystemTime::UNIX_EPOCH.elapsed()?.as_millis().to_string();

    let shop = Client::connect(&*name_server).await?;
    let orders = shop.producer("shop").start().await?;
    for number in 1..=ORDERS {
        orders.send(Message::new(format!("orders-{run}"), format!("order {number:02}"))?).await?;
    }
    println!("{ORDERS} orders are sent");

    let first = Billing::start(&name_server, &run).await?;
    let batch = timeout(PATIENCE, first.consumer.next_batch()).await??;
    let outcome = first.bill(&batch, &run).await?.commit().await;
    println!("first process: {} orders, {outcome}", batch.messages().len());
    let batch = timeout(PATIENCE, first.consumer.next_batch()).await??;
    let tx = first.bill(&batch, &run).await?;
    println!("first process: {} orders more, and it dies: {} is open", batch.messages().len(), tx.name());
    // A process that dies says nothing to anybody.
    first.client.shutdown().await;
    std::mem::forget((tx, batch));
    drop(first);

    let mut bills: BTreeMap<String, usize> = BTreeMap::new();
    let accountant = shop
        .pull_consumer(format!("accounting-{run}"))
        .subscribe(format!("bills-{run}"), "*")
        .start()
        .await?;
    let second = Billing::start(&name_server, &run).await?;
    while bills.len() < ORDERS {
        // There may be nothing left for this one: then it only waits for the last bills to arrive.
        if let Ok(batch) = timeout(Duration::from_millis(200), second.consumer.next_batch()).await {
            let batch = batch?;
            // If it does not commit, whatever the reason, the batch comes again.
            let outcome = second.bill(&batch, &run).await?.commit().await;
            println!("second process: {} orders, {outcome}", batch.messages().len());
        }
        for bill in accountant.poll(Duration::from_millis(50), 100).await? {
            *bills.entry(String::from_utf8_lossy(bill.body()).into_owned()).or_default() += 1;
        }
        if SystemTime::UNIX_EPOCH.elapsed()?.as_millis() > run.parse::<u128>()? + PATIENCE.as_millis() {
            return Err(format!("only {} of {ORDERS} orders have a bill", bills.len()).into());
        }
    }
    // One more look for a second bill of anything.
    for bill in accountant.poll(Duration::from_millis(500), 100).await? {
        *bills.entry(String::from_utf8_lossy(bill.body()).into_owned()).or_default() += 1;
    }
    if let Some((bill, times)) = bills.iter().find(|(_, times)| **times != 1) {
        return Err(format!("{times} times: {bill}").into());
    }
    println!("every order has its one bill");

    second.consumer.shutdown().await;
    second.producer.shutdown().await;
    accountant.shutdown().await;
    orders.shutdown().await;
    Ok(())
}
