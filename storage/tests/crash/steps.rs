//! What can be done to the store under test, and what the model makes of it.

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::time::Timestamp;
use mezzo_storage::{
    AskAnswer, Batch, CheckPolicy, CountedAsk, EndTarget, EndTransaction, GroupConfig, LeaseRequest,
    OffsetMove, Operation, OperationResult, Outcome, ParkReason, Refusal, Source, StorageError,
    TransactionOffsets, Visibility, key_hash,
};

use super::run::{Run, T0, TOPICS, number_of};

/// Rounds of housekeeping after which it must have come to an end.
const ROUNDS_MAX: usize = 1000;

impl Run {
    /// Several messages of one request, which one frame holds.
    pub fn wire_batch(&mut self, topic: &'static str, messages: usize) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        let sent =
            (0..messages).map(|_| self.message(&mut batch, topic, Visibility::Now, 60, None)).collect();
        batch.keep_together(0..messages);
        self.append_messages(batch, sent)
    }

    /// A transaction that begins with several messages in one frame.
    pub fn many_at_once(&mut self, messages: usize) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        let half = Visibility::Prepared { delay_ms: None };
        let mut sent = Vec::new();
        for ahead in 0..messages {
            let topic = TOPICS[ahead % TOPICS.len()];
            sent.push(self.message(&mut batch, topic, half.clone(), 40, Some((0, ahead))));
        }
        batch.keep_together(0..messages);
        self.append_messages(batch, sent)
    }

    /// The transaction that was opened last.
    pub fn newest_open(&self) -> u64 {
        *self.state.open.keys().next_back().unwrap()
    }

    /// A group without a lease says how far it is.
    pub fn report(&mut self, offset: u64) -> Result<(), StorageError> {
        let (store, group) = (self.store(), GroupName::new("rg").unwrap());
        let topic = TopicName::new(TOPICS[0]).unwrap();
        store.commit_offset(&group, &topic, QueueId(0), QueueOffset(offset)).unwrap();
        self.now += 1;
        store.flush_offsets(Timestamp::from_ms(self.now))?;
        self.state.reported = Some(offset);
        self.remember();
        Ok(())
    }

    pub fn put_group(&mut self, name: &'static str) -> Result<(), StorageError> {
        let config = GroupConfig::new(GroupName::new(name).unwrap());
        self.one(Operation::PutGroup(config), |state, _| {
            state.names.1.insert(name.to_owned());
        })
    }

    pub fn checkpoint(&mut self) -> Result<(), StorageError> {
        self.store().checkpoint(false)?;
        self.remember();
        Ok(())
    }

    pub fn prepare(&mut self) -> Result<(), StorageError> {
        let store = self.store();
        while store.prepare_step()? {}
        Ok(())
    }

    /// One round of housekeeping; whether there is more to do.
    pub fn keep_once(&mut self) -> Result<bool, StorageError> {
        let more = self.store().keep(Timestamp::from_ms(self.now))?;
        let open = self.state.open.values().flat_map(|open| &open.messages);
        for (_, body) in open.chain(self.state.due.values()) {
            self.places.insert(number_of(body), u64::MAX);
        }
        self.remember();
        Ok(more)
    }

    /// Housekeeping until there is nothing to do.
    pub fn keep(&mut self) -> Result<(), StorageError> {
        let mut idle = 0;
        for _ in 0..ROUNDS_MAX {
            self.prepare()?;
            idle = if self.keep_once()? { 0 } else { idle + 1 };
            if idle == 2 {
                return Ok(());
            }
        }
        panic!("housekeeping does not come to an end");
    }

    /// Stops in order.
    pub fn close(&mut self) -> Result<(), StorageError> {
        self.store().close(Timestamp::from_ms(self.now))?;
        self.remember();
        self.synced = self.appended;
        self.store = None;
        Ok(())
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
                    if let Some(delay_ms) = open.delay_ms {
                        assert_eq!(open.messages.len(), 1);
                        let due_ms = decision.decided_at.as_ms() + delay_ms;
                        state
                            .due
                            .extend(open.messages.into_iter().map(|message| ((due_ms, origin), message)));
                    } else {
                        let first = [decision.queue_offset];
                        let offsets =
                            if open.messages.len() == 1 { &first } else { &*decision.queue_offsets };
                        for ((topic, body), offset) in open.messages.into_iter().zip(offsets) {
                            state.visible.entry(topic).or_default().push((offset.unwrap().0, body));
                        }
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
            open.asks = (open.asks.0 + 1, open.asks.1.map(|asks| asks + 1));
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
        self.tick_at(self.now + 1)
    }

    pub fn tick_at(&mut self, now: u64) -> Result<(), StorageError> {
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
