//! How fast applications are that use the SDK: single sends side by side, pipelined sends, and then a push consumer that
//! reads the pipelined ones back. One JSON line each, so that runs can be compared.

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use mezzo_client::config::{ClientConfig, ConsumerConfig, HeaderEncoding};
use mezzo_client::{Client, Message, ReceivedMessage, Verdict};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Longest wait for the consumer to have read everything.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends messages through the SDK in calls of `send_all`, then reads them with a push consumer.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The name server
    #[arg(long, default_value = "127.0.0.1:9876")]
    name_server: String,
    /// The topic; it should not hold other messages
    #[arg(long, default_value = "sdk_bench")]
    topic: String,
    /// Messages altogether
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Single sends before that, to a topic of their own
    #[arg(long, default_value_t = 200_000)]
    singles: u64,
    /// Single sends at one time
    #[arg(long, default_value_t = 256)]
    side_by_side: u64,
    /// Messages of one call
    #[arg(long, default_value_t = 10_000)]
    call: u64,
    /// Body size in bytes
    #[arg(long, default_value_t = 128)]
    body_bytes: usize,
    /// Write headers in binary instead of JSON
    #[arg(long)]
    binary: bool,
}

/// One line of output.
#[derive(Debug, Serialize)]
struct Line<'a> {
    what: &'a str,
    messages: u64,
    errors: u64,
    body_bytes: usize,
    seconds: f64,
    per_second: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let header_encoding = if arguments.binary { HeaderEncoding::Binary } else { HeaderEncoding::Json };
    let config = ClientConfig::default().header_encoding(header_encoding);
    let client = Client::builder(&arguments.name_server).config(config).build().await?;
    send_singly(&client, &arguments).await?;
    send(&client, &arguments).await?;
    receive(&client, &arguments).await?;
    client.shutdown().await;
    Ok(())
}

async fn send_singly(client: &Client, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let producer = client.producer("PG_sdk_bench").start().await?;
    let message = Message::new(format!("{}_singly", arguments.topic), vec![b'x'; arguments.body_bytes])?;
    producer.send(message.clone()).await?;
    let (begun, errors, begin) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Instant::now());
    let mut senders = JoinSet::new();
    for _ in 0..arguments.side_by_side {
        let (producer, message) = (producer.clone(), message.clone());
        let (begun, errors, wanted) = (Arc::clone(&begun), Arc::clone(&errors), arguments.singles);
        senders.spawn(async move {
            while begun.fetch_add(1, Ordering::Relaxed) < wanted {
                if producer.send(message.clone()).await.is_err() {
                    errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    senders.join_all().await;
    report("send", arguments, arguments.singles, errors.load(Ordering::Relaxed), begin.elapsed())?;
    producer.shutdown().await;
    Ok(())
}

async fn send(client: &Client, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let producer = client.producer("PG_sdk_bench").start().await?;
    let message = Message::new(&arguments.topic, vec![b'x'; arguments.body_bytes])?;
    // The first send makes topic and connection.
    producer.send(message.clone()).await?;
    let (mut left, mut errors, begin) = (arguments.messages, 0, Instant::now());
    while left > 0 {
        let count = left.min(arguments.call.max(1));
        left -= count;
        let messages = (0..count).map(|_| message.clone());
        let sent = producer.send_all(messages).await;
        errors += sent.iter().map(|sent| u64::from(sent.is_err())).sum::<u64>();
    }
    report("send_all", arguments, arguments.messages, errors, begin.elapsed())?;
    producer.shutdown().await;
    Ok(())
}

async fn receive(client: &Client, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let (seen, all) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let (counter, done, wanted) = (Arc::clone(&seen), Arc::clone(&all), arguments.messages);
    let handler = move |_: ReceivedMessage| {
        if counter.fetch_add(1, Ordering::Relaxed) + 1 == wanted {
            done.notify_one();
        }
        async { Verdict::Done }
    };
    let begin = Instant::now();
    let consumer = client
        .push_consumer("CG_sdk_bench")
        .config(ConsumerConfig::default())
        .subscribe(&arguments.topic, "*")
        .handler(handler)
        .start()
        .await?;
    let complete = tokio::time::timeout(READ_TIMEOUT, all.notified()).await.is_ok();
    let missing = wanted.saturating_sub(seen.load(Ordering::Relaxed));
    let errors = if complete { 0 } else { missing };
    report("push_consumer", arguments, arguments.messages, errors, begin.elapsed())?;
    consumer.shutdown().await;
    Ok(())
}

fn report(what: &str, arguments: &Arguments, wanted: u64, errors: u64, took: Duration) -> io::Result<()> {
    let messages = wanted - errors;
    let seconds = took.as_secs_f64();
    let per_second = f64::from(u32::try_from(messages).unwrap_or(u32::MAX)) / seconds;
    let line = Line { what, messages, errors, body_bytes: arguments.body_bytes, seconds, per_second };
    writeln!(io::stdout(), "{}", serde_json::to_string(&line)?)
}
