//! `mezzo send`: sends messages from the command line.

use std::{
    io::{IsTerminal as _, Read as _},
    time::{Duration, Instant},
};

use clap::Args;
use mezzo_client::{Message, MessageBuilder, Producer, SendReceipt};
use mezzo_protocol::limits::BODY_BYTES_MAX;
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    cluster::{Cluster, Failure},
    output::{Progress, conclude, remark},
};

/// Sends on their way at a time.
const IN_FLIGHT_MAX: usize = 256;
/// Time between two looks of a person at how many are sent.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

const EXAMPLES: &str = "\
Examples:
  mezzo send orders 'one coffee'
  mezzo send orders 'one coffee' --tag paid --key order-17 --property shop=north
  mezzo send orders - < order.json         the body is what the standard input holds
  mezzo send reminders 'call back' --delay 90s
  mezzo send accounts '+5' --sharding-key account-7    to one queue, in order with its others
  mezzo send load x --count 10000
  mezzo send orders 'one coffee' --json | jq -r .messageId";

/// What to send.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Send {
    /// The topic; the broker creates it if it does not exist.
    topic: String,
    /// The body; '-' or nothing: the standard input, up to its end.
    body: Option<String>,
    /// The tag that subscriptions filter by.
    #[arg(long)]
    tag: Option<String>,
    /// A key to find the message by; may be repeated.
    #[arg(long)]
    key: Vec<String>,
    /// A property of your own; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    property: Vec<String>,
    /// All messages with one sharding key go to one queue.
    #[arg(long, value_name = "KEY")]
    sharding_key: Option<String>,
    /// Deliver so much later, such as 90s or 2h.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "delay_level")]
    delay: Option<Duration>,
    /// Deliver later, by RocketMQ's ladder: 1 (1 s), 2 (5 s), 3 (10 s), 4 (30 s), 5 (1 min) … 18 (2 h).
    #[arg(long, value_name = "1..18")]
    delay_level: Option<u32>,
    /// Send it this many times.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Print a JSON object: topic, sent, and of a single message messageId, offsetMessageId, queue, queueOffset.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

/// Sends, and prints where each message went; of several only how many.
pub(super) async fn run(arguments: Send) -> Result<(), Failure> {
    let message = message(&arguments)?;
    let client = arguments.cluster.client().await?;
    let producer = client.producer("mezzo-send").start().await?;
    let sent = send_all(&producer, &message, arguments.count).await;
    producer.shutdown().await;
    client.shutdown().await;
    let last = sent?;
    let line = match last.filter(|_| arguments.count == 1) {
        Some(receipt) if arguments.json => json!({
            "topic": arguments.topic,
            "sent": 1,
            "messageId": *receipt.unique_key,
            "offsetMessageId": receipt.offset_message_id,
            "queue": receipt.queue.queue_id.0,
            "queueOffset": receipt.queue_offset.0,
        })
        .to_string(),
        Some(receipt) => format!(
            "sent {} to {} queue {} offset {}",
            receipt.unique_key, arguments.topic, receipt.queue.queue_id, receipt.queue_offset
        ),
        None if arguments.json => json!({ "topic": arguments.topic, "sent": arguments.count }).to_string(),
        None => format!("sent {} messages to {}", arguments.count, arguments.topic),
    };
    // a reader that closes early is no failure: the message is sent
    conclude(&line);
    Ok(())
}

async fn send_all(
    producer: &Producer,
    message: &Message,
    count: u64,
) -> Result<Option<SendReceipt>, Failure> {
    let mut flying = JoinSet::new();
    let mut progress = Progress::new();
    let (mut begun, mut sent, mut shown) = (0, 0, Instant::now());
    let mut last = None;
    while sent < count {
        if begun < count && flying.len() < IN_FLIGHT_MAX {
            let (producer, message) = (producer.clone(), message.clone());
            flying.spawn(async move { producer.send(message).await });
            begun += 1;
            continue;
        }
        match landed(&mut flying).await {
            Ok(receipt) => last = receipt,
            Err(failure) if count == 1 => return Err(failure),
            Err(failure) => {
                // those that are on their way may arrive: they are waited for, so that the number is right
                while !flying.is_empty() {
                    sent += u64::from(landed(&mut flying).await.is_ok());
                }
                return Err(failure.after(&format!("{sent} of {count} messages are sent, not all: ")));
            }
        }
        sent += 1;
        if shown.elapsed() >= PROGRESS_EVERY {
            progress.show(&format!("sent {sent} of {count}"));
            shown = Instant::now();
        }
    }
    Ok(last)
}

type Sent = Result<SendReceipt, mezzo_client::SendError>;

async fn landed(flying: &mut JoinSet<Sent>) -> Result<Option<SendReceipt>, Failure> {
    match flying.join_next().await {
        Some(Ok(sent)) => Ok(Some(sent?)),
        Some(Err(error)) => Err(Failure::new(format!("a send failed: {error}"))),
        None => Ok(None),
    }
}

fn message(arguments: &Send) -> Result<Message, Failure> {
    let body = match arguments.body.as_deref() {
        Some("-") | None => from_standard_input(arguments.body.is_none())?,
        Some(text) => text.as_bytes().to_vec(),
    };
    let mut builder: MessageBuilder = Message::builder(&arguments.topic).body(body);
    if let Some(tag) = &arguments.tag {
        builder = builder.tag(tag);
    }
    for key in &arguments.key {
        builder = builder.key(key);
    }
    for property in &arguments.property {
        let (name, value) = property
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--property {property}: write NAME=VALUE")))?;
        builder = builder.property(name, value);
    }
    if let Some(level) = arguments.delay_level {
        builder = builder.delay_level(level);
    }
    if let Some(delay) = arguments.delay {
        builder = builder.delay(delay);
    }
    if let Some(key) = &arguments.sharding_key {
        builder = builder.sharding_key(key);
    }
    builder.build().map_err(|error| Failure::usage(error.to_string()))
}

/// The whole of it; one byte more than a message may have is enough to refuse it.
fn from_standard_input(by_default: bool) -> Result<Vec<u8>, Failure> {
    let input = std::io::stdin();
    if by_default && input.is_terminal() {
        return Err(Failure::usage("no body: write it behind the topic, or pipe it into the standard input"));
    }
    if input.is_terminal() {
        remark("the body is what you type now, up to ctrl-D at the start of a line");
    }
    let mut body = Vec::new();
    input
        .lock()
        .take(BODY_BYTES_MAX as u64 + 1)
        .read_to_end(&mut body)
        .map_err(|error| Failure::new(format!("cannot read the standard input: {error}")))?;
    if by_default && body.is_empty() {
        return Err(Failure::usage("no body: write it behind the topic ('' is an empty one), or pipe it in"));
    }
    Ok(body)
}
