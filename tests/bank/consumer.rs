//! A process of the consumer group: credits accounts of the second database, once for each message.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mezzo_client::database::sqlx::Sqlite;
use mezzo_client::database::{Database, Processed, process_once};
use mezzo_client::{Client, LocalError, ReceivedMessage, Verdict};
use mezzo_tests::chance::Chance;
use tokio::time::sleep;

use crate::accounts::{self, Side, credit};
use crate::journal::Journal;
use crate::process::{Post, Role};
use crate::storm::TOPIC;
use crate::transfer::Transfer;

/// The consumer group of all processes.
pub(crate) const GROUP: &str = "CG_bank";
/// What the journal says of a delivery: the credit was given …
pub(crate) const CREDITED: &str = "credited";
/// … had been given before …
pub(crate) const AGAIN: &str = "again";
/// … could not be given …
pub(crate) const FAILED: &str = "failed";
/// … and, afterwards, that the message was sent back although all was well.
pub(crate) const SENT_BACK: &str = "sent-back";

/// Handlers at one time.
const HANDLERS: usize = 4;
/// Of so many first deliveries one is sent back although it was processed.
const SENT_BACK_ONE_IN: u64 = 25;
/// How long it is away.
const SENT_BACK_FOR: Duration = Duration::from_secs(1);
/// Pause before the next attempt to join.
const AWAY: Duration = Duration::from_millis(100);

struct Clerk {
    db: Database<Sqlite>,
    journal: Journal,
    role: Role,
    chance: Mutex<Chance>,
}

/// Works until it is killed.
pub(crate) async fn run(post: Post, chance: Chance) {
    let clerk = Arc::new(Clerk {
        db: accounts::open(&post.folder, Side::Credits, 4).await,
        journal: Journal::open(&post.folder, &post.name()),
        role: post.role,
        chance: Mutex::new(chance),
    });
    let client = Client::connect(&post.name_server).await.expect("an address");
    loop {
        let posted = Arc::clone(&clerk);
        let handler = move |message: ReceivedMessage| {
            let clerk = Arc::clone(&posted);
            async move { clerk.handle(message).await }
        };
        let consumer =
            client.push_consumer(GROUP).subscribe(TOPIC, "*").concurrency(HANDLERS).handler(handler).start();
        match consumer.await {
            Ok(_consumer) => std::future::pending::<()>().await,
            Err(error) => {
                clerk.journal.note("not-started", "-", &error.to_string());
                sleep(AWAY).await;
            }
        }
    }
}

impl Clerk {
    async fn handle(&self, message: ReceivedMessage) -> Verdict {
        let body = String::from_utf8_lossy(message.body());
        let Some(transfer) = Transfer::read(&body) else {
            self.journal.note(FAILED, "-", &body);
            return Verdict::Retry;
        };
        match self.credit(&transfer, &message).await {
            Ok(true) => self.journal.note(CREDITED, &transfer.name, ""),
            Ok(false) => self.journal.note(AGAIN, &transfer.name, ""),
            Err(error) => {
                self.journal.note(FAILED, &transfer.name, &error.to_string());
                return Verdict::RetryAfter(SENT_BACK_FOR);
            }
        }
        let is_first = message.delivery_attempt() == 1;
        if is_first && self.chance.lock().expect("no handler panics").below(SENT_BACK_ONE_IN) == 0 {
            self.journal.note(SENT_BACK, &transfer.name, "");
            return Verdict::RetryAfter(SENT_BACK_FOR);
        }
        Verdict::Done
    }

    /// Whether it was given now, and not before.
    async fn credit(&self, transfer: &Transfer, message: &ReceivedMessage) -> Result<bool, LocalError> {
        if self.role == Role::CarelessConsumer {
            let mut tx = self.db.pool().begin().await?;
            credit(&mut tx, transfer, message).await?;
            tx.commit().await?;
            return Ok(message.delivery_attempt() == 1);
        }
        let once =
            process_once(&self.db, GROUP, message, async |tx| Ok(credit(tx, transfer, message).await?));
        match once.await {
            Ok(done) => Ok(matches!(done, Processed::Done(()))),
            Err(error) => Err(error.into()),
        }
    }
}
