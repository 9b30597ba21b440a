//! Stops in order, stops that were not, and the bytes of a new log.

use std::sync::Arc;

use super::model::{LAYOUT, Model, SEGMENT_BYTES, open, open_at, opening, seen, segment_path};
use crate::file_system::{CrashMode, FileSystem, OpenMode, RealFileSystem, SimulatedDisk};
use crate::format::frame::{Frame, FrameKind};
use crate::format::record::{AckLevel, RecordKind, Start};
use crate::log::{Class, ResumePoint, recover};

#[test]
fn the_first_bytes_of_a_log_are_those_of_the_page() {
    let disk = SimulatedDisk::new();
    open(&disk).unwrap();
    let bytes = disk.content(&segment_path(0)).unwrap();
    let mut golden = b"MZ\x02\x05\x5C\0\0\0\x01\0\0\0".to_vec();
    golden.extend_from_slice(&[0x00; 4]); // the frame's CRC, below
    golden.extend_from_slice(&[0; 8]); // index
    golden.extend_from_slice(&1_000u64.to_le_bytes());
    golden.extend_from_slice(&[0; 8]); // synced_to
    let mut payload = b"a nonce for test".to_vec();
    payload.extend_from_slice(&[0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0]);
    payload.extend_from_slice(&[0; 8]);
    let record = b"\x28\0\0\0\x0E\x01\0\0".to_vec();
    let record_crc = crc32fast::hash(&[&LAYOUT.nonce[..], &record, &payload].concat()).to_le_bytes();
    let frame_crc = crc32fast::hash(&[&LAYOUT.nonce[..], &[0; 8], &golden, &record_crc].concat());
    golden[12..16].copy_from_slice(&frame_crc.to_le_bytes());
    let golden = [golden, record, record_crc.to_vec(), payload].concat();
    assert_eq!(bytes[..92], golden);
    let length = u32::from_le_bytes(bytes[96..100].try_into().unwrap()) as usize;
    let blank = Frame::parse(LAYOUT.seed(), 92, &bytes[92..92 + length]).unwrap();
    assert_eq!((blank.header.kind, blank.header.index, blank.header.term), (FrameKind::Blank, 1, 1));
    let records: Vec<_> = blank.records().collect();
    assert_eq!(records[0].kind, RecordKind::Start);
    let start = Start::decode(0, records[0].payload).unwrap();
    assert_eq!((start.ack, start.clean), (AckLevel::Durable, true));
}

#[test]
fn after_a_stop_in_order_the_last_segment_goes_on_and_spares_are_kept() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    opened.append(&[vec![1; 50]]).unwrap();
    opened.prepare().unwrap();
    let resume = opened.clean_stop().unwrap();
    let files = disk.list(&super::model::dir()).unwrap();
    let mut again = open_at(&disk, resume).unwrap();
    assert!(again.report.clean && again.report.cut.is_none());
    assert_eq!((again.report.term, again.report.frames), (2, 0));
    assert_eq!(disk.list(&super::model::dir()).unwrap(), files);
    assert_eq!(again.log.spare_segments(), 2);
    let next = again.append(&[vec![2; 50]]).unwrap();
    assert!(next.start > resume.position && next.start < SEGMENT_BYTES);
}

/// A power cut on a full disk may bring back the name of a prepared segment whose space could not be had.
#[test]
fn a_prepared_segment_that_is_of_no_use_leaves_no_gap_behind() {
    for useless in [1, 2] {
        let disk = SimulatedDisk::new();
        let mut opened = open(&disk).unwrap();
        opened.append(&[vec![1; 50]]).unwrap();
        opened.prepare().unwrap();
        let resume = opened.clean_stop().unwrap();
        let path = segment_path(useless * SEGMENT_BYTES);
        let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
        file.set_len(0).unwrap();
        file.sync_all().unwrap();
        let whole = disk.crash(CrashMode::KeepAll);
        open_at(&whole, resume).unwrap();
        for stop in 0..=whole.operations() {
            let dying = disk.crash(CrashMode::KeepAll);
            dying.fail_after_ops(stop);
            let _ = open_at(&dying, resume);
            for seed in 0..8 {
                let left = dying.crash(CrashMode::Seeded(seed));
                let what = format!("segment {useless}, stopped at {stop}, crash {seed}");
                let mut again = open_at(&left, resume).unwrap_or_else(|e| panic!("{what}: {e}"));
                again.prepare().unwrap();
                while again.writer.position() < SEGMENT_BYTES {
                    again.append(&[vec![2; 2000]]).unwrap();
                }
                let resume = again.clean_stop().unwrap();
                drop(again);
                open_at(&left, resume).unwrap_or_else(|e| panic!("{what}, and then: {e}"));
            }
        }
    }
}

#[test]
fn a_stop_in_order_at_the_very_end_of_a_segment_goes_on_in_the_next() {
    for room in [0usize, 1, 39, 60] {
        let disk = SimulatedDisk::new();
        let mut opened = open(&disk).unwrap();
        loop {
            let left = usize::try_from(SEGMENT_BYTES - opened.writer.position()).unwrap() - room;
            let payload = if left > 4096 { 2000 } else { left - 52 };
            opened.append(&[vec![1; payload]]).unwrap();
            if left <= 4096 {
                break;
            }
        }
        assert_eq!(opened.writer.position(), SEGMENT_BYTES - room as u64);
        let resume = opened.clean_stop().unwrap();
        let mut again = open_at(&disk, resume).unwrap();
        assert!(again.report.clean);
        let next = again.append(&[vec![2; 50]]).unwrap();
        assert!(next.start > SEGMENT_BYTES);
        again.log.sync().unwrap();
        for resume in [resume, ResumePoint::default()] {
            let last = open_at(&disk.crash(CrashMode::LoseUnsynced), resume).unwrap();
            assert_eq!(last.seen.last().map(|frame| frame.start), Some(next.start), "room {room}");
        }
    }
}

#[test]
fn recovery_starts_from_any_frame_boundary_and_from_the_gap_between_segments() {
    let disk = SimulatedDisk::new();
    let mut model = Model::default();
    let mut points = Vec::new();
    let mut opened = open(&disk).unwrap();
    for _ in 0..60 {
        model.run(&mut opened, 1).unwrap();
        points.push((opened.clean_stop().unwrap(), model.tried.len()));
        opened.prepare().unwrap();
    }
    let segments = opened.log.segments();
    assert!(segments.len() > 1);
    for (resume, shown_before) in points {
        let left = disk.crash(CrashMode::LoseUnsynced);
        let resume = ResumePoint { clean: false, ..resume };
        let again = open_at(&left, resume).unwrap();
        assert_eq!(again.seen, model.tried[shown_before..]);
        // where a segment ends, any position up to the next one's base means the same
        if let Some(pair) = segments.windows(2).find(|pair| pair[0].end == resume.position) {
            for position in [pair[0].end + 1, pair[1].base] {
                let left = disk.crash(CrashMode::LoseUnsynced);
                let again = open_at(&left, ResumePoint { position, ..resume }).unwrap();
                assert_eq!(again.seen, model.tried[shown_before..]);
            }
        }
    }
}

#[test]
fn a_removed_first_segment_is_gone_after_a_crash_and_recovery_starts_behind_it() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    let mut model = Model::default();
    model.run(&mut opened, 60).unwrap();
    opened.log.sync().unwrap();
    let first = opened.log.segments()[1];
    let mut index = 0;
    opened
        .log
        .scan(0, first.base, &mut |frame| {
            index = frame.header.index;
            Ok(())
        })
        .unwrap();
    assert_eq!(opened.log.remove_first_segment().unwrap(), first.base);
    assert_eq!(opened.log.first_position(), first.base);
    let resume = ResumePoint { position: first.base, index, ..ResumePoint::default() };
    let again = open_at(&disk.crash(CrashMode::LoseUnsynced), resume).unwrap();
    let expected: Vec<_> = model.tried.iter().filter(|frame| frame.start >= first.base).cloned().collect();
    assert_eq!(again.seen, expected);
    assert_eq!(again.log.first_position(), first.base);
}

#[test]
fn a_real_folder_is_written_read_and_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    let dir = folder.path().join("log");
    let mut frames = Vec::new();
    let (log, mut writer, report) =
        recover(&fs, &dir, &opening(ResumePoint::default()), &mut |_| Ok(())).unwrap();
    assert!(report.clean);
    for n in 0..40u8 {
        let payload = vec![n; 900];
        let head = crate::format::record::RecordHead::new(log.seed(), RecordKind::Message, 0, &[&payload]);
        let now = mezzo_protocol::time::Timestamp::from_ms(5_000);
        writer.begin(now, 912, Class::Message).unwrap();
        let position = writer.push(&head, &[&payload]);
        writer.commit().unwrap();
        frames.push((position, payload));
        log.sync().unwrap();
        log.writeback();
        while log.prepare_segments().unwrap() == crate::log::PrepareStep::Worked {}
    }
    for (position, payload) in &frames {
        assert_eq!(log.record(*position).unwrap().payload, payload[..]);
    }
    drop((log, writer));
    let mut shown = Vec::new();
    let (_, _, report) = recover(&fs, &dir, &opening(ResumePoint::default()), &mut |frame| {
        shown.extend(seen(frame));
        Ok(())
    })
    .unwrap();
    assert!(!report.clean && report.cut.is_none());
    assert_eq!(shown.len(), 40);
}
