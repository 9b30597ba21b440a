//! Deliveries as a test sees them, and waits with a bound.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use mezzo_client::config::ConsumerConfig;
use mezzo_client::{Message, PushConsumer, PushConsumerBuilder, ReceivedMessage, Verdict};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The bound of most waits. Brokers that register new topics or count members every few seconds need their time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
const STEP: Duration = Duration::from_millis(20);

/// A push consumer and what it was given.
pub(crate) struct Inbox {
    pub(crate) consumer: PushConsumer,
    received: mpsc::UnboundedReceiver<ReceivedMessage>,
}

/// How a consumer is to handle what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handling {
    SideBySide,
    InOrder,
}

impl Inbox {
    /// Starts the consumer; every message is `Done`.
    pub(crate) async fn open(builder: PushConsumerBuilder) -> Self {
        Self::with(builder, Handling::SideBySide, |_| Verdict::Done).await
    }

    /// Starts the consumer; every message is `Done` before the next of its queue.
    pub(crate) async fn ordered(builder: PushConsumerBuilder) -> Self {
        Self::with(builder, Handling::InOrder, |_| Verdict::Done).await
    }

    /// Starts the consumer; `verdict` says what becomes of each message.
    pub(crate) async fn with(
        builder: PushConsumerBuilder,
        handling: Handling,
        verdict: impl Fn(&ReceivedMessage) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        let handler = move |message: ReceivedMessage| {
            let said = verdict(&message);
            // a test that is over listens no more
            let _ = sender.send(message);
            async move { said }
        };
        let started = match handling {
            Handling::SideBySide => builder.handler(handler).start().await,
            Handling::InOrder => builder.ordered_handler(handler).start().await,
        };
        Self { consumer: started.unwrap(), received }
    }

    pub(crate) async fn next(&mut self) -> ReceivedMessage {
        let next = tokio::time::timeout(PATIENCE, self.received.recv()).await;
        next.unwrap_or_else(|_| panic!("no message arrives")).expect("the consumer runs")
    }

    pub(crate) async fn next_text(&mut self) -> String {
        text(&self.next().await)
    }

    /// The next `count` messages.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<ReceivedMessage> {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(self.next().await);
        }
        taken
    }

    /// The bodies of the next `count` messages, which must differ.
    pub(crate) async fn set(&mut self, count: usize) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for _ in 0..count {
            let body = self.next_text().await;
            assert!(found.insert(body.clone()), "{body:?} came twice");
        }
        found
    }

    /// Nothing is there now that was not taken.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.received.try_recv().is_err()
    }

    /// How many queues of `topic` this member holds.
    pub(crate) fn queues(&self, topic: &str) -> usize {
        self.consumer.queues().iter().filter(|queue| queue.topic.as_str() == topic).count()
    }
}

pub(crate) fn text(message: &ReceivedMessage) -> String {
    String::from_utf8(message.body().to_vec()).expect("this test's bodies are text")
}

pub(crate) fn message(topic: &str, body: impl ToString) -> Message {
    Message::new(topic, body.to_string()).unwrap()
}

/// The default settings of consumers but for what `change` does.
pub(crate) fn consumer_config(change: impl FnOnce(&mut ConsumerConfig)) -> ConsumerConfig {
    let mut config = ConsumerConfig::default();
    change(&mut config);
    config
}

/// Asks `what` until it says yes.
pub(crate) async fn until(name: &str, mut what: impl FnMut() -> bool) {
    until_async(name, async || what()).await;
}

/// The same for questions that take their time.
pub(crate) async fn until_async(name: &str, mut what: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !what().await {
        assert!(Instant::now() < end, "not within {} s: {name}", PATIENCE.as_secs());
        tokio::time::sleep(STEP).await;
    }
}

/// The same answer within [`PATIENCE`], or a panic that says what was waited for.
pub(crate) async fn within<T>(name: &str, what: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(PATIENCE, what).await;
    answer.unwrap_or_else(|_| panic!("not within {} s: {name}", PATIENCE.as_secs()))
}
