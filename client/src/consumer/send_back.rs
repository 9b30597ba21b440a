//! Handing a message back to the broker (CONSUMER_SEND_MSG_BACK, 36), which delivers it again later or keeps it as a dead
//! letter.

use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::ids::{MessageQueue, PhysicalOffset, TopicName};
use mezzo_protocol::remoting::RequestCode;
use mezzo_protocol::remoting::header::consumer_send_back::ConsumerSendBackHeader;

use super::member::GroupMember;
use crate::clock::random_seed;
use crate::core::backoff::Backoff;
use crate::error::RequestError;

/// What the broker needs to find a message again.
#[derive(Debug, Clone)]
pub(super) struct BackReference {
    pub(super) physical_offset: PhysicalOffset,
    pub(super) message_id: String,
    pub(super) topic: TopicName,
}

impl GroupMember {
    /// Hands a message of `queue` back with `delay_level` (0: the broker's ladder, below 0: dead letter), trying a few
    /// times. A repeated request can at worst deliver the message twice more.
    pub(super) async fn send_back(
        self: &Arc<Self>,
        queue: &MessageQueue,
        message: &BackReference,
        delay_level: i32,
    ) -> Result<(), RequestError> {
        let header = ConsumerSendBackHeader {
            offset: message.physical_offset.as_wire(),
            group: self.group.as_str().into(),
            delay_level,
            origin_msg_id: Some(message.message_id.as_str().into()),
            origin_topic: Some(message.topic.as_str().into()),
            unit_mode: false,
            max_reconsume_times: Some(i32::try_from(self.config.retries_max).unwrap_or(i32::MAX)),
        };
        let mut backoff = Backoff::new(self.config.pull_backoff, random_seed());
        let mut attempts_left = self.config.send_back_attempts.max(1);
        loop {
            let asked = self.ask_broker(queue, RequestCode::CONSUMER_SEND_MSG_BACK, header.encode()).await;
            let error = match asked.and_then(|reply| reply.success().map(|_| ())) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            attempts_left -= 1;
            if attempts_left == 0 || !error.is_retriable() || self.stop.is_cancelled() {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(backoff.next_delay_ms())).await;
        }
    }
}
