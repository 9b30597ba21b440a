//! Rot and torn tails: told apart by what was known durable.

use super::model::{LAYOUT, Opened, SEGMENT_BYTES, open, open_at, overwrite, segment_path, snapshot};
use crate::error::StorageError;
use crate::file_system::{CrashMode, SimulatedDisk};
use crate::format::record::{RECORD_HEADER_BYTES, RecordHead, RecordHeader, RecordKind};
use crate::log::{Class, FrameEnd, ResumePoint};

/// Three frames; all but the last are durable and the last says so.
fn three_frames(disk: &SimulatedDisk) -> (Opened, [FrameEnd; 3]) {
    let mut opened = open(disk).unwrap();
    let mut append = |n: u8| {
        let end = opened.append(&[vec![n; 50], vec![n; 20]]).unwrap();
        opened.log.sync().unwrap();
        end
    };
    let frames = [append(1), append(2), append(3)];
    (opened, frames)
}

#[test]
fn any_flipped_bit_is_detected_and_below_the_synced_position_nothing_is_changed() {
    let original = SimulatedDisk::new();
    let (_, frames) = three_frames(&original);
    let path = segment_path(0);
    let last = frames[2];
    for bit in 0..last.end * 8 {
        let disk = original.crash(CrashMode::KeepAll);
        disk.flip_bit(&path, bit / 8, u8::try_from(bit % 8).unwrap()).unwrap();
        let before = snapshot(&disk);
        match open(&disk) {
            Err(StorageError::Corrupt { .. }) => {
                assert!(bit / 8 < last.start, "bit {bit}: the last frame was not known durable");
                assert_eq!(snapshot(&disk), before, "bit {bit}: a refused start has changed the disk");
            }
            Err(other) => panic!("bit {bit}: {other}"),
            Ok(opened) => {
                assert!(bit / 8 >= last.start, "bit {bit}: damage below the synced position was cut");
                assert_eq!(opened.seen.len(), 2, "bit {bit}");
                assert_eq!(opened.report.cut.as_ref().map(|cut| cut.position), Some(last.start));
            }
        }
    }
}

#[test]
fn damage_names_file_and_offset() {
    let disk = SimulatedDisk::new();
    let (_, frames) = three_frames(&disk);
    overwrite(&disk, &segment_path(0), frames[0].start, &[0; 60]);
    let error = open(&disk).err().unwrap();
    let StorageError::Corrupt { file, offset, reason } = error else { panic!("{error}") };
    assert_eq!((file, offset), (segment_path(0), frames[0].start));
    assert!(reason.contains(&frames[1].end.to_string()), "{reason}");
}

#[test]
fn damage_behind_the_checkpoint_is_found_by_the_checkpoint_alone() {
    let disk = SimulatedDisk::new();
    let (opened, frames) = three_frames(&disk);
    let synced = ResumePoint { synced_to: opened.log.synced(), ..ResumePoint::default() };
    overwrite(&disk, &segment_path(0), frames[2].start, &[0; 60]);
    assert!(matches!(open_at(&disk, synced), Err(StorageError::Corrupt { .. })));
}

#[test]
fn valid_frames_behind_a_torn_hole_are_cut() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    let first = opened.append(&[vec![1; 50]]).unwrap();
    opened.log.sync().unwrap();
    let lost = opened.append(&[vec![2; 50]]).unwrap();
    let behind = opened.append(&[vec![3; 50]]).unwrap();
    overwrite(&disk, &segment_path(0), lost.start, &[0; 70]);
    let mut after = open(&disk).unwrap();
    assert_eq!(after.seen.iter().map(|frame| frame.start).collect::<Vec<_>>(), [first.start]);
    let cut = after.report.cut.clone().unwrap();
    assert_eq!((cut.position, cut.frames, cut.file), (lost.start, 1, segment_path(0)));
    assert_eq!(cut.bytes, behind.end - lost.start);
    assert!(after.append(&[vec![4; 50]]).unwrap().start >= SEGMENT_BYTES);
    assert_eq!(disk.content(&segment_path(0)).unwrap().len() as u64, lost.start);
}

#[test]
fn a_lost_segment_in_the_middle_stops_the_start() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    for n in 0..60 {
        opened.append(&[vec![n; 900]]).unwrap();
        opened.log.sync().unwrap();
        opened.prepare().unwrap();
    }
    let resume = ResumePoint { position: opened.log.segments()[3].base, ..opened.clean_stop().unwrap() };
    for lost in [1, 2] {
        let damaged = disk.crash(CrashMode::KeepAll);
        let fs: &dyn crate::file_system::FileSystem = &damaged;
        fs.remove(&segment_path(lost * SEGMENT_BYTES)).unwrap();
        let before = snapshot(&damaged);
        for resume in [ResumePoint::default(), resume] {
            assert!(matches!(open_at(&damaged, resume), Err(StorageError::Corrupt { .. })), "segment {lost}");
        }
        assert_eq!(snapshot(&damaged), before);
    }
    // a damaged head is no reason to take a whole segment for rubbish
    let damaged = disk.crash(CrashMode::KeepAll);
    damaged.flip_bit(&segment_path(0), 20, 1).unwrap();
    let index = ResumePoint { index: 0, ..resume };
    assert!(matches!(open_at(&damaged, index), Err(StorageError::Corrupt { .. })));
}

#[test]
fn a_record_of_a_newer_program_stops_the_start_and_changes_nothing() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    // a record of a kind that is not known, under a CRC that holds
    let head = RecordHeader { length: 4, kind: 99, version: 1, flags: 0, crc: 0 };
    let mut hasher = LAYOUT.seed().hasher();
    hasher.update(&head.to_bytes()[..8]);
    hasher.update(b"what");
    let crc = hasher.finalize();
    let now = mezzo_protocol::time::Timestamp::from_ms(1);
    opened.writer.begin(now, RECORD_HEADER_BYTES + 4, Class::Message).unwrap();
    let known = RecordHead { kind: RecordKind::Message, version: 1, flags: 0, crc };
    let position = opened.writer.push(&known, &[b"what"]);
    opened.writer.commit().unwrap();
    overwrite(&disk, &segment_path(0), position + 4, &[99]);
    let before = snapshot(&disk);
    let error = open(&disk).err().unwrap();
    assert!(matches!(error, StorageError::NewerVersion { what: "record kind", got: 99, .. }), "{error}");
    assert_eq!(snapshot(&disk), before);
}

#[test]
fn another_segment_size_or_secret_is_refused() {
    let disk = SimulatedDisk::new();
    three_frames(&disk);
    let fs: std::sync::Arc<dyn crate::file_system::FileSystem> = std::sync::Arc::new(disk.clone());
    let before = snapshot(&disk);
    let mut other = super::model::opening(ResumePoint::default());
    other.layout.segment_bytes = 24 * 1024;
    let error = crate::log::recover(&fs, &super::model::dir(), &other, &mut |_| Ok(())).err().unwrap();
    assert!(matches!(error, StorageError::Layout { .. }), "{error}");
    assert_eq!(snapshot(&disk), before);
}

#[test]
fn a_missing_log_under_a_state_that_needs_it_is_refused() {
    let disk = SimulatedDisk::new();
    let resume = ResumePoint { position: 500, ..ResumePoint::default() };
    assert!(matches!(open_at(&disk, resume), Err(StorageError::Corrupt { .. })));
}
