//! The body of an END_TRANSACTION (37) whose header says `mezzoOffsets`: consumer offsets that a commit moves together
//! with its messages.
//!
//! ```json
//! {"consumerGroup":"payments","offsets":[{"topic":"orders","queueId":0,"from":5,"offset":7,"epoch":5120}]}
//! ```

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::relaxed_json;
use crate::error::DecodeError;
use crate::limits::TRANSACTION_OFFSETS_MAX;

/// One queue's offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionOffset {
    /// The topic.
    pub topic: String,
    /// The queue within the topic.
    pub queue_id: u32,
    /// Where the group stood when the transaction consumed; absent if it had never stood anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// The next offset to consume.
    pub offset: u64,
    /// The epoch of the lease under which the queue was consumed.
    pub epoch: u64,
}

/// Offsets of one consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionOffsetsBody {
    /// The consumer group.
    pub consumer_group: String,
    /// At most [`TRANSACTION_OFFSETS_MAX`].
    pub offsets: Vec<TransactionOffset>,
}

impl TransactionOffsetsBody {
    /// Reads the body.
    ///
    /// # Errors
    /// If it is above its bound, not JSON, lacks a field, holds too many offsets, one that no queue can have, or two of
    /// one queue.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "transaction offsets";
        let read: Self = relaxed_json::parse(WHAT, body)?;
        if read.offsets.len() > TRANSACTION_OFFSETS_MAX {
            return Err(DecodeError::TooLong {
                what: WHAT,
                got: read.offsets.len(),
                max: TRANSACTION_OFFSETS_MAX,
            });
        }
        let mut queues = HashSet::with_capacity(read.offsets.len());
        for TransactionOffset { topic, queue_id, offset, .. } in &read.offsets {
            if i64::try_from(*offset).is_err() {
                return Err(DecodeError::bad_value("offset", offset.to_string(), "an offset of a queue"));
            }
            // which of the two would be meant?
            if !queues.insert((topic, queue_id)) {
                return Err(DecodeError::bad_value("queueId", queue_id.to_string(), "each queue once"));
            }
        }
        Ok(read)
    }

    /// The body as JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        relaxed_json::write(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> TransactionOffset {
        TransactionOffset { topic: "orders".to_owned(), queue_id: 0, from: Some(5), offset: 7, epoch: 5120 }
    }

    #[test]
    fn the_body_is_what_the_page_says() {
        let body = TransactionOffsetsBody { consumer_group: "payments".to_owned(), offsets: vec![one()] };
        let text = r#"{"consumerGroup":"payments","offsets":[{"topic":"orders","queueId":0,"from":5,"offset":7,"epoch":5120}]}"#;
        assert_eq!(String::from_utf8(body.encode()).unwrap(), text);
        assert_eq!(TransactionOffsetsBody::decode(text.as_bytes()).unwrap(), body);
    }

    #[test]
    fn offsets_without_an_epoch_impossible_ones_two_of_a_queue_and_too_many_are_refused() {
        let text = r#"{"consumerGroup":"g","offsets":[{"topic":"t","queueId":0,"offset":7}]}"#;
        assert!(TransactionOffsetsBody::decode(text.as_bytes()).is_err());
        let text = r#"{"consumerGroup":"g","offsets":[{"topic":"t","queueId":0,"offset":9223372036854775808,"epoch":1}]}"#;
        assert!(TransactionOffsetsBody::decode(text.as_bytes()).is_err());
        let twice = TransactionOffsetsBody {
            consumer_group: "g".to_owned(),
            offsets: vec![one(), TransactionOffset { offset: 9, ..one() }],
        };
        assert!(TransactionOffsetsBody::decode(&twice.encode()).is_err());
        let offsets = vec![one(); TRANSACTION_OFFSETS_MAX + 1];
        let body = TransactionOffsetsBody { consumer_group: "g".to_owned(), offsets };
        assert!(matches!(TransactionOffsetsBody::decode(&body.encode()), Err(DecodeError::TooLong { .. })));
        assert!(TransactionOffsetsBody::decode(b"{").is_err());
    }
}
