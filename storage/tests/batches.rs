//! Messages of one batch that belong together go into one frame: a crash between two frames leaves all of them or none.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod fixture;

use std::sync::Arc;

use mezzo_protocol::ids::{QueueId, QueueOffset};
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{AckLevel, Batch, NoObserver, OperationResult, Store, StoreOptions, Visibility};

use fixture::{T0 as NOW, body_of, encode, put_topic};

const FRAME_BYTES: u32 = 8 << 10;

fn open(disk: &SimulatedDisk) -> Arc<Store> {
    let options = StoreOptions {
        segment_bytes: 64 << 10,
        frame_bytes_max: FRAME_BYTES,
        ack: AckLevel::Durable,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    };
    let (store, _) = Store::open(Arc::new(disk.clone()), options, NOW, Arc::new(NoObserver)).unwrap();
    store
}

fn add(store: &Store, batch: &mut Batch, body: &str) {
    encode(store, batch, Visibility::Now, body.as_bytes(), "");
}

/// First letters of the messages that are there.
fn shown(store: &Store) -> String {
    let queue = store.topic("t").unwrap().queue(QueueId(0)).unwrap();
    let read = store.read_entries(&queue, QueueOffset(0), usize::MAX, &mut |_| true).unwrap();
    let letter = |entry| {
        let message = store.read_message(entry).unwrap();
        body_of(&message.bytes).chars().next().unwrap()
    };
    read.entries.iter().map(|(_, entry)| letter(entry)).collect()
}

/// Appends groups of messages, each to be kept together, on a disk whose `fails`th write fails; what is there after the
/// crash.
fn after(groups: &[(&str, usize)], fails: Option<u64>) -> String {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    put_topic(&store);
    store.sync().unwrap();
    let mut batch = Batch::default();
    for (letters, size) in groups {
        let start = batch.len();
        for letter in letters.chars() {
            add(&store, &mut batch, &letter.to_string().repeat(*size));
        }
        batch.keep_together(start..batch.len());
    }
    if let Some(write) = fails {
        disk.fail_write(write);
    }
    let appended = store.append(NOW, &mut batch);
    assert_eq!(appended.is_err(), fails.is_some());
    if appended.is_ok() {
        assert!(batch.results().iter().all(|result| matches!(result, OperationResult::Stored { .. })));
    }
    drop(store);
    shown(&open(&disk.crash(CrashMode::KeepAll)))
}

#[test]
fn a_crash_between_two_frames_leaves_all_messages_of_a_group_or_none() {
    let groups = [("a", 3_000), ("bcd", 2_000), ("efg", 1_500)];
    assert_eq!(after(&groups, None), "abcdefg");
    assert_eq!(after(&groups, Some(1)), "");
    assert_eq!(after(&groups, Some(2)), "a");
    assert_eq!(after(&groups, Some(3)), "abcd");
}

#[test]
fn a_group_that_no_frame_holds_takes_several() {
    let groups = [("a", 100), ("bcdef", 3_000), ("gh", 100)];
    assert_eq!(after(&groups, None), "abcdefgh");
    assert_eq!(after(&groups, Some(2)), "a");
    assert_eq!(after(&groups, Some(3)), "abc");
}
