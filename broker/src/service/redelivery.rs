//! Send-back: a consumer could not process a message, and the broker stores it again for a later attempt or in the
//! dead-letter topic. Where it goes is decided in `core::redelivery`; here the message is read, the topic made, the
//! copy appended.

use std::sync::Arc;

use mezzo_protocol::{
    DecodeError, EncodeError as MessageError,
    ids::{GroupName, OffsetMessageId, PhysicalOffset, QueueId},
    message::{
        record::{MessageParts, MessageView},
        sys_flag::TransactionBits,
    },
    time::Timestamp,
};
use mezzo_storage::{Batch, EncodeError, OperationResult, Refusal, StorageError, StoredMessage, Visibility};

use super::{
    Services,
    append::AppendError,
    topic::{TopicError, TopicToCreate},
};
use crate::core::redelivery::{self, Delivered, Redelivery};

/// RocketMQ's permission bits of a topic that may be read and written.
const PERMISSION_READ_WRITE: u32 = 6;

/// What a consumer sends back.
#[derive(Debug, Clone)]
pub(crate) struct SendBack {
    /// The message's position, a raw number from the network.
    pub(crate) position: PhysicalOffset,
    /// The consumer group.
    pub(crate) group: GroupName,
    /// 0: the ladder decides; above: this level; below: dead letter at once.
    pub(crate) delay_level: i32,
    /// The consumer's own limit of attempts.
    pub(crate) attempts_max: Option<i32>,
}

/// Why a message was not taken back. The consumer keeps it and tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendBackError {
    /// No such group.
    #[error("subscription group not exist, {0}")]
    GroupNotExist(GroupName),
    /// There is no visible message at the position.
    #[error("look message by offset failed, {position}: {source}")]
    NotFound {
        /// The position asked for.
        position: PhysicalOffset,
        /// Why not.
        source: StorageError,
    },
    /// The stored message cannot be read.
    #[error(transparent)]
    Stored(#[from] DecodeError),
    /// The copy breaks a bound: its properties have grown too long.
    #[error("the message cannot be stored again: {0}")]
    TooLong(#[from] MessageError),
    /// The copy was not accepted by the log.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The retry or dead-letter topic could not be created.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The topic was deleted at the same moment.
    #[error("topic[{0}] not exist")]
    TopicGone(String),
    /// The log did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log refused this message.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping,
}

/// Stores a message again, as its group's retry or dead letter; returns when that is durable.
///
/// # Errors
/// [`SendBackError`]: nothing was stored, except if the append's fate is unknown.
pub(crate) async fn send_back(
    services: &Arc<Services>,
    now: Timestamp,
    request: SendBack,
) -> Result<(), SendBackError> {
    let config = services
        .store
        .group(request.group.as_str())
        .ok_or_else(|| SendBackError::GroupNotExist(request.group.clone()))?;
    let position = request.position;
    let reading = Arc::clone(services);
    let read = services
        .on_disk_thread(move || reading.store.read_by_position(position))
        .await
        .map_err(|_| SendBackError::Stopping)?;
    let stored = read.map_err(|source| SendBackError::NotFound { position, source })?.message;
    let view = MessageView::parse(&stored.bytes)?;
    let asked = redelivery::SendBack {
        group: &request.group,
        delay_level: request.delay_level,
        attempts_max: request.attempts_max,
        group_attempts_max: config.retry_max,
        retry_queues: config.retry_queues,
    };
    let id = OffsetMessageId::new(services.advertised, stored.position).encode();
    let delivered = Delivered {
        topic: view.topic(),
        reconsume_times: view.reconsume_times(),
        properties: std::str::from_utf8(view.properties()).unwrap_or_default(),
        offset_message_id: &id,
    };
    // without retries the message is done
    let Some(redelivery) = redelivery::send_back(&delivered, &asked)? else { return Ok(()) };
    if redelivery.dead {
        tracing::info!(
            group = request.group.as_str(),
            topic = delivered.topic,
            id,
            attempts = redelivery.reconsume_times,
            "a message goes to the dead-letter topic"
        );
    }
    store(services, now, &stored, &redelivery).await
}

async fn store(
    services: &Services,
    now: Timestamp,
    stored: &StoredMessage,
    redelivery: &Redelivery,
) -> Result<(), SendBackError> {
    let wanted = TopicToCreate {
        name: redelivery.topic.clone(),
        queues: redelivery.queues,
        permission: PERMISSION_READ_WRITE,
    };
    services.topics.create(now, &wanted).await?;
    let gone = || SendBackError::TopicGone(wanted.name.as_str().to_owned());
    let topic = services.store.topic(wanted.name.as_str()).ok_or_else(gone)?;
    let mut batch = Batch::default();
    {
        let view = MessageView::parse(&stored.bytes)?;
        // any of its queues, differing from message to message
        let spread =
            u32::try_from(stored.position.0 % u64::from(topic.config().write_queues.max(1))).unwrap_or(0);
        let parts = MessageParts {
            topic: topic.name().as_str(),
            queue_id: QueueId(spread),
            flag: view.flag(),
            sys_flag: view.sys_flag().with_transaction(TransactionBits::Not),
            born_timestamp: view.born_timestamp(),
            born_host: view.born_host(),
            store_host_v6: services.advertised.is_ipv6(),
            reconsume_times: redelivery.reconsume_times,
            body: view.body(),
            properties: redelivery.properties.as_bytes(),
        };
        let visibility = if redelivery.delay_ms > 0 {
            let due = now.saturating_add_ms(redelivery.delay_ms);
            services.delay.expect(due);
            Visibility::Due(due)
        } else {
            Visibility::Now
        };
        batch.send(&services.store.encoder(), &topic, parts.queue_id, visibility, &parts)?;
    }
    services.appender.append(now, &mut batch).await?;
    match batch.results().first() {
        Some(OperationResult::Refused(refusal)) => Err((*refusal).into()),
        _ => Ok(()),
    }
}
