//! When the observer is told that a transaction is IN_DOUBT no longer: once the decision is within the limit, and never of
//! one that a crash could still take back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::sync::{Arc, Mutex};

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::SimulatedDisk;
use mezzo_storage::{
    AckLevel, Batch, EndTarget, EndTransaction, LeftDoubt, Operation, OperationResult, Outcome, ParkReason,
    Queue, Source, Store, StoreObserver, StoreOptions, TopicConfig, Visibility, key_hash,
};

const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

/// Origins that are told to be in doubt no longer.
#[derive(Default)]
struct Told(Mutex<Vec<PhysicalOffset>>);

impl Told {
    fn origins(&self) -> Vec<PhysicalOffset> {
        self.0.lock().unwrap().clone()
    }
}

impl StoreObserver for Told {
    fn limit_advanced(&self, _limit: PhysicalOffset) {}
    fn queue_grew(&self, _queue: &Arc<Queue>) {}
    fn fenced(&self, _reason: &str) {}
    fn left_doubt(&self, left: &LeftDoubt) {
        self.0.lock().unwrap().push(left.origin);
    }
}

fn one(store: &Store, operation: Operation) -> OperationResult {
    let mut batch = Batch::default();
    batch.push(operation);
    store.append(NOW, &mut batch).unwrap();
    batch.results()[0].clone()
}

/// A store with one transaction that is IN_DOUBT, durably.
fn in_doubt(disk: &SimulatedDisk, ack: AckLevel) -> (Arc<Store>, Arc<Told>, PhysicalOffset) {
    let told = Arc::new(Told::default());
    let options = StoreOptions { ack, nonce: Some([7; 16]), ..StoreOptions::new("/data") };
    let observer: Arc<dyn StoreObserver> = Arc::<Told>::clone(&told);
    let (store, _) = Store::open(Arc::new(disk.clone()), options, NOW, observer).unwrap();
    one(&store, Operation::PutTopic(TopicConfig::new(TopicName::new("t").unwrap(), 1)));
    store.sync().unwrap();
    let parts = MessageParts {
        topic: "t",
        queue_id: QueueId(0),
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: NOW,
        born_host: "127.0.0.1:1".parse().unwrap(),
        store_host_v6: false,
        reconsume_times: 0,
        body: b"x",
        properties: "UNIQ_KEY\u{1}k\u{2}PGROUP\u{1}pg\u{2}".as_bytes(),
    };
    let mut batch = Batch::default();
    let visibility = Visibility::Prepared { delay_ms: None };
    batch.send(&store.encoder(), &store.topic("t").unwrap(), QueueId(0), visibility, &parts).unwrap();
    store.append(NOW, &mut batch).unwrap();
    let OperationResult::Prepared { origin, .. } = batch.results()[0] else {
        panic!("{:?}", batch.results())
    };
    assert_eq!(one(&store, Operation::Park { origin, reason: ParkReason::CheckMax }), OperationResult::Done);
    store.sync().unwrap();
    (store, told, origin)
}

fn commit(store: &Store, origin: PhysicalOffset) {
    let decided = one(
        store,
        Operation::End(EndTransaction {
            target: EndTarget::Origin(origin),
            table_offset: Some(origin.0),
            keys: Some([key_hash("k"), 0]),
            producer_group: Some(GroupName::new("pg").unwrap()),
            outcome: Outcome::Committed,
            source: Source::Producer,
            count: Some(1),
            offsets: None,
            only_in_doubt: false,
            decider: None,
            reason: None,
        }),
    );
    assert!(matches!(decided, OperationResult::Decided(_)), "{decided:?}");
}

#[test]
fn a_transaction_that_leaves_doubt_is_told_of_once_its_decision_is_durable() {
    let (store, told, origin) = in_doubt(&SimulatedDisk::new(), AckLevel::Durable);
    commit(&store, origin);
    assert_eq!(told.origins(), [], "a power cut could take the decision back");
    store.sync().unwrap();
    assert_eq!(told.origins(), [origin]);
    store.sync().unwrap();
    assert_eq!(told.origins().len(), 1);
}

#[test]
fn a_decision_that_cannot_be_synced_is_not_told_of() {
    let disk = SimulatedDisk::new();
    let (store, told, origin) = in_doubt(&disk, AckLevel::Durable);
    commit(&store, origin);
    disk.fail_after_ops(0);
    assert!(store.sync().is_err());
    assert_eq!(told.origins(), []);
}

#[test]
fn at_acknowledgement_memory_it_is_told_of_with_the_answer() {
    let (store, told, origin) = in_doubt(&SimulatedDisk::new(), AckLevel::Memory);
    commit(&store, origin);
    assert_eq!(told.origins(), [origin]);
}
