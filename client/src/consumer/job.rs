//! A pulled message on its way to a handler: as the bytes that came, so that what waits takes no more memory than the
//! prefetch bounds say.

use std::sync::Arc;

use bytes::Bytes;
use mezzo_protocol::ids::QueueOffset;
use mezzo_protocol::message::record::MessageView;

use super::held_queue::HeldQueue;
use super::send_back::BackReference;
use crate::message::{ReceivedMessage, UnreadableMessage};

/// A message that was taken in and has no verdict yet.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) offset: QueueOffset,
    /// When it was taken in, see [`HeldQueue::epoch`].
    pub(super) epoch: u64,
    /// How often it was handled here before, without the broker's help.
    pub(super) repeats: u32,
    /// The record, inside the reply that brought it.
    pub(super) record: Bytes,
}

impl Taken {
    /// The message that `view` shows, a part of `reply`.
    pub(super) fn new(reply: &Bytes, view: &MessageView<'_>, epoch: u64) -> Self {
        Self { offset: view.queue_offset(), epoch, repeats: 0, record: reply.slice_ref(view.bytes()) }
    }

    /// What the record takes, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.record.len()
    }
}

/// One message of one queue, ready for a worker.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) held: Arc<HeldQueue>,
    pub(super) taken: Taken,
}

impl Job {
    /// The message for the handler, checked and inflated to at most `inflated_bytes_max` bytes.
    pub(super) fn message(&self, inflated_bytes_max: usize) -> Result<ReceivedMessage, UnreadableMessage> {
        let view = MessageView::parse(&self.taken.record)?;
        let queue = &self.held.queue;
        let message = ReceivedMessage::from_record(
            &self.taken.record,
            &view,
            &queue.topic,
            &queue.broker_name,
            inflated_bytes_max,
        )?;
        Ok(message.delivered_again(self.taken.repeats))
    }

    /// How the broker finds the message again.
    pub(super) fn reference(&self) -> Result<BackReference, UnreadableMessage> {
        let view = MessageView::parse(&self.taken.record)?;
        let message_id = view.unique_key().map_or_else(|| view.offset_message_id().encode(), str::to_owned);
        let topic = self.held.queue.topic.clone();
        Ok(BackReference { physical_offset: view.physical_offset(), message_id, topic })
    }

    /// Whether a verdict would still count.
    pub(super) fn counts(&self) -> bool {
        self.held.counts(self.taken.epoch)
    }
}
