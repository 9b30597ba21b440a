//! Producers: plain, delayed and batched sends, transactions of one and of many messages, ENDs in time, late, repeated,
//! contradicting and not at all, and answers to check-backs out of the group's database.

use std::sync::Arc;

use mezzo_protocol::remoting::RemotingCommand;
use mezzo_tests::consumer::messages;
use tokio::sync::mpsc;

use crate::client::{Connection, Fields};
use crate::dice::Dice;
use crate::history::{MessageId, Place, Told, TransactionId, Verdict};
use crate::plan::QUEUES;
use crate::trace::note;
use crate::world::{TOPICS, World};

const SEND_MESSAGE_V2: i32 = 310;
const END_TRANSACTION: i32 = 37;
const CHECK_TRANSACTION_STATE: i32 = 39;
const HEART_BEAT: i32 = 34;
pub const SUCCESS: i32 = 0;
const SYSTEM_BUSY: i32 = 2;
const ILLEGAL_OPERATION: i32 = 604;

/// Delay levels that are used, with their times: 1 s, 5 s and 10 s.
const DELAYS: [(&str, u64); 3] = [("1", 1_000), ("2", 5_000), ("3", 10_000)];

/// A transaction's own wish: asked about once, then in doubt.
const SOON_IN_DOUBT: &str = "first=1s,interval=1s,attempts=1,max_age=5s,then=park";

/// One producer: works while there is chaos, and answers questions to the end.
pub async fn run(world: Arc<World>, number: u64) {
    let mut life = 0;
    loop {
        life += 1;
        let mut dice = world.dice.of(&format!("producer {number} life {life}"));
        // two groups: members of one answer for each other
        let group = format!("PG_{}", number % 2);
        let (connection, asks) = Connection::open(&world, &mut dice).await;
        let me = Arc::new(Producer { world: Arc::clone(&world), connection, group });
        while !world.is_founded() && world.is_chaos() {
            tokio::time::sleep(dice.pause(10, 100)).await;
        }
        me.heartbeat().await;
        let answering = world.spawn(answer(Arc::clone(&me), asks, dice.of("answers")));
        let mut silent = 0;
        while silent < 2 && world.is_chaos() && !world.client_dies(&mut dice) {
            tokio::time::sleep(dice.pause(0, world.plan.work_pause_ms_max)).await;
            if me.work(&mut dice).await { silent = 0 } else { silent += 1 }
        }
        if world.is_abandoned() {
            answering.abort();
            return;
        }
        if !world.is_chaos() {
            // stays to answer, on a connection that is known to work, and connects anew now and then: what is in doubt
            // by then is asked about when somebody of its group comes
            for _ in 0..15 {
                if !me.heartbeat().await {
                    break;
                }
                tokio::time::sleep(dice.pause(1_000, 3_000)).await;
            }
        }
        // its local transactions that did not run never will: the database has nothing of them
        answering.abort();
    }
}

/// A producer on its connection.
pub struct Producer {
    /// The run.
    pub world: Arc<World>,
    /// Its connection.
    pub connection: Arc<Connection>,
    /// Its group.
    pub group: String,
}

/// A number in an answer.
pub fn number(reply: &RemotingCommand, field: &str) -> Option<u64> {
    reply.ext_value(field)?.parse().ok()
}

impl Producer {
    async fn heartbeat(&self) -> bool {
        let body = format!(
            r#"{{"clientID":"{0}@sim","producerDataSet":[{{"groupName":"{0}"}}],"consumerDataSet":[]}}"#,
            self.group
        );
        self.connection.call(HEART_BEAT, Vec::new(), body.as_bytes()).await.is_some()
    }

    /// One operation; whether the broker answered.
    async fn work(&self, dice: &mut Dice) -> bool {
        match dice.below(12) {
            0..=2 => self.plain(dice).await,
            3..=7 => self.transaction(dice).await,
            8 | 9 => self.many(dice).await,
            10 => self.end_again(dice, false).await,
            _ => self.end_again(dice, true).await,
        }
    }

    fn place(dice: &mut Dice) -> Place {
        ((*dice.pick(&TOPICS)).to_owned(), dice.below(u64::from(QUEUES)) as u32)
    }

    fn new_message(&self, dice: &mut Dice, delay_ms: u64) -> MessageId {
        let place = Self::place(dice);
        let bytes = dice.below(self.world.plan.body_bytes_max);
        let now_ms = self.world.now_ms();
        self.world.history().send(place, bytes, delay_ms, now_ms)
    }

    /// A send of a message, as half if it belongs to a transaction.
    pub fn send_request(
        &self,
        connection: &Connection,
        id: MessageId,
        half: bool,
        key: &str,
        more: &[(&str, &str)],
    ) -> RemotingCommand {
        let history = self.world.history();
        let Some(sent) = history.messages.get(&id) else { unreachable!("it was just made") };
        let mut text = format!("UNIQ_KEY\u{1}{key}\u{2}WAIT\u{1}true\u{2}");
        if half {
            text.push_str(&format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{}\u{2}", self.group));
        }
        if let Some((level, _)) = DELAYS.iter().find(|(_, ms)| *ms == sent.delay_ms) {
            text.push_str(&format!("DELAY\u{1}{level}\u{2}"));
        }
        for (name, value) in more {
            text.push_str(&format!("{name}\u{1}{value}\u{2}"));
        }
        let fields: Fields = vec![
            ("a", self.group.clone()),
            ("b", sent.place.0.clone()),
            ("c", "TBW102".to_owned()),
            ("d", QUEUES.to_string()),
            ("e", sent.place.1.to_string()),
            ("f", if half { "4" } else { "0" }.to_owned()),
            ("g", "1700000000000".to_owned()),
            ("h", "0".to_owned()),
            ("i", text),
            ("j", "0".to_owned()),
            ("k", "false".to_owned()),
            ("m", "false".to_owned()),
        ];
        connection.request(SEND_MESSAGE_V2, fields, &sent.body)
    }

    /// Notes what a send was told; whether it was stored.
    pub fn told(&self, id: MessageId, half: bool, reply: Option<&RemotingCommand>) -> bool {
        let at_ms = self.world.now_ms();
        let at_bound = |reply: &RemotingCommand| {
            reply.code == SYSTEM_BUSY
                && reply.remark.as_ref().is_some_and(|remark| remark.contains("store.max_bytes"))
        };
        let mut history = self.world.history();
        history.stats.saw("message refused at the disk budget", u64::from(reply.is_some_and(at_bound)));
        let delayed = history.messages.get(&id).is_some_and(|sent| sent.delay_ms > 0);
        let told = match reply {
            Some(reply) if reply.code == SUCCESS => {
                let offset = if half || delayed { None } else { number(reply, "queueOffset") };
                Told::Stored { at_ms, offset }
            }
            // 604: its transaction was decided before it came
            Some(reply) if matches!(reply.code, SYSTEM_BUSY | ILLEGAL_OPERATION) => Told::Refused,
            _ => Told::Nothing,
        };
        history.told(id, told);
        matches!(told, Told::Stored { .. })
    }

    async fn plain(&self, dice: &mut Dice) -> bool {
        let mut requests = Vec::new();
        let mut ids = Vec::new();
        let mut answered = false;
        for _ in 0..dice.between(1, 4) {
            let delay_ms = if dice.one_in(6) { dice.pick(&DELAYS).1 } else { 0 };
            let id = self.new_message(dice, delay_ms);
            let key = format!("{id:032X}");
            if let Some(dedup) = self.dedup_of(id) {
                answered |= self.send_repeatedly(dice, id, false, &key, &[], dedup).await.is_some();
                continue;
            }
            requests.push(self.send_request(&self.connection, id, false, &key, &[]));
            ids.push(id);
        }
        let answers = self.connection.call_all(&requests).await;
        for (id, answer) in ids.iter().zip(&answers) {
            self.told(*id, false, answer.as_ref());
        }
        answered || answers.iter().any(Option::is_some)
    }

    async fn transaction(&self, dice: &mut Dice) -> bool {
        let delay_ms = if dice.one_in(8) { dice.pick(&DELAYS).1 } else { 0 };
        let message = self.new_message(dice, delay_ms);
        let (id, key) = {
            let mut history = self.world.history();
            let id = history.begin(&self.group, false);
            history.join(id, message);
            (id, history.transactions[&id].key.clone())
        };
        // some say how they are to be asked about
        let asked = self.world.plan.operator.is_some() && dice.one_in(6);
        let more: &[(&str, &str)] = if asked { &[("MEZZO_CHECK", SOON_IN_DOUBT)] } else { &[] };
        let reply = match self.dedup_of(message) {
            Some(dedup) => self.send_repeatedly(dice, message, true, &key, more, dedup).await,
            None => {
                let request = self.send_request(&self.connection, message, true, &key, more);
                let reply = self.connection.call_all(&[request]).await.pop().flatten();
                self.told(message, true, reply.as_ref());
                reply
            }
        };
        let Some(reply) = reply else { return false };
        if reply.code != SUCCESS {
            return true;
        }
        let origin = number(&reply, "queueOffset");
        if let Some(transaction) = self.world.history().transactions.get_mut(&id) {
            transaction.origin = origin;
        }
        self.finish(dice, id).await
    }

    async fn many(&self, dice: &mut Dice) -> bool {
        let (id, key) = {
            let mut history = self.world.history();
            let id = history.begin(&self.group, true);
            (id, history.transactions[&id].key.clone())
        };
        let count = dice.between(1, 5);
        let mut first = None;
        for sequence in 0..count {
            let message = self.new_message(dice, 0);
            self.world.history().join(id, message);
            let sequence = sequence.to_string();
            let place = [("MEZZO_TX", key.as_str()), ("MEZZO_TX_SEQ", sequence.as_str())];
            let unique = format!("{message:032X}");
            // a send without an answer is repeated under its number and stored once
            let mut stored = false;
            let mut certain = true;
            for _ in 0..3 {
                let request = self.send_request(&self.connection, message, true, &unique, &place);
                let answers = self.connection.call_all(&[request]).await;
                let reply = answers.into_iter().next().flatten();
                if let Some(reply) = &reply {
                    // an earlier try may have been stored, whatever this one is told
                    let refused = reply.code != SUCCESS && !certain;
                    stored = self.told(message, true, Some(reply).filter(|_| !refused));
                    if stored && first.is_none() {
                        first = number(reply, "queueOffset");
                    }
                    break;
                }
                certain = false;
            }
            if let Some(transaction) = self.world.history().transactions.get_mut(&id) {
                transaction.origin = first;
            }
            if !stored {
                // what is not certain is rolled back, or left to the check-back
                if dice.one_in(2) {
                    self.world.history().database(id, Verdict::RollBack);
                    self.end(dice, id, Verdict::RollBack).await;
                }
                return false;
            }
        }
        self.finish(dice, id).await
    }

    /// The local transaction, and what the producer makes of it.
    async fn finish(&self, dice: &mut Dice, id: TransactionId) -> bool {
        if dice.one_in(10) {
            // dies before it
            return true;
        }
        let longest = if dice.one_in(10) { 4_000 } else { 20 };
        tokio::time::sleep(dice.pause(0, longest)).await;
        let wanted = if dice.below(10) < 7 { Verdict::Commit } else { Verdict::RollBack };
        let verdict = self.world.history().database(id, wanted);
        note!(self.world.trace, "database: transaction {id} {verdict:?}");
        match dice.below(10) {
            0 => true,
            1 => {
                tokio::time::sleep(dice.pause(0, 6_000)).await;
                self.end(dice, id, verdict).await
            }
            2 => {
                self.end(dice, id, verdict).await;
                self.end(dice, id, verdict).await
            }
            _ => self.end(dice, id, verdict).await,
        }
    }

    /// Sends END, one-way or as a request; sometimes twice in one piece.
    async fn end(&self, dice: &mut Dice, id: TransactionId, verdict: Verdict) -> bool {
        let Some(fields) = self.end_fields(id, verdict, false) else { return true };
        self.world.history().ending(id, verdict);
        if dice.one_in(4) {
            let request = self.connection.request(END_TRANSACTION, fields, b"").oneway();
            self.connection.post(&[request]);
            return true;
        }
        let mut requests = vec![self.connection.request(END_TRANSACTION, fields.clone(), b"")];
        if dice.one_in(6) {
            self.world.history().ending(id, verdict);
            requests.push(self.connection.request(END_TRANSACTION, fields, b""));
        }
        let asked_ms = self.world.now_ms();
        let answers = self.connection.call_all(&requests).await;
        for answer in answers.iter().flatten() {
            self.judge_end(id, asked_ms, verdict, answer);
        }
        answers.iter().any(Option::is_some)
    }

    fn end_fields(&self, id: TransactionId, verdict: Verdict, from_check: bool) -> Option<Fields> {
        let history = self.world.history();
        let transaction = history.transactions.get(&id)?;
        let mut fields: Fields = vec![
            ("producerGroup", transaction.group.clone()),
            ("commitOrRollback", verdict.flag().to_owned()),
            ("fromTransactionCheck", from_check.to_string()),
        ];
        if transaction.many {
            fields.push(("tranStateTableOffset", "-1".to_owned()));
            fields.push(("commitLogOffset", "-1".to_owned()));
            fields.push(("transactionId", transaction.key.clone()));
            fields.push(("mezzoTxCount", transaction.messages.len().to_string()));
        } else {
            let origin = transaction.origin?.to_string();
            fields.push(("tranStateTableOffset", origin.clone()));
            fields.push(("commitLogOffset", origin));
            fields.push(("msgId", transaction.key.clone()));
            fields.push(("transactionId", transaction.key.clone()));
        }
        Some(fields)
    }

    /// What the answer to an END says, held against what is known.
    fn judge_end(&self, id: TransactionId, asked_ms: u64, asked: Verdict, answer: &RemotingCommand) {
        let now_ms = self.world.now_ms();
        let outcome = answer.ext_value("mezzoOutcome").unwrap_or_default().to_owned();
        let stands = match outcome.as_str() {
            "COMMITTED" => Some(Verdict::Commit),
            "ROLLED_BACK" => Some(Verdict::RollBack),
            _ => None,
        };
        note!(self.world.trace, "transaction {id}: {asked:?} answered {} {outcome}", answer.code);
        let mut history = self.world.history();
        match (answer.code, stands) {
            (SUCCESS, Some(stands)) => {
                if stands != asked {
                    history.violation(format!("transaction {id}: {asked:?} was answered {stands:?}"));
                }
                history.decided(id, stands, now_ms);
            }
            (ILLEGAL_OPERATION, Some(stands)) => {
                if stands == asked {
                    history.violation(format!("transaction {id}: {asked:?} conflicts with itself"));
                }
                history.decided(id, stands, now_ms);
            }
            // unknown, incomplete, busy, fenced: the broker says that it decided nothing
            _ => self.world.judge_undecided(&mut history, id, asked_ms, &outcome, answer),
        }
    }

    /// Ends some transaction of the past again, as it was or the other way round.
    async fn end_again(&self, dice: &mut Dice, otherwise: bool) -> bool {
        let chosen = {
            let history = self.world.history();
            let ended: Vec<TransactionId> = history
                .transactions
                .iter()
                .filter(|(_, transaction)| transaction.database.is_some() && transaction.origin.is_some())
                .map(|(id, _)| *id)
                .collect();
            if ended.is_empty() { None } else { Some(*dice.pick(&ended)) }
        };
        let Some(id) = chosen else { return self.plain(dice).await };
        let Some(verdict) = self.world.history().transactions[&id].database else { return true };
        let verdict = if otherwise { verdict.other() } else { verdict };
        self.end(dice, id, verdict).await
    }

    /// Answers one check-back out of the database.
    async fn answer_ask(&self, dice: &mut Dice, ask: &RemotingCommand) {
        let Some((id, verdict, fields)) = self.answer_to(dice, ask) else { return };
        // of one-way answers nobody hears what became of them
        if !self.world.history().transactions[&id].many && dice.one_in(2) {
            let request = self.connection.request(END_TRANSACTION, fields, b"").oneway();
            return self.connection.post(&[request]);
        }
        let asked_ms = self.world.now_ms();
        let Some(reply) = self.connection.call(END_TRANSACTION, fields.clone(), b"").await else { return };
        let Some(verdict) = verdict else { return };
        self.judge_end(id, asked_ms, verdict, &reply);
        if reply.ext_value("mezzoOutcome") == Some("INCOMPLETE") {
            // messages were lost, as they may be at acknowledgement `memory`: a person would roll back
            let end = self.world.history().roll_back_lost(id);
            let fields = end.then(|| self.end_fields(id, Verdict::RollBack, false)).flatten();
            if let Some(fields) = fields {
                self.connection.call(END_TRANSACTION, fields, b"").await;
            }
        }
    }

    /// What is to be answered to a check-back, if anything.
    fn answer_to(
        &self,
        dice: &mut Dice,
        ask: &RemotingCommand,
    ) -> Option<(TransactionId, Option<Verdict>, Fields)> {
        let mut history = self.world.history();
        history.stats.asked += 1;
        let asked_about = messages(&ask.body);
        let first = asked_about.first().and_then(|message| message.property("MEZZO_TX"));
        let key = first.or_else(|| ask.ext_value("msgId")).unwrap_or_default();
        let Some(id) = history.by_key.get(key).copied() else {
            history.violation(format!("a check-back about {key}, which nobody began"));
            return None;
        };
        let known = history.transactions.get(&id).cloned();
        let known = known?;
        note!(self.world.trace, "asked about transaction {id}: {:?}", known.database);
        let bytes = known.messages.first().and_then(|first| history.messages.get(first));
        if bytes.map(|sent| &sent.body) != asked_about.first().map(|message| &message.body) {
            history.violation(format!("a check-back about transaction {id} shows another message"));
        }
        if known.group != self.group {
            history.violation(format!("{} is asked about transaction {id} of {}", self.group, known.group));
        }
        // "not yet" is a fair answer, but only while there may be a local transaction
        let unknown = known.database.is_none() && self.world.is_chaos() && dice.one_in(3);
        let silent = self.world.is_chaos() && dice.one_in(6);
        if silent {
            return None;
        }
        let verdict = (!unknown).then(|| history.database(id, Verdict::RollBack));
        if let Some(verdict) = verdict {
            history.ending(id, verdict);
        }
        drop(history);
        let offset = |name: &str| ask.ext_value(name).unwrap_or_default().to_owned();
        let mut fields: Fields = vec![
            ("producerGroup", self.group.clone()),
            ("tranStateTableOffset", offset("tranStateTableOffset")),
            ("commitLogOffset", offset("commitLogOffset")),
            ("commitOrRollback", verdict.map_or("0", Verdict::flag).to_owned()),
            ("fromTransactionCheck", "true".to_owned()),
            ("msgId", offset("msgId")),
            ("transactionId", offset("transactionId")),
        ];
        if known.many {
            fields.push(("mezzoTxCount", known.messages.len().to_string()));
        }
        Some((id, verdict, fields))
    }
}

async fn answer(me: Arc<Producer>, mut asks: mpsc::UnboundedReceiver<RemotingCommand>, mut dice: Dice) {
    while let Some(ask) = asks.recv().await {
        if ask.code == CHECK_TRANSACTION_STATE {
            tokio::time::sleep(dice.pause(0, 50)).await;
            me.answer_ask(&mut dice, &ask).await;
        }
    }
}
