//! Reading by position: what is a record, what is not, what is gone.

use super::model::{Model, open, seen};
use crate::error::StorageError;
use crate::file_system::SimulatedDisk;
use crate::format::record::RecordKind;

#[test]
fn every_record_is_read_by_its_position_hot_and_cold_and_no_other_position_is_one() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    let mut model = Model::default();
    model.run(&mut opened, 40).unwrap();
    let mut records = std::collections::BTreeMap::new();
    for frame in &model.tried {
        let mut position = frame.start + 40;
        for payload in &frame.payloads {
            records.insert(position, payload.clone());
            position += 12 + payload.len() as u64;
        }
    }
    let (mut hot, mut cold) = (0, 0);
    for position in model.tried[0].start..opened.log.appended() + 50 {
        match (opened.log.record(position), records.get(&position)) {
            (Ok(record), Some(payload)) => {
                assert_eq!((record.kind, &record.payload[..]), (RecordKind::Message, &payload[..]));
                assert_eq!(record.end, position + 12 + payload.len() as u64);
                if opened.log.is_hot(position) { hot += 1 } else { cold += 1 }
            }
            (Ok(record), None) => assert_eq!(record.kind, RecordKind::Layout, "position {position}"),
            (Err(StorageError::NotARecord { .. }), None) => {}
            (other, expected) => panic!("position {position}: {other:?}, expected {expected:?}"),
        }
    }
    assert!(hot > 3 && cold > 3, "{hot} hot, {cold} cold");
}

#[test]
fn a_whole_log_inside_a_message_does_not_pass_for_one() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    // a client that knows the format, but not the nonce
    let foreign = crate::format::record::LogSeed::from_nonce(b"guessed by a fox");
    let head = crate::format::record::RecordHead::new(foreign, RecordKind::Tick, 0, &[&[0; 8]]);
    let mut body = vec![8, 0, 0, 0, 5, 1, 0, 0];
    body.extend_from_slice(&head.crc.to_le_bytes());
    body.extend_from_slice(&[0; 8]);
    let frame = opened.append(&[body]).unwrap();
    assert!(opened.log.record(frame.start + 40).is_ok());
    assert!(matches!(opened.log.record(frame.start + 52), Err(StorageError::NotARecord { .. })));
}

#[test]
fn a_scan_shows_what_was_appended_and_says_where_it_ended() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    let mut model = Model::default();
    model.run(&mut opened, 40).unwrap();
    let mut shown = Vec::new();
    let end = opened
        .log
        .scan(0, u64::MAX, &mut |frame| {
            shown.extend(seen(frame));
            Ok(())
        })
        .unwrap();
    assert_eq!(shown, model.tried);
    assert_eq!(end, opened.log.appended());
    assert!(opened.log.scan(1, u64::MAX, &mut |_| Ok(())).is_err());
}

#[test]
fn the_time_of_a_record_is_that_of_its_frame() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    let first = opened.append(&[b"MZ".repeat(1000), vec![1; 500]]).unwrap();
    assert_eq!(opened.log.frame_time_at(first.start + 40).unwrap(), 2_000);
    assert_eq!(opened.log.frame_time_at(first.start + 52 + 2000).unwrap(), 2_000);
    assert!(opened.log.frame_time_at(first.start + 41).is_err());
    assert!(opened.log.frame_time_at(opened.log.appended()).is_err());
}

#[test]
fn slices_outlive_the_segment_they_point_into() {
    let disk = SimulatedDisk::new();
    let mut opened = open(&disk).unwrap();
    let mut model = Model::default();
    model.run(&mut opened, 40).unwrap();
    let kept = opened.log.record(model.tried[0].start + 40).unwrap();
    opened.log.sync().unwrap();
    let first = opened.log.remove_first_segment().unwrap();
    assert_eq!(kept.payload, model.tried[0].payloads[0][..]);
    let gone = opened.log.record(model.tried[0].start + 40);
    assert!(matches!(gone, Err(StorageError::Gone { first: now, .. }) if now == first));
}
