//! A pulled message on its way to a handler: as the bytes that came, so that what waits takes no more memory than the
//! prefetch bounds say.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
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
    /// The record, in a piece of memory that it shares with a few of its neighbours.
    pub(super) record: Bytes,
}

/// Records are copied out of the reply that brought them, into pieces of about this size, in bytes. A reply lies in a
/// buffer of 64 KiB or more, which a single message that waits would keep in memory as a whole.
const PIECE_BYTES: usize = 4 << 10;

impl Taken {
    /// The message whose record this is.
    pub(super) const fn new(record: Bytes, offset: QueueOffset, epoch: u64) -> Self {
        Self { offset, epoch, repeats: 0, record }
    }

    /// Copies of these messages.
    pub(super) fn copies(mut views: &[MessageView<'_>], epoch: u64) -> Vec<Self> {
        let mut taken = Vec::with_capacity(views.len());
        while !views.is_empty() {
            let (mut bytes, mut count) = (0, 0);
            for view in views {
                if count > 0 && bytes + view.bytes().len() > PIECE_BYTES {
                    break;
                }
                bytes += view.bytes().len();
                count += 1;
            }
            let (together, rest) = views.split_at(count);
            let mut piece = BytesMut::with_capacity(bytes);
            together.iter().for_each(|view| piece.extend_from_slice(view.bytes()));
            let mut piece = piece.freeze();
            for view in together {
                taken.push(Self::new(piece.split_to(view.bytes().len()), view.queue_offset(), epoch));
            }
            views = rest;
        }
        taken
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::backlog::tests::taken;

    #[test]
    fn copies_keep_neither_the_reply_nor_many_neighbours_in_memory() {
        let one = taken(&[0]).remove(0).record;
        let reply = Bytes::from(one.repeat(1_000));
        let views: Vec<_> =
            mezzo_protocol::message::record::decode_delivered(&reply).map(Result::unwrap).collect();
        let copies = Taken::copies(&views, 3);
        assert_eq!(copies.len(), 1_000);
        assert!(copies.iter().all(|copy| copy.record == one && copy.epoch == 3));
        let inside = reply.as_ptr_range();
        assert!(copies.iter().all(|copy| !inside.contains(&copy.record.as_ptr())));
        // How many lie behind one another in memory: those share a piece.
        let mut together = 1;
        let mut most = 1;
        for pair in copies.windows(2) {
            let joined = pair[0].record.as_ptr_range().end == pair[1].record.as_ptr();
            together = if joined { together + 1 } else { 1 };
            most = most.max(together);
        }
        assert!(most > 1 && most * one.len() <= 2 * PIECE_BYTES, "{most} records of {} bytes", one.len());
    }
}
