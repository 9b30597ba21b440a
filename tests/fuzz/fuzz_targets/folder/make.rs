//! The folder: segments, base, checkpoint, queues and history of a store that has done everything once.

use std::sync::{Arc, OnceLock};

use mezzo_protocol::check_policy::CheckPolicy;
use mezzo_protocol::ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::record::MessageParts;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{
    Batch, EndTarget, EndTransaction, GroupConfig, LeaseRequest, NoObserver, Operation, OperationResult,
    Outcome, ParkReason, Source, Store, TopicConfig, Visibility,
};

use super::{BEGIN_MS, options};

/// A copy of the folder, its process killed.
pub fn made() -> SimulatedDisk {
    static MADE: OnceLock<SimulatedDisk> = OnceLock::new();
    MADE.get_or_init(make).crash(CrashMode::KeepAll)
}

struct Maker {
    store: Arc<Store>,
    now: u64,
}

impl Maker {
    fn one(&mut self, operation: Operation) -> OperationResult {
        self.now += 1;
        let mut batch = Batch::default();
        batch.push(operation);
        self.append(&mut batch)
    }

    fn append(&mut self, batch: &mut Batch) -> OperationResult {
        while self.store.prepare_step().expect("a sound disk") {}
        self.store.append(Timestamp::from_ms(self.now), batch).expect("a sound disk");
        self.store.sync().expect("a sound disk");
        batch.results()[0].clone()
    }

    fn send(&mut self, topic: &str, key: &str, more: &str, visibility: Visibility) -> PhysicalOffset {
        self.now += 1;
        let properties = format!("UNIQ_KEY\u{1}{key}\u{2}PGROUP\u{1}pg\u{2}{more}");
        let body = key.repeat(40);
        let parts = MessageParts {
            topic,
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: Timestamp::from_ms(self.now),
            born_host: ([127, 0, 0, 1], 1).into(),
            store_host_v6: false,
            reconsume_times: 0,
            body: body.as_bytes(),
            properties: properties.as_bytes(),
        };
        let mut batch = Batch::default();
        let place = self.store.topic(topic).expect("it was made");
        batch.send(&self.store.encoder(), &place, QueueId(0), visibility, &parts).expect("it fits");
        match self.append(&mut batch) {
            OperationResult::Prepared { origin, .. } => origin,
            _ => PhysicalOffset(0),
        }
    }

    fn end(&mut self, origin: PhysicalOffset, outcome: Outcome) {
        let operator = Source::Operator;
        self.one(Operation::End(EndTransaction::new(EndTarget::Origin(origin), outcome, operator)));
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).expect("a topic's name")
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).expect("a group's name")
}

fn make() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let fs = Arc::new(disk.clone());
    let (store, _) = Store::open(fs, options(), Timestamp::from_ms(BEGIN_MS), Arc::new(NoObserver))
        .expect("an empty disk opens");
    let mut maker = Maker { store, now: BEGIN_MS };
    maker.one(Operation::PutTopic(TopicConfig::new(topic("t"), 2)));
    maker.one(Operation::PutTopic(TopicConfig::new(topic("gone"), 1)));
    maker.one(Operation::PutGroup(GroupConfig::new(group("cg"))));
    maker.one(Operation::PutPolicy { group: group("pg"), policy: CheckPolicy::default() });
    for round in 0..4 {
        for turn in 0..12 {
            let key = format!("{round}-{turn}");
            maker.send("t", &key, "TAGS\u{1}a\u{2}KEYS\u{1}k1 k2\u{2}", Visibility::Now);
            let half = maker.send("t", &format!("h{key}"), "", Visibility::Prepared { delay_ms: None });
            match turn % 4 {
                0 => maker.end(half, Outcome::Committed),
                1 => maker.end(half, Outcome::RolledBack),
                2 => drop(maker.one(Operation::Park { origin: half, reason: ParkReason::CheckMax })),
                _ => {}
            }
            let at = Visibility::Due(Timestamp::from_ms(maker.now + turn * 5));
            maker.send("t", &format!("d{key}"), "", at);
            let now = Timestamp::from_ms(maker.now);
            maker.one(Operation::Tick(now));
        }
        for sequence in 0..3 {
            let join = format!("MEZZO_TX\u{1}many{round}\u{2}MEZZO_TX_SEQ\u{1}{sequence}\u{2}");
            let key = format!("m{round}-{sequence}");
            maker.send("t", &key, &join, Visibility::Prepared { delay_ms: None });
        }
        let (now, next) = (Timestamp::from_ms(maker.now), QueueOffset(round));
        maker.store.commit_offset(&group("cg"), &topic("t"), QueueId(1), next).expect("no lease there");
        maker.store.flush_offsets(now).expect("a sound disk");
        maker.one(Operation::Lease(LeaseRequest {
            group: group("cg"),
            topic: topic("t"),
            queue: QueueId(0),
            client: format!("client{round}"),
            ttl_ms: 1000,
            renews: None,
        }));
        maker.now += 2000;
        maker.store.keep(Timestamp::from_ms(maker.now)).expect("a sound disk");
    }
    maker.one(Operation::DeleteTopic(topic("gone")));
    disk
}
