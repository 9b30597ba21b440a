//! A first transaction from Rust: an order goes into a database and onto a topic, both or neither, and is packed once.
//!
//! Order 2 is cut off from Mezzo right after its database has committed, as if this process had died there. Mezzo asks
//! back after `transaction.timeout` (6 s), another process of the service is there, and the database has the answer.

use std::{collections::HashSet, error::Error, time::Duration};

use mezzo_client::database::{Database, process_once, sqlx};
use mezzo_client::{Client, Message, ReceivedMessage};
use tokio::{sync::mpsc, time::timeout};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name_server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let db = Database::new(sqlx::SqlitePool::connect("sqlite:shop.db?mode=rwc").await?);
    db.prepare_schema().await?; // a table of the SDK's own; the others are yours
    sqlx::query("CREATE TABLE IF NOT EXISTS orders (name TEXT)").execute(db.pool()).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS parcels (name TEXT)").execute(db.pool()).await?;

    let client = Client::connect(&name_server).await?;
    let producer = client.transaction_producer("order-service").database(&db).start().await?;
    let mut expected = HashSet::new();
    for order in ["order 1", "order 2"] {
        // The message is stored, invisible; then this runs in a local transaction; an error would undo both.
        let outcome = producer
            .transaction(&db, Message::new("orders", order)?, async |tx| {
                sqlx::query("INSERT INTO orders VALUES (?)").bind(order).execute(&mut **tx).await?;
                if order == "order 2" {
                    client.shutdown().await;
                }
                Ok(())
            })
            .await?;
        println!("{order}: {outcome}");
        expected.insert(outcome.ids().unique_key.to_string());
    }

    let another_process = Client::connect(&name_server).await?;
    let producer = another_process.transaction_producer("order-service").database(&db).start().await?;

    let (deliver, mut delivered) = mpsc::channel(16);
    let handler = move |message: ReceivedMessage| {
        let (db, deliver) = (db.clone(), deliver.clone());
        async move {
            let parcel = process_once(&db, "shipping", &message, async |tx| {
                let order = String::from_utf8_lossy(message.body());
                sqlx::query("INSERT INTO parcels VALUES (?)").bind(&*order).execute(&mut **tx).await?;
                Ok(())
            })
            .await;
            if parcel.is_ok() {
                let _ = deliver.send(message).await;
            }
            parcel // done, now or before; an error has it delivered again
        }
    };
    let consumer =
        another_process.push_consumer("shipping").subscribe("orders", "*").handler(handler).start().await?;
    while !expected.is_empty() {
        let message =
            timeout(Duration::from_secs(60), delivered.recv()).await?.ok_or("the consumer ended")?;
        if expected.remove(message.unique_key().unwrap_or_default()) {
            println!("received {}", String::from_utf8_lossy(message.body()));
        }
    }
    consumer.shutdown().await;
    producer.shutdown().await;
    another_process.shutdown().await;
    Ok(())
}
