//! An application and its tests against a real broker inside the test process: `cargo test -p mezzo-broker --example
//! test_your_application`. Nothing is mocked, nothing has to be installed or started, and every test has a broker of its
//! own: they run side by side, in milliseconds.
//!
//! The application is a café: the till writes sales into its ledger and onto the topic `orders`, both or neither; the
//! kitchen takes orders and sends `ready`. It runs against any name server, too:
//! `cargo run -p mezzo-broker --example test_your_application -- 127.0.0.1:9876`.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use mezzo_client::{
    Client, Error, LocalError, LocalOutcome, Message, Outcome, Producer, PushConsumer, ReceivedMessage,
    TransactionProducer, Verdict,
};

/// The till's database: which sales are written, by the unique key of their message.
#[derive(Clone, Default)]
struct Ledger {
    sales: Arc<Mutex<HashSet<String>>>,
    /// Writes get through, but their confirmations do not.
    line_is_cut: bool,
}

impl Ledger {
    async fn write(&self, sale: &str) -> io::Result<()> {
        self.sales.lock().unwrap_or_else(PoisonError::into_inner).insert(sale.to_owned());
        if self.line_is_cut { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    fn has(&self, sale: &str) -> bool {
        self.sales.lock().unwrap_or_else(PoisonError::into_inner).contains(sale)
    }
}

/// Sells: one line in the ledger and one order for the kitchen, both or neither.
struct Till {
    ledger: Ledger,
    orders: TransactionProducer,
}

impl Till {
    async fn open(client: &Client, ledger: Ledger) -> Result<Self, Error> {
        let written = ledger.clone();
        let check_back = move |half: ReceivedMessage| {
            let has_sale = written.has(half.unique_key().unwrap_or_default());
            async move { Ok::<_, LocalError>(if has_sale { LocalOutcome::Commit } else { LocalOutcome::Unknown }) }
        };
        let orders = client.transaction_producer("till").check_back(check_back).start().await?;
        Ok(Self { ledger, orders })
    }

    async fn sell(&self, what: &str) -> Result<Outcome, Box<dyn std::error::Error>> {
        let order = Message::new("orders", what.to_owned())?;
        let local = |sale: mezzo_client::TransactionContext| async move {
            self.ledger.write(sale.unique_key()).await?;
            Ok(LocalOutcome::Commit)
        };
        Ok(self.orders.send_in_transaction(order, local).await?)
    }
}

/// Makes what was ordered, and says so.
struct Kitchen {
    orders: PushConsumer,
    ready: Producer,
}

impl Kitchen {
    async fn open(client: &Client) -> Result<Self, Error> {
        let ready = client.producer("kitchen").start().await?;
        let out = ready.clone();
        let cook = move |order: ReceivedMessage| {
            let out = out.clone();
            async move {
                let Ok(what) = std::str::from_utf8(order.body()) else { return Verdict::DeadLetter };
                let Ok(plate) = Message::new("ready", what.to_owned()) else { return Verdict::DeadLetter };
                out.send(plate).await.map(drop).into()
            }
        };
        let orders = client.push_consumer("kitchen").subscribe("orders", "*").handler(cook).start().await?;
        Ok(Self { orders, ready })
    }

    /// Finishes what is on the stove.
    async fn close(self) {
        self.orders.shutdown().await;
        self.ready.shutdown().await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name_server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let client = Client::connect(name_server).await?;
    let kitchen = Kitchen::open(&client).await?;
    let till = Till::open(&client, Ledger::default()).await?;
    println!("{}", till.sell("one coffee").await?);
    kitchen.close().await;
    till.orders.shutdown().await;
    client.shutdown().await;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what is not as expected fails the test")]
mod tests {
    use std::time::Duration;

    use mezzo_broker::{Broker, Config};
    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    /// Longer than anything here takes, so that a test that would wait for ever fails.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// What a guest sees on the counter.
    struct Guest {
        plates: mpsc::Receiver<String>,
        _watching: PushConsumer,
    }

    impl Guest {
        async fn at(client: &Client) -> Self {
            let (seen, plates) = mpsc::channel(16);
            let watch = move |plate: ReceivedMessage| {
                let seen = seen.clone();
                async move { seen.send(String::from_utf8_lossy(plate.body()).into_owned()).await }
            };
            let watching = client.push_consumer("guest").subscribe("ready", "*").handler(watch).start().await;
            Self { plates, _watching: watching.unwrap() }
        }

        async fn next_plate(&mut self) -> String {
            timeout(PATIENCE, self.plates.recv()).await.unwrap().unwrap()
        }
    }

    #[tokio::test]
    async fn what_the_till_sells_the_kitchen_makes() {
        let broker = Broker::start(Config::temporary()).await.unwrap();
        let client = Client::connect(broker.name_server()).await.unwrap();
        let kitchen = Kitchen::open(&client).await.unwrap();
        let till = Till::open(&client, Ledger::default()).await.unwrap();

        assert!(till.sell("one coffee").await.unwrap().is_committed());
        assert_eq!(Guest::at(&client).await.next_plate().await, "one coffee");

        kitchen.close().await;
        client.shutdown().await;
        broker.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_sale_whose_confirmation_is_lost_is_made_all_the_same() {
        // undecided transactions are asked about soon instead of after six seconds
        let mut config = Config::temporary();
        config.transaction.timeout = Duration::from_millis(200);
        let broker = Broker::start(config).await.unwrap();
        let client = Client::connect(broker.name_server()).await.unwrap();
        let kitchen = Kitchen::open(&client).await.unwrap();
        let ledger = Ledger { line_is_cut: true, ..Ledger::default() };
        let till = Till::open(&client, ledger).await.unwrap();

        assert!(matches!(till.sell("one cake").await.unwrap(), Outcome::Unknown(..)));
        assert_eq!(Guest::at(&client).await.next_plate().await, "one cake");

        kitchen.close().await;
        client.shutdown().await;
        broker.shutdown().await.unwrap();
    }
}
