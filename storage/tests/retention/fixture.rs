//! A store on a simulated disk with small segments, and what is left open in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::{MessageParts, MessageView};
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{
    AckLevel, Batch, Decision, EndTarget, EndTransaction, NoObserver, Operation, OperationResult, Outcome,
    Queue, Source, StorageError, Store, StoreOptions, TopicConfig, Visibility, key_hash,
};

pub(crate) const T0: u64 = 1_700_000_000_000;
pub(crate) const SEGMENT_BYTES: u64 = 32 << 10;
pub(crate) const RETENTION_MS: u64 = 1_000_000;

pub(crate) struct Fixture {
    pub(crate) disk: SimulatedDisk,
    pub(crate) options: StoreOptions,
    pub(crate) store: Arc<Store>,
    pub(crate) now: u64,
}

pub(crate) fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        frame_bytes_max: 8 << 10,
        ack: AckLevel::Durable,
        retention_ms: RETENTION_MS,
        checkpoint_bytes: 1 << 10,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    }
}

pub(crate) fn name(topic: &str) -> TopicName {
    TopicName::new(topic).unwrap()
}

impl Fixture {
    pub(crate) fn new(options: StoreOptions) -> Self {
        let mut s = Self::open(SimulatedDisk::new(), options, T0).unwrap();
        let made = s.one(Operation::PutTopic(TopicConfig::new(name("t"), 1)));
        assert_eq!(made, OperationResult::Done);
        s.store.sync().unwrap();
        s
    }

    pub(crate) fn open(disk: SimulatedDisk, options: StoreOptions, now: u64) -> Result<Self, StorageError> {
        let fs = Arc::new(disk.clone());
        let (store, _) = Store::open(fs, options.clone(), Timestamp::from_ms(now), Arc::new(NoObserver))?;
        Ok(Self { disk, options, store, now })
    }

    /// The process dies, the disk is found as `mode` says, and the store is opened again.
    pub(crate) fn crash(self, mode: CrashMode) -> Self {
        let disk = self.disk.crash(mode);
        drop(self.store);
        Self::open(disk, self.options, self.now + 1).unwrap()
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now)
    }

    pub(crate) fn queue(&self) -> Arc<Queue> {
        self.store.topic("t").unwrap().queue(QueueId(0)).unwrap()
    }

    pub(crate) fn one(&mut self, operation: Operation) -> OperationResult {
        self.now += 1;
        let mut batch = Batch::default();
        batch.push(operation);
        self.store.append(self.now(), &mut batch).unwrap();
        batch.results()[0].clone()
    }

    pub(crate) fn send(&mut self, body: &str, visibility: Visibility) -> OperationResult {
        self.send_with(body, visibility, "")
    }

    pub(crate) fn send_with(&mut self, body: &str, visibility: Visibility, more: &str) -> OperationResult {
        self.now += 1;
        let key = key_of(body);
        let props = format!("UNIQ_KEY\u{1}{key}\u{2}PGROUP\u{1}pg\u{2}{more}");
        let parts = MessageParts {
            topic: "t",
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: self.now(),
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host_v6: false,
            reconsume_times: 0,
            body: body.as_bytes(),
            properties: props.as_bytes(),
        };
        let mut batch = Batch::default();
        let topic = self.store.topic("t").unwrap();
        batch.send(&self.store.encoder(), &topic, QueueId(0), visibility, &parts).unwrap();
        self.store.append(self.now(), &mut batch).unwrap();
        batch.results()[0].clone()
    }

    pub(crate) fn half(&mut self, body: &str) -> PhysicalOffset {
        match self.send(body, Visibility::Prepared { delay_ms: None }) {
            OperationResult::Prepared { origin, .. } => origin,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn end(&mut self, origin: PhysicalOffset, body: &str, outcome: Outcome) -> Decision {
        let ending = EndTransaction {
            target: EndTarget::Origin(origin),
            table_offset: Some(origin.0),
            keys: Some([key_hash(key_of(body)), 0]),
            producer_group: Some(GroupName::new("pg").unwrap()),
            outcome,
            source: Source::Producer,
            count: None,
            offsets: None,
            only_in_doubt: false,
            decider: None,
            reason: None,
        };
        match self.one(Operation::End(ending)) {
            OperationResult::Decided(decision) => decision,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn prepare(&self) {
        while self.store.prepare_step().unwrap() {}
    }

    /// Visible messages of about a kilobyte until `segments` more segments have been begun; all of them durable.
    pub(crate) fn fill(&mut self, segments: u64) {
        let until = self.store.end().0 + segments * SEGMENT_BYTES;
        while self.store.end().0 < until {
            self.prepare();
            let body = format!("fill{}-{}", self.now, "x".repeat(1000));
            let sent = self.send(&body, Visibility::Now);
            assert!(matches!(sent, OperationResult::Stored { .. }), "{sent:?}");
        }
        self.store.sync().unwrap();
        self.prepare();
    }

    /// Housekeeping until there is nothing to do, as the keeper and the preparer do it; how many steps it took.
    pub(crate) fn keep(&self) -> usize {
        for step in 1..10_000 {
            self.prepare();
            if !self.kept() && !self.kept() {
                self.prepare();
                return step;
            }
        }
        panic!("housekeeping does not come to an end");
    }

    /// One round; a full disk is no surprise here.
    fn kept(&self) -> bool {
        match self.store.keep(self.now()) {
            Ok(more) => more,
            Err(error) if error.is_out_of_space() => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Everything visible grows older than the retention.
    pub(crate) fn pass_retention(&mut self) {
        self.now += RETENTION_MS + 10;
    }

    /// Body by offset, of what a consumer is shown.
    pub(crate) fn visible(&self) -> BTreeMap<u64, String> {
        let queue = self.queue();
        let read = self.store.read_entries(&queue, QueueOffset(0), 99_999, &mut |_| true).unwrap();
        let mut bodies = BTreeMap::new();
        for (offset, entry) in read.entries {
            match self.store.read_message(&entry) {
                Ok(message) => {
                    assert_eq!(message.position.0, entry.position);
                    bodies.insert(offset, body_of(&message.bytes));
                }
                Err(StorageError::Gone { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        bodies
    }

    /// How often this message is shown.
    pub(crate) fn shown(&self, body: &str) -> usize {
        self.visible().values().filter(|b| *b == body).count()
    }
}

pub(crate) fn body_of(message: &[u8]) -> String {
    String::from_utf8(MessageView::parse(message).unwrap().body().to_vec()).unwrap()
}

/// The part of the body before the first dash.
pub(crate) fn key_of(body: &str) -> &str {
    body.split('-').next().unwrap()
}
