//! `mezzo tail`: prints the messages of a topic as they come.

use std::time::Duration;

use clap::{Args, ValueEnum};
use mezzo_client::{Client, PullConsumer, ReceivedMessage, admin::Admin, config::StartPosition};
use mezzo_protocol::time::Clock as _;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    cluster::{Cluster, Failure},
    output::{remark, say},
};
use crate::clock::SystemClock;

/// Most messages that are printed before they count as consumed.
const BATCH_MAX: u64 = 64;

/// Longest wait for messages before it is waited again; nobody notices.
const POLL_TIME: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  mezzo tail orders                       what comes from now on, until ctrl-C
  mezzo tail orders --from first --count 10
  mezzo tail orders --json | jq .body     one object per line, see docs/command-line.md
  mezzo tail orders --group audit --from first   remembers how far it came

Without --group it reads with a group of its own, which is deleted at the end.";

/// What to print.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Tail {
    /// The topic; it may still have to be created.
    topic: String,
    /// Tags to print, joined by '||'.
    #[arg(long, default_value = "*")]
    tags: String,
    /// Consumer group; messages count as consumed by it.
    #[arg(long)]
    group: Option<String>,
    /// Where to begin, if the group has not read the topic before.
    #[arg(long, value_enum, default_value_t = From::Last)]
    from: From,
    /// End after this many messages.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// With the oldest message that is kept.
    First,
    /// With what comes from now on, by this machine's clock.
    Last,
}

/// Prints until ctrl-C or SIGTERM, until enough messages came, or until nobody reads any more.
pub(super) async fn run(arguments: Tail) -> Result<(), Failure> {
    let client = arguments.cluster.client().await?;
    let admin = Admin::new(&client);
    // says at once when nobody is there; a consumer would go on trying
    let brokers = admin.brokers().await?;
    let own = format!("mezzo-tail-{}-{}", std::process::id(), SystemClock.now().as_ms());
    let group = arguments.group.as_deref().unwrap_or(&own);
    // before the group exists: a signal that comes early must not leave it behind
    let signals = signal(SignalKind::interrupt())
        .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)))
        .map_err(|error| Failure::new(format!("cannot listen for signals: {error}")));
    let signals = signals?;
    let consumer = start(&client, group, &arguments).await?;
    remark(&format!("waits for messages of {}; ctrl-C ends it", arguments.topic));
    let printed = print_all(&consumer, &arguments, signals).await;
    consumer.shutdown().await;
    if arguments.group.is_none() {
        for broker in brokers {
            // a group that stays behind is untidy, no failure
            let _ = admin.delete_group(&broker, group).await;
        }
    }
    client.shutdown().await;
    printed
}

/// A consumer that is asked: it gives nothing back to the brokers, so they need no retry topic for it.
async fn start(client: &Client, group: &str, arguments: &Tail) -> Result<PullConsumer, Failure> {
    let position = match arguments.from {
        From::First => StartPosition::First,
        // not the end of its queues: those of a topic that is created later are found when it has messages already
        From::Last => StartPosition::At(SystemClock.now()),
    };
    let builder = client.pull_consumer(group).subscribe(&arguments.topic, &arguments.tags);
    Ok(builder.start_at(position).start().await?)
}

async fn print_all(
    consumer: &PullConsumer,
    arguments: &Tail,
    (mut interrupt, mut terminate): (Signal, Signal),
) -> Result<(), Failure> {
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        let max = usize::try_from(left.min(BATCH_MAX)).unwrap_or(1);
        let messages = tokio::select! {
            messages = consumer.poll(POLL_TIME, max) => messages?,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        };
        for message in &messages {
            let line = if arguments.json { as_json(message).to_string() } else { as_text(message) };
            if !say(&line) {
                // nobody reads any more: these messages stay for the group's next reader
                return Ok(());
            }
            left -= 1;
        }
        if arguments.group.is_some() && !messages.is_empty() {
            consumer.commit().await;
        }
    }
    Ok(())
}

fn as_text(message: &ReceivedMessage) -> String {
    let mut line = format!("{}/{}", message.queue_id(), message.queue_offset());
    if let Some(tag) = message.tag() {
        line.push_str(&format!(" [{tag}]"));
    }
    let keys: Vec<&str> = message.keys().collect();
    if !keys.is_empty() {
        line.push_str(&format!(" {}", keys.join(" ")));
    }
    format!("{line}\t{}", String::from_utf8_lossy(message.body()))
}

fn as_json(message: &ReceivedMessage) -> Value {
    let properties: Map<String, Value> =
        message.properties().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let mut object = json!({
        "topic": message.topic().as_str(),
        "queue": message.queue_id().0,
        "queueOffset": message.queue_offset().0,
        "messageId": message.message_id(),
        "tag": message.tag(),
        "keys": message.keys().collect::<Vec<_>>(),
        "properties": properties,
    });
    // a body that is no text is shown as numbers, so that nothing of it is lost
    object["body"] = match std::str::from_utf8(message.body()) {
        Ok(text) => text.into(),
        Err(_) => message.body().to_vec().into(),
    };
    object
}
