//! A test of a program that sends messages: its broker lives and goes with it.

use std::error::Error;

use mezzo_broker::{Broker, Config};
use mezzo_client::{Client, Message};

/// Stands for your program.
async fn order(client: &Client, what: &'static str) -> Result<String, Box<dyn Error>> {
    let producer = client.producer("waiters").start().await?;
    let receipt = producer.send(Message::new("orders", what)?).await?;
    Ok(receipt.queue.topic.to_string())
}

#[tokio::test]
async fn an_order_is_sent() -> Result<(), Box<dyn Error>> {
    let broker = Broker::start(Config::temporary()).await?; // free ports, and a folder that goes with it
    let client = Client::connect(broker.name_server()).await?;
    assert_eq!(order(&client, "one coffee").await?, "orders");
    client.shutdown().await;
    broker.shutdown().await?;
    Ok(())
}
