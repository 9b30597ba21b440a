//! `mezzo tx`: looks at transactions, and does something about those that nobody answers for.

use std::{sync::Arc, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use mezzo_client::{
    Client, PhysicalOffset,
    admin::{
        Admin, CheckWish, Decided, TransactionFilter, TransactionInfo, TransactionOutcome, TransactionState,
    },
};
use mezzo_protocol::time::Clock as _;
use serde_json::Value;

use super::{
    cluster::{Cluster, Failure},
    output::{conclude, remark, say},
    timeline,
};
use crate::clock::SystemClock;

/// Transactions asked for at a time.
const PAGE: u32 = 500;

const EXAMPLES: &str = "\
Examples:
  mezzo tx list --state in-doubt
  mezzo tx list --group order-service --older-than 5m --json
  mezzo tx show 275
  mezzo tx commit 275 --reason 'paid, see ticket 7'
  mezzo tx rollback 275 --force        although its producer may still decide it
  mezzo tx resume 275                  ask its producer group again
  mezzo tx policy show order-service   how its transactions are asked about";

const LIST: &str = "\
Examples:
  mezzo tx list                                    all that are open
  mezzo tx list --state in-doubt --older-than 5m
  mezzo tx list --group order-service --json | jq .origin";

const SHOW: &str = "\
Examples:
  mezzo tx show 275
  mezzo tx show 275 --json
  mezzo tx show 275 --broker 127.0.0.1:10911       if several brokers have a transaction 275";

const DECIDE: &str = "\
Examples:
  mezzo tx commit 275 --reason 'paid, see ticket 7'
  mezzo tx rollback 275 --force                    although its producer may still decide it

The first decision stands: look into the producer's database before you decide.";

const POLICY: &str = "\
Examples:
  mezzo tx policy set order-service interval=1m,attempts=30
  mezzo tx policy set carts max_age=1h,then=rollback

A change holds from each transaction's next deadline on. A message's own MEZZO_CHECK goes over its group's policy.";

const RESUME: &str = "\
Examples:
  mezzo tx resume 275                              its producers work again: ask them
  mezzo tx list --state in-doubt --json | jq .origin | xargs -n 1 mezzo tx resume";

/// Transactions of a cluster.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Transactions {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List open transactions: prepared ones and those in doubt.
    #[command(after_help = LIST)]
    List(List),
    /// Show one transaction, open or decided, with its timeline.
    #[command(after_help = SHOW)]
    Show(One),
    /// Commit a transaction in place of its producer.
    #[command(after_help = DECIDE)]
    Commit(Decide),
    /// Roll a transaction back in place of its producer.
    #[command(after_help = DECIDE)]
    Rollback(Decide),
    /// Have a transaction in doubt asked about again, from zero.
    #[command(after_help = RESUME)]
    Resume(One),
    /// When and how often the transactions of a producer group are asked about.
    #[command(subcommand)]
    Policy(Policy),
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Show the policy that holds for a group.
    Show(Group),
    /// Give a group a policy of its own: the broker's, with these parts changed.
    #[command(after_help = POLICY)]
    Set(SetPolicy),
    /// Let a group follow the broker's policy again.
    Clear(Group),
}

#[derive(Debug, Args)]
struct Group {
    /// The producer group.
    group: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct SetPolicy {
    #[command(flatten)]
    group: Group,
    /// Any of first=6s,interval=30s,backoff=150,attempts=15,max_age=24h,then=park (or then=rollback).
    #[arg(value_parser = CheckWish::parse)]
    policy: CheckWish,
}

#[derive(Debug, Args)]
struct List {
    /// Only those in this state.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Only those of this producer group.
    #[arg(long)]
    group: Option<String>,
    /// Only those whose message goes to this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only those whose message has this unique key (a producer's transaction id).
    #[arg(long)]
    key: Option<String>,
    /// Only those prepared at least this long ago, such as 90s, 5m or 2h.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// At most this many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct One {
    /// The transaction: its number as `mezzo tx list` prints it.
    #[arg(value_name = "TRANSACTION", value_parser = origin)]
    origin: u64,
    #[command(flatten)]
    common: Common,
}

fn origin(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "expected a number as `mezzo tx list` prints it")
}

#[derive(Debug, Args)]
struct Decide {
    #[command(flatten)]
    one: One,
    /// Why; recorded with the decision.
    #[arg(long)]
    reason: Option<String>,
    /// Also while its producer may still decide it.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct Common {
    /// Print JSON, one transaction per line.
    #[arg(long)]
    json: bool,
    /// Only this broker; without it all that the name server knows are asked.
    #[arg(long, value_name = "HOST:PORT")]
    broker: Option<String>,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Prepared,
    InDoubt,
}

/// A cluster and how to print what it says.
struct Session {
    client: Client,
    admin: Admin,
    brokers: Vec<Arc<str>>,
    json: bool,
}

impl Session {
    async fn open(common: &Common) -> Result<Self, Failure> {
        let client = common.cluster.client().await?;
        let admin = Admin::new(&client);
        let brokers = match &common.broker {
            Some(broker) => vec![broker.as_str().into()],
            None => admin.brokers().await?,
        };
        Ok(Self { client, admin, brokers, json: common.json })
    }

    /// The broker that holds the transaction, and what it knows.
    async fn find(&self, origin: u64) -> Result<(Arc<str>, TransactionInfo), Failure> {
        let mut found = None;
        for broker in &self.brokers {
            if let Some(transaction) = self.admin.transaction(broker, PhysicalOffset(origin)).await?
                && let Some((first, _)) = found.replace((Arc::clone(broker), transaction))
            {
                return Err(Failure::usage(format!(
                    "{first} and {broker} both have a transaction {origin}: say which with --broker"
                )));
            }
        }
        found.ok_or_else(|| {
            Failure::new(format!(
                "no transaction {origin} is known: `mezzo tx list` prints the open ones; decided ones are forgotten \
                 after history.horizon"
            ))
        })
    }

    fn print(&self, broker: &str, transaction: &TransactionInfo) {
        let text = if self.json { json(broker, transaction) } else { timeline::text(transaction, broker) };
        conclude(&text);
    }
}

fn json(broker: &str, transaction: &TransactionInfo) -> String {
    let mut value = serde_json::to_value(transaction).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert("broker".to_owned(), broker.into());
    }
    value.to_string()
}

/// Carries out one of the subcommands.
pub(super) async fn run(arguments: Transactions) -> Result<(), Failure> {
    let common = match &arguments.command {
        Command::List(list) => &list.common,
        Command::Show(one) | Command::Resume(one) => &one.common,
        Command::Commit(decide) | Command::Rollback(decide) => &decide.one.common,
        Command::Policy(Policy::Show(group) | Policy::Clear(group)) => &group.common,
        Command::Policy(Policy::Set(set)) => &set.group.common,
    };
    let session = Session::open(common).await?;
    let done = match &arguments.command {
        Command::List(wanted) => list(&session, wanted).await,
        Command::Show(one) => {
            let (broker, transaction) = session.find(one.origin).await?;
            session.print(&broker, &transaction);
            Ok(())
        }
        Command::Commit(wanted) => decide(&session, wanted, TransactionOutcome::Committed).await,
        Command::Rollback(wanted) => decide(&session, wanted, TransactionOutcome::RolledBack).await,
        Command::Resume(one) => resume(&session, one.origin).await,
        Command::Policy(wanted) => policy(&session, wanted).await,
    };
    session.client.shutdown().await;
    done
}

/// On each broker of the cluster.
async fn policy(session: &Session, wanted: &Policy) -> Result<(), Failure> {
    for broker in &session.brokers {
        let info = match wanted {
            Policy::Show(group) => session.admin.check_policy(broker, &group.group).await?,
            Policy::Set(set) => {
                session.admin.set_check_policy(broker, &set.group.group, Some(&set.policy)).await?
            }
            Policy::Clear(group) => session.admin.set_check_policy(broker, &group.group, None).await?,
        };
        let line = if session.json {
            let mut value = serde_json::to_value(&info).unwrap_or_default();
            if let Value::Object(fields) = &mut value {
                fields.insert("broker".to_owned(), (&**broker).into());
            }
            value.to_string()
        } else {
            let whose = if info.own { "its own" } else { "the broker's" };
            format!("{} on {broker}: {} ({whose})", info.group, info.policy)
        };
        conclude(&line);
    }
    Ok(())
}

async fn list(session: &Session, wanted: &List) -> Result<(), Failure> {
    let mut filter = TransactionFilter {
        state: wanted.state.map(|state| match state {
            State::Prepared => TransactionState::Prepared,
            State::InDoubt => TransactionState::InDoubt,
        }),
        group: wanted.group.clone(),
        topic: wanted.topic.clone(),
        unique_key: wanted.key.clone(),
        older_than_ms: wanted.older_than.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        limit: None,
    };
    let now_ms = SystemClock.now().as_ms();
    let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    let mut left = limit;
    let mut more = false;
    for broker in &session.brokers {
        // what this one has is not known
        more |= left == 0;
        let mut after = None;
        while left > 0 {
            filter.limit = Some(u32::try_from(left).unwrap_or(PAGE).min(PAGE));
            let page = session.admin.transactions(broker, &filter, after).await?;
            for transaction in page.transactions.iter().take(left) {
                let heard = left < limit || session.json || say(HEADING);
                let line =
                    if session.json { json(broker, transaction) } else { row(broker, transaction, now_ms) };
                if !(heard && say(&line)) {
                    return Ok(());
                }
                left -= 1;
            }
            after = page.next.map(PhysicalOffset);
            if after.is_none() {
                break;
            }
            more |= left == 0;
        }
    }
    if more {
        remark(&format!("there may be more; --limit {} prints them", wanted.limit.saturating_mul(10)));
    }
    if left == limit && !session.json {
        conclude("no open transaction matches");
    }
    Ok(())
}

const HEADING: &str =
    "TRANSACTION   STATE     AGE        ASKS  GROUP                 TOPIC/QUEUE           BROKER";

fn row(broker: &str, transaction: &TransactionInfo, now_ms: u64) -> String {
    let age_s = now_ms.saturating_sub(transaction.prepared_at_ms.unwrap_or(now_ms)) / 1000;
    let age = humantime::format_duration(Duration::from_secs(age_s)).to_string().replace(' ', "");
    let place = transaction.topic.as_ref().zip(transaction.queue);
    format!(
        "{:<13} {:<9} {age:<10} {:>4}  {:<21} {:<21} {broker}",
        transaction.origin,
        transaction.state.name(),
        transaction.asks.unwrap_or(0),
        transaction.group.as_deref().unwrap_or("-"),
        place.map_or_else(|| "-".to_owned(), |(topic, queue)| format!("{topic}/{queue}")),
    )
}

async fn decide(session: &Session, wanted: &Decide, outcome: TransactionOutcome) -> Result<(), Failure> {
    let origin = wanted.one.origin;
    let (broker, _) = session.find(origin).await?;
    let reason = wanted.reason.as_deref();
    let said = session.admin.decide(&broker, PhysicalOffset(origin), outcome, reason, wanted.force).await?;
    match said {
        Decided::Now(_) | Decided::Already(_) => {
            // the answer says how it ended; what happened before is read back
            let (broker, transaction) = session.find(origin).await?;
            session.print(&broker, &transaction);
            Ok(())
        }
        Decided::Conflict(transaction) => Err(Failure::new(format!(
            "transaction {origin} is {} already; the first decision stands (`mezzo tx show {origin}`)",
            transaction.state.name()
        ))),
        Decided::StillPrepared(_) => Err(Failure::new(format!(
            "transaction {origin} is still PREPARED: its producer may be about to decide it; add --force to decide it \
             now, or wait until it is IN_DOUBT"
        ))),
    }
}

async fn resume(session: &Session, origin: u64) -> Result<(), Failure> {
    let (broker, _) = session.find(origin).await?;
    session.admin.resume(&broker, PhysicalOffset(origin)).await?;
    let (broker, transaction) = session.find(origin).await?;
    session.print(&broker, &transaction);
    Ok(())
}
