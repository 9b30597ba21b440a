//! Batches: several messages of one topic in one request (SEND_BATCH_MESSAGE, 320), stored all or none.

use std::sync::Arc;

use mezzo_protocol::ids::{QueueOffset, TopicName};
use mezzo_protocol::limits::{BATCH_MESSAGES_MAX, BODY_BYTES_MAX};
use mezzo_protocol::message::batch::{self, BatchMessage};
use mezzo_protocol::message::sys_flag::SysFlag;

use super::receipt::SendReceipt;
use super::send::{Kind, Outgoing, Sender, Target};
use crate::error::SendError;
use crate::message::{BatchFault, EncodedMessage, Message, MessageError};
use crate::net::Deadline;

/// Stands between the ids of a batch's messages in the broker's answer.
const ID_SEPARATOR: char = ',';

/// Bytes that a message takes in a batch besides its body and properties, about: lengths, flags, unique key.
const MESSAGE_BYTES_GUESS: usize = 96;

/// What a message adds to a batch, about, in bytes.
pub(super) fn bytes_in_batch(message: &Message) -> usize {
    message.body().len() + message.properties_bytes() + MESSAGE_BYTES_GUESS
}

/// A batch as it goes over the wire.
struct Encoded {
    topic: TopicName,
    /// The unique keys of its messages.
    keys: Vec<Arc<str>>,
    body: Vec<u8>,
}

impl Sender {
    /// Sends `messages` as one batch; the receipts are in their order.
    pub(crate) async fn send_batch(&self, messages: &[Message]) -> Result<Vec<SendReceipt>, SendError> {
        let deadline = Deadline::after_ms(self.config.send_timeout_ms);
        let bytes = messages.iter().map(|message| message.body().len()).sum();
        let _room = self.reserve(messages.len(), bytes, deadline).await?;
        self.send_batch_in_room(messages, deadline).await
    }

    /// As [`Sender::send_batch`], by a caller that has reserved the room.
    pub(super) async fn send_batch_in_room(
        &self,
        messages: &[Message],
        deadline: Deadline,
    ) -> Result<Vec<SendReceipt>, SendError> {
        let Encoded { topic, keys, body } = self.encode_batch(messages)?;
        let key = keys.first().map_or_else(|| self.next_unique_key(), Arc::clone);
        let outgoing = Outgoing {
            encoded: EncodedMessage::around_batch()?,
            unique_key: key,
            body: body.into(),
            sys_flag: SysFlag::NONE,
            batch: true,
        };
        let sharding_key = messages.first().and_then(Message::sharding_key);
        let target = sharding_key.map_or(Target::Any, Target::ShardingKey);
        let receipt = self.deliver(&outgoing, &topic, target, Kind::Plain, deadline).await?;
        Ok(receipts(&receipt, &keys))
    }

    fn encode_batch(&self, messages: &[Message]) -> Result<Encoded, MessageError> {
        let first = messages.first().ok_or(MessageError::Batch(BatchFault::Empty))?;
        if messages.len() > BATCH_MESSAGES_MAX {
            return Err(MessageError::Batch(BatchFault::TooMany {
                got: messages.len(),
                max: BATCH_MESSAGES_MAX,
            }));
        }
        let mut body = Vec::with_capacity(messages.iter().map(bytes_in_batch).sum());
        let mut keys = Vec::with_capacity(messages.len());
        for message in messages {
            if message.topic() != first.topic() {
                return Err(MessageError::Batch(BatchFault::SeveralTopics));
            }
            if message.sharding_key() != first.sharding_key() {
                return Err(MessageError::Batch(BatchFault::SeveralShardingKeys));
            }
            if message.is_delayed() {
                return Err(MessageError::Batch(BatchFault::Delayed));
            }
            let key = self.next_unique_key();
            let encoded = message.encode(&key, None)?;
            let properties = encoded.properties.as_bytes();
            let part = BatchMessage { flag: encoded.flag, body: message.body(), properties };
            batch::encode(&part, &mut body).map_err(MessageError::Property)?;
            if body.len() > BODY_BYTES_MAX {
                return Err(MessageError::BodyTooLarge { got: body.len(), max: BODY_BYTES_MAX });
            }
            keys.push(key);
        }
        Ok(Encoded { topic: first.topic().clone(), keys, body })
    }
}

/// The receipt of each message from that of the batch: positions follow each other.
fn receipts(batch: &SendReceipt, keys: &[Arc<str>]) -> Vec<SendReceipt> {
    let mut ids = batch.offset_message_id.split(ID_SEPARATOR);
    let positions = batch.queue_offset.0..;
    keys.iter()
        .zip(positions)
        .map(|(key, position)| SendReceipt {
            unique_key: Arc::clone(key),
            // Some brokers name only the first message.
            offset_message_id: ids.next().unwrap_or_default().to_owned(),
            queue_offset: QueueOffset(position),
            ..batch.clone()
        })
        .collect()
}
