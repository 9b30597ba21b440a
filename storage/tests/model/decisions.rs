//! The rules of END, and of the leases that it may depend on.

use mezzo_protocol::ids::{PhysicalOffset, QueueOffset};
use mezzo_protocol::time::Timestamp;
use mezzo_storage::{Decision, OperationResult, Outcome, Refusal, Source};

use super::model::{At, Consumed, Decided, Fault, HORIZON_MS, Hidden, Lease, Model, Open, same};
use super::rules::{Op, refused};
use super::steps::Name;

/// Which transaction END means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    Origin(u64),
    Id(u8, Name),
}

/// A queue's offset to move, under a lease's epoch.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    pub key: Consumed,
    /// Where the group stood when the transaction consumed.
    pub from: Option<u64>,
    pub offset: u64,
    pub epoch: u64,
}

/// An END as the store was given it.
#[derive(Debug, Clone)]
pub struct EndOp {
    pub target: Target,
    pub commit: bool,
    pub source: Source,
    pub group: Option<u8>,
    /// Whose key it gives.
    pub key: Option<Name>,
    pub table: Option<u64>,
    pub count: Option<u16>,
    /// A queue's offset to move.
    pub moves: Option<Moved>,
}

impl EndOp {
    /// As a person decides, who names the origin alone.
    pub fn by_operator(origin: u64, commit: bool) -> Self {
        let (target, source) = (Target::Origin(origin), Source::Operator);
        Self { target, commit, source, group: None, key: None, table: None, count: None, moves: None }
    }

    /// By id, and its producer says that there are no messages.
    fn is_empty(&self) -> bool {
        matches!(self.target, Target::Id(..)) && self.count == Some(0)
    }

    /// Why it may not decide, or be told of, this one.
    fn mismatch(&self, name: Name, origin: u64) -> Option<Refusal> {
        if self.group.is_some_and(|group| group != name.group()) {
            return Some(Refusal::WrongGroup);
        }
        if self.table.is_some_and(|table| table != origin) {
            return Some(Refusal::WrongTableOffset);
        }
        self.key.is_some_and(|key| key != name).then_some(Refusal::WrongKey)
    }
}

impl Model {
    /// Whether it is an END by its unique key for a message that is open now: carried out behind the whole batch, because
    /// the history is asked before whether another one had that key.
    pub fn is_decided_last(&self, op: &Op) -> bool {
        let Op::End(EndOp { target: Target::Id(group, name @ Name::Alone(_)), .. }) = op else {
            return false;
        };
        *group == name.group() && self.ids.contains_key(name)
    }

    /// Whether it is an END for something that is not open.
    pub fn asks_history(&self, op: &Op) -> bool {
        let Op::End(end) = op else { return false };
        !self.meant(end).is_some_and(|origin| self.open.contains_key(&origin))
    }

    fn meant(&self, end: &EndOp) -> Option<u64> {
        match end.target {
            Target::Origin(origin) => Some(origin),
            // the id of one of another group is no id
            Target::Id(group, name) if group != name.group() => None,
            Target::Id(_, name) => self.ids.get(&name).or_else(|| self.latest.get(&name)).copied(),
        }
    }

    pub(crate) fn end(&mut self, end: &EndOp, got: &OperationResult, at: At) -> Result<(), String> {
        let origin = self.meant(end);
        if let Some(open) = origin.and_then(|origin| self.open.get(&origin)) {
            let expected = open.messages.len() as u16;
            let counts =
                end.count.is_some() || (end.source == Source::Producer && matches!(open.name, Name::Many(_)));
            let incomplete = end.commit && counts && end.count != Some(expected);
            let incomplete = incomplete.then_some(Refusal::Incomplete { expected, got: end.count });
            let origin = open.messages[0].position;
            if let Some(refusal) = end.mismatch(open.name, origin).or(incomplete) {
                return same("the answer to END", got, &refused(refusal));
            }
            if open.in_doubt && self.fault == Fault::DoubtIsFinal {
                return same("the answer to END", got, &refused(Refusal::Unknown));
            }
            let want = self.decide(end, origin, at);
            return same("the answer to END", got, &OperationResult::Decided(want));
        }
        let known = origin.and_then(|origin| Some((origin, self.decided.get(&origin)?)));
        let Some((origin, decided)) = known else { return self.end_unknown(end, got, at) };
        // those that are older than the horizon, and not in the log, may be forgotten
        let old = decided.at_ms + HORIZON_MS < at.now && decided.position < self.first_position;
        let forgotten = match end.target {
            Target::Origin(_) => *got == refused(Refusal::Expired),
            Target::Id(..) => {
                let empty = end.is_empty() && matches!(got, OperationResult::NothingToDecide);
                let anew = end.is_empty() && matches!(got, OperationResult::Decided(_));
                *got == refused(Refusal::UnknownOrExpired) || empty || anew
            }
        };
        if old && forgotten {
            return if let Target::Id(..) = end.target { self.end_unknown(end, got, at) } else { Ok(()) };
        }
        self.repeated(end, origin, got, at)
    }

    /// The answer to an END for what is decided.
    fn repeated(&mut self, end: &EndOp, origin: u64, got: &OperationResult, at: At) -> Result<(), String> {
        let decided = &self.decided[&origin];
        let name = decided.name;
        let want = match end.mismatch(name, origin) {
            Some(refusal) => refused(refusal),
            None if decided.committed == end.commit => {
                OperationResult::AlreadyDecided(decided.decision(origin))
            }
            None => OperationResult::Conflict(decided.decision(origin)),
        };
        if self.fault == Fault::LateCommitDelivers
            && matches!(want, OperationResult::Conflict(_))
            && end.commit
        {
            let to = super::steps::Place { topic: 0, queue: 0 };
            self.show(Hidden { position: origin, to, body: name.key(), delay_ms: None }, at);
        }
        same("the answer to a repeated END", got, &want)
    }

    /// Nobody remembers a transaction that END could mean.
    fn end_unknown(&mut self, end: &EndOp, got: &OperationResult, at: At) -> Result<(), String> {
        let want = match end.target {
            // positions before the history begins are told apart from those where nothing was
            Target::Origin(_) if *got == refused(Refusal::Expired) => got.clone(),
            Target::Origin(_) => refused(Refusal::Unknown),
            Target::Id(_, name) if end.is_empty() => {
                if !end.commit || end.moves.is_none() {
                    OperationResult::NothingToDecide
                } else {
                    let OperationResult::Decided(Decision { origin, .. }) = got else {
                        return Err(format!("an empty transaction is not decided: {got:?}"));
                    };
                    let (committed, source) = self.verdict(end);
                    let decision = Decided {
                        name,
                        committed,
                        source,
                        at_ms: at.now,
                        count: 0,
                        first_offset: None,
                        position: at.start,
                        remembered: true,
                    };
                    let want = decision.decision(origin.0);
                    self.note(origin.0, decision);
                    self.move_offset(end, committed);
                    OperationResult::Decided(want)
                }
            }
            Target::Id(..) => refused(Refusal::UnknownOrExpired),
        };
        same("the answer to END", got, &want)
    }

    /// What becomes of it: a commit that moves an offset under a lease that was lost is rolled back.
    fn verdict(&self, end: &EndOp) -> (bool, Source) {
        let lost = end.moves.is_some_and(|Moved { key, from, epoch, .. }| {
            let holds = self.leases.get(&key).is_some_and(|lease| lease.epoch == epoch && !lease.released);
            !holds || self.offsets.appended(&key) != from
        });
        match end.commit && lost && self.fault != Fault::LostLeaseMoves {
            true => (false, Source::Fenced),
            false => (end.commit, end.source),
        }
    }

    fn move_offset(&mut self, end: &EndOp, committed: bool) {
        if let Some(Moved { key, offset, .. }) = end.moves.filter(|_| committed) {
            self.offsets.ahead.insert(key, offset);
            self.offsets.logged.insert(key, offset);
            self.offsets.since.remove(&key);
        }
    }

    fn note(&mut self, origin: u64, decided: Decided) {
        self.latest.insert(decided.name, origin);
        self.decided.insert(origin, decided);
    }

    /// All messages become visible, in the order of their prepares, or none ever.
    fn decide(&mut self, end: &EndOp, origin: u64, at: At) -> Decision {
        let (committed, source) = self.verdict(end);
        let Some(Open { name, messages, prepared_ms, .. }) = self.open.remove(&origin) else {
            unreachable!("it was found open")
        };
        self.ids.remove(&name);
        self.armed.remove(&origin);
        let count = messages.len() as u16;
        let mut offsets = Vec::new();
        for hidden in messages {
            if let (true, Some(delay_ms)) = (committed, hidden.delay_ms) {
                let from = if self.fault == Fault::DelayFromPrepare { prepared_ms } else { at.now };
                self.due.insert((from + delay_ms, hidden.position), hidden);
                offsets.push(None);
            } else if committed {
                offsets.push(Some(QueueOffset(self.show(hidden, at))));
            }
        }
        let first_offset = offsets.first().copied().flatten().map(|offset| offset.0);
        let (at_ms, position) = (at.now, at.start);
        let decided =
            Decided { name, committed, source, at_ms, count, first_offset, position, remembered: true };
        let decision = decided.decision(origin);
        self.note(origin, decided);
        self.move_offset(end, committed);
        let queue_offsets = if count > 1 { offsets.into_boxed_slice() } else { Box::default() };
        Decision { queue_offsets, ..decision }
    }

    pub(crate) fn lease(
        &mut self,
        key: Consumed,
        (client, ttl_ms, renews): (u8, u64, Option<u64>),
        got: &OperationResult,
        at: At,
    ) -> Result<(), String> {
        if !self.queues.contains_key(&(key.1, key.2)) {
            return same("the answer to a lease", got, &refused(Refusal::NotFound));
        }
        let epoch = match (self.leases.get(&key), renews) {
            (Some(held), Some(epoch)) if held.epoch == epoch && !held.released => epoch,
            (_, Some(_)) => return same("the answer to a renewal", got, &refused(Refusal::LeaseLost)),
            (Some(held), None) if !held.released && at.now < held.expires_ms && held.client != client => {
                let until = Timestamp::from_ms(held.expires_ms - at.behind);
                return same("the answer to a lease", got, &refused(Refusal::LeaseHeld { until }));
            }
            (Some(held), None) if self.fault == Fault::EpochsComeAgain => held.epoch,
            // also for the client that holds it, which may have been restarted: any that no holder had before
            (_, None) => match got {
                OperationResult::Leased { epoch, .. }
                    if self.epochs.get(&key).is_none_or(|old| epoch > old) =>
                {
                    *epoch
                }
                _ => return Err(format!("a first lease after epoch {:?}: {got:?}", self.epochs.get(&key))),
            },
        };
        let expires_ms = at.now + ttl_ms;
        self.epochs.insert(key, epoch);
        self.leases.insert(key, Lease { client, epoch, expires_ms, released: false });
        let next = self.offsets.appended(&key);
        let want = OperationResult::Leased {
            epoch,
            expires_at: Timestamp::from_ms(expires_ms - at.behind),
            next_offset: next.map(QueueOffset),
        };
        same("the answer to a lease", got, &want)
    }
}

impl Decided {
    /// As everyone is told who asks later.
    pub fn decision(&self, origin: u64) -> Decision {
        Decision {
            origin: PhysicalOffset(origin),
            outcome: if self.committed { Outcome::Committed } else { Outcome::RolledBack },
            source: self.source,
            decided_at: Timestamp::from_ms(self.at_ms),
            count: self.count,
            queue_offset: self.first_offset.map(QueueOffset),
            queue_offsets: Box::default(),
        }
    }
}
