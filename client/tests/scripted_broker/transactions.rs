//! Transactions: what is said to the broker, what its answers mean, and who answers its questions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mezzo_client::config::{ProducerConfig, TransactionConfig};
use mezzo_client::{
    Client, LocalError, LocalOutcome, Message, Outcome, ReceivedMessage, ResponseCode, TransactionError,
    TransactionProducer, UnknownReason,
};
use mezzo_protocol::remoting::RequestCode;

use crate::fake::{Action, FakeBroker, Seen, check_back};

const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;
const END: RequestCode = RequestCode::END_TRANSACTION;
const COMMIT: &str = "8";
const ROLLBACK: &str = "12";
const UNKNOWN: &str = "0";

async fn broker() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 4);
    broker
}

fn message() -> Message {
    Message::new("orders", "one coffee").unwrap()
}

/// What the check-back handler was asked, and what it says.
#[derive(Clone)]
struct Records {
    says: Arc<Mutex<Result<LocalOutcome, String>>>,
    asked: Arc<AtomicUsize>,
}

impl Records {
    fn saying(outcome: LocalOutcome) -> Self {
        Self { says: Arc::new(Mutex::new(Ok(outcome))), asked: Arc::default() }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn start(&self, client: &Client) -> TransactionProducer {
        let config = TransactionConfig::default()
            .end_timeout_ms(1_000)
            .producer(ProducerConfig::default().attempt_timeout_ms(1_000));
        let records = self.clone();
        let producer =
            client.transaction_producer("pay").config(config).check_back(move |_: ReceivedMessage| {
                let records = records.clone();
                async move {
                    records.asked.fetch_add(1, Ordering::SeqCst);
                    let says = records.says.lock().unwrap().clone();
                    says.map_err(|text| LocalError::from(std::io::Error::other(text)))
                }
            });
        producer.start().await.unwrap()
    }
}

async fn decide(producer: &TransactionProducer, outcome: LocalOutcome) -> Result<Outcome, TransactionError> {
    producer.send_in_transaction(message(), |_| async move { Ok(outcome) }).await
}

fn fields(seen: &Seen) -> (&str, &str, bool) {
    (seen.field("commitOrRollback"), seen.field("fromTransactionCheck"), seen.command.is_oneway())
}

#[tokio::test]
async fn a_commit_is_prepared_then_said_and_confirmed() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    let outcome = decide(&producer, LocalOutcome::Commit).await.unwrap();
    let Outcome::Committed(ids) = outcome else { panic!("{outcome}") };
    let half = broker.wait_nth(SEND, 1).await;
    assert_eq!((half.field("a"), half.field("f")), ("pay", "4"));
    assert!(
        half.field("i").contains("TRAN_MSG\u{1}true\u{2}") && half.field("i").contains("PGROUP\u{1}pay\u{2}")
    );
    let end = broker.wait_nth(END, 1).await;
    assert_eq!(fields(&end), (COMMIT, "false", false));
    assert_eq!((end.field("commitLogOffset"), end.field("tranStateTableOffset")), ("1000", "1"));
    assert_eq!((end.field("producerGroup"), end.field("msgId")), ("pay", &*ids.unique_key));
    assert_eq!((end.field("transactionId"), &*ids.transaction_id), ("tx-1", "tx-1"));
    assert_eq!(producer.running(), 0);
}

#[tokio::test]
async fn a_rollback_is_said_and_confirmed() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    assert!(decide(&producer, LocalOutcome::Rollback).await.unwrap().is_rolled_back());
    assert_eq!(fields(&broker.wait_nth(END, 1).await), (ROLLBACK, "false", false));
}

#[tokio::test]
async fn an_error_of_the_local_part_leaves_the_decision_open() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    let outcome = producer
        .send_in_transaction(message(), |_| async {
            let _: u32 = "no number".parse()?;
            Ok(LocalOutcome::Commit)
        })
        .await
        .unwrap();
    assert!(matches!(outcome, Outcome::Unknown(_, UnknownReason::LocalFailed(_))), "{outcome}");
    assert_eq!(fields(&broker.wait_nth(END, 1).await), (UNKNOWN, "false", true));
}

#[tokio::test]
async fn a_panic_and_a_cancelled_call_leave_the_decision_open() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    let panicking = producer.clone();
    let panicked = tokio::spawn(async move {
        let outcome =
            panicking.send_in_transaction(message(), |_| async { panic!("in the local part") }).await;
        drop(outcome);
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(fields(&broker.wait_nth(END, 1).await), (UNKNOWN, "false", true));
    let endless = producer.send_in_transaction(message(), |_| std::future::pending());
    assert!(tokio::time::timeout(Duration::from_millis(100), endless).await.is_err());
    assert_eq!(fields(&broker.wait_nth(END, 2).await), (UNKNOWN, "false", true));
    assert_eq!(producer.running(), 0);
}

#[tokio::test]
async fn the_local_part_does_not_run_if_the_half_was_refused() {
    let broker = broker().await;
    broker.script(SEND, [Action::Code(ResponseCode::MESSAGE_ILLEGAL)]);
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    let ran = AtomicUsize::new(0);
    let error = producer
        .send_in_transaction(message(), |_| async {
            ran.fetch_add(1, Ordering::SeqCst);
            Ok(LocalOutcome::Commit)
        })
        .await
        .unwrap_err();
    assert!(matches!(error, TransactionError::Prepare(_)), "{error}");
    assert_eq!((ran.into_inner(), broker.all(END).len()), (0, 0));
}

#[tokio::test]
async fn a_half_that_may_be_stored_is_not_sent_twice_and_its_check_back_gets_a_rollback() {
    let broker = broker().await;
    broker.script(SEND, [Action::Silence]);
    let client = broker.client().await;
    let records = Records::saying(LocalOutcome::Commit);
    let producer = records.start(&client).await;
    let error = decide(&producer, LocalOutcome::Commit).await.unwrap_err();
    let TransactionError::Prepare(mezzo_client::SendError::Unknown { unique_key, .. }) = error else {
        panic!("{error}");
    };
    assert_eq!(broker.all(SEND).len(), 1);
    broker.push(&check_back("pay", &unique_key));
    let end = broker.wait_nth(END, 1).await;
    assert_eq!((fields(&end), end.field("msgId")), ((ROLLBACK, "true", false), &*unique_key));
    assert_eq!(records.asked(), 0);
}

#[tokio::test]
async fn what_other_brokers_would_ignore_is_not_sent_to_them() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Commit).start(&client).await;
    let delayed = || Message::builder("orders").delay(Duration::from_secs(1)).build().unwrap();
    let error = producer.prepare(delayed()).await.unwrap_err();
    assert!(error.to_string().contains("is not known to be a Mezzo broker"), "{error}");
    assert!(!error.is_retriable());
    let mut tx = producer.begin().await.unwrap();
    let error = tx.send(message()).await.unwrap_err();
    assert!(error.to_string().contains("is not known to be a Mezzo broker"), "{error}");
    assert!(tx.rollback().await.is_rolled_back());
    assert_eq!((broker.all(SEND).len(), broker.all(END).len(), producer.running()), (0, 0, 0));
}

#[tokio::test]
async fn a_half_that_is_not_safe_is_rolled_back_and_the_local_part_does_not_run() {
    let broker = broker().await;
    let stored = [("msgId", "7F00000100002A9F0000000000000064"), ("queueId", "0"), ("queueOffset", "3")];
    let stored = stored.map(|(name, value)| (name, value.to_owned())).to_vec();
    broker.script(SEND, [Action::Fields(ResponseCode::FLUSH_DISK_TIMEOUT, stored)]);
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Commit).start(&client).await;
    let error = decide(&producer, LocalOutcome::Commit).await.unwrap_err();
    assert!(matches!(error, TransactionError::NotSafe(_)), "{error}");
    let end = broker.wait_nth(END, 1).await;
    assert_eq!((end.field("commitOrRollback"), end.field("commitLogOffset")), (ROLLBACK, "100"));
}

#[tokio::test]
async fn without_an_answer_the_outcome_is_unknown_and_the_check_back_repeats_the_decision() {
    let broker = broker().await;
    broker.script(END, [Action::Silence]);
    let client = broker.client().await;
    let records = Records::saying(LocalOutcome::Rollback);
    let producer = records.start(&client).await;
    let outcome = decide(&producer, LocalOutcome::Commit).await.unwrap();
    let Outcome::Unknown(ids, UnknownReason::NotConfirmed(_)) = outcome else { panic!("{outcome}") };
    assert_eq!(broker.all(END).len(), 1);
    broker.push(&check_back("pay", &ids.unique_key));
    assert_eq!(fields(&broker.wait_nth(END, 2).await), (COMMIT, "true", false));
    assert_eq!(records.asked(), 0);
}

#[tokio::test]
async fn a_decision_is_repeated_only_to_a_broker_that_records_it_once() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    broker.script(END, [Action::HangUp]);
    let outcome = decide(&producer, LocalOutcome::Commit).await.unwrap();
    assert!(matches!(outcome, Outcome::Unknown(_, UnknownReason::NotConfirmed(_))), "{outcome}");
    assert_eq!(broker.all(END).len(), 1);
    let recorded = || vec![("mezzoOutcome", "COMMITTED".to_owned())];
    broker.script(END, [Action::Fields(ResponseCode::SUCCESS, recorded()), Action::HangUp]);
    assert!(decide(&producer, LocalOutcome::Commit).await.unwrap().is_committed());
    assert!(decide(&producer, LocalOutcome::Commit).await.unwrap().is_committed());
    assert_eq!(broker.all(END).len(), 4);
}

#[tokio::test]
async fn the_opposite_recorded_decision_is_a_conflict() {
    let broker = broker().await;
    let recorded = vec![("mezzoOutcome", "ROLLED_BACK".to_owned())];
    broker.script(END, [Action::Fields(ResponseCode::ILLEGAL_OPERATION, recorded)]);
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    let error = decide(&producer, LocalOutcome::Commit).await.unwrap_err();
    assert!(
        matches!(&error, TransactionError::Conflict { wanted: LocalOutcome::Commit, recorded, .. } if recorded == "ROLLED_BACK"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refusal_that_names_no_decision_leaves_the_outcome_unknown() {
    let broker = broker().await;
    broker.script(END, [Action::Code(ResponseCode::SYSTEM_ERROR)]);
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    let outcome = decide(&producer, LocalOutcome::Commit).await.unwrap();
    assert!(matches!(outcome, Outcome::Unknown(_, UnknownReason::Refused(_))), "{outcome}");
}

#[tokio::test]
async fn a_busy_broker_is_told_the_decision_again_until_the_time_is_over() {
    let broker = broker().await;
    let busy = || Action::Code(ResponseCode::SYSTEM_BUSY);
    broker.script(END, [busy(), busy()]);
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    assert!(decide(&producer, LocalOutcome::Commit).await.unwrap().is_committed());
    assert_eq!(broker.all(END).len(), 3);
    broker.always(END, Some(busy()));
    let outcome = decide(&producer, LocalOutcome::Rollback).await.unwrap();
    assert!(matches!(outcome, Outcome::Unknown(..)), "{outcome}");
    assert!(broker.all(END).len() > 3);
}

#[tokio::test]
async fn a_broker_whose_disk_has_failed_is_told_the_decision_again_if_it_records_decisions_once() {
    let broker = broker().await;
    let failed =
        || Action::Fields(ResponseCode::SERVICE_NOT_AVAILABLE, vec![("mezzoOutcome", "RETRY".to_owned())]);
    let stands = vec![("mezzoOutcome", "COMMITTED".to_owned())];
    broker.script(END, [failed(), failed(), Action::Fields(ResponseCode::SUCCESS, stands)]);
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    assert!(decide(&producer, LocalOutcome::Commit).await.unwrap().is_committed());
    assert_eq!(broker.all(END).len(), 3);
}

#[tokio::test]
async fn a_known_decision_does_not_wait_behind_a_slow_handler() {
    let broker = broker().await;
    broker.script(END, [Action::Silence]);
    let client = broker.client().await;
    let config = TransactionConfig::default().end_timeout_ms(100).check_back_concurrency(1);
    let hangs = |_: ReceivedMessage| std::future::pending();
    let producer = client.transaction_producer("pay").config(config).check_back(hangs).start().await.unwrap();
    let outcome = decide(&producer, LocalOutcome::Commit).await.unwrap();
    let Outcome::Unknown(ids, _) = outcome else { panic!("{outcome}") };
    for dead in ["of-a-dead-process", "of-another", "of-a-third"] {
        broker.push(&check_back("pay", dead));
    }
    broker.push(&check_back("pay", &ids.unique_key));
    let end = broker.wait_nth(END, 2).await;
    assert_eq!((end.field("msgId"), fields(&end)), (&*ids.unique_key, (COMMIT, "true", false)));
}

#[tokio::test]
async fn a_producer_that_has_sent_nothing_answers_for_transactions_of_a_dead_process() {
    let broker = broker().await;
    let client = broker.client().await;
    let records = Records::saying(LocalOutcome::Commit);
    let _producer = records.start(&client).await;
    broker.push(&check_back("pay", "of-a-dead-process"));
    let end = broker.wait_nth(END, 1).await;
    assert_eq!(fields(&end), (COMMIT, "true", false));
    assert_eq!((end.field("tranStateTableOffset"), end.field("commitLogOffset")), ("7", "700"));
    assert_eq!((end.field("msgId"), end.field("transactionId")), ("of-a-dead-process", "tx-id"));
    assert_eq!(records.asked(), 1);
}

#[tokio::test]
async fn a_check_back_reaches_a_producer_whose_connection_was_lost() {
    let mut broker = broker().await;
    let client = broker.client().await;
    let _producer = Records::saying(LocalOutcome::Rollback).start(&client).await;
    broker.go_down().await;
    broker.come_back().await;
    broker.wait_until("a new heartbeat", |memory| (!memory.queues.greeted().is_empty()).then_some(())).await;
    broker.push(&check_back("pay", "k"));
    assert_eq!(fields(&broker.wait_nth(END, 1).await), (ROLLBACK, "true", false));
}

#[tokio::test]
async fn a_running_transaction_is_not_asked_about() {
    let broker = broker().await;
    let client = broker.client().await;
    let records = Records::saying(LocalOutcome::Rollback);
    let producer = records.start(&client).await;
    let prepared = producer.prepare(message()).await.unwrap();
    broker.push(&check_back("pay", prepared.context().unique_key()));
    assert_eq!(fields(&broker.wait_nth(END, 1).await), (UNKNOWN, "true", true));
    assert!(prepared.commit().await.unwrap().is_committed());
    assert_eq!(records.asked(), 0);
}

#[tokio::test]
async fn a_handler_that_fails_answers_unknown() {
    let broker = broker().await;
    let client = broker.client().await;
    let records = Records::saying(LocalOutcome::Commit);
    *records.says.lock().unwrap() = Err("no database".to_owned());
    let _producer = records.start(&client).await;
    broker.push(&check_back("pay", "k"));
    assert_eq!(fields(&broker.wait_nth(END, 1).await), (UNKNOWN, "true", true));
}

#[tokio::test]
async fn a_handler_that_panics_or_hangs_answers_unknown() {
    let broker = broker().await;
    let client = broker.client().await;
    let config = TransactionConfig::default().check_back_timeout_ms(100);
    let producer =
        client.transaction_producer("pay").config(config).check_back(|half: ReceivedMessage| async move {
            assert_ne!(half.unique_key(), Some("panics"), "as the test wants it");
            std::future::pending().await
        });
    let _producer = producer.start().await.unwrap();
    broker.push(&check_back("pay", "panics"));
    assert_eq!(fields(&broker.wait_nth(END, 1).await), (UNKNOWN, "true", true));
    broker.push(&check_back("pay", "hangs"));
    assert_eq!(fields(&broker.wait_nth(END, 2).await), (UNKNOWN, "true", true));
}

#[tokio::test]
async fn a_group_has_one_transaction_producer_per_client_and_it_needs_a_handler() {
    let broker = broker().await;
    let client = broker.client().await;
    let missing = client.transaction_producer("pay").start().await.unwrap_err();
    assert!(matches!(missing, mezzo_client::Error::Config { setting: "check_back", .. }), "{missing}");
    let records = Records::saying(LocalOutcome::Unknown);
    let first = records.start(&client).await;
    let handler = |_: ReceivedMessage| async { Ok(LocalOutcome::Unknown) };
    let second = client.transaction_producer("pay").check_back(handler).start().await;
    assert!(matches!(second, Err(mezzo_client::Error::DuplicateGroup { .. })));
    drop(first);
    assert!(client.transaction_producer("pay").check_back(handler).start().await.is_ok());
}

#[tokio::test]
async fn a_transaction_beyond_the_bound_waits_and_then_is_not_begun() {
    let broker = broker().await;
    let client = broker.client().await;
    let sends = ProducerConfig::default().send_timeout_ms(50);
    let config = TransactionConfig::default().running_max(1).producer(sends);
    let handler = |_: ReceivedMessage| async { Ok(LocalOutcome::Unknown) };
    let producer =
        client.transaction_producer("pay").config(config).check_back(handler).start().await.unwrap();
    let prepared = producer.prepare(message()).await.unwrap();
    let error = producer.prepare(message()).await.unwrap_err();
    assert!(matches!(error, TransactionError::Saturated { running: 1, .. }), "{error}");
    assert!(prepared.rollback().await.unwrap().is_rolled_back());
    assert!(decide(&producer, LocalOutcome::Commit).await.unwrap().is_committed());
}

#[tokio::test]
async fn a_producer_that_is_dropped_takes_itself_off() {
    let broker = broker().await;
    let client = broker.client().await;
    drop(Records::saying(LocalOutcome::Unknown).start(&client).await);
    let left = broker.wait_nth(RequestCode::UNREGISTER_CLIENT, 1).await;
    assert_eq!((left.field("producerGroup"), left.command.is_oneway()), ("pay", true));
}

#[tokio::test]
async fn shutdown_waits_for_running_transactions_and_begins_no_more() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    let prepared = producer.prepare(message()).await.unwrap();
    let ending = tokio::spawn({
        let producer = producer.clone();
        async move { producer.shutdown().await }
    });
    tokio::task::yield_now().await;
    assert!(!ending.is_finished());
    assert!(prepared.commit().await.unwrap().is_committed());
    assert!(ending.await.unwrap());
    assert!(matches!(decide(&producer, LocalOutcome::Commit).await, Err(TransactionError::NotBegun(_))));
}

#[tokio::test]
async fn a_decision_waits_for_a_place_among_the_requests_without_keeping_the_thread() {
    let broker = broker().await;
    let config = crate::fake::settings().pending_requests_max(1);
    let config = config.heartbeat_interval_ms(60_000);
    let client = Client::builder(broker.address()).config(config).build().await.unwrap();
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    // The first heartbeats take the only place too, for a moment.
    let prepared = loop {
        match producer.prepare(message()).await {
            Ok(prepared) => break prepared,
            Err(error) => assert!(error.to_string().contains("no further one is sent"), "{error}"),
        }
    };
    broker.script(SEND, [Action::Silence]);
    let config = ProducerConfig::default().attempt_timeout_ms(200).retries(0);
    let plain = client.producer("sellers").config(config).start().await.unwrap();
    let taking_the_place = tokio::spawn(async move { plain.send(message()).await });
    broker.wait_nth(SEND, 2).await;
    let outcome = prepared.commit().await.unwrap();
    assert!(outcome.is_committed(), "{outcome}");
    assert!(taking_the_place.await.unwrap().is_err());
}

#[tokio::test]
async fn a_decision_on_its_way_is_not_said_a_second_time() {
    let broker = broker().await;
    broker.script(END, [Action::Silence]);
    let client = broker.client().await;
    let records = Records::saying(LocalOutcome::Rollback);
    let producer = records.start(&client).await;
    let prepared = producer.prepare(message()).await.unwrap();
    let key = prepared.ids().unique_key.to_string();
    let committing = tokio::spawn(prepared.commit());
    broker.wait_nth(END, 1).await;
    // This broker would deliver twice if it were told twice.
    broker.push(&check_back("pay", &key));
    assert_eq!(fields(&broker.wait_nth(END, 2).await), (UNKNOWN, "true", true));
    assert!(matches!(committing.await.unwrap().unwrap(), Outcome::Unknown(..)));
    broker.push(&check_back("pay", &key));
    assert_eq!(fields(&broker.wait_nth(END, 3).await), (COMMIT, "true", false));
    assert_eq!(records.asked(), 0);
}

#[tokio::test]
async fn a_decision_that_is_cancelled_on_its_way_is_the_answer_to_the_check_back() {
    let broker = broker().await;
    broker.script(END, [Action::Silence]);
    let client = broker.client().await;
    let records = Records::saying(LocalOutcome::Rollback);
    let producer = records.start(&client).await;
    let prepared = producer.prepare(message()).await.unwrap();
    let key = prepared.ids().unique_key.to_string();
    let committing = tokio::spawn(prepared.commit());
    broker.wait_nth(END, 1).await;
    committing.abort();
    assert!(committing.await.unwrap_err().is_cancelled());
    broker.push(&check_back("pay", &key));
    assert_eq!(fields(&broker.wait_nth(END, 2).await), (COMMIT, "true", false));
    assert_eq!(records.asked(), 0);
}

#[tokio::test]
async fn a_system_error_may_have_stored_the_half_so_it_is_not_sent_twice() {
    let broker = broker().await;
    broker.script(SEND, [Action::Code(ResponseCode::SYSTEM_ERROR)]);
    let client = broker.client().await;
    let records = Records::saying(LocalOutcome::Commit);
    let producer = records.start(&client).await;
    let error = decide(&producer, LocalOutcome::Commit).await.unwrap_err();
    let TransactionError::Prepare(mezzo_client::SendError::Unknown { unique_key, .. }) = error else {
        panic!("{error}");
    };
    assert_eq!(broker.all(SEND).len(), 1);
    broker.push(&check_back("pay", &unique_key));
    assert_eq!(fields(&broker.wait_nth(END, 1).await), (ROLLBACK, "true", false));
}

#[tokio::test]
async fn a_plain_producer_leaves_check_backs_to_those_who_can_answer() {
    let broker = broker().await;
    let client = broker.client().await;
    let plain = client.producer("sellers").start().await.unwrap();
    plain.send(message()).await.unwrap();
    let _able = Records::saying(LocalOutcome::Commit).start(&client).await;
    broker.push(&check_back("sellers", "nobody's"));
    broker.push(&check_back("pay", "somebody's"));
    // They are looked at in their order: an answer to the first would have come before.
    let end = broker.wait_nth(END, 1).await;
    assert_eq!((end.field("msgId"), broker.all(END).len()), ("somebody's", 1));
    assert!(plain.send(message()).await.is_ok());
}

#[tokio::test]
async fn a_half_message_that_cannot_be_read_is_answered_with_unknown() {
    let broker = broker().await;
    let client = broker.client().await;
    let records = Records::saying(LocalOutcome::Commit);
    let _producer = records.start(&client).await;
    let mut question = check_back("pay", "k");
    let mut record = question.body.to_vec();
    let body = record.windows(4).position(|window| window == b"half").unwrap();
    record[body] ^= 1;
    question.body = record.into();
    broker.push(&question);
    assert_eq!(fields(&broker.wait_nth(END, 1).await), (UNKNOWN, "true", true));
    assert_eq!(records.asked(), 0);
}

#[tokio::test]
async fn a_shutdown_that_gives_up_leaves_open_transactions_to_be_decided() {
    let broker = broker().await;
    let client = broker.client().await;
    let config = TransactionConfig::default().drain_timeout_ms(20);
    let handler = |_: ReceivedMessage| async { Ok(LocalOutcome::Unknown) };
    let producer =
        client.transaction_producer("pay").config(config).check_back(handler).start().await.unwrap();
    let prepared = producer.prepare(message()).await.unwrap();
    assert!(!producer.shutdown().await);
    broker.wait_nth(RequestCode::UNREGISTER_CLIENT, 1).await;
    assert!(!producer.shutdown().await, "a second one does not call it drained either");
    drop(producer);
    assert!(prepared.commit().await.unwrap().is_committed());
}

#[tokio::test]
async fn a_prepared_transaction_that_is_dropped_is_left_open() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = Records::saying(LocalOutcome::Unknown).start(&client).await;
    drop(producer.prepare(message()).await.unwrap());
    assert_eq!(fields(&broker.wait_nth(END, 1).await), (UNKNOWN, "false", true));
    assert_eq!(producer.running(), 0);
}
