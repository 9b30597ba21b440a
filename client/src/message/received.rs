//! A message as a broker delivered it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use mezzo_protocol::ids::{OffsetMessageId, PhysicalOffset, QueueId, QueueOffset, TopicName};
use mezzo_protocol::message::properties;
use mezzo_protocol::message::record::MessageView;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::time::Timestamp;

use super::compression::{InflateError, inflate};

/// Why a delivered message cannot be handed to the application.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnreadableMessage {
    /// The body was damaged or is not encoded as announced.
    #[error("{0}")]
    Record(#[from] mezzo_protocol::error::DecodeError),
    /// The body cannot be inflated.
    #[error("{0}")]
    Body(#[from] InflateError),
}

/// A delivered message with everything the broker said about it. Body and properties are shared, so cloning is cheap;
/// keeping one message keeps at most a few small ones that came with it in memory.
///
/// ```
/// use mezzo_client::{ReceivedMessage, Verdict};
///
/// async fn handle(message: ReceivedMessage) -> Verdict {
///     let order = message.keys().next().unwrap_or("no key");
///     println!("{order}, delivery {}: {} bytes", message.delivery_attempt(), message.body().len());
///     if message.tag() == Some("poison") { Verdict::DeadLetter } else { Verdict::Done }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct ReceivedMessage {
    topic: TopicName,
    broker_name: Arc<str>,
    queue_id: QueueId,
    queue_offset: QueueOffset,
    physical_offset: PhysicalOffset,
    prepared_transaction_offset: PhysicalOffset,
    born_timestamp: Timestamp,
    store_timestamp: Timestamp,
    born_host: SocketAddr,
    store_host: SocketAddr,
    delivery_attempt: u32,
    flag: i32,
    sys_flag: SysFlag,
    properties: Bytes,
    body: Bytes,
}

impl ReceivedMessage {
    /// Reads the record at the start of `record`, which lies inside a received frame. Checks the body's checksum and
    /// inflates the body to at most `inflated_bytes_max` bytes. `topic` is what the application subscribed to; a message
    /// from a retry topic gets the topic of its first attempt.
    pub(crate) fn from_record(
        record: &Bytes,
        view: &MessageView<'_>,
        topic: &TopicName,
        broker_name: &Arc<str>,
        inflated_bytes_max: usize,
    ) -> Result<Self, UnreadableMessage> {
        view.verify_body_crc()?;
        let body = inflate(record.slice_ref(view.body()), view.sys_flag(), inflated_bytes_max)?;
        let properties = record.slice_ref(view.properties());
        let topic = match properties::find(view.properties(), properties::RETRY_TOPIC) {
            Some(first) if first != topic.as_str() => TopicName::new(first)?,
            _ => topic.clone(),
        };
        Ok(Self {
            topic,
            broker_name: Arc::clone(broker_name),
            queue_id: view.queue_id(),
            queue_offset: view.queue_offset(),
            physical_offset: view.physical_offset(),
            prepared_transaction_offset: view.prepared_transaction_offset(),
            born_timestamp: view.born_timestamp(),
            store_timestamp: view.store_timestamp(),
            born_host: view.born_host(),
            store_host: view.store_host(),
            delivery_attempt: u32::try_from(view.reconsume_times()).unwrap_or(0).saturating_add(1),
            flag: view.flag(),
            sys_flag: view.sys_flag(),
            properties,
            body,
        })
    }

    /// This message as delivered so many times more without the broker's help.
    pub(crate) const fn delivered_again(mut self, times: u32) -> Self {
        self.delivery_attempt = self.delivery_attempt.saturating_add(times);
        self
    }

    /// The topic, also on a redelivery (which comes through the group's retry topic).
    #[must_use]
    pub const fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The body, inflated.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.property(properties::TAGS)
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        properties::keys(&self.properties)
    }

    /// The value of a property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        properties::find(&self.properties, name)
    }

    /// All properties, the client's and the broker's own among them.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        properties::iter(&self.properties)
    }

    /// What orders this message.
    #[must_use]
    pub fn sharding_key(&self) -> Option<&str> {
        self.property(properties::SHARDING_KEY)
    }

    /// The id that the producer gave the message: equal for all deliveries of one send, so the right thing to
    /// de-duplicate by.
    #[must_use]
    pub fn unique_key(&self) -> Option<&str> {
        self.property(properties::UNIQUE_KEY)
    }

    /// The unique key, or the broker's id for messages of producers that give none.
    #[must_use]
    pub fn message_id(&self) -> String {
        self.unique_key().map_or_else(|| self.offset_message_id().encode(), str::to_owned)
    }

    /// The id that the broker gave the message: where it is stored.
    #[must_use]
    pub const fn offset_message_id(&self) -> OffsetMessageId {
        OffsetMessageId::new(self.store_host, self.physical_offset)
    }

    /// 1 on the first delivery, one more on each redelivery.
    #[must_use]
    pub const fn delivery_attempt(&self) -> u32 {
        self.delivery_attempt
    }

    /// The broker that delivered it.
    #[must_use]
    pub const fn broker_name(&self) -> &Arc<str> {
        &self.broker_name
    }

    /// The queue it was delivered from.
    #[must_use]
    pub const fn queue_id(&self) -> QueueId {
        self.queue_id
    }

    /// Its position in that queue.
    #[must_use]
    pub const fn queue_offset(&self) -> QueueOffset {
        self.queue_offset
    }

    /// Its position in the broker's log.
    #[must_use]
    pub const fn physical_offset(&self) -> PhysicalOffset {
        self.physical_offset
    }

    /// For a message of a transaction: where its half message was stored; else 0.
    #[must_use]
    pub const fn prepared_transaction_offset(&self) -> PhysicalOffset {
        self.prepared_transaction_offset
    }

    /// When the producer made it, by the producer's clock.
    #[must_use]
    pub const fn born_timestamp(&self) -> Timestamp {
        self.born_timestamp
    }

    /// When it became visible, by the broker's clock.
    #[must_use]
    pub const fn store_timestamp(&self) -> Timestamp {
        self.store_timestamp
    }

    /// The producer's address.
    #[must_use]
    pub const fn born_host(&self) -> SocketAddr {
        self.born_host
    }

    /// The broker's address.
    #[must_use]
    pub const fn store_host(&self) -> SocketAddr {
        self.store_host
    }

    /// The application's flag.
    #[must_use]
    pub const fn flag(&self) -> i32 {
        self.flag
    }

    /// The protocol's flags.
    #[must_use]
    pub const fn sys_flag(&self) -> SysFlag {
        self.sys_flag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mezzo_protocol::message::record::{MessageParts, encode};

    fn record(properties: &str, body: &[u8], sys_flag: SysFlag, reconsume_times: i32) -> Bytes {
        let mut out = Vec::new();
        let parts = MessageParts {
            topic: "%RETRY%g",
            queue_id: QueueId(3),
            flag: 7,
            sys_flag,
            born_timestamp: Timestamp::from_ms(5),
            born_host: "10.0.0.1:99".parse().unwrap(),
            store_host_v6: false,
            reconsume_times,
            body,
            properties: properties.as_bytes(),
        };
        encode(&parts, &mut out).unwrap();
        out.into()
    }

    fn read(record: &Bytes) -> Result<ReceivedMessage, UnreadableMessage> {
        let view = MessageView::parse(record).unwrap();
        ReceivedMessage::from_record(
            record,
            &view,
            &TopicName::new("%RETRY%g").unwrap(),
            &"b".into(),
            1 << 20,
        )
    }

    #[test]
    fn a_redelivery_shows_the_topic_of_the_first_attempt() {
        let message =
            read(&record("RETRY_TOPIC\u{1}orders\u{2}UNIQ_KEY\u{1}K\u{2}", b"x", SysFlag::NONE, 2)).unwrap();
        assert_eq!(message.topic().as_str(), "orders");
        assert_eq!(message.delivery_attempt(), 3);
        assert_eq!(message.message_id(), "K");
        assert_eq!((message.queue_id(), message.flag()), (QueueId(3), 7));
    }

    #[test]
    fn compressed_bodies_arrive_inflated() {
        let body = b"much the same ".repeat(100);
        let how = crate::config::BodyCompression::Zstd;
        let (small, flag) = super::super::compress(&body, how, 5).unwrap();
        assert_eq!(read(&record("", &small, flag, 0)).unwrap().body(), &body);
    }

    #[test]
    fn a_damaged_body_is_noticed() {
        let mut bytes = record("", b"twelve bytes", SysFlag::NONE, 0).to_vec();
        let at = bytes.windows(6).position(|window| window == b"twelve").unwrap();
        bytes[at] ^= 1;
        assert!(matches!(read(&bytes.into()), Err(UnreadableMessage::Record(_))));
    }
}
