//! `mezzo tail`: prints the messages of a topic as they come.

use clap::{Args, ValueEnum};
use mezzo_client::{
    Client, PushConsumer, ReceivedMessage, Verdict,
    admin::Admin,
    config::{ConsumerConfig, StartPosition},
};
use mezzo_protocol::time::Clock as _;
use serde_json::{Map, Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    cluster::{Cluster, Failure},
    output::{remark, say},
};
use crate::clock::SystemClock;

/// Longest wait at the end for messages that are on their way to be printed, in milliseconds: they were not printed, so
/// they do not count as consumed.
const DRAIN_TIMEOUT_MS: u64 = 200;

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
    /// With what comes from now on.
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
    let (mut interrupt, mut terminate) = signals?;
    let (sender, mut received) = mpsc::channel(1);
    let consumer = start(&client, group, &arguments, sender).await?;
    remark(&format!("waits for messages of {}; ctrl-C ends it", arguments.topic));
    let mut printed = 0;
    while arguments.count.is_none_or(|count| printed < count) {
        let message: ReceivedMessage = tokio::select! {
            message = received.recv() => match message {
                Some(message) => message,
                None => break,
            },
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        };
        let line = if arguments.json { as_json(&message).to_string() } else { as_text(&message) };
        if !say(&line) {
            break;
        }
        printed += 1;
    }
    drop(received);
    consumer.shutdown().await;
    if arguments.group.is_none() {
        for broker in brokers {
            // a group that stays behind is untidy, no failure
            let _ = admin.delete_group(&broker, group).await;
        }
    }
    client.shutdown().await;
    Ok(())
}

async fn start(
    client: &Client,
    group: &str,
    arguments: &Tail,
    sender: mpsc::Sender<ReceivedMessage>,
) -> Result<PushConsumer, Failure> {
    let config = ConsumerConfig {
        concurrency: 1,
        drain_timeout_ms: DRAIN_TIMEOUT_MS,
        start: match arguments.from {
            From::First => StartPosition::First,
            From::Last => StartPosition::Last,
        },
        ..ConsumerConfig::default()
    };
    let handler = move |message: ReceivedMessage| {
        let sender = sender.clone();
        async move {
            if sender.send(message).await.is_err() {
                // nobody prints any more: this message stays for the group's next reader
                std::future::pending::<()>().await;
            }
            Verdict::Done
        }
    };
    let builder = client.push_consumer(group).subscribe(&arguments.topic, &arguments.tags).config(config);
    Ok(builder.handler(handler).start().await?)
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
