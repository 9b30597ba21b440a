//! What the clients know, all of them together: what was sent, what was answered, what was seen. Kept outside the
//! broker's machine, so that a crash does not touch it.

use std::collections::{BTreeMap, BTreeSet};

use mezzo_tests::consumer::Message;

use crate::plan::Dedup;
use crate::repeat::TRY_MS_MAX;
use crate::stats::Stats;

/// A message by its number.
pub type MessageId = u64;
/// A transaction by its number.
pub type TransactionId = u64;
/// A queue of a topic.
pub type Place = (String, u32);

/// A decision, or what a producer's database says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The local transaction has committed.
    Commit,
    /// It has not, and can no longer.
    RollBack,
}

impl Verdict {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Commit => Self::RollBack,
            Self::RollBack => Self::Commit,
        }
    }

    /// `commitOrRollback` on the wire.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Commit => "8",
            Self::RollBack => "12",
        }
    }
}

/// What a producer was told about a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nothing: no answer came, or one that leaves it open.
    Nothing,
    /// Stored, at this time; a plain message has its offset.
    Stored {
        /// Virtual time of the answer.
        at_ms: u64,
        /// The queue offset, where the message has one at once.
        offset: Option<u64>,
    },
    /// Not stored, and it never will be.
    Refused,
}

/// A message, sent once.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Where it was sent to.
    pub place: Place,
    /// Its body.
    pub body: Vec<u8>,
    /// The transaction that it belongs to.
    pub transaction: Option<TransactionId>,
    /// It waits for so long after it was sent, or committed.
    pub delay_ms: u64,
    /// Virtual time of the (first) send.
    pub sent_ms: u64,
    /// How often it was sent where that may be told from a repeat, and when last.
    pub tries: u64,
    /// Virtual time of the last of them.
    pub tried_ms: u64,
    /// What its producer knows.
    pub told: Told,
}

/// A transaction.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Its producer group.
    pub group: String,
    /// The unique key of its message, or the id of a transaction of many.
    pub key: String,
    /// Whether it is one of many messages.
    pub many: bool,
    /// Its messages.
    pub messages: Vec<MessageId>,
    /// The half's position, once its producer knows it.
    pub origin: Option<u64>,
    /// What its producer's database says; first come, first served.
    pub database: Option<Verdict>,
    /// Whether ENDs were sent: commit, rollback.
    pub ended: [bool; 2],
    /// Some END contradicted the database, or another END.
    pub contradicted: bool,
    /// Its group has, or had, a policy that rolls back what nobody decides.
    pub may_expire: bool,
    /// What the broker said was decided, and when it said so last.
    pub decided: Option<(Verdict, u64)>,
}

/// The end of a broker's process.
#[derive(Debug, Clone, Copy)]
pub struct Crash {
    /// Nothing became durable from this virtual time on: a sync had failed, or it is the end.
    pub synced_nothing_from_ms: u64,
    /// Nothing was answered from this virtual time on.
    pub ended_ms: u64,
    /// Whether what was not synced was lost, or may have been.
    pub loses_unsynced: bool,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub struct History {
    /// All messages.
    pub messages: BTreeMap<MessageId, Sent>,
    /// All transactions.
    pub transactions: BTreeMap<TransactionId, Transaction>,
    /// By key.
    pub by_key: BTreeMap<String, TransactionId>,
    /// What was seen, by place and offset.
    pub seen: BTreeMap<Place, BTreeMap<u64, MessageId>>,
    /// What each group was given.
    pub given: BTreeMap<String, BTreeSet<MessageId>>,
    /// Copies that consumers sent back: asked for, acknowledged and when.
    pub sent_back: BTreeMap<(String, MessageId), SentBack>,
    /// What transforming members made, and of which message.
    pub derived: BTreeMap<MessageId, (Place, u64)>,
    /// Virtual times from when until when the disk was full.
    pub full: Vec<(u64, u64)>,
    /// When the clock was set forward, and by how much: virtual time says nothing about delays after that.
    pub leaps: Vec<(u64, u64)>,
    /// Virtual times at which the broker ended, and whether what was not synced may be gone.
    pub crashes: Vec<Crash>,
    /// When brokers began to serve.
    served: Vec<u64>,
    /// Producer groups whose policy may have rolled back what nobody decided.
    roll_back: BTreeSet<String>,
    /// De-duplication of one topic.
    pub dedup: Option<Dedup>,
    /// Messages are deleted.
    pub forgets: bool,
    /// What must not be.
    pub violations: Vec<String>,
    /// What happened.
    pub stats: Stats,
    /// At acknowledgement `memory`: how long after an answer a power cut may take back what was answered.
    pub lost_ms_max: Option<u64>,
    next: u64,
}

/// What a consumer gave back.
#[derive(Debug, Clone, Default)]
pub struct SentBack {
    /// How often it was asked for.
    pub asked: u64,
    /// When the broker said that it was done.
    pub safe: Vec<u64>,
}

/// An answer that comes later finds nobody waiting.
const ANSWER_MS_MAX: u64 = 3_000;
/// Most violations that are told of one run.
const VIOLATIONS_MAX: usize = 20;

impl History {
    /// A number that nothing else has.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Something that must not be.
    pub fn violation(&mut self, text: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(text);
        }
    }

    /// A message that is about to be sent.
    pub fn send(&mut self, place: Place, bytes: u64, delay_ms: u64, now_ms: u64) -> MessageId {
        let id = self.number();
        let sent = Sent {
            place,
            body: body(id, bytes),
            transaction: None,
            delay_ms,
            sent_ms: now_ms,
            tries: 0,
            tried_ms: now_ms,
            told: Told::Nothing,
        };
        self.messages.insert(id, sent);
        self.stats.sent += 1;
        id
    }

    /// What a producer was told about a message.
    pub fn told(&mut self, id: MessageId, told: Told) {
        match told {
            Told::Stored { .. } => self.stats.acknowledged += 1,
            Told::Refused => self.stats.refused += 1,
            Told::Nothing => self.stats.unanswered += 1,
        }
        if let Some(sent) = self.messages.get_mut(&id) {
            sent.told = told;
        }
    }

    /// A transaction that is about to begin.
    pub fn begin(&mut self, group: &str, many: bool) -> TransactionId {
        let id = self.number();
        let key = format!("{id:032X}");
        let transaction = Transaction {
            group: group.to_owned(),
            key: key.clone(),
            many,
            messages: Vec::new(),
            origin: None,
            database: None,
            ended: [false; 2],
            contradicted: false,
            may_expire: self.roll_back.contains(group),
            decided: None,
        };
        self.transactions.insert(id, transaction);
        self.by_key.insert(key, id);
        self.stats.transactions += 1;
        id
    }

    /// Adds a message to a transaction.
    pub fn join(&mut self, transaction: TransactionId, message: MessageId) {
        if let Some(sent) = self.messages.get_mut(&message) {
            sent.transaction = Some(transaction);
        }
        if let Some(transaction) = self.transactions.get_mut(&transaction) {
            transaction.messages.push(message);
        }
    }

    /// What the database of the transaction's producers makes of it: what was written first stands.
    pub fn database(&mut self, id: TransactionId, wanted: Verdict) -> Verdict {
        let Some(transaction) = self.transactions.get_mut(&id) else { return wanted };
        *transaction.database.get_or_insert(wanted)
    }

    /// An END is about to be sent.
    pub fn ending(&mut self, id: TransactionId, verdict: Verdict) {
        self.stats.ends += 1;
        let Some(transaction) = self.transactions.get_mut(&id) else { return };
        let slot = &mut transaction.ended[usize::from(verdict == Verdict::RollBack)];
        if *slot {
            self.stats.ends_repeated += 1;
        }
        *slot = true;
        if transaction.ended == [true; 2] || transaction.database.is_some_and(|database| database != verdict)
        {
            transaction.contradicted = true;
        }
    }

    /// Whether a commit cannot be, since messages of the transaction may be lost; it is rolled back then.
    pub fn roll_back_lost(&mut self, id: TransactionId) -> bool {
        let Some(transaction) = self.transactions.get(&id) else { return false };
        let mut messages = transaction.messages.iter().filter_map(|message| self.messages.get(message));
        let lost = messages.any(|sent| self.message_may_be_lost(sent));
        if lost {
            self.ending(id, Verdict::RollBack);
        }
        lost
    }

    /// Whether messages of a transaction may be gone.
    pub fn messages_may_be_lost(&self, id: TransactionId) -> bool {
        let messages = self.transactions.get(&id).into_iter().flat_map(|transaction| &transaction.messages);
        messages.filter_map(|message| self.messages.get(message)).any(|sent| self.message_may_be_lost(sent))
    }

    /// A group's transactions may be rolled back by its policy from now on.
    pub fn policy_rolls_back(&mut self, group: &str) {
        if self.roll_back.insert(group.to_owned()) {
            let all = self.transactions.values_mut();
            all.filter(|transaction| transaction.group == group)
                .for_each(|transaction| transaction.may_expire = true);
        }
    }

    /// A message that may be told from a repeat is about to be sent.
    pub fn tried(&mut self, id: MessageId, now_ms: u64) {
        if let Some(sent) = self.messages.get_mut(&id) {
            (sent.tries, sent.tried_ms) = (sent.tries + 1, now_ms);
            self.stats.saw("message sent again", u64::from(sent.tries > 1));
        }
    }

    /// Whether a message that comes at `at_ms` at the latest comes within the window that began with its first send.
    pub fn is_within(&self, sent: &Sent, at_ms: u64, window_ms: u64) -> bool {
        at_ms - sent.sent_ms + self.leapt_ms_since(sent.sent_ms) < window_ms
    }

    /// Whether every send of this message but the first is known as a repeat, as long as the first is there.
    pub fn repeats_are_known(&self, sent: &Sent) -> bool {
        self.dedup.is_some_and(|dedup| {
            dedup.exact && self.is_within(sent, sent.tried_ms + TRY_MS_MAX, dedup.window_ms)
        })
    }

    /// Most copies of a message that may be stored, when so many were deleted, which nobody knows of any more.
    pub fn copies_max(&self, sent: &Sent, gone: u64) -> u64 {
        match sent.tries {
            0 | 1 => 1,
            _ if self.repeats_are_known(sent) => 1 + gone,
            tries => tries,
        }
    }

    /// The broker has said what was decided.
    pub fn decided(&mut self, id: TransactionId, verdict: Verdict, now_ms: u64) {
        let before = self.transactions.get(&id).and_then(|transaction| transaction.decided);
        let lost = before.is_some_and(|(_, told_ms)| self.decision_may_be_lost(told_ms));
        let Some(transaction) = self.transactions.get_mut(&id) else { return };
        if let Some((before, _)) = before
            && before != verdict
            && !lost
        {
            let text = format!("transaction {id} was {before:?} and is {verdict:?}");
            return self.violation(text);
        }
        if transaction.decided.is_none() {
            self.stats.decisions += 1;
        }
        transaction.decided = Some((verdict, now_ms));
        let by_policy = transaction.may_expire && verdict == Verdict::RollBack;
        if !transaction.ended[usize::from(verdict == Verdict::RollBack)] && !by_policy {
            let text = format!("transaction {id} is {verdict:?}, which nobody asked for");
            self.violation(text);
        }
    }

    /// A consumer was given a message.
    pub fn give(&mut self, group: &str, message: &Message, now_ms: u64) -> Option<MessageId> {
        self.stats.deliveries += 1;
        let Some(id) = number_of(&message.body) else {
            self.violation(format!("{}/{}: a body that nobody sent", message.topic, message.queue));
            return None;
        };
        let Some(sent) = self.messages.get(&id) else {
            self.violation(format!("message {id} was never sent"));
            return None;
        };
        if sent.body != message.body {
            self.violation(format!("message {id} has other bytes than were sent"));
            return None;
        }
        if message.topic.starts_with('%') {
            return Some(id);
        }
        let (place, told, transaction) = (sent.place.clone(), sent.told, sent.transaction);
        // where there may be another one, it is not known which was told of
        let one_copy = sent.tries < 2 || (self.repeats_are_known(sent) && !self.forgets);
        let early = message_due_ms(sent, transaction.and_then(|id| self.transactions.get(&id)));
        if (message.topic.as_str(), message.queue) != (place.0.as_str(), place.1) {
            self.violation(format!("message {id} was sent to {place:?} and is in {}", message.topic));
        }
        if told == Told::Refused {
            self.violation(format!("message {id} was refused and is there"));
        }
        if self.leaps.is_empty() && early.is_some_and(|due| now_ms < due) {
            self.violation(format!("message {id} is there before its time"));
        }
        if let Some(transaction) = transaction.and_then(|id| self.transactions.get(&id)) {
            // wherever its bytes have been carried to, it is known by where it was first
            if one_copy && transaction.origin.is_some_and(|origin| origin != message.prepared_offset) {
                self.violation(format!(
                    "message {id} of origin {:?} names {}",
                    transaction.origin, message.prepared_offset
                ));
            } else if !transaction.ended[0] {
                self.violation(format!("message {id} is there, and nobody has committed it"));
            } else if let Some((Verdict::RollBack, told_ms)) = transaction.decided
                && !self.decision_may_be_lost(told_ms)
            {
                self.violation(format!("message {id} is there, and was rolled back"));
            }
        }
        let known = self.seen.entry(place.clone()).or_default().insert(message.queue_offset, id);
        if let Some(other) = known.filter(|other| *other != id) {
            self.violation(format!(
                "{place:?} offset {} was message {other} and is {id}",
                message.queue_offset
            ));
        }
        if let Told::Stored { offset: Some(offset), .. } = told
            && offset != message.queue_offset
            && one_copy
        {
            self.violation(format!(
                "message {id} was told offset {offset} and is at {}",
                message.queue_offset
            ));
        }
        self.given.entry(group.to_owned()).or_default().insert(id);
        Some(id)
    }

    /// The broker has ended.
    pub fn crashed(&mut self, crash: Crash) {
        self.crashes.push(crash);
    }

    /// A broker serves: what it found is on the disk.
    pub fn serves(&mut self, at_ms: u64) {
        self.served.push(at_ms);
    }

    /// The disk is full from now on.
    pub fn disk_full(&mut self, now_ms: u64, for_ms: u64) {
        self.full.push((now_ms, now_ms + for_ms));
    }

    /// The broker's time may have moved on by this much more than virtual time since `from_ms`.
    pub fn leapt_ms_since(&self, from_ms: u64) -> u64 {
        self.leaps.iter().filter(|(at_ms, _)| *at_ms >= from_ms).map(|(_, by_ms)| *by_ms).sum()
    }

    /// Whether what was asked for at `asked_ms` and answered at `told_ms` may be gone.
    pub fn may_be_lost(&self, asked_ms: u64, told_ms: u64) -> bool {
        let Some(window_ms) = self.lost_ms_max else { return false };
        let mut at_risk_until_ms = told_ms + window_ms;
        for crash in self.crashes.iter().filter(|crash| crash.ended_ms >= asked_ms) {
            if crash.synced_nothing_from_ms >= at_risk_until_ms {
                break;
            }
            if crash.loses_unsynced {
                return true;
            }
            // what a killed one left unsynced is so until the next one serves
            let next = self.served.iter().find(|served_ms| **served_ms > crash.ended_ms);
            at_risk_until_ms = at_risk_until_ms.max(next.copied().unwrap_or(u64::MAX));
        }
        false
    }

    /// Whether a decision that was told at `told_ms` may be gone.
    pub fn decision_may_be_lost(&self, told_ms: u64) -> bool {
        self.may_be_lost(told_ms.saturating_sub(ANSWER_MS_MAX), told_ms)
    }

    /// Whether a message that was said to be stored may be gone.
    pub fn message_may_be_lost(&self, sent: &Sent) -> bool {
        matches!(sent.told, Told::Stored { at_ms, .. } if self.may_be_lost(sent.sent_ms, at_ms))
    }
}

/// Before when a message cannot be there in virtual time; `None` where that is not known.
fn message_due_ms(sent: &Sent, transaction: Option<&Transaction>) -> Option<u64> {
    (sent.delay_ms > 0 && transaction.is_none()).then_some(sent.sent_ms + sent.delay_ms)
}

/// A body that says whose it is, and whose every byte can be told.
fn body(id: MessageId, bytes: u64) -> Vec<u8> {
    let mut body = format!("{id}|").into_bytes();
    let mut state = id;
    while (body.len() as u64) < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        body.extend_from_slice(&state.to_le_bytes());
    }
    body
}

pub fn number_of(body: &[u8]) -> Option<MessageId> {
    let end = body.iter().position(|byte| *byte == b'|')?;
    std::str::from_utf8(&body[..end]).ok()?.parse().ok()
}
