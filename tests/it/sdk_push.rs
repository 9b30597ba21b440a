//! Push consumers against a real broker: handlers of each form, each verdict, each division of the queues, each start, an
//! orderly end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mezzo_client::assignment::{AssignmentStrategy, Averagely, Circle, ConsistentHash};
use mezzo_client::config::StartPosition;
use mezzo_client::{
    Client, Clock as _, Error, Handler, Message, MessageQueue, Producer, PushConsumer, ReceivedMessage,
    SystemClock, Timestamp, TopicName, Verdict,
};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::wait::{self, PATIENCE};
use tokio::sync::{Barrier, Semaphore, mpsc};

type Messages = mpsc::UnboundedReceiver<ReceivedMessage>;

async fn connect(broker: &TestBroker) -> Client {
    Client::connect(broker.name_server().to_string()).await.unwrap()
}

async fn producer(client: &Client) -> Producer {
    client.producer("PG_push").start().await.unwrap()
}

async fn send(producer: &Producer, body: &str) {
    producer.send(Message::new("orders", body.to_owned()).unwrap()).await.unwrap();
}

fn text(message: &ReceivedMessage) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

async fn next(messages: &mut Messages) -> ReceivedMessage {
    tokio::time::timeout(PATIENCE, messages.recv()).await.expect("a message comes").unwrap()
}

/// A handler as a program's own type.
struct Mailbox {
    sender: mpsc::UnboundedSender<ReceivedMessage>,
    verdict: fn(&ReceivedMessage) -> Verdict,
}

impl Handler for Mailbox {
    async fn handle(&self, message: ReceivedMessage) -> Verdict {
        let verdict = (self.verdict)(&message);
        self.sender.send(message).unwrap();
        tokio::task::yield_now().await;
        verdict
    }
}

fn mailbox(verdict: fn(&ReceivedMessage) -> Verdict) -> (Mailbox, Messages) {
    let (sender, messages) = mpsc::unbounded_channel();
    (Mailbox { sender, verdict }, messages)
}

fn held(consumer: &PushConsumer) -> BTreeSet<MessageQueue> {
    consumer.queues().into_iter().filter(|queue| queue.topic == *"orders").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_queue_are_handled_side_by_side_by_a_concurrent_consumer() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = producer(&client).await;
    let queue = producer.queues(&TopicName::new("orders").unwrap()).await.unwrap().remove(0);
    for number in 0..8 {
        producer.send_to_queue(Message::new("orders", number.to_string()).unwrap(), &queue).await.unwrap();
    }
    // Each handler waits for all others: one after the other they would wait for ever.
    let meeting = Arc::new(Barrier::new(8));
    let (sender, mut met) = mpsc::unbounded_channel();
    let handler = move |message: ReceivedMessage| {
        let (meeting, sender) = (Arc::clone(&meeting), sender.clone());
        async move {
            meeting.wait().await;
            sender.send(message).unwrap();
            Verdict::Done
        }
    };
    let builder = client.push_consumer("CG_push").subscribe("orders", "*").concurrency(8);
    let consumer = builder.handler(handler).start().await.unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..8 {
        seen.insert(text(&next(&mut met).await));
    }
    assert_eq!(seen.len(), 8);
    assert!(consumer.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn closures_with_results_and_types_are_handlers() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = producer(&client).await;
    send(&producer, "7").await;
    let (sender, mut parsed) = mpsc::unbounded_channel();
    let closure = move |message: ReceivedMessage| {
        let sender = sender.clone();
        async move {
            let number: u32 = text(&message).parse()?;
            sender.send(number).unwrap();
            Ok::<_, std::num::ParseIntError>(())
        }
    };
    let by_closure = client.push_consumer("CG_closure").subscribe("orders", "*").handler(closure);
    let by_closure = by_closure.start().await.unwrap();
    let (by_type, mut messages) = mailbox(|_| Verdict::Done);
    let by_type = client.push_consumer("CG_type").subscribe("orders", "*").handler(by_type);
    let by_type = by_type.start().await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, parsed.recv()).await.unwrap(), Some(7));
    assert_eq!(text(&next(&mut messages).await), "7");
    assert!(by_closure.shutdown().await && by_type.shutdown().await);
    let second = connect(&broker).await;
    let (handler, _messages) = mailbox(|_| Verdict::Done);
    let one =
        second.push_consumer("CG_type").subscribe("orders", "*").handler(handler).start().await.unwrap();
    let (handler, _messages) = mailbox(|_| Verdict::Done);
    let two = second.push_consumer("CG_type").subscribe("orders", "*").handler(handler).start().await;
    assert!(matches!(two, Err(Error::DuplicateGroup { .. })), "a client is one member of a group");
    assert!(one.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verdict_does_what_it_says() {
    let broker = TestBroker::with_manual_clock(&[]);
    let client = connect(&broker).await;
    let producer = producer(&client).await;
    for body in ["done", "retry", "later", "dead", "panic"] {
        send(&producer, body).await;
    }
    let (handler, mut messages) =
        mailbox(|message| match (message.body().as_ref(), message.delivery_attempt()) {
            (b"retry", 1) => Verdict::Retry,
            (b"later", 1) => Verdict::RetryAfter(Duration::from_secs(20)),
            (b"dead", _) => Verdict::DeadLetter,
            (b"panic", 1) => panic!("as the test wants it"),
            _ => Verdict::Done,
        });
    let consumer = client.push_consumer("CG_push").subscribe("orders", "*").handler(handler);
    let consumer = consumer.start().await.unwrap();
    for _ in 0..4 {
        assert_eq!(next(&mut messages).await.delivery_attempt(), 1, "all but the one that panicked first");
    }
    let mut raw = Consumer::connect(broker.address(), "CG_raw");
    let dead = wait::until("the dead letter", || raw.drain_if_there("%DLQ%CG_push", 0, 0).into_iter().next());
    assert_eq!(dead.text(), "dead");
    // The broker's clock stands still: nothing comes again before it is moved.
    assert!(messages.try_recv().is_err());
    let mut again = BTreeMap::new();
    let mut seconds = 0;
    while again.len() < 3 {
        broker.clock().advance(Duration::from_secs(1));
        seconds += 1;
        assert!(seconds < 1_000, "only {again:?} came again");
        let wait = tokio::time::timeout(Duration::from_millis(20), messages.recv()).await;
        if let Ok(Some(message)) = wait {
            assert_eq!(message.topic(), "orders", "the application does not see the retry topic");
            again.insert(text(&message), (message.delivery_attempt(), seconds));
        }
    }
    assert!(again.values().all(|(attempt, _)| *attempt == 2), "{again:?}");
    assert!(again["retry"].1 >= 10 && again["panic"].1 >= 10, "the first step of the ladder: {again:?}");
    assert!(again["later"].1 >= 30, "the next longer time that brokers know: {again:?}");
    assert!(consumer.shutdown().await);
}

async fn divided_by<S: AssignmentStrategy + 'static>(strategy: fn() -> S) {
    let broker = TestBroker::start(&[]);
    let first = connect(&broker).await;
    let producer = producer(&first).await;
    send(&producer, "makes the topic").await;
    let queues: BTreeSet<_> =
        producer.queues(&TopicName::new("orders").unwrap()).await.unwrap().into_iter().collect();
    let clients = [first, connect(&broker).await, connect(&broker).await];
    let handled = Arc::new(Mutex::new(BTreeSet::new()));
    let mut members = Vec::new();
    for client in &clients {
        let handled = Arc::clone(&handled);
        let handler = move |message: ReceivedMessage| {
            handled.lock().unwrap().insert(text(&message));
            async { Verdict::Done }
        };
        let builder = client.push_consumer("CG_shared").subscribe("orders", "*").assignment(strategy());
        members.push(builder.handler(handler).start().await.unwrap());
    }
    let each_has_its_own = |members: &[PushConsumer]| {
        wait::until(&format!("{} divides the queues", strategy().name()), || {
            let shares: Vec<_> = members.iter().map(held).collect();
            let together: BTreeSet<_> = shares.iter().flatten().cloned().collect();
            let count: usize = shares.iter().map(BTreeSet::len).sum();
            (together == queues && count == queues.len()).then_some(())
        });
    };
    each_has_its_own(&members);
    assert!(members.remove(1).shutdown().await);
    each_has_its_own(&members);
    for queue in &queues {
        let message = Message::new("orders", queue.queue_id.to_string()).unwrap();
        producer.send_to_queue(message, queue).await.unwrap();
    }
    wait::until("every queue has a reader", || {
        let handled = handled.lock().unwrap();
        queues.iter().all(|queue| handled.contains(&queue.queue_id.to_string())).then_some(())
    });
    for member in members {
        assert!(member.shutdown().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_divide_the_queues_averagely() {
    divided_by(|| Averagely).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_divide_the_queues_in_a_circle() {
    divided_by(|| Circle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_divide_the_queues_by_consistent_hash() {
    divided_by(ConsistentHash::default).await;
}

async fn begin(client: &Client, group: &str, start: StartPosition) -> (PushConsumer, Messages) {
    let (handler, messages) = mailbox(|_| Verdict::Done);
    let builder = client.push_consumer(group).subscribe("orders", "*").start_at(start);
    (builder.handler(handler).start().await.unwrap(), messages)
}

/// So many messages, which are all that there are.
async fn drain(consumer: &PushConsumer, messages: &mut Messages, count: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..count {
        seen.insert(text(&next(messages).await));
    }
    let nothing_left = async { while consumer.lag().await.unwrap().total() > 0 {} };
    tokio::time::timeout(PATIENCE, nothing_left).await.expect("everything is finished");
    assert!(messages.try_recv().is_err(), "nothing beyond {seen:?}");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_begin_with_the_first_message_with_the_last_or_at_a_time() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = producer(&client).await;
    for body in ["early 1", "early 2"] {
        send(&producer, body).await;
    }
    let sent = SystemClock.now();
    let between: Timestamp =
        wait::until("a later time", || Some(SystemClock.now()).filter(|now| *now > sent));
    for body in ["late 1", "late 2", "late 3"] {
        send(&producer, body).await;
    }
    let (first, mut of_first) = begin(&client, "CG_first", StartPosition::First).await;
    assert_eq!(drain(&first, &mut of_first, 5).await.len(), 5);
    let (timed, mut of_timed) = begin(&client, "CG_timed", StartPosition::At(between)).await;
    let late = ["late 1", "late 2", "late 3"].map(String::from);
    assert_eq!(drain(&timed, &mut of_timed, 3).await, late.into());
    let (last, mut of_last) = begin(&client, "CG_last", StartPosition::Last).await;
    wait::until("it has its queues", || (held(&last).len() == 4).then_some(()));
    let mut begun = 0;
    while begun < 4 {
        // Where each of its queues begins is committed at once.
        let lag = last.lag().await.unwrap();
        begun = lag.queues.iter().filter(|lag| lag.queue.topic == *"orders" && lag.messages() == 0).count();
    }
    let restarted = begin_again(last, &client, "CG_last").await;
    send(&producer, "new").await;
    let (last, mut of_restarted) = restarted;
    assert_eq!(text(&next(&mut of_restarted).await), "new");
    assert!(of_last.try_recv().is_err(), "nothing of what was there before");
    for consumer in [first, timed, last] {
        assert!(consumer.shutdown().await);
    }
}

async fn begin_again(consumer: PushConsumer, client: &Client, group: &str) -> (PushConsumer, Messages) {
    assert!(consumer.shutdown().await);
    begin(client, group, StartPosition::Last).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_of_a_new_topic_reaches_those_who_began_with_the_last_before() {
    let broker = TestBroker::start(&[]);
    let (client, other) = (connect(&broker).await, connect(&broker).await);
    let (consumer, mut messages) = begin(&client, "CG_early", StartPosition::Last).await;
    let producer = producer(&other).await;
    send(&producer, "the first there ever was").await;
    assert_eq!(text(&next(&mut messages).await), "the first there ever was");
    assert!(consumer.shutdown().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_waits_for_handlers_and_nothing_that_ended_comes_again() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let producer = producer(&client).await;
    for number in 0..20 {
        send(&producer, &number.to_string()).await;
    }
    let (started, mut starts) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let handler = {
        let gate = Arc::clone(&gate);
        move |message: ReceivedMessage| {
            started.send(text(&message)).unwrap();
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Verdict::Done
            }
        }
    };
    let builder = client.push_consumer("CG_push").subscribe("orders", "*").concurrency(4);
    let consumer = builder.handler(handler).start().await.unwrap();
    let mut begun = BTreeSet::new();
    for _ in 0..4 {
        begun.insert(tokio::time::timeout(PATIENCE, starts.recv()).await.unwrap().unwrap());
    }
    let ending = tokio::spawn(consumer.shutdown());
    tokio::task::yield_now().await;
    assert!(!ending.is_finished(), "handlers run");
    gate.add_permits(100);
    assert!(ending.await.unwrap(), "all ended in time, all offsets were committed");
    while let Ok(body) = starts.try_recv() {
        begun.insert(body);
    }
    let (rest, mut messages) = begin(&client, "CG_push", StartPosition::First).await;
    let mut seen = BTreeSet::new();
    while begun.union(&seen).count() < 20 {
        seen.insert(text(&next(&mut messages).await));
    }
    assert!(rest.shutdown().await);
    assert!(begun.is_disjoint(&seen), "what ended before the consumer did is not repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_offsets_has_one_broadcast_consumer() {
    let broker = TestBroker::start(&[]);
    let clients = [connect(&broker).await, connect(&broker).await];
    send(&producer(&clients[0]).await, "to all").await;
    let file = broker.scratch().join("shared.offsets");
    let broadcast = async |client: &Client| {
        let (handler, messages) = mailbox(|_| Verdict::Done);
        let builder = client.push_consumer("CG_all").subscribe("orders", "*").broadcast(&file);
        builder.handler(handler).start().await.map(|consumer| (consumer, messages))
    };
    let (first, mut messages) = broadcast(&clients[0]).await.unwrap();
    assert_eq!(text(&next(&mut messages).await), "to all");
    assert!(matches!(broadcast(&clients[1]).await, Err(Error::Config { setting: "broadcast", .. })));
    assert!(first.shutdown().await);
    let (second, mut messages) = broadcast(&clients[1]).await.unwrap();
    wait::until("it has all queues", || (held(&second).len() == 4).then_some(()));
    assert_eq!(second.lag().await.unwrap().total(), 0, "it goes on where the file says");
    assert!(messages.try_recv().is_err());
    assert!(second.shutdown().await);
}
