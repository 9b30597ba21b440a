//! A message to send. It is checked when it is built, so that sending can fail only for reasons outside the program.

use std::time::Duration;

use bytes::Bytes;
use mezzo_protocol::delay_level;
use mezzo_protocol::error::{DecodeError, EncodeError};
use mezzo_protocol::ids::{MessageQueue, TopicName};
use mezzo_protocol::limits::BODY_BYTES_MAX;
use mezzo_protocol::message::properties::{self, PropertiesWriter};
use mezzo_protocol::system_topic;
use mezzo_protocol::time::Timestamp;

/// Names the database in which a half message's local transaction is fenced. An application that copied it from a
/// received message to another would have that one rolled back.
pub(crate) const FENCE_PROPERTY: &str = "MEZZO_FENCE";

/// Property names that the client sets by itself; an application that sets one would change the message's meaning.
const RESERVED: [&str; 31] = [
    FENCE_PROPERTY,
    properties::KEYS,
    properties::TAGS,
    properties::WAIT,
    properties::DELAY,
    properties::RETRY_TOPIC,
    properties::REAL_TOPIC,
    properties::REAL_QUEUE_ID,
    properties::TRANSACTION_PREPARED,
    properties::PRODUCER_GROUP,
    properties::UNIQUE_KEY,
    properties::SHARDING_KEY,
    properties::ORIGIN_MESSAGE_ID,
    properties::TRANSACTION_CHECK_TIMES,
    properties::TIMER_DELAY_SEC,
    properties::TIMER_DELAY_MS,
    properties::TIMER_DELIVER_MS,
    properties::RECONSUME_TIME,
    properties::MAX_RECONSUME_TIMES,
    properties::CONSUME_START_TIME,
    properties::TRANSACTION_PREPARED_QUEUE_OFFSET,
    properties::TRANSACTION_ID,
    properties::MEZZO_TRANSACTION,
    properties::MEZZO_DEDUP_ID,
    properties::MEZZO_TRANSACTION_SEQUENCE,
    properties::MEZZO_TRANSACTION_CONSUMER,
    properties::POP_CK,
    properties::DLQ_ORIGIN_TOPIC,
    properties::DLQ_ORIGIN_MESSAGE_ID,
    properties::INNER_MULTI_QUEUE_OFFSET,
    properties::CRC32,
];

/// More than the properties take that the client adds to each message, apart from unique key and group.
const OWN_PROPERTIES_BYTES: usize = 48;

/// Longest id of [`MessageBuilder::dedup_id`], in bytes.
const DEDUP_ID_BYTES_MAX: usize = 128;

/// When a message is delivered, if not at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// So many milliseconds after the broker has it.
    After(u64),
    /// At this time.
    At(Timestamp),
}

/// Why a message cannot be built.
///
/// ```
/// use mezzo_client::{Message, MessageError};
///
/// let error = Message::builder("orders").property("TAGS", "paid").build().unwrap_err();
/// assert_eq!(error, MessageError::ReservedProperty("TAGS".to_owned()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The topic's name is not allowed.
    #[error("the topic is not valid: {0}")]
    Topic(#[source] DecodeError),
    /// The topic belongs to the broker.
    #[error("messages cannot be sent to the system topic {0}")]
    SystemTopic(TopicName),
    /// The body is larger than any broker takes.
    #[error("the body has {got} bytes, at most {max} are allowed")]
    BodyTooLarge {
        /// Its size in bytes.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// A property is empty, holds a separator, or all of them are too long.
    #[error("a property is not valid: {0}")]
    Property(#[source] EncodeError),
    /// The property has a meaning of its own and a builder method.
    #[error("the property {0} is reserved; use the builder's method for it")]
    ReservedProperty(String),
    /// A key holds a space, which separates keys.
    #[error("the key {0:?} is empty or holds a space")]
    Key(String),
    /// The queue to send to is one of another topic.
    #[error("{0} is not a queue of the message's topic")]
    ForeignQueue(MessageQueue),
    /// The messages cannot travel as one batch.
    #[error("not a batch: {0}")]
    Batch(BatchFault),
    /// The id of [`MessageBuilder::dedup_id`] is empty, longer than 128 bytes, or not visible ASCII.
    #[error("the id {0:?} is not 1 to 128 bytes of visible ASCII")]
    DedupId(String),
    /// The delay level does not exist.
    #[error("delay level {0} does not exist; levels are 1 to {max}", max = delay_level::LEVEL_MAX)]
    DelayLevel(u32),
}

/// Why messages cannot travel as one batch.
///
/// ```no_run
/// # async fn example(producer: mezzo_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
/// use mezzo_client::{BatchFault, Message, MessageError, SendError};
///
/// let several = [Message::new("orders", "1")?, Message::new("payments", "2")?];
/// let error = producer.send_batch(several).await.unwrap_err();
/// assert_eq!(error, SendError::Message(MessageError::Batch(BatchFault::SeveralTopics)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchFault {
    /// There is no message.
    #[error("it has no message")]
    Empty,
    /// There are more than brokers take.
    #[error("it has {got} messages, at most {max} are allowed")]
    TooMany {
        /// How many there are.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// A batch goes to one queue, so it has one topic.
    #[error("its messages have several topics")]
    SeveralTopics,
    /// A batch goes to one queue, so it has one sharding key or none.
    #[error("its messages have several sharding keys")]
    SeveralShardingKeys,
    /// Brokers take no delayed message inside a batch.
    #[error("one of its messages is delayed")]
    Delayed,
}

/// A message to send: cheap to clone, complete and valid.
///
/// ```
/// use mezzo_client::Message;
///
/// let message = Message::builder("orders").tag("paid").key("order-17").body("17 paid").build()?;
/// assert_eq!(message.topic().as_str(), "orders");
/// # Ok::<(), mezzo_client::MessageError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    topic: TopicName,
    body: Bytes,
    properties: String,
    sharding_key: Option<String>,
    delay_level: u32,
    /// Whether it has a time of delivery or a free delay.
    timed: bool,
    flag: i32,
}

impl Message {
    /// A message with nothing but a body.
    ///
    /// # Errors
    /// If the topic's name is not allowed or the body is too large.
    pub fn new(topic: impl AsRef<str>, body: impl Into<Bytes>) -> Result<Self, MessageError> {
        Self::builder(topic).body(body).build()
    }

    /// Builds a message for `topic`.
    pub fn builder(topic: impl AsRef<str>) -> MessageBuilder {
        MessageBuilder {
            topic: topic.as_ref().to_owned(),
            body: Bytes::new(),
            tag: None,
            keys: Vec::new(),
            sharding_key: None,
            dedup_id: None,
            delay_level: 0,
            due: None,
            properties: Vec::new(),
            flag: 0,
        }
    }

    /// The topic.
    #[must_use]
    pub const fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The body.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.property(properties::TAGS)
    }

    /// The value of a property; of the client's own ones too.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        properties::find(&self.properties, name)
    }

    /// All properties: the application's own, and those that stand for tag, keys, order and delay.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        properties::iter(&self.properties)
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        properties::keys(&self.properties)
    }

    /// What orders this message: all with one key go to one queue.
    #[must_use]
    pub fn sharding_key(&self) -> Option<&str> {
        self.sharding_key.as_deref()
    }

    /// The delay level, 0 for none.
    #[must_use]
    pub const fn delay_level(&self) -> u32 {
        self.delay_level
    }

    /// This message as number `sequence` of the transaction `id`.
    pub(crate) fn joining(&self, id: &str, sequence: u16) -> Result<Self, MessageError> {
        let mut writer = PropertiesWriter::from_encoded(&self.properties, &[]);
        let mut put =
            |name: &str, value: &str| writer.put(name, value).map(|_| ()).map_err(MessageError::Property);
        put(properties::MEZZO_TRANSACTION, id)?;
        put(properties::MEZZO_TRANSACTION_SEQUENCE, &sequence.to_string())?;
        Ok(Self { properties: writer.finish(), ..self.clone() })
    }

    /// This first message of a transaction as one with whose commit offsets of `group` move: whoever is asked about it
    /// answers with a rollback, so nobody is asked for `asked_after_ms`, unless the application says otherwise.
    pub(crate) fn moving_offsets(self, group: &str, asked_after_ms: u64) -> Result<Self, MessageError> {
        let mut writer = PropertiesWriter::from_encoded(&self.properties, &[]);
        writer.put(properties::MEZZO_TRANSACTION_CONSUMER, group).map_err(MessageError::Property)?;
        let own = [properties::CHECK_IMMUNITY_TIME_SECONDS, properties::MEZZO_CHECK];
        if asked_after_ms > 0 && own.iter().all(|name| properties::find(&self.properties, name).is_none()) {
            let seconds = asked_after_ms.div_ceil(1_000).to_string();
            writer.put(properties::CHECK_IMMUNITY_TIME_SECONDS, &seconds).map_err(MessageError::Property)?;
        }
        Ok(Self { properties: writer.finish(), ..self })
    }

    /// This message as one whose local transaction is fenced in the database of this identity.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(crate) fn fenced_with(self, identity: &str) -> Result<Self, MessageError> {
        let mut writer = PropertiesWriter::from_encoded(&self.properties, &[]);
        writer.put(FENCE_PROPERTY, identity).map_err(MessageError::Property)?;
        Ok(Self { properties: writer.finish(), ..self })
    }

    /// Bytes of the properties so far.
    pub(crate) const fn properties_bytes(&self) -> usize {
        self.properties.len()
    }

    /// Whether it is delivered later than at once.
    pub(crate) const fn is_delayed(&self) -> bool {
        self.delay_level > 0 || self.timed
    }

    /// Completes the properties for the wire: the unique key, and for a half message its mark and its group.
    pub(crate) fn encode(
        &self,
        unique_key: &str,
        half_of: Option<&str>,
    ) -> Result<EncodedMessage, MessageError> {
        let more_bytes = OWN_PROPERTIES_BYTES + unique_key.len() + half_of.map_or(0, str::len);
        let mut writer = PropertiesWriter::continued(&self.properties, more_bytes);
        let mut put =
            |name: &str, value: &str| writer.put(name, value).map(|_| ()).map_err(MessageError::Property);
        put(properties::UNIQUE_KEY, unique_key)?;
        put(properties::WAIT, "true")?;
        if let Some(group) = half_of {
            put(properties::TRANSACTION_PREPARED, "true")?;
            put(properties::PRODUCER_GROUP, group)?;
        }
        Ok(EncodedMessage { properties: writer.finish(), flag: self.flag })
    }
}

/// What of a message travels in the request's header.
#[derive(Debug)]
pub(crate) struct EncodedMessage {
    /// All properties in their wire form.
    pub(crate) properties: String,
    /// The application's flag.
    pub(crate) flag: i32,
}

impl EncodedMessage {
    /// What the request of a batch says for all of its messages. No unique key: Apache's brokers (4.9 to 5.3) append these
    /// properties to those of each message, and of two keys readers take the last, so all messages would show one key.
    pub(crate) fn around_batch() -> Result<Self, MessageError> {
        let mut writer = PropertiesWriter::from_encoded("", &[]);
        writer.put(properties::WAIT, "true").map_err(MessageError::Property)?;
        Ok(Self { properties: writer.finish(), flag: 0 })
    }
}

/// Builds a [`Message`]; made by [`Message::builder`].
///
/// ```
/// use std::time::Duration;
/// use mezzo_client::Message;
///
/// let message = Message::builder("invoices")
///     .tag("new")
///     .key("invoice-4711")
///     .property("source", "till 3")
///     .sharding_key("customer-17")
///     .delay(Duration::from_secs(60))
///     .body("…")
///     .build()?;
/// assert_eq!((message.tag(), message.sharding_key()), (Some("new"), Some("customer-17")));
/// assert_eq!(message.property("source"), Some("till 3"));
/// # Ok::<(), mezzo_client::MessageError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build() is called"]
pub struct MessageBuilder {
    topic: String,
    body: Bytes,
    tag: Option<String>,
    keys: Vec<String>,
    sharding_key: Option<String>,
    dedup_id: Option<String>,
    delay_level: u32,
    due: Option<Due>,
    properties: Vec<(String, String)>,
    flag: i32,
}

impl MessageBuilder {
    /// The body; empty if never called. At most 4 MiB.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The tag that subscriptions filter by.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// A key to find the message by; may be called several times. A key holds no space.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// A property of the application's own. Of two with one name the later counts.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Deliver later: level 1 (1 s) to 18 (2 h) of RocketMQ's ladder, see [`mezzo_protocol::delay_level`].
    /// For transactional messages see [`MessageBuilder::delay`].
    pub const fn delay_level(mut self, level: u32) -> Self {
        self.delay_level = level;
        self
    }

    /// Deliver so long after the broker has the message, to the millisecond; brokers bound it (Mezzo: 365 days, Apache: 3
    /// days by default). Of this and [`MessageBuilder::deliver_at`] the one called last counts; a delay level goes
    /// before both. A transactional message's delay counts from the commit; only Mezzo has that, and other brokers
    /// are sent no such message: the prepare fails.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mezzo_client::Message;
    ///
    /// let reminder = Message::builder("reminders").body("tea").delay(Duration::from_secs(240)).build()?;
    /// assert_eq!(reminder.property("TIMER_DELAY_MS"), Some("240000"));
    /// # Ok::<(), mezzo_client::MessageError>(())
    /// ```
    pub fn delay(mut self, delay: Duration) -> Self {
        self.due = Some(Due::After(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)));
        self
    }

    /// Deliver at this time by the broker's clock; at once if it has passed. Otherwise as [`MessageBuilder::delay`].
    pub const fn deliver_at(mut self, time: Timestamp) -> Self {
        self.due = Some(Due::At(time));
        self
    }

    /// Several properties of the application's own: the headers of a message.
    pub fn properties<N: Into<String>, V: Into<String>>(
        mut self,
        properties: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.properties.extend(properties.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Keep the order among messages with the same key: they go to one queue, see
    /// [`Producer::send`](crate::Producer::send).
    pub fn sharding_key(mut self, key: impl Into<String>) -> Self {
        self.sharding_key = Some(key.into());
        self
    }

    /// What the application itself calls this message, for topics with Mezzo's attribute `dedup=strict`: of all sends
    /// with the same id within the broker's `dedup.window` one is stored, and each is answered with its ids; also of
    /// sends by other processes, and after a restart of either side. 1 to 128 bytes of visible ASCII. Elsewhere it is a
    /// property like others.
    ///
    /// ```
    /// use mezzo_client::Message;
    ///
    /// let message = Message::builder("invoices").dedup_id("invoice-4711").body("…").build()?;
    /// assert_eq!(message.property("MEZZO_DEDUP_ID"), Some("invoice-4711"));
    /// # Ok::<(), mezzo_client::MessageError>(())
    /// ```
    pub fn dedup_id(mut self, id: impl Into<String>) -> Self {
        self.dedup_id = Some(id.into());
        self
    }

    /// A number of the application's own, carried unread.
    pub const fn flag(mut self, flag: i32) -> Self {
        self.flag = flag;
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// The first part that is not allowed.
    pub fn build(self) -> Result<Message, MessageError> {
        let topic = TopicName::new(&self.topic).map_err(MessageError::Topic)?;
        if system_topic::is_not_sendable(&topic) {
            return Err(MessageError::SystemTopic(topic));
        }
        if self.body.len() > BODY_BYTES_MAX {
            return Err(MessageError::BodyTooLarge { got: self.body.len(), max: BODY_BYTES_MAX });
        }
        if self.delay_level > delay_level::LEVEL_MAX {
            return Err(MessageError::DelayLevel(self.delay_level));
        }
        if let Some(key) =
            self.keys.iter().find(|key| key.is_empty() || key.contains(properties::KEY_SEPARATOR))
        {
            return Err(MessageError::Key(key.clone()));
        }
        let mut writer = PropertiesWriter::new();
        let mut put =
            |name: &str, value: &str| writer.put(name, value).map(|_| ()).map_err(MessageError::Property);
        for (name, value) in &self.properties {
            if RESERVED.contains(&name.as_str()) {
                return Err(MessageError::ReservedProperty(name.clone()));
            }
            put(name, value)?;
        }
        if let Some(tag) = &self.tag {
            put(properties::TAGS, tag)?;
        }
        if !self.keys.is_empty() {
            put(properties::KEYS, &self.keys.join(" "))?;
        }
        if let Some(key) = &self.sharding_key {
            put(properties::SHARDING_KEY, key)?;
        }
        if let Some(id) = &self.dedup_id {
            if !(1..=DEDUP_ID_BYTES_MAX).contains(&id.len())
                || !id.bytes().all(|byte| byte.is_ascii_graphic())
            {
                return Err(MessageError::DedupId(id.clone()));
            }
            put(properties::MEZZO_DEDUP_ID, id)?;
        }
        if self.delay_level > 0 {
            put(properties::DELAY, &self.delay_level.to_string())?;
        }
        match self.due {
            Some(Due::After(ms)) => put(properties::TIMER_DELAY_MS, &ms.min(i64::MAX as u64).to_string())?,
            Some(Due::At(time)) => put(properties::TIMER_DELIVER_MS, &time.as_wire_ms().to_string())?,
            None => {}
        }
        Ok(Message {
            topic,
            body: self.body,
            properties: writer.finish(),
            sharding_key: self.sharding_key,
            delay_level: self.delay_level,
            timed: self.due.is_some(),
            flag: self.flag,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_message_carries_its_mark_and_its_group() {
        let message =
            Message::builder("orders").tag("a").key("k1").key("k2").property("who", "me").build().unwrap();
        assert_eq!(message.keys().collect::<Vec<_>>(), ["k1", "k2"]);
        let encoded = message.encode("UK", Some("pay")).unwrap();
        let find = |name| properties::find(&encoded.properties, name);
        assert_eq!(find("KEYS"), Some("k1 k2"));
        assert_eq!((find("TAGS"), find("who"), find("UNIQ_KEY")), (Some("a"), Some("me"), Some("UK")));
        assert_eq!((find("TRAN_MSG"), find("PGROUP")), (Some("true"), Some("pay")));
        let plain = message.encode("UK", None).unwrap();
        assert_eq!(properties::find(&plain.properties, "TRAN_MSG"), None);
    }

    #[test]
    fn a_delay_is_said_in_milliseconds_and_a_message_of_a_transaction_keeps_it() {
        let late = || Message::builder("orders").delay(Duration::from_millis(1_500));
        let at = late().deliver_at(Timestamp::from_ms(77)).build().unwrap();
        assert_eq!((at.property("TIMER_DELIVER_MS"), at.property("TIMER_DELAY_MS")), (Some("77"), None));
        let headers = [("source", "till 3"), ("trace", "7")];
        let late = late().properties(headers).build().unwrap();
        assert_eq!((late.property("TIMER_DELAY_MS"), late.is_delayed()), (Some("1500"), true));
        let joining = late.joining("tx", 7).unwrap();
        assert_eq!((joining.property("TIMER_DELAY_MS"), joining.is_delayed()), (Some("1500"), true));
        assert_eq!((joining.property("MEZZO_TX"), joining.property("MEZZO_TX_SEQ")), (Some("tx"), Some("7")));
        assert!(headers.iter().all(|(name, value)| joining.property(name) == Some(*value)));
        let forged = Message::builder("orders").property("TIMER_DELIVER_MS", "1").build();
        assert!(matches!(forged, Err(MessageError::ReservedProperty(_))));
    }

    #[test]
    fn each_invalid_part_is_named() {
        let builder = || Message::builder("orders");
        assert!(matches!(Message::new("no spaces", ""), Err(MessageError::Topic(_))));
        assert!(matches!(Message::new("RMQ_SYS_TRANS_HALF_TOPIC", ""), Err(MessageError::SystemTopic(_))));
        assert!(matches!(builder().key("a b").build(), Err(MessageError::Key(_))));
        assert!(matches!(
            builder().property("TRAN_MSG", "true").build(),
            Err(MessageError::ReservedProperty(_))
        ));
        assert!(matches!(
            builder().property(FENCE_PROPERTY, "x").build(),
            Err(MessageError::ReservedProperty(_))
        ));
        assert!(matches!(
            builder().property("MEZZO_DEDUP_ID", "x").build(),
            Err(MessageError::ReservedProperty(_))
        ));
        for id in [String::new(), "a b".to_owned(), "x".repeat(129)] {
            assert!(matches!(builder().dedup_id(id).build(), Err(MessageError::DedupId(_))));
        }
        assert!(matches!(builder().property("a", "\u{1}").build(), Err(MessageError::Property(_))));
        assert!(matches!(builder().delay_level(19).build(), Err(MessageError::DelayLevel(19))));
        let large = vec![0_u8; BODY_BYTES_MAX + 1];
        assert!(matches!(builder().body(large).build(), Err(MessageError::BodyTooLarge { .. })));
    }
}
