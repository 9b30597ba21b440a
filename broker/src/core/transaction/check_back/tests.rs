//! Events in, effects out. Times are milliseconds, connections and origins plain numbers, groups one letter.

use super::*;

enum Event {
    /// At a time these are due: origin, group, asks so far.
    Due(u64, &'static [(u64, &'static str, u32)]),
    /// One origin is due and at its maximum age.
    TooOld(u64, u64),
    Joined(u64, &'static str, u64),
    InDoubt(u64, &'static str, &'static [u64]),
    Left(&'static str, u64),
    /// Time, connection, what was heard.
    Closed(u64, u64, u64),
    Heard(u64, u64),
    /// The ask about an origin was written as this number.
    Sent(u64, u64),
    Unsent(u64, u64),
    Unknown(u64, u64),
    Decided(u64, u64),
    Gone(u64, u64),
    Time(u64),
}
use Event::{
    Closed, Decided, Due as DueNow, Gone, Heard, InDoubt, Joined, Left, Sent, Time, TooOld, Unknown, Unsent,
};

const BOUNDS: Bounds =
    Bounds { check_interval_ms: 1_000, unanswered_per_connection: 2, asks_per_second: 100, waiting: 4 };

const POLICY: CheckPolicy = CheckPolicy {
    timeout_ms: 100,
    interval_ms: 1_000,
    backoff_percent: 0,
    check_max: 3,
    max_age_ms: 1_000_000,
    exhausted: Then::Park,
};

fn ms(time: u64) -> Timestamp {
    Timestamp::from_ms(time)
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn apply(machine: &mut CheckBack<u64>, event: &Event) {
    match *event {
        DueNow(now, due) => {
            let due = due.iter().map(|&(origin, name, asks)| Due {
                origin: PhysicalOffset(origin),
                group: group(name),
                asks,
                too_old: false,
                policy: POLICY,
            });
            machine.handle_due(ms(now), due);
        }
        TooOld(now, origin) => {
            let due = Due {
                origin: PhysicalOffset(origin),
                group: group("g"),
                asks: 0,
                too_old: true,
                policy: POLICY,
            };
            machine.handle_due(ms(now), [due]);
        }
        Joined(now, name, connection) => {
            machine.handle_joined(ms(now), &group(name), connection);
        }
        InDoubt(now, name, origins) => {
            machine.handle_in_doubt(ms(now), &group(name), origins.iter().map(|&o| PhysicalOffset(o)));
        }
        Left(name, connection) => machine.handle_left(&group(name), connection),
        Closed(now, connection, frames) => machine.handle_closed(ms(now), connection, frames),
        Heard(connection, frames) => machine.handle_heard(connection, frames),
        Sent(origin, mark) => machine.handle_sent(PhysicalOffset(origin), mark),
        Unsent(now, origin) => machine.handle_unsent(ms(now), PhysicalOffset(origin)),
        Unknown(now, origin) => machine.handle_answered(ms(now), PhysicalOffset(origin), 7, true),
        Decided(now, origin) => machine.handle_answered(ms(now), PhysicalOffset(origin), 7, false),
        Gone(now, origin) => machine.handle_gone(ms(now), PhysicalOffset(origin)),
        Time(now) => machine.handle_timeout(ms(now)),
    }
}

/// Feeds the events and compares all effects: "1 asked at c7", "1 counts", "1 at 2000", "1 parked Asked".
fn check_with(bounds: Bounds, events: &[Event], expected: &[&str]) -> CheckBack<u64> {
    let mut machine = CheckBack::new(bounds, ms(0));
    let mut effects = Vec::new();
    for event in events {
        apply(&mut machine, event);
        while let Some(effect) = machine.poll_effect() {
            effects.push(match effect {
                Effect::Ask { origin, connection } => format!("{origin} asked at c{connection}"),
                Effect::Count { origin, .. } => format!("{origin} counts"),
                Effect::Reschedule(origin, at) => format!("{origin} at {}", at.as_ms()),
                Effect::Park(origin, reason) => format!("{origin} parked {reason:?}"),
                Effect::RollBack(origin, reason) => format!("{origin} rolled back {reason:?}"),
            });
        }
    }
    assert_eq!(effects, expected);
    let (waiting, asked) = machine.sizes();
    assert_eq!(asked, machine.members.unanswered());
    assert_eq!(asked, machine.asked_until.len());
    assert!(waiting <= bounds.waiting);
    machine
}

fn check(events: &[Event], expected: &[&str]) -> CheckBack<u64> {
    check_with(BOUNDS, events, expected)
}

#[test]
fn a_due_transaction_is_asked_and_an_unknown_answer_counts_once() {
    check(
        &[
            Joined(0, "g", 7),
            DueNow(100, &[(1, "g", 0)]),
            Unknown(150, 1),
            Unknown(160, 1),
            DueNow(1_150, &[(1, "g", 1)]),
        ],
        &[
            "1 at 1100",
            "1 asked at c7",
            "1 at 1100",
            "1 counts",
            "1 at 1150",
            "1 at 2150",
            "1 asked at c7",
            "1 at 2150",
        ],
    );
}

#[test]
fn an_outcome_ends_asking_and_counts_nothing() {
    let machine = check(
        &[Joined(0, "g", 7), DueNow(100, &[(1, "g", 0)]), Heard(7, 5), Decided(150, 1)],
        &["1 at 1100", "1 asked at c7", "1 at 1100"],
    );
    assert_eq!(machine.sizes(), (0, 0));
}

#[test]
fn an_unanswered_ask_counts_if_its_connection_was_heard_since() {
    check(
        &[
            Joined(0, "g", 7),
            DueNow(100, &[(1, "g", 0)]),
            Sent(1, 9),
            Heard(7, 9),
            DueNow(1_100, &[(1, "g", 0)]),
        ],
        &["1 at 1100", "1 asked at c7", "1 at 1100", "1 counts", "1 at 2100", "1 asked at c7", "1 at 2100"],
    );
}

#[test]
fn an_unanswered_ask_to_a_silent_connection_counts_nothing_until_a_late_answer() {
    check(
        &[
            Joined(0, "g", 7),
            Heard(7, 8),
            DueNow(100, &[(1, "g", 2)]),
            Sent(1, 9),
            Heard(7, 8),
            DueNow(1_100, &[(1, "g", 2)]),
            Unknown(1_200, 1),
        ],
        &[
            "1 at 1100",
            "1 asked at c7",
            "1 at 1100",
            "1 at 2100",
            "1 asked at c7",
            "1 at 2100",
            "1 counts",
            "1 at 2200",
        ],
    );
}

#[test]
fn a_transaction_is_parked_when_it_is_due_after_the_last_ask_that_counts() {
    check(
        &[
            Joined(0, "g", 7),
            DueNow(100, &[(1, "g", 2)]),
            Sent(1, 1),
            Heard(7, 1),
            DueNow(1_100, &[(1, "g", 2)]),
        ],
        &["1 at 1100", "1 asked at c7", "1 at 1100", "1 counts", "1 at 2100", "1 parked Asked"],
    );
    // due again as well, in case that the disk is too full for the record
    check(&[DueNow(100, &[(1, "g", 3)])], &["1 at 1100", "1 parked Asked"]);
    check(&[TooOld(100, 1)], &["1 at 1100", "1 parked TooOld"]);
}

#[test]
fn a_group_that_does_not_answer_keeps_no_other_group_from_being_asked() {
    check(
        &[
            Joined(0, "s", 7),
            Joined(0, "g", 8),
            DueNow(100, &[(1, "s", 0), (2, "s", 0), (3, "s", 0), (4, "s", 0), (5, "s", 0), (6, "s", 0)]),
            DueNow(200, &[(9, "g", 0)]),
        ],
        &[
            "1 at 1100",
            "2 at 1100",
            "3 at 1100",
            "4 at 1100",
            "5 at 1100",
            "6 at 1100",
            "1 asked at c7",
            "1 at 1100",
            "2 asked at c7",
            "2 at 1100",
            "9 at 1200",
            "9 asked at c8",
            "9 at 1200",
        ],
    );
}

#[test]
fn with_nobody_to_ask_it_waits_without_counting_and_is_asked_when_a_member_appears() {
    check(
        &[
            DueNow(100, &[(2, "g", 0), (1, "g", 0), (3, "h", 0)]),
            DueNow(1_100, &[(2, "g", 0)]),
            Joined(1_500, "g", 7),
            Joined(1_500, "g", 7),
        ],
        &[
            "2 at 1100",
            "1 at 1100",
            "3 at 1100",
            "2 at 2100",
            "2 asked at c7",
            "2 at 2500",
            "1 asked at c7",
            "1 at 2500",
        ],
    );
}

#[test]
fn members_take_turns_and_none_has_more_open_asks_than_allowed() {
    check(
        &[
            Joined(0, "g", 7),
            Joined(0, "g", 8),
            DueNow(100, &[(1, "g", 0), (2, "g", 0), (3, "g", 0), (4, "g", 0)]),
            DueNow(200, &[(5, "g", 0)]),
            Decided(300, 2),
        ],
        &[
            "1 at 1100",
            "2 at 1100",
            "3 at 1100",
            "4 at 1100",
            "1 asked at c7",
            "1 at 1100",
            "2 asked at c8",
            "2 at 1100",
            "3 asked at c7",
            "3 at 1100",
            "4 asked at c8",
            "4 at 1100",
            "5 at 1200",
            "5 asked at c8",
            "5 at 1300",
        ],
    );
}

#[test]
fn a_closed_connection_hands_its_asks_to_another_member_uncounted_unless_it_was_heard() {
    check(
        &[
            Joined(0, "g", 7),
            DueNow(100, &[(1, "g", 0)]),
            Sent(1, 3),
            Heard(7, 3),
            DueNow(200, &[(2, "g", 0)]),
            Sent(2, 4),
            Joined(300, "g", 8),
            Closed(400, 7, 3),
        ],
        &[
            "1 at 1100",
            "1 asked at c7",
            "1 at 1100",
            "2 at 1200",
            "2 asked at c7",
            "2 at 1200",
            "1 counts",
            "2 asked at c8",
            "2 at 1400",
        ],
    );
}

#[test]
fn the_rate_of_the_broker_spreads_asks_in_due_order_over_time() {
    let slow = Bounds { asks_per_second: 1, ..BOUNDS };
    let machine = check_with(
        slow,
        &[
            Joined(0, "g", 7),
            Joined(0, "h", 8),
            DueNow(0, &[(3, "g", 0), (1, "h", 0), (2, "g", 0)]),
            Time(999),
            Time(1_000),
        ],
        &["3 at 1000", "1 at 1000", "2 at 1000", "3 asked at c7", "3 at 1000", "1 asked at c8", "1 at 2000"],
    );
    assert_eq!(machine.next_timeout(), Some(ms(2_000)));
}

#[test]
fn a_connection_that_does_not_take_an_ask_is_passed_over_for_a_while() {
    let machine = check(
        &[
            Joined(0, "g", 7),
            DueNow(100, &[(1, "g", 0)]),
            Unsent(100, 1),
            DueNow(150, &[(2, "g", 0)]),
            Time(299),
            Time(300),
        ],
        &[
            "1 at 1100",
            "1 asked at c7",
            "1 at 1100",
            "2 at 1150",
            "1 asked at c7",
            "1 at 1300",
            "2 asked at c7",
            "2 at 1300",
        ],
    );
    assert_eq!(machine.next_timeout(), Some(ms(2_300)));
}

#[test]
fn a_decided_transaction_that_waits_is_not_asked() {
    let machine = check(
        &[DueNow(100, &[(1, "g", 0), (2, "g", 0)]), Gone(150, 1), Decided(160, 2), Joined(200, "g", 7)],
        &["1 at 1100", "2 at 1100"],
    );
    assert_eq!(machine.sizes(), (0, 0));
}

#[test]
fn in_doubt_is_asked_once_counts_nothing_and_frees_its_place_after_an_interval() {
    let machine = check(
        &[
            Joined(0, "g", 7),
            InDoubt(0, "g", &[1, 2, 3]),
            Unknown(10, 1),
            Time(999),
            Time(1_000),
            Time(1_010),
        ],
        &["1 asked at c7", "2 asked at c7", "3 asked at c7"],
    );
    assert_eq!(machine.sizes(), (0, 0));
    check(&[Joined(0, "g", 7), InDoubt(0, "g", &[1]), Closed(5, 7, 9)], &["1 asked at c7"]);
}

#[test]
fn what_does_not_fit_the_waiting_room_comes_back_when_due_again() {
    let machine = check(
        &[DueNow(100, &[(1, "g", 0), (2, "g", 0), (3, "g", 0), (4, "g", 0), (5, "g", 0)]), Left("g", 7)],
        &["1 at 1100", "2 at 1100", "3 at 1100", "4 at 1100", "5 at 1100"],
    );
    assert_eq!(machine.sizes(), (4, 0));
}

#[test]
fn a_member_that_left_is_not_asked_for_that_group() {
    check(&[Joined(0, "g", 7), Left("g", 7), DueNow(100, &[(1, "g", 0)])], &["1 at 1100"]);
}

#[test]
fn groups_that_nobody_speaks_for_do_not_keep_out_those_that_can_be_asked() {
    check(
        &[
            Joined(0, "h", 8),
            DueNow(100, &[(1, "g", 0), (2, "g", 0), (3, "g", 0), (4, "g", 0)]),
            DueNow(200, &[(5, "h", 0), (6, "h", 0), (7, "h", 0)]),
            Decided(300, 5),
        ],
        &[
            "1 at 1100",
            "2 at 1100",
            "3 at 1100",
            "4 at 1100",
            "5 at 1200",
            "6 at 1200",
            "7 at 1200",
            "5 asked at c8",
            "5 at 1200",
            "6 asked at c8",
            "6 at 1200",
            "7 asked at c8",
            "7 at 1300",
        ],
    );
}

#[test]
fn an_ask_that_nobody_answers_frees_its_place_even_if_the_transaction_was_decided_otherwise() {
    let machine = check(
        &[Joined(0, "g", 7), DueNow(100, &[(1, "g", 0), (2, "g", 0), (3, "g", 0)]), Time(2_099), Time(2_100)],
        &["1 at 1100", "2 at 1100", "3 at 1100", "1 asked at c7", "1 at 1100", "2 asked at c7", "2 at 1100"],
    );
    // the third was not due again either: it was decided while it waited
    assert_eq!(machine.sizes(), (0, 0));
}

#[test]
fn what_counts_says_who_was_asked_when_and_whether_there_was_an_answer() {
    let mut machine = CheckBack::new(BOUNDS, ms(0));
    let events = [
        Joined(0, "g", 7),
        DueNow(100, &[(1, "g", 0), (2, "g", 0)]),
        Sent(1, 1),
        Sent(2, 2),
        Unknown(150, 1),
        Heard(7, 2),
        DueNow(1_100, &[(2, "g", 0)]),
    ];
    let mut counted = Vec::new();
    for event in &events {
        apply(&mut machine, event);
        while let Some(effect) = machine.poll_effect() {
            if let Effect::Count { origin, connection, answered, asked_at } = effect {
                counted.push((origin.0, connection, answered, asked_at.as_ms()));
            }
        }
    }
    assert_eq!(counted, [(1, 7, true, 100), (2, 7, false, 100)]);
}

#[test]
fn each_transaction_is_asked_by_its_own_policy_and_rolled_back_in_the_end_if_that_says_so() {
    let mut machine = CheckBack::new(BOUNDS, ms(0));
    let policy = CheckPolicy {
        interval_ms: 200,
        backoff_percent: 200,
        check_max: 2,
        exhausted: Then::RollBack,
        ..POLICY
    };
    let due = |asks| Due { origin: PhysicalOffset(1), group: group("g"), asks, too_old: false, policy };
    machine.handle_joined(ms(0), &group("g"), 7);
    let mut effects = Vec::new();
    for (now, asks) in [(100, 0), (300, 1), (700, 2)] {
        machine.handle_due(ms(now), [due(asks)]);
        machine.handle_answered(ms(now), PhysicalOffset(1), 7, true);
        while let Some(effect) = machine.poll_effect() {
            match effect {
                Effect::Reschedule(_, at) => effects.push(format!("at {}", at.as_ms())),
                Effect::RollBack(_, reason) => effects.push(format!("rolled back {reason:?}")),
                _ => {}
            }
        }
    }
    effects.dedup();
    assert_eq!(effects, ["at 300", "at 500", "at 700", "at 1100", "rolled back Asked"]);
}
