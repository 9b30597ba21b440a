//! At acknowledgement `memory` a power cut takes messages back, but never the topic that they were in: made again, it
//! would give their queue offsets to other messages, and consumers that have seen the lost ones would pass those over.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use mezzo_protocol::ids::{QueueId, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{
    AckLevel, Batch, NoObserver, Operation, OperationResult, Store, StoreOptions, TopicConfig, Visibility,
};

const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

fn open(disk: &SimulatedDisk) -> Arc<Store> {
    let options = StoreOptions {
        ack: AckLevel::Memory,
        segment_bytes: 64 << 10,
        frame_bytes_max: 16 << 10,
        ..StoreOptions::new("/data")
    };
    Store::open(Arc::new(disk.clone()), options, NOW, Arc::new(NoObserver)).unwrap().0
}

fn put_topic(store: &Store) {
    let mut batch = Batch::default();
    batch.push(Operation::PutTopic(TopicConfig::new(TopicName::new("t").unwrap(), 1)));
    store.append(NOW, &mut batch).unwrap();
    assert_eq!(batch.results(), [OperationResult::Done]);
}

/// Sends a message; its queue offset.
fn send(store: &Store, body: &[u8]) -> u64 {
    let topic = store.topic("t").unwrap();
    let parts = MessageParts {
        topic: "t",
        queue_id: QueueId(0),
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: NOW,
        born_host: "127.0.0.1:1".parse().unwrap(),
        store_host_v6: false,
        reconsume_times: 0,
        body,
        properties: b"",
    };
    let mut batch = Batch::default();
    batch.send(&store.encoder(), &topic, QueueId(0), Visibility::Now, &parts).unwrap();
    store.append(NOW, &mut batch).unwrap();
    match batch.results() {
        [OperationResult::Stored { queue_offset, .. }] => queue_offset.0,
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
