//! Ordered processing: the events of one account are handled one at a time and in their order, whatever happens to one
//! of them; accounts are handled side by side.
//!
//! Start a broker (`cargo run --release`), then: `cargo run -p mezzo-client --example ordered`.
//! Another name server than the local one: give its address as the first argument.
//!
//! Three accounts with ten bookings each are sent in turn. The handler fails once in the middle of account 2: the booking
//! comes again before any later one of that account. Ends with an error if any account saw its bookings out of order.

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use mezzo_client::{Client, Message, ReceivedMessage, Verdict};
use tokio::sync::mpsc;
use tokio::time::timeout;

const ACCOUNTS: [&str; 3] = ["account-1", "account-2", "account-3"];
const BOOKINGS: u32 = 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name_server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let client = Client::connect(name_server).await?;
    // A name of its own for each run, so that none sees the bookings of another.
    let topic = format!("bookings-{}", SystemTime::UNIX_EPOCH.elapsed()?.as_millis());

    // One sharding key, one queue: that is where the order is kept. `send` returns when the broker has the message, so
    // the order of the calls is the order in the queue.
    let producer = client.producer("bank-counter").start().await?;
    for number in 1..=BOOKINGS {
        for account in ACCOUNTS {
            let booking = Message::builder(&topic).sharding_key(account).body(number.to_string());
            producer.send(booking.build()?).await?;
        }
    }
    println!("sent {BOOKINGS} bookings for each of {ACCOUNTS:?}");

    let (booked, mut bookings) = mpsc::channel(16);
    let has_failed = AtomicBool::new(false);
    let handler = move |booking: ReceivedMessage| {
        let account = booking.sharding_key().unwrap_or_default().to_owned();
        let number: u32 = String::from_utf8_lossy(booking.body()).parse().unwrap_or_default();
        let fails = account == "account-2" && number == 5 && !has_failed.swap(true, Ordering::Relaxed);
        let booked = booked.clone();
        async move {
            if fails {
                println!("{account}: booking {number} fails; the account waits for it, the others go on");
                return Verdict::Retry;
            }
            println!("{account}: booking {number}");
            booked.send((account, number)).await.into()
        }
    };
    let consumer =
        client.push_consumer(format!("ledger-of-{topic}")).subscribe(&topic, "*").ordered_handler(handler);
    let consumer = consumer.start().await?;

    let mut last: HashMap<String, u32> = HashMap::new();
    for _ in 0..BOOKINGS as usize * ACCOUNTS.len() {
        let next = timeout(Duration::from_secs(60), bookings.recv()).await;
        let (account, number) =
            next.map_err(|_| "no further booking came within a minute")?.ok_or("ended")?;
        let before = last.insert(account.clone(), number).unwrap_or_default();
        if number != before + 1 {
            return Err(format!("{account}: booking {number} came after {before}").into());
        }
    }
    println!("every account saw its bookings in their order");

    consumer.shutdown().await;
    producer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
