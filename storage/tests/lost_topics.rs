//! At acknowledgement `memory` a power cut takes messages back, but never the topic that they were in: made again, it
//! would give their queue offsets to other messages, and consumers that have seen the lost ones would pass those over.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod fixture;

use std::sync::Arc;

use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{AckLevel, NoObserver, OperationResult, Store, StoreOptions, Visibility};

use fixture::{T0 as NOW, put_topic, send_at};

fn open(disk: &SimulatedDisk) -> Arc<Store> {
    let options = StoreOptions {
        ack: AckLevel::Memory,
        segment_bytes: 64 << 10,
        frame_bytes_max: 16 << 10,
        ..StoreOptions::new("/data")
    };
    Store::open(Arc::new(disk.clone()), options, NOW, Arc::new(NoObserver)).unwrap().0
}

/// Sends a message; its queue offset.
fn send(store: &Store, body: &[u8]) -> u64 {
    match send_at(store, NOW, Visibility::Now, body, "") {
        OperationResult::Stored { queue_offset, .. } => queue_offset.0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_offsets_of_lost_messages_are_not_given_again_though_their_topic_was_new() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    put_topic(&store);
    let seen = send(&store, b"lost");
    drop(store);
    let store = open(&disk.crash(CrashMode::LoseUnsynced));
    assert!(store.topic("t").is_some(), "a topic that was seen is there");
    let next = send(&store, b"new");
    assert!(next > seen, "offset {seen} was seen with another message, and {next} is given");
}
