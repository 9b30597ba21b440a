//! A disk without room even for what must go on: the broker waits for room, and does not try without a pause.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use mezzo_broker::Config;
use mezzo_broker::server::{SteppedBroker, Surroundings};
use mezzo_protocol::ids::{PhysicalOffset, QueueId, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::{Clock, Timestamp};
use mezzo_storage::file_system::SimulatedDisk;
use mezzo_storage::{
    AskAnswer, Batch, CountedAsk, OpenState, Operation, OperationResult, ParkReason, Refusal, Store,
    TopicConfig, Visibility,
};

/// Real time in which the whole test ends, unless something runs in circles.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
const T0: u64 = 1_700_000_000_000;

struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::Relaxed))
    }
}

fn one(store: &Store, now: Timestamp, operation: Operation) -> OperationResult {
    let mut batch = Batch::default();
    batch.push(operation);
    store.append(now, &mut batch).unwrap();
    batch.results()[0].clone()
}

fn send(store: &Store, now: Timestamp, key: &str, visibility: Visibility) -> OperationResult {
    let properties = format!("UNIQ_KEY\u{1}{key}\u{2}PGROUP\u{1}pg\u{2}");
    let parts = MessageParts {
        topic: "t",
        queue_id: QueueId(0),
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: now,
        born_host: "127.0.0.1:1".parse().unwrap(),
        store_host_v6: false,
        reconsume_times: 0,
        body: b"body",
        properties: properties.as_bytes(),
    };
    let mut batch = Batch::default();
    batch.send(&store.encoder(), &store.topic("t").unwrap(), QueueId(0), visibility, &parts).unwrap();
    store.append(now, &mut batch).unwrap();
    batch.results()[0].clone()
}

/// Writes what must go on until there is no room even for that.
fn use_up_the_reserve(store: &Store, now: Timestamp, origin: PhysicalOffset) {
    let ask = CountedAsk { origin, peer: None, answer: AskAnswer::Silence, waited_ms: 1 };
    let park = Operation::Park { origin, reason: ParkReason::CheckMax };
    let resume = Operation::Resume { origin, by: None };
    // the smallest last: nothing smaller is ever written
    for operations in
        [vec![Operation::Asked(vec![ask; 100])], vec![Operation::Asked(vec![ask])], vec![park, resume]]
    {
        let full = operations.iter().cycle().take(10_000).any(|operation| {
            let result = one(store, now, operation.clone());
            store.sync().unwrap();
            result == OperationResult::Refused(Refusal::NoRoom)
        });
        assert!(full, "there is always room");
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..100 {
        if holds() {
            return;
        }
        // virtual time
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}");
}

async fn play() {
    let disk = SimulatedDisk::new();
    let clock = Arc::new(Hand(AtomicU64::new(T0)));
    let mut config = Config::default();
    config.store.dir = "/data".into();
    config.server.listen = "127.0.0.1:10911".parse().unwrap();
    config.transaction.max_age = Duration::from_secs(8);
    let surroundings = Surroundings {
        disk: Arc::new(disk.clone()),
        clock: Arc::<Hand>::clone(&clock),
        nonce: [7; 16],
        appends_sync: true,
        adjust: Box::new(|options| {
            options.segment_bytes = 64 << 10;
            options.frame_bytes_max = 16 << 10;
        }),
    };
    let broker = SteppedBroker::open(config, surroundings).unwrap();
    let store = broker.store();
    let now = broker.now();
    one(store, now, Operation::PutTopic(TopicConfig::new(TopicName::new("t").unwrap(), 1)));
    store.sync().unwrap();
    let due = send(store, now, "late", Visibility::Due(now.saturating_add_ms(1_000)));
    assert!(matches!(due, OperationResult::Scheduled { .. }), "{due:?}");
    let [other, origin] = ["other", "half"].map(|key| {
        let half = send(store, now, key, Visibility::Prepared { delay_ms: None });
        let OperationResult::Prepared { origin, .. } = half else { panic!("{half:?}") };
        origin
    });
    let in_doubt = || store.transaction(origin).unwrap().state == OpenState::InDoubt;
    disk.limit_space(Some(0));
    use_up_the_reserve(store, now, other);

    let drivers = broker.drivers().map(tokio::spawn);
    // the delayed message is due, and so is the end of the transaction's questions
    clock.0.store(T0 + 10_000, Ordering::Relaxed);
    // virtual time in which both are tried, and can only be refused
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(store.open_messages(), 3);
    assert!(!in_doubt());
    assert_eq!(broker.fenced(), None);

    disk.limit_space(None);
    while store.prepare_step().unwrap() {}
    // a check interval later
    clock.0.store(T0 + 60_000, Ordering::Relaxed);
    eventually("the delayed message is visible", || store.open_messages() == 2).await;
    eventually("the transaction is in doubt", in_doubt).await;
    // nobody else syncs here, and the driver of delayed messages waits for it
    store.sync().unwrap();
    broker.stop();
    for driver in drivers {
        driver.await.unwrap();
    }
}

#[test]
fn what_is_due_waits_for_room_and_comes_then() {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(play());
        done.send(()).unwrap();
    });
    wait.recv_timeout(ENDS_WITHIN).expect("it ends, and without a panic");
}
