//! The disk budget: what is refused at it, what goes on, and what may be deleted for it.

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset};
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::CrashMode;
use mezzo_storage::{
    AtMaxBytes, GroupConfig, Operation, OperationResult, Outcome, Refusal, StoreOptions, Visibility,
};

use crate::fixture::{Fixture, RETENTION_MS, T0, name, options};

const MIB: u64 = 1 << 20;
/// Two files of consume queue pages, what state takes, and twelve segments.
pub(crate) const SMALL_BUDGET: u64 = 46 * MIB;
const HALF: Visibility = Visibility::Prepared { delay_ms: None };

/// Segments large enough for a budget to hold the files of consume queue pages, too.
pub(crate) fn budget_options(max_bytes: u64) -> StoreOptions {
    StoreOptions { segment_bytes: MIB, frame_bytes_max: 256 << 10, max_bytes, ..options() }
}

fn big(n: usize) -> String {
    format!("b{n}-{}", "x".repeat(100_000))
}

/// Sends until something is refused; how many were stored, and the refusal.
fn send_until_refused(s: &mut Fixture) -> (usize, Refusal) {
    for n in 0..2000 {
        s.keep();
        match s.send(&big(n), Visibility::Now) {
            OperationResult::Stored { .. } => {}
            OperationResult::Refused(refusal) => return (n, refusal),
            other => panic!("{other:?}"),
        }
        s.store.sync().unwrap();
    }
    panic!("nothing is ever refused");
}

#[test]
fn at_the_budget_messages_are_refused_and_decisions_are_not() {
    let mut s = Fixture::new(budget_options(SMALL_BUDGET));
    let origin = s.half("h");
    let (stored, refusal) = send_until_refused(&mut s);
    assert_eq!(refusal, Refusal::AtMaxBytes);
    assert!(stored > 60, "{stored} messages of 100 kB");
    assert!(s.store.bytes_taken() <= SMALL_BUDGET, "{}", s.store.bytes_taken());
    assert_eq!(s.visible().len(), stored, "nothing was deleted");
    assert_eq!(s.send(&big(9999), HALF), OperationResult::Refused(Refusal::AtMaxBytes));
    assert!(!s.store.is_fenced());
    // decisions, offsets and ticks go on, for many segments if they must
    s.end(origin, "h", Outcome::Committed);
    for n in 0..30_000 {
        if n % 500 == 0 {
            s.prepare();
            s.store.sync().unwrap();
        }
        let group = GroupName::new(&format!("{}{}", n % 10, "g".repeat(100))).unwrap();
        s.store.commit_offset(&group, &name("t"), QueueId(0), QueueOffset(n)).unwrap();
        if n % 10 == 0 {
            s.store.flush_offsets(s.now()).unwrap();
        }
    }
    s.keep();
    assert_eq!(s.send(&big(0), Visibility::Now), OperationResult::Refused(Refusal::AtMaxBytes));
    // time makes room, by itself
    s.pass_retention();
    s.keep();
    assert!(matches!(s.send(&big(1), Visibility::Now), OperationResult::Stored { .. }));
    assert_eq!(s.store.retention_figures().segments_before_their_time, 0);
}

#[test]
fn at_the_budget_the_oldest_go_if_so_configured_and_are_counted_for_who_had_not_read_them() {
    let options = StoreOptions { at_max_bytes: AtMaxBytes::DeleteOldest, ..budget_options(SMALL_BUDGET) };
    let mut s = Fixture::new(options);
    let origin = s.half("h");
    for (group, read) in [("slow", 5), ("fast", 200)] {
        let group = GroupName::new(group).unwrap();
        s.one(Operation::PutGroup(GroupConfig::new(group.clone())));
        s.store.commit_offset(&group, &name("t"), QueueId(0), QueueOffset(read)).unwrap();
    }
    for n in 0..200 {
        assert!(matches!(s.send(&big(n), Visibility::Now), OperationResult::Stored { .. }), "{n}");
        s.store.sync().unwrap();
        s.keep();
    }
    assert!(s.store.bytes_taken() <= SMALL_BUDGET, "{}", s.store.bytes_taken());
    let figures = s.store.retention_figures();
    let min = s.queue().min_offset().0;
    assert!(min > 50, "{min}");
    let unread: Vec<_> = figures.unread_deleted.iter().map(|(g, n)| (g.as_str(), *n)).collect();
    assert_eq!(unread, [("slow", min - 5)]);
    assert_eq!(figures.segments, figures.segments_before_their_time);
    // what is undecided is never deleted
    assert!(s.store.first_position() > origin);
    s.end(origin, "h", Outcome::Committed);
    s.store.sync().unwrap();
    assert_eq!(s.shown("h"), 1);
}

#[test]
fn open_messages_may_take_half_of_the_budget_and_can_always_be_decided() {
    let mut s = Fixture::new(budget_options(SMALL_BUDGET));
    let due = Visibility::Due(Timestamp::from_ms(T0 + 1000 * RETENTION_MS));
    let mut origins = Vec::new();
    let refusal = loop {
        s.keep();
        let body = big(origins.len());
        match s.send(&body, HALF) {
            OperationResult::Prepared { origin, .. } => origins.push((origin, body)),
            OperationResult::Refused(refusal) => break refusal,
            other => panic!("{other:?}"),
        }
        s.store.sync().unwrap();
    };
    // here the files of queue pages take more than half
    assert!(matches!(refusal, Refusal::AtMaxBytes | Refusal::TooManyOpenBytes), "{refusal:?}");
    assert!(matches!(s.send(&big(9999), due), OperationResult::Refused(_)));
    s.pass_retention();
    s.keep();
    let mut s = s.crash(CrashMode::LoseUnsynced);
    for (origin, body) in &origins {
        s.end(*origin, body, Outcome::RolledBack);
        s.store.sync().unwrap();
        s.prepare();
    }
    s.keep();
    assert!(matches!(s.send("h", HALF), OperationResult::Prepared { .. }));
}

#[test]
fn open_bytes_are_bounded_by_half_of_the_budget() {
    let mut s = Fixture::new(budget_options(80 * MIB));
    let mut stored = 0_u64;
    let refusal = loop {
        s.keep();
        match s.send(&big(stored as usize), HALF) {
            OperationResult::Prepared { .. } => stored += 1,
            OperationResult::Refused(refusal) => break refusal,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refusal, Refusal::TooManyOpenBytes);
    assert!((380..=420).contains(&stored), "{stored}");
    assert!(matches!(s.send("m", Visibility::Now), OperationResult::Stored { .. }), "others go on");
}

#[test]
fn at_the_budget_open_messages_are_carried_whatever_their_share_until_nothing_is_gained() {
    let mut s = Fixture::new(budget_options(SMALL_BUDGET));
    // every segment is half open
    let mut open = Vec::new();
    loop {
        s.keep();
        let n = open.len();
        let OperationResult::Prepared { origin, .. } = s.send(&big(n), HALF) else { break };
        open.push((origin, big(n)));
        let OperationResult::Stored { .. } = s.send(&big(n), Visibility::Now) else { break };
    }
    assert_eq!(s.store.first_position(), PhysicalOffset(0));
    s.store.sync().unwrap();
    s.pass_retention();
    s.keep();
    let figures = s.store.retention_figures();
    assert!(figures.segments > 0 && figures.bytes_carried > 900_000, "{figures:?}");
    assert!(figures.bytes_carried < figures.bytes_freed, "{figures:?}");
    assert_eq!(s.store.open_messages(), open.len());
    assert!(matches!(s.send(&big(0), Visibility::Now), OperationResult::Stored { .. }));
    for (origin, body) in &open {
        assert_eq!(crate::fixture::body_of(&s.store.half_message(*origin).unwrap().unwrap().bytes), *body);
    }
}
