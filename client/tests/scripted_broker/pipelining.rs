//! Many sends in one call: each message keeps its own outcome, whatever happens to its neighbours.

use std::collections::BTreeSet;

use mezzo_client::config::ProducerConfig;
use mezzo_client::{
    BatchFault, Error, Message, MessageError, Producer, RequestError, ResponseCode, SendError,
};
use mezzo_protocol::remoting::RequestCode;

use crate::fake::{Action, FakeBroker};

const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;
const BATCH: RequestCode = RequestCode::SEND_BATCH_MESSAGE;

async fn broker() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 4);
    broker
}

async fn producer(broker: &FakeBroker, config: ProducerConfig) -> Producer {
    broker.client().await.producer("sellers").config(config).start().await.unwrap()
}

fn numbered(count: usize) -> Vec<Message> {
    (0..count).map(|number| Message::new("orders", number.to_string()).unwrap()).collect()
}

/// What the broker says about three messages stored from position 7 on.
fn three_stored() -> Action {
    let ids = ["A", "B", "C"].join(",");
    let fields = [("msgId", ids), ("queueId", "2".to_owned()), ("queueOffset", "7".to_owned())];
    Action::Fields(ResponseCode::SUCCESS, fields.to_vec())
}

/// The bodies that the broker saw, with how often it saw each.
fn seen(broker: &FakeBroker, body: &str) -> usize {
    broker.all(SEND).iter().filter(|seen| seen.command.body == body.as_bytes()).count()
}

#[tokio::test]
async fn each_message_gets_its_own_receipt_in_the_order_of_the_messages() {
    let broker = broker().await;
    let producer = producer(&broker, ProducerConfig::default()).await;
    let receipts: Vec<_> = producer.send_all(numbered(1_000)).await.into_iter().map(Result::unwrap).collect();
    let all = broker.all(SEND);
    assert_eq!((receipts.len(), all.len()), (1_000, 1_000));
    for (number, (receipt, seen)) in receipts.iter().zip(&all).enumerate() {
        assert_eq!(seen.command.body, number.to_string().as_bytes(), "written in order");
        assert!(seen.field("i").contains(&*receipt.unique_key));
        assert_eq!(seen.field("e"), receipt.queue.queue_id.to_string());
        assert_eq!((receipt.attempts, receipt.may_be_duplicated), (1, false));
    }
    let queues: BTreeSet<_> = receipts.iter().map(|receipt| receipt.queue.queue_id).collect();
    assert_eq!(queues.len(), 4, "runs take the queues in turn");
}

#[tokio::test]
async fn only_what_was_refused_is_sent_again() {
    let broker = broker().await;
    broker
        .script(SEND, [Action::Code(ResponseCode::SYSTEM_BUSY), Action::Code(ResponseCode::MESSAGE_ILLEGAL)]);
    let producer = producer(&broker, ProducerConfig::default()).await;
    let sent = producer.send_all(numbered(10)).await;
    assert_eq!(sent[0].as_ref().unwrap().attempts, 2);
    assert!(!sent[0].as_ref().unwrap().may_be_duplicated);
    assert!(matches!(&sent[1], Err(SendError::NotSent { attempts: 1, .. })), "{:?}", sent[1]);
    assert!(sent[2..].iter().all(|sent| sent.as_ref().unwrap().attempts == 1));
    assert_eq!((seen(&broker, "0"), seen(&broker, "1"), seen(&broker, "2")), (2, 1, 1));
}

#[tokio::test]
async fn a_message_without_an_answer_is_unknown_and_its_neighbours_are_not() {
    let broker = broker().await;
    broker.script(SEND, [Action::Silence]);
    let config = ProducerConfig::default().retries(0).attempt_timeout_ms(200);
    let sent = producer(&broker, config).await.send_all(numbered(10)).await;
    assert!(matches!(&sent[0], Err(SendError::Unknown { last: RequestError::TimedOut { .. }, .. })));
    assert!(sent[1..].iter().all(Result::is_ok));
}

#[tokio::test]
async fn after_a_lost_connection_the_rest_is_sent_again_and_receipts_admit_it() {
    let broker = broker().await;
    broker.script(SEND, [Action::HangUp]);
    let sent = producer(&broker, ProducerConfig::default()).await.send_all(numbered(10)).await;
    assert!(sent.iter().all(|sent| sent.as_ref().unwrap().may_be_duplicated));
    broker.script(SEND, [Action::HangUp]);
    let config = ProducerConfig::default().retry_unknown(false);
    let sent = producer(&broker, config).await.send_all(numbered(10)).await;
    assert!(sent.iter().all(|sent| sent.as_ref().unwrap_err().is_outcome_unknown()));
}

#[tokio::test]
async fn narrow_bounds_slow_a_call_down_and_do_not_stop_it() {
    let broker = broker().await;
    let narrow = ProducerConfig::default().in_flight_max(3).in_flight_bytes_max(8);
    let producer = producer(&broker, narrow).await;
    assert!(producer.send_all(numbered(100)).await.iter().all(Result::is_ok));
    let large = vec![Message::new("orders", vec![7_u8; 1_000]).unwrap(); 5];
    assert!(producer.send_all(large).await.iter().all(Result::is_ok), "larger than the bound on their own");
    assert!(producer.send_all([]).await.is_empty());
}

#[tokio::test]
async fn keyed_messages_go_to_the_queues_of_their_keys() {
    let broker = broker().await;
    let producer = producer(&broker, ProducerConfig::default()).await;
    let keyed = |number: u32| {
        let key = format!("customer-{}", number % 5);
        Message::builder("orders").sharding_key(key).body("x").build().unwrap()
    };
    let sent = producer.send_all((0..50).map(keyed)).await;
    let queues: Vec<_> = sent.into_iter().map(|sent| sent.unwrap().queue.queue_id).collect();
    assert!(queues.iter().enumerate().all(|(index, queue)| *queue == queues[index % 5]));
    let alone = producer.send(keyed(3)).await.unwrap();
    assert_eq!(alone.queue.queue_id, queues[3]);
}

#[tokio::test]
async fn topics_without_a_route_do_not_hold_up_the_others() {
    let broker = broker().await;
    let producer = producer(&broker, ProducerConfig::default()).await;
    let mut messages = numbered(3);
    messages.insert(1, Message::new("nowhere", "x").unwrap());
    let sent = producer.send_all(messages).await;
    assert!(matches!(&sent[1], Err(SendError::Route(Error::NoRoute { .. }))), "{:?}", sent[1]);
    assert_eq!(sent.iter().filter(|sent| sent.is_ok()).count(), 3);
    producer.shutdown().await;
    let late = producer.send_all(numbered(2)).await;
    assert!(
        late.iter().all(|sent| matches!(sent, Err(SendError::Route(Error::Request(RequestError::ShutDown)))))
    );
}

#[tokio::test]
async fn a_batch_is_one_request_with_a_receipt_for_each_message() {
    let broker = broker().await;
    broker.script(BATCH, [three_stored()]);
    let producer = producer(&broker, ProducerConfig::default()).await;
    let receipts = producer.send_batch(numbered(3)).await.unwrap();
    let seen = broker.wait_nth(BATCH, 1).await;
    assert_eq!((seen.field("b"), seen.field("m")), ("orders", "true"));
    // Apache's brokers append what stands here to each message, and its last unique key is the one that counts.
    assert_eq!(seen.field("i"), "WAIT\u{1}true\u{2}");
    let inner: Vec<_> =
        mezzo_protocol::message::batch::decode(&seen.command.body).map(Result::unwrap).collect();
    for ((receipt, inner), (number, id)) in
        receipts.iter().zip(&inner).zip(["A", "B", "C"].iter().enumerate())
    {
        assert_eq!((receipt.queue.queue_id.0, receipt.queue_offset.0), (2, 7 + number as u64));
        assert_eq!(receipt.offset_message_id, *id);
        assert_eq!(inner.body, number.to_string().as_bytes());
        let key = mezzo_protocol::message::properties::find(inner.properties, "UNIQ_KEY");
        assert_eq!(key, Some(&*receipt.unique_key));
    }
    assert_eq!((receipts.len(), inner.len()), (3, 3));
}

#[tokio::test]
async fn what_cannot_be_one_batch_is_not_sent() {
    let broker = broker().await;
    let producer = producer(&broker, ProducerConfig::default()).await;
    let delayed = Message::builder("orders").delay_level(1).build().unwrap();
    let other = Message::new("payments", "x").unwrap();
    let keyed = Message::builder("orders").sharding_key("k").build().unwrap();
    let first = || Message::new("orders", "x").unwrap();
    for (messages, fault) in [
        (vec![], BatchFault::Empty),
        (vec![first(), delayed], BatchFault::Delayed),
        (vec![first(), other], BatchFault::SeveralTopics),
        (vec![first(), keyed], BatchFault::SeveralShardingKeys),
        (vec![first(); 4_097], BatchFault::TooMany { got: 4_097, max: 4_096 }),
    ] {
        let error = producer.send_batch(messages).await.unwrap_err();
        assert_eq!(error, SendError::Message(MessageError::Batch(fault)));
    }
    // Messages that share a body share its memory: a batch of them would be sixteen gigabytes.
    let large = Message::new("orders", vec![0_u8; 4 << 20]).unwrap();
    let error = producer.send_batch(vec![large; 4_096]).await.unwrap_err();
    assert!(matches!(error, SendError::Message(MessageError::BodyTooLarge { .. })), "{error}");
    assert!(broker.all(BATCH).is_empty());
}
