//! Through the SDK, as an application would: transactions that reach consumers or do not, check-backs, retries, groups,
//! and a broker that goes away in the middle.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mezzo_client::config::{ClientConfig, HeaderEncoding};
use mezzo_client::{
    Client, LocalError, LocalOutcome, Message, Outcome, PushConsumer, ReceivedMessage, TopicName,
    TransactionProducer, Verdict,
};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::wait::{self, PATIENCE};
use tokio::sync::mpsc;

/// Deliveries as a test sees them.
struct Arrivals {
    consumer: PushConsumer,
    received: mpsc::Receiver<ReceivedMessage>,
}

impl Arrivals {
    /// Joins `group` and hands every message of `tags` to the test; `verdict` says what becomes of each.
    async fn of(
        client: &Client,
        group: &str,
        tags: &str,
        verdict: impl Fn(&ReceivedMessage) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        let (sender, received) = mpsc::channel(10_000);
        let verdict = Arc::new(verdict);
        let handler = move |message: ReceivedMessage| {
            let (sender, verdict) = (sender.clone(), Arc::clone(&verdict));
            async move {
                let said = verdict(&message);
                sender.send(message).await.expect("the test listens as long as it consumes");
                said
            }
        };
        let consumer = client.push_consumer(group).subscribe("orders", tags).handler(handler).start().await;
        Self { consumer: consumer.expect("a consumer starts"), received }
    }

    async fn all(client: &Client) -> Self {
        Self::of(client, "CG_sdk", "*", |_| Verdict::Done).await
    }

    async fn next(&mut self) -> ReceivedMessage {
        let next = tokio::time::timeout(PATIENCE, self.received.recv()).await;
        next.expect("a message arrives").expect("the consumer runs")
    }

    async fn next_text(&mut self) -> String {
        text(&self.next().await)
    }

    /// The next `count` bodies, in any order.
    async fn set(&mut self, count: usize) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for _ in 0..count {
            found.insert(self.next_text().await);
        }
        found
    }

    /// How many queues of the topic this member has; the retry topic's are not counted.
    fn queues(&self) -> usize {
        self.consumer.queues().iter().filter(|queue| queue.topic.as_str() == "orders").count()
    }

    fn nothing_more(&mut self) -> bool {
        self.received.try_recv().is_err()
    }
}

fn text(message: &ReceivedMessage) -> String {
    String::from_utf8(message.body().to_vec()).expect("this test's bodies are text")
}

fn order(body: &str) -> Message {
    Message::new("orders", body.to_owned()).expect("a valid message")
}

async fn connect(broker: &TestBroker) -> Client {
    Client::connect(broker.name_server().to_string()).await.expect("the broker is there")
}

/// A producer whose check-back handler says what `answer` says, and counts how often it was asked.
async fn transactions(client: &Client, answer: LocalOutcome) -> (TransactionProducer, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let handler = move |_half: ReceivedMessage| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, LocalError>(answer) }
    };
    let producer = client.transaction_producer("PG_sdk").check_back(handler).start().await;
    (producer.expect("a producer starts"), asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_transactions_arrive_once_and_rolled_back_ones_never() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let (producer, asked) = transactions(&client, LocalOutcome::Unknown).await;
    let mut expected = BTreeSet::new();
    for i in 0..40 {
        let outcome = if i % 4 == 0 { LocalOutcome::Rollback } else { LocalOutcome::Commit };
        let said = producer
            .send_in_transaction(order(&i.to_string()), |_| async move { Ok(outcome) })
            .await
            .unwrap();
        if outcome == LocalOutcome::Commit {
            assert!(matches!(said, Outcome::Committed(_)), "{said:?}");
            expected.insert(i.to_string());
        } else {
            assert!(matches!(said, Outcome::RolledBack(..)), "{said:?}");
        }
    }
    let mut arrivals = Arrivals::all(&client).await;
    assert_eq!(arrivals.set(expected.len()).await, expected);
    let last = client.producer("PG_plain").start().await.unwrap();
    last.send(order("last")).await.unwrap();
    assert_eq!(arrivals.next_text().await, "last");
    assert!(arrivals.nothing_more());
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody is asked in a healthy run");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_message_is_invisible_until_commit() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let (producer, _) = transactions(&client, LocalOutcome::Unknown).await;
    let plain = client.producer("PG_plain").start().await.unwrap();
    let mut arrivals = Arrivals::all(&client).await;
    let prepared = producer.prepare(order("half")).await.unwrap();
    let queues = plain.queues(&TopicName::new("orders").unwrap()).await.unwrap();
    for queue in &queues {
        plain.send_to_queue(order("after"), queue).await.unwrap();
    }
    for _ in &queues {
        assert_eq!(arrivals.next_text().await, "after", "what was sent later to every queue overtakes it");
    }
    assert!(prepared.commit().await.unwrap().is_committed());
    let message = arrivals.next().await;
    assert_eq!(text(&message), "half");
    assert_ne!(message.prepared_transaction_offset().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_producer_forgot_it_is_settled_by_check_back() {
    let broker = TestBroker::start(&["transaction.timeout=300ms", "transaction.check_interval=15s"]);
    let client = connect(&broker).await;
    for (answer, arrives) in [(LocalOutcome::Commit, true), (LocalOutcome::Rollback, false)] {
        let (producer, asked) = transactions(&client, answer).await;
        drop(producer.prepare(order("forgotten")).await.unwrap());
        if arrives {
            let mut arrivals = Arrivals::all(&client).await;
            assert_eq!(arrivals.next_text().await, "forgotten");
            arrivals.consumer.shutdown().await;
        } else {
            wait::until("the check-back", || (asked.load(Ordering::SeqCst) > 0).then_some(()));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        producer.shutdown().await;
    }
    let mut raw = Consumer::connect(broker.address(), "CG_raw");
    assert_eq!(raw.drain_all("orders", 4).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_of_the_group_settles_what_a_dead_one_left() {
    let broker = TestBroker::start(&["transaction.timeout=500ms", "transaction.check_interval=15s"]);
    let dead = connect(&broker).await;
    let (producer, _) = transactions(&dead, LocalOutcome::Rollback).await;
    drop(producer.prepare(order("inherited")).await.unwrap());
    dead.shutdown().await;
    drop((producer, dead));
    let heir = connect(&broker).await;
    // no send: an heir that only listens must be known by its heartbeat; it needs a route to have a broker to tell
    heir.producer("PG_plain").start().await.unwrap().send(order("route")).await.unwrap();
    let (_producer, asked) = transactions(&heir, LocalOutcome::Commit).await;
    let mut arrivals = Arrivals::all(&heir).await;
    let expected = BTreeSet::from(["inherited".to_owned(), "route".to_owned()]);
    assert_eq!(arrivals.set(2).await, expected);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_broker_interrupts_nobody_for_good() {
    let mut broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let (producer, _) = transactions(&client, LocalOutcome::Unknown).await;
    let plain = client.producer("PG_plain").start().await.unwrap();
    let mut arrivals = Arrivals::all(&client).await;
    plain.send(order("before")).await.unwrap();
    assert_eq!(arrivals.next_text().await, "before");
    let prepared = producer.prepare(order("across")).await.unwrap();
    let mut broker = tokio::task::spawn_blocking(move || {
        broker.restart();
        broker
    })
    .await
    .unwrap();
    let outcome = prepared.commit().await.unwrap();
    assert!(outcome.is_committed(), "{outcome:?}");
    assert_eq!(arrivals.next_text().await, "across");
    plain.send(order("after")).await.unwrap();
    assert_eq!(arrivals.next_text().await, "after");
    tokio::task::spawn_blocking(move || broker.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_handler_gives_back_comes_again() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = client.producer("PG_plain").start().await.unwrap();
    producer.send(order("twice")).await.unwrap();
    let verdict = |message: &ReceivedMessage| match message.delivery_attempt() {
        1 => Verdict::RetryAfter(Duration::from_secs(1)),
        _ => Verdict::Done,
    };
    let mut arrivals = Arrivals::of(&client, "CG_sdk", "*", verdict).await;
    let (first, second) = (arrivals.next().await, arrivals.next().await);
    assert_eq!((text(&first), first.delivery_attempt()), ("twice".to_owned(), 1));
    assert_eq!((text(&second), second.delivery_attempt()), ("twice".to_owned(), 2));
    assert_eq!(first.unique_key(), second.unique_key());
    assert_eq!(second.topic().as_str(), "orders", "the application does not see the retry topic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_handler_condemns_becomes_a_dead_letter() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    client.producer("PG_plain").start().await.unwrap().send(order("poison")).await.unwrap();
    let mut arrivals = Arrivals::of(&client, "CG_sdk", "*", |_| Verdict::DeadLetter).await;
    assert_eq!(arrivals.next_text().await, "poison");
    let mut raw = Consumer::connect(broker.address(), "CG_raw");
    wait::until("the dead letter", || raw.drain_if_there("%DLQ%CG_sdk", 0, 0).into_iter().next());
    assert!(arrivals.nothing_more());
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_share_the_queues_and_take_over_from_those_who_leave() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let other = connect(&broker).await;
    let producer = client.producer("PG_plain").start().await.unwrap();
    producer.send(order("first")).await.unwrap();
    let mut one = Arrivals::all(&client).await;
    let two = Arrivals::all(&other).await;
    wait::until("each has two queues", || (one.queues() == 2 && two.queues() == 2).then_some(()));
    two.consumer.shutdown().await;
    wait::until("one has all four", || (one.queues() == 4).then_some(()));
    let queues = producer.queues(&TopicName::new("orders").unwrap()).await.unwrap();
    for queue in &queues {
        producer.send_to_queue(order(&queue.queue_id.to_string()), queue).await.unwrap();
    }
    let mut seen = BTreeSet::new();
    while !["0", "1", "2", "3"].iter().all(|queue| seen.contains(*queue)) {
        seen.insert(one.next_text().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_goes_on_where_its_group_stopped() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = client.producer("PG_plain").start().await.unwrap();
    for i in 0..30 {
        producer.send(order(&format!("early {i}"))).await.unwrap();
    }
    let mut arrivals = Arrivals::all(&client).await;
    arrivals.set(30).await;
    arrivals.consumer.shutdown().await;
    producer.send(order("late")).await.unwrap();
    let mut arrivals = Arrivals::all(&client).await;
    assert_eq!(arrivals.next_text().await, "late");
    assert!(arrivals.nothing_more());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_by_tag_gets_its_tags_only() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = client.producer("PG_plain").start().await.unwrap();
    // "Aa" and "BB" have one Java hash code: the broker alone cannot tell them apart
    for tag in ["Aa", "BB", "paid", "Aa"] {
        producer.send(Message::builder("orders").tag(tag).body(tag).build().unwrap()).await.unwrap();
    }
    let mut arrivals = Arrivals::of(&client, "CG_sdk", "Aa || paid", |_| Verdict::Done).await;
    let mut tags = Vec::new();
    for _ in 0..3 {
        tags.push(arrivals.next_text().await);
    }
    tags.sort();
    assert_eq!(tags, ["Aa", "Aa", "paid"]);
    assert!(arrivals.nothing_more());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_survive_compression_and_the_binary_header_works_throughout() {
    let broker = TestBroker::start(&[]);
    let config = ClientConfig::default().header_encoding(HeaderEncoding::Binary);
    let client = Client::builder(broker.name_server().to_string()).config(config).build().await.unwrap();
    let (producer, _) = transactions(&client, LocalOutcome::Unknown).await;
    let body = "compressible ".repeat(8_000);
    let commit = |_| async { Ok(LocalOutcome::Commit) };
    let outcome = producer.send_in_transaction(order(&body), commit).await.unwrap();
    assert!(outcome.is_committed());
    let mut arrivals = Arrivals::all(&client).await;
    assert_eq!(arrivals.next_text().await, body);
}
