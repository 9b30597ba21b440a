//! Sends that may be repeats, through the store's door: which one is stored, what a repeat is answered with, and what a
//! restart still knows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mezzo_protocol::ids::{PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::RealFileSystem;
use mezzo_storage::{
    Batch, DedupRule, FirstAnswer, FirstSend, NoObserver, Operation, OperationResult, Part, SendFacts,
    SendGuard, SendKey, SenderId, Store, StoreOptions, TopicConfig, Visibility,
};

const T0: u64 = 1_700_000_000_000;
/// Less than a repeat is told for.
const RETENTION_MS: u64 = 5 * 60_000;

struct Broker {
    store: Arc<Store>,
    now: Timestamp,
}

/// One message of a producer.
#[derive(Clone, Copy)]
struct Message<'a> {
    topic: &'a str,
    key: &'a str,
    id: Option<&'a str>,
    half: bool,
}

const PLAIN: Message<'static> = Message { topic: "retries", key: "k", id: None, half: false };
const NAMED: Message<'static> = Message { topic: "strict", key: "k", id: Some("order-7"), half: false };

fn open(dir: &Path, now_ms: u64) -> Broker {
    let options = StoreOptions {
        segment_bytes: 1 << 20,
        frame_bytes_max: 64 << 10,
        retention_ms: RETENTION_MS,
        checkpoint_bytes: 64 << 10,
        ..StoreOptions::new(dir)
    };
    let now = Timestamp::from_ms(now_ms);
    let (store, _) = Store::open(Arc::new(RealFileSystem), options, now, Arc::new(NoObserver)).unwrap();
    Broker { store, now }
}

fn started(dir: &Path) -> Broker {
    let broker = open(dir, T0);
    let mut batch = Batch::default();
    for name in ["off", "retries", "strict"] {
        let mut config = TopicConfig::new(TopicName::new(name).unwrap(), 2);
        config.attributes.insert("dedup".to_owned(), name.to_owned());
        batch.push(Operation::PutTopic(config));
    }
    broker.append(&mut batch);
    broker
}

impl Broker {
    fn append(&self, batch: &mut Batch) -> Vec<OperationResult> {
        self.store.append(self.now, batch).unwrap();
        self.store.sync().unwrap();
        batch.results().to_vec()
    }

    fn rule(&self, message: Message<'_>) -> DedupRule {
        self.store.topic(message.topic).unwrap().config().dedup()
    }

    fn key(&self, message: Message<'_>) -> Option<SendKey> {
        let (props, body) = props(message);
        let facts = SendFacts::of(
            self.rule(message),
            message.topic,
            message.half,
            props.as_bytes(),
            body.as_bytes(),
        )?;
        Some(self.store.first_sends().key(&facts))
    }

    fn find(&self, message: Message<'_>) -> Option<FirstSend> {
        self.store.first_sends().find(self.key(message)?, self.now)
    }

    fn answer(&self, message: Message<'_>, position: PhysicalOffset) -> Option<FirstAnswer> {
        self.store.first_answer(position, self.key(message).unwrap(), self.rule(message)).unwrap()
    }

    /// Encodes a guarded message whose sender looked when the log ended at `looked_to`.
    fn put(&self, batch: &mut Batch, message: Message<'_>, sender: u64, looked_to: PhysicalOffset) {
        let visibility = if message.half { Visibility::Prepared { delay_ms: None } } else { Visibility::Now };
        self.put_as(batch, message, visibility, sender, looked_to);
    }

    fn put_as(
        &self,
        batch: &mut Batch,
        message: Message<'_>,
        visibility: Visibility,
        sender: u64,
        looked_to: PhysicalOffset,
    ) {
        let host: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let (props, body) = props(message);
        let parts = MessageParts {
            topic: message.topic,
            queue_id: QueueId(1),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: self.now,
            born_host: host,
            store_host_v6: false,
            reconsume_times: 0,
            body: body.as_bytes(),
            properties: props.as_bytes(),
        };
        let topic = self.store.topic(message.topic).unwrap();
        let index = batch.send(&self.store.encoder(), &topic, QueueId(1), visibility, &parts).unwrap();
        if let Some(key) = self.key(message) {
            let guard = SendGuard {
                key,
                explicit: message.id.is_some(),
                sender: SenderId::of(sender),
                part: Part::ALONE,
                looked_to,
            };
            batch.guard(index, self.store.first_sends(), guard);
        }
    }

    fn send(&self, message: Message<'_>, sender: u64) -> OperationResult {
        let mut batch = Batch::default();
        self.put(&mut batch, message, sender, self.store.end());
        self.append(&mut batch).remove(0)
    }
}

fn props(message: Message<'_>) -> (String, String) {
    let mut props = format!("UNIQ_KEY\u{1}{}\u{2}PGROUP\u{1}pg\u{2}", message.key);
    if let Some(id) = message.id {
        props.push_str(&format!("MEZZO_DEDUP_ID\u{1}{id}\u{2}"));
    }
    (props, "body".to_owned())
}

fn position(result: &OperationResult) -> PhysicalOffset {
    match result {
        OperationResult::Stored { position, .. }
        | OperationResult::Prepared { position, .. }
        | OperationResult::Scheduled { position } => *position,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_two_equal_sends_at_the_same_moment_by_two_connections_one_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let broker = started(dir.path());
    let looked_to = broker.store.end();
    let (mut first, mut second) = (Batch::default(), Batch::default());
    broker.put(&mut first, PLAIN, 1, looked_to);
    broker.put(&mut second, PLAIN, 2, looked_to);
    let stored = broker.append(&mut first).remove(0);
    assert_eq!(broker.append(&mut second), [OperationResult::Repeats { position: position(&stored) }]);
    let queue = broker.store.topic("retries").unwrap().queue(QueueId(1)).unwrap();
    assert_eq!(queue.max_offset(), QueueOffset(1));
}

#[test]
fn what_one_connection_sends_twice_without_waiting_is_two_messages_unless_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let broker = started(dir.path());
    let looked_to = broker.store.end();
    let mut batch = Batch::default();
    for message in [PLAIN, PLAIN, NAMED, NAMED] {
        broker.put(&mut batch, message, 1, looked_to);
    }
    let results = broker.append(&mut batch);
    assert_ne!(position(&results[0]), position(&results[1]));
    assert_eq!(results[3], OperationResult::Repeats { position: position(&results[2]) });
}

#[test]
fn a_topic_that_does_not_ask_knows_no_send() {
    let dir = tempfile::tempdir().unwrap();
    let broker = started(dir.path());
    let off = Message { topic: "off", ..PLAIN };
    assert_eq!(broker.key(off), None);
    broker.send(off, 1);
    broker.send(off, 2);
    assert_eq!(broker.store.topic("off").unwrap().queue(QueueId(1)).unwrap().max_offset(), QueueOffset(2));
    assert_eq!(broker.store.first_sends().effective_window_ms(broker.now), None, "no table was made");
}

#[test]
fn a_first_send_is_answered_again_as_the_log_says_once_it_is_within_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let broker = started(dir.path());
    broker.send(Message { key: "other", ..PLAIN }, 1);
    let mut batch = Batch::default();
    broker.put(&mut batch, PLAIN, 1, broker.store.end());
    broker.store.append(broker.now, &mut batch).unwrap();
    let stored = batch.results()[0].clone();
    let first = broker.find(PLAIN).unwrap();
    assert_eq!((first.position, first.sender), (position(&stored), Some(SenderId::of(1))));
    assert_eq!(broker.answer(PLAIN, first.position), None, "a power cut could take it back");
    broker.store.sync().unwrap();
    let answer = broker.answer(PLAIN, first.position).unwrap();
    assert_eq!(answer, FirstAnswer { queue: QueueId(1), result: stored });
    let wrong = Message { key: "other", ..PLAIN };
    assert_eq!(broker.answer(wrong, first.position), None, "the log holds another message there");
    assert_eq!(broker.answer(PLAIN, PhysicalOffset(first.position.0 + 1)), None, "no record there");
}

#[test]
fn half_and_delayed_messages_are_answered_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let broker = started(dir.path());
    let half = Message { half: true, ..PLAIN };
    let prepared = broker.send(half, 1);
    assert!(matches!(prepared, OperationResult::Prepared { .. }));
    assert_eq!(broker.find(PLAIN), None, "a plain message is another one");
    let first = broker.find(half).unwrap();
    assert_eq!(broker.answer(half, first.position).unwrap().result, prepared);

    let delayed = Message { key: "later", ..PLAIN };
    let mut batch = Batch::default();
    let due = Visibility::Due(Timestamp::from_ms(T0 + 60_000));
    broker.put_as(&mut batch, delayed, due, 1, broker.store.end());
    let scheduled = broker.append(&mut batch).remove(0);
    let first = broker.find(delayed).unwrap();
    assert_eq!(broker.answer(delayed, first.position).unwrap().result, scheduled);
}

#[test]
fn a_send_to_a_topic_that_was_deleted_since_is_no_first_one() {
    let dir = tempfile::tempdir().unwrap();
    let broker = started(dir.path());
    let stored = broker.send(PLAIN, 1);
    let config = (*broker.store.topic("retries").unwrap().config()).clone();
    let mut batch = Batch::default();
    batch.push(Operation::DeleteTopic(config.name.clone()));
    batch.push(Operation::PutTopic(config));
    broker.append(&mut batch);
    assert_eq!(broker.answer(PLAIN, position(&stored)), None);
}

#[test]
fn a_restart_knows_the_sends_of_the_window_and_that_their_connections_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = started(dir.path());
    let old = broker.send(Message { key: "old", ..PLAIN }, 1);
    broker.now = Timestamp::from_ms(T0 + 10 * 60_000);
    let off = Message { topic: "off", ..PLAIN };
    let results: Vec<_> = [PLAIN, NAMED, off].map(|message| broker.send(message, 1)).into();
    broker.store.close(broker.now).unwrap();
    drop(broker);

    let broker = open(dir.path(), T0 + 16 * 60_000);
    for (message, result) in [(PLAIN, &results[0]), (NAMED, &results[1])] {
        let first = broker.find(message).unwrap();
        assert_eq!((first.position, first.sender), (position(result), None));
        assert_eq!(broker.answer(message, first.position).unwrap().result, *result);
    }
    assert_eq!(broker.find(Message { key: "old", ..PLAIN }), None, "{old:?} is older than the window");
}

#[test]
fn a_repeat_of_a_half_message_that_was_carried_finds_the_one_copy_after_its_segment_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = started(dir.path());
    let half = Message { half: true, ..PLAIN };
    let prepared = broker.send(half, 1);
    let origin = position(&prepared);
    // visible messages, which grow old, and begin the next segment
    let filler = "x".repeat(50_000);
    let full = |broker: &Broker| while broker.store.prepare_step().unwrap() {};
    for number in 0..30 {
        full(&broker);
        let key = format!("{number}-{filler}");
        broker.send(Message { topic: "off", key: &key[..20_000], ..PLAIN }, 1);
        broker.send(Message { topic: "off", key: &key[..30_000], ..PLAIN }, 1);
    }
    broker.now = Timestamp::from_ms(T0 + RETENTION_MS + 10);
    broker.send(Message { topic: "off", ..PLAIN }, 1);
    for _ in 0..200 {
        full(&broker);
        broker.store.keep(broker.now).unwrap();
    }
    assert!(broker.store.first_position() > origin, "its segment is gone");
    let moved = broker.find(half).expect("it is still known");
    assert!(moved.position > origin, "and found where it was carried to");
    assert_eq!(
        broker.answer(half, moved.position).unwrap().result,
        prepared,
        "the same answer as the first time"
    );
    // one that is sent again all the same, by a connection that had not looked, is not stored a second time
    let mut batch = Batch::default();
    broker.put(&mut batch, half, 2, PhysicalOffset(0));
    assert_eq!(broker.append(&mut batch), [OperationResult::Repeats { position: moved.position }]);
    assert_eq!(broker.store.open_messages(), 1);
}
