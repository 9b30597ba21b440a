//! The first minute: send three messages, receive them, end in order.
//!
//! Start a broker (`cargo run --release`), then: `cargo run -p mezzo-client --example quickstart`.
//! Another name server than the local one: give its address as the first argument.
//! Ends with an error if not all three come back.

use std::collections::HashSet;
use std::time::Duration;

use mezzo_client::{Client, Message, ReceivedMessage};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name_server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let client = Client::connect(name_server).await?;

    let producer = client.producer("quickstart-producers").start().await?;
    let mut on_their_way = HashSet::new();
    for greeting in ["hello", "bonjour", "buongiorno"] {
        let message = Message::builder("quickstart").tag("greeting").key(greeting).body(greeting).build()?;
        let receipt = producer.send(message).await?;
        println!("sent      {greeting:12} to queue {} at {}", receipt.queue.queue_id, receipt.queue_offset);
        on_their_way.insert(receipt.unique_key.to_string());
    }

    let (arrived, mut arrivals) = mpsc::channel(16);
    let consumer = client
        .push_consumer("quickstart-readers")
        .subscribe("quickstart", "greeting")
        .handler(move |message: ReceivedMessage| {
            let arrived = arrived.clone();
            async move {
                let text = String::from_utf8_lossy(message.body());
                println!("received  {text:12} (delivery {})", message.delivery_attempt());
                // `Ok` means done; an error means "not processed": the message comes again later.
                arrived.send(message.message_id()).await
            }
        })
        .start()
        .await?;

    while !on_their_way.is_empty() {
        let next = tokio::time::timeout(Duration::from_secs(60), arrivals.recv()).await;
        let id = next.map_err(|_| "nothing more arrives: does this example run twice?")?.ok_or("ended")?;
        on_their_way.remove(&id);
    }

    arrivals.close();
    consumer.shutdown().await;
    producer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
