//! A pull consumer's messages as a stream.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::job::Job;
use super::member::GroupMember;
use crate::message::ReceivedMessage;

/// Messages one after the other; made by [`PullConsumer::stream`](crate::PullConsumer::stream). Several streams of one
/// consumer share its messages. It is a [`futures_core::Stream`], so the combinators of other crates work on it.
///
/// ```no_run
/// # async fn example(client: mezzo_client::Client) -> Result<(), mezzo_client::Error> {
/// let consumer = client.pull_consumer("reports").subscribe("orders", "*").start().await?;
/// let mut messages = consumer.stream();
/// while let Some(message) = messages.next().await {
///     println!("{}", message.message_id());
///     consumer.commit().await;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct MessageStream {
    member: Arc<GroupMember>,
    /// Room for the one job that is taken at a time: a job that waits here would count as handed out, or be lost.
    taken: VecDeque<Job>,
    /// The wait for the next job, while there is none.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl MessageStream {
    pub(super) fn new(member: Arc<GroupMember>) -> Self {
        Self { member, taken: VecDeque::with_capacity(1), waiting: None }
    }

    /// The next message; `None` when the consumer has ended. Giving the call up loses no message.
    pub async fn next(&mut self) -> Option<ReceivedMessage> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for MessageStream {
    type Item = ReceivedMessage;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ReceivedMessage>> {
        let this = self.get_mut();
        loop {
            if this.member.stop.is_cancelled() {
                return Poll::Ready(None);
            }
            if this.member.jobs.try_take(1, &mut this.taken) {
                this.waiting = None;
                let job = this.taken.pop_front();
                if let Some(message) = job.and_then(|job| this.member.receive(job)) {
                    return Poll::Ready(Some(message));
                }
                continue;
            }
            let member = &this.member;
            let waiting = this.waiting.get_or_insert_with(|| {
                let member = Arc::clone(member);
                Box::pin(async move {
                    tokio::select! {
                        () = member.stop.cancelled() => {}
                        () = member.jobs.some() => {}
                    }
                })
            });
            match waiting.as_mut().poll(context) {
                Poll::Ready(()) => this.waiting = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl fmt::Debug for MessageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream").field("group", &self.member.group).finish_non_exhaustive()
    }
}
