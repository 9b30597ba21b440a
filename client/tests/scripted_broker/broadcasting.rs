//! Broadcast consumers: everything for everyone, and offsets in a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mezzo_client::config::ConsumerConfig;
use mezzo_client::{Client, Error, Handler, PushConsumer, ReceivedMessage, Verdict};
use mezzo_protocol::remoting::RequestCode;
use mezzo_protocol::remoting::body::heartbeat::{HeartbeatData, MessageModel};

use crate::consuming::{BACK, COMMIT, bodies, broker, collecting, next, put, quick};

/// A folder of this test's own that vanishes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mezzo-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("made").join("prices.offsets")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn consume(
    client: &Client,
    file: &Path,
    config: ConsumerConfig,
    handler: impl Handler,
) -> PushConsumer {
    let builder = client.push_consumer("readers").subscribe("orders", "*").config(config).broadcast(file);
    builder.handler(handler).start().await.unwrap()
}

#[tokio::test]
async fn each_member_gets_every_queue_and_goes_on_where_its_file_says() {
    let folder = Folder::new("broadcast");
    let broker = broker(2).await;
    // Other members do not matter: nothing is divided.
    broker.shared.lock().queues.others = vec!["zzz-other-client".to_owned()];
    put(&broker, 0, &[("t", "a")]);
    put(&broker, 1, &[("t", "b")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(&client, &folder.file(), quick(), handler).await;
    assert_eq!(bodies(&mut messages, 2).await, ["a", "b"].map(String::from).into());
    assert!(consumer.shutdown().await);
    let text = fs::read_to_string(folder.file()).unwrap();
    assert_eq!(text, "mezzo offsets 1\n1 0 orders fake\n1 1 orders fake\nend 2\n");
    put(&broker, 1, &[("t", "c")]);
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(&client, &folder.file(), quick(), handler).await;
    assert_eq!(next(&mut messages).await.body(), "c");
    assert!(consumer.shutdown().await);
    assert!(messages.try_recv().is_err());
    assert!(broker.all(COMMIT).is_empty() && broker.all(RequestCode::QUERY_CONSUMER_OFFSET).is_empty());
    let heartbeat = broker.wait_nth(RequestCode::HEART_BEAT, 1).await;
    let heartbeat = HeartbeatData::decode(&heartbeat.command.body).unwrap();
    assert_eq!(heartbeat.consumer_data_set[0].message_model, MessageModel::Broadcasting);
    assert_eq!(heartbeat.consumer_data_set[0].subscription_data_set.len(), 1, "no retry topic");
}

#[tokio::test]
async fn what_fails_is_repeated_here_a_few_times_and_then_passed_over() {
    let folder = Folder::new("repeats");
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "never"), ("t", "fine")]);
    let client = broker.client().await;
    let (sender, mut attempts) = tokio::sync::mpsc::unbounded_channel();
    let config = quick().retries_max(2).local_retry_ms(1);
    let handler = move |message: ReceivedMessage| {
        let failed = message.body() == "never";
        if failed {
            sender.send(message.delivery_attempt()).unwrap();
        }
        async move {
            match failed {
                true => Verdict::RetryAfter(Duration::from_millis(1)),
                false => Verdict::Done,
            }
        }
    };
    let consumer = consume(&client, &folder.file(), config, handler).await;
    for attempt in 1..=3 {
        assert_eq!(attempts.recv().await, Some(attempt));
    }
    assert!(consumer.shutdown().await);
    assert!(broker.all(BACK).is_empty());
}

#[tokio::test]
async fn a_file_that_holds_something_else_is_refused_and_left_alone() {
    let folder = Folder::new("foreign");
    fs::create_dir_all(folder.file().parent().unwrap()).unwrap();
    fs::write(folder.file(), "somebody's letters").unwrap();
    let broker = broker(1).await;
    let client = broker.client().await;
    let builder = client.push_consumer("readers").subscribe("orders", "*").broadcast(folder.file());
    let refused = builder.handler(|_: ReceivedMessage| async { Verdict::Done }).start().await;
    assert!(matches!(refused, Err(Error::Config { setting: "broadcast", .. })));
    assert_eq!(fs::read_to_string(folder.file()).unwrap(), "somebody's letters");
}

#[tokio::test]
async fn a_file_has_one_consumer_at_a_time() {
    let folder = Folder::new("shared");
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a")]);
    let (one, two) = (broker.client().await, broker.client().await);
    let (handler, mut messages) = collecting(Verdict::Done);
    let first = consume(&one, &folder.file(), quick(), handler).await;
    next(&mut messages).await;
    let builder = two.push_consumer("readers").subscribe("orders", "*").broadcast(folder.file());
    let second = builder.handler(|_: ReceivedMessage| async { Verdict::Done }).start().await;
    let refused = second.expect_err("two consumers would undo each other's offsets").to_string();
    assert!(refused.contains("another consumer uses it"), "{refused}");
    assert!(first.shutdown().await);
    let (handler, _messages) = collecting(Verdict::Done);
    consume(&two, &folder.file(), quick(), handler).await.shutdown().await;
}
