//! Where the demonstration plays: a broker in a folder that vanishes, a consumer, and what is said about it.

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use mezzo_client::{
    Client, Message, PhysicalOffset, PushConsumer, ReceivedMessage, Verdict,
    admin::{Admin, TransactionInfo, TransactionState},
};
use tokio::sync::mpsc;

use super::super::{cluster::Failure, timeline};
use crate::{
    config::{Config, ConfigError},
    server::Broker,
};

/// The topic of all messages of the demonstration.
pub(super) const TOPIC: &str = "orders";
/// Longest wait for anything; far more than the settings below need.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time between two looks at a transaction.
const LOOK: Duration = Duration::from_millis(50);
/// As safe as by default, and quick: first asked after a second and a half, again after one more, parked after the second ask.
const SETTINGS: [&str; 4] = [
    "store.ack=durable",
    "transaction.timeout=1s",
    "transaction.check_interval=1s",
    "transaction.check_max=2",
];

/// Says what happens, with the time since the start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Teller {
    started: Instant,
}

impl Teller {
    /// Time counts from now.
    pub(super) fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// One line about what `who` does.
    pub(super) fn say(self, who: &str, what: &str) {
        let line = format!("  {:5.2} s  {who:<9} {what}", self.started.elapsed().as_secs_f64());
        // a reader that is gone misses the rest
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    /// Lines that nobody in the play says.
    pub(super) fn print(self, lines: &str) {
        let _ = writeln!(std::io::stdout(), "{lines}");
    }
}

/// A broker, an operator's client, and a consumer that tells what reaches it.
pub(super) struct Stage {
    pub(super) teller: Teller,
    pub(super) admin: Admin,
    pub(super) broker_address: Arc<str>,
    name_server: String,
    client: Client,
    consumer: PushConsumer,
    arrivals: mpsc::Receiver<String>,
    broker: Broker,
}

impl Stage {
    /// Starts everything; returns when the consumer has received a first message.
    pub(super) async fn set(teller: Teller) -> Result<Self, Failure> {
        let config = config().map_err(|error| Failure::new(error.to_string()))?;
        let broker = Broker::start(config).await.map_err(|error| Failure::new(error.to_string()))?;
        let name_server = broker.name_server();
        let client = Client::connect(name_server.clone()).await?;
        let producer = client.producer("demo").start().await?;
        producer.send(message("the shop opens")?).await?;
        producer.shutdown().await;
        let (sender, arrivals) = mpsc::channel(16);
        let handler = move |message: ReceivedMessage| {
            let sender = sender.clone();
            async move {
                let body = String::from_utf8_lossy(message.body()).into_owned();
                teller.say("consumer", &format!("receives \"{body}\""));
                // nobody waits for it once the demonstration ends
                let _ = sender.send(body).await;
                Verdict::Done
            }
        };
        let consumer =
            client.push_consumer("demo-readers").subscribe(TOPIC, "*").handler(handler).start().await?;
        let mut stage = Self {
            teller,
            admin: Admin::new(&client),
            broker_address: broker.broker_address().to_string().into(),
            name_server,
            client,
            consumer,
            arrivals,
            broker,
        };
        stage.arrival("the shop opens").await?;
        Ok(stage)
    }

    /// A client of its own: a process that can die.
    pub(super) async fn process(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.name_server.clone()).await?)
    }

    /// Returns when the consumer has received `body`.
    pub(super) async fn arrival(&mut self, body: &str) -> Result<(), Failure> {
        let wanted = async {
            while let Some(arrived) = self.arrivals.recv().await {
                if arrived == body {
                    return Ok(());
                }
            }
            Err(Failure::new("the consumer has stopped"))
        };
        let late = || Failure::new(format!("\"{body}\" did not arrive within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, wanted).await.map_err(|_| late())?
    }

    /// Returns when the transaction is in this state, and prints its timeline.
    pub(super) async fn timeline(
        &self,
        origin: PhysicalOffset,
        state: TransactionState,
    ) -> Result<(), Failure> {
        let transaction = self.until(origin, state).await?;
        let text = timeline::text(&transaction, &self.broker_address);
        let indented: Vec<String> = text.lines().map(|line| format!("           | {line}")).collect();
        self.teller.print(&indented.join("\n"));
        Ok(())
    }

    async fn until(
        &self,
        origin: PhysicalOffset,
        state: TransactionState,
    ) -> Result<TransactionInfo, Failure> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let seen = self.admin.transaction(&self.broker_address, origin).await?;
            if let Some(transaction) = seen.filter(|transaction| transaction.state == state) {
                return Ok(transaction);
            }
            tokio::time::sleep(LOOK).await;
        }
        let waited = PATIENCE.as_secs();
        Err(Failure::new(format!("transaction {origin} was not {} within {waited} s", state.name())))
    }

    /// Stops everything in order.
    pub(super) async fn clear(self) -> Result<(), Failure> {
        self.consumer.shutdown().await;
        self.client.shutdown().await;
        self.broker.shutdown().await.map_err(|error| Failure::new(error.to_string()))
    }
}

/// A message of the demonstration.
pub(super) fn message(body: &str) -> Result<Message, Failure> {
    Message::new(TOPIC, body.to_owned()).map_err(|error| Failure::new(error.to_string()))
}

fn config() -> Result<Config, ConfigError> {
    let mut config = Config::temporary();
    for setting in SETTINGS {
        config.set(setting)?;
    }
    Ok(config)
}
