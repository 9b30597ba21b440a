//! Stopping at every point at which a crash can leave another disk, recovering, and comparing with the model.

use super::model::{Model, Opened, dir, open, open_at};
use crate::error::StorageError;
use crate::file_system::{CrashMode, FileSystem, SimulatedDisk};
use crate::log::ResumePoint;

/// Enough for two rolls of the small log.
const FRAMES: usize = 40;

fn modes(seed: u64) -> [CrashMode; 4] {
    let drawn = seed.wrapping_mul(0x9E37_79B9);
    [CrashMode::LoseUnsynced, CrashMode::KeepAll, CrashMode::Seeded(drawn), CrashMode::Seeded(drawn + 1)]
}

/// Runs the whole workload on a new disk that dies after `operations`.
fn run_until(operations: u64) -> (SimulatedDisk, Model, bool) {
    let disk = SimulatedDisk::new();
    disk.fail_after_ops(operations);
    let mut model = Model::default();
    let result = open(&disk).and_then(|mut opened| model.run(&mut opened, FRAMES));
    (disk, model, result.is_ok())
}

/// Recovers a crashed disk and checks everything that must hold then; goes on appending, crashes again, and checks
/// that what the first recovery has shown is durable.
fn recover_and_check(
    left: &SimulatedDisk,
    resume: ResumePoint,
    model: &Model,
    skip: usize,
    kept: bool,
    at: &str,
) {
    let mut opened = open_at(left, resume).unwrap_or_else(|error| panic!("{at}: {error}"));
    model.check(&opened.seen, skip, kept, at);
    model.check_positions(&opened, at);
    let again = open_at(&left.crash(CrashMode::LoseUnsynced), resume).unwrap();
    assert_eq!(again.seen, opened.seen, "{at}: the second recovery shows something else");
    assert!(again.writer.term() > opened.writer.term(), "{at}: a term was opened twice");
    let appended = opened.append(&[b"after the crash".to_vec()]).unwrap();
    opened.log.sync().unwrap();
    let last = open_at(&left.crash(CrashMode::LoseUnsynced), resume).unwrap();
    assert_eq!(last.seen.len(), opened.seen.len() + 1, "{at}: what was appended after the crash is lost");
    assert_eq!(last.seen.last().map(|frame| frame.start), Some(appended.start), "{at}");
}

#[test]
fn a_crash_at_any_write_or_sync_loses_nothing_that_was_promised() {
    for operations in 0.. {
        let (disk, model, finished) = run_until(operations);
        for mode in modes(operations) {
            let at = format!("after {operations} operations, {mode:?}");
            let left = disk.crash(mode);
            recover_and_check(&left, ResumePoint::default(), &model, 0, mode == CrashMode::KeepAll, &at);
        }
        if finished {
            assert!(operations > 80, "the workload is only {operations} operations long");
            return;
        }
    }
}

#[test]
fn a_crash_at_any_point_of_recovery_leaves_the_same_log() {
    for operations in (0..100).step_by(3) {
        let (disk, model, _) = run_until(operations);
        for mode in modes(operations) {
            let left = disk.crash(mode);
            // what the first recovery has shown, it may have shown to a client, too: it must not shrink
            let kept = mode == CrashMode::KeepAll;
            for stop in 0.. {
                let recovering = left.crash(CrashMode::KeepAll);
                recovering.fail_after_ops(stop);
                let finished = open(&recovering).is_ok();
                for second in modes(operations * 100 + stop) {
                    let at =
                        format!("{operations} operations, {mode:?}, recovery stopped at {stop}, {second:?}");
                    let kept = kept && second == CrashMode::KeepAll;
                    let opened =
                        open(&recovering.crash(second)).unwrap_or_else(|error| panic!("{at}: {error}"));
                    model.check(&opened.seen, 0, kept, &at);
                    model.check_positions(&opened, &at);
                }
                if finished {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_tail_torn_at_any_byte_is_whole_or_absent() {
    let writes = {
        let disk = SimulatedDisk::new();
        let mut opened = open(&disk).unwrap();
        let before = disk.writes();
        small_frames(&mut opened, &mut Model::default()).unwrap();
        disk.writes() - before
    };
    for write in 1..=writes {
        for bytes in 0..=160 {
            let disk = SimulatedDisk::new();
            let mut opened = open(&disk).unwrap();
            disk.torn_write_at(write, bytes);
            let mut model = Model::default();
            small_frames(&mut opened, &mut model).unwrap_err();
            for mode in [CrashMode::KeepAll, CrashMode::LoseUnsynced] {
                let at = format!("write {write} torn after {bytes} bytes, {mode:?}");
                let kept = mode == CrashMode::KeepAll;
                recover_and_check(&disk.crash(mode), ResumePoint::default(), &model, 0, kept, &at);
            }
        }
    }
}

/// Three frames shorter than 160 bytes each.
fn small_frames(opened: &mut Opened, model: &mut Model) -> Result<(), StorageError> {
    for payload in [vec![1; 30], vec![2; 60], vec![3; 90]] {
        opened.writer.begin(model_time(), payload.len() + 12, crate::log::Class::Message)?;
        let start = opened.writer.position();
        let head = crate::format::record::RecordHead::new(
            opened.log.seed(),
            crate::format::record::RecordKind::Message,
            0,
            &[&payload],
        );
        opened.writer.push(&head, &[&payload]);
        let end = start + 52 + payload.len() as u64;
        model.tried.push(super::model::Seen { start, end, payloads: vec![payload] });
        opened.writer.commit()?;
        model.appended = model.tried.len();
    }
    Ok(())
}

fn model_time() -> mezzo_protocol::time::Timestamp {
    mezzo_protocol::time::Timestamp::from_ms(2_000)
}

#[test]
fn a_crash_at_any_point_after_a_clean_stop_keeps_what_was_closed() {
    let closed = SimulatedDisk::new();
    let mut before = Model::default();
    let resume = {
        let mut opened = open(&closed).unwrap();
        before.run(&mut opened, 17).unwrap();
        let resume = opened.clean_stop().unwrap();
        before.synced = before.appended;
        resume
    };
    for operations in 0.. {
        let disk = closed.crash(CrashMode::KeepAll);
        disk.fail_after_ops(operations);
        let mut model = before.clone();
        let result = open_at(&disk, resume).and_then(|mut opened| {
            assert!(opened.report.clean && opened.seen.is_empty());
            model.run(&mut opened, 20)
        });
        for mode in modes(operations) {
            let at = format!("{operations} operations after a clean stop, {mode:?}");
            let kept = mode == CrashMode::KeepAll;
            recover_and_check(&disk.crash(mode), resume, &model, 17, kept, &at);
            // the same log, read from its first byte
            let whole = open(&disk.crash(mode)).unwrap_or_else(|error| panic!("{at}: {error}"));
            model.check(&whole.seen, 0, kept, &at);
        }
        if result.is_ok() {
            return;
        }
    }
}

#[test]
fn a_failed_sync_ends_the_log_and_the_next_start_makes_its_bytes_durable() {
    for failing in 1..12 {
        let disk = SimulatedDisk::new();
        let mut opened = open(&disk).unwrap();
        let mut model = Model::default();
        disk.fail_sync(failing);
        let failed = model.run(&mut opened, FRAMES).unwrap_err();
        assert!(matches!(failed, StorageError::Io { op: "sync", .. }), "{failed}");
        assert!(opened.log.is_fenced());
        assert!(matches!(opened.append(&[vec![1]]), Err(StorageError::Fenced { .. })));
        assert!(matches!(opened.log.sync(), Err(StorageError::Fenced { .. })));
        assert!(matches!(opened.log.prepare_segments(), Err(StorageError::Fenced { .. })));
        // the process ends, the page cache stays: what the next start reads there it must make durable itself
        let left = disk.crash(CrashMode::KeepAll);
        let at = format!("sync {failing} failed");
        recover_and_check(&left, ResumePoint::default(), &model, 0, true, &at);
    }
}

#[test]
fn a_failed_write_ends_the_log() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    disk.fail_write(1);
    assert!(matches!(opened.append(&[vec![1]]), Err(StorageError::Io { .. })));
    assert!(matches!(opened.append(&[vec![1]]), Err(StorageError::Fenced { .. })));
    assert_eq!(open(&disk.crash(CrashMode::KeepAll)).unwrap().seen, []);
}

#[test]
fn many_crashes_in_a_row_never_lose_a_synced_frame() {
    let mut disk = SimulatedDisk::new();
    let mut durable = Vec::new();
    for round in 0..60 {
        let at = format!("round {round}");
        let mut opened = open(&disk).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert_eq!(opened.seen.get(..durable.len()), Some(&durable[..]), "{at}");
        let mut model = Model { tried: opened.seen.clone(), ..Model::default() };
        model.appended = model.tried.len();
        model.synced = model.tried.len();
        model.run(&mut opened, 7).unwrap();
        durable = model.tried[..model.synced].to_vec();
        disk = disk.crash(CrashMode::Seeded(round));
    }
    // every crash burns a segment, none leaves rubbish behind
    let opened = open(&disk).unwrap();
    assert_eq!(disk.list(&dir()).unwrap().len(), opened.log.segments().len() + opened.log.spare_segments());
}
