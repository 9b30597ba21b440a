//! The store under test and the model beside it: each operation changes both.

use std::collections::BTreeMap;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::SimulatedDisk;
use mezzo_storage::{
    AckLevel, AskAnswer, Batch, CheckPolicy, CountedAsk, EndTarget, EndTransaction, LeaseRequest, NoObserver,
    OffsetMove, OpenReport, Operation, OperationResult, Outcome, ParkReason, Refusal, Source, StorageError,
    Store, StoreOptions, TopicConfig, TransactionOffsets, Visibility, key_hash,
};

pub const T0: u64 = 1_700_000_000_000;
pub const TOPICS: [&str; 2] = ["t", "u"];

/// An undecided transaction: topic and body of each message, and whether it is in doubt. One that began with an id may
/// have several; the id is its first body.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Open {
    pub messages: Vec<(&'static str, String)>,
    pub with_id: bool,
    pub in_doubt: bool,
    /// Asks that counted since it was last resumed, and in all.
    pub asks: (u32, usize),
}

/// What must be so at one end of the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Per topic: offset and body of each visible message.
    pub visible: BTreeMap<&'static str, Vec<(u64, String)>>,
    pub open: BTreeMap<u64, Open>,
    /// (due, position) → (topic, body).
    pub due: BTreeMap<(u64, u64), (&'static str, String)>,
    /// Origin → (key, outcome).
    pub decided: BTreeMap<u64, (String, Outcome)>,
    /// Epoch of the lease of the first topic's queue, held under ever other names.
    pub lease: Option<u64>,
    /// Offset of that queue that decisions have moved.
    pub moved: Option<u64>,
    /// Asks that the producer group's own check-back policy allows.
    pub policy: Option<u32>,
}

/// The store under test, the model beside it, and the model's past by position.
pub struct Run {
    pub disk: SimulatedDisk,
    pub ack: AckLevel,
    pub store: Option<Arc<Store>>,
    pub state: State,
    /// State at each end of the log that an append returned.
    pub past: BTreeMap<u64, State>,
    pub now: u64,
    pub next_body: u64,
    /// Everything below was known synced.
    pub synced: u64,
}

fn options(ack: AckLevel) -> StoreOptions {
    StoreOptions {
        segment_bytes: 32 << 10,
        frame_bytes_max: 8 << 10,
        ack,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    }
}

pub fn open(disk: &SimulatedDisk, ack: AckLevel, now: u64) -> Result<(Arc<Store>, OpenReport), StorageError> {
    Store::open(Arc::new(disk.clone()), options(ack), Timestamp::from_ms(now), Arc::new(NoObserver))
}

impl Open {
    /// What END names it by.
    pub fn key(&self) -> String {
        let first = &self.messages[0].1;
        if self.with_id { first.split('-').next().unwrap().to_owned() } else { first.clone() }
    }
}

impl Run {
    pub fn new(disk: SimulatedDisk, ack: AckLevel) -> Self {
        Self {
            disk,
            ack,
            store: None,
            state: State::default(),
            past: BTreeMap::new(),
            now: T0,
            next_body: 0,
            synced: 0,
        }
    }

    pub fn store(&self) -> Arc<Store> {
        Arc::clone(self.store.as_ref().unwrap())
    }

    pub fn start(&mut self) -> Result<(), StorageError> {
        let (store, report) = open(&self.disk, self.ack, self.now)?;
        if report.created {
            self.past.insert(report.log.end, State::default());
        }
        // the start's own frame changes nothing
        self.synced = store.limit().0;
        self.past.insert(self.synced, self.state.clone());
        self.store = Some(store);
        Ok(())
    }

    /// Appends one operation, lets `model` change the state by its result, and remembers the state at the log's end.
    pub fn append(
        &mut self,
        mut batch: Batch,
        model: impl FnOnce(&mut State, &OperationResult),
    ) -> Result<(), StorageError> {
        self.now += 1;
        let before = self.state.clone();
        let end = match self.store().append(Timestamp::from_ms(self.now), &mut batch) {
            Ok(end) => end.0,
            Err(e) => {
                // the write may or may not have reached the disk; if it has, all of it counts
                self.state = before;
                return Err(e);
            }
        };
        model(&mut self.state, &batch.results()[0]);
        self.past.insert(end, self.state.clone());
        Ok(())
    }

    pub fn one(
        &mut self,
        operation: Operation,
        model: impl FnOnce(&mut State, &OperationResult),
    ) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        batch.push(operation);
        self.append(batch, model)
    }

    pub fn put_topic(&mut self, name: &'static str) -> Result<(), StorageError> {
        let config = TopicConfig::new(TopicName::new(name).unwrap(), 1);
        self.one(Operation::PutTopic(config), |state, _| {
            state.visible.insert(name, Vec::new());
        })?;
        self.sync()
    }

    pub fn sync(&mut self) -> Result<(), StorageError> {
        let store = self.store();
        store.sync()?;
        self.synced = self.synced.max(store.limit().0);
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
        self.next_body += 1;
        let body = format!("{}-{}", self.next_body, "x".repeat(size));
        let mut props = format!("UNIQ_KEY\u{1}{body}\u{2}PGROUP\u{1}pg\u{2}");
        if let Some(origin) = of_many {
            let messages = self.state.open.get(&origin).map_or(&[][..], |open| &open.messages);
            let id = messages.first().map_or(&body, |(_, first)| first);
            let id = id.split('-').next().unwrap();
            props += &format!("MEZZO_TX\u{1}{id}\u{2}MEZZO_TX_SEQ\u{1}{}\u{2}", messages.len());
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
        let store = self.store();
        let mut batch = Batch::default();
        let due = match visibility {
            Visibility::Due(at) => at.as_ms(),
            _ => 0,
        };
        let handle = store.topic(topic).unwrap();
        batch.send(&store.encoder(), &handle, QueueId(0), visibility, &parts).unwrap();
        self.append(batch, |state, result| match result {
            OperationResult::Stored { queue_offset, .. } => {
                state.visible.entry(topic).or_default().push((queue_offset.0, body));
            }
            OperationResult::Prepared { origin, .. } => {
                let open = state.open.entry(origin.0).or_default();
                open.messages.push((topic, body));
                open.with_id = of_many.is_some();
            }
            OperationResult::Scheduled { position } => {
                state.due.insert((due, position.0), (topic, body));
            }
            other => assert!(matches!(other, OperationResult::Refused(_)), "{other:?}"),
        })
    }

    pub fn end(&mut self, origin: u64, outcome: Outcome) -> Result<(), StorageError> {
        let open = self.state.open.get(&origin);
        let (key, count) = match (open, self.state.decided.get(&origin)) {
            (Some(open), _) => (open.key(), Some(u16::try_from(open.messages.len()).unwrap())),
            (None, Some((key, _))) => (key.clone(), None),
            (None, None) => return Ok(()),
        };
        let to = self.now - T0;
        let offsets = self.state.lease.map(|epoch| TransactionOffsets {
            group: GroupName::new("cg").unwrap(),
            entries: vec![OffsetMove {
                topic: TopicName::new(TOPICS[0]).unwrap(),
                queue: QueueId(0),
                from: self.state.moved.map(QueueOffset),
                offset: QueueOffset(to),
                epoch,
            }],
        });
        let end = EndTransaction {
            target: EndTarget::Origin(PhysicalOffset(origin)),
            table_offset: Some(origin),
            keys: Some([key_hash(&key), 0]),
            producer_group: Some(GroupName::new("pg").unwrap()),
            outcome,
            source: Source::Producer,
            count,
            offsets,
            only_in_doubt: false,
            decider: None,
            reason: None,
        };
        self.one(Operation::End(end), |state, result| match result {
            OperationResult::Decided(decision) => {
                let open = state.open.remove(&origin).expect("only an open one can be decided");
                assert_eq!(decision.outcome, outcome);
                assert_eq!(usize::from(decision.count), open.messages.len());
                if outcome == Outcome::Committed {
                    state.moved = state.lease.map(|_| to).or(state.moved);
                    let first = [decision.queue_offset];
                    let offsets = if open.messages.len() == 1 { &first } else { &*decision.queue_offsets };
                    for ((topic, body), offset) in open.messages.into_iter().zip(offsets) {
                        state.visible.entry(topic).or_default().push((offset.unwrap().0, body));
                    }
                }
                state.decided.insert(origin, (key, outcome));
            }
            OperationResult::AlreadyDecided(_) => assert_eq!(state.decided[&origin].1, outcome),
            OperationResult::Conflict(_) => assert_ne!(state.decided[&origin].1, outcome),
            other => panic!("{other:?}"),
        })
    }

    /// A client that is there for the first time asks for the lease: it is given when the one before has expired.
    pub fn lease(&mut self) -> Result<(), StorageError> {
        let request = LeaseRequest {
            group: GroupName::new("cg").unwrap(),
            topic: TopicName::new(TOPICS[0]).unwrap(),
            queue: QueueId(0),
            client: self.now.to_string(),
            ttl_ms: 3,
            renews: None,
        };
        self.one(Operation::Lease(request), |state, result| match result {
            OperationResult::Leased { epoch, next_offset, .. } => {
                assert!(state.lease.is_none_or(|before| before < *epoch));
                assert_eq!(next_offset.map(|offset| offset.0), state.moved);
                state.lease = Some(*epoch);
            }
            other => {
                assert!(matches!(other, OperationResult::Refused(Refusal::LeaseHeld { .. })), "{other:?}")
            }
        })
    }

    /// Somebody was asked about an open transaction, and the ask counts.
    pub fn asked(&mut self, origin: u64) -> Result<(), StorageError> {
        let asks = vec![CountedAsk {
            origin: PhysicalOffset(origin),
            peer: None,
            answer: AskAnswer::Silence,
            waited_ms: 1,
        }];
        self.one(Operation::Asked(asks), |state, _| {
            let open = state.open.get_mut(&origin).unwrap();
            open.asks = (open.asks.0 + 1, open.asks.1 + 1);
        })
    }

    pub fn park(&mut self, origin: u64) -> Result<(), StorageError> {
        let park = Operation::Park { origin: PhysicalOffset(origin), reason: ParkReason::CheckMax };
        self.one(park, |state, _| state.open.get_mut(&origin).unwrap().in_doubt = true)
    }

    pub fn resume(&mut self, origin: u64) -> Result<(), StorageError> {
        let resume = Operation::Resume { origin: PhysicalOffset(origin), by: None };
        self.one(resume, |state, result| {
            if *result == OperationResult::Done {
                let open = state.open.get_mut(&origin).unwrap();
                (open.in_doubt, open.asks.0) = (false, 0);
            }
        })
    }

    /// Gives the producer group a policy of its own, or takes it away.
    pub fn set_policy(&mut self, check_max: Option<u32>) -> Result<(), StorageError> {
        let group = GroupName::new("pg").unwrap();
        let operation = match check_max {
            Some(check_max) => {
                let policy = CheckPolicy { check_max, ..CheckPolicy::default() };
                Operation::PutPolicy { group, policy }
            }
            None => Operation::DeletePolicy(group),
        };
        self.one(operation, |state, result| {
            if *result == OperationResult::Done {
                state.policy = check_max;
            }
        })
    }

    pub fn tick(&mut self) -> Result<(), StorageError> {
        let now = self.now + 1;
        // the model reads the offsets off the queue's own count, which the comparison then checks
        self.one(Operation::Tick(Timestamp::from_ms(now)), |state, _| {
            let later = state.due.split_off(&(now + 1, 0));
            for (_, (topic, body)) in std::mem::replace(&mut state.due, later) {
                let queue = state.visible.entry(topic).or_default();
                let next = queue.last().map_or(0, |(offset, _)| offset + 1);
                queue.push((next, body));
            }
        })
    }
}
