//! A full disk: new messages are refused in a way that says "later", decisions are not; retention makes room with what is
//! kept for it; when there is room, everything goes on by itself.

use mezzo_protocol::ids::PhysicalOffset;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{OperationResult, Outcome, Refusal, StoreOptions, Visibility};

use crate::fixture::{Fixture, SEGMENT_BYTES, options};

const HALF: Visibility = Visibility::Prepared { delay_ms: None };

fn used(disk: &SimulatedDisk) -> u64 {
    disk.used_space()
}

/// Sends until there is no room; what was refused with.
fn fill_up(s: &mut Fixture) -> Refusal {
    for n in 0..2000 {
        s.prepare();
        let _ = s.store.keep(s.now());
        match s.send(&format!("f{n}-{}", "x".repeat(1000)), Visibility::Now) {
            OperationResult::Stored { .. } => s.store.sync().unwrap(),
            OperationResult::Refused(refusal) => return refusal,
            other => panic!("{other:?}"),
        }
    }
    panic!("nothing is ever refused");
}

#[test]
fn retention_makes_room_on_a_full_disk_and_service_goes_on() {
    let mut s = Fixture::new(options());
    let origin = s.half("h");
    s.fill(4);
    s.keep();
    s.disk.limit_space(Some(used(&s.disk)));
    assert_eq!(fill_up(&mut s), Refusal::NoRoom);
    assert!(!s.store.is_fenced());
    let late = format!("late-{}", "x".repeat(1000));
    assert_eq!(s.send(&late, HALF), OperationResult::Refused(Refusal::NoRoom));
    // everything becomes old: what makes room is written into what is kept for it
    s.pass_retention();
    s.keep();
    assert!(s.store.first_position() > origin, "the half was carried on the full disk");
    assert!(matches!(s.send("m", Visibility::Now), OperationResult::Stored { .. }));
    s.end(origin, "h", Outcome::Committed);
    s.store.sync().unwrap();
    assert_eq!(s.shown("h"), 1);
    let s = s.crash(CrashMode::LoseUnsynced);
    assert_eq!(s.shown("h"), 1);
}

#[test]
fn decisions_go_on_when_not_one_more_byte_can_be_had() {
    let mut s = Fixture::new(options());
    let halves: Vec<_> = (0..40).map(|n| s.half(&format!("h{n}"))).collect();
    s.fill(2);
    s.keep();
    s.disk.limit_space(Some(0));
    assert_eq!(fill_up(&mut s), Refusal::NoRoom);
    for (n, origin) in halves.into_iter().enumerate() {
        s.end(origin, &format!("h{n}"), Outcome::Committed);
        s.store.sync().unwrap();
    }
    assert!(!s.store.is_fenced());
    // somebody makes room
    s.disk.limit_space(None);
    s.keep();
    assert!(matches!(s.send("m", Visibility::Now), OperationResult::Stored { .. }));
}

#[test]
fn a_checkpoint_on_a_full_disk_fails_and_nothing_else_does() {
    let mut s = Fixture::new(options());
    s.fill(2);
    s.disk.limit_space(Some(0));
    assert!(s.store.checkpoint(false).is_err());
    assert!(!s.store.is_fenced());
    assert!(matches!(s.send("m", Visibility::Now), OperationResult::Stored { .. }));
    s.disk.limit_space(None);
    s.store.checkpoint(false).unwrap();
}

#[test]
fn it_starts_on_a_full_disk_and_recovers_when_there_is_room() {
    for mode in [CrashMode::LoseUnsynced, CrashMode::KeepAll] {
        let mut s = Fixture::new(options());
        let origin = s.half("h");
        s.fill(3);
        s.keep();
        s.disk.limit_space(Some(used(&s.disk)));
        fill_up(&mut s);
        let disk = s.disk.crash(mode);
        disk.limit_space(Some(used(&disk)));
        drop(s.store);
        let mut s = Fixture::open(disk, s.options, s.now + 1).unwrap();
        // the decision is taken, or told to come again; never lost
        s.end(origin, "h", Outcome::Committed);
        s.store.sync().unwrap();
        s.disk.limit_space(None);
        s.keep();
        assert!(matches!(s.send("m", Visibility::Now), OperationResult::Stored { .. }), "{mode:?}");
        assert_eq!(s.shown("h"), 1);
    }
}

#[test]
fn a_disk_that_fills_up_at_any_moment_of_retention_fences_nothing() {
    let mut s = Fixture::new(StoreOptions { checkpoint_bytes: 8 << 10, ..options() });
    let origin = s.half("h");
    s.fill(4);
    s.pass_retention();
    let room = used(&s.disk);
    for more in (0..6).map(|n| n * SEGMENT_BYTES / 3) {
        let disk = s.disk.crash(CrashMode::KeepAll);
        let mut copy = Fixture::open(disk, s.options.clone(), s.now).unwrap();
        copy.disk.limit_space(Some(room + more));
        for _ in 0..100 {
            let _ = copy.store.prepare_step();
            let _ = copy.store.keep(copy.now());
        }
        assert!(!copy.store.is_fenced(), "{more}");
        assert!(copy.store.half_message(origin).unwrap().is_some(), "{more}");
        copy.disk.limit_space(None);
        copy.keep();
        assert!(copy.store.first_position() > PhysicalOffset(0), "{more}");
        assert!(matches!(copy.send("m", HALF), OperationResult::Prepared { .. }));
        let mut copy = copy.crash(CrashMode::LoseUnsynced);
        copy.end(origin, "h", Outcome::Committed);
        copy.store.sync().unwrap();
        assert_eq!(copy.shown("h"), 1);
    }
}
