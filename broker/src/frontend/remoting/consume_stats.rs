//! GET_CONSUME_STATS (208): how far a consumer group is behind in each queue, for administration tools.

use std::{collections::BTreeSet, sync::Arc};

use mezzo_protocol::{
    ids::{QueueId, QueueOffset, TopicName},
    remoting::{
        body::consume_stats::{QueueProgress, encode_consume_stats},
        header::consumer_offset::ConsumeStatsHeader,
        response_code::ResponseCode,
    },
    time::Timestamp,
};
use mezzo_storage::Queue;

use super::{
    response,
    turn::{Handled, Request, Step, Turn},
};
use crate::service::Services;

/// Looks on a thread that may wait for the disk, where the times of messages may have to be read, and answers from there.
pub(crate) fn handle(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = ConsumeStatsHeader::decode(&request.header.ext)?;
    let topic = header.topic.as_deref().map(TopicName::new).transpose()?;
    let Some(group) = turn.services.store.group(&header.consumer_group) else {
        let remark = format!("subscription group not exist, {}", header.consumer_group);
        turn.refuse(request, ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark);
        return Ok(Step::Done);
    };
    let Some(held) = turn.channel.hold_for_work() else {
        turn.refuse_held(request);
        return Ok(Step::Done);
    };
    let (to, services) = (request.reply_to(), Arc::clone(turn.services));
    // it answers by itself; nobody waits for its end
    drop(turn.services.on_disk_thread(move || {
        let topics = match topic {
            Some(topic) => BTreeSet::from([topic]),
            None => topics_of(&services, &group.name),
        };
        let queues: Vec<QueueProgress> =
            topics.iter().flat_map(|topic| progress(&services, &group.name, topic)).collect();
        let body = encode_consume_stats(services.routes.broker_name(), &queues);
        // a connection that closed meanwhile wants no answer
        let _ = held.channel().push_reply(to, response::ok().with_body(body));
    }));
    Ok(Step::Done)
}

/// The topics that the group has reported offsets of; of a group that is connected only those that it still wants,
/// except if it wants none by name, as consumers do that choose their queues themselves.
fn topics_of(services: &Services, group: &str) -> BTreeSet<TopicName> {
    let read: BTreeSet<TopicName> =
        services.store.offsets_of(group).into_iter().map(|(topic, ..)| topic).collect();
    let wanted: BTreeSet<TopicName> =
        read.iter().filter(|topic| services.clients.subscription(group, topic).is_some()).cloned().collect();
    if wanted.is_empty() { read } else { wanted }
}

/// The group's progress in the queues of one topic; nothing if there is no such topic.
fn progress(services: &Services, group: &str, topic: &TopicName) -> Vec<QueueProgress> {
    let Some(found) = services.store.topic(topic) else { return Vec::new() };
    let queues = (0..found.config().read_queues).filter_map(|id| found.queue(QueueId(id)));
    let of_queue = |queue: Arc<Queue>| {
        let consumer_offset = services.store.offset(group, topic, queue.id()).unwrap_or(QueueOffset(0));
        QueueProgress {
            topic: topic.clone(),
            queue: queue.id(),
            broker_offset: queue.max_offset(),
            consumer_offset,
            last_read_at: visible_at(services, &queue, consumer_offset.0.checked_sub(1)),
        }
    };
    queues.map(of_queue).collect()
}

/// When the message at this offset became visible; `None` if it is gone or its queue cannot be read now.
fn visible_at(services: &Services, queue: &Queue, offset: Option<u64>) -> Option<Timestamp> {
    let offset = offset.map(QueueOffset).filter(|offset| *offset >= queue.min_offset())?;
    let read = services.store.read_entries(queue, offset, 1, &mut |_| true).ok()?;
    read.entries.first().map(|(_, entry)| Timestamp::from_ms(entry.visible_at_ms))
}
