//! Consume, transform, produce: leases that others hold, take or do not renew, answers that get lost, and what is said to
//! the broker's questions meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use mezzo_client::config::{BackoffPolicy, ConsumerConfig, TransactionConfig};
use mezzo_client::{
    AckError, Client, Error, LeasedBatch, LocalOutcome, Message, ReceivedMessage, ResponseCode, Transaction,
    TransactionOutcome, TransactionProducer, TransactionalConsumer, UnknownReason,
};
use mezzo_protocol::remoting::RequestCode;
use mezzo_protocol::remoting::body::transaction_offsets::TransactionOffsetsBody;

use crate::fake::{Action, FakeBroker, Leases, Memory, Seen, check_back, check_back_with, says};

const END: RequestCode = RequestCode::END_TRANSACTION;
const LEASE: RequestCode = RequestCode::MEZZO_LEASE_QUEUE;
const PULL: RequestCode = RequestCode::PULL_MESSAGE;
const REFUSED: ResponseCode = ResponseCode::ILLEGAL_OPERATION;
const PATIENCE: Duration = Duration::from_secs(10);

/// A Mezzo broker with one order in one queue.
async fn broker() -> FakeBroker {
    let broker = FakeBroker::start().await;
    let mut memory = broker.shared.lock();
    memory.queues.add_topic("orders", 1);
    memory.queues.add_topic("bills", 1);
    memory.queues.put("orders", 0, "t", "coffee");
    memory.queues.leases = Some(Leases::default());
    drop(memory);
    broker
}

fn config() -> ConsumerConfig {
    ConsumerConfig::default()
        .lease_ttl_ms(1_000)
        .lease_interval_ms(100)
        .lease_backoff(BackoffPolicy::new(5, 20))
        .pull_suspend_ms(100)
}

async fn consumer(client: &Client) -> TransactionalConsumer {
    client.transactional_consumer("billing").subscribe("orders", "*").config(config()).start().await.unwrap()
}

/// A producer whose handler would commit all that it is asked about.
async fn producer(client: &Client) -> (TransactionProducer, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let handler = move |_: ReceivedMessage| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok(LocalOutcome::Commit) }
    };
    let config = TransactionConfig::default().end_timeout_ms(500);
    let builder = client.transaction_producer("pay").config(config).check_back(handler);
    (builder.start().await.unwrap(), asked)
}

async fn next(consumer: &TransactionalConsumer) -> LeasedBatch {
    tokio::time::timeout(PATIENCE, consumer.next_batch()).await.expect("a batch arrives").unwrap()
}

/// A transaction that has consumed `batch` and produced one bill.
async fn billed(producer: &TransactionProducer, batch: &LeasedBatch) -> Transaction {
    let mut tx = producer.begin().await.unwrap();
    tx.ack(batch).unwrap();
    tx.send(Message::new("bills", "coffee").unwrap()).await.unwrap();
    tx
}

/// Commits that move offsets.
fn commits(memory: &Memory) -> Vec<Seen> {
    let moves = |seen: &Seen| seen.field("commitOrRollback") == "8" && seen.field("mezzoOffsets") == "true";
    memory.all(END).into_iter().filter(moves).collect()
}

fn new_leases(memory: &Memory) -> usize {
    memory.all(LEASE).iter().filter(|seen| seen.field("epoch").is_empty()).count()
}

#[tokio::test]
async fn a_queue_that_another_holds_is_not_pulled_before_it_is_free() {
    let broker = broker().await;
    broker.always(LEASE, Some(Action::Fields(REFUSED, says("HELD"))));
    let client = broker.client().await;
    let consumer = consumer(&client).await;
    let asked = broker.wait_nth(LEASE, 3).await;
    assert_eq!((asked.field("consumerGroup"), asked.field("clientId")), ("billing", client.client_id()));
    assert_eq!((asked.field("topic"), asked.field("queueId"), asked.field("ttlMs")), ("orders", "0", "1000"));
    assert_eq!(broker.shared.lock().count(PULL, "orders"), 0);
    assert!(consumer.leased_queues().is_empty() && consumer.queues().len() == 1);
    broker.always(LEASE, None);
    let batch = next(&consumer).await;
    assert_eq!((batch.epoch(), batch.messages().len()), (1, 1));
}

#[tokio::test]
async fn an_answer_that_gets_lost_is_asked_for_until_it_is_known() {
    let broker = broker().await;
    let client = broker.client().await;
    let consumer = consumer(&client).await;
    let (producer, _) = producer(&client).await;
    let batch = next(&consumer).await;
    let tx = billed(&producer, &batch).await;
    let id = tx.id().to_owned();
    broker.script(END, [Action::HangUp, Action::Code(ResponseCode::SYSTEM_BUSY)]);
    let outcome = tx.commit().await;
    assert!(outcome.is_committed(), "{outcome}");
    let said = commits(&broker.shared.lock());
    assert_eq!(said.len(), 3);
    for end in &said {
        assert_eq!((end.field("transactionId"), end.field("mezzoTxCount")), (&*id, "1"));
        let body = TransactionOffsetsBody::decode(&end.command.body).unwrap();
        let moved = &body.offsets[0];
        assert_eq!((moved.from, moved.offset, moved.epoch), (None, 1, batch.epoch()));
    }
    broker.shared.lock().queues.put("orders", 0, "t", "tea");
    let on = next(&consumer).await;
    assert_eq!((on.from(), on.epoch()), (batch.next_offset(), batch.epoch()), "it goes on behind the first");
}

#[tokio::test]
async fn a_commit_that_is_never_answered_asks_for_a_new_lease_and_no_question_commits_it() {
    let broker = broker().await;
    let client = broker.client().await;
    let consumer = consumer(&client).await;
    let (producer, asked) = producer(&client).await;
    // To a broker that has shown that it takes a decision once, one that is on its way is said again when it asks.
    broker.script(END, [Action::Fields(ResponseCode::SUCCESS, says("COMMITTED"))]);
    let plain = producer.prepare(Message::new("bills", "plain").unwrap()).await.unwrap();
    assert!(plain.commit().await.unwrap().is_committed());
    let batch = next(&consumer).await;
    let tx = billed(&producer, &batch).await;
    let id = tx.id().to_owned();
    // Its first message says to whoever is asked that offsets move with it.
    let half = broker.wait_nth(RequestCode::SEND_MESSAGE_V2, 2).await;
    assert!(half.field("i").contains("MEZZO_TX_CONSUMER\u{1}billing\u{2}"), "{}", half.field("i"));
    assert!(half.field("i").contains("CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}60\u{2}"), "{}", half.field("i"));
    broker.push(&check_back("pay", &id));
    let answer = |flag: &'static str| {
        let id = id.clone();
        move |seen: &Seen| {
            seen.code() == END
                && seen.field("fromTransactionCheck") == "true"
                && (seen.field("msgId"), seen.field("commitOrRollback")) == (&*id, flag)
        }
    };
    broker.wait("unknown, while it is open", answer("0")).await;
    broker.always(END, Some(Action::Silence));
    let committing = tokio::spawn(tx.commit());
    broker.wait_until("the commit is on its way", |memory| (!commits(memory).is_empty()).then_some(())).await;
    let before = broker.all(END).len();
    broker.push(&check_back("pay", &id));
    broker
        .wait_until("an answer", |memory| {
            memory
                .all(END)
                .iter()
                .skip(before)
                .find(|seen| seen.field("fromTransactionCheck") == "true")
                .cloned()
        })
        .await;
    let outcome = committing.await.unwrap();
    assert!(matches!(outcome, TransactionOutcome::Unknown(_, UnknownReason::NotConfirmed(_))), "{outcome}");
    broker.push(&check_back("pay", &id));
    broker.wait("a rollback, when it was given up", answer("12")).await;
    let said = broker.all(END);
    let mut answers = said.iter().filter(|seen| seen.field("fromTransactionCheck") == "true");
    assert!(answers.all(|seen| seen.field("commitOrRollback") != "8"), "{said:?}");
    // The broker had recorded it: the new lease says so, and the batch does not come again.
    broker.always(END, None);
    {
        let mut memory = broker.shared.lock();
        memory.queues.committed.insert(("billing".to_owned(), "orders".to_owned(), 0), 1);
        memory.queues.put("orders", 0, "t", "tea");
    }
    assert!(matches!(producer.begin().await.unwrap().ack(&batch), Err(AckError::Again)));
    let on = next(&consumer).await;
    assert!(on.epoch() > batch.epoch());
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_refusal_because_of_the_lease_says_so_and_the_consumer_begins_again() {
    let broker = broker().await;
    let client = broker.client().await;
    let consumer = consumer(&client).await;
    let (producer, _) = producer(&client).await;
    let batch = next(&consumer).await;
    let tx = billed(&producer, &batch).await;
    broker.script(END, [Action::Fields(REFUSED, says("FENCED"))]);
    let outcome = tx.commit().await;
    assert!(outcome.is_fenced() && outcome.is_rolled_back(), "{outcome}");
    let again = next(&consumer).await;
    assert!(again.epoch() > batch.epoch() && again.from() == batch.from());
    assert!(billed(&producer, &again).await.commit().await.is_committed());
    assert_eq!(producer.running(), 0);
}

#[tokio::test]
async fn a_lease_that_another_has_taken_ends_its_batches() {
    let broker = broker().await;
    let client = broker.client().await;
    let consumer = consumer(&client).await;
    let (producer, _) = producer(&client).await;
    let batch = next(&consumer).await;
    broker.shared.lock().queues.leases.as_mut().unwrap().take_over("orders", 0);
    broker.wait_until("another lease", |memory| (new_leases(memory) == 2).then_some(())).await;
    let mut tx = producer.begin().await.unwrap();
    assert_eq!(tx.ack(&batch), Err(AckError::Superseded));
    let again = next(&consumer).await;
    assert!(again.epoch() > batch.epoch() && again.from() == batch.from());
}

#[tokio::test]
async fn nothing_is_handed_out_when_the_lease_is_over() {
    let broker = broker().await;
    let client = broker.client().await;
    let consumer = consumer(&client).await;
    // Pulled, and not handed out when the broker falls silent about leases.
    broker
        .wait("the pull behind the first message", |seen| {
            seen.code() == PULL && seen.field("queueOffset") == "1"
        })
        .await;
    broker.always(LEASE, Some(Action::Code(ResponseCode::SYSTEM_BUSY)));
    broker.wait_until("the lease is over", |memory| (new_leases(memory) == 2).then_some(())).await;
    let mut batch = std::pin::pin!(consumer.next_batch());
    let early = std::future::poll_fn(|context| Poll::Ready(batch.as_mut().poll(context).is_ready())).await;
    assert!(!early, "another may have the queue by now");
    broker.always(LEASE, None);
    let batch = tokio::time::timeout(PATIENCE, batch).await.expect("a batch arrives").unwrap();
    assert_eq!((batch.epoch(), batch.from().0), (2, 0));
}

#[tokio::test]
async fn a_process_that_knows_nothing_of_a_transaction_with_offsets_rolls_it_back() {
    let broker = broker().await;
    let client = broker.client().await;
    let (_producer, asked) = producer(&client).await;
    broker.push(&check_back_with("pay", "of-a-dead-process", &[("MEZZO_TX_CONSUMER", "billing")]));
    let end = broker.wait_nth(END, 1).await;
    assert_eq!((end.field("commitOrRollback"), end.field("fromTransactionCheck")), ("12", "true"));
    assert_eq!(asked.load(Ordering::SeqCst), 0, "its handler would have committed it without the offsets");
}

#[tokio::test]
async fn shutdown_waits_for_the_transaction_and_gives_the_lease_back_behind_it() {
    let broker = broker().await;
    let client = broker.client().await;
    let consumer = consumer(&client).await;
    let (producer, _) = producer(&client).await;
    let batch = next(&consumer).await;
    let tx = billed(&producer, &batch).await;
    let leaving = tokio::spawn(consumer.shutdown());
    broker.wait_until("it goes on renewing", |memory| (memory.all(LEASE).len() >= 4).then_some(())).await;
    assert!(!leaving.is_finished());
    assert!(tx.commit().await.is_committed());
    assert!(leaving.await.unwrap());
    let released = broker.wait_nth(RequestCode::MEZZO_RELEASE_QUEUE, 1).await;
    assert_eq!((released.field("queueId"), released.field("epoch")), ("0", "1"));
    let left = broker.wait_nth(RequestCode::UNREGISTER_CLIENT, 1).await;
    assert_eq!(left.field("consumerGroup"), "billing");
}

#[tokio::test]
async fn brokers_that_are_not_mezzo_are_asked_for_no_lease_and_settings_are_checked() {
    let broker = broker().await;
    broker.shared.lock().queues.leases = None;
    let client = broker.client().await;
    let _consumer = consumer(&client).await;
    broker.wait_nth(RequestCode::GET_CONSUMER_LIST_BY_GROUP, 1).await;
    broker.wait_nth(RequestCode::HEART_BEAT, 3).await;
    assert!(broker.all(LEASE).is_empty() && broker.all(PULL).is_empty());
    for config in [
        ConsumerConfig::default().lease_ttl_ms(999),
        ConsumerConfig::default().lease_ttl_ms(600_001),
        ConsumerConfig::default().lease_ttl_ms(2_000).lease_interval_ms(1_001),
        ConsumerConfig::default().lease_interval_ms(0),
    ] {
        let refused = client.transactional_consumer("other").subscribe("orders", "*").config(config).start();
        assert!(matches!(refused.await, Err(Error::Config { .. })));
    }
}
