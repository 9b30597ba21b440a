//! Going on elsewhere in a queue.

use mezzo_protocol::ids::{MessageQueue, QueueOffset};
use mezzo_protocol::time::Timestamp;

use super::member::{Commits, GroupMember};
use crate::error::Error;

/// A place in a queue.
///
/// ```no_run
/// # async fn example(consumer: &mezzo_client::PushConsumer) -> Result<(), mezzo_client::Error> {
/// use mezzo_client::{Clock as _, SeekTo, SystemClock};
///
/// let an_hour_ago = SystemClock.now().saturating_sub_ms(3_600_000);
/// for queue in consumer.queues() {
///     consumer.seek(&queue, SeekTo::Time(an_hour_ago)).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// The oldest message still kept.
    Begin,
    /// Behind the newest message.
    End,
    /// This offset. One that the queue does not have is corrected by the broker at the next pull.
    Offset(QueueOffset),
    /// The first message that became visible at this time or later.
    Time(Timestamp),
}

impl GroupMember {
    /// Moves a queue that is held now, and tells the broker unless the application commits by itself.
    pub(super) async fn seek(&self, queue: &MessageQueue, to: SeekTo) -> Result<(), Error> {
        let not_held = || Error::Config {
            setting: "queue",
            reason: format!("this member does not hold {queue} now; see queues()"),
        };
        if self.held(queue).is_none() {
            return Err(not_held());
        }
        let offset = self.offset_at(queue, to).await?;
        let held = self.held(queue).ok_or_else(not_held)?;
        held.reset(offset);
        self.recall(&held);
        if !matches!(self.commits, Commits::WhenTold) {
            // If the broker does not hear of it now, it does at the next regular commit.
            self.commit(&held).await;
        }
        Ok(())
    }
}
