//! Consumer groups as an administrator sets them (RocketMQ's subscription group configuration).

use std::collections::BTreeMap;

use mezzo_protocol::ids::GroupName;

use super::corrupt_log;
use crate::error::StorageError;
use crate::format::record::Group as GroupRecord;

/// A consumer group's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// Its name.
    pub name: GroupName,
    /// May consume at all.
    pub consume_enable: bool,
    /// May start from the first message.
    pub consume_from_min: bool,
    /// May consume in broadcast mode.
    pub consume_broadcast: bool,
    /// Members lock queues and consume in order.
    pub orderly: bool,
    /// Members are told when the membership changes.
    pub notify_ids_changed: bool,
    /// Queues of its retry topic.
    pub retry_queues: u32,
    /// Deliveries before the dead letter topic; -1 means the default.
    pub retry_max: i32,
    /// Broker its members consume from.
    pub broker_id: u64,
    /// Broker to go to when consuming is slow.
    pub slow_broker_id: u64,
    /// Further attributes.
    pub attributes: BTreeMap<String, String>,
}

impl GroupConfig {
    /// Default of RocketMQ's `retryMaxTimes`.
    pub const RETRY_MAX_DEFAULT: i32 = 16;

    /// The configuration a group gets when it appears by itself.
    #[must_use]
    pub fn new(name: GroupName) -> Self {
        Self {
            name,
            consume_enable: true,
            consume_from_min: true,
            consume_broadcast: true,
            orderly: false,
            notify_ids_changed: true,
            retry_queues: 1,
            retry_max: Self::RETRY_MAX_DEFAULT,
            broker_id: 0,
            slow_broker_id: 1,
            attributes: BTreeMap::new(),
        }
    }

    pub(crate) fn to_record(&self) -> GroupRecord<'_> {
        let switches = [
            (self.consume_enable, GroupRecord::CONSUME),
            (self.consume_from_min, GroupRecord::CONSUME_FROM_MIN),
            (self.consume_broadcast, GroupRecord::CONSUME_BROADCAST),
            (self.orderly, GroupRecord::ORDERLY),
            (self.notify_ids_changed, GroupRecord::NOTIFY_IDS_CHANGED),
        ];
        GroupRecord {
            deleted: false,
            name: self.name.as_str(),
            switches: switches.iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit),
            retry_queues: self.retry_queues,
            retry_max: self.retry_max,
            broker_id: self.broker_id,
            slow_broker_id: self.slow_broker_id,
            attributes: self.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        }
    }

    pub(crate) fn from_record(record: &GroupRecord<'_>, position: u64) -> Result<Self, StorageError> {
        let on = |bit| record.switches & bit != 0;
        Ok(Self {
            name: GroupName::new(record.name).map_err(|e| corrupt_log(position, e))?,
            consume_enable: on(GroupRecord::CONSUME),
            consume_from_min: on(GroupRecord::CONSUME_FROM_MIN),
            consume_broadcast: on(GroupRecord::CONSUME_BROADCAST),
            orderly: on(GroupRecord::ORDERLY),
            notify_ids_changed: on(GroupRecord::NOTIFY_IDS_CHANGED),
            retry_queues: record.retry_queues,
            retry_max: record.retry_max,
            broker_id: record.broker_id,
            slow_broker_id: record.slow_broker_id,
            attributes: record.attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        })
    }
}
