//! The store under test and the model beside it: how both are begun, and how messages get into them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mezzo_protocol::ids::{QueueId, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::SimulatedDisk;
use mezzo_storage::{
    AckLevel, Batch, NoObserver, OpenReport, Operation, OperationResult, Outcome, StorageError, Store,
    StoreOptions, TopicConfig, Visibility,
};

pub const T0: u64 = 1_700_000_000_000;
pub const TOPICS: [&str; 2] = ["t", "u"];

/// A message in a batch.
pub struct Sent {
    topic: &'static str,
    body: String,
    due_ms: u64,
    delay_ms: Option<u64>,
    with_id: bool,
}

/// An undecided transaction: topic and body of each message, and whether it is in doubt. One that began with an id may
/// have several; the id is its first body.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Open {
    pub messages: Vec<(&'static str, String)>,
    pub with_id: bool,
    pub in_doubt: bool,
    /// Asks that counted since it was last resumed, and in all: `None` where what told of the first ones is gone.
    pub asks: (u32, Option<usize>),
    /// Milliseconds between its commit and its visibility.
    pub delay_ms: Option<u64>,
}

/// Per topic: offset and body of each visible message.
pub type Visible = BTreeMap<&'static str, Vec<(u64, String)>>;

/// What must be so at one end of the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    pub visible: Visible,
    pub open: BTreeMap<u64, Open>,
    /// (due, position) → (topic, body).
    pub due: BTreeMap<(u64, u64), (&'static str, String)>,
    /// Origin → (key, outcome).
    pub decided: BTreeMap<u64, (String, Outcome)>,
    /// Epoch of the lease of the first topic's queue, held under ever other names.
    pub lease: Option<u64>,
    /// Offset of that queue that decisions have moved.
    pub moved: Option<u64>,
    /// Offset of that queue that a group without a lease has reported.
    pub reported: Option<u64>,
    /// Asks that the producer group's own check-back policy allows.
    pub policy: Option<u32>,
    /// Names of all topics, and of the consumer groups that were made.
    pub names: (BTreeSet<String>, BTreeSet<String>),
}

/// The store under test, the model beside it, and the model's past by position.
#[derive(Clone)]
pub struct Run {
    pub disk: SimulatedDisk,
    pub options: StoreOptions,
    pub store: Option<Arc<Store>>,
    pub state: State,
    /// State at each end of the log that an append returned.
    pub past: BTreeMap<u64, State>,
    pub now: u64,
    pub next_body: u64,
    /// Everything below was known synced.
    pub synced: u64,
    /// Everything below was shown to consumers, and was known to whoever appended it.
    pub published: u64,
    pub appended: u64,
    /// Where starts have written, or would have, their own frames, from the end that each found on: they change nothing.
    pub started: Vec<(u64, u64)>,
    /// By the number of each message, where its bytes stand; `u64::MAX` once they may have been carried on.
    pub places: BTreeMap<u64, u64>,
}

pub fn options(ack: AckLevel) -> StoreOptions {
    StoreOptions {
        segment_bytes: 32 << 10,
        frame_bytes_max: 8 << 10,
        ack,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    }
}

pub fn open(
    disk: &SimulatedDisk,
    options: &StoreOptions,
    now: u64,
) -> Result<(Arc<Store>, OpenReport), StorageError> {
    Store::open(Arc::new(disk.clone()), options.clone(), Timestamp::from_ms(now), Arc::new(NoObserver))
}

impl Open {
    /// What END names it by.
    pub fn key(&self) -> String {
        let first = &self.messages[0].1;
        if self.with_id { first.split('-').next().unwrap().to_owned() } else { first.clone() }
    }
}

/// The number that a message's body begins with.
pub fn number_of(body: &str) -> u64 {
    body.split('-').next().unwrap().parse().unwrap()
}

impl Run {
    pub fn new(disk: SimulatedDisk, options: StoreOptions) -> Self {
        Self {
            disk,
            options,
            store: None,
            state: State::default(),
            past: BTreeMap::new(),
            now: T0,
            next_body: 0,
            synced: 0,
            published: 0,
            appended: 0,
            started: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    pub fn store(&self) -> Arc<Store> {
        Arc::clone(self.store.as_ref().unwrap())
    }

    pub fn start(&mut self) -> Result<(), StorageError> {
        let (store, report) = open(&self.disk, &self.options, self.now)?;
        if report.created {
            self.past.insert(report.log.end, State::default());
        } else {
            self.started.push((report.log.end, store.end().0));
        }
        // the start's own frame changes nothing
        self.synced = store.limit().0;
        self.published = self.synced;
        self.store = Some(store);
        self.remember();
        Ok(())
    }

    /// The log ends here, with this state.
    pub fn remember(&mut self) {
        let store = self.store();
        self.appended = store.end().0;
        self.published = self.published.max(store.limit().0);
        if self.options.ack == AckLevel::Durable {
            self.synced = self.synced.max(store.limit().0);
        }
        self.past.insert(self.appended, self.state.clone());
    }

    /// Appends some operations, lets `model` change the state by their results, and remembers the state at the log's
    /// end.
    pub fn append(
        &mut self,
        mut batch: Batch,
        model: impl FnOnce(&mut State, &[OperationResult]),
    ) -> Result<(), StorageError> {
        self.now += 1;
        self.store().append(Timestamp::from_ms(self.now), &mut batch)?;
        model(&mut self.state, batch.results());
        self.remember();
        Ok(())
    }

    pub fn one(
        &mut self,
        operation: Operation,
        model: impl FnOnce(&mut State, &OperationResult),
    ) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        batch.push(operation);
        self.append(batch, |state, results| model(state, &results[0]))
    }

    /// Makes one of the topics that messages are sent to, or another one.
    pub fn put_topic(&mut self, name: &'static str) -> Result<(), StorageError> {
        let config = TopicConfig::new(TopicName::new(name).unwrap(), 1);
        self.one(Operation::PutTopic(config), |state, _| {
            state.names.0.insert(name.to_owned());
            if TOPICS.contains(&name) {
                state.visible.insert(name, Vec::new());
            }
        })
    }

    pub fn sync(&mut self) -> Result<(), StorageError> {
        let store = self.store();
        let end = store.end().0;
        store.sync()?;
        self.synced = self.synced.max(end);
        self.published = self.published.max(store.limit().0);
        Ok(())
    }

    pub fn send(
        &mut self,
        topic: &'static str,
        visibility: Visibility,
        size: usize,
    ) -> Result<(), StorageError> {
        self.send_in(topic, visibility, size, None)
    }

    /// Sends a message; as one of a transaction with an id if `of_many` names one (0: a new one).
    pub fn send_in(
        &mut self,
        topic: &'static str,
        visibility: Visibility,
        size: usize,
        of_many: Option<u64>,
    ) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        let message = self.message(&mut batch, topic, visibility, size, of_many.map(|origin| (origin, 0)));
        self.append_messages(batch, vec![message])
    }

    /// Puts a message into a batch, behind `ahead` others of its transaction in the same batch.
    pub fn message(
        &mut self,
        batch: &mut Batch,
        topic: &'static str,
        visibility: Visibility,
        size: usize,
        of_many: Option<(u64, usize)>,
    ) -> Sent {
        self.next_body += 1;
        let number = self.next_body;
        let body = format!("{number}-{}", "x".repeat(size));
        let mut props = format!("UNIQ_KEY\u{1}{body}\u{2}PGROUP\u{1}pg\u{2}");
        if let Some((origin, ahead)) = of_many {
            let messages = self.state.open.get(&origin).map_or(&[][..], |open| &open.messages);
            let first = messages.first().map_or(number - ahead as u64, |(_, first)| number_of(first));
            let sequence = messages.len() + ahead;
            props += &format!("MEZZO_TX\u{1}{first}\u{2}MEZZO_TX_SEQ\u{1}{sequence}\u{2}");
        }
        let parts = MessageParts {
            topic,
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: Timestamp::from_ms(self.now),
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host_v6: false,
            reconsume_times: 0,
            body: body.as_bytes(),
            properties: props.as_bytes(),
        };
        let (due_ms, delay_ms) = match visibility {
            Visibility::Due(at) => (at.as_ms(), None),
            Visibility::Prepared { delay_ms } => (0, delay_ms),
            Visibility::Now => (0, None),
        };
        let store = self.store();
        let handle = store.topic(topic).unwrap();
        batch.send(&store.encoder(), &handle, QueueId(0), visibility, &parts).unwrap();
        Sent { topic, body, due_ms, delay_ms, with_id: of_many.is_some() }
    }

    /// Appends messages and nothing else.
    pub fn append_messages(&mut self, batch: Batch, sent: Vec<Sent>) -> Result<(), StorageError> {
        let mut places = Vec::new();
        self.append(batch, |state, results| {
            assert_eq!(sent.len(), results.len());
            for (sent, result) in sent.into_iter().zip(results) {
                let Sent { topic, body, due_ms, delay_ms, with_id } = sent;
                let number = number_of(&body);
                match result {
                    OperationResult::Stored { queue_offset, position } => {
                        places.push((number, position.0));
                        state.visible.entry(topic).or_default().push((queue_offset.0, body));
                    }
                    OperationResult::Prepared { origin, position } => {
                        places.push((number, position.0));
                        let open = state.open.entry(origin.0).or_default();
                        open.messages.push((topic, body));
                        open.with_id = with_id;
                        open.asks.1 = open.asks.1.or(Some(0));
                        open.delay_ms = delay_ms;
                    }
                    OperationResult::Scheduled { position } => {
                        places.push((number, position.0));
                        state.due.insert((due_ms, position.0), (topic, body));
                    }
                    other => assert!(matches!(other, OperationResult::Refused(_)), "{other:?}"),
                }
            }
        })?;
        self.places.extend(places);
        Ok(())
    }
}
