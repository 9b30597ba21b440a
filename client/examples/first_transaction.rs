//! A transaction with a database that the SDK does not know: the program itself answers when Mezzo asks. (With SQLite,
//! PostgreSQL or MySQL the SDK answers: `order_service.rs`.)
//!
//! The answer about order 2 is left out on purpose, as if this program had died there: Mezzo asks back after
//! `transaction.timeout` (6 s), and the database has the answer.

use std::{collections::HashSet, error::Error, sync::Arc, time::Duration};

use mezzo_client::{Client, LocalError, LocalOutcome, Message, ReceivedMessage, TransactionContext};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name_server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let client = Client::connect(name_server).await?;
    // Stands for your database: the orders that it holds, each under the key of its message.
    let database = &Arc::new(Mutex::new(HashSet::new()));

    let records = Arc::clone(database);
    let check_back = move |half: ReceivedMessage| {
        let records = Arc::clone(&records);
        async move {
            println!("asked about {}", String::from_utf8_lossy(half.body()));
            let placed = records.lock().await.contains(half.unique_key().unwrap_or_default());
            // Not there? It may be under way in another process: when in doubt, let Mezzo ask again.
            Ok::<_, LocalError>(if placed { LocalOutcome::Commit } else { LocalOutcome::Unknown })
        }
    };
    let producer = client.transaction_producer("order-service").check_back(check_back).start().await?;
    for order in ["order 1", "order 2"] {
        // The message is stored, invisible; then the local transaction runs; what it returns decides.
        let local_transaction = async |ids: TransactionContext| {
            database.lock().await.insert(ids.unique_key().to_owned());
            Ok(if order == "order 2" { LocalOutcome::Unknown } else { LocalOutcome::Commit })
        };
        let outcome = producer.send_in_transaction(Message::new("orders", order)?, local_transaction).await?;
        println!("{order}: {outcome}");
    }

    let (deliver, mut delivered) = mpsc::channel(16);
    let handler = move |message: ReceivedMessage| {
        let deliver = deliver.clone();
        async move { deliver.send(message).await }
    };
    let consumer = client.push_consumer("shipping").subscribe("orders", "*").handler(handler).start().await?;
    let mut expected = database.lock().await.clone();
    while !expected.is_empty() {
        let message =
            timeout(Duration::from_secs(60), delivered.recv()).await?.ok_or("the consumer ended")?;
        if expected.remove(message.unique_key().unwrap_or_default()) {
            println!("received {}", String::from_utf8_lossy(message.body()));
        }
    }
    consumer.shutdown().await;
    producer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
