//! An order service: an order and the message about it happen both or not at all.
//!
//! Start a broker (`cargo run --release`), then: `cargo run -p mezzo-client --example transaction`.
//! Another name server than the local one: give its address as the first argument.
//!
//! Three orders: one is taken; one is refused because the stock is empty; and for one the service "crashes" between its
//! database commit and its word to the broker. The broker then asks (after `transaction.timeout`, 6 s by default), and
//! the check-back finds the order in the database. Ends with an error if not both taken orders are shipped.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mezzo_client::{
    CheckBack, Client, LocalError, LocalOutcome, Message, Outcome, ReceivedMessage, TransactionProducer,
    Verdict,
};
use tokio::sync::mpsc;

/// How an order stands in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrderState {
    Taken,
    Refused,
}

#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("the database is away")]
    DatabaseAway,
}

/// What a real service keeps in SQL: stock, and one row per order **under the key of its message**, written in the same
/// database transaction. That row is what makes a check-back answerable.
#[derive(Default)]
struct Database {
    stock: HashMap<String, u32>,
    orders: HashMap<String, OrderState>,
}

#[derive(Clone, Default)]
struct OrderService {
    database: Arc<Mutex<Database>>,
}

impl OrderService {
    /// The local transaction: takes one piece out of the stock and records the order, or records that it was refused.
    async fn take_order(&self, message_key: &str, article: &str) -> Result<OrderState, OrderError> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let state = match database.stock.get_mut(article) {
            None => return Err(OrderError::DatabaseAway),
            Some(0) => OrderState::Refused,
            Some(pieces) => {
                *pieces -= 1;
                OrderState::Taken
            }
        };
        database.orders.insert(message_key.to_owned(), state);
        Ok(state)
    }

    fn order(&self, message_key: &str) -> Option<OrderState> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner).orders.get(message_key).copied()
    }
}

impl CheckBack for OrderService {
    async fn check(&self, half: ReceivedMessage) -> Result<LocalOutcome, LocalError> {
        let key = half.unique_key().unwrap_or_default();
        let state = self.order(key);
        println!(
            "  the broker asks about {}: the database says {state:?}",
            half.property("order").unwrap_or("?")
        );
        Ok(match state {
            Some(OrderState::Taken) => LocalOutcome::Commit,
            Some(OrderState::Refused) => LocalOutcome::Rollback,
            // No row is no proof: the transaction may still be running in another process.
            None => LocalOutcome::Unknown,
        })
    }
}

fn order_message(order: &str, article: &str) -> Result<Message, mezzo_client::MessageError> {
    Message::builder("orders")
        .tag("taken")
        .key(order)
        .property("order", order)
        .body(article.to_owned())
        .build()
}

async fn place(
    service: &OrderService,
    producer: &TransactionProducer,
    order: &str,
    article: &str,
) -> Result<Outcome, Box<dyn std::error::Error>> {
    let outcome = producer
        .send_in_transaction(order_message(order, article)?, |context| async move {
            // Any error here leaves the decision to the check-back.
            Ok(match service.take_order(context.unique_key(), article).await? {
                OrderState::Taken => LocalOutcome::Commit,
                OrderState::Refused => LocalOutcome::Rollback,
            })
        })
        .await?;
    match &outcome {
        Outcome::Committed(_) => println!("{order}: taken, the message is on its way"),
        Outcome::RolledBack(..) => println!("{order}: refused, the message never was"),
        Outcome::Unknown(_, reason) => println!("{order}: open ({reason}); the check-back will settle it"),
    }
    Ok(outcome)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name_server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let client = Client::connect(name_server).await?;

    let service = OrderService::default();
    service
        .database
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .stock
        .extend([("coffee".to_owned(), 2), ("unicorn".to_owned(), 0)]);
    let producer = client.transaction_producer("shop").check_back(service.clone()).start().await?;

    let taken = place(&service, &producer, "order-1", "coffee").await?;
    let refused = place(&service, &producer, "order-2", "unicorn").await?;

    // The explicit style, and a crash at the worst moment: the database has committed, the broker is never told.
    let prepared = producer.prepare(order_message("order-3", "coffee")?).await?;
    service.take_order(prepared.context().unique_key(), "coffee").await?;
    let crashed = prepared.ids().clone();
    drop(prepared);
    println!(
        "order-3: committed in the database, then the service \"crashes\"; waiting for the broker to ask …"
    );

    let (arrived, mut arrivals) = mpsc::channel(16);
    let consumer = client
        .push_consumer("shop-shipping")
        .subscribe("orders", "taken")
        .handler(move |message: ReceivedMessage| {
            let arrived = arrived.clone();
            async move {
                let order = message.property("order").unwrap_or("?").to_owned();
                println!("  shipping {order}: {}", String::from_utf8_lossy(message.body()));
                match arrived.send(message.message_id()).await {
                    Ok(()) => Verdict::Done,
                    Err(_) => Verdict::Retry,
                }
            }
        })
        .start()
        .await?;

    let mut left = BTreeSet::from([&taken.ids().unique_key, &crashed.unique_key].map(|key| key.to_string()));
    while !left.is_empty() {
        let next = tokio::time::timeout(Duration::from_secs(90), arrivals.recv()).await;
        let shipped =
            next.map_err(|_| "not all orders arrived in time: see the broker's log")?.ok_or("ended")?;
        if *shipped == *refused.ids().unique_key {
            return Err("the refused order was shipped".into());
        }
        left.remove(&shipped);
    }
    println!("both taken orders were shipped, the refused one was not");

    consumer.shutdown().await;
    producer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
