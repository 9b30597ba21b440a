//! Where a send goes: the topic, which may have to be created first; the dead-letter topic for what a consumer has tried
//! too often; a queue for senders that leave the choice to the broker.

use std::{cell::Cell, sync::Arc};

use mezzo_protocol::{
    ids::{QueueId, TopicName},
    system_topic,
    time::Timestamp,
};
use mezzo_storage::Topic;

use super::{Send, SendError};
use crate::{
    core::redelivery,
    service::{Services, topic::TopicToCreate},
};

/// RocketMQ's permission bits of a topic that may be read and written.
const PERMISSION_READ_WRITE: u32 = 6;
/// RocketMQ's write permission bit.
const PERMISSION_WRITE: u32 = 2;
/// RocketMQ's bit of topics that others are created from.
const PERMISSION_INHERIT: u32 = 1;

/// The topic of a send, which exists and may be written to.
pub(super) fn writable_topic(
    services: &Services,
    name: &str,
    default_topic: &str,
    default_queues: i32,
) -> Result<Arc<Topic>, SendError> {
    if let Some(topic) = services.store.topic(name) {
        if system_topic::is_not_sendable(name) {
            return Err(SendError::SystemTopic(name.to_owned()));
        }
        if topic.config().permission & PERMISSION_WRITE == 0 {
            return Err(SendError::NotWritable(name.to_owned()));
        }
        return Ok(topic);
    }
    let valid = TopicName::new(name).map_err(SendError::TopicName)?;
    if system_topic::is_not_sendable(name) {
        return Err(SendError::SystemTopic(name.to_owned()));
    }
    let create = |queues, permission| {
        Err(SendError::CreateTopic(TopicToCreate { name: valid.clone(), queues, permission }))
    };
    let wished = u32::try_from(default_queues).unwrap_or(0);
    if default_topic == system_topic::AUTO_CREATE_TOPIC {
        if services.config.topic.auto_create {
            let queues = wished.min(services.config.topic.default_queues).max(1);
            return create(queues, PERMISSION_READ_WRITE);
        }
    } else if let Some(model) = services.store.topic(default_topic) {
        let model = model.config();
        if model.permission & PERMISSION_INHERIT != 0 {
            return create(wished.min(model.write_queues).max(1), model.permission & !PERMISSION_INHERIT);
        }
    }
    if system_topic::is_retry(name) {
        return create(1, PERMISSION_READ_WRITE);
    }
    Err(SendError::TopicNotExist(name.to_owned()))
}

/// The dead-letter topic, if that is where a message belongs that its consumer sent to its retry topic.
pub(super) fn dead_letter(
    services: &Services,
    now: Timestamp,
    send: &Send<'_>,
) -> Result<Option<Arc<Topic>>, SendError> {
    let name = system_topic::group_of(send.topic).unwrap_or_default();
    let Some(group) = services.store.group(name) else {
        return Err(SendError::GroupNotExist(name.to_owned()));
    };
    let locked = services.locks.holds_any(name, now);
    if !redelivery::resend_is_dead(send.reconsume_times, send.reconsume_max, group.retry_max, locked) {
        return Ok(None);
    }
    let dead = system_topic::dlq_topic(&group.name);
    match services.store.topic(dead.as_str()) {
        Some(topic) => Ok(Some(topic)),
        None => Err(SendError::CreateTopic(TopicToCreate {
            name: dead,
            queues: redelivery::DLQ_QUEUES,
            permission: PERMISSION_READ_WRITE,
        })),
    }
}

/// One of `count` queues, in turn: for senders that leave the choice to the broker.
pub(super) fn any_queue(count: u32) -> QueueId {
    thread_local! {
        static TURN: Cell<u32> = const { Cell::new(0) };
    }
    let turn = TURN.get();
    TURN.set(turn.wrapping_add(1));
    QueueId(turn % count.max(1))
}
