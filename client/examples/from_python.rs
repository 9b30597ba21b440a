//! Sent from Python, received in Rust: `docs/examples/orders_from_python.py` sends three orders with librocketmq, Apache's
//! C++ client; this program receives them, each with its tag, keys and properties.
//!
//! Start a broker (`cargo run --release`), then this: `cargo run -p mezzo-client --example from_python`, and in another
//! terminal the Python program; which of the two starts first does not matter. Another name server than the local one:
//! give its address as the first argument to both.
//!
//! Ends with an error if no three orders come within a minute and a half.

use std::error::Error;
use std::time::Duration;

use mezzo_client::{Client, ReceivedMessage};
use tokio::sync::mpsc;
use tokio::time::timeout;

const ORDERS: usize = 3;

/// What the other side wrote, checked field by field: it is another program, of another language.
fn order(message: &ReceivedMessage) -> Result<String, Box<dyn Error>> {
    let what = std::str::from_utf8(message.body())?;
    let key = message.keys().next().ok_or("an order without a key")?;
    let table: u32 = message.property("table").ok_or("an order without a table")?.parse()?;
    let tag = message.tag().ok_or("an order without a tag")?;
    Ok(format!("{key}: {what} for table {table} ({tag})"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name_server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let client = Client::connect(name_server).await?;
    let (arrived, mut arrivals) = mpsc::channel(ORDERS);
    let consumer = client
        .push_consumer("kitchen")
        // tags as in every RocketMQ client: the broker sends nothing else
        .subscribe("orders-from-python", "food || drink")
        .handler(move |message: ReceivedMessage| {
            let arrived = arrived.clone();
            async move { arrived.send(message).await }
        })
        .start()
        .await?;

    println!("waiting for {ORDERS} orders from docs/examples/orders_from_python.py …");
    for _ in 0..ORDERS {
        let next = timeout(Duration::from_secs(90), arrivals.recv()).await;
        let message = next.map_err(|_| "no order came: was the Python program run?")?.ok_or("ended")?;
        println!("received {}", order(&message)?);
    }

    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
