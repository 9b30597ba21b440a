//! What an application's metrics see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mezzo_client::metrics::{Metrics, RequestEnd, RequestOutcome};
use mezzo_client::{
    Client, Message, MessageQueue, RequestCode, RequestError, ResponseCode, TopicName, Verdict,
};

use crate::fake::{Action, FakeBroker, settings};

const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;

/// Everything that happened, by what and to whom.
#[derive(Default)]
struct Ledger(Mutex<BTreeMap<String, i64>>);

impl Ledger {
    fn add(&self, what: impl Into<String>, count: i64) {
        *self.0.lock().unwrap().entry(what.into()).or_default() += count;
    }

    fn of(&self, what: &str) -> i64 {
        self.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

impl Metrics for Ledger {
    fn connected(&self, _address: &str, _took: Duration) {
        self.add("connected", 1);
    }

    fn not_connected(&self, _address: &str, _error: &RequestError) {
        self.add("not connected", 1);
    }

    fn disconnected(&self, _address: &str, reason: &str) {
        assert!(!reason.is_empty());
        self.add("disconnected", 1);
    }

    fn bytes_written(&self, _address: &str, bytes: usize) {
        self.add("written", bytes as i64);
    }

    fn bytes_read(&self, _address: &str, bytes: usize) {
        self.add("read", bytes as i64);
    }

    fn requested(&self, _address: &str, code: RequestCode, count: usize) {
        self.add(format!("requested {}", code.0), count as i64);
        self.add("in flight", count as i64);
    }

    fn ended(&self, end: &RequestEnd<'_>) {
        self.add("in flight", -1);
        self.add(format!("ended {} {:?}", end.code.0, end.outcome), 1);
        if end.outcome == RequestOutcome::TimedOut {
            assert!(end.took >= Duration::from_millis(50), "{end:?}");
        }
    }

    fn sent_oneway(&self, _address: &str, code: RequestCode) {
        self.add(format!("oneway {}", code.0), 1);
    }

    fn retried(&self, topic: &TopicName, error: &RequestError) {
        self.add(format!("retried {topic} {}", error.refusal().map_or(0, |code| code.0)), 1);
    }

    fn prefetched(&self, _queue: &MessageQueue, messages: usize, bytes: usize) {
        assert!(bytes > messages);
        self.add("prefetched", messages as i64);
    }

    fn handled(&self, queue: &MessageQueue, verdict: Verdict, _took: Duration) {
        self.add(format!("handled {} {verdict:?}", queue.topic), 1);
    }
}

async fn measured() -> (FakeBroker, Client, Arc<Ledger>) {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 4);
    let ledger = Arc::new(Ledger::default());
    let mut config = settings();
    // No heartbeat in the middle of what is counted.
    config.heartbeat_interval_ms = 60_000;
    let builder = Client::builder(broker.address()).config(config).metrics(Arc::clone(&ledger));
    (broker, builder.build().await.unwrap(), ledger)
}

fn order() -> Message {
    Message::new("orders", "x").unwrap()
}

/// Waits until `what` was counted `count` times.
async fn reaches(ledger: &Ledger, what: &str, count: i64) {
    let reached = async {
        while ledger.of(what) != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = tokio::time::timeout(Duration::from_secs(10), reached).await;
    assert!(
        patience.is_ok(),
        "{what} is {} and not {count}: {:?}",
        ledger.of(what),
        ledger.0.lock().unwrap()
    );
}

#[tokio::test]
async fn every_request_begins_and_ends_once_with_its_code_and_outcome() {
    let (broker, client, ledger) = measured().await;
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(order()).await.unwrap();
    let run = std::iter::repeat_with(order).take(300);
    assert!(producer.send_all(run).await.iter().all(Result::is_ok));
    producer.send_oneway(order()).await.unwrap();
    broker.wait_nth(SEND, 302).await;
    assert_eq!(ledger.of("requested 310"), 301);
    let answered = format!("ended 310 {:?}", RequestOutcome::Answered(ResponseCode::SUCCESS));
    assert_eq!(ledger.of(&answered), 301);
    assert_eq!(ledger.of("oneway 310"), 1);
    assert_eq!(ledger.of("connected"), 2, "one connection to the name server, one to the broker");
    assert!(ledger.of("written") > 302 * 100 && ledger.of("read") > 301 * 50);
    reaches(&ledger, "in flight", 0).await;
    client.shutdown().await;
    reaches(&ledger, "disconnected", 2).await;
}

#[tokio::test]
async fn refusals_timeouts_losses_and_retries_are_told_apart() {
    let (broker, client, ledger) = measured().await;
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(order()).await.unwrap();
    broker.script(SEND, [Action::Code(ResponseCode::SYSTEM_BUSY), Action::HangUp]);
    producer.send(order()).await.unwrap();
    assert_eq!(ledger.of(&format!("retried orders {}", ResponseCode::SYSTEM_BUSY.0)), 1);
    assert_eq!(ledger.of("retried orders 0"), 1);
    let refused = format!("ended 310 {:?}", RequestOutcome::Answered(ResponseCode::SYSTEM_BUSY));
    assert_eq!((ledger.of(&refused), ledger.of("ended 310 Lost")), (1, 1));
    assert_eq!((ledger.of("connected"), ledger.of("disconnected")), (3, 1));
    let hasty = mezzo_client::config::ProducerConfig::default();
    let mut hasty = hasty;
    (hasty.attempt_timeout_ms, hasty.retries) = (60, 0);
    let hasty = client.producer("hasty").config(hasty).start().await.unwrap();
    broker.script(SEND, std::iter::repeat_n(Action::Silence, 4));
    hasty.send(order()).await.unwrap_err();
    assert_eq!(ledger.of("ended 310 TimedOut"), 1);
    let run = hasty.send_all(std::iter::repeat_with(order).take(3)).await;
    assert!(run.iter().all(Result::is_err));
    assert_eq!(ledger.of("ended 310 TimedOut"), 4);
    reaches(&ledger, "in flight", 0).await;
}

#[tokio::test]
async fn an_address_that_nobody_listens_at_is_counted() {
    let (mut broker, client, ledger) = measured().await;
    let producer = client.producer("sellers").send_timeout_ms(200).start().await.unwrap();
    broker.go_down().await;
    producer.send(order()).await.unwrap_err();
    assert!(ledger.of("not connected") > 0);
    assert_eq!((ledger.of("connected"), ledger.of("in flight")), (0, 0));
}

#[tokio::test]
async fn what_a_consumer_takes_in_and_what_its_handler_says_is_counted() {
    let (broker, client, ledger) = measured().await;
    for number in 0..10 {
        broker.shared.lock().queues.put("orders", number % 4, "t", &number.to_string());
    }
    let handler = |message: mezzo_client::ReceivedMessage| async move {
        if message.body() == b"3".as_slice() { Verdict::DeadLetter } else { Verdict::Done }
    };
    let consumer =
        client.push_consumer("readers").subscribe("orders", "*").handler(handler).start().await.unwrap();
    reaches(&ledger, "handled orders Done", 9).await;
    reaches(&ledger, "handled orders DeadLetter", 1).await;
    assert_eq!(ledger.of("prefetched"), 10);
    consumer.shutdown().await;
}

/// Fails whenever it is called, as a ledger behind a poisoned lock does.
struct Broken;

impl Metrics for Broken {
    fn connected(&self, _address: &str, _took: Duration) {
        panic!("in the metrics");
    }

    fn bytes_written(&self, _address: &str, _bytes: usize) {
        panic!("in the metrics");
    }

    fn requested(&self, _address: &str, _code: RequestCode, _count: usize) {
        panic!("in the metrics");
    }

    fn ended(&self, _end: &RequestEnd<'_>) {
        panic!("in the metrics");
    }

    fn prefetched(&self, _queue: &MessageQueue, _messages: usize, _bytes: usize) {
        panic!("in the metrics");
    }

    fn handled(&self, _queue: &MessageQueue, _verdict: Verdict, _took: Duration) {
        panic!("in the metrics");
    }
}

#[tokio::test]
async fn metrics_that_panic_cost_what_they_would_have_counted_and_nothing_else() {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 1);
    let client = Client::builder(broker.address()).config(settings()).metrics(Broken).build().await.unwrap();
    let producer = client.producer("sellers").start().await.unwrap();
    let run = producer.send_all(std::iter::repeat_with(order).take(20)).await;
    assert!(run.iter().all(Result::is_ok), "{run:?}");
    // Many requests that end at one time, with the connection.
    broker.script(SEND, std::iter::repeat_n(Action::Silence, 9).chain([Action::HangUp]));
    let run = producer.send_all(std::iter::repeat_with(order).take(10)).await;
    assert!(run.iter().all(Result::is_ok), "{run:?}");
    // More messages than there are workers to lose.
    for number in 0..100 {
        broker.shared.lock().queues.put("orders", 0, "t", &number.to_string());
    }
    let (seen, mut handled) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |_message: mezzo_client::ReceivedMessage| {
        let seen = seen.clone();
        async move { seen.send(()).map_or(Verdict::Retry, |()| Verdict::Done) }
    };
    let consumer =
        client.push_consumer("readers").subscribe("orders", "*").handler(handler).start().await.unwrap();
    for _ in 0..100 {
        tokio::time::timeout(Duration::from_secs(10), handled.recv()).await.unwrap().unwrap();
    }
    consumer.shutdown().await;
    client.shutdown().await;
}
