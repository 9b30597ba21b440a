//! LOCK_BATCH_MQ (41) and UNLOCK_BATCH_MQ (42): queues for one consumer at a time.

use serde::{Deserialize, Serialize};

use super::{lenient, relaxed_json};
use crate::error::DecodeError;
use crate::ids::{MessageQueue, QueueId, TopicName};

/// A queue as bodies write it: not validated, because one wrong queue must not spoil the others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueName {
    /// The topic.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub topic: String,
    /// The broker.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub broker_name: String,
    /// The number of the queue.
    #[serde(default, deserialize_with = "lenient::number")]
    pub queue_id: i64,
}

impl From<&MessageQueue> for QueueName {
    fn from(queue: &MessageQueue) -> Self {
        Self {
            topic: queue.topic.as_str().to_owned(),
            broker_name: queue.broker_name.as_ref().to_owned(),
            queue_id: i64::from(queue.queue_id.as_wire()),
        }
    }
}

impl TryFrom<&QueueName> for MessageQueue {
    type Error = DecodeError;

    fn try_from(name: &QueueName) -> Result<Self, DecodeError> {
        let queue_id = i32::try_from(name.queue_id).ok().and_then(QueueId::from_wire);
        let queue_id = queue_id.ok_or_else(|| {
            DecodeError::bad_value("queueId", name.queue_id.to_string(), "a queue number of 0 or more")
        })?;
        Ok(Self::new(TopicName::new(&name.topic)?, name.broker_name.as_str(), queue_id))
    }
}

/// The request of both: a client wants to lock or to release queues.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockBatchRequest {
    /// The consumer group.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub consumer_group: String,
    /// The client.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub client_id: String,
    /// Whether replicas need not agree.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub only_this_broker: bool,
    /// The queues.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub mq_set: Vec<QueueName>,
}

/// The reply to LOCK_BATCH_MQ: the queues that the client holds now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LockBatchReply {
    /// The queues.
    #[serde(rename = "lockOKMQSet", default, deserialize_with = "lenient::or_default")]
    pub locked: Vec<QueueName>,
}

impl LockBatchRequest {
    /// Reads the body of either request.
    ///
    /// # Errors
    /// If it is above its bound or not JSON, or names no client or group.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let request: Self = relaxed_json::parse("queue lock", body)?;
        if request.consumer_group.is_empty() {
            return Err(DecodeError::MissingField("consumerGroup"));
        }
        if request.client_id.is_empty() {
            return Err(DecodeError::MissingField("clientId"));
        }
        Ok(request)
    }

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        relaxed_json::write(self)
    }
}

impl LockBatchReply {
    /// Reads the body of the reply.
    ///
    /// # Errors
    /// If it is above its bound or not JSON.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        relaxed_json::parse("queue lock reply", body)
    }

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        relaxed_json::write(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_clients_write_it() {
        let body =
            br#"{"clientId":"c","consumerGroup":"g","mqSet":[{"brokerName":"b","queueId":2,"topic":"t"}]}"#;
        let request = LockBatchRequest::decode(body).unwrap();
        let queue = MessageQueue::try_from(&request.mq_set[0]).unwrap();
        assert_eq!(queue, MessageQueue::new(TopicName::new("t").unwrap(), "b", QueueId(2)));
        assert_eq!(QueueName::from(&queue), request.mq_set[0]);
        assert_eq!(LockBatchRequest::decode(&request.encode()).unwrap(), request);
        assert!(LockBatchRequest::decode(br#"{"clientId":"c"}"#).is_err());
    }

    #[test]
    fn the_reply_has_the_name_that_clients_look_for() {
        let reply = LockBatchReply {
            locked: vec![QueueName { topic: "t".to_owned(), broker_name: "b".to_owned(), queue_id: 1 }],
        };
        let text = String::from_utf8(reply.encode()).unwrap();
        assert_eq!(text, r#"{"lockOKMQSet":[{"topic":"t","brokerName":"b","queueId":1}]}"#);
        assert_eq!(LockBatchReply::decode(text.as_bytes()).unwrap(), reply);
    }

    #[test]
    fn a_queue_with_an_impossible_number_is_no_queue() {
        let name = QueueName { topic: "t".to_owned(), broker_name: "b".to_owned(), queue_id: -1 };
        assert!(MessageQueue::try_from(&name).is_err());
    }
}
