//! Automatic batches: when one is complete, and what each of its messages hears.

use std::collections::BTreeMap;
use std::time::Duration;

use mezzo_client::config::{BatchingPolicy, ProducerConfig};
use mezzo_client::{Message, Producer, ResponseCode, SendError, SendReceipt};
use mezzo_protocol::message::{batch, properties};
use mezzo_protocol::remoting::RequestCode;
use tokio::task::JoinHandle;

use crate::fake::{Action, FakeBroker, Seen};

const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;
const BATCH: RequestCode = RequestCode::SEND_BATCH_MESSAGE;
/// Longer than any test waits.
const LONG_MS: u64 = 60_000;

type Sent = Result<SendReceipt, SendError>;

async fn broker() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 4);
    broker
}

/// Waits for others as long as it may; the send timeout leaves room for that.
fn patient() -> (ProducerConfig, BatchingPolicy) {
    (ProducerConfig::default().send_timeout_ms(10 * LONG_MS), BatchingPolicy::default().linger_ms(LONG_MS))
}

async fn producer(broker: &FakeBroker, config: ProducerConfig, policy: BatchingPolicy) -> Producer {
    let config = config.batching(Some(policy));
    broker.client().await.producer("sellers").config(config).start().await.unwrap()
}

/// Sends in a task of its own. Returns when the message waits for others, or is on its way.
async fn begin(producer: &Producer, body: impl Into<bytes::Bytes>) -> JoinHandle<Sent> {
    let (producer, message) = (producer.clone(), Message::new("orders", body.into()).unwrap());
    let sending = tokio::spawn(async move { producer.send(message).await });
    // There is one thread: the task runs until it waits.
    tokio::task::yield_now().await;
    sending
}

/// What the broker says about `count` messages stored from position 7 on.
fn stored(count: usize) -> Action {
    let ids: Vec<_> = (0..count).map(|id| id.to_string()).collect();
    let fields = [("msgId", ids.join(",")), ("queueId", "2".to_owned()), ("queueOffset", "7".to_owned())];
    Action::Fields(ResponseCode::SUCCESS, fields.to_vec())
}

/// Body and unique key of each message of a batch.
fn members(seen: &Seen) -> BTreeMap<String, String> {
    let member = |message: batch::BatchMessage<'_>| {
        let key = properties::find(message.properties, properties::UNIQUE_KEY).unwrap().to_owned();
        (String::from_utf8_lossy(message.body).into_owned(), key)
    };
    batch::decode(&seen.command.body).map(|message| member(message.unwrap())).collect()
}

#[tokio::test]
async fn a_batch_is_complete_by_count() {
    let broker = broker().await;
    broker.script(BATCH, [stored(3)]);
    let (config, policy) = patient();
    let producer = producer(&broker, config, policy.messages_max(3)).await;
    let mut sends = Vec::new();
    for number in 0..3 {
        sends.push(begin(&producer, number.to_string()).await);
    }
    // Complete, so nobody waits for the linger time.
    for (number, sending) in sends.into_iter().enumerate() {
        assert_eq!(sending.await.unwrap().unwrap().queue_offset.0, 7 + number as u64);
    }
    // What has an order of its own goes alone.
    producer.send(Message::builder("orders").sharding_key("k").build().unwrap()).await.unwrap();
    assert_eq!((broker.all(BATCH).len(), broker.all(SEND).len()), (1, 1));
}

#[tokio::test]
async fn a_batch_is_complete_by_size() {
    let broker = broker().await;
    broker.script(BATCH, [stored(2), stored(2)]);
    let (config, policy) = patient();
    let producer = producer(&broker, config, policy.bytes_max(2_500)).await;
    let mut sends = Vec::new();
    for _ in 0..5 {
        // Two of them fit.
        sends.push(begin(&producer, vec![b'x'; 1_000]).await);
    }
    broker.wait_nth(BATCH, 2).await;
    for sending in sends.drain(..4) {
        assert!(sending.await.unwrap().is_ok());
    }
    assert!(!sends[0].is_finished(), "the fifth waits for others");
}

#[tokio::test]
async fn no_batch_waits_for_messages_that_there_is_no_room_for() {
    let broker = broker().await;
    broker.script(BATCH, [stored(2)]);
    let (config, policy) = patient();
    let producer = producer(&broker, config.in_flight_max(2), policy).await;
    let (one, two) = (begin(&producer, "1").await, begin(&producer, "2").await);
    assert!(one.await.unwrap().is_ok() && two.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_batch_that_does_not_fill_goes_after_its_linger_time_and_one_message_needs_no_batch() {
    let broker = broker().await;
    let policy = BatchingPolicy::default().linger_ms(5);
    let producer = producer(&broker, ProducerConfig::default(), policy).await;
    assert!(producer.send(Message::new("orders", "x").unwrap()).await.is_ok());
    assert_eq!((broker.all(SEND).len(), broker.all(BATCH).len()), (1, 0));
}

#[tokio::test]
async fn shutdown_sends_at_once_what_waits_for_others() {
    let broker = broker().await;
    broker.script(BATCH, [stored(2)]);
    let (config, policy) = patient();
    let producer = producer(&broker, config, policy).await;
    let (one, two) = (begin(&producer, "1").await, begin(&producer, "2").await);
    let drained = tokio::time::timeout(Duration::from_millis(LONG_MS / 4), producer.shutdown()).await;
    assert!(drained.unwrap());
    assert!(one.await.unwrap().is_ok() && two.await.unwrap().is_ok());
}

#[tokio::test]
async fn who_gives_up_while_its_message_waits_has_sent_nothing() {
    let broker = broker().await;
    let (config, policy) = patient();
    let producer = producer(&broker, config, policy).await;
    let (given_up, other) = (begin(&producer, "given up").await, begin(&producer, "other").await);
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    assert!(producer.shutdown().await, "the room of what was given up is free again");
    assert!(other.await.unwrap().is_ok());
    let bodies: Vec<_> = broker.all(SEND).iter().map(|seen| seen.command.body.clone()).collect();
    assert_eq!((bodies, broker.all(BATCH).len()), (vec![bytes::Bytes::from("other")], 0));
}

#[tokio::test]
async fn an_unknown_outcome_names_the_key_of_the_message_that_it_is_about() {
    let broker = broker().await;
    broker.always(BATCH, Some(Action::Silence));
    let (config, policy) = patient();
    let config = config.attempt_timeout_ms(50).retries(0);
    let producer = producer(&broker, config, policy.messages_max(2)).await;
    let (one, two) = (begin(&producer, "1").await, begin(&producer, "2").await);
    let keys = members(&broker.wait_nth(BATCH, 1).await);
    for (body, sending) in [("1", one), ("2", two)] {
        let error = sending.await.unwrap().unwrap_err();
        assert!(
            matches!(&error, SendError::Unknown { unique_key, .. } if **unique_key == keys[body]),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_batch_that_is_not_taken_is_halved_until_its_culprit_stands_alone() {
    let broker = broker().await;
    broker.always(BATCH, Some(Action::Code(ResponseCode::MESSAGE_ILLEGAL)));
    broker.script(SEND, [Action::Code(ResponseCode::MESSAGE_ILLEGAL)]);
    let (config, policy) = patient();
    let producer = producer(&broker, config, policy.messages_max(4)).await;
    let mut sends = Vec::new();
    for number in 0..4 {
        sends.push(begin(&producer, number.to_string()).await);
    }
    for (number, sending) in sends.into_iter().enumerate() {
        let sent = sending.await.unwrap();
        assert_eq!(matches!(sent, Err(SendError::NotSent { .. })), number == 0, "{sent:?}");
        assert_eq!(sent.is_ok(), number != 0);
    }
    let sizes: Vec<_> = broker.all(BATCH).iter().map(|seen| members(seen).len()).collect();
    assert_eq!((sizes, broker.all(SEND).len()), (vec![4, 2, 2], 4));
}

#[tokio::test]
async fn a_message_to_be_compressed_travels_alone_and_at_once() {
    let broker = broker().await;
    let (config, policy) = patient();
    let producer = producer(&broker, config, policy).await;
    assert!(begin(&producer, "a".repeat(10_000)).await.await.unwrap().is_ok());
    let seen = broker.wait_nth(SEND, 1).await;
    assert_eq!((seen.field("f"), seen.command.body.len() < 1_000), ("769", true), "compressed, with zlib");
}
