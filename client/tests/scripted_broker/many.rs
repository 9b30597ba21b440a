//! Transactions of many messages against two brokers and over connections that are cut: each message joins once, under its
//! number, on one broker; what does not belong there is refused.

use std::collections::BTreeMap;

use mezzo_client::config::{ConsumerConfig, TransactionConfig};
use mezzo_client::{
    AckError, Client, LocalOutcome, ManyError, Message, ReceivedMessage, ResponseCode, RolledBackBecause,
    TransactionOutcome, TransactionProducer,
};
use mezzo_protocol::remoting::RequestCode;

use crate::fake::{Action, FakeBroker, Leases, Seen, says};

const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;
const END: RequestCode = RequestCode::END_TRANSACTION;

async fn mezzo() -> FakeBroker {
    let broker = FakeBroker::start().await;
    let mut memory = broker.shared.lock();
    memory.queues.add_topic("orders", 2);
    memory.queues.leases = Some(Leases::default());
    drop(memory);
    broker
}

/// The one that knows the routes, and another one beside it.
async fn two() -> (FakeBroker, FakeBroker) {
    let (broker, beside) = (mezzo().await, mezzo().await);
    broker.shared.lock().queues.second = Some(beside.shared.address);
    (broker, beside)
}

async fn producer(client: &Client) -> TransactionProducer {
    let handler = |_: ReceivedMessage| async { Ok(LocalOutcome::Unknown) };
    let config = TransactionConfig::default().end_timeout_ms(1_000);
    client.transaction_producer("pay").config(config).check_back(handler).start().await.unwrap()
}

fn message(body: usize) -> Message {
    Message::new("orders", body.to_string()).unwrap()
}

fn property<'a>(seen: &'a Seen, name: &str) -> Option<&'a str> {
    let mut entries = seen.field("i").split('\u{2}').filter_map(|entry| entry.split_once('\u{1}'));
    entries.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[tokio::test]
async fn an_ordered_message_that_belongs_to_another_broker_is_refused_and_does_no_harm() {
    let (broker, beside) = two().await;
    let client = broker.client().await;
    let producer = producer(&client).await;
    let mut tx = producer.begin().await.unwrap();
    tx.send(message(0)).await.unwrap();
    let (mut joined, mut refused) = (1, 0);
    for key in 0..16 {
        let ordered = Message::builder("orders").sharding_key(format!("customer-{key}")).body("x").build();
        match tx.send(ordered.unwrap()).await {
            Ok(receipt) => {
                assert_eq!(Some(&receipt.queue.broker_name), tx.name().broker_name.as_ref());
                joined += 1;
            }
            Err(ManyError::OtherBroker { topic, broker, ordered }) => {
                assert_eq!((topic.as_str(), Some(&broker)), ("orders", tx.name().broker_name.as_ref()));
                assert!(ordered);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(joined > 1 && refused > 0, "{joined} joined, {refused} refused");
    let name = tx.name().clone();
    assert_eq!(name.messages, joined);
    let (mine, other) =
        if name.broker_name.as_deref() == Some("fake") { (&broker, &beside) } else { (&beside, &broker) };
    assert_eq!((mine.all(SEND).len(), other.all(SEND).len()), (usize::from(joined), 0));
    mine.script(END, [Action::Fields(ResponseCode::SUCCESS, says("COMMITTED"))]);
    assert!(tx.commit().await.is_committed(), "what was refused is not in it");
    assert_eq!(mine.wait_nth(END, 1).await.field("mezzoTxCount"), joined.to_string());
}

#[tokio::test]
async fn a_batch_of_another_broker_is_refused_and_rolls_the_transaction_back() {
    let (broker, beside) = two().await;
    for of in [&broker, &beside] {
        of.shared.lock().queues.put("orders", 0, "t", "coffee");
    }
    let client = broker.client().await;
    let config = ConsumerConfig::default().pull_suspend_ms(100);
    let builder = client.transactional_consumer("billing").subscribe("orders", "*").config(config);
    let consumer = builder.start().await.unwrap();
    let producer = producer(&client).await;
    let (one, other) = (consumer.next_batch().await.unwrap(), consumer.next_batch().await.unwrap());
    assert_ne!(one.queue().broker_name, other.queue().broker_name);
    let mut tx = producer.begin().await.unwrap();
    tx.ack(&one).unwrap();
    let refused = tx.ack(&other).unwrap_err();
    assert!(
        matches!(&refused, AckError::OtherBroker { queue, .. } if **queue == *other.queue()),
        "{refused}"
    );
    let outcome = tx.commit().await;
    assert!(matches!(outcome, TransactionOutcome::RolledBack(_, RolledBackBecause::AckFailed)), "{outcome}");
    // Messages go where the batch came from, whatever other broker has room.
    let mut tx = producer.begin().await.unwrap();
    tx.ack(&other).unwrap();
    for number in 0..4 {
        let receipt = tx.send(message(number)).await.unwrap();
        assert_eq!(receipt.queue.broker_name, other.queue().broker_name);
    }
    assert!(tx.commit().await.is_committed());
}

#[tokio::test]
async fn messages_that_were_cut_off_midway_are_sent_again_under_their_numbers() {
    let broker = mezzo().await;
    let client = broker.client().await;
    let producer = producer(&client).await;
    let mut tx = producer.begin().await.unwrap();
    tx.send(message(0)).await.unwrap();
    let expected = |number: u16| {
        let mut fields = says("OUT_OF_SEQUENCE");
        fields.push(("mezzoExpected", number.to_string()));
        Action::Fields(ResponseCode::SYSTEM_BUSY, fields)
    };
    // Nobody hears of the next two, of which the broker has one; it says so of a later one, and then takes the rest.
    broker.script(
        SEND,
        [Action::Silence, Action::HangUp, Action::Code(ResponseCode::SYSTEM_BUSY), expected(2)],
    );
    let receipts = tx.send_all((1..8).map(message)).await.unwrap();
    assert_eq!((receipts.len(), tx.name().messages), (7, 8));
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for seen in broker.all(SEND) {
        assert_eq!(property(&seen, "MEZZO_TX"), Some(tx.id()));
        let number = property(&seen, "MEZZO_TX_SEQ").unwrap().to_owned();
        keys.entry(number).or_default().push(property(&seen, "UNIQ_KEY").unwrap().to_owned());
    }
    let numbers: Vec<&str> = keys.keys().map(String::as_str).collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert!(keys["1"].len() > 1, "it was sent again: {keys:?}");
    for of_one in keys.values() {
        assert!(of_one.windows(2).all(|pair| pair[0] == pair[1]), "one message, one key: {of_one:?}");
    }
    broker.script(END, [Action::Fields(ResponseCode::SUCCESS, says("COMMITTED"))]);
    assert!(tx.commit().await.is_committed());
    assert_eq!(broker.wait_nth(END, 1).await.field("mezzoTxCount"), "8");
}

#[tokio::test]
async fn a_broker_that_has_lost_what_it_confirmed_leaves_nothing_to_commit() {
    let broker = mezzo().await;
    let client = broker.client().await;
    let producer = producer(&client).await;
    let mut tx = producer.begin().await.unwrap();
    tx.send(message(0)).await.unwrap();
    broker.script(SEND, [Action::Fields(ResponseCode::ILLEGAL_OPERATION, says("NOT_OPEN"))]);
    assert!(matches!(tx.send(message(1)).await, Err(ManyError::Lost)));
    assert!(matches!(tx.send(message(2)).await, Err(ManyError::FailedBefore)));
    let outcome = tx.commit().await;
    assert!(matches!(outcome, TransactionOutcome::RolledBack(_, RolledBackBecause::SendFailed)), "{outcome}");
    assert_eq!(broker.wait_nth(END, 1).await.field("commitOrRollback"), "12");
}
