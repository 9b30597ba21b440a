//! The whole run: five processes, what kills and freezes them, and the wait until all is settled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mezzo_client::Client;
use mezzo_client::admin::{Admin, TransactionFilter, TransactionInfo};
use mezzo_client::database::Database;
use mezzo_client::database::sqlx::Sqlite;
use mezzo_tests::binary::Binary;
use mezzo_tests::chance::Chance;
use tokio::runtime::Runtime;

use crate::accounts::{self, Side};
use crate::audit::Books;
use crate::process::{Post, Process, Role, signal};
use crate::{consumer, journal, ledger};

/// Where the messages go.
pub(crate) const TOPIC: &str = "bank";
/// Processes of each group.
const MEMBERS: u32 = 2;
/// Longest time between two faults, in milliseconds.
const CALM_MS_MAX: u64 = 1_500;
/// Longest time that a killed process stays away, in milliseconds.
const AWAY_MS_MAX: u64 = 1_000;
/// Longest time that a process stands still, in milliseconds: above `transaction.timeout`, so that the other process of
/// its group is asked about what it has just prepared.
const FROZEN_MS_MAX: u64 = 3_000;
/// Every so many faults the books are looked at while the storm goes on.
const GLANCE_EVERY: u32 = 10;
/// The bound of everything that is left when the faults stop: transactions are asked about, backlogs are worked off,
/// what was sent back comes again.
pub(crate) const SETTLED_WITHIN: Duration = Duration::from_secs(180);
/// How often the state is looked at until then.
const LOOK: Duration = Duration::from_millis(250);
/// The broker asks early and often, and meets the ends of segments and checkpoints. It does not park: a database that is
/// held for long costs many asks.
const SETTINGS: [&str; 6] = [
    "transaction.timeout=1s",
    "transaction.check_interval=1s",
    "transaction.check_max=1000",
    "limits.message_size=128KiB",
    "store.segment_size=1MiB",
    "store.checkpoint_size=2MiB",
];

/// A place in the run with the process that fills it now.
struct Seat {
    post: Post,
    process: Process,
}

/// Everything that runs, and where it leaves its traces.
pub(crate) struct Bank {
    chance: Chance,
    folder: PathBuf,
    broker: Option<Binary>,
    addresses: [SocketAddr; 2],
    seats: Vec<Seat>,
    runtime: Runtime,
    debits: Database<Sqlite>,
    credits: Database<Sqlite>,
    /// By what befell whom.
    pub(crate) faults: BTreeMap<String, u32>,
    /// What was wrong while the storm went on.
    pub(crate) wrong: Vec<String>,
    is_resting: bool,
}

impl Bank {
    /// Everything running, with full accounts.
    pub(crate) fn open(folder: &Path, [producers, consumers]: [Role; 2], mut chance: Chance) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (debits, credits) = runtime.block_on(async {
            let debits = accounts::open(folder, Side::Debits, 2).await;
            accounts::furnish(&debits, Side::Debits).await;
            let credits = accounts::open(folder, Side::Credits, 2).await;
            accounts::furnish(&credits, Side::Credits).await;
            (debits, credits)
        });
        // An address of this run's own: nobody takes its ports while the broker is dead, and no client that dials them
        // can be given the same port as its own and meet itself.
        let mut part = || u8::try_from(1 + chance.below(254)).expect("a byte");
        let free = SocketAddr::from(([127, part(), part(), part()], 0));
        let broker = serve(folder, [free, free]);
        let addresses = [broker.broker, broker.name_server];
        let mut bank = Self {
            chance,
            folder: folder.to_owned(),
            broker: Some(broker),
            addresses,
            seats: Vec::new(),
            runtime,
            debits,
            credits,
            faults: BTreeMap::new(),
            wrong: Vec::new(),
            is_resting: false,
        };
        for role in [producers, consumers] {
            for number in 0..MEMBERS {
                let seed = bank.chance.below(u64::MAX);
                let post = Post {
                    role,
                    number,
                    generation: 0,
                    seed,
                    name_server: addresses[1].to_string(),
                    folder: folder.to_owned(),
                };
                bank.seats.push(Seat { process: Process::start(&post), post });
            }
        }
        bank
    }

    /// Kills and freezes for so long.
    pub(crate) fn storm(&mut self, long: Duration) {
        let end = Instant::now() + long;
        for fault in 1_u32.. {
            if fault.is_multiple_of(GLANCE_EVERY) {
                self.glance();
            }
            if Instant::now() >= end {
                return;
            }
            self.pause(CALM_MS_MAX);
            self.replace_the_dead();
            let victim = usize::try_from(self.chance.below(u64::from(2 * MEMBERS + 1))).expect("a few");
            let freezes = self.chance.below(4) == 0;
            match (victim.checked_sub(1), freezes) {
                (None, true) => {
                    let pid = self.broker.as_ref().expect("it serves").pid();
                    self.freeze("broker", pid);
                }
                (None, false) => self.kill_broker(),
                (Some(seat), true) => {
                    let (name, pid) = (self.seats[seat].post.name(), self.seats[seat].process.pid());
                    self.freeze(&name, pid);
                }
                (Some(seat), false) => self.kill_seat(seat),
            }
        }
    }

    /// At no moment is there a credit whose debit is not committed.
    fn glance(&mut self) {
        // credits first: a debit that commits in between must not look as if it were missing
        let (credits, debits) = self.runtime.block_on(async {
            (accounts::credits(self.credits.pool()).await, accounts::debits(self.debits.pool()).await)
        });
        let debited: BTreeSet<String> = debits.into_iter().map(|debit| debit.name).collect();
        let early = credits.iter().filter(|credit| !debited.contains(&credit.transfer));
        self.wrong.extend(early.map(|credit| format!("in the storm, without a debit: {credit:?}")));
    }

    fn kill_broker(&mut self) {
        self.count("broker killed");
        self.broker.take().expect("it serves").kill();
        self.pause(AWAY_MS_MAX);
        self.broker = Some(serve(&self.folder, self.addresses));
    }

    fn kill_seat(&mut self, seat: usize) {
        let name = self.seats[seat].post.name();
        self.count(&format!("{name} killed"));
        let Seat { post, process } = self.seats.remove(seat);
        process.kill();
        self.pause(AWAY_MS_MAX);
        let seated = self.seat(post);
        self.seats.insert(seat, seated);
    }

    /// Producers die by themselves too: between COMMIT and END.
    fn replace_the_dead(&mut self) {
        for seat in 0..self.seats.len() {
            if self.seats[seat].process.has_ended() {
                let post = self.seats[seat].post.clone();
                self.count(&format!("{} died before its END", post.name()));
                self.seats[seat] = self.seat(post);
            }
        }
    }

    /// The next process for a place.
    fn seat(&mut self, mut post: Post) -> Seat {
        post.generation += 1;
        post.seed = self.chance.below(u64::MAX);
        let mut process = Process::start(&post);
        if self.is_resting {
            process.rest();
        }
        Seat { post, process }
    }

    fn freeze(&mut self, name: &str, pid: u32) {
        self.count(&format!("{name} frozen"));
        signal(pid, "STOP");
        self.pause(FROZEN_MS_MAX);
        signal(pid, "CONT");
    }

    /// Not synchronisation: the moments of the faults are what is drawn here.
    fn pause(&mut self, ms_max: u64) {
        thread::sleep(Duration::from_millis(self.chance.below(ms_max)));
    }

    fn count(&mut self, what: &str) {
        *self.faults.entry(what.to_owned()).or_default() += 1;
    }

    /// No more faults and no more transfers: waits until all is settled, and says how long that took. What is not
    /// settled `within` that time is for the audit to find.
    pub(crate) fn settle(&mut self, within: Duration) -> Result<Duration, String> {
        self.is_resting = true;
        self.seats.iter_mut().for_each(|seat| seat.process.rest());
        let began = Instant::now();
        loop {
            self.replace_the_dead();
            let left = self.left();
            if left.is_empty() {
                return Ok(began.elapsed());
            }
            if began.elapsed() > within {
                return Err(format!("not settled within {} s: {left}", within.as_secs()));
            }
            thread::sleep(LOOK);
        }
    }

    /// What is not settled, in words.
    fn left(&self) -> String {
        let mut left = String::new();
        match self.open_transactions() {
            Ok(open) if open.is_empty() => {}
            Ok(open) => {
                let _ = write!(left, "{} transactions are open; ", open.len());
            }
            Err(error) => {
                let _ = write!(left, "the broker does not list them: {error}; ");
            }
        }
        let flying = self.runtime.block_on(accounts::in_flight(self.debits.pool(), self.credits.pool()));
        if flying != 0 {
            let _ = write!(left, "{flying} credits more or less than debits; ");
        }
        let journal = journal::entries(&self.folder);
        let mut awaited: BTreeMap<&str, i64> = BTreeMap::new();
        for entry in &journal {
            match &*entry.what {
                consumer::SENT_BACK => *awaited.entry(&entry.transfer).or_default() += 1,
                consumer::AGAIN => *awaited.entry(&entry.transfer).or_default() -= 1,
                _ => {}
            }
        }
        let away = awaited.values().filter(|times| **times > 0).count();
        if away > 0 {
            let _ = write!(left, "{away} messages that were sent back have not come again; ");
        }
        left
    }

    fn open_transactions(&self) -> Result<Vec<TransactionInfo>, mezzo_client::Error> {
        let broker = self.addresses[0].to_string();
        self.runtime.block_on(async {
            let client = Client::connect(self.addresses[1].to_string()).await?;
            let page = Admin::new(&client).transactions(&broker, &TransactionFilter::default(), None).await;
            client.shutdown().await;
            Ok(page?.transactions)
        })
    }

    /// What everything says now. The broker is killed once more before: what it says is what its disk holds.
    pub(crate) fn books(&mut self) -> Books {
        self.broker.take().expect("it serves").kill();
        self.broker = Some(serve(&self.folder, self.addresses));
        let open = self.open_transactions().expect("the broker lists them");
        let recorded = ledger::read(&self.folder.join("data"));
        let (debits, credits) = (self.debits.pool(), self.credits.pool());
        self.runtime.block_on(async {
            Books {
                debit_balances: accounts::balances(debits).await,
                credit_balances: accounts::balances(credits).await,
                debits: accounts::debits(debits).await,
                credits: accounts::credits(credits).await,
                sending: accounts::barrier(debits, "send").await,
                processing: accounts::barrier(credits, "process").await,
                recorded,
                open: open.iter().map(|info| info.origin).collect(),
                journal: journal::entries(&self.folder),
            }
        })
    }

    /// What the broker shows of these transactions.
    pub(crate) fn shown(&self, origins: &[u64]) -> Vec<Option<TransactionInfo>> {
        let broker = self.addresses[0].to_string();
        self.runtime.block_on(async {
            let client = Client::connect(self.addresses[1].to_string()).await.expect("an address");
            let admin = Admin::new(&client);
            let mut shown = Vec::new();
            for origin in origins {
                shown.push(admin.transaction(&broker, (*origin).into()).await.expect("the broker answers"));
            }
            client.shutdown().await;
            shown
        })
    }

    /// Ends all processes, the broker in order; its exit code.
    pub(crate) fn close(mut self) -> Option<i32> {
        self.seats.clear();
        self.broker.take().expect("it serves").terminate().code()
    }
}

fn serve(folder: &Path, [broker, name_server]: [SocketAddr; 2]) -> Binary {
    Binary::serve_at(broker, name_server, &folder.join("data"), &folder.join("mezzo.log"), &SETTINGS)
}
