//! Retention stopped at every disk operation, and the disk found in every way: nothing undecided is lost or doubled, and
//! nothing that is young.

use mezzo_protocol::ids::PhysicalOffset;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{Operation, OperationResult, Outcome, ParkReason, StoreOptions, Visibility};

use crate::fixture::{Fixture, RETENTION_MS, T0, body_of, options};

struct Left {
    disk: SimulatedDisk,
    options: StoreOptions,
    now: u64,
    in_doubt: PhysicalOffset,
    many: PhysicalOffset,
    young: Vec<String>,
}

/// Five segments with something of each kind open in them, old enough to go, and young messages behind.
fn before() -> Left {
    // its own checkpoints come when retention wants them
    let mut s = Fixture::new(StoreOptions { checkpoint_bytes: 8 << 10, ..options() });
    let in_doubt = s.half("h");
    s.one(Operation::Park { origin: in_doubt, reason: ParkReason::MaxAge });
    s.fill(1);
    let mut many = None;
    for sequence in 0..3 {
        let more = format!("MEZZO_TX\u{1}tx\u{2}MEZZO_TX_SEQ\u{1}{sequence}\u{2}");
        let half = Visibility::Prepared { delay_ms: None };
        let sent = s.send_with(&format!("m{sequence}"), half, &more);
        let OperationResult::Prepared { origin, .. } = sent else { panic!("{sent:?}") };
        many.get_or_insert(origin);
        if sequence == 1 {
            s.fill(1);
        }
    }
    s.send("d", Visibility::Due(Timestamp::from_ms(T0 + 50 * RETENTION_MS)));
    s.fill(2);
    s.pass_retention();
    s.fill(1);
    let young: Vec<String> = s.visible().into_values().rev().take(20).collect();
    Left { disk: s.disk, options: s.options, now: s.now, in_doubt, many: many.unwrap(), young }
}

fn check(left: &Left, disk: SimulatedDisk, stop: u64) {
    let mut s = Fixture::open(disk, left.options.clone(), left.now).unwrap();
    assert_eq!(s.store.open_messages(), 5, "stopped at {stop}");
    for (origin, body) in [(left.in_doubt, "h"), (left.many, "m0")] {
        let half = s.store.half_message(origin).unwrap().expect("an undecided half");
        assert_eq!(body_of(&half.bytes), body, "stopped at {stop}");
    }
    let visible = s.visible();
    for body in &left.young {
        assert!(visible.values().any(|b| b == body), "a young message is gone, stopped at {stop}");
    }
    // retention goes on from wherever it was
    s.keep();
    assert!(s.store.first_position() > left.many, "stopped at {stop}");
    s.end(left.in_doubt, "h", Outcome::Committed);
    s.now = T0 + 50 * RETENTION_MS;
    let now = s.now();
    assert_eq!(s.one(Operation::Tick(now)), OperationResult::Ticked { messages: 1 });
    s.store.sync().unwrap();
    let s = s.crash(CrashMode::LoseUnsynced);
    assert_eq!((s.shown("h"), s.shown("d"), s.shown("m0")), (1, 1, 0), "stopped at {stop}");
    assert_eq!(s.store.open_messages(), 3);
}

#[test]
fn stopped_at_every_step_it_loses_nothing_and_shows_nothing_twice() {
    let left = before();
    for stop in 0.. {
        let dying = left.disk.crash(CrashMode::KeepAll);
        let copy = Fixture::open(dying.clone(), left.options.clone(), left.now).unwrap();
        copy.prepare();
        dying.fail_after_ops(stop);
        let ended = (0..60).all(|_| copy.store.keep(copy.now()).is_ok());
        drop(copy);
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepAll, CrashMode::Seeded(stop)] {
            check(&left, dying.crash(mode), stop);
        }
        if ended {
            assert!(stop > 30, "only {stop} operations");
            return;
        }
    }
}

#[test]
fn stopped_in_the_start_after_a_stop_it_still_loses_nothing() {
    let left = before();
    // dies at some step of retention, and again in the next start
    for stop in (0..70).step_by(7) {
        let dying = left.disk.crash(CrashMode::KeepAll);
        let copy = Fixture::open(dying.clone(), left.options.clone(), left.now).unwrap();
        copy.prepare();
        dying.fail_after_ops(stop);
        let _ = (0..60).all(|_| copy.store.keep(copy.now()).is_ok());
        drop(copy);
        let found = dying.crash(CrashMode::Seeded(stop));
        for second in 0.. {
            let again = found.crash(CrashMode::KeepAll);
            again.fail_after_ops(second);
            let opened = Fixture::open(again.clone(), left.options.clone(), left.now).is_ok();
            check(&left, again.crash(CrashMode::Seeded(second)), stop);
            if opened {
                break;
            }
        }
    }
}

/// The names that a killed process leaves may be in memory only: the next start must not build on them.
#[test]
fn a_kill_between_base_and_segment_and_a_power_cut_after_the_next_start_leave_the_log_whole() {
    let left = before();
    let mut checked = 0;
    for stop in 0..200 {
        let dying = left.disk.crash(CrashMode::KeepAll);
        let copy = Fixture::open(dying.clone(), left.options.clone(), left.now).unwrap();
        dying.fail_after_ops(stop);
        let ended = (0..60).all(|_| copy.store.keep(copy.now()).is_ok());
        drop(copy);
        let killed = dying.crash(CrashMode::KeepAll);
        let started = Fixture::open(killed, left.options.clone(), left.now).unwrap();
        started.store.sync().unwrap();
        check(&left, started.disk.crash(CrashMode::LoseUnsynced), stop);
        checked += 1;
        if ended {
            break;
        }
    }
    assert!(checked > 30);
}
