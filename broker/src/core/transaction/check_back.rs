//! Check-back: who is asked about which undecided transaction, when, how often, and when asking ends.
//!
//! Pure. The log knows which transactions are undecided and when each is due; its driver hands in what is due
//! ([`CheckBack::handle_due`]) and carries out the effects. The rules:
//!
//! - Asks go out in due order, to the members of the transaction's producer group in turn, at most
//!   [`Bounds::unanswered_per_connection`] unanswered to one connection and [`Bounds::asks_per_second`] in all. What
//!   cannot be asked now waits; a waiting transaction burns no attempt.
//! - An ask **counts** if it was answered, also with UNKNOWN, or if anything was heard from its connection after the ask
//!   was written to it. An ask to a connection that closed or stayed silent does not.
//! - After as many asks that counted as its policy wants, or at its maximum age, a transaction is parked as IN_DOUBT
//!   (or, if its policy says so, rolled back) when it is due the next time. It is then asked once whenever a new connection of its group appears, and that counts nothing.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::Hash,
};

use mezzo_protocol::{
    check_policy::{CheckPolicy, Exhausted as Then},
    ids::{GroupName, PhysicalOffset},
    time::Timestamp,
};

use super::{
    members::Members,
    waiting_room::{Waiting, WaitingRoom},
};

/// A connection that did not take an ask gets none for this long.
const CONGESTED_MS: u64 = 200;

/// How long IN_DOUBT transactions wait to be asked about after a new connection of their group appeared. It is bounded
/// by the rate only, so this is long enough for all of them.
const DOUBTFUL_WAITS_MS: u64 = 600_000;

/// How much may be asked, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// After a transaction would have been due again, what is not heard of it for this long is forgotten, in
    /// milliseconds; also how long an IN_DOUBT one may be asked without an answer.
    pub(crate) check_interval_ms: u64,
    /// Asks that one connection may have open.
    pub(crate) unanswered_per_connection: usize,
    /// Asks of the whole broker in a second, at least 1; also the largest burst.
    pub(crate) asks_per_second: u32,
    /// Transactions that wait here to be asked. Further ones come back when they are due the next time.
    pub(crate) waiting: usize,
}

/// Why asking ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// [`CheckPolicy::check_max`] asks counted.
    Asked,
    /// Older than the maximum age.
    TooOld,
}

/// A transaction whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    /// Its identity.
    pub(crate) origin: PhysicalOffset,
    /// Whose members are asked.
    pub(crate) group: GroupName,
    /// Asks that have counted so far.
    pub(crate) asks: u32,
    /// True at its maximum age.
    pub(crate) too_old: bool,
    /// When it is asked about again, how often, and what happens then.
    pub(crate) policy: CheckPolicy,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect<C> {
    /// Ask this connection, and say how that went: [`CheckBack::handle_sent`] or [`CheckBack::handle_unsent`].
    Ask {
        /// About which transaction.
        origin: PhysicalOffset,
        /// Whom.
        connection: C,
    },
    /// Record that the transaction was asked about once more.
    Count {
        /// Which transaction.
        origin: PhysicalOffset,
        /// Who answered, or who was asked and did not.
        connection: C,
        /// An answer came: UNKNOWN.
        answered: bool,
        /// When it was asked.
        asked_at: Timestamp,
    },
    /// The transaction is due again at this time, whatever time was set before.
    Reschedule(PhysicalOffset, Timestamp),
    /// Asking has ended: record that the transaction is IN_DOUBT.
    Park(PhysicalOffset, Exhausted),
    /// Asking has ended, and by its policy the transaction is rolled back.
    RollBack(PhysicalOffset, Exhausted),
}

/// Asked, not answered.
#[derive(Debug, Clone)]
struct Asked<C> {
    waiting: Waiting,
    connection: C,
    /// What must have been heard from the connection for the ask to count; `None` while it is not known to be sent.
    mark: Option<u64>,
    /// When.
    at: Timestamp,
    /// It is given up at this time: the transaction would have been due again before, were it still to be asked about.
    until: Timestamp,
}

impl<C: Copy> Asked<C> {
    /// Whether the ask counts without an answer: its connection was heard after the ask was written to it.
    fn counts(&self, heard: u64) -> bool {
        self.mark.is_some_and(|mark| heard >= mark)
    }

    /// It counts, though nobody answered it.
    fn count(&self, origin: PhysicalOffset) -> Effect<C> {
        Effect::Count { origin, connection: self.connection, answered: false, asked_at: self.at }
    }
}

/// The state of all check-backs.
#[derive(Debug)]
pub(crate) struct CheckBack<C> {
    bounds: Bounds,
    members: Members<C>,
    waiting: WaitingRoom,
    asked: HashMap<PhysicalOffset, Asked<C>>,
    asked_until: BTreeSet<(Timestamp, PhysicalOffset)>,
    effects: VecDeque<Effect<C>>,
    next_order: u64,
    /// Thousandths of an ask that may be sent now, as of `refilled_at`.
    tokens_milli: u64,
    refilled_at: Timestamp,
    forgive_at: Option<Timestamp>,
}

impl<C: Copy + Ord + Hash> CheckBack<C> {
    /// Nobody to ask and nothing to ask about, with a full burst of asks to spend.
    pub(crate) fn new(bounds: Bounds, now: Timestamp) -> Self {
        Self {
            bounds,
            members: Members::new(bounds.unanswered_per_connection),
            waiting: WaitingRoom::new(bounds.waiting),
            asked: HashMap::new(),
            asked_until: BTreeSet::new(),
            effects: VecDeque::new(),
            next_order: 0,
            tokens_milli: u64::from(bounds.asks_per_second.max(1)) * 1000,
            refilled_at: now,
            forgive_at: None,
        }
    }

    /// These transactions are due, the earliest first. Each is given a later time at once, so that nothing is lost
    /// whatever happens to it here.
    pub(crate) fn handle_due(&mut self, now: Timestamp, due: impl IntoIterator<Item = Due>) {
        for Due { origin, group, mut asks, too_old, policy } in due {
            let mut asked_before = false;
            if let Some(asked) = self.take_asked(origin) {
                asked_before = true;
                if asked.counts(self.members.heard_from(asked.connection)) {
                    asked_before = false;
                    asks = asks.saturating_add(1);
                    self.effects.push_back(asked.count(origin));
                }
            }
            let later = now.saturating_add_ms(policy.next_ask_after_ms(asks));
            self.effects.push_back(Effect::Reschedule(origin, later));
            let exhausted = match (asks >= policy.check_max, too_old) {
                (true, _) => Some(Exhausted::Asked),
                (false, true) => Some(Exhausted::TooOld),
                (false, false) => None,
            };
            // a later time first: on a full disk the record may be refused, and then it is parked the next time
            if let Some(reason) = exhausted {
                self.waiting.leave(origin);
                self.effects.push_back(match policy.exhausted {
                    Then::Park => Effect::Park(origin, reason),
                    Then::RollBack => Effect::RollBack(origin, reason),
                });
                continue;
            }
            let (order, until) = (self.new_order(), self.give_up_at(later));
            let waiting = Waiting { group, order, asks, doubtful: false, asked: asked_before, until, policy };
            self.enqueue(origin, waiting);
        }
        self.ask_waiting(now);
    }

    /// `connection` speaks for `group`. True if that is new: then the group's IN_DOUBT transactions are to be handed in
    /// with [`Self::handle_in_doubt`].
    pub(crate) fn handle_joined(&mut self, now: Timestamp, group: &GroupName, connection: C) -> bool {
        let new = self.members.join(group, connection);
        if new {
            self.waiting.set_members(group, true);
            self.waiting.unblock(group);
            self.ask_waiting(now);
        }
        new
    }

    /// These transactions of `group` are IN_DOUBT and a new connection has appeared.
    pub(crate) fn handle_in_doubt(
        &mut self,
        now: Timestamp,
        group: &GroupName,
        origins: impl IntoIterator<Item = PhysicalOffset>,
    ) {
        for origin in origins {
            if !self.asked.contains_key(&origin) {
                let (order, group) = (self.new_order(), group.clone());
                let until = now.saturating_add_ms(DOUBTFUL_WAITS_MS);
                let policy =
                    CheckPolicy { interval_ms: self.bounds.check_interval_ms, ..CheckPolicy::default() };
                let waiting = Waiting { group, order, asks: 0, doubtful: true, asked: false, until, policy };
                self.enqueue(origin, waiting);
            }
        }
        self.ask_waiting(now);
    }

    /// `connection` speaks for `group` no longer, but is still there.
    pub(crate) fn handle_left(&mut self, group: &GroupName, connection: C) {
        self.members.leave(group, connection);
        self.waiting.set_members(group, self.members.has_any(group));
    }

    /// `connection` closed, after everything up to `heard` had been heard from it. What it was asked counts if it was
    /// heard afterwards; the rest waits again, in its old place, for another member of the group.
    pub(crate) fn handle_closed(&mut self, now: Timestamp, connection: C, heard: u64) {
        self.members.heard(connection, heard);
        let heard = self.members.heard_from(connection);
        let (groups, unanswered) = self.members.close(connection);
        for group in groups {
            self.waiting.set_members(&group, self.members.has_any(&group));
        }
        for origin in unanswered {
            let Some(asked) = self.asked.remove(&origin) else { continue };
            self.asked_until.remove(&(asked.until, origin));
            if asked.waiting.doubtful {
                continue;
            }
            if asked.counts(heard) {
                // its later time is set already
                self.effects.push_back(asked.count(origin));
            } else {
                self.enqueue(origin, asked.waiting);
            }
        }
        self.ask_waiting(now);
    }

    /// Something was heard from `connection` after everything up to `mark` had been written to it.
    pub(crate) fn handle_heard(&mut self, connection: C, mark: u64) {
        self.members.heard(connection, mark);
    }

    /// The ask was handed to its connection as number `mark` of what is written to it.
    pub(crate) fn handle_sent(&mut self, origin: PhysicalOffset, mark: u64) {
        if let Some(asked) = self.asked.get_mut(&origin) {
            asked.mark = Some(mark);
        }
    }

    /// The ask was not handed to the connection: it is full or closing. The transaction waits again in its old place.
    pub(crate) fn handle_unsent(&mut self, now: Timestamp, origin: PhysicalOffset) {
        let Some(asked) = self.take_asked(origin) else { return };
        self.members.congest(asked.connection);
        self.forgive_at.get_or_insert(now.saturating_add_ms(CONGESTED_MS));
        self.enqueue(origin, asked.waiting);
    }

    /// `connection` sent an END for this transaction: with an outcome, or UNKNOWN.
    pub(crate) fn handle_answered(
        &mut self,
        now: Timestamp,
        origin: PhysicalOffset,
        connection: C,
        unknown: bool,
    ) {
        let mut asked_at = now;
        let answered = match self.take_asked(origin) {
            Some(asked) => {
                asked_at = asked.at;
                Some(asked.waiting)
            }
            // a late answer, while the transaction waits to be asked again
            None if !unknown || self.waiting.get(origin).is_some_and(|waiting| waiting.asked) => {
                self.waiting.leave(origin)
            }
            None => None,
        };
        if let Some(waiting) = answered
            && unknown
            && !waiting.doubtful
        {
            let after = waiting.policy.next_ask_after_ms(waiting.asks.saturating_add(1));
            self.effects.push_back(Effect::Count { origin, connection, answered: true, asked_at });
            self.effects.push_back(Effect::Reschedule(origin, now.saturating_add_ms(after)));
        }
        self.ask_waiting(now);
    }

    /// The transaction turned out to be decided, or is not to be asked for another reason.
    pub(crate) fn handle_gone(&mut self, now: Timestamp, origin: PhysicalOffset) {
        self.waiting.leave(origin);
        if self.take_asked(origin).is_some() {
            self.ask_waiting(now);
        }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        if self.forgive_at.is_some_and(|at| at <= now) {
            self.forgive_at = None;
            self.members.forgive();
            self.waiting.unblock_all();
        }
        self.waiting.expire(now);
        while let Some(&(until, origin)) = self.asked_until.first() {
            if until > now {
                break;
            }
            self.take_asked(origin);
        }
        self.ask_waiting(now);
    }

    /// When [`Self::handle_timeout`] has something to do next.
    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        let rate = u64::from(self.bounds.asks_per_second.max(1));
        let missing = 1000_u64.saturating_sub(self.tokens_milli);
        let token_at = self
            .waiting
            .is_ready()
            .then(|| self.refilled_at.saturating_add_ms(missing.div_ceil(rate).max(1)));
        let given_up = self.asked_until.first().map(|&(until, _)| until);
        [token_at, given_up, self.forgive_at].into_iter().flatten().min()
    }

    /// Hands out the next effect, oldest first.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect<C>> {
        self.effects.pop_front()
    }

    /// Connections with open asks, in no order: whether they were heard matters.
    pub(crate) fn asked_connections(&self) -> Vec<C> {
        self.members.asked().collect()
    }

    /// Transactions that wait to be asked, and asks without an answer.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.waiting.len(), self.asked.len())
    }

    fn new_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    /// A while after a transaction would have been due at `later`.
    fn give_up_at(&self, later: Timestamp) -> Timestamp {
        later.saturating_add_ms(self.bounds.check_interval_ms)
    }

    /// Lets a transaction wait. Where the room is full it comes back when it is due the next time.
    fn enqueue(&mut self, origin: PhysicalOffset, waiting: Waiting) {
        let has_members = self.members.has_any(&waiting.group);
        self.waiting.enter(origin, waiting, has_members);
    }

    fn take_asked(&mut self, origin: PhysicalOffset) -> Option<Asked<C>> {
        let asked = self.asked.remove(&origin)?;
        self.asked_until.remove(&(asked.until, origin));
        for group in self.members.settle(asked.connection, origin) {
            self.waiting.unblock(group);
        }
        Some(asked)
    }

    /// Asks as much as members, their open asks and the rate allow, in due order.
    fn ask_waiting(&mut self, now: Timestamp) {
        self.refill(now);
        while self.tokens_milli >= 1000 {
            let Some(group) = self.waiting.first_group().cloned() else { return };
            let Some(connection) = self.members.take_turn(&group) else {
                self.waiting.block(&group);
                continue;
            };
            let head = self.waiting.head(&group);
            let Some((origin, waiting)) = head.and_then(|origin| Some((origin, self.waiting.leave(origin)?)))
            else {
                self.waiting.block(&group);
                continue;
            };
            self.tokens_milli -= 1000;
            let after = waiting.policy.next_ask_after_ms(waiting.asks);
            let later = now.saturating_add_ms(after);
            self.effects.push_back(Effect::Ask { origin, connection });
            let until = if waiting.doubtful { later } else { self.give_up_at(later) };
            if !waiting.doubtful {
                self.effects.push_back(Effect::Reschedule(origin, later));
            }
            self.members.ask(connection, origin);
            self.asked_until.insert((until, origin));
            self.asked.insert(origin, Asked { waiting, connection, mark: None, at: now, until });
        }
    }

    fn refill(&mut self, now: Timestamp) {
        let rate = u64::from(self.bounds.asks_per_second.max(1));
        let gained = now.saturating_since_ms(self.refilled_at).saturating_mul(rate);
        self.tokens_milli = self.tokens_milli.saturating_add(gained).min(rate * 1000);
        self.refilled_at = self.refilled_at.max(now);
    }
}

#[cfg(test)]
mod tests;
