//! Where a behaviour is tried: a broker with names that no other behaviour uses.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::pin;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use mezzo_client::{Client, MessageQueue, Producer, TopicName};
use mezzo_tests::broker::TestBroker;
use tempfile::TempDir;

use crate::apache::{ApacheLike, Release};
use crate::{deviations, foreign};

/// Makes names differ within this process.
static PLACES: AtomicU32 = AtomicU32::new(0);

/// A broker to try a behaviour on.
pub(crate) struct Place {
    name_server: String,
    mezzo: Option<TestBroker>,
    number: u32,
    scratch: TempDir,
}

impl Place {
    fn new(name_server: String, mezzo: Option<TestBroker>) -> Self {
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        Self { name_server, mezzo, number, scratch: TempDir::new().unwrap() }
    }

    /// A client of its own, as another process would have.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.name_server.clone()).await.unwrap()
    }

    /// A producer of its own.
    pub(crate) async fn producer(&self) -> Producer {
        self.client().await.producer(self.name("PG")).start().await.unwrap()
    }

    /// The name server, `host:port`.
    pub(crate) fn name_server(&self) -> &str {
        &self.name_server
    }

    /// Whether the broker is Mezzo.
    pub(crate) const fn is_mezzo(&self) -> bool {
        self.mezzo.is_some()
    }

    /// The name of a topic or a group that nobody else uses.
    pub(crate) fn name(&self, stem: &str) -> String {
        format!("{stem}_{}_{}", process::id(), self.number)
    }

    /// A file that vanishes with the place.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The queues of the topic, once its first message is stored there.
    pub(crate) async fn queues(&self, producer: &Producer, topic: &str) -> Vec<MessageQueue> {
        producer.queues(&TopicName::new(topic).unwrap()).await.unwrap()
    }
}

/// Holds `case` on a Mezzo of its own.
pub(crate) async fn on_mezzo<Fut: Future<Output = ()>>(case: impl FnOnce(Place) -> Fut) {
    let settings = ["transaction.timeout=2s", "transaction.check_interval=2s"];
    let broker = tokio::task::spawn_blocking(move || TestBroker::start(&settings)).await.unwrap();
    case(Place::new(broker.name_server().to_string(), Some(broker))).await;
}

/// Holds `case` on the foreign broker, or holds that it fails in the way that is known.
pub(crate) async fn on_foreign<Fut: Future<Output = ()>>(name: &str, case: impl FnOnce(Place) -> Fut) {
    let Some(broker) = tokio::task::spawn_blocking(foreign::get).await.unwrap() else {
        println!("skipped: MEZZO_FOREIGN_BROKER names no launcher of a foreign broker");
        return;
    };
    judge(&broker.implementation, name, case(Place::new(broker.name_server.clone(), None))).await;
}

/// Holds `case` on a broker that speaks as a release of Apache's does, or that it fails in the way that is known.
pub(crate) async fn on_apache<Fut: Future<Output = ()>>(
    release: Release,
    name: &str,
    case: impl FnOnce(Place) -> Fut,
) {
    let broker = ApacheLike::start(release).await;
    judge(release.name(), name, case(Place::new(broker.name_server(), None))).await;
}

async fn judge(implementation: &str, name: &str, case: impl Future<Output = ()>) {
    match (failure_of(case).await, deviations::expected(implementation, name)) {
        (None, None) => {}
        (None, Some(deviation)) => panic!("{name} holds now: take it off the table ({})", deviation.reason),
        (Some(failure), Some(deviation)) if failure.contains(deviation.shows) => {
            println!("expected deviation of {implementation}: {}", deviation.reason);
        }
        (Some(failure), _) => panic!("on {implementation}: {failure}"),
    }
}

/// What a case panics with, if it does.
async fn failure_of(case: impl Future<Output = ()>) -> Option<String> {
    let mut case = pin!(case);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| case.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(())) => Poll::Ready(None),
        Err(panic) => Poll::Ready(Some(said(&*panic))),
    })
    .await
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

/// Makes of each behaviour a test for each broker.
macro_rules! behaviours {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn on_mezzo() {
                crate::place::on_mezzo(super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_the_foreign_broker() {
                crate::place::on_foreign(stringify!($name), super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_apaches_words_of_4_9() {
                crate::place::on_apache(crate::apache::Release::V4, stringify!($name), super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_apaches_words_of_5_3() {
                crate::place::on_apache(crate::apache::Release::V5, stringify!($name), super::$name).await;
            }
        }
    )* };
}
pub(crate) use behaviours;
