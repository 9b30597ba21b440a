//! Random operations of every kind that leaves a record.

use std::sync::Arc;

use mezzo_protocol::check_policy::CheckPolicy;
use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName, TransactionId};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;

use crate::batch::{Batch, CountedAsk, LeaseRequest, Operation, Visibility};
use crate::end::{EndTarget, EndTransaction, OffsetMove, TransactionOffsets};
use crate::format::record::{AskAnswer, Outcome, ParkReason, Source};
use crate::results::OperationResult;
use crate::state::groups::GroupConfig;
use crate::state::topics::TopicConfig;
use crate::store::Store;

/// A small deterministic generator (xorshift): a seed is a script.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// What a script knows of what it has done.
pub(super) struct Script {
    pub(super) random: Random,
    /// Origins, with the id of one of many, its group and how many messages it was given.
    begun: Vec<(u64, Option<u64>, u16)>,
    /// Epochs of leases: group, topic, queue.
    epochs: Vec<(u64, u64, u32, u64)>,
    next: u64,
}

fn topic(n: u64) -> TopicName {
    TopicName::new(&format!("t{n}")).unwrap()
}

fn group(n: u64) -> GroupName {
    GroupName::new(&format!("g{n}")).unwrap()
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), begun: Vec::new(), epochs: Vec::new(), next: 0 }
    }

    fn begun(&mut self) -> Option<(u64, Option<u64>, u16)> {
        let len = self.begun.len() as u64;
        if len == 0 {
            return None;
        }
        // mostly the newest
        let back = if self.random.one_in(4) { self.random.below(len) } else { self.random.below(len.min(6)) };
        self.begun.get(usize::try_from(len - 1 - back).unwrap()).copied()
    }

    fn origin(&mut self) -> PhysicalOffset {
        PhysicalOffset(self.begun().map_or(1, |(origin, ..)| origin))
    }

    fn message(&mut self, store: &Store, batch: &mut Batch) {
        let of = self.random.below(3);
        let Some(topic) = store.topic(topic(of).as_str()) else { return };
        let queue = QueueId(u32::try_from(self.random.below(u64::from(topic.queue_count()))).unwrap());
        self.next += 1;
        let n = self.next;
        let delay_ms = self.random.one_in(4).then(|| self.random.of(&[0, 1, 700, 5_000]));
        let group = self.random.below(2);
        let wish =
            self.random.of(&["", "", "", "MEZZO_CHECK\u{1}attempts=2\u{2}", "MEZZO_CHECK\u{1}first=9s\u{2}"]);
        let mut properties =
            format!("UNIQ_KEY\u{1}k{n}\u{2}PGROUP\u{1}g{group}\u{2}TAGS\u{1}a{}\u{2}{wish}", n % 3);
        if self.random.one_in(5) {
            properties.push_str("CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}9\u{2}");
        }
        let visibility = match self.random.below(5) {
            0 => Visibility::Now,
            1 => Visibility::Due(Timestamp::from_ms(1_700_000_000_000 + self.random.below(100_000))),
            2 => Visibility::Prepared { delay_ms },
            _ => {
                let open = self.begun().filter(|_| !self.random.one_in(4));
                let (id, sequence) = match open {
                    Some((_, Some(id), count)) => (id, if self.random.one_in(8) { 0 } else { count }),
                    _ => (n, 0),
                };
                if let Some(known) = self.begun.iter_mut().find(|(_, of, _)| *of == Some(id)) {
                    known.2 = known.2.max(sequence + 1);
                }
                // group and body follow from id and place: a repeat says the same
                properties = format!(
                    "UNIQ_KEY\u{1}m{id}\u{2}PGROUP\u{1}g{}\u{2}{wish}MEZZO_TX\u{1}x{id}\u{2}MEZZO_TX_SEQ\u{1}{sequence}\u{2}",
                    id % 2
                );
                Visibility::Prepared { delay_ms }
            }
        };
        let parts = MessageParts {
            topic: topic.name().as_str(),
            queue_id: queue,
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: Timestamp::from_ms(1),
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host_v6: false,
            reconsume_times: 0,
            body: b"body",
            properties: properties.as_bytes(),
        };
        batch.send(&store.encoder(), &topic, queue, visibility, &parts).unwrap();
    }

    fn end(&mut self, store: &Store) -> Operation {
        let outcome = self.random.of(&[Outcome::Committed, Outcome::Committed, Outcome::RolledBack]);
        let source = self.random.of(&[Source::Producer, Source::Operator, Source::CheckBack]);
        let (origin, id, count) = self.begun().unwrap_or((1, None, 0));
        let target = match id.filter(|_| self.random.one_in(2)) {
            Some(id) => {
                EndTarget::Id { group: group(id % 2), id: TransactionId::new(&format!("x{id}")).unwrap() }
            }
            None => EndTarget::Origin(PhysicalOffset(origin)),
        };
        let mut end = EndTransaction::new(target, outcome, source);
        end.count = (source == Source::Producer).then_some(count);
        if self.random.one_in(4) {
            end.reason = Some("because".to_owned());
            end.decider = Some("10.0.0.1:7".parse().unwrap());
        }
        if self.random.one_in(3) {
            self.add_offsets(store, &mut end);
        }
        if self.random.one_in(6) {
            // one without messages
            self.next += 1;
            let id = TransactionId::new(&format!("x{}", self.next)).unwrap();
            end.target = EndTarget::Id { group: group(self.next % 2), id };
            end.count = Some(0);
        }
        Operation::End(end)
    }

    fn add_offsets(&mut self, store: &Store, end: &mut EndTransaction) {
        let Some((of, to, queue, epoch)) = self.epochs.last().copied() else { return };
        let from = store.offsets.appended(&group(of), &topic(to), QueueId(queue));
        let offset = QueueOffset(self.random.below(100));
        let entry = OffsetMove { topic: topic(to), queue: QueueId(queue), from, offset, epoch };
        end.offsets = Some(TransactionOffsets { group: group(of), entries: vec![entry] });
    }

    fn administer(&mut self) -> Operation {
        let n = self.random.below(3);
        match self.random.below(8) {
            0 => Operation::DeleteTopic(topic(n)),
            1 => Operation::DeleteGroup(group(n)),
            2 => Operation::PutGroup(GroupConfig {
                retry_max: i32::try_from(self.next % 9).unwrap(),
                ..GroupConfig::new(group(n))
            }),
            3 => Operation::DeletePolicy(group(n % 2)),
            4 => Operation::PutPolicy {
                group: group(n % 2),
                policy: CheckPolicy { check_max: 2 + self.next as u32 % 5, ..CheckPolicy::default() },
            },
            _ => {
                let queues = 1 + u32::try_from(self.random.below(4)).unwrap();
                let mut config = TopicConfig::new(topic(n), queues);
                if self.random.one_in(2) {
                    config.attributes.insert("dedup".to_owned(), "retries".to_owned());
                }
                Operation::PutTopic(config)
            }
        }
    }

    /// Puts something into the batch.
    pub(super) fn step(&mut self, store: &Store, now: u64, batch: &mut Batch) {
        let (of, to) = (self.random.below(2), self.random.below(3));
        let operation = match self.random.below(40) {
            0..=15 => return self.message(store, batch),
            16..=24 => self.end(store),
            25..=26 => Operation::Tick(Timestamp::from_ms(now)),
            27..=28 => Operation::Lease(LeaseRequest {
                group: group(of),
                topic: topic(to),
                queue: QueueId(0),
                client: format!("c{}", self.next % 3),
                ttl_ms: self.random.of(&[1, 1_000, 60_000]),
                renews: None,
            }),
            29 => {
                let (of, to, queue, epoch) = self.epochs.last().copied().unwrap_or((0, 0, 0, 0));
                Operation::ReleaseLease { group: group(of), topic: topic(to), queue: QueueId(queue), epoch }
            }
            30..=32 => {
                let ask =
                    |origin| CountedAsk { origin, peer: None, answer: AskAnswer::Unknown, waited_ms: 3 };
                Operation::Asked((0..3).map(|_| ask(self.origin())).collect())
            }
            33..=34 => Operation::Park { origin: self.origin(), reason: ParkReason::CheckMax },
            35 => Operation::Resume { origin: self.origin(), by: None },
            _ => self.administer(),
        };
        batch.push(operation);
    }

    /// Takes note of what came of a batch.
    pub(super) fn came(&mut self, batch: &Batch) {
        for (operation, result) in batch.operations().iter().zip(batch.results()) {
            match (operation, result) {
                (Operation::Send(send), OperationResult::Prepared { origin, position })
                    if origin == position =>
                {
                    let half = send.0.half.as_ref();
                    let id = half.and_then(|h| h.of_many.as_ref()).map(|one| one.id[1..].parse().unwrap());
                    if self.begun.iter().all(|(known, ..)| *known != origin.0) {
                        self.begun.push((origin.0, id, 1));
                    }
                }
                (Operation::Lease(asked), OperationResult::Leased { epoch, .. }) => {
                    let number = |name: &str| name[1..].parse().unwrap();
                    let (of, to) = (number(asked.group.as_str()), number(asked.topic.as_str()));
                    self.epochs.push((of, to, asked.queue.0, *epoch));
                }
                _ => {}
            }
        }
    }

    /// A plain report of an offset, if it may be made.
    pub(super) fn report(&mut self, store: &Arc<Store>) {
        let (of, to) = (self.random.below(2), self.random.below(3));
        let offset = QueueOffset(self.random.below(50));
        if store.topic(topic(to).as_str()).is_some() {
            let _leased = store.commit_offset(&group(of), &topic(to), QueueId(0), offset);
        }
    }
}
