//! One transaction of three messages: prepare, join, the local transaction, END, check-back, and crashes of the producer
//! and of the broker at each arrow.
//!
//! ```text
//!  producer 0   sends its messages, waits until all are stored, runs its local transaction, sends END; may die at any moment
//!  producer 1   of the same group: answers check-backs only; lives
//!  database     one barrier row, locked while a local transaction runs that has inserted it
//!  network      what was sent may arrive at any later time, any number of times, or never
//!  broker       a log, of which a crash keeps what was synced and any part of the rest; it answers what is synced
//! ```

use stateright::{Checker, Model, Property};

/// Messages of the transaction.
const MESSAGES: u8 = 3;
const ALL_STORED: u8 = (1 << MESSAGES) - 1;
/// Crashes of the broker that are tried.
const BROKER_CRASHES: u8 = 3;

/// How the transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Outcome {
    Commit,
    Rollback,
}

/// A record of the broker's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Record {
    Prepared { sequence: u8 },
    Decision { outcome: Outcome, count: u8 },
}

/// What is on the network, to either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Packet {
    Send {
        sequence: u8,
    },
    Sent {
        sequence: u8,
    },
    /// `count`: what the producer believes to have sent; none in an answer to a check-back.
    End {
        outcome: Outcome,
        count: Option<u8>,
    },
    /// What the broker says stands.
    Ended {
        outcome: Outcome,
    },
    Check,
}

/// Where the producer of the transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Producer {
    /// One bit for each message that it knows to be stored.
    Sending {
        stored: u8,
    },
    /// Its local transaction runs.
    Running,
    Decided(Outcome),
    Dead,
}

/// The barrier row, which decides for the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Row {
    Absent,
    /// Inserted by a local transaction that has not ended; whoever wants to insert waits.
    Locked,
    Committed,
    /// Inserted by a check-back: the local transaction cannot insert its own any more.
    Fenced,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    producer: Producer,
    row: Row,
    /// A local transaction was begun and has not ended, whether or not its producer lives.
    running: bool,
    /// Everything ever sent; it may arrive again at any time. Sorted, so that equal states are equal.
    network: Vec<Packet>,
    log: Vec<Record>,
    synced: usize,
    crashes: u8,
    /// What any client was told about the decision.
    told: Vec<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// The producer sends a message, perhaps again.
    SendMessage(u8),
    BeginLocal,
    CommitLocal,
    AbortLocal,
    SendEnd,
    ProducerDies,
    /// The broker gets a packet.
    Deliver(Packet),
    /// The producer hears that a message is stored.
    HearSent(u8),
    /// A client hears what stands.
    HearEnded(Outcome),
    Sync,
    Crash {
        kept: usize,
    },
    AskBack,
    /// A live producer of the group gets a check-back.
    AnswerCheck,
}

/// Which rules hold.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// The check-back inserts the barrier row before it answers; else it only looks.
    check_back_fences: bool,
    /// END names how many messages were sent, and a broker that has another number refuses it.
    end_names_the_count: bool,
    /// The broker looks for a decision before it obeys an END, and before it lets a message open the transaction anew.
    decided_once: bool,
    /// Answers wait until what they tell is synced.
    answers_wait_for_sync: bool,
    /// The producer waits for each answer before it goes on to its local transaction.
    local_transaction_waits: bool,
}

const ALL_RULES: Rules = Rules {
    check_back_fences: true,
    end_names_the_count: true,
    decided_once: true,
    answers_wait_for_sync: true,
    local_transaction_waits: true,
};

impl State {
    fn send(&mut self, packet: Packet) {
        if let Err(place) = self.network.binary_search(&packet) {
            self.network.insert(place, packet);
        }
    }

    fn on_network(&self, packet: Packet) -> bool {
        self.network.binary_search(&packet).is_ok()
    }

    /// Messages in the log before its first decision.
    fn members(&self) -> u8 {
        let open = self.log.iter().take_while(|r| !matches!(r, Record::Decision { .. }));
        u8::try_from(open.count()).unwrap()
    }

    fn decision(&self) -> Option<(usize, Outcome)> {
        self.log.iter().enumerate().find_map(|(at, record)| match record {
            Record::Decision { outcome, .. } => Some((at, *outcome)),
            Record::Prepared { .. } => None,
        })
    }

    /// What is durably decided.
    fn stands(&self) -> Option<Outcome> {
        self.decision().filter(|(at, _)| *at < self.synced).map(|(_, outcome)| outcome)
    }

    /// Consumers can read what a synced commit covers.
    fn visible(&self) -> u8 {
        if self.stands() == Some(Outcome::Commit) { self.members() } else { 0 }
    }

    /// Answers everything that the log lets the broker answer.
    fn answer(&mut self, rules: Rules) {
        let limit = if rules.answers_wait_for_sync { self.synced } else { self.log.len() };
        for at in 0..limit {
            match self.log[at] {
                Record::Prepared { sequence } => self.send(Packet::Sent { sequence }),
                Record::Decision { outcome, .. } => self.send(Packet::Ended { outcome }),
            }
        }
    }

    fn broker_gets(&mut self, packet: Packet, rules: Rules) {
        match packet {
            Packet::Send { sequence } => {
                // a repeat is answered like the first; a message behind the decision, or out of sequence, is refused
                let decided = rules.decided_once && self.decision().is_some();
                let known = self.log.contains(&Record::Prepared { sequence });
                if !decided && !known && sequence == self.members() {
                    self.log.push(Record::Prepared { sequence });
                }
            }
            Packet::End { outcome, count } => {
                let open = self.members() > 0 && (self.decision().is_none() || !rules.decided_once);
                let complete = outcome == Outcome::Rollback
                    || !rules.end_names_the_count
                    || count.is_none_or(|count| count == self.members());
                if open && complete {
                    self.log.push(Record::Decision { outcome, count: self.members() });
                }
            }
            Packet::Sent { .. } | Packet::Ended { .. } | Packet::Check => {}
        }
    }

    /// A producer of the group is asked and looks into the database.
    fn checked(&mut self, rules: Rules) {
        let outcome = match self.row {
            Row::Committed => Outcome::Commit,
            Row::Fenced => Outcome::Rollback,
            // waits for the lock, gives up and says that it does not know
            Row::Locked => return,
            Row::Absent => {
                if rules.check_back_fences {
                    self.row = Row::Fenced;
                }
                Outcome::Rollback
            }
        };
        self.send(Packet::End { outcome, count: None });
    }
}

impl Model for Rules {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            producer: Producer::Sending { stored: 0 },
            row: Row::Absent,
            running: false,
            network: Vec::new(),
            log: Vec::new(),
            synced: 0,
            crashes: 0,
            told: Vec::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        match state.producer {
            Producer::Sending { stored } => {
                for sequence in 0..MESSAGES {
                    actions.extend([Action::SendMessage(sequence), Action::HearSent(sequence)]);
                }
                if stored == ALL_STORED || !self.local_transaction_waits {
                    actions.push(Action::BeginLocal);
                }
            }
            Producer::Decided(_) => actions.push(Action::SendEnd),
            Producer::Running | Producer::Dead => {}
        }
        if state.producer != Producer::Dead {
            actions.push(Action::ProducerDies);
        }
        if state.running {
            actions.extend([Action::CommitLocal, Action::AbortLocal]);
        }
        for packet in &state.network {
            match packet {
                Packet::Send { .. } | Packet::End { .. } => actions.push(Action::Deliver(*packet)),
                Packet::Ended { outcome } => actions.push(Action::HearEnded(*outcome)),
                Packet::Check => actions.push(Action::AnswerCheck),
                Packet::Sent { .. } => {}
            }
        }
        if state.synced < state.log.len() {
            actions.push(Action::Sync);
        }
        if state.crashes < BROKER_CRASHES {
            actions.extend((state.synced..=state.log.len()).map(|kept| Action::Crash { kept }));
        }
        actions.push(Action::AskBack);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::SendMessage(sequence) => state.send(Packet::Send { sequence }),
            Action::HearSent(sequence) => {
                if let Producer::Sending { stored } = state.producer
                    && state.on_network(Packet::Sent { sequence })
                {
                    state.producer = Producer::Sending { stored: stored | 1 << sequence };
                }
            }
            Action::BeginLocal => match state.row {
                Row::Absent => {
                    state.row = Row::Locked;
                    state.running = true;
                    state.producer = Producer::Running;
                }
                // its insert conflicts: the local transaction does not happen
                Row::Fenced => state.producer = Producer::Decided(Outcome::Rollback),
                Row::Locked | Row::Committed => {}
            },
            Action::CommitLocal | Action::AbortLocal => {
                let (row, outcome) = match action {
                    Action::CommitLocal => (Row::Committed, Outcome::Commit),
                    _ => (Row::Absent, Outcome::Rollback),
                };
                state.row = row;
                state.running = false;
                if state.producer == Producer::Running {
                    state.producer = Producer::Decided(outcome);
                }
            }
            Action::SendEnd => {
                if let Producer::Decided(outcome) = state.producer {
                    state.send(Packet::End { outcome, count: Some(MESSAGES) });
                }
            }
            // what it had asked of its database goes on there without it
            Action::ProducerDies => state.producer = Producer::Dead,
            Action::Deliver(packet) => {
                state.broker_gets(packet, *self);
                state.answer(*self);
            }
            Action::HearEnded(outcome) => {
                if !state.told.contains(&outcome) {
                    state.told.push(outcome);
                }
            }
            Action::Sync => {
                state.synced = state.log.len();
                state.answer(*self);
            }
            Action::Crash { kept } => {
                state.crashes += 1;
                state.log.truncate(kept);
                // recovery makes what it found durable before it serves
                state.synced = kept;
                state.answer(*self);
            }
            Action::AskBack => {
                // only what is prepared durably and not decided at all is asked about
                if state.members() > 0 && state.synced > 0 && state.decision().is_none() {
                    state.send(Packet::Check);
                }
            }
            Action::AnswerCheck => state.checked(*self),
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("never lost: what the database committed is not rolled back", |_, s: &State| {
                !(s.row == Row::Committed && s.stands() == Some(Outcome::Rollback))
            }),
            Property::always(
                "never invented: only what the database committed is visible",
                |_, s: &State| s.visible() == 0 || s.row == Row::Committed,
            ),
            Property::always("all or none of the messages are visible", |_, s: &State| {
                matches!(s.visible(), 0 | MESSAGES)
            }),
            Property::always("decided once", |_, s: &State| {
                s.log.iter().filter(|r| matches!(r, Record::Decision { .. })).count() <= 1
            }),
            Property::always("what a client was told stands, also after a crash", |_, s: &State| {
                s.told.iter().all(|told| s.stands() == Some(*told))
            }),
            Property::always("a decision covers what it says", |_, s: &State| {
                s.log.iter().all(|record| match record {
                    Record::Decision { count, .. } => *count == s.members(),
                    Record::Prepared { .. } => true,
                })
            }),
            Property::always(
                "where nothing can happen any more, nothing is undecided",
                |rules: &Self, s: &State| {
                    s.members() == 0 || s.stands().is_some() || !rules.next_steps(s).is_empty()
                },
            ),
            Property::sometimes("a commit becomes visible", |_, s: &State| s.visible() == MESSAGES),
            Property::sometimes(
                "a dead producer's transaction is committed by the check-back",
                |_, s: &State| {
                    s.producer == Producer::Dead
                        && s.visible() == MESSAGES
                        && !s.on_network(Packet::End { outcome: Outcome::Commit, count: Some(MESSAGES) })
                },
            ),
            Property::sometimes("a fence beats a producer that was slow", |_, s: &State| {
                s.row == Row::Fenced && s.producer == Producer::Decided(Outcome::Rollback)
            }),
        ]
    }

    /// A broker that decides again and again would never come to an end.
    fn within_boundary(&self, state: &State) -> bool {
        state.log.len() <= usize::from(MESSAGES) + 2
    }
}

fn check(rules: Rules) -> impl Checker<Rules> {
    rules.checker().threads(1).spawn_bfs().join()
}

#[test]
fn every_state_of_the_protocol_keeps_its_promises() {
    let checker = check(ALL_RULES);
    eprintln!("{} states, {} generated", checker.unique_state_count(), checker.state_count());
    checker.assert_properties();
    assert!(checker.is_done());
}

/// Without `rule`, the promise `property` is broken.
fn without(rules: Rules, property: &'static str) {
    let checker = check(rules);
    assert!(
        checker.discovery(property).is_some(),
        "the model does not notice that a rule is missing: {rules:?}"
    );
}

#[test]
fn a_check_back_that_only_looks_loses_what_commits_later() {
    without(
        Rules { check_back_fences: false, ..ALL_RULES },
        "never lost: what the database committed is not rolled back",
    );
}

#[test]
fn an_end_without_count_commits_a_part() {
    without(
        Rules { end_names_the_count: false, local_transaction_waits: false, ..ALL_RULES },
        "all or none of the messages are visible",
    );
}

#[test]
fn a_broker_that_obeys_every_end_decides_twice() {
    without(Rules { decided_once: false, ..ALL_RULES }, "decided once");
}

#[test]
fn an_answer_before_the_sync_is_taken_back_by_a_crash() {
    without(
        Rules { answers_wait_for_sync: false, ..ALL_RULES },
        "what a client was told stands, also after a crash",
    );
}
