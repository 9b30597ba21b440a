//! As many leases as a broker keeps: leases of groups that somebody made up make room for others once they have ended, and
//! every fold of the log agrees on which.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, QueueId, TopicName};
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, FileSystem, SimulatedDisk};
use mezzo_storage::{
    Batch, LeaseRequest, NoObserver, Operation, OperationResult, Refusal, Store, StoreOptions, TopicConfig,
};

const T0: u64 = 1_700_000_000_000;
/// What the store keeps.
const LEASES_MAX: u32 = 100_000;
const QUEUES: u32 = 1_000;
const TTL_MS: u64 = 1_000;
/// How long an ended lease still stands when there is no room.
const KEPT_MS: u64 = 600_000;

fn open(disk: &SimulatedDisk, now: u64) -> Arc<Store> {
    let options = StoreOptions {
        segment_bytes: 32 << 20,
        frame_bytes_max: 1 << 20,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    };
    let now = Timestamp::from_ms(now);
    Store::open(Arc::new(disk.clone()), options, now, Arc::new(NoObserver)).unwrap().0
}

fn topic() -> TopicName {
    TopicName::new("t").unwrap()
}

fn group(number: u32) -> GroupName {
    GroupName::new(&format!("g{number}")).unwrap()
}

fn request(number: u32, renews: Option<u64>) -> Operation {
    Operation::Lease(LeaseRequest {
        group: group(number / QUEUES),
        topic: topic(),
        queue: QueueId(number % QUEUES),
        client: "c".to_owned(),
        ttl_ms: TTL_MS,
        renews,
    })
}

fn one(store: &Store, now: u64, operation: Operation) -> OperationResult {
    let mut batch = Batch::default();
    batch.push(operation);
    store.append(Timestamp::from_ms(now), &mut batch).unwrap();
    store.sync().unwrap();
    batch.results()[0].clone()
}

fn epoch(store: &Store, number: u32) -> Option<u64> {
    let lease = store.lease(&group(number / QUEUES), &topic(), QueueId(number % QUEUES));
    lease.map(|lease| lease.epoch)
}

#[test]
fn leases_that_ended_long_ago_make_room_and_a_restart_agrees() {
    let disk = SimulatedDisk::new();
    let store = open(&disk, T0);
    one(&store, T0, Operation::PutTopic(TopicConfig::new(topic(), QUEUES)));
    for batch_of in 0..LEASES_MAX / QUEUES {
        while store.prepare_step().unwrap() {}
        let mut batch = Batch::default();
        for queue in 0..QUEUES {
            batch.push(request(batch_of * QUEUES + queue, None));
        }
        store.append(Timestamp::from_ms(T0), &mut batch).unwrap();
        assert!(batch.results().iter().all(|result| matches!(result, OperationResult::Leased { .. })));
    }
    store.sync().unwrap();
    let refused = OperationResult::Refused(Refusal::TooManyLeases);
    assert_eq!(one(&store, T0, request(LEASES_MAX, None)), refused);
    // they have ended, and still stand
    let ended = T0 + TTL_MS + KEPT_MS - 10;
    assert_eq!(one(&store, ended, request(LEASES_MAX, None)), refused);
    let renewed = one(&store, ended, request(7, epoch(&store, 7)));
    assert!(matches!(renewed, OperationResult::Leased { .. }), "{renewed:?}");
    let old = epoch(&store, 8);

    let later = ended + 20;
    let given = one(&store, later, request(LEASES_MAX, None));
    assert!(matches!(given, OperationResult::Leased { .. }), "{given:?}");
    let seen = |store: &Store| [7, 8, LEASES_MAX - 1, LEASES_MAX].map(|number| epoch(store, number));
    assert!(matches!(seen(&store), [Some(_), None, None, Some(_)]), "{:?}", seen(&store));
    assert_eq!(one(&store, later, request(8, old)), OperationResult::Refused(Refusal::LeaseLost));
    let expected = seen(&store);
    drop(store);
    for from_checkpoint in [true, false] {
        let disk = disk.crash(CrashMode::LoseUnsynced);
        if !from_checkpoint {
            for name in disk.list(Path::new("/data/checkpoint")).unwrap() {
                disk.remove(&Path::new("/data/checkpoint").join(name)).unwrap();
            }
        }
        let store = open(&disk, later);
        assert_eq!(seen(&store), expected);
        assert!(matches!(one(&store, later, request(LEASES_MAX + 1, None)), OperationResult::Leased { .. }));
    }
}
