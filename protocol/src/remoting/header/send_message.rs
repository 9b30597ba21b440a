//! SEND_MESSAGE (10), SEND_MESSAGE_V2 (310) and SEND_BATCH_MESSAGE (320): one message, or a batch in the body.
//!
//! The second form has the same fields under one-letter names. Both are read by one pass over the fields; no name of one
//! form is a name of the other. Written is the second form, as all clients do by default.

use std::borrow::Cow;

use super::ext_fields::{ExtField, ExtFields};
use super::wire_field::{WireField, wire_header};
use crate::error::DecodeError;
use crate::ids::QueueId;
use crate::message::sys_flag::SysFlag;
use crate::remoting::command::ExtPairs;
use crate::system_topic::AUTO_CREATE_TOPIC;
use crate::time::Timestamp;

/// Queues of a topic that a send creates, unless the request says otherwise.
const DEFAULT_TOPIC_QUEUES: i32 = 4;

/// What a send says about its message. Topic, group and queue must be there; the rest has defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendMessageHeader<'a> {
    /// The producer group; for half messages, whom to ask.
    pub producer_group: Cow<'a, str>,
    /// The topic.
    pub topic: Cow<'a, str>,
    /// Whose settings a topic gets that this send creates: `TBW102`.
    pub default_topic: Cow<'a, str>,
    /// How many queues it gets.
    pub default_topic_queues: i32,
    /// The queue; below 0 the broker chooses.
    pub queue_id: i32,
    /// The system flag.
    pub sys_flag: SysFlag,
    /// When the message was made.
    pub born_timestamp: Timestamp,
    /// The application's flag.
    pub flag: i32,
    /// Encoded properties.
    pub properties: Cow<'a, str>,
    /// How often the message was consumed before, on messages that a consumer sends back itself.
    pub reconsume_times: i32,
    /// Legacy: the sender belongs to a unit.
    pub unit_mode: bool,
    /// After how many attempts a message that a consumer sends back itself goes to the dead-letter topic.
    pub max_reconsume_times: Option<i32>,
    /// Whether the body is a batch.
    pub batch: bool,
    /// The broker that the client means.
    pub broker_name: Option<Cow<'a, str>>,
}

/// The fields by what they mean, whichever form named them.
enum Slot {
    ProducerGroup,
    Topic,
    DefaultTopic,
    DefaultTopicQueues,
    QueueId,
    SysFlag,
    BornTimestamp,
    Flag,
    Properties,
    ReconsumeTimes,
    UnitMode,
    MaxReconsumeTimes,
    Batch,
    BrokerName,
}

/// What a name means, and the name for errors.
fn slot(key: &str) -> Option<(Slot, &'static str)> {
    if let [letter] = key.as_bytes() {
        return Some(match letter {
            b'a' => (Slot::ProducerGroup, "a (producerGroup)"),
            b'b' => (Slot::Topic, "b (topic)"),
            b'c' => (Slot::DefaultTopic, "c (defaultTopic)"),
            b'd' => (Slot::DefaultTopicQueues, "d (defaultTopicQueueNums)"),
            b'e' => (Slot::QueueId, "e (queueId)"),
            b'f' => (Slot::SysFlag, "f (sysFlag)"),
            b'g' => (Slot::BornTimestamp, "g (bornTimestamp)"),
            b'h' => (Slot::Flag, "h (flag)"),
            b'i' => (Slot::Properties, "i (properties)"),
            b'j' => (Slot::ReconsumeTimes, "j (reconsumeTimes)"),
            b'k' => (Slot::UnitMode, "k (unitMode)"),
            b'l' => (Slot::MaxReconsumeTimes, "l (maxReconsumeTimes)"),
            b'm' => (Slot::Batch, "m (batch)"),
            b'n' => (Slot::BrokerName, "n (brokerName)"),
            _ => return None,
        });
    }
    Some(match key {
        "producerGroup" => (Slot::ProducerGroup, "producerGroup"),
        "topic" => (Slot::Topic, "topic"),
        "defaultTopic" => (Slot::DefaultTopic, "defaultTopic"),
        "defaultTopicQueueNums" => (Slot::DefaultTopicQueues, "defaultTopicQueueNums"),
        "queueId" => (Slot::QueueId, "queueId"),
        "sysFlag" => (Slot::SysFlag, "sysFlag"),
        "bornTimestamp" => (Slot::BornTimestamp, "bornTimestamp"),
        "flag" => (Slot::Flag, "flag"),
        "properties" => (Slot::Properties, "properties"),
        "reconsumeTimes" => (Slot::ReconsumeTimes, "reconsumeTimes"),
        "unitMode" => (Slot::UnitMode, "unitMode"),
        "maxReconsumeTimes" => (Slot::MaxReconsumeTimes, "maxReconsumeTimes"),
        "batch" => (Slot::Batch, "batch"),
        "bname" => (Slot::BrokerName, "bname"),
        _ => return None,
    })
}

impl<'a> SendMessageHeader<'a> {
    /// A plain message without properties, for the sender to fill in.
    #[must_use]
    pub const fn new(producer_group: Cow<'a, str>, topic: Cow<'a, str>, queue_id: i32) -> Self {
        Self {
            producer_group,
            topic,
            default_topic: Cow::Borrowed(AUTO_CREATE_TOPIC),
            default_topic_queues: DEFAULT_TOPIC_QUEUES,
            queue_id,
            sys_flag: SysFlag::NONE,
            born_timestamp: Timestamp::ZERO,
            flag: 0,
            properties: Cow::Borrowed(""),
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: None,
        }
    }

    /// Reads either form in one pass over the fields; of several with one name the last counts.
    ///
    /// # Errors
    /// If topic, group or queue are missing, or a field has a value outside its domain.
    pub fn decode(ext: &ExtFields<'a>) -> Result<Self, DecodeError> {
        let mut header = Self::new(Cow::Borrowed(""), Cow::Borrowed(""), 0);
        let mut queue_id = None;
        for field in ext.fields() {
            header.set(&field, &mut queue_id)?;
        }
        if header.topic.is_empty() {
            return Err(DecodeError::MissingField("topic"));
        }
        if header.producer_group.is_empty() {
            return Err(DecodeError::MissingField("producerGroup"));
        }
        header.queue_id = queue_id.ok_or(DecodeError::MissingField("queueId"))?;
        Ok(header)
    }

    fn set(&mut self, field: &ExtField<'a>, queue_id: &mut Option<i32>) -> Result<(), DecodeError> {
        let Some((slot, name)) = slot(&field.key()) else { return Ok(()) };
        let value = field.value();
        if value.is_empty() {
            return Ok(());
        }
        match slot {
            Slot::ProducerGroup => self.producer_group = value,
            Slot::Topic => self.topic = value,
            Slot::DefaultTopic => self.default_topic = value,
            Slot::DefaultTopicQueues => self.default_topic_queues = WireField::read(name, value)?,
            Slot::QueueId => *queue_id = Some(WireField::read(name, value)?),
            Slot::SysFlag => self.sys_flag = WireField::read(name, value)?,
            Slot::BornTimestamp => self.born_timestamp = WireField::read(name, value)?,
            Slot::Flag => self.flag = WireField::read(name, value)?,
            Slot::Properties => self.properties = value,
            Slot::ReconsumeTimes => self.reconsume_times = WireField::read(name, value)?,
            Slot::UnitMode => self.unit_mode = WireField::read(name, value)?,
            Slot::MaxReconsumeTimes => self.max_reconsume_times = Some(WireField::read(name, value)?),
            Slot::Batch => self.batch = WireField::read(name, value)?,
            Slot::BrokerName => self.broker_name = Some(value),
        }
        Ok(())
    }

    /// The fields of the second form (310 and 320).
    #[must_use]
    pub fn encode(&self) -> ExtPairs {
        let fields = [
            ("a", self.producer_group.write()),
            ("b", self.topic.write()),
            ("c", self.default_topic.write()),
            ("d", self.default_topic_queues.write()),
            ("e", self.queue_id.write()),
            ("f", self.sys_flag.write()),
            ("g", self.born_timestamp.write()),
            ("h", self.flag.write()),
            ("i", self.properties.write()),
            ("j", self.reconsume_times.write()),
            ("k", self.unit_mode.write()),
            ("l", self.max_reconsume_times.write()),
            ("m", self.batch.write()),
            ("n", self.broker_name.write()),
        ];
        fields
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (Cow::Borrowed(name), value)))
            .collect()
    }
}

wire_header! {
    /// What a producer learns about a message that was accepted; the broker writes it with
    /// [`crate::remoting::encode_send_reply`].
    SendMessageReply<'a> {
        /// The offset id; of a batch, several joined by commas.
        msg_id: Cow<'a, str> = "msgId";
        /// The queue.
        queue_id: QueueId = "queueId";
        /// The position in the queue; of a batch, that of its first message.
        queue_offset: i64 = "queueOffset";
        /// The transaction's id, for half messages.
        transaction_id: Option<Cow<'a, str>> = "transactionId";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_mean_the_same() {
        let short = [
            ("a", "group"),
            ("b", "topic"),
            ("c", "TBW102"),
            ("d", "8"),
            ("e", "3"),
            ("f", "4"),
            ("g", "1700000000000"),
            ("h", "7"),
            ("i", "TAGS\u{1}a\u{2}"),
            ("j", "2"),
            ("k", "0"),
            ("l", "16"),
            ("m", "true"),
            ("n", "broker-a"),
        ];
        let long = [
            ("producerGroup", "group"),
            ("topic", "topic"),
            ("defaultTopic", "TBW102"),
            ("defaultTopicQueueNums", "8"),
            ("queueId", "3"),
            ("sysFlag", "4"),
            ("bornTimestamp", "1700000000000"),
            ("flag", "7"),
            ("properties", "TAGS\u{1}a\u{2}"),
            ("reconsumeTimes", "2"),
            ("unitMode", "false"),
            ("maxReconsumeTimes", "16"),
            ("batch", "1"),
            ("bname", "broker-a"),
            ("unknown", "x"),
        ];
        let from_short = SendMessageHeader::decode(&ExtFields::from_pairs(short).unwrap()).unwrap();
        let from_long = SendMessageHeader::decode(&ExtFields::from_pairs(long).unwrap()).unwrap();
        assert_eq!(from_short, from_long);
        assert_eq!(from_short.queue_id, 3);
        assert!(from_short.batch && !from_short.unit_mode);
        assert_eq!(from_short.max_reconsume_times, Some(16));

        let written = from_short.encode();
        let pairs = written.iter().map(|(name, value)| (name.as_ref(), value.as_str()));
        assert_eq!(SendMessageHeader::decode(&ExtFields::from_pairs(pairs).unwrap()).unwrap(), from_short);
    }

    #[test]
    fn what_cannot_be_guessed_must_be_there() {
        let decode = |pairs: &[(&'static str, &'static str)]| {
            SendMessageHeader::decode(&ExtFields::from_pairs(pairs.iter().copied()).unwrap()).map(|_| ())
        };
        assert_eq!(decode(&[("a", "g"), ("e", "0")]), Err(DecodeError::MissingField("topic")));
        assert_eq!(
            decode(&[("b", "t"), ("a", ""), ("e", "0")]),
            Err(DecodeError::MissingField("producerGroup"))
        );
        assert_eq!(decode(&[("b", "t"), ("a", "g")]), Err(DecodeError::MissingField("queueId")));
        assert_eq!(decode(&[("b", "t"), ("a", "g"), ("e", "-1")]), Ok(()));
        assert!(decode(&[("b", "t"), ("a", "g"), ("e", "0"), ("f", "x")]).is_err());
    }
}
