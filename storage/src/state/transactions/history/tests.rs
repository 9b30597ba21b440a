//! The history by itself on a simulated disk: what is found where, what goes when, and what damage does.

use super::*;
use crate::file_system::{CrashMode, SimulatedDisk};
use crate::format::history_file::HISTORY_PAGE_BYTES;
use crate::format::record::{Outcome, Source};

const SEGMENT: u64 = 1000;

fn row(origin: u64) -> HistoryRow {
    HistoryRow {
        origin,
        key_hash: origin % 10,
        decided_at_ms: origin,
        first_queue_offset: None,
        decision_position: origin + 1,
        group_hash: 3,
        outcome: Outcome::RolledBack,
        source: Source::Producer,
        count: 1,
        named: false,
    }
}

fn open(disk: &SimulatedDisk, first_position: u64) -> History {
    History::open(Arc::new(disk.clone()), PathBuf::from("/h"), SEGMENT, first_position).unwrap()
}

/// Four segments of twenty decisions each, in files.
fn with_files(disk: &SimulatedDisk) -> History {
    let history = open(disk, 0);
    for origin in (0..4).flat_map(|segment| (0..20).map(move |n| segment * SEGMENT + n)) {
        history.record(origin, row(origin));
    }
    history.close_segments_before(4 * SEGMENT).unwrap();
    history
}

fn flip(disk: &SimulatedDisk, segment: u64, offset: u64) {
    let path = PathBuf::from(format!("/h/{segment:020}"));
    let file = disk.open(&path, OpenMode::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

fn footer_at(disk: &SimulatedDisk, segment: u64) -> u64 {
    let path = PathBuf::from(format!("/h/{segment:020}"));
    disk.open(&path, OpenMode::Read).unwrap().len().unwrap() - 1
}

#[test]
fn a_segment_is_closed_without_a_copy_under_the_lock_that_appends_need() {
    let history = open(&SimulatedDisk::new(), 0);
    for position in [10, 20, 1010, 1020] {
        history.record(position, row(position));
    }
    let (number, rows) = history.first_before(1500).unwrap();
    assert_eq!((number, rows.rows().len()), (0, 2));
    assert!(Arc::ptr_eq(&rows, &history.recent.read().unwrap()[&0]));
    // while it is being written, appends go on and look-ups find both
    history.record(1030, row(1030));
    assert!(history.find(20).unwrap().is_some() && history.find(1030).unwrap().is_some());
    assert_eq!(history.find_by_key(3, 0).unwrap(), Some(row(1030)));
    drop(rows);
    history.close_segments_before(1500).unwrap();
    assert_eq!(history.closed_segments(), [(0, 2)]);
    assert!(history.find_recent(20).is_none() && history.find_recent(1020).is_some());
    assert_eq!(history.find(20).unwrap(), Some(row(20)));
    assert!(history.first_before(1500).is_none());
}

#[test]
fn by_key_the_newest_decision_of_the_group_is_found_wherever_it_stands() {
    let disk = SimulatedDisk::new();
    let history = with_files(&disk);
    for key in 0..10 {
        assert_eq!(history.find_by_key(3, key).unwrap(), Some(row(3010 + key)), "{key}");
        assert_eq!(history.find_by_key(4, key).unwrap(), None, "another group's");
    }
    assert_eq!(history.find_by_key(3, 11).unwrap(), None);
    history.record(4004, row(4004));
    assert_eq!(history.find_by_key(3, 4).unwrap(), Some(row(4004)));
    history.record(4014, row(4014));
    assert_eq!(
        history.find_by_key(3, 4).unwrap(),
        Some(row(4014)),
        "also what came after the first question"
    );
    assert_eq!(open(&disk, 0).find_by_key(3, 4).unwrap(), Some(row(3014)));
}

#[test]
fn more_decisions_of_a_segment_than_one_page_holds_are_found_by_origin_and_by_key() {
    let disk = SimulatedDisk::new();
    let history = History::open(Arc::new(disk), PathBuf::from("/h"), 1 << 20, 0).unwrap();
    let decided = |n: u64| HistoryRow { key_hash: n, ..row(n * 7) };
    for n in 0..2000 {
        history.record(n * 7, decided(n));
    }
    for closed in [false, true] {
        for n in (0..2000).step_by(7) {
            assert_eq!(history.find(n * 7).unwrap(), Some(decided(n)), "{n} {closed}");
            assert_eq!(history.find(n * 7 + 1).unwrap(), None);
            assert_eq!(history.find_by_key(3, n).unwrap(), Some(decided(n)), "{n} {closed}");
        }
        history.close_segments_before(1 << 20).unwrap();
    }
}

#[test]
fn files_go_by_age_and_by_size_but_never_while_the_log_holds_their_segment() {
    let disk = SimulatedDisk::new();
    let history = with_files(&disk);
    let there = |history: &History| history.closed_segments().iter().map(|(n, _)| *n).collect::<Vec<_>>();
    history.expire(0, u64::MAX, 0).unwrap();
    assert_eq!(there(&history), [0, 1, 2, 3]);
    history.expire(3000, 1019, u64::MAX).unwrap();
    assert_eq!(there(&history), [1, 2, 3], "the second's newest is just young enough");
    let file =
        HistoryFooter { segment: 0, rows: 20, min_origin: 0, max_origin: 0, newest_ms: 0 }.file_bytes();
    history.expire(3000, 0, 2 * file).unwrap();
    assert_eq!(there(&history), [2, 3]);
    history.expire(3000, 0, 0).unwrap();
    assert_eq!(there(&history), [3]);
    assert_eq!(history.complete_from(3000), 3000);
    assert_eq!(there(&open(&disk, 3000)), [3]);
}

#[test]
fn a_damaged_page_never_answers_and_the_next_start_rebuilds_its_file_while_the_log_can() {
    let disk = SimulatedDisk::new();
    let history = with_files(&disk);
    flip(&disk, 1, 50);
    assert!(history.find(1001).is_err());
    assert_eq!(history.find(2001).unwrap(), Some(row(2001)), "other files still answer");
    // behind the damage nothing older can be told from newer; by key the newest stands in a whole file
    assert_eq!(history.find_by_key(3, 1).unwrap(), Some(row(3011)));
    let rebuilt = open(&disk, 0);
    assert_eq!(rebuilt.closed_segments(), [(0, 20), (2, 20), (3, 20)]);
    rebuilt.record(1001, row(1001));
    assert_eq!(rebuilt.find(1001).unwrap(), Some(row(1001)));
    rebuilt.close_segments_before(2000).unwrap();
    assert_eq!(open(&disk, 0).find(1001).unwrap(), Some(row(1001)));
}

#[test]
fn a_damaged_index_page_refuses_keys_and_still_finds_origins() {
    let disk = SimulatedDisk::new();
    let history = with_files(&disk);
    flip(&disk, 3, HISTORY_PAGE_BYTES as u64 + 3);
    assert!(history.find_by_key(3, 1).is_err());
    assert_eq!(history.find(3001).unwrap(), Some(row(3001)));
}

#[test]
fn a_file_whose_footer_is_damaged_stops_no_start_and_what_stood_in_it_is_never_called_unknown() {
    let disk = SimulatedDisk::new();
    drop(with_files(&disk));
    flip(&disk, 1, footer_at(&disk, 1));
    // the log is past it
    let history = open(&disk, 2000);
    assert!(history.find(1001).is_err() && history.find(999).is_err(), "it may have been decided there");
    assert_eq!(history.find(2001).unwrap(), Some(row(2001)));
    assert_eq!(history.find(1).unwrap(), Some(row(1)));
    assert_eq!(history.find(2999).unwrap(), None, "prepared behind the damage");
    // it goes when what was decided after it is too old
    history.expire(3000, 2000, u64::MAX).unwrap();
    assert_eq!(history.closed_segments().len(), 3);
    history.expire(3000, 2020, u64::MAX).unwrap();
    assert_eq!(history.closed_segments(), [(3, 20)]);
    // while the log holds the segment it is rebuilt
    flip(&disk, 3, footer_at(&disk, 3));
    assert_eq!(open(&disk, 3000).closed_segments(), []);
}

#[test]
fn a_power_cut_brings_back_no_expired_file_without_those_behind_it() {
    for seed in 0..64 {
        let disk = SimulatedDisk::new();
        let history = with_files(&disk);
        // dies somewhere between the four removals
        disk.fail_after_ops(seed % 8);
        let _dies = history.expire(4 * SEGMENT, u64::MAX, 0);
        let after = disk.crash(CrashMode::Seeded(seed));
        let left: Vec<u64> = open(&after, 4 * SEGMENT).closed_segments().iter().map(|(n, _)| *n).collect();
        assert_eq!(
            left,
            (4 - left.len() as u64..4).collect::<Vec<_>>(),
            "after a power cut with seed {seed}"
        );
    }
}

#[test]
fn a_file_that_is_gone_is_never_taken_for_one_that_knows_nothing() {
    let disk = SimulatedDisk::new();
    let history = with_files(&disk);
    disk.remove(&PathBuf::from(format!("/h/{:020}", 1))).unwrap();
    assert!(history.find(1001).is_err());
    assert_eq!(history.find(2001).unwrap(), Some(row(2001)));
    // at the next start its checkpoint tells
    let history = open(&disk, 4000);
    assert!(history.note_if_lost(1) && !history.note_if_lost(2));
    assert!(history.find(1001).is_err());
    assert!(history.find_by_key(3, 11).is_err());
    // and it goes when its time has come, though there is nothing to go
    history.expire(4000, 2020, u64::MAX).unwrap();
    assert_eq!(history.closed_segments(), [(3, 20)]);
    assert!(!history.note_if_lost(2), "expired since the checkpoint");
}

#[test]
fn a_file_that_cannot_be_removed_keeps_the_younger_ones() {
    let disk = SimulatedDisk::new();
    let history = with_files(&disk);
    disk.fail_after_ops(0);
    assert!(history.expire(4000, u64::MAX, 0).is_err());
    assert_eq!(history.closed_segments().len(), 4);
}
