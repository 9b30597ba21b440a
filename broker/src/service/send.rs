//! Sends: what is checked before a message enters the log, which queue it goes to, and when it becomes visible.
//! Everything that could fail is checked here, at the send, so that a later commit can fail for one reason only:
//! already decided.

use std::{borrow::Cow, net::SocketAddr, ops::Range, sync::Arc};

use mezzo_protocol::{
    DecodeError, EncodeError as MessageError,
    ids::{QueueId, TopicName},
    limits::BODY_BYTES_MAX,
    message::{
        batch,
        properties::{self, PropertiesWriter},
        record::{self, MessageParts},
        sys_flag::{SysFlag, TransactionBits},
    },
    system_topic,
    time::Timestamp,
};
use mezzo_storage::{Batch, DedupRule, EncodeError, Topic, Visibility};

use self::{
    marks::{Marks, stored_properties},
    repeats::{Repeats, group_to_store},
    target::{any_queue, dead_letter, writable_topic},
};
use super::{Services, dedup::Candidate, topic::TopicToCreate};
use crate::core::redelivery;

mod marks;
mod repeats;
mod target;

pub(crate) use repeats::{Keys, Sender, takes_repeats};

/// Bytes that the messages of one batch take when they are stored one by one, at most; the memory of one request.
const BATCH_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;

/// One send, free of its wire form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Send<'a> {
    /// The sender's group, empty if it named none.
    pub(crate) producer_group: &'a str,
    /// Where to.
    pub(crate) topic: &'a str,
    /// The topic whose settings a new topic takes.
    pub(crate) default_topic: &'a str,
    /// Queues that a new topic is wished to have.
    pub(crate) default_queues: i32,
    /// The queue, or below 0 for any.
    pub(crate) queue: i32,
    /// As the client sent it.
    pub(crate) sys_flag: SysFlag,
    /// The application's flag.
    pub(crate) flag: i32,
    /// When the client made the message.
    pub(crate) born_at: Timestamp,
    /// Where the client is.
    pub(crate) born_host: SocketAddr,
    /// Encoded properties; of a batch those that its messages share.
    pub(crate) properties: &'a str,
    /// Deliveries that failed, on a message that its consumer sends to its retry topic.
    pub(crate) reconsume_times: i32,
    /// The consumer's own limit of attempts.
    pub(crate) reconsume_max: Option<i32>,
    /// True if the body holds several messages.
    pub(crate) batch: bool,
    /// The message's body, or the batch.
    pub(crate) body: &'a [u8],
    /// Who sends, for topics that tell repeats.
    pub(crate) sender: Sender<'a>,
}

/// A send that stands in the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Its operations: one per message.
    pub(crate) operations: Range<usize>,
    /// The queue it goes to.
    pub(crate) queue: QueueId,
    /// The message's unique key, where it has one.
    pub(crate) unique_key: Option<String>,
    /// What its messages are told by, on topics that tell repeats.
    pub(crate) keys: Option<Box<Keys>>,
}

/// Why a send is not accepted. Nothing was put into the batch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The topic does not exist and may be created: create it and come again.
    #[error("topic {} has to be created first", .0.name)]
    CreateTopic(TopicToCreate),
    /// Equal messages were sent before: settle whether this is a repeat and, if it is not, come again.
    #[error("a message like this one was sent at the same moment, again and again; try again")]
    MayRepeat(Box<Candidate>),
    /// The topic does not exist and may not be created by a send.
    #[error("topic[{0}] not exist, apply first please!")]
    TopicNotExist(String),
    /// The topic's name breaks the rules.
    #[error("the specified topic is invalid: {0}")]
    TopicName(DecodeError),
    /// The topic belongs to the system.
    #[error("Sending message to topic[{0}] is forbidden.")]
    SystemTopic(String),
    /// The topic may not be written to.
    #[error("the topic[{0}] sending message is forbidden")]
    NotWritable(String),
    /// The topic has no such queue.
    #[error("request queueId[{queue}] is illegal, topic[{topic}] has {count} queues")]
    NoSuchQueue {
        /// The queue asked for.
        queue: i32,
        /// The topic.
        topic: String,
        /// Queues it has.
        count: u32,
    },
    /// A retry of a group that is not known.
    #[error("subscription group not exist, {0}")]
    GroupNotExist(String),
    /// The body is longer than `limits.message_size`.
    #[error(
        "the message is illegal: its body has {got} bytes, at most {max} are allowed (limits.message_size)"
    )]
    BodyTooLarge {
        /// Its bytes.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// The messages of a batch, stored one by one, would be larger than one request may make them.
    #[error(
        "the batch is illegal: its messages take {got} bytes stored one by one, at most {max} are allowed"
    )]
    BatchTooLarge {
        /// Their bytes.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// Not a message this broker stores.
    #[error("the message is illegal: {0}")]
    Illegal(Cow<'static, str>),
    /// The encoded message breaks a bound.
    #[error("the message is illegal: {0}")]
    Message(#[from] MessageError),
    /// The batch's body cannot be read.
    #[error("the batch is illegal: {0}")]
    Batch(DecodeError),
}

impl From<EncodeError> for SendError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Message(error) => Self::Message(error),
            other => Self::Illegal(other.to_string().into()),
        }
    }
}

/// Checks a send and puts its messages into `batch`.
///
/// # Errors
/// [`SendError`]; `batch` is unchanged then.
pub(crate) fn send(
    services: &Services,
    now: Timestamp,
    batch: &mut Batch,
    send: &Send<'_>,
) -> Result<Sent, SendError> {
    let topic = writable_topic(services, send.topic, send.default_topic, send.default_queues)?;
    let config = topic.config();
    let count = config.queue_count();
    let queue = match u32::try_from(send.queue) {
        Err(_) => any_queue(config.write_queues),
        Ok(queue) if queue < count => QueueId(queue),
        Ok(_) => {
            return Err(SendError::NoSuchQueue { queue: send.queue, topic: send.topic.to_owned(), count });
        }
    };
    if send.sys_flag.has(SysFlag::INNER_BATCH) || send.sys_flag.has(SysFlag::NEED_UNWRAP) {
        return Err(SendError::Illegal(
            "several messages stored as one (INNER_BATCH, NEED_UNWRAP) are not supported".into(),
        ));
    }
    let max = usize::try_from(services.config.limits.message_size.as_u64()).unwrap_or(usize::MAX);
    if send.body.len() > max {
        return Err(SendError::BodyTooLarge { got: send.body.len(), max });
    }
    let rule = repeats::rule(&config, send.topic);
    if send.batch {
        return send_batch(services, batch, send, &topic, queue, rule);
    }
    if system_topic::is_retry(send.topic)
        && let Some(dead) = dead_letter(services, now, send)?
    {
        let config = dead.config();
        let kept = redelivery::dead_properties(send.properties);
        let parts = parts(services, send, dead.name(), any_queue(config.write_queues), &kept);
        let at = batch.send(&services.store.encoder(), &dead, parts.queue_id, Visibility::Now, &parts)?;
        let unique_key = properties::find(&kept, properties::UNIQUE_KEY).map(str::to_owned);
        return Ok(Sent { operations: at..at + 1, queue: parts.queue_id, unique_key, keys: None });
    }
    send_one(services, now, batch, send, &topic, (queue, rule))
}

fn send_one(
    services: &Services,
    now: Timestamp,
    batch: &mut Batch,
    send: &Send<'_>,
    topic: &Arc<Topic>,
    (queue, rule): (QueueId, DedupRule),
) -> Result<Sent, SendError> {
    let marks = Marks::of(send.properties);
    if marks.reply_to.is_some() {
        return Err(SendError::Illegal(
            "it asks for a reply (property REPLY_TO_CLIENT), and request-reply is not served".into(),
        ));
    }
    let delay_ms = marks.delay(now)?;
    // an old consumer's own retry of a message that once was a half message
    let half = marks.half && !(send.reconsume_times > 0 && delay_ms.is_some());
    let kept = stored_properties(services, now, send, &marks, half, group_to_store(rule, send))?;
    let unique_key = match &kept {
        Cow::Borrowed(_) => marks.unique_key,
        Cow::Owned(kept) => properties::find(kept, properties::UNIQUE_KEY),
    };
    let mut repeats = Repeats::begin(rule, services, send.topic, send.sender);
    if let Some(repeats) = &mut repeats {
        repeats.message(half, &kept, send.body)?;
        repeats.look(unique_key)?;
    }
    let visibility = match (half, delay_ms) {
        (true, delay_ms) => {
            services.transactions.expect(now, marks.immunity_ms());
            Visibility::Prepared { delay_ms }
        }
        (false, Some(delay_ms)) => {
            let due = now.saturating_add_ms(delay_ms);
            services.delay.expect(due);
            Visibility::Due(due)
        }
        (false, None) => Visibility::Now,
    };
    let parts = parts(services, send, topic.name(), queue, &kept);
    let at = batch.send(&services.store.encoder(), topic, queue, visibility, &parts)?;
    let keys = repeats.map(|repeats| Box::new(repeats.guard(batch, at)));
    Ok(Sent { operations: at..at + 1, queue, unique_key: unique_key.map(str::to_owned), keys })
}

/// The messages of a batch, each as a record of its own. What the batch says for all of them is added to each, except
/// what a message says itself and the batch's own unique key.
fn send_batch(
    services: &Services,
    batch: &mut Batch,
    send: &Send<'_>,
    topic: &Arc<Topic>,
    queue: QueueId,
    rule: DedupRule,
) -> Result<Sent, SendError> {
    if system_topic::is_retry(send.topic) {
        return Err(SendError::Illegal(
            format!("batch request does not support retry group {}", send.topic).into(),
        ));
    }
    not_alone(&Marks::of(send.properties))?;
    let mut shared: Vec<(&str, &str)> =
        properties::iter(send.properties).filter(|(name, _)| *name != properties::UNIQUE_KEY).collect();
    if let Some(group) = group_to_store(rule, send)
        && shared.iter().all(|(name, _)| *name != properties::PRODUCER_GROUP)
    {
        shared.push((properties::PRODUCER_GROUP, group));
    }
    let mut repeats = Repeats::begin(rule, services, send.topic, send.sender);
    let max = BATCH_BYTES_MAX;
    let mut stored_bytes: usize = 0;
    let mut messages = Vec::new();
    // read all before the first is stored: a batch is refused as a whole
    for message in batch::decode(send.body) {
        let message = message.map_err(SendError::Batch)?;
        let own = std::str::from_utf8(message.properties)
            .map_err(|_| SendError::Illegal("properties are not UTF-8".into()))?;
        not_alone(&Marks::of(own))?;
        let kept = shared_properties(own, &shared)?;
        if let Some(repeats) = &mut repeats {
            repeats.message(false, &kept, message.body)?;
        }
        let parts = parts(services, send, topic.name(), queue, &kept);
        stored_bytes += record::encoded_len(&MessageParts { body: message.body, ..parts });
        // a long topic name or long shared properties, written for each of many messages
        if stored_bytes > max {
            return Err(SendError::BatchTooLarge { got: stored_bytes, max });
        }
        messages.push((message.flag, message.body, kept));
    }
    if messages.is_empty() {
        return Err(SendError::Illegal("the batch is empty".into()));
    }
    let unique_key = properties::find(send.properties, properties::UNIQUE_KEY);
    if let Some(repeats) = &repeats {
        repeats.look(unique_key)?;
    }
    let start = batch.len();
    for (flag, body, kept) in &messages {
        let parts = MessageParts { flag: *flag, body, ..parts(services, send, topic.name(), queue, kept) };
        batch.send(&services.store.encoder(), topic, queue, Visibility::Now, &parts)?;
    }
    batch.keep_together(start..batch.len());
    let keys = repeats.map(|repeats| Box::new(repeats.guard(batch, start)));
    let unique_key = unique_key.map(str::to_owned);
    Ok(Sent { operations: start..batch.len(), queue, unique_key, keys })
}

/// Refuses what only a message alone can be.
fn not_alone(marks: &Marks<'_>) -> Result<(), SendError> {
    if marks.half || marks.is_delayed() {
        return Err(SendError::Illegal(
            "messages of a batch can be neither transactional nor delayed".into(),
        ));
    }
    Ok(())
}

fn shared_properties<'a>(own: &'a str, shared: &[(&str, &str)]) -> Result<Cow<'a, str>, SendError> {
    let mut missing = shared.iter().filter(|(name, _)| properties::find(own, name).is_none()).peekable();
    if missing.peek().is_none() {
        return Ok(Cow::Borrowed(own));
    }
    let mut writer = PropertiesWriter::from_encoded(own, &[]);
    for (name, value) in missing {
        writer.put(name, value)?;
    }
    Ok(Cow::Owned(writer.finish()))
}

fn parts<'a>(
    services: &Services,
    send: &'a Send<'_>,
    topic: &'a TopicName,
    queue: QueueId,
    kept: &'a str,
) -> MessageParts<'a> {
    MessageParts {
        topic: topic.as_str(),
        queue_id: queue,
        flag: send.flag,
        // a message's place in its transaction is the log's to say
        sys_flag: send.sys_flag.with_transaction(TransactionBits::Not),
        born_timestamp: send.born_at,
        born_host: send.born_host,
        store_host_v6: services.advertised.is_ipv6(),
        reconsume_times: send.reconsume_times,
        body: send.body,
        properties: kept.as_bytes(),
    }
}
