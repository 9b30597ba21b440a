//! Consume, transform, produce: two consumers of a group work on one queue of two messages; each puts the offset that it
//! moves into the transaction that carries its output. A consumer may be slow, be thought dead, restart under its old
//! name, and its END may arrive late or twice.
//!
//! ```text
//!  consumer   acquires the lease (and learns offset and epoch) ─► works on the message there ─► END with offsets
//!  broker     log of leases and decisions; a commit counts if epoch and offset are those that stand, else it is fenced
//! ```

use stateright::{Checker, Model, Property};

/// Messages in the queue.
const INPUTS: u8 = 2;
const CONSUMERS: usize = 2;
/// Transactions that the consumers begin, together: each has a number of its own.
const TRANSACTIONS: u8 = 4;
/// Leases that are granted at most.
const EPOCHS: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Record {
    Lease { holder: usize, epoch: u8 },
    Committed { transaction: u8, input: u8 },
    Fenced { transaction: u8 },
}

/// END of a transaction that moves the offset from `from` to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct End {
    transaction: u8,
    epoch: u8,
    from: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Consumer {
    /// Knows nothing: new, restarted, or fenced.
    Idle,
    /// Holds, or believes to hold, the lease.
    Holds { epoch: u8, next: u8 },
    /// Waits to hear of its transaction.
    Waits { end: End },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    consumers: [Consumer; CONSUMERS],
    network: Vec<End>,
    log: Vec<Record>,
    begun: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// Any time may be the time at which the lease before has run out.
    Acquire(usize),
    Work(usize),
    Deliver(End),
    Hear(usize),
    Restart(usize),
}

#[derive(Debug, Clone, Copy)]
struct Rules {
    /// A commit counts only under the epoch of the newest lease.
    epoch_is_checked: bool,
    /// A commit counts only if the offset stands where the transaction found it.
    offset_is_compared: bool,
    /// Each acquisition gives a new epoch, also to the client that holds the lease already.
    epoch_is_always_new: bool,
}

const ALL_RULES: Rules =
    Rules { epoch_is_checked: true, offset_is_compared: true, epoch_is_always_new: true };

impl State {
    fn lease(&self) -> Option<(usize, u8)> {
        self.log.iter().rev().find_map(|record| match record {
            Record::Lease { holder, epoch } => Some((*holder, *epoch)),
            _ => None,
        })
    }

    /// Where the group stands.
    fn offset(&self) -> u8 {
        let moved = self.log.iter().rev().find_map(|record| match record {
            Record::Committed { input, .. } => Some(input + 1),
            _ => None,
        });
        moved.unwrap_or(0)
    }

    /// What became of a transaction: whether it was committed.
    fn decided(&self, of: u8) -> Option<bool> {
        self.log.iter().find_map(|record| match record {
            Record::Committed { transaction, .. } if *transaction == of => Some(true),
            Record::Fenced { transaction } if *transaction == of => Some(false),
            _ => None,
        })
    }

    fn commits_of(&self, of: u8) -> usize {
        self.log.iter().filter(|r| matches!(r, Record::Committed { input, .. } if *input == of)).count()
    }
}

impl Model for Rules {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { consumers: [Consumer::Idle; CONSUMERS], network: Vec::new(), log: Vec::new(), begun: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (number, consumer) in state.consumers.iter().enumerate() {
            match consumer {
                Consumer::Idle => actions.push(Action::Acquire(number)),
                Consumer::Holds { .. } => actions.extend([Action::Work(number), Action::Restart(number)]),
                Consumer::Waits { .. } => actions.extend([Action::Hear(number), Action::Restart(number)]),
            }
        }
        actions.extend(state.network.iter().map(|end| Action::Deliver(*end)));
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Acquire(number) => {
                let epoch = match state.lease() {
                    Some((holder, epoch)) if holder == number && !self.epoch_is_always_new => epoch,
                    Some((_, epoch)) => epoch + 1,
                    None => 1,
                };
                if epoch > EPOCHS {
                    return None;
                }
                state.log.push(Record::Lease { holder: number, epoch });
                state.consumers[number] = Consumer::Holds { epoch, next: state.offset() };
            }
            Action::Work(number) => {
                let Consumer::Holds { epoch, next } = state.consumers[number] else { return None };
                if next >= INPUTS || state.begun >= TRANSACTIONS {
                    return None;
                }
                let end = End { transaction: state.begun, epoch, from: next };
                state.begun += 1;
                state.network.push(end);
                state.consumers[number] = Consumer::Waits { end };
            }
            Action::Deliver(end) => {
                if state.decided(end.transaction).is_some() {
                    return None;
                }
                let current = state.lease().is_some_and(|(_, epoch)| epoch == end.epoch);
                let stands = state.offset() == end.from;
                let fenced = self.epoch_is_checked && !current || self.offset_is_compared && !stands;
                state.log.push(if fenced {
                    Record::Fenced { transaction: end.transaction }
                } else {
                    Record::Committed { transaction: end.transaction, input: end.from }
                });
            }
            Action::Hear(number) => {
                let Consumer::Waits { end } = state.consumers[number] else { return None };
                state.consumers[number] = match state.decided(end.transaction)? {
                    true => Consumer::Holds { epoch: end.epoch, next: end.from + 1 },
                    false => Consumer::Idle,
                };
            }
            Action::Restart(number) => state.consumers[number] = Consumer::Idle,
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("each message is worked on with effect at most once", |_, s: &State| {
                (0..INPUTS).all(|input| s.commits_of(input) <= 1)
            }),
            Property::always("no message is passed over", |_, s: &State| {
                (0..s.offset()).all(|input| s.commits_of(input) == 1)
            }),
            Property::sometimes("all messages are worked on", |_, s: &State| s.offset() == INPUTS),
            Property::sometimes("a consumer that was thought dead is fenced", |_, s: &State| {
                s.log.iter().any(|r| matches!(r, Record::Fenced { .. }))
            }),
        ]
    }

    /// Where a client may acquire its own lease again and again, the log would never come to an end.
    fn within_boundary(&self, state: &State) -> bool {
        state.log.len() <= usize::from(EPOCHS + TRANSACTIONS)
    }
}

fn check(rules: Rules) -> impl Checker<Rules> {
    rules.checker().threads(1).spawn_bfs().join()
}

#[test]
fn every_message_has_its_effect_once_whoever_is_slow_or_restarts() {
    let checker = check(ALL_RULES);
    eprintln!("consume, transform, produce: {} states", checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.is_done());
}

#[test]
fn without_both_checks_a_message_has_its_effect_twice() {
    let checker = check(Rules { epoch_is_checked: false, offset_is_compared: false, ..ALL_RULES });
    assert!(checker.discovery("each message is worked on with effect at most once").is_some());
}

#[test]
fn the_epoch_alone_is_not_enough_for_a_client_that_restarts_under_its_name() {
    let checker = check(Rules { offset_is_compared: false, epoch_is_always_new: false, ..ALL_RULES });
    assert!(checker.discovery("each message is worked on with effect at most once").is_some());
}
