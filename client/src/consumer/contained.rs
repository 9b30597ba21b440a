//! Running code of the application so that nothing it does ends the task around it.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

/// What became of a future that must not take its worker with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Contained<T> {
    Ended(T),
    Panicked,
    TooLong,
}

/// Polls a future once.
pub(super) async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// Runs a future to its end, to its panic, or until `limit`. A panicked future is never polled again. A panic in its
/// destructor ends here too: a worker that dies of it would be missed by nobody but the messages.
pub(super) async fn contained<F: Future>(make: impl FnOnce() -> F, limit: Duration) -> Contained<F::Output> {
    let Ok(future) = catch_unwind(AssertUnwindSafe(make)) else { return Contained::Panicked };
    let mut place = pin!(Some(future));
    let result = {
        let mut polls = pin!(poll_fn(|context| {
            let poll = || place.as_mut().as_pin_mut().map_or(Poll::Pending, |future| future.poll(context));
            match catch_unwind(AssertUnwindSafe(poll)) {
                Ok(polled) => polled.map(Contained::Ended),
                Err(_) => Poll::Ready(Contained::Panicked),
            }
        }));
        // Many handlers never wait: they need no timer.
        match poll_once(polls.as_mut()).await {
            Poll::Ready(result) => result,
            Poll::Pending => tokio::time::timeout(limit, polls).await.unwrap_or(Contained::TooLong),
        }
    };
    if catch_unwind(AssertUnwindSafe(|| place.set(None))).is_err() {
        tracing::error!("a destructor in the handler panicked");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_panic_ends_the_future_and_nothing_else() {
        assert_eq!(contained(|| async { 7 }, LONG).await, Contained::Ended(7));
        assert_eq!(contained(|| async { panic!("in the handler") }, LONG).await, Contained::<()>::Panicked);
        let broken: fn() -> std::future::Ready<()> = || panic!("before the future");
        assert_eq!(contained(broken, LONG).await, Contained::Panicked);
    }

    #[tokio::test]
    async fn a_destructor_that_panics_when_the_time_is_over_ends_nothing_else() {
        struct Breaks;
        impl Drop for Breaks {
            fn drop(&mut self) {
                panic!("in the destructor");
            }
        }
        let endless = || async {
            let _breaks = Breaks;
            std::future::pending::<()>().await;
        };
        assert_eq!(contained(endless, Duration::from_millis(1)).await, Contained::TooLong);
    }
}
