//! Spans and log lines as a subscriber sees them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Once};

use mezzo_client::config::BackoffPolicy;
use mezzo_client::{Client, LocalOutcome, Message, ReceivedMessage, Verdict};
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, registry};

use crate::fake::{FakeBroker, settings};

type Fields = BTreeMap<&'static str, String>;

/// What a span or an event says.
#[derive(Default)]
struct Collected(Fields);

impl Visit for Collected {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

/// All spans that ever were, and events.
#[derive(Default)]
struct Memory {
    spans: Vec<(&'static str, Fields)>,
    /// Where the spans are whose numbers are in use.
    live: BTreeMap<u64, usize>,
    events: Vec<(Level, Fields)>,
}

thread_local! {
    /// Where this thread's spans and events go: a test's runtime runs everything on the test's thread.
    static COLLECTED_HERE: RefCell<Option<Arc<Mutex<Memory>>>> = const { RefCell::new(None) };
}

/// What the client said at debug level on one thread.
struct Collector(Arc<Mutex<Memory>>);

impl Collector {
    /// Collects on this thread from now on.
    fn install() -> Self {
        // One subscriber for all threads: what is asked for by a thread without one is switched off for all others too.
        static GLOBAL: Once = Once::new();
        GLOBAL.call_once(|| tracing::subscriber::set_global_default(registry().with(PerThread)).unwrap());
        let memory = Arc::new(Mutex::new(Memory::default()));
        COLLECTED_HERE.set(Some(Arc::clone(&memory)));
        Self(memory)
    }

    /// The fields of all spans with this name.
    fn spans(&self, name: &str) -> Vec<Fields> {
        let memory = self.0.lock().unwrap();
        memory.spans.iter().filter(|(of, _)| *of == name).map(|(_, fields)| fields.clone()).collect()
    }

    /// The events with this message.
    fn events(&self, message: &str) -> Vec<(Level, Fields)> {
        let memory = self.0.lock().unwrap();
        let says = |fields: &Fields| fields.get("message").is_some_and(|text| text == message);
        memory.events.iter().filter(|(_, fields)| says(fields)).cloned().collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        COLLECTED_HERE.set(None);
    }
}

/// Hands everything to the collector of its thread.
struct PerThread;

/// Does something with the memory of this thread, if it has one.
fn here(what: impl FnOnce(&mut Memory)) {
    COLLECTED_HERE.with_borrow(|memory| {
        if let Some(memory) = memory {
            what(&mut memory.lock().unwrap());
        }
    });
}

impl<S: Subscriber> Layer<S> for PerThread {
    fn register_callsite(&self, _metadata: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        metadata.target().starts_with("mezzo_client")
            && *metadata.level() <= Level::DEBUG
            && COLLECTED_HERE.with_borrow(Option::is_some)
    }

    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, _context: Context<'_, S>) {
        let mut collected = Collected::default();
        span.record(&mut collected);
        here(|memory| {
            memory.live.insert(id.into_u64(), memory.spans.len());
            memory.spans.push((span.metadata().name(), collected.0));
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _context: Context<'_, S>) {
        let mut collected = Collected::default();
        values.record(&mut collected);
        here(|memory| {
            if let Some(place) = memory.live.get(&id.into_u64()).copied() {
                memory.spans[place].1.extend(collected.0);
            }
        });
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut collected = Collected::default();
        event.record(&mut collected);
        here(|memory| memory.events.push((*event.metadata().level(), collected.0)));
    }
}

async fn broker() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 4);
    broker
}

fn order() -> Message {
    Message::new("orders", "x").unwrap()
}

fn has(fields: &Fields, expected: &[(&str, &str)]) -> bool {
    expected.iter().all(|(name, value)| fields.get(name).is_some_and(|found| found == value))
}

#[tokio::test]
async fn sends_transactions_handlers_and_connects_have_spans_that_say_whom_they_concern() {
    let collector = Collector::install();
    let broker = broker().await;
    let client = broker.client().await;
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(order()).await.unwrap();
    let transactions = client
        .transaction_producer("payments")
        .check_back(|_: ReceivedMessage| async { Ok(LocalOutcome::Unknown) })
        .start()
        .await
        .unwrap();
    let outcome = transactions.send_in_transaction(order(), |_| async { Ok(LocalOutcome::Commit) }).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    broker.shared.lock().queues.put("orders", 1, "t", "x");
    let (sender, mut handled) = mpsc::channel(1);
    let handler = move |_: ReceivedMessage| {
        let sender = sender.clone();
        async move {
            sender.send(()).await.unwrap();
            Verdict::Done
        }
    };
    let consumer =
        client.push_consumer("readers").subscribe("orders", "*").handler(handler).start().await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(10), handled.recv()).await.unwrap().unwrap();
    consumer.shutdown().await;

    let address = broker.address();
    assert!(collector.spans("connect").iter().all(|fields| has(fields, &[("address", &address)])));
    assert_eq!(collector.spans("connect").len(), 2);
    let expected = [("topic", "orders"), ("group", "sellers"), ("broker", "fake")];
    let sends = collector.spans("send");
    assert!(sends.len() == 1 && has(&sends[0], &expected), "{sends:?}");
    let expected = [("topic", "orders"), ("group", "payments"), ("broker", "fake")];
    let prepares = collector.spans("prepare");
    assert!(prepares.len() == 1 && has(&prepares[0], &expected), "{prepares:?}");
    assert!(has(&collector.spans("local_transaction")[0], &[("group", "payments")]));
    let expected = [("group", "payments"), ("broker", "fake"), ("decision", "Commit")];
    let ends = collector.spans("end_transaction");
    assert!(ends.len() == 1 && has(&ends[0], &expected), "{ends:?}");
    let expected =
        [("topic", "orders"), ("group", "readers"), ("broker", "fake"), ("queue", "1"), ("offset", "0")];
    let handles = collector.spans("handle");
    assert!(handles.len() == 1 && has(&handles[0], &expected), "{handles:?}");
}

#[tokio::test]
async fn a_pipelined_call_has_one_span_however_many_messages_it_sends() {
    let broker = broker().await;
    let client = broker.client().await;
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(order()).await.unwrap();
    let collector = Collector::install();
    let sent = producer.send_all(std::iter::repeat_with(order).take(1_000)).await;
    assert!(sent.iter().all(Result::is_ok));
    let spans = collector.spans("send_all");
    assert!(spans.len() == 1 && has(&spans[0], &[("group", "sellers"), ("messages", "1000")]), "{spans:?}");
    assert!(collector.spans("send").is_empty());
}

#[tokio::test]
async fn a_broker_that_stays_away_is_warned_of_seldom_and_its_return_is_told_once() {
    let mut broker = broker().await;
    let collector = Collector::install();
    let mut config = settings();
    (config.reconnect, config.heartbeat_interval_ms) = (BackoffPolicy::new(1, 2), 5);
    let client = Client::builder(broker.address()).config(config).build().await.unwrap();
    let producer = client.producer("sellers").start().await.unwrap();
    producer.send(order()).await.unwrap();
    broker.go_down().await;
    let many = async {
        while collector.events("not connected").len() < 100 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), many).await.unwrap();
    let failures = collector.events("not connected");
    let warnings = failures.iter().filter(|(level, _)| *level == Level::WARN).count();
    assert!((1..=16).contains(&warnings), "{warnings} of {}", failures.len());
    broker.come_back().await;
    producer.send(order()).await.unwrap();
    let told = collector.events("connected again");
    let address = broker.address();
    assert!(!told.is_empty() && told.iter().all(|(_, fields)| has(fields, &[("address", &address)])));
    assert!(told.len() <= 2, "once for the broker, once for its name server: {told:?}");
}
