//! What the store does when the clock of its machine is set forward, then back: deadlines go on, at about the distance
//! they were given, and nothing is made visible early.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::{MessageParts, MessageView};
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{
    AckLevel, Batch, EndTarget, EndTransaction, NoObserver, Operation, OperationResult, Outcome, ParkReason,
    Source, Store, StoreOptions, TopicConfig, Visibility, key_hash,
};

const T0: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(ms)
}

fn open(disk: &SimulatedDisk, now: u64) -> Arc<Store> {
    let options = StoreOptions {
        segment_bytes: 32 << 10,
        frame_bytes_max: 8 << 10,
        ack: AckLevel::Memory,
        retention_ms: 60_000,
        checkpoint_bytes: 1 << 10,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    };
    Store::open(Arc::new(disk.clone()), options, at(now), Arc::new(NoObserver)).unwrap().0
}

/// A store with the topic `t`, whose clock was an hour ahead for a moment and shows [`T0`] again.
fn set_back() -> Arc<Store> {
    let store = open(&SimulatedDisk::new(), T0 + HOUR);
    one(&store, T0 + HOUR, Operation::PutTopic(TopicConfig::new(TopicName::new("t").unwrap(), 1)));
    store
}

fn one(store: &Store, now: u64, operation: Operation) -> OperationResult {
    let mut batch = Batch::default();
    batch.push(operation);
    store.append(at(now), &mut batch).unwrap();
    batch.results()[0].clone()
}

fn send(store: &Store, now: u64, body: &str, visibility: Visibility) -> OperationResult {
    let props = format!("UNIQ_KEY\u{1}{body}\u{2}PGROUP\u{1}pg\u{2}");
    let parts = MessageParts {
        topic: "t",
        queue_id: QueueId(0),
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: at(now),
        born_host: "127.0.0.1:1".parse().unwrap(),
        store_host_v6: false,
        reconsume_times: 0,
        body: body.as_bytes(),
        properties: props.as_bytes(),
    };
    let mut batch = Batch::default();
    batch.send(&store.encoder(), &store.topic("t").unwrap(), QueueId(0), visibility, &parts).unwrap();
    store.append(at(now), &mut batch).unwrap();
    batch.results()[0].clone()
}

fn half(store: &Store, now: u64, delay_ms: Option<u64>) -> PhysicalOffset {
    match send(store, now, "h", Visibility::Prepared { delay_ms }) {
        OperationResult::Prepared { origin, .. } => origin,
        other => panic!("{other:?}"),
    }
}

fn bodies(store: &Store) -> Vec<String> {
    let queue = store.topic("t").unwrap().queue(QueueId(0)).unwrap();
    let read = store.read_entries(&queue, QueueOffset(0), 9999, &mut |_| true).unwrap();
    let body = |entry| {
        let message = store.read_message(entry).unwrap();
        String::from_utf8(MessageView::parse(&message.bytes).unwrap().body().to_vec()).unwrap()
    };
    read.entries.iter().map(|(_, entry)| body(entry)).collect()
}

#[test]
fn check_backs_come_on_time_although_the_clock_was_set_back() {
    let store = set_back();
    let origin = half(&store, T0, None);
    assert!(store.due_checks(at(T0 + 6_000), 9).is_empty());
    assert_eq!(store.due_checks(at(T0 + 6_600), 9).len(), 1);
    store.reschedule(origin, at(T0 + 6_600), at(T0 + 36_600));
    let next = store.next_check_at().unwrap();
    assert!(next > at(T0 + 30_000) && next <= at(T0 + 36_600), "{next}");
    assert!(store.due_checks(at(T0 + 36_500), 9).is_empty());
    assert_eq!(store.due_checks(at(T0 + 36_700), 9).len(), 1);
}

/// The clock is put half right between the last look of the store and the moment in which somebody was asked.
#[test]
fn a_question_is_repeated_on_time_although_the_clock_was_set_forward_just_before() {
    let store = set_back();
    let origin = half(&store, T0, None);
    assert_eq!(store.due_checks(at(T0 + 6_600), 9).len(), 1);
    let asked = T0 + HOUR / 2;
    store.reschedule(origin, at(asked), at(asked + 30_000));
    assert!(store.due_checks(at(asked + 29_000), 9).is_empty());
    assert_eq!(store.due_checks(at(asked + 31_000), 9).len(), 1);
}

#[test]
fn delayed_messages_keep_their_distance_although_the_clock_was_set_back() {
    let store = set_back();
    send(&store, T0, "due", Visibility::Due(at(T0 + 10_000)));
    let origin = half(&store, T0 + 1, Some(20_000));
    let end = EndTransaction {
        target: EndTarget::Origin(origin),
        table_offset: None,
        keys: Some([key_hash("h"), 0]),
        producer_group: Some(GroupName::new("pg").unwrap()),
        outcome: Outcome::Committed,
        source: Source::Producer,
        count: None,
        offsets: None,
        only_in_doubt: false,
        decider: None,
        reason: None,
    };
    assert!(matches!(one(&store, T0 + 2, Operation::End(end)), OperationResult::Decided(_)));
    assert_eq!(store.next_due_at(), Some(at(T0 + 10_000)));
    for (now, want) in [(9_999, 0), (10_000, 1), (20_001, 1), (20_002, 2)] {
        one(&store, T0 + now, Operation::Tick(at(T0 + now)));
        assert_eq!(bodies(&store), ["due", "h"][..want], "{now} ms later");
    }
    assert!(store.read_by_position(origin).unwrap().queue_offset.is_some());
}

#[test]
fn a_delayed_message_is_the_same_after_a_restart_with_a_clock_that_is_behind() {
    let disk = SimulatedDisk::new();
    let store = open(&disk, T0 + HOUR);
    one(&store, T0 + HOUR, Operation::PutTopic(TopicConfig::new(TopicName::new("t").unwrap(), 1)));
    send(&store, T0, "due", Visibility::Due(at(T0 + 10_000)));
    let disk = disk.crash(CrashMode::KeepAll);
    drop(store);
    let store = open(&disk, T0 + 1_000);
    one(&store, T0 + 1_001, Operation::Tick(at(T0 + 1_001)));
    assert!(bodies(&store).is_empty());
    // time did not pass while nobody was there to see it
    assert_eq!(store.next_due_at(), Some(at(T0 + 11_000)));
    one(&store, T0 + 11_000, Operation::Tick(at(T0 + 11_000)));
    assert_eq!(bodies(&store), ["due"]);
}

#[test]
fn retention_goes_on_although_the_clock_was_set_back() {
    let store = set_back();
    for i in 0..100 {
        send(&store, T0 + i, &"x".repeat(1_000), Visibility::Now);
        while store.prepare_step().unwrap() {}
    }
    store.sync().unwrap();
    store.keep(at(T0 + 50_000)).unwrap();
    assert_eq!(store.first_position(), PhysicalOffset(0));
    for _ in 0..3 {
        store.keep(at(T0 + 70_000)).unwrap();
    }
    assert!(store.first_position() > PhysicalOffset(0));
}

#[test]
fn a_clock_that_leaps_ahead_by_years_parks_nothing_unasked() {
    let store = set_back();
    let origin = half(&store, T0, None);
    let later = T0 + 10 * 365 * 24 * HOUR;
    let due = store.due_checks(at(later), 9);
    assert_eq!(due[0].exhausted, None);
    store.reschedule(origin, at(later), at(later + 30_000));
    assert_eq!(store.due_checks(at(later + 31_000), 9)[0].exhausted, Some(ParkReason::MaxAge));
}

#[test]
fn a_tick_takes_a_bounded_number_of_messages_that_are_all_due_at_once() {
    let store = set_back();
    while store.prepare_step().unwrap() {}
    for i in 0..10_000 {
        let sent = send(&store, T0, &format!("{i}"), Visibility::Due(at(T0 + 1_000)));
        assert!(matches!(sent, OperationResult::Scheduled { .. }), "{sent:?}");
        while store.prepare_step().unwrap() {}
    }
    let mut ticks = Vec::new();
    loop {
        match one(&store, T0 + 2_000, Operation::Tick(at(T0 + 2_000))) {
            OperationResult::Ticked { messages: 0 } => break,
            OperationResult::Ticked { messages } => ticks.push(messages),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ticks.iter().sum::<usize>(), 10_000);
    assert!(ticks.iter().all(|messages| *messages <= 4_096), "{ticks:?}");
    let want: Vec<String> = (0..9_999).map(|i| i.to_string()).collect();
    assert_eq!(bodies(&store), want, "in the order in which they came");
}
