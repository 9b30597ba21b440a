//! An operator: looks at transactions, decides some while producers decide them too, has parked ones asked about again,
//! and gives groups policies of their own. In some runs the producers leave for good when faults stop, and whatever is
//! in doubt then is decided by the operator alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use mezzo_protocol::check_policy::CheckWish;
use mezzo_protocol::remoting::RemotingCommand;
use mezzo_protocol::remoting::body::transaction::{
    CheckPolicyInfo, DecisionSource, TransactionEventKind, TransactionInfo, TransactionPage, TransactionState,
};

use crate::client::{Connection, Fields};
use crate::dice::Dice;
use crate::history::{History, TransactionId, Verdict};
use crate::trace::note;
use crate::transform;
use crate::world::World;

const LIST: i32 = 7_700_001;
const SHOW: i32 = 7_700_002;
const DECIDE: i32 = 7_700_003;
const RESUME: i32 = 7_700_004;
const GET_POLICY: i32 = 7_700_005;
const SET_POLICY: i32 = 7_700_006;
const SUCCESS: i32 = 0;
const QUERY_NOT_FOUND: i32 = 22;
const ILLEGAL_OPERATION: i32 = 604;

/// Policies that groups are given; `None`: the broker's again. Parking comes soon.
const PARK: [Option<&str>; 3] = [
    None,
    Some("first=1s,interval=1s,backoff=100,attempts=1,max_age=10s,then=park"),
    Some("first=2s,interval=1s,backoff=200,attempts=3,max_age=8s,then=park"),
];
/// The same for a group whose undecided transactions the broker itself rolls back.
const ROLL_BACK: &str = "first=1s,interval=2s,backoff=150,attempts=2,max_age=12s,then=rollback";
/// The only group whose policy may roll back, so that of the others it is known that nobody but a client does.
const MAY_ROLL_BACK: &str = "PG_1";
/// Requests that are not answered while there is peace, after which the operator connects anew.
const SILENT_MAX: u32 = 2;

/// What a group's policy was asked to be.
#[derive(Debug, Default)]
pub struct Policy {
    /// What was acknowledged last; `None`: the broker's.
    stands: Option<&'static str>,
    /// What was never answered, and may come into force at any time.
    open: Vec<Option<&'static str>>,
}

struct Operator {
    world: Arc<World>,
    connection: Arc<Connection>,
}

/// The operator, to the end of the run.
pub async fn run(world: Arc<World>) {
    let mut policies: BTreeMap<String, Policy> = BTreeMap::new();
    let mut life = 0;
    loop {
        life += 1;
        let mut dice = world.dice.of(&format!("operator life {life}"));
        let (connection, _) = Connection::open(&world, &mut dice).await;
        let me = Operator { world: Arc::clone(&world), connection };
        let mut silent = 0;
        while silent < SILENT_MAX && !world.client_dies(&mut dice) {
            let answered = if world.is_chaos() {
                tokio::time::sleep(dice.pause(0, 4 * world.plan.work_pause_ms_max)).await;
                me.work(&mut dice, &mut policies).await
            } else {
                tokio::time::sleep(dice.pause(500, 2_000)).await;
                me.finish(&mut dice).await
            };
            if answered.is_some() { silent = 0 } else { silent += 1 }
        }
    }
}

fn field(name: &'static str, value: impl ToString) -> (&'static str, String) {
    (name, value.to_string())
}

impl Operator {
    async fn call(&self, code: i32, fields: Fields) -> Option<RemotingCommand> {
        self.connection.call(code, fields, b"").await
    }

    fn violation(&self, text: String) {
        self.world.history().violation(text);
    }

    /// One thing by chance; `None` if the broker did not answer.
    async fn work(&self, dice: &mut Dice, policies: &mut BTreeMap<String, Policy>) -> Option<()> {
        match dice.below(8) {
            0 => self.policy(dice, policies).await,
            1 => self.look_back(dice).await,
            _ => {
                let state = *dice.pick(&[None, Some("IN_DOUBT"), Some("PREPARED")]);
                let found = self.list(state, dice.between(1, 20)).await?;
                if found.is_empty() {
                    return Some(());
                }
                let chosen = dice.pick(&found).clone();
                match dice.below(4) {
                    0 => self.show(chosen.origin).await.map(|_| ()),
                    1 if chosen.state == TransactionState::InDoubt => self.resume(chosen.origin).await,
                    _ => self.decide(dice, &chosen).await,
                }
            }
        }
    }

    /// Decides what is in doubt, as the producers' database says.
    async fn finish(&self, dice: &mut Dice) -> Option<()> {
        for open in self.list(Some("IN_DOUBT"), 100).await? {
            self.decide(dice, &open).await?;
        }
        self.look_back(dice).await
    }

    /// Open transactions, page by page.
    async fn list(&self, state: Option<&str>, limit: u64) -> Option<Vec<TransactionInfo>> {
        let asked_ms = self.world.now_ms();
        let mut found: Vec<TransactionInfo> = Vec::new();
        loop {
            let mut fields = vec![field("limit", limit)];
            fields.extend(state.map(|state| field("state", state)));
            fields.extend(found.last().map(|last| field("after", last.origin)));
            let reply = self.call(LIST, fields).await?;
            if reply.code != SUCCESS {
                return Some(Vec::new());
            }
            let Ok(page) = TransactionPage::decode(&reply.body) else {
                self.violation("a list of transactions that cannot be read".to_owned());
                return None;
            };
            for info in page.transactions {
                if found.last().is_some_and(|last| last.origin >= info.origin) {
                    self.violation(format!("transaction at {} is listed out of order", info.origin));
                }
                if state.is_some_and(|state| info.state.name() != state) {
                    self.violation(format!("the one at {} is listed as {:?}", info.origin, info.state));
                }
                self.judge_open(&info, asked_ms);
                found.push(info);
            }
            if page.next.is_none() {
                return Some(found);
            }
        }
    }

    /// What is said to be open must not have been said to be decided before.
    fn judge_open(&self, info: &TransactionInfo, asked_ms: u64) {
        let mut history = self.world.history();
        let decided = history.transactions.iter().find(|(_, transaction)| {
            transaction.origin == Some(info.origin)
                && transaction.decided.is_some_and(|(_, told_ms)| told_ms < asked_ms)
        });
        let Some((id, transaction)) = decided else { return };
        let text = format!("transaction {id} was {:?} and is {:?}", transaction.decided, info.state);
        let lost = transaction.decided.is_some_and(|(_, told_ms)| history.decision_may_be_lost(told_ms));
        if !lost {
            history.violation(text);
        }
    }

    /// Everything about one; the number of the transaction, and what was said.
    async fn show(&self, origin: u64) -> Option<Option<(TransactionId, TransactionInfo)>> {
        let asked_ms = self.world.now_ms();
        let reply = self.call(SHOW, vec![field("origin", origin)]).await?;
        match reply.code {
            SUCCESS => Some(self.judge_info(&reply, origin, asked_ms)),
            QUERY_NOT_FOUND => {
                self.judge_unknown(origin);
                Some(None)
            }
            _ => Some(None),
        }
    }

    /// What a transaction is said to be.
    fn judge_info(
        &self,
        reply: &RemotingCommand,
        origin: u64,
        asked_ms: u64,
    ) -> Option<(TransactionId, TransactionInfo)> {
        let Ok(info) = TransactionInfo::decode(&reply.body) else {
            self.violation(format!("what is said of the transaction at {origin} cannot be read"));
            return None;
        };
        note!(self.world.trace, "operator: the transaction at {origin} is {:?}", info.state);
        let decisions = info.events.iter().filter(|event| {
            matches!(event.what, TransactionEventKind::Committed | TransactionEventKind::RolledBack)
        });
        if decisions.count() > 1 {
            self.violation(format!("the transaction at {origin} was decided twice: {:?}", info.events));
        }
        let verdict = match info.state {
            TransactionState::Committed => Some(Verdict::Commit),
            TransactionState::RolledBack => Some(Verdict::RollBack),
            TransactionState::InDoubt => {
                self.world.history().stats.saw("transaction in doubt shown", 1);
                None
            }
            TransactionState::Prepared => None,
        };
        let mut history = self.world.history();
        let id = number_of(&history, &info, origin);
        if let (Some(id), Some(verdict)) = (id, verdict) {
            if info.decision.as_ref().is_some_and(|decision| decision.source == DecisionSource::Policy) {
                self.by_policy(&mut history, id, verdict);
            }
            history.decided(id, verdict, self.world.now_ms());
        }
        drop(history);
        if verdict.is_none() {
            self.judge_open(&info, asked_ms);
        }
        id.map(|id| (id, info))
    }

    /// A policy has rolled it back: only where one may.
    fn by_policy(&self, history: &mut History, id: TransactionId, verdict: Verdict) {
        history.stats.saw("transaction decided by a policy", 1);
        let may = history.transactions.get(&id).is_some_and(|transaction| transaction.may_expire);
        if verdict != Verdict::RollBack || !may {
            history.violation(format!("transaction {id} is {verdict:?} by a policy that nobody made"));
        }
    }

    /// Nobody knows it: then it must have been lost, as only acknowledgement `memory` may.
    fn judge_unknown(&self, origin: u64) {
        if !self.world.plan.memory {
            self.violation(format!("the transaction at {origin} was there, and nobody knows it"));
        }
    }

    /// Decides, mostly as the database says.
    async fn decide(&self, dice: &mut Dice, open: &TransactionInfo) -> Option<()> {
        let Some((id, _)) = self.show(open.origin).await? else { return Some(()) };
        let force = dice.one_in(2);
        let Some(verdict) = self.verdict(dice, id) else { return Some(()) };
        let outcome = if verdict == Verdict::Commit { "COMMITTED" } else { "ROLLED_BACK" };
        let fields = vec![
            field("origin", open.origin),
            field("outcome", outcome),
            field("force", force),
            field("reason", "looked into the database"),
        ];
        let asked_ms = self.world.now_ms();
        let reply = self.call(DECIDE, fields).await?;
        let result = reply.ext_value("mezzoResult").unwrap_or_default().to_owned();
        note!(self.world.trace, "operator: transaction {id} {verdict:?} answered {} {result}", reply.code);
        match (reply.code, result.as_str()) {
            (SUCCESS, "DECIDED" | "ALREADY") => {
                let mut history = self.world.history();
                history.stats.saw("transaction decided by an operator", u64::from(result == "DECIDED"));
                history.decided(id, verdict, self.world.now_ms());
            }
            (ILLEGAL_OPERATION, "CONFLICT") => {
                let mut history = self.world.history();
                history.stats.saw("operator too late", 1);
                if let Ok(info) = TransactionInfo::decode(&reply.body)
                    && info.decision.is_some_and(|decision| decision.source == DecisionSource::Policy)
                {
                    self.by_policy(&mut history, id, verdict.other());
                }
                history.decided(id, verdict.other(), self.world.now_ms());
            }
            (ILLEGAL_OPERATION, "STILL_PREPARED") => {
                if force {
                    self.violation(format!("transaction {id} was not decided though it was forced"));
                }
                self.world.history().stats.saw("operator too early", 1);
                self.judge_open(open, asked_ms);
            }
            (QUERY_NOT_FOUND, _) => self.judge_unknown(open.origin),
            _ => {}
        }
        Some(())
    }

    /// What the operator wants of it, noted before it is asked for.
    fn verdict(&self, dice: &mut Dice, id: TransactionId) -> Option<Verdict> {
        let mut history = self.world.history();
        let transaction = history.transactions.get(&id)?;
        let of_transform = transaction.group == transform::PRODUCERS;
        let (known, many) = (transaction.database, transaction.many);
        let lost = history.messages_may_be_lost(id);
        // what moves offsets with it can only be committed by whoever moves them
        let database = if of_transform || lost {
            Verdict::RollBack
        } else {
            // from here on the local transaction cannot commit any more
            history.database(id, Verdict::RollBack)
        };
        // some do not look; of many messages some may be on their way still
        let wrong =
            known.is_some() && !of_transform && !many && !lost && self.world.is_chaos() && dice.one_in(8);
        let verdict = if wrong { database.other() } else { database };
        history.ending(id, verdict);
        Some(verdict)
    }

    async fn resume(&self, origin: u64) -> Option<()> {
        let reply = self.call(RESUME, vec![field("origin", origin)]).await?;
        match reply.code {
            SUCCESS => self.world.history().stats.saw("transaction asked about anew", 1),
            QUERY_NOT_FOUND => self.judge_unknown(origin),
            _ => {}
        }
        Some(())
    }

    /// Looks at any: what was decided is still what it was.
    async fn look_back(&self, dice: &mut Dice) -> Option<()> {
        let all: Vec<u64> = {
            let history = self.world.history();
            let all = history.transactions.values();
            all.filter_map(|transaction| transaction.origin).collect()
        };
        if all.is_empty() {
            return Some(());
        }
        let origin = *dice.pick(&all);
        self.show(origin).await.map(|_| ())
    }

    /// Gives a group a policy, or asks for the one that it has.
    async fn policy(&self, dice: &mut Dice, policies: &mut BTreeMap<String, Policy>) -> Option<()> {
        let group = format!("PG_{}", dice.below(2));
        let policy = policies.entry(group.clone()).or_default();
        if dice.one_in(2) {
            let reply = self.call(GET_POLICY, vec![field("group", &group)]).await?;
            self.judge_policy(&group, policy, &reply);
            return Some(());
        }
        let rolls_back = group == MAY_ROLL_BACK && dice.one_in(2);
        let wish = if rolls_back { Some(ROLL_BACK) } else { *dice.pick(&PARK) };
        if rolls_back {
            self.world.history().policy_rolls_back(&group);
        }
        let mut fields = vec![field("group", &group)];
        fields.extend(wish.map(|wish| field("policy", wish)));
        let Some(reply) = self.call(SET_POLICY, fields).await else {
            policy.open.push(wish);
            return None;
        };
        if reply.code == SUCCESS {
            policy.stands = wish;
            self.judge_policy(&group, policy, &reply);
            self.world.history().stats.saw("policy set", 1);
        } else {
            // whether it stands is known after the restart
            policy.open.push(wish);
        }
        Some(())
    }

    fn judge_policy(&self, group: &str, policy: &Policy, reply: &RemotingCommand) {
        if reply.code != SUCCESS || self.world.plan.memory {
            return;
        }
        let Ok(info) = CheckPolicyInfo::decode(&reply.body) else {
            return self.violation(format!("the policy of {group} cannot be read"));
        };
        let is = |wish: &Option<&str>| match wish {
            None => !info.own,
            Some(text) => {
                info.own && CheckWish::parse(text).is_ok_and(|wish| wish.to_string() == info.policy)
            }
        };
        if !is(&policy.stands) && !policy.open.iter().any(is) {
            self.violation(format!("{group} has the policy {info:?}, and was given {policy:?}"));
        }
    }
}

/// Which transaction it is: its key is its own number, or, of many, its first message's.
fn number_of(history: &History, info: &TransactionInfo, origin: u64) -> Option<TransactionId> {
    let known = history.transactions.iter().find(|(_, transaction)| transaction.origin == Some(origin));
    let by_key = || {
        let number = u64::from_str_radix(info.unique_key.as_ref()?, 16).ok()?;
        let of_message = history.messages.get(&number).and_then(|sent| sent.transaction);
        of_message.or_else(|| history.transactions.contains_key(&number).then_some(number))
    };
    known.map(|(id, _)| *id).or_else(by_key)
}
