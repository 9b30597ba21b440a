//! What the store tells operators: more open transactions than are looked at in one hold of the lock, page by page, and
//! what is still known about one when it is decided.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mezzo_protocol::ids::{PhysicalOffset, QueueId, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::RealFileSystem;
use mezzo_storage::{
    AckLevel, AskAnswer, Batch, CountedAsk, EndTarget, EndTransaction, Happened, NoObserver, OpenFilter,
    OpenState, Operation, OperationResult, Outcome, ParkReason, Source, Store, StoreOptions,
    TIMELINE_EVENTS_MAX, TopicConfig, Visibility,
};

const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);
/// More than two looks.
const HALVES: usize = 9_000;

fn open(dir: &Path) -> Arc<Store> {
    let options = StoreOptions { ack: AckLevel::Memory, ..StoreOptions::new(dir) };
    let (store, _) = Store::open(Arc::new(RealFileSystem), options, NOW, Arc::new(NoObserver)).unwrap();
    let mut batch = Batch::default();
    batch.push(Operation::PutTopic(TopicConfig::new(TopicName::new("orders").unwrap(), 1)));
    store.append(NOW, &mut batch).unwrap();
    store
}

fn prepare(store: &Store, count: usize) -> Vec<PhysicalOffset> {
    let topic = store.topic("orders").unwrap();
    let host: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let mut batch = Batch::default();
    for number in 0..count {
        let group = if number % 2 == 0 { "even" } else { "odd" };
        let properties = format!("UNIQ_KEY\u{1}{number}\u{2}PGROUP\u{1}{group}\u{2}");
        let parts = MessageParts {
            topic: "orders",
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag::default(),
            born_timestamp: NOW,
            born_host: host,
            store_host_v6: false,
            reconsume_times: 0,
            body: b"x",
            properties: properties.as_bytes(),
        };
        let visibility = Visibility::Prepared { delay_ms: None };
        batch.send(&store.encoder(), &topic, QueueId(0), visibility, &parts).unwrap();
    }
    store.append(NOW, &mut batch).unwrap();
    let origin = |result: &OperationResult| match result {
        OperationResult::Prepared { origin, .. } => *origin,
        other => panic!("{other:?}"),
    };
    batch.results().iter().map(origin).collect()
}

fn origins(
    store: &Store,
    filter: &OpenFilter,
    after: Option<PhysicalOffset>,
    max: usize,
) -> Vec<PhysicalOffset> {
    store.open_transactions_page(filter, NOW, after, max).iter().map(|open| open.transaction.origin).collect()
}

#[test]
fn pages_follow_each_other_in_order_of_origin_whatever_place_a_row_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut expected: Vec<PhysicalOffset> = (0..3).flat_map(|_| prepare(&store, HALVES / 3)).collect();
    // decided ones leave places that younger ones take
    let mut batch = Batch::default();
    for origin in expected.drain(..100) {
        batch.push(Operation::End(EndTransaction {
            target: EndTarget::Origin(origin),
            table_offset: None,
            keys: None,
            producer_group: None,
            outcome: Outcome::RolledBack,
            source: Source::Operator,
            count: None,
            offsets: None,
            only_in_doubt: false,
            decider: None,
            reason: Some("by hand".to_owned()),
        }));
    }
    store.append(NOW, &mut batch).unwrap();
    expected.extend(prepare(&store, 150));
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = origins(&store, &OpenFilter::default(), after, 1_000);
        let Some(last) = page.last() else { break };
        after = Some(*last);
        paged.extend(page);
    }
    assert_eq!(paged, expected);
    let odd = OpenFilter { group: Some("odd".try_into().unwrap()), ..OpenFilter::default() };
    assert_eq!(origins(&store, &odd, None, usize::MAX).len(), expected.len() / 2);
    assert!(origins(&store, &OpenFilter::default(), None, 0).is_empty());
}

fn ask(origin: PhysicalOffset, number: u16) -> CountedAsk {
    CountedAsk {
        origin,
        peer: Some(SocketAddr::from(([10, 0, 0, 1], number))),
        answer: if number.is_multiple_of(2) { AskAnswer::Unknown } else { AskAnswer::Silence },
        waited_ms: 5,
    }
}

#[test]
fn a_timeline_keeps_two_transactions_of_the_same_records_apart_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let origins = prepare(&store, 2);
    let mut batch = Batch::default();
    for number in 1..4 {
        batch.push(Operation::Asked(vec![ask(origins[0], number), ask(origins[1], 10 + number)]));
        store.append(NOW, &mut batch).unwrap();
        batch.clear();
        // also when a checkpoint lies between two events
        store.close(NOW).unwrap();
        drop(store);
        store = open(dir.path());
    }
    for (origin, first_port) in origins.iter().zip([1, 11]) {
        let timeline = store.timeline(*origin).unwrap().unwrap();
        let ports: Vec<_> = timeline
            .events
            .iter()
            .filter_map(|event| match event.what {
                Happened::Asked { asks, peer: Some(peer), .. } => Some((asks, peer.port())),
                _ => None,
            })
            .collect();
        assert_eq!(ports, [(1, first_port), (2, first_port + 1), (3, first_port + 2)]);
        assert_eq!(timeline.events[0].what, Happened::Prepared);
        assert_eq!(timeline.events[1].at.as_ms(), NOW.as_ms() - 5);
        assert!(!timeline.older_missing);
    }
    assert_eq!(store.timeline(PhysicalOffset(origins[0].0 + 1)).unwrap(), None);
}

#[test]
fn a_timeline_ends_with_the_newest_events_when_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let origin = prepare(&store, 1)[0];
    let mut batch = Batch::default();
    for number in 0..300 {
        batch.push(Operation::Asked(vec![ask(origin, number)]));
    }
    store.append(NOW, &mut batch).unwrap();
    let timeline = store.timeline(origin).unwrap().unwrap();
    assert!(timeline.older_missing);
    // the prepare is known all the same
    assert_eq!(timeline.events.len(), TIMELINE_EVENTS_MAX + 1);
    assert!(matches!(timeline.events[1].what, Happened::Asked { asks: 45, .. }));
    assert!(matches!(timeline.events[256].what, Happened::Asked { asks: 300, .. }));
}

#[test]
fn a_rolled_back_transaction_still_tells_its_message_and_is_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let origin = prepare(&store, 1)[0];
    let mut batch = Batch::default();
    batch.push(Operation::Park { origin, reason: ParkReason::CheckMax });
    store.append(NOW, &mut batch).unwrap();
    let parked = OpenFilter { state: Some(OpenState::InDoubt), ..OpenFilter::default() };
    assert_eq!(origins(&store, &parked, None, 10), [origin]);
    let record = store.transaction_record(origin).unwrap().unwrap();
    assert!(record.decision.is_none() && record.half.is_some());
    batch.clear();
    batch.push(Operation::End(EndTransaction {
        target: EndTarget::Origin(origin),
        table_offset: None,
        keys: None,
        producer_group: None,
        outcome: Outcome::RolledBack,
        source: Source::Operator,
        count: None,
        offsets: None,
        only_in_doubt: false,
        decider: None,
        reason: None,
    }));
    store.append(NOW, &mut batch).unwrap();
    assert!(origins(&store, &OpenFilter::default(), None, 10).is_empty());
    let record = store.transaction_record(origin).unwrap().unwrap();
    assert_eq!(record.decision.map(|decision| decision.source), Some(Source::Operator));
    assert_eq!((record.prepared_at, record.half.is_some()), (Some(NOW), true));
    assert!(store.transaction_record(PhysicalOffset(origin.0 + 1)).unwrap().is_none());
}

#[test]
fn one_that_was_asked_twice_since_the_last_record_was_asked_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let origin = prepare(&store, 1)[0];
    let mut batch = Batch::default();
    batch.push(Operation::Asked(vec![ask(origin, 1), ask(origin, 2)]));
    store.append(NOW, &mut batch).unwrap();
    assert_eq!(store.transaction(origin).unwrap().asks, 2);
    let events = store.timeline(origin).unwrap().unwrap().events;
    let asks: Vec<u32> = events
        .iter()
        .filter_map(|event| if let Happened::Asked { asks, .. } = event.what { Some(asks) } else { None })
        .collect();
    assert_eq!(asks, [1, 2]);
}
