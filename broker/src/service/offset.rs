//! How far groups have come, and where queues begin and end. A group's report only changes memory; once a second what
//! changed is logged, one record per group.

use std::sync::Arc;

use mezzo_protocol::{
    ids::{QueueId, QueueOffset},
    time::Timestamp,
};
use mezzo_storage::{OffsetLeased, Queue, StorageError};

use super::{Services, alarm::Alarm, stop::Stop};

/// Milliseconds between two records of the groups' offsets.
const FLUSH_INTERVAL_MS: u64 = 1_000;

/// Why an offset cannot be told or taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OffsetError {
    /// No such topic.
    #[error("Topic {0} not exist!")]
    TopicNotExist(String),
    /// The topic has no such queue.
    #[error("topic {topic} has no queue {queue}")]
    NoSuchQueue {
        /// The topic.
        topic: String,
        /// The queue asked for.
        queue: QueueId,
    },
    /// No such group: it has never sent a heartbeat and nobody created it.
    #[error("Group {0} not exist!")]
    GroupNotExist(String),
    /// The group never reported an offset of this queue.
    #[error("Not found, maybe this group consumer boot first")]
    NotFound,
    /// A client moves this offset with its transactions.
    #[error(transparent)]
    Leased(#[from] OffsetLeased),
    /// The store cannot read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Looks a queue up.
///
/// # Errors
/// [`OffsetError::TopicNotExist`], [`OffsetError::NoSuchQueue`].
pub(crate) fn queue(services: &Services, topic: &str, queue: QueueId) -> Result<Arc<Queue>, OffsetError> {
    let found = services.store.topic(topic).ok_or_else(|| OffsetError::TopicNotExist(topic.to_owned()))?;
    found.queue(queue).ok_or_else(|| OffsetError::NoSuchQueue { topic: topic.to_owned(), queue })
}

/// The next offset that `group` will consume. For a group that never reported one: 0 while the queue's first message
/// still exists, so that nothing is skipped, unless `zero_allowed` is false.
///
/// # Errors
/// [`OffsetError::NotFound`] leaves it to the client where to start; it is also the answer for an unknown queue, whose
/// consumer waits for it to be created.
pub(crate) fn consumed(
    services: &Services,
    group: &str,
    topic: &str,
    queue_id: QueueId,
    zero_allowed: bool,
) -> Result<QueueOffset, OffsetError> {
    let queue = queue(services, topic, queue_id).map_err(|_| OffsetError::NotFound)?;
    if let Some(offset) = services.store.offset(group, queue.topic(), queue_id) {
        return Ok(offset);
    }
    let first = QueueOffset(0);
    if zero_allowed && queue.min_offset() == first { Ok(first) } else { Err(OffsetError::NotFound) }
}

/// Takes a group's report: it will consume `offset` next. Reports of groups and queues that do not exist are refused,
/// so that memory is bounded by what was created.
///
/// # Errors
/// [`OffsetError`]; nothing is changed.
pub(crate) fn report(
    services: &Services,
    group: &str,
    topic: &str,
    queue_id: QueueId,
    offset: QueueOffset,
) -> Result<(), OffsetError> {
    let known = services.store.group(group).ok_or_else(|| OffsetError::GroupNotExist(group.to_owned()))?;
    let queue = queue(services, topic, queue_id)?;
    Ok(services.store.commit_offset(&known.name, queue.topic(), queue_id, offset)?)
}

/// The first offset that became visible at or after `at`; with `last`, the last one that became visible at that very
/// millisecond, where there are several.
///
/// # Errors
/// The consume queue cannot be read.
pub(crate) fn at_time(
    services: &Services,
    queue: &Queue,
    at: Timestamp,
    last: bool,
) -> Result<QueueOffset, OffsetError> {
    let first = services.store.search_by_time(queue, at)?;
    if !last {
        return Ok(first);
    }
    let behind = services.store.search_by_time(queue, at.saturating_add_ms(1))?;
    Ok(QueueOffset(behind.0.saturating_sub(1)).max(first))
}

/// When the queue's first message became visible; `None` for an empty queue.
///
/// # Errors
/// The consume queue cannot be read.
pub(crate) fn earliest(services: &Services, queue: &Queue) -> Result<Option<Timestamp>, OffsetError> {
    let read = services.store.read_entries(queue, queue.min_offset(), 1, &mut |_| true)?;
    Ok(read.entries.first().map(|(_, entry)| Timestamp::from_ms(entry.visible_at_ms)))
}

/// Logs what changed once a second, and once more at the stop signal.
pub(crate) async fn drive(services: Arc<Services>, mut stop: Stop) {
    let alarm = Alarm::default();
    while !stop.is_stopped() {
        let next = services.now().saturating_add_ms(FLUSH_INTERVAL_MS);
        while services.now() < next && !stop.is_stopped() {
            tokio::select! {
                biased;
                () = stop.stopped() => {}
                () = alarm.wait(&*services.clock, Some(next)) => {}
            }
        }
        match services.store.flush_offsets(services.now()) {
            Ok(()) => {}
            Err(StorageError::Fenced { .. }) => return,
            Err(error) => {
                tracing::warn!(%error, "consumer offsets could not be logged; they are logged later")
            }
        }
    }
}
