//! Rolling, the reserve, a full disk, and frames that are too large.

use mezzo_protocol::time::Timestamp;

use super::model::{SEGMENT_BYTES, dir, open};
use crate::error::StorageError;
use crate::file_system::{CrashMode, FileSystem, SimulatedDisk};
use crate::format::record::{RecordHead, RecordKind};
use crate::log::{Class, PrepareStep};

#[test]
fn the_reserve_is_for_what_keeps_a_promise() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    assert_eq!(opened.log.spare_segments(), 1);
    let filled = loop {
        if let Err(error) = opened.append(&[vec![1; 3000]]) {
            break error;
        }
    };
    assert!(matches!(filled, StorageError::Busy { .. }), "{filled}");
    let rolled = opened.append_as(&[vec![2; 3000]], Class::Essential).unwrap();
    assert_eq!(opened.log.spare_segments(), 0);
    // there is room in the reserve now, but not for messages
    assert!(matches!(opened.append(&[vec![3]]), Err(StorageError::Busy { .. })));
    opened.append_as(&[vec![4]], Class::Essential).unwrap();
    opened.prepare().unwrap();
    let next = opened.append(&[vec![5]]).unwrap();
    assert!(next.start > rolled.end);
    assert!(!opened.log.is_fenced());
}

#[test]
fn a_full_disk_is_no_failure_and_leaves_no_half_made_segment() {
    let disk = SimulatedDisk::new();
    let opened = open(&disk).unwrap();
    let files = disk.list(&dir()).unwrap();
    disk.limit_space(Some(40_000));
    assert_eq!(opened.log.prepare_segments().unwrap(), PrepareStep::NoSpace);
    assert_eq!(disk.list(&dir()).unwrap(), files);
    disk.limit_space(None);
    opened.prepare().unwrap();
    assert_eq!(opened.log.spare_segments(), 2);
    assert_eq!(opened.log.prepare_segments().unwrap(), PrepareStep::Idle);
}

#[test]
fn a_crash_on_a_full_disk_is_recovered_from() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    opened.prepare().unwrap();
    let stored = opened.append(&[vec![1; 50]]).unwrap();
    opened.log.sync().unwrap();
    let lost = (0..6).map(|n| opened.append_as(&[vec![n; 3000]], Class::Essential).unwrap()).last().unwrap();
    assert!(lost.start > SEGMENT_BYTES, "a spare is in use, so that its bytes are not zero");
    for stop in 0.. {
        let full = disk.crash(CrashMode::LoseUnsynced);
        full.limit_space(Some(3 * SEGMENT_BYTES));
        full.fail_after_ops(stop);
        let finished = open(&full).is_ok();
        let again = full.crash(CrashMode::Seeded(stop));
        again.limit_space(Some(3 * SEGMENT_BYTES));
        let mut opened = open(&again).unwrap_or_else(|error| panic!("stopped at {stop}: {error}"));
        assert_eq!(opened.seen.len(), 1, "stopped at {stop}");
        assert_eq!(opened.seen[0].start, stored.start);
        assert!(opened.append(&[vec![2; 50]]).unwrap().start >= lost.end);
        if finished {
            assert!(stop > 8);
            return;
        }
    }
}

#[test]
fn one_frame_is_one_write_and_an_empty_one_is_none() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    let before = disk.writes();
    opened.append(&[vec![1; 10], vec![2; 10], vec![3; 10]]).unwrap();
    assert_eq!(disk.writes(), before + 1);
    let empty = opened.append(&[]).unwrap();
    assert_eq!((empty.start, disk.writes()), (empty.end, before + 1));
}

#[test]
fn more_than_announced_or_than_a_frame_holds_is_refused_and_nothing_is_written() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    let before = (disk.writes(), opened.writer.position());
    assert!(matches!(opened.append(&[vec![1; 4096]]), Err(StorageError::TooLarge { got: 4148, max: 4096 })));
    let payload = [7; 100];
    let head = RecordHead::new(opened.log.seed(), RecordKind::Message, 0, &[&payload]);
    opened.writer.begin(Timestamp::from_ms(1), 50, Class::Message).unwrap();
    opened.writer.push(&head, &[&payload]);
    assert!(matches!(opened.writer.commit(), Err(StorageError::TooLarge { .. })));
    assert_eq!((disk.writes(), opened.writer.position()), before);
    opened.append(&[vec![1; 10]]).unwrap();
}

#[test]
fn leader_time_never_falls() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    let mut times = Vec::new();
    for now in [5_000, 3_000, 9_000, 0] {
        opened.writer.begin(Timestamp::from_ms(now), 20, Class::Message).unwrap();
        let head = RecordHead::new(opened.log.seed(), RecordKind::Message, 0, &[b"x"]);
        opened.writer.push(&head, &[b"x"]);
        times.push(opened.writer.commit().unwrap().time.as_ms());
    }
    assert_eq!(times, [5_000, 5_000, 9_000, 9_000]);
}

#[test]
fn a_sync_covers_every_segment_since_the_last_one() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    opened.prepare().unwrap();
    for n in 0..7 {
        opened.append_as(&[vec![n; 3000]], Class::Essential).unwrap();
    }
    let before = disk.syncs();
    assert_eq!(opened.log.sync().unwrap(), opened.log.appended());
    assert_eq!(disk.syncs(), before + 2);
    assert_eq!(opened.log.sync().unwrap(), opened.log.synced());
    assert_eq!(disk.syncs(), before + 2);
}
