//! From steps to what the store is given: names, bodies and properties, and what a step refers to in this run.

use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName, TransactionId};
use mezzo_protocol::message::record::{self, MessageParts};
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::{
    AskAnswer, Batch, CountedAsk, EndTarget, EndTransaction, LeaseRequest, OffsetMove, Operation, Outcome,
    ParkReason, Part, SendFacts, SendGuard, SenderId, Source, Store, TopicConfig, TransactionOffsets,
    Visibility, key_hash,
};

use super::decisions::{EndOp, Moved, Target};
use super::model::Consumed;
use super::once::id_text;
use super::policies::{GROUP_POLICIES, WISHES};
use super::rules::Op;
use super::run::Run;
use super::steps::{By, Claim, End, Moves, Name, Place, Step, Who};

/// Of a record before what it holds.
const RECORD_BYTES: usize = 12;

pub fn topic_name(topic: u8) -> String {
    format!("t{topic}")
}

fn topic(topic: u8) -> TopicName {
    TopicName::new(&topic_name(topic)).unwrap()
}

pub fn producer_name(group: u8) -> GroupName {
    GroupName::new(&format!("p{group}")).unwrap()
}

pub fn consumer_name(group: u8) -> GroupName {
    GroupName::new(&format!("c{group}")).unwrap()
}

pub fn client_name(client: u8) -> String {
    format!("i{client}")
}

/// A body that no other message has.
fn body(label: &str, size: u16) -> String {
    format!("{label}|{}", "x".repeat(size.into()))
}

impl Run {
    /// What a step means in this run; `None` if there is nothing that it could mean.
    pub(super) fn resolve(&self, step: &Step) -> Option<Op> {
        let there = |to: &Place| self.model.queues.contains_key(&(to.topic, to.queue)).then_some(*to);
        let wait = |ms: &Option<u32>| ms.map(u64::from);
        Some(match step {
            Step::Send { n, to, size } => Op::Send { to: there(to)?, body: body(&format!("s{n}"), *size) },
            Step::SendOnce { n, to, id, blind } => {
                let looked_to = if *blind { self.synced } else { self.end };
                Op::SendOnce { to: there(to)?, body: body(&format!("u{n}"), 10), id: *id, looked_to }
            }
            Step::SendDelayed { n, to, in_ms } => {
                let due_ms = self.now + u64::from(*in_ms);
                Op::Delayed { to: there(to)?, body: body(&format!("d{n}"), 20), due_ms }
            }
            Step::Prepare { n, to, size, delay_ms } => {
                let name = Name::Alone(*n);
                let body = body(&name.key(), *size);
                Op::Prepare { name, to: there(to)?, body, delay_ms: wait(delay_ms) }
            }
            Step::Join { n, sequence, to, other_body, delay_ms } => {
                let name = Name::Many(*n);
                let label = format!("{}.{sequence}{}", name.key(), if *other_body { 'b' } else { 'a' });
                let (to, sequence) = (there(to)?, *sequence);
                let body = body(&label, if (n + u32::from(sequence)) % 4 == 0 { 500 } else { 10 });
                let delay_ms = wait(delay_ms);
                let properties = joining(name, &body, sequence);
                let message = record::encoded_len(&parts(&topic_name(to.topic), to, &body, &properties));
                let bytes = (RECORD_BYTES + message) as u64 + if delay_ms.is_some() { 8 } else { 0 };
                Op::Join { name, sequence, to, body, delay_ms, bytes }
            }
            Step::End(end) => Op::End(self.resolve_end(end)?),
            Step::EndEmpty { of, commit, moves } => Op::End(EndOp {
                target: Target::Id(of.group(), *of),
                commit: *commit,
                source: Source::Producer,
                group: None,
                key: None,
                table: None,
                count: Some(0),
                moves: moves.map(|moves| self.resolve_moves(moves)),
            }),
            Step::Asked { of } => {
                Op::Asked(of.iter().filter_map(|name| self.origins.get(name).copied()).collect())
            }
            Step::Park { of } => Op::Park(*self.origins.get(of)?),
            Step::Resume { of } => Op::Resume(*self.origins.get(of)?),
            Step::Tick => Op::Tick,
            Step::Lease { consumer, place, client, ttl_ms, renew } => {
                let key = (*consumer, place.topic, place.queue);
                let renews = renew.then(|| self.epoch(key, *client));
                Op::Lease { key, client: *client, ttl_ms: u64::from(*ttl_ms), renews }
            }
            Step::Release { consumer, place, client } => {
                let key = (*consumer, place.topic, place.queue);
                Op::Release { key, epoch: self.epoch(key, *client) }
            }
            Step::DeleteConsumer { consumer } => Op::DeleteConsumer(*consumer),
            Step::PutPolicy { group, which } => Op::PutPolicy { group: *group, which: *which },
            Step::DeletePolicy { group } => Op::DeletePolicy(*group),
            Step::PutTopic { topic, queues } => Op::PutTopic { topic: *topic, queues: *queues },
            Step::DeleteTopic { topic } => Op::DeleteTopic(*topic),
            _ => return None,
        })
    }

    /// The epoch that a client was last given; one that was never given to anybody before that.
    fn epoch(&self, key: Consumed, client: u8) -> u64 {
        self.epochs.get(&(key, client)).copied().unwrap_or(0)
    }

    fn resolve_moves(&self, moves: Moves) -> Moved {
        let key = (moves.consumer, moves.place.topic, moves.place.queue);
        let stands = self.model.offsets.appended(&key);
        let from = if moves.stale { Some(stands.map_or(0, |at| at + 1)) } else { stands };
        Moved { key, from, offset: u64::from(moves.offset), epoch: self.epoch(key, moves.client) }
    }

    fn resolve_end(&self, end: &End) -> Option<EndOp> {
        let of = end.of;
        let origin = self.origins.get(&of).copied();
        let right_count = || {
            let open = self.model.open.get(&origin?)?;
            u16::try_from(open.messages.len()).ok()
        };
        let other = match of {
            Name::Alone(n) => Name::Alone(n + 2),
            Name::Many(n) => Name::Many(n + 2),
        };
        let right_group = of.group();
        let by_id = end.by == By::Id;
        let group = if by_id && end.group == Claim::Wrong { 1 - right_group } else { right_group };
        let target = match end.by {
            By::Id => Target::Id(group, of),
            By::Origin => Target::Origin(origin?),
            By::WrongOffset => Target::Origin(origin? + 1),
        };
        Some(EndOp {
            target,
            commit: end.commit,
            source: match end.who {
                Who::Producer => Source::Producer,
                Who::CheckBack => Source::CheckBack,
                Who::Operator => Source::Operator,
            },
            group: match end.group {
                Claim::Right if !by_id => Some(right_group),
                Claim::Wrong if !by_id => Some(1 - right_group),
                _ => None,
            },
            key: match end.key {
                Claim::Right => Some(of),
                Claim::Wrong => Some(other),
                Claim::Absent => None,
            },
            table: match (end.table, by_id) {
                (Claim::Right, false) => origin,
                (Claim::Wrong, _) => Some(origin.unwrap_or(0) + 8),
                _ => None,
            },
            count: match end.count {
                Claim::Right => Some(right_count().unwrap_or(1)),
                Claim::Wrong => Some(right_count().unwrap_or(1) + 1),
                Claim::Absent => None,
            },
            moves: end.moves.map(|moves| self.resolve_moves(moves)),
        })
    }

    /// Adds an operation to a batch.
    pub(super) fn push(&self, store: &Store, batch: &mut Batch, op: &Op) -> Result<(), String> {
        let operation = match op {
            Op::Send { to, body } => return send(store, batch, *to, body, "", Visibility::Now).map(drop),
            Op::SendOnce { to, body, id, looked_to } => {
                let (topic, id) = (topic_name(to.topic), id_text(*id));
                let of = format!("MEZZO_DEDUP_ID\u{1}{id}\u{2}");
                let at = send(store, batch, *to, body, &of, Visibility::Now)?;
                let sends = store.first_sends();
                let guard = SendGuard {
                    key: sends.key(&SendFacts::Explicit { topic: &topic, id: &id }),
                    explicit: true,
                    sender: SenderId::of(1),
                    part: Part::ALONE,
                    looked_to: PhysicalOffset(*looked_to),
                };
                batch.guard(at, sends, guard);
                return Ok(());
            }
            Op::Delayed { to, body, due_ms } => {
                return send(store, batch, *to, body, "", Visibility::Due(self.wall(*due_ms))).map(drop);
            }
            Op::Prepare { name, to, body, delay_ms } => {
                let of = properties(*name, &name.key());
                let visibility = Visibility::Prepared { delay_ms: *delay_ms };
                return send(store, batch, *to, body, &of, visibility).map(drop);
            }
            Op::Join { name, sequence, to, body, delay_ms, .. } => {
                let of = joining(*name, body, *sequence);
                let visibility = Visibility::Prepared { delay_ms: *delay_ms };
                return send(store, batch, *to, body, &of, visibility).map(drop);
            }
            Op::End(end) => Operation::End(ending(end)),
            Op::Asked(origins) => {
                let ask = |origin: &u64| CountedAsk {
                    origin: PhysicalOffset(*origin),
                    peer: None,
                    answer: AskAnswer::Unknown,
                    waited_ms: 0,
                };
                Operation::Asked(origins.iter().map(ask).collect())
            }
            Op::Park(origin) => {
                Operation::Park { origin: PhysicalOffset(*origin), reason: ParkReason::CheckMax }
            }
            Op::Resume(origin) => Operation::Resume { origin: PhysicalOffset(*origin), by: None },
            Op::Tick => Operation::Tick(self.wall(self.now + 1)),
            Op::PutPolicy { group, which } => Operation::PutPolicy {
                group: producer_name(*group),
                policy: GROUP_POLICIES[usize::from(*which)],
            },
            Op::DeletePolicy(group) => Operation::DeletePolicy(producer_name(*group)),
            Op::PutTopic { topic: of, queues } => {
                let mut config = TopicConfig::new(topic(*of), u32::from(*queues));
                config.attributes.insert("dedup".to_owned(), "strict".to_owned());
                Operation::PutTopic(config)
            }
            Op::DeleteTopic(of) => Operation::DeleteTopic(topic(*of)),
            Op::Lease { key, client, ttl_ms, renews } => Operation::Lease(LeaseRequest {
                group: consumer_name(key.0),
                topic: topic(key.1),
                queue: QueueId(key.2.into()),
                client: client_name(*client),
                ttl_ms: *ttl_ms,
                renews: *renews,
            }),
            Op::Release { key, epoch } => Operation::ReleaseLease {
                group: consumer_name(key.0),
                topic: topic(key.1),
                queue: QueueId(key.2.into()),
                epoch: *epoch,
            },
            Op::DeleteConsumer(group) => Operation::DeleteGroup(consumer_name(*group)),
        };
        batch.push(operation);
        Ok(())
    }
}

/// Of each half message.
fn properties(name: Name, unique_key: &str) -> String {
    let group = producer_name(name.group());
    let wish = name.wish().map_or_else(String::new, |n| format!("MEZZO_CHECK\u{1}{}\u{2}", WISHES[n].0));
    format!("UNIQ_KEY\u{1}{unique_key}\u{2}PGROUP\u{1}{group}\u{2}{wish}")
}

/// Of one of many.
fn joining(name: Name, body: &str, sequence: u16) -> String {
    let of = properties(name, body);
    format!("{of}MEZZO_TX\u{1}{}\u{2}MEZZO_TX_SEQ\u{1}{sequence}\u{2}", name.key())
}

fn ending(end: &EndOp) -> EndTransaction {
    let target = match end.target {
        Target::Origin(origin) => EndTarget::Origin(PhysicalOffset(origin)),
        Target::Id(group, name) => {
            EndTarget::Id { group: producer_name(group), id: TransactionId::new(&name.key()).unwrap() }
        }
    };
    let outcome = if end.commit { Outcome::Committed } else { Outcome::RolledBack };
    let offsets = end.moves.map(|Moved { key, from, offset, epoch }| {
        let (of, queue) = (topic(key.1), QueueId(key.2.into()));
        let (from, offset) = (from.map(QueueOffset), QueueOffset(offset));
        let entries = vec![OffsetMove { topic: of, queue, from, offset, epoch }];
        TransactionOffsets { group: consumer_name(key.0), entries }
    });
    EndTransaction {
        table_offset: end.table,
        keys: end.key.map(|name| [0, key_hash(&name.key())]),
        producer_group: end.group.map(producer_name),
        count: end.count,
        offsets,
        ..EndTransaction::new(target, outcome, end.source)
    }
}

fn send(
    store: &Store,
    batch: &mut Batch,
    to: Place,
    body: &str,
    properties: &str,
    visibility: Visibility,
) -> Result<usize, String> {
    let name = topic_name(to.topic);
    let topic = store.topic(&name).ok_or_else(|| format!("topic {name} is not there"))?;
    let parts = parts(&name, to, body, properties);
    let added = batch.send(&store.encoder(), &topic, parts.queue_id, visibility, &parts);
    added.map_err(|error| format!("{body} is not taken: {error}"))
}

fn parts<'a>(topic: &'a str, to: Place, body: &'a str, properties: &'a str) -> MessageParts<'a> {
    MessageParts {
        topic,
        queue_id: QueueId(to.queue.into()),
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: Timestamp::from_ms(1),
        born_host: "127.0.0.1:1".parse().unwrap(),
        store_host_v6: false,
        reconsume_times: 0,
        body: body.as_bytes(),
        properties: properties.as_bytes(),
    }
}
