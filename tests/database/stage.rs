//! A broker, a database, and processes of a producer group that use both.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mezzo_client::admin::{Admin, TransactionFilter, TransactionInfo, TransactionOutcome};
use mezzo_client::database::Database;
use mezzo_client::{
    Client, Message, PhysicalOffset, PushConsumer, ReceivedMessage, TransactionProducer, Verdict,
};
use mezzo_tests::broker::TestBroker;
use tokio::sync::mpsc;

use crate::shop::{CONNECTIONS, Place, Shop, furnish};

/// The producer group of all members.
pub(crate) const GROUP: &str = "PG_shop";
/// The bound of every wait, far above what a healthy run needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a test happens.
pub(crate) struct Stage<D: Shop> {
    pub(crate) broker: TestBroker,
    pub(crate) place: Place,
    /// For looking, not for transactions.
    pub(crate) db: Database<D>,
    admin: Admin,
}

/// One "process" of the producer group: a client, a pool and a producer of its own.
pub(crate) struct Member<D: Shop> {
    pub(crate) client: Client,
    pub(crate) db: Database<D>,
    pub(crate) producer: TransactionProducer,
}

impl<D: Shop> Stage<D> {
    /// With an empty shop, on a broker that asks early; `None` where the database is not installed.
    pub(crate) async fn set() -> Option<Self> {
        let place = D::place().await?;
        let db = Database::new(D::pool(&place, CONNECTIONS).await);
        furnish(&db).await;
        let broker = TestBroker::start(&["transaction.timeout=1s", "transaction.check_interval=1s"]);
        let client = connect(&broker).await;
        Some(Self { admin: Admin::new(&client), broker, place, db })
    }

    /// A member of the group with so many connections.
    pub(crate) async fn member_with(&self, connections: u32) -> Member<D> {
        self.member_at(&self.place, connections).await
    }

    /// A member of the group.
    pub(crate) async fn member(&self) -> Member<D> {
        self.member_with(CONNECTIONS).await
    }

    /// A member that reaches its database another way.
    pub(crate) async fn member_at(&self, place: &Place, connections: u32) -> Member<D> {
        let db = Database::new(D::pool(place, connections).await);
        Member::join(connect(&self.broker).await, db).await
    }

    /// Transactions that are not decided.
    pub(crate) async fn open(&self) -> Vec<TransactionInfo> {
        let broker = self.broker.address().to_string();
        let page = self.admin.transactions(&broker, &TransactionFilter::default(), None).await;
        page.expect("the broker lists them").transactions
    }

    /// The only open transaction, as soon as there is one.
    pub(crate) async fn prepared(&self) -> PhysicalOffset {
        let open =
            until("a transaction is prepared", async || self.open().await.first().map(|info| info.origin));
        PhysicalOffset(open.await)
    }

    /// How a transaction was decided, as soon as it is.
    pub(crate) async fn decision(&self, origin: PhysicalOffset) -> TransactionOutcome {
        let broker = self.broker.address().to_string();
        until("the transaction is decided", async || {
            let info = self.admin.transaction(&broker, origin).await.expect("the broker shows it")?;
            Some(info.decision?.outcome)
        })
        .await
    }

    /// How often producers were asked about it.
    pub(crate) async fn asks(&self, origin: PhysicalOffset) -> u32 {
        let broker = self.broker.address().to_string();
        let info = self.admin.transaction(&broker, origin).await.expect("the broker shows it");
        info.and_then(|info| info.asks).unwrap_or(0)
    }

    /// The bodies that were delivered, once nothing is open: everything that is visible, each as often as it came.
    pub(crate) async fn delivered(&self) -> Vec<String> {
        until("no transaction is open", async || self.open().await.is_empty().then_some(())).await;
        let client = connect(&self.broker).await;
        let (consumer, mut received) = arrivals(&client).await;
        let last = client.producer("PG_last").start().await.expect("a producer starts");
        // one to each queue: behind it there is nothing
        let topic = mezzo_client::TopicName::new("orders").expect("a name");
        let queues = last.queues(&topic).await.expect("a route");
        for queue in &queues {
            let end = Message::new("orders", "end").expect("valid");
            last.send_to_queue(end, queue).await.expect("stored");
        }
        let (mut ends, mut found) = (0, Vec::new());
        while ends < queues.len() {
            let message = tokio::time::timeout(PATIENCE, received.recv()).await.expect("it arrives");
            let body = text(&message.expect("the consumer runs"));
            if body == "end" { ends += 1 } else { found.push(body) }
        }
        consumer.shutdown().await;
        found.sort();
        found
    }

    /// Both sides tell the same story, and this is it.
    pub(crate) async fn assert_sold(&self, expected: &[&str]) {
        assert_eq!(self.delivered().await, expected, "what consumers got");
        assert_eq!(crate::shop::orders(&self.db).await, expected, "what the database holds");
    }
}

impl<D: Shop> Member<D> {
    /// Joins the group.
    pub(crate) async fn join(client: Client, db: Database<D>) -> Self {
        let producer =
            client.transaction_producer(GROUP).database(&db).start().await.expect("a producer starts");
        Self { client, db, producer }
    }

    /// Gone without a word, as after a crash: open connections and transactions with it.
    pub(crate) async fn vanish(self) {
        self.client.shutdown().await;
        self.db.pool().close().await;
    }
}

/// A message about an order.
pub(crate) fn order(name: &str) -> Message {
    Message::new("orders", name.to_owned()).expect("a valid message")
}

pub(crate) fn text(message: &ReceivedMessage) -> String {
    String::from_utf8(message.body().to_vec()).expect("this test's bodies are text")
}

pub(crate) async fn connect(broker: &TestBroker) -> Client {
    Client::connect(broker.name_server().to_string()).await.expect("the broker is there")
}

/// A consumer of all orders that keeps the order of each queue, and what it gets.
pub(crate) async fn arrivals(client: &Client) -> (PushConsumer, mpsc::Receiver<ReceivedMessage>) {
    let (sender, received) = mpsc::channel(1_000);
    let handler = move |message: ReceivedMessage| {
        let sender = sender.clone();
        async move {
            let _ = sender.send(message).await;
            Verdict::Done
        }
    };
    let consumer =
        client.push_consumer("CG_shop").subscribe("orders", "*").ordered_handler(handler).start().await;
    (consumer.expect("a consumer starts"), received)
}

/// Asks `what` until it gives something.
pub(crate) async fn until<T>(name: &str, mut what: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = what().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {} s: {name}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Names `prefix0`, `prefix1`, …
pub(crate) fn names(prefix: &str, count: usize) -> BTreeSet<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}
