//! How far a consumer is behind.

use std::sync::Arc;

use mezzo_protocol::ids::{MessageQueue, QueueOffset};
use mezzo_protocol::remoting::RequestCode;
use tokio::task::JoinSet;

use super::member::GroupMember;
use crate::error::{Error, RequestError};

/// What one queue holds that this member has not finished.
///
/// ```
/// use mezzo_client::{MessageQueue, QueueId, QueueLag, QueueOffset, TopicName};
///
/// let queue = MessageQueue::new(TopicName::new("orders").unwrap(), "broker-a", QueueId(0));
/// let lag = QueueLag { queue, position: QueueOffset(7), end: QueueOffset(10) };
/// assert_eq!(lag.messages(), 3);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLag {
    /// The queue.
    pub queue: MessageQueue,
    /// The lowest offset that is not finished.
    pub position: QueueOffset,
    /// The offset behind the newest message.
    pub end: QueueOffset,
}

impl QueueLag {
    /// Messages between the two. Those of other tags are counted too: the broker does not look at them.
    #[must_use]
    pub const fn messages(&self) -> u64 {
        self.end.0.saturating_sub(self.position.0)
    }
}

/// What all queues of a member hold that it has not finished, in the order of queues. A member that has no queue yet is
/// behind in none: look at `queues` before you call a total of 0 good news. Messages that wait for their next attempt at
/// the broker are counted when they come again.
///
/// ```no_run
/// # async fn example(consumer: &mezzo_client::PushConsumer) -> Result<(), mezzo_client::Error> {
/// let lag = consumer.lag().await?;
/// for queue in &lag.queues {
///     println!("{}: {} of {}, {} to go", queue.queue, queue.position, queue.end, queue.messages());
/// }
/// println!("{} in all", lag.total());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lag {
    /// One entry per queue, those of the group's retry topic among them.
    pub queues: Vec<QueueLag>,
}

impl Lag {
    /// Messages in all queues together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.queues.iter().map(QueueLag::messages).fold(0, u64::saturating_add)
    }
}

impl GroupMember {
    /// Asks the brokers where the queues held now end.
    pub(super) async fn lag(self: &Arc<Self>) -> Result<Lag, Error> {
        let mut asking = JoinSet::new();
        for held in self.all_held() {
            let member = Arc::clone(self);
            asking.spawn(async move {
                let position = match held.position() {
                    Some(position) => position,
                    None => member.start_of(&held.queue).await?.offset,
                };
                let end = member.queue_end(&held.queue, RequestCode::GET_MAX_OFFSET).await?;
                Ok::<_, RequestError>(QueueLag { queue: held.queue.clone(), position, end })
            });
        }
        let mut queues = Vec::new();
        while let Some(answer) = asking.join_next().await {
            // A task that ended without an answer was ended together with the runtime.
            queues.push(answer.unwrap_or(Err(RequestError::ShutDown))?);
        }
        queues.sort_by(|a, b| a.queue.cmp(&b.queue));
        Ok(Lag { queues })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mezzo_protocol::ids::{QueueId, TopicName};

    #[test]
    fn a_queue_that_lost_its_messages_is_not_behind() {
        let queue = MessageQueue::new(TopicName::new("t").unwrap(), "b", QueueId(0));
        let lag = |position, end| QueueLag {
            queue: queue.clone(),
            position: QueueOffset(position),
            end: QueueOffset(end),
        };
        let lag = Lag { queues: vec![lag(3, 10), lag(10, 4)] };
        assert_eq!(lag.total(), 7);
    }
}
