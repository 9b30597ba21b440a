//! Many sends in one call: each message keeps its own outcome, whatever happens to its neighbours.

use std::collections::BTreeSet;

use mezzo_client::config::ProducerConfig;
use mezzo_client::{Error, Message, Producer, RequestError, ResponseCode, SendError};
use mezzo_protocol::remoting::RequestCode;

use crate::fake::{Action, FakeBroker};

const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;

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
    let config = ProducerConfig { retries: 0, attempt_timeout_ms: 200, ..ProducerConfig::default() };
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
    let config = ProducerConfig { retry_unknown: false, ..ProducerConfig::default() };
    let sent = producer(&broker, config).await.send_all(numbered(10)).await;
    assert!(sent.iter().all(|sent| sent.as_ref().unwrap_err().is_outcome_unknown()));
}

#[tokio::test]
async fn narrow_bounds_slow_a_call_down_and_do_not_stop_it() {
    let broker = broker().await;
    let narrow = ProducerConfig { in_flight_max: 3, in_flight_bytes_max: 8, ..ProducerConfig::default() };
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
