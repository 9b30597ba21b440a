//! What each operation does to the model, and which answers are right.

use mezzo_protocol::ids::{PhysicalOffset, QueueOffset};
use mezzo_storage::{OperationResult, Outcome, Refusal};

use super::decisions::EndOp;
use super::model::{
    At, Consumed, Fault, Hidden, Model, OPEN_MESSAGES_MAX, Open, TRANSACTION_BYTES_MAX,
    TRANSACTION_MESSAGES_MAX, same,
};
use super::steps::{Name, Place};

/// One operation of a batch, as the store was given it.
#[derive(Debug, Clone)]
pub enum Op {
    Send {
        to: Place,
        body: String,
    },
    SendOnce {
        to: Place,
        body: String,
        id: u8,
        looked_to: u64,
    },
    Delayed {
        to: Place,
        body: String,
        due_ms: u64,
    },
    Prepare {
        name: Name,
        to: Place,
        body: String,
        delay_ms: Option<u64>,
    },
    /// `bytes`: of its record if it opens the transaction.
    Join {
        name: Name,
        sequence: u16,
        to: Place,
        body: String,
        delay_ms: Option<u64>,
        bytes: u64,
    },
    End(EndOp),
    Asked(Vec<u64>),
    Park(u64),
    Resume(u64),
    Tick,
    PutPolicy {
        group: u8,
        which: u8,
    },
    DeletePolicy(u8),
    PutTopic {
        topic: u8,
        queues: u8,
    },
    DeleteTopic(u8),
    Lease {
        key: Consumed,
        client: u8,
        ttl_ms: u64,
        renews: Option<u64>,
    },
    Release {
        key: Consumed,
        epoch: u64,
    },
    DeleteConsumer(u8),
}

pub(crate) fn refused(refusal: Refusal) -> OperationResult {
    OperationResult::Refused(refusal)
}

fn outcome_of(committed: bool) -> Outcome {
    if committed { Outcome::Committed } else { Outcome::RolledBack }
}

/// A position that the store gave: inside what was appended.
fn inside(position: u64, at: At) -> Result<(), String> {
    let good = (at.start..at.end).contains(&position);
    if good { Ok(()) } else { Err(format!("position {position} is not in what was appended: {at:?}")) }
}

impl Model {
    /// Takes in an operation and judges the answer.
    pub fn apply(&mut self, op: &Op, got: &OperationResult, at: At) -> Result<(), String> {
        self.clock_ms = at.now;
        let full = self.open_messages() >= OPEN_MESSAGES_MAX;
        let want = match op {
            Op::Send { to, body } => {
                let OperationResult::Stored { position, .. } = got else {
                    return Err(format!("{body} is not stored: {got:?}"));
                };
                inside(position.0, at)?;
                let hidden = Hidden { position: position.0, to: *to, body: body.clone(), delay_ms: None };
                let queue_offset = QueueOffset(self.show(hidden, at));
                OperationResult::Stored { queue_offset, position: *position }
            }
            Op::SendOnce { to, body, id, looked_to } => {
                let looked_to = if self.fault == Fault::RepeatsAreStored { u64::MAX } else { *looked_to };
                return self.sent_once((*to, body, *id), looked_to, got, at);
            }
            Op::Delayed { .. } | Op::Prepare { .. } if full => refused(Refusal::TooManyOpen),
            Op::Delayed { to, body, due_ms } => {
                let OperationResult::Scheduled { position } = got else {
                    return Err(format!("{body} is not scheduled: {got:?}"));
                };
                inside(position.0, at)?;
                let hidden = Hidden { position: position.0, to: *to, body: body.clone(), delay_ms: None };
                self.due.insert((*due_ms, position.0), hidden);
                got.clone()
            }
            Op::Prepare { name, to, body, delay_ms } => {
                let hidden = Hidden { position: 0, to: *to, body: body.clone(), delay_ms: *delay_ms };
                return self.prepared(*name, hidden, 0, got, at);
            }
            Op::Join { name, sequence, to, body, delay_ms, bytes } => {
                let hidden = Hidden { position: 0, to: *to, body: body.clone(), delay_ms: *delay_ms };
                return self.joined(*name, *sequence, (hidden, *bytes), got, at);
            }
            Op::End(end) => return self.end(end, got, at),
            Op::Asked(origins) => {
                for origin in origins {
                    if let Some(open) = self.open.get_mut(origin) {
                        open.asks += 1;
                        open.touched_ms = at.now;
                    }
                }
                OperationResult::Done
            }
            Op::Park(origin) => match self.open.get_mut(origin).filter(|open| !open.in_doubt) {
                Some(open) => {
                    open.in_doubt = true;
                    self.armed.remove(origin);
                    OperationResult::Done
                }
                None => refused(Refusal::Unknown),
            },
            Op::Resume(origin) => match self.open.get_mut(origin).filter(|open| open.in_doubt) {
                Some(open) => {
                    (open.in_doubt, open.asks, open.been_due) = (false, 0, false);
                    open.touched_ms = at.now;
                    self.armed.insert(*origin, at.now);
                    OperationResult::Done
                }
                None => refused(Refusal::Unknown),
            },
            Op::Tick => {
                let later = self.due.split_off(&(at.now + 1, 0));
                let due = std::mem::replace(&mut self.due, later);
                let messages = due.len();
                for hidden in due.into_values() {
                    self.show(hidden, at);
                }
                OperationResult::Ticked { messages }
            }
            Op::PutPolicy { group, which } => {
                self.policies.insert(*group, *which);
                OperationResult::Done
            }
            Op::DeletePolicy(group) => {
                self.policies.remove(group);
                OperationResult::Done
            }
            Op::PutTopic { topic, queues } => self.put_topic(*topic, *queues),
            Op::DeleteTopic(topic) => self.delete_topic(*topic),
            Op::Lease { key, client, ttl_ms, renews } => {
                return self.lease(*key, (*client, *ttl_ms, *renews), got, at);
            }
            Op::Release { key, epoch } => match self.leases.get_mut(key).filter(|l| l.epoch == *epoch) {
                Some(lease) => {
                    lease.released = true;
                    OperationResult::Done
                }
                None => refused(Refusal::LeaseLost),
            },
            Op::DeleteConsumer(group) => {
                let offsets = self.offsets.told.keys().chain(self.offsets.ahead.keys());
                let known = offsets.chain(self.leases.keys()).any(|key| key.0 == *group);
                self.forget(|key| key.0 == *group);
                // one that had offsets once may be known still
                if !known && *got == refused(Refusal::NotFound) { got.clone() } else { OperationResult::Done }
            }
        };
        same("the answer", got, &want)
    }

    fn put_topic(&mut self, topic: u8, queues: u8) -> OperationResult {
        let shrinks = self.topics.get(&topic).is_some_and(|now| queues < *now);
        if shrinks && self.open_in(topic) > 0 {
            return refused(Refusal::TopicHasOpenMessages);
        }
        self.topics.insert(topic, queues);
        for queue in 0..queues {
            self.queues.entry((topic, queue)).or_default();
        }
        OperationResult::Done
    }

    fn delete_topic(&mut self, topic: u8) -> OperationResult {
        if !self.topics.contains_key(&topic) {
            return refused(Refusal::NotFound);
        }
        if self.open_in(topic) > 0 {
            return refused(Refusal::TopicHasOpenMessages);
        }
        self.topics.remove(&topic);
        self.queues.retain(|(of, _), _| *of != topic);
        self.firsts.retain(|(of, _), _| *of != topic);
        self.forget(|key| key.1 == topic);
        OperationResult::Done
    }

    /// Offsets and leases go with their group or topic.
    fn forget(&mut self, gone: impl Fn(&Consumed) -> bool) {
        self.offsets.told.retain(|key, _| !gone(key));
        self.offsets.ahead.retain(|key, _| !gone(key));
        self.offsets.logged.retain(|key, _| !gone(key));
        self.offsets.since.retain(|key, _| !gone(key));
        self.leases.retain(|key, _| !gone(key));
    }

    /// A half message begins a transaction.
    fn prepared(
        &mut self,
        name: Name,
        hidden: Hidden,
        bytes: u64,
        got: &OperationResult,
        at: At,
    ) -> Result<(), String> {
        let OperationResult::Prepared { origin, position } = got else {
            return Err(format!("{name:?} is not begun: {got:?}"));
        };
        inside(origin.0, at)?;
        same("where it began", position, origin)?;
        let open = Open {
            name,
            messages: vec![Hidden { position: origin.0, ..hidden }],
            bytes,
            in_doubt: false,
            asks: 0,
            prepared_ms: at.now,
            touched_ms: at.now,
            been_due: false,
        };
        self.open.insert(origin.0, open);
        self.arm_first_ask(origin.0, name, at.now);
        self.ids.insert(name, origin.0);
        Ok(())
    }

    /// A message of one of many: it opens the transaction, is the next one, or came before.
    fn joined(
        &mut self,
        name: Name,
        sequence: u16,
        (hidden, bytes): (Hidden, u64),
        got: &OperationResult,
        at: At,
    ) -> Result<(), String> {
        let full = self.open_messages() >= OPEN_MESSAGES_MAX;
        let Some(origin) = self.ids.get(&name).copied() else {
            return self.joined_too_late(name, sequence, (hidden, bytes), got, at);
        };
        let Some(open) = self.open.get_mut(&origin) else {
            return Err(format!("the model lost {name:?}"));
        };
        // it says which transaction it joins
        let bytes = bytes + 8;
        let bounded = self.fault != Fault::NoBounds;
        let expected = open.messages.len() as u16;
        let taken = sequence == expected || (self.fault == Fault::GapsAreTaken && sequence > expected);
        let want = if let Some(first) = open.messages.get(usize::from(sequence)) {
            let position = PhysicalOffset(first.position);
            match first.body == hidden.body {
                true => OperationResult::Prepared { origin: PhysicalOffset(origin), position },
                false => refused(Refusal::SequenceReused),
            }
        } else if !taken {
            refused(Refusal::OutOfSequence { expected })
        } else if bounded
            && (expected >= TRANSACTION_MESSAGES_MAX || open.bytes + bytes > TRANSACTION_BYTES_MAX)
        {
            refused(Refusal::TransactionFull)
        } else if full {
            refused(Refusal::TooManyOpen)
        } else {
            let OperationResult::Prepared { position, .. } = got else {
                return Err(format!("{name:?} does not take {}: {got:?}", hidden.body));
            };
            inside(position.0, at)?;
            open.messages.push(Hidden { position: position.0, ..hidden });
            open.bytes += bytes;
            OperationResult::Prepared { origin: PhysicalOffset(origin), position: *position }
        };
        same("the answer to a join", got, &want)
    }

    fn joined_too_late(
        &mut self,
        name: Name,
        sequence: u16,
        (hidden, bytes): (Hidden, u64),
        got: &OperationResult,
        at: At,
    ) -> Result<(), String> {
        if let Some(decided) =
            self.latest.get(&name).and_then(|origin| Some((origin, self.decided.get(origin)?)))
        {
            let (origin, decided) = decided;
            let outcome = outcome_of(decided.committed);
            let want = refused(Refusal::Decided { origin: PhysicalOffset(*origin), outcome });
            if decided.remembered || *got == want {
                return same("the answer to a late join", got, &want);
            }
        }
        if sequence > 0 {
            same("the answer to a join", got, &refused(Refusal::NotOpen))
        } else if self.open_messages() >= OPEN_MESSAGES_MAX {
            same("the answer to a join", got, &refused(Refusal::TooManyOpen))
        } else {
            self.prepared(name, hidden, bytes, got, at)
        }
    }
}
