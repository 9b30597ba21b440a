//! Each thing that a store does to its disk, stopped at every disk operation of it: before the first, between any two,
//! behind the last, and in the middle of each write. The disk is then found as each kind of crash leaves it, and what the
//! next start shows must be what the model held; that start is stopped at every operation of its own, too.

use std::path::Path;

use mezzo_storage::AckLevel;
use mezzo_storage::file_system::{CrashMode, DiskOperation, DiskOperationKind, SimulatedDisk};

use super::actions::{
    APPEND, Action, BASE, CARRY_FORWARD, CHECKPOINT, GROUP_COMMIT, HISTORY, RENAME, RETENTION, SEGMENT_ROLL,
    START, STOP_IN_ORDER, is, small,
};
use super::run::{Run, open};
use super::verify::{compare, verify};
use DiskOperationKind::Write;

/// Plays an action on a new disk, which `arm` prepares when the action is about to begin.
fn play(action: &Action, ack: AckLevel, arm: impl FnOnce(&SimulatedDisk)) -> Run {
    let disk = SimulatedDisk::new();
    let mut run = Run::new(disk.clone(), small(ack));
    (action.before)(&mut run).unwrap_or_else(|e| panic!("before {}: {e}", action.name));
    arm(&disk);
    let acted = (action.act)(&mut run);
    assert!(acted.is_ok() || disk.has_died(), "{}: {acted:?}", action.name);
    // it may have shown what it was about to say
    let limit = run.store.as_ref().map_or(0, |store| store.limit().0);
    run.published = run.published.max(limit);
    run.store = None;
    run
}

pub fn modes(seed: u64) -> [CrashMode; 5] {
    let seed = seed.wrapping_mul(0x9E37_79B9);
    [
        CrashMode::LoseUnsynced,
        CrashMode::KeepAll,
        CrashMode::Seeded(seed),
        CrashMode::Seeded(seed ^ 0xFFFF),
        CrashMode::SeededWithFlips(seed + 1),
    ]
}

/// What is about to happen when the disk is stopped there.
fn next_of(operations: &[DiskOperation], stop: usize) -> String {
    operations
        .get(stop)
        .map_or_else(|| "behind the last operation".to_owned(), |next| format!("before {next}"))
}

/// How many crashes of each kind were compared with the model.
#[derive(Debug, Default)]
struct Swept {
    first: usize,
    torn: usize,
    second: usize,
}

struct Sweep<'a> {
    action: &'a Action,
    ack: AckLevel,
    /// The action, played to its end: what the model held at each end of the log.
    whole: Run,
    operations: Vec<DiskOperation>,
    swept: Swept,
}

impl Sweep<'_> {
    /// The action, stopped as `arm` says, and the whole past to compare with.
    fn stopped(&self, arm: impl FnOnce(&SimulatedDisk)) -> Run {
        let stopped = play(self.action, self.ack, arm);
        let Run { past, places, started, .. } = self.whole.clone();
        Run { past, places, started, ..stopped }
    }

    /// `goes_on`: the store goes on working, too.
    fn check(&self, run: &Run, disk: SimulatedDisk, kept_all: bool, goes_on: bool, what: &str) {
        let what = format!("{} ({:?}), {what}", self.action.name, self.ack);
        let known = if goes_on {
            verify(run, disk, kept_all, &what)
        } else {
            compare(run, &disk, kept_all, &what).known
        };
        assert!(known.is_some(), "{what}: the log ends where the model knows nothing");
    }

    fn stop_before(&mut self, stop: usize) {
        let at = next_of(&self.operations, stop);
        let mut run = self.stopped(|disk| disk.fail_after_ops(stop as u64));
        for (number, mode) in modes(stop as u64).into_iter().enumerate() {
            let kept_all = mode == CrashMode::KeepAll;
            let what = format!("stopped {at}, {mode:?}");
            let left = run.disk.crash(mode);
            if self.action.is_start && kept_all || number == stop % modes(0).len() {
                self.stop_the_start(&mut run, &left, kept_all, &what);
            }
            self.check(&run, left, kept_all, true, &what);
            self.swept.first += 1;
        }
    }

    /// The start after a crash is stopped, too, before each of its operations.
    fn stop_the_start(&mut self, run: &mut Run, left: &SimulatedDisk, kept_all: bool, what: &str) {
        for (stop, at) in run.starts_on(left).into_iter().enumerate() {
            let starting = run.stopped_start_on(left, stop);
            let modes = modes(stop as u64);
            // the folder's names are lost one by one: in a start of a start each order of losing them counts
            let seeded = if self.action.is_start { &modes[2..4] } else { &[][..] };
            for mode in seeded.iter().chain([&modes[stop % modes.len()]]).copied() {
                let kept_all = kept_all && mode == CrashMode::KeepAll;
                let what = format!("{what}; the start stopped {at}, {mode:?}");
                // what it goes on from is one of few states
                let goes_on = stop % 4 == 0 && seeded.is_empty();
                self.check(run, starting.crash(mode), kept_all, goes_on, &what);
                self.swept.second += 1;
            }
        }
        run.started.pop();
    }

    /// Only the first bytes of this write happen.
    fn tear(&mut self, stop: usize, bytes: usize) {
        let before = self.operations.get(..stop).unwrap_or_default();
        let writes = before.iter().filter(|operation| operation.kind == Write).count() as u64;
        let at = self.operations[stop].to_string();
        let run = self.stopped(|disk| disk.torn_write_at(writes + 1, bytes));
        for mode in [CrashMode::KeepAll, modes(bytes as u64)[2]] {
            let what = format!("torn behind {bytes} bytes of {at}, {mode:?}");
            self.check(&run, run.disk.crash(mode), mode == CrashMode::KeepAll, true, &what);
            self.swept.torn += 1;
        }
    }
}

impl Run {
    /// Where a start on a copy of this disk can be stopped, in words. Remembers where it writes.
    pub fn starts_on(&mut self, left: &SimulatedDisk) -> Vec<String> {
        let starting = left.crash(CrashMode::KeepAll);
        starting.record_operations();
        let (store, report) = open(&starting, &self.options, self.now + 500).unwrap();
        self.started.push((report.log.end, store.end().0));
        let operations = starting.recorded();
        assert!(operations.len() > 3, "a start changes more than that");
        (0..operations.len()).map(|stop| next_of(&operations, stop)).collect()
    }

    /// A copy of this disk on which a start has died behind so many operations.
    pub fn stopped_start_on(&self, left: &SimulatedDisk, stop: usize) -> SimulatedDisk {
        let starting = left.crash(CrashMode::KeepAll);
        starting.fail_after_ops(stop as u64);
        let started = open(&starting, &self.options, self.now + 500);
        assert!(started.is_err(), "a start goes on when its disk has died");
        starting
    }
}

fn sweep(action: &Action, ack: AckLevel) {
    let whole = play(action, ack, SimulatedDisk::record_operations);
    let operations = whole.disk.recorded();
    for step in action.does {
        assert!(
            operations.iter().any(|operation| is(operation, step)),
            "{}: nothing does {step:?}: {operations:#?}",
            action.name
        );
    }
    let mut sweep = Sweep { action, ack, whole, operations, swept: Swept::default() };
    let is_about =
        |sweep: &Sweep<'_>, at: usize| sweep.operations.get(at).is_some_and(|op| action.is_about(op));
    for stop in 0..=sweep.operations.len() {
        // before it, and behind the one before
        if !(is_about(&sweep, stop) || stop > 0 && is_about(&sweep, stop - 1)) {
            continue;
        }
        sweep.stop_before(stop);
        let write = sweep.operations.get(stop).filter(|op| op.kind == Write && action.is_about(op));
        if let Some(bytes) = write.map(|write| write.bytes) {
            let mut cuts = vec![1, bytes / 2, bytes.saturating_sub(1)];
            cuts.dedup();
            for cut in cuts.into_iter().filter(|cut| *cut < bytes) {
                sweep.tear(stop, cut);
            }
        }
    }
    println!("{} ({ack:?}): {} operations, {:?}", action.name, sweep.operations.len(), sweep.swept);
    let about = sweep.operations.iter().filter(|op| action.is_about(op)).count();
    let Swept { first, torn, second } = sweep.swept;
    assert!(about > 0 && first >= (about + 1) * modes(0).len(), "{}: {first} of {about}", action.name);
    assert!(second >= about, "{}: {second} second crashes", action.name);
    let tears = sweep.operations.iter().any(|op| op.kind == Write && action.is_about(op));
    assert_eq!(torn > 0, tears, "{}: {torn} torn writes", action.name);
}

fn sweep_both(action: &Action) {
    sweep(action, AckLevel::Durable);
    sweep(action, AckLevel::Memory);
}

#[test]
fn an_append_stopped_at_every_disk_operation_is_there_or_not() {
    sweep_both(&APPEND);
}

#[test]
fn a_group_commit_stopped_at_every_disk_operation_keeps_all_that_was_synced() {
    sweep_both(&GROUP_COMMIT);
}

#[test]
fn a_segment_roll_stopped_at_every_disk_operation_leaves_one_log() {
    sweep_both(&SEGMENT_ROLL);
}

#[test]
fn a_checkpoint_stopped_at_every_disk_operation_changes_nothing() {
    sweep_both(&CHECKPOINT);
}

#[test]
fn a_stop_in_order_stopped_at_every_disk_operation_changes_nothing() {
    sweep_both(&STOP_IN_ORDER);
}

#[test]
fn a_start_behind_a_kill_stopped_at_every_disk_operation_changes_nothing() {
    sweep_both(&START);
}

#[test]
fn a_history_file_stopped_at_every_disk_operation_tells_of_no_decision_that_was_lost() {
    sweep_both(&HISTORY);
}

#[test]
fn a_new_base_stopped_at_every_disk_operation_changes_nothing() {
    sweep(&BASE, AckLevel::Durable);
}

#[test]
fn the_renaming_of_a_segment_stopped_at_every_disk_operation_takes_all_of_it_or_nothing() {
    sweep_both(&RENAME);
}

#[test]
fn retention_stopped_at_every_disk_operation_takes_only_what_is_old() {
    sweep_both(&RETENTION);
}

#[test]
fn carrying_forward_stopped_at_every_disk_operation_loses_and_doubles_nothing() {
    sweep_both(&CARRY_FORWARD);
}

/// The sweep itself: a row that does not do what it says fails, and so does one that stops at nothing.
#[test]
#[should_panic(expected = "nothing does (Rename, \".deleted\")")]
fn a_sweep_of_an_action_that_does_something_else_fails() {
    sweep(&Action { does: RENAME.does, ..APPEND }, AckLevel::Durable);
}

#[test]
fn the_operations_of_an_action_are_named_by_kind_and_file() {
    let whole = play(&APPEND, AckLevel::Durable, SimulatedDisk::record_operations);
    let operations = whole.disk.recorded();
    assert!(operations.iter().all(|op| op.kind == Write && op.bytes > 40), "{operations:?}");
    assert!(operations.iter().all(|op| op.path.starts_with(Path::new("/data/log"))), "{operations:?}");
}
