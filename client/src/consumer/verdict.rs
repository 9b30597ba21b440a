//! What a handler is, and what it can say about a message.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use mezzo_protocol::delay_level;

use crate::message::ReceivedMessage;

/// What becomes of a message after its handler looked at it.
///
/// ```
/// use std::time::Duration;
///
/// use mezzo_client::{ReceivedMessage, Verdict};
///
/// fn judge(message: &ReceivedMessage, shop_is_open: bool) -> Verdict {
///     match (message.body().is_empty(), shop_is_open) {
///         (true, _) => Verdict::DeadLetter,
///         (false, true) => Verdict::Done,
///         (false, false) => Verdict::RetryAfter(Duration::from_secs(600)),
///     }
/// }
/// # let _: fn(&ReceivedMessage, bool) -> Verdict = judge;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Processed: it is not delivered to this group again (except after a crash before the next commit of offsets).
    Done,
    /// Deliver it again later: the broker waits longer each time (10 s, 30 s, 1 min, … 2 h), and after `retries_max`
    /// deliveries it becomes a dead letter.
    Retry,
    /// As [`Verdict::Retry`], but after this time. Brokers know 18 times from 1 s to 2 h (1, 5, 10, 30 s, 1 to 10 min, 20,
    /// 30 min, 1 h, 2 h): the next longer one is taken, and 2 h for what is longer than that.
    RetryAfter(Duration),
    /// Never deliver it again: keep it in the group's dead-letter topic (`%DLQ%group`).
    DeadLetter,
}

impl Verdict {
    /// The delay level that tells the broker; `None` if there is nothing to tell.
    pub(super) fn delay_level(self) -> Option<i32> {
        match self {
            Self::Done => None,
            Self::Retry => Some(0),
            Self::RetryAfter(wait) => Some(level_for(wait)),
            Self::DeadLetter => Some(-1),
        }
    }
}

/// The first level that waits at least `wait`, or the last.
fn level_for(wait: Duration) -> i32 {
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let mut levels = 1..=delay_level::LEVEL_MAX;
    let level = levels.find(|level| delay_level::delay_ms(*level).is_some_and(|ms| ms >= wait_ms));
    i32::try_from(level.unwrap_or(delay_level::LEVEL_MAX)).unwrap_or(0)
}

/// `Ok` is [`Verdict::Done`]; an error is logged and means [`Verdict::Retry`].
impl<E: fmt::Display> From<Result<(), E>> for Verdict {
    fn from(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(error) => {
                tracing::warn!(%error, "the handler failed; the message will be delivered again");
                Self::Retry
            }
        }
    }
}

/// Processes messages. Many calls run at one time, for messages of one queue too; each message gets its own verdict.
/// A message can come more than once (after a crash, a rebalance, or a producer's retry): process it so that this does
/// no harm, for example by remembering [`ReceivedMessage::unique_key`].
///
/// A panic, or a handler that takes longer than `handler_timeout_ms`, counts as [`Verdict::Retry`].
///
/// Closures that return a future are handlers. The future's output is a [`Verdict`], or a `Result<(), E>`:
///
/// ```
/// use mezzo_client::{Handler, ReceivedMessage, Verdict};
///
/// fn takes_handler(_handler: impl Handler) {}
///
/// takes_handler(|message: ReceivedMessage| async move {
///     if message.body().is_empty() { Verdict::DeadLetter } else { Verdict::Done }
/// });
/// takes_handler(|message: ReceivedMessage| async move {
///     std::str::from_utf8(message.body()).map(|text| println!("{text}"))
/// });
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Processes one message.
    fn handle(&self, message: ReceivedMessage) -> impl Future<Output = Verdict> + Send;
}

impl<F, Fut> Handler for F
where
    F: Fn(ReceivedMessage) -> Fut + Send + Sync + 'static,
    Fut: Future + Send,
    Fut::Output: Into<Verdict>,
{
    async fn handle(&self, message: ReceivedMessage) -> Verdict {
        self(message).await.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_becomes_the_next_longer_level() {
        for (seconds, level) in [(0, 1), (1, 1), (2, 2), (10, 3), (3_600, 17), (3_601, 18), (1_000_000, 18)] {
            let verdict = Verdict::RetryAfter(Duration::from_secs(seconds));
            assert_eq!(verdict.delay_level(), Some(level), "{seconds} s");
        }
        assert_eq!(Verdict::RetryAfter(Duration::MAX).delay_level(), Some(18));
    }

    #[test]
    fn results_become_verdicts() {
        assert_eq!(Verdict::from(Ok::<(), String>(())), Verdict::Done);
        assert_eq!(Verdict::from(Err::<(), _>("no".to_owned())), Verdict::Retry);
        assert_eq!(Verdict::Done.delay_level(), None);
        assert_eq!(Verdict::DeadLetter.delay_level(), Some(-1));
    }
}
