//! Batches: several messages of one topic in one request (SEND_BATCH_MESSAGE, 320), stored all or none.

use std::sync::Arc;

use mezzo_protocol::ids::QueueOffset;
use mezzo_protocol::limits::{BATCH_MESSAGES_MAX, BODY_BYTES_MAX};
use mezzo_protocol::message::batch::{self, BatchMessage};
use mezzo_protocol::message::sys_flag::SysFlag;

use super::receipt::SendReceipt;
use super::send::{Attempts, Kind, Outgoing, Sender, Target};
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

/// A message of a batch, and the key that it got.
pub(super) struct Member {
    pub(super) message: Message,
    pub(super) unique_key: Arc<str>,
}

impl Sender {
    /// Sends `messages` as one batch; the receipts are in their order.
    pub(crate) async fn send_batch(&self, messages: Vec<Message>) -> Result<Vec<SendReceipt>, SendError> {
        // Before it waits for room: what cannot be a batch takes none.
        check(&messages)?;
        let deadline = Deadline::after_ms(self.config.send_timeout_ms);
        let bytes = messages.iter().map(|message| message.body().len()).sum();
        let _room = self.bounds.reserve(messages.len(), bytes, deadline).await?;
        let with_key = |message| Member { message, unique_key: self.next_unique_key() };
        let members: Vec<_> = messages.into_iter().map(with_key).collect();
        self.send_batch_in_room(members.iter(), deadline).await
    }

    /// As [`Sender::send_batch`], by a caller that has reserved the room and knows that the members can be one batch.
    pub(super) async fn send_batch_in_room(
        &self,
        members: impl Iterator<Item = &Member> + Clone,
        deadline: Deadline,
    ) -> Result<Vec<SendReceipt>, SendError> {
        let first = members.clone().next().ok_or(MessageError::Batch(BatchFault::Empty))?;
        let (topic, key) = (first.message.topic(), &first.unique_key);
        let outgoing = Outgoing {
            encoded: EncodedMessage::around_batch()?,
            unique_key: Arc::clone(key),
            body: encode(members.clone())?.into(),
            sys_flag: SysFlag::NONE,
            batch: true,
            only_mezzo: None,
        };
        let target = first.message.sharding_key().map_or(Target::Any, Target::ShardingKey);
        let receipt =
            self.deliver(&outgoing, topic, target, Kind::Plain, deadline, Attempts::default()).await?;
        Ok(receipts(&receipt, members))
    }
}

/// Whether `messages` can be one batch, as far as that shows before they are encoded.
fn check(messages: &[Message]) -> Result<(), MessageError> {
    let first = messages.first().ok_or(MessageError::Batch(BatchFault::Empty))?;
    let (got, max) = (messages.len(), BATCH_MESSAGES_MAX);
    if got > max {
        return Err(MessageError::Batch(BatchFault::TooMany { got, max }));
    }
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
    }
    let least_bytes = messages.iter().map(|message| message.body().len() + message.properties_bytes()).sum();
    check_bytes(least_bytes)
}

const fn check_bytes(got: usize) -> Result<(), MessageError> {
    let max = BODY_BYTES_MAX;
    if got > max { Err(MessageError::BodyTooLarge { got, max }) } else { Ok(()) }
}

/// The body of the request.
fn encode<'a>(members: impl Iterator<Item = &'a Member> + Clone) -> Result<Vec<u8>, MessageError> {
    // Bounded: a batch of many large bodies that share their memory is refused below, not made room for.
    let bytes = members.clone().map(|member| bytes_in_batch(&member.message)).sum::<usize>();
    let mut body = Vec::with_capacity(bytes.min(BODY_BYTES_MAX));
    for Member { message, unique_key } in members {
        let encoded = message.encode(unique_key, None)?;
        let properties = encoded.properties.as_bytes();
        let part = BatchMessage { flag: encoded.flag, body: message.body(), properties };
        batch::encode(&part, &mut body).map_err(MessageError::Property)?;
        check_bytes(body.len())?;
    }
    Ok(body)
}

/// The receipt of each message from that of the batch: positions follow each other.
fn receipts<'a>(batch: &SendReceipt, members: impl Iterator<Item = &'a Member>) -> Vec<SendReceipt> {
    let mut ids = batch.offset_message_id.split(ID_SEPARATOR);
    let positions = batch.queue_offset.0..;
    members
        .zip(positions)
        .map(|(member, position)| SendReceipt {
            unique_key: Arc::clone(&member.unique_key),
            // Some brokers name only the first message.
            offset_message_id: ids.next().unwrap_or_default().to_owned(),
            queue_offset: QueueOffset(position),
            ..batch.clone()
        })
        .collect()
}
