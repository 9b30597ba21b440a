//! A process of the producer group: debits accounts of the first database, by transactions that a message goes with.

use std::sync::Arc;
use std::time::Duration;

use mezzo_client::database::Database;
use mezzo_client::database::sqlx::Sqlite;
use mezzo_client::{
    Client, LocalError, LocalOutcome, Message, Outcome, ReceivedMessage, RollbackReason, TransactionError,
    TransactionProducer,
};
use mezzo_tests::chance::Chance;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::accounts::{self, ACCOUNTS, INITIAL, Side, debit};
use crate::journal::Journal;
use crate::process::{self, Post, Role};
use crate::storm::TOPIC;
use crate::transfer::Transfer;

/// The producer group of all processes.
pub(crate) const GROUP: &str = "PG_bank";
/// What the journal says of an outcome: what the broker confirmed to the producer …
pub(crate) const COMMITTED: &str = "committed";
pub(crate) const ROLLED_BACK: &str = "rolled-back";
/// … because a check-back came before the local transaction …
pub(crate) const FENCED: &str = "fenced";
/// … that nothing is confirmed …
pub(crate) const UNKNOWN: &str = "unknown";
/// … that nothing was begun …
pub(crate) const NOT_BEGUN: &str = "not-begun";
/// … that database and broker disagree: must not happen …
pub(crate) const CONFLICT: &str = "conflict";
/// … and that this process died between COMMIT and END.
pub(crate) const LOST_END: &str = "lost-end";

/// Transfers at one time.
const TELLERS: u64 = 4;
/// Longest pause of a teller between two transfers, in milliseconds.
const PAUSE_MS_MAX: u64 = 40;
/// Pause after a transfer that could not be begun: the broker is away.
const AWAY_MS: u64 = 100;
/// Longest time that a slow local transaction holds the database, in milliseconds: above the broker's
/// `transaction.timeout`.
const SLOW_MS_MAX: u64 = 2_500;

/// What is special about a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Its local transaction fails after the debit.
    Fails,
    /// It wants more than there is.
    Overdraws,
    /// Its local transaction takes long, and all others wait for the database.
    Slow,
    /// Its process dies between COMMIT and END.
    LosesEnd,
}

impl Kind {
    fn draw(chance: &mut Chance, is_careless: bool) -> Self {
        match chance.below(1_000) {
            // there is little time to be caught
            0..100 if is_careless => Self::Slow,
            _ if is_careless => Self::Plain,
            0..100 => Self::Fails,
            100..130 => Self::Overdraws,
            130..136 => Self::Slow,
            136..141 => Self::LosesEnd,
            _ => Self::Plain,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the customer thought better of it")]
struct ThoughtBetter;

struct Teller {
    client: Client,
    producer: TransactionProducer,
    db: Database<Sqlite>,
    journal: Arc<Journal>,
    name: String,
    is_careless: bool,
    chance: Chance,
}

/// Works until it is killed; once `resting`, only answers the broker's questions.
pub(crate) async fn run(post: Post, mut chance: Chance, resting: watch::Receiver<bool>) {
    let connections = u32::try_from(TELLERS).expect("a few") + 2;
    let db = accounts::open(&post.folder, Side::Debits, connections).await;
    let journal = Arc::new(Journal::open(&post.folder, &post.name()));
    let is_careless = post.role == Role::CarelessProducer;
    let (client, producer) = join(&post, &db, &journal).await;
    for number in 0..TELLERS {
        let teller = Teller {
            client: client.clone(),
            producer: producer.clone(),
            db: db.clone(),
            journal: Arc::clone(&journal),
            name: format!("{}.{}.{number}", post.name(), post.generation),
            is_careless,
            chance: Chance::new(chance.below(u64::MAX)),
        };
        tokio::spawn(teller.work(resting.clone()));
    }
    std::future::pending::<()>().await;
}

/// A member of the group, as soon as the broker is there.
async fn join(post: &Post, db: &Database<Sqlite>, journal: &Journal) -> (Client, TransactionProducer) {
    let client = Client::connect(&post.name_server).await.expect("an address");
    loop {
        let producer = client.transaction_producer(GROUP);
        let producer = if post.role == Role::CarelessProducer {
            let db = db.clone();
            producer.check_back(move |half: ReceivedMessage| look(db.clone(), half))
        } else {
            producer.database(db)
        };
        match producer.start().await {
            Ok(producer) => return (client, producer),
            Err(error) => {
                journal.note("not-started", "-", &error.to_string());
                sleep(Duration::from_millis(AWAY_MS)).await;
            }
        }
    }
}

/// As many services answer: takes "not there" for "will never be there".
async fn look(db: Database<Sqlite>, half: ReceivedMessage) -> Result<LocalOutcome, LocalError> {
    let transfer = half.keys().next().unwrap_or_default();
    let is_there = accounts::is_debited(db.pool(), transfer).await?;
    Ok(if is_there { LocalOutcome::Commit } else { LocalOutcome::Rollback })
}

impl Teller {
    async fn work(mut self, resting: watch::Receiver<bool>) {
        for number in 0_u64.. {
            if *resting.borrow() {
                return;
            }
            let kind = Kind::draw(&mut self.chance, self.is_careless);
            let account = |chance: &mut Chance| i64::try_from(chance.below(ACCOUNTS.unsigned_abs())).unwrap();
            let transfer = Transfer {
                name: format!("{}.{number}", self.name),
                from: account(&mut self.chance),
                to: account(&mut self.chance),
                amount: if kind == Kind::Overdraws {
                    2 * INITIAL
                } else {
                    1 + i64::try_from(self.chance.below(100)).unwrap()
                },
            };
            let is_begun = self.transfer(&transfer, kind).await;
            let pause_ms = if is_begun { self.chance.below(PAUSE_MS_MAX) } else { AWAY_MS };
            // customers come one after another
            sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    /// Whether a local transaction may have run.
    async fn transfer(&mut self, transfer: &Transfer, kind: Kind) -> bool {
        let message = Message::builder(TOPIC).key(&transfer.name).body(transfer.text()).build().unwrap();
        let slow = Duration::from_millis(self.chance.below(SLOW_MS_MAX));
        if self.is_careless {
            let wait = if kind == Kind::Slow { slow } else { Duration::ZERO };
            let said = self.producer.send_in_transaction(message, async |_| {
                let mut tx = self.db.pool().begin().await?;
                debit(&mut tx, transfer).await?;
                sleep(wait).await;
                tx.commit().await?;
                Ok(LocalOutcome::Commit)
            });
            return self.note(transfer, said.await);
        }
        let mut is_cut_off = false;
        let said = self.producer.transaction(&self.db, message, async |tx| {
            debit(tx, transfer).await?;
            match kind {
                Kind::Fails => return Err(ThoughtBetter.into()),
                // the work itself takes so long
                Kind::Slow => sleep(slow).await,
                // from here on no word of this process reaches the broker
                Kind::LosesEnd => {
                    is_cut_off = true;
                    self.client.shutdown().await;
                }
                Kind::Plain | Kind::Overdraws => {}
            }
            Ok(())
        });
        let said = said.await;
        if is_cut_off {
            self.journal.note(LOST_END, &transfer.name, &format!("{said:?}"));
            process::signal(std::process::id(), "KILL");
        }
        self.note(transfer, said)
    }

    /// Whether a local transaction may have run.
    fn note(&self, transfer: &Transfer, said: Result<Outcome, TransactionError>) -> bool {
        let (what, detail) = match said {
            Ok(Outcome::Committed(_)) => (COMMITTED, String::new()),
            Ok(Outcome::RolledBack(_, RollbackReason::Fenced)) => (FENCED, String::new()),
            Ok(Outcome::RolledBack(_, why)) => (ROLLED_BACK, why.to_string()),
            Ok(Outcome::Unknown(_, why)) => (UNKNOWN, why.to_string()),
            Err(error @ TransactionError::Conflict { .. }) => (CONFLICT, error.to_string()),
            Err(error) => (NOT_BEGUN, error.to_string()),
        };
        self.journal.note(what, &transfer.name, &detail);
        what != NOT_BEGUN
    }
}
