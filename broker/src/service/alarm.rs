//! When a driver has to look at its work next: at a time it knows itself, at an earlier time that somebody else
//! announces, or at once. Times are the broker's clock, which may jump or be moved by hand; so a wait is never longer
//! than [`NAP_MAX`].

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mezzo_protocol::time::{Clock, Timestamp};
use tokio::sync::Notify;

/// Longest time between two looks at the clock: it may jump, and timers follow another one.
const NAP_MAX: Duration = Duration::from_millis(500);

/// "No time announced".
const NEVER: u64 = u64::MAX;

/// One driver's alarm. Setting it is cheap enough for the hot path: one atomic minimum, and a wake-up only when the
/// announced time is earlier than any before.
#[derive(Debug)]
pub(crate) struct Alarm {
    announced_ms: AtomicU64,
    bell: Notify,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { announced_ms: AtomicU64::new(NEVER), bell: Notify::new() }
    }
}

impl Alarm {
    /// There will be something to do at `at`.
    pub(crate) fn set(&self, at: Timestamp) {
        // mostly there is an earlier time already, and reading does not take the line from other threads
        if self.announced_ms.load(Ordering::Relaxed) > at.as_ms()
            && self.announced_ms.fetch_min(at.as_ms(), Ordering::AcqRel) > at.as_ms()
        {
            self.bell.notify_one();
        }
    }

    /// There is something to do now.
    pub(crate) fn ring(&self) {
        self.set(Timestamp::from_ms(0));
        // also when a ring is pending already and the driver is between looking and waiting
        self.bell.notify_one();
    }

    /// Returns when the clock has reached `next` or an announced time, or after a nap. Announced times that have come
    /// are forgotten then: the caller is about to look at everything. Cancel safe.
    pub(crate) async fn wait(&self, clock: &dyn Clock, next: Option<Timestamp>) {
        loop {
            let announced = self.announced_ms.load(Ordering::Acquire);
            let at = next.map_or(NEVER, Timestamp::as_ms).min(announced);
            let wait_ms = at.saturating_sub(clock.now().as_ms());
            let nap = Duration::from_millis(wait_ms).min(NAP_MAX);
            if !nap.is_zero() {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(nap) => {}
                    // an earlier time was announced: look again
                    () = self.bell.notified() => continue,
                }
            }
            let announced = self.announced_ms.swap(NEVER, Ordering::AcqRel);
            if announced > clock.now().as_ms() {
                self.announced_ms.fetch_min(announced, Ordering::AcqRel);
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct At(AtomicU64);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp::from_ms(self.0.load(Ordering::Relaxed))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_that_has_come_does_not_wait_and_a_later_one_does() {
        let (alarm, clock) = (Alarm::default(), At(AtomicU64::new(100)));
        let started = tokio::time::Instant::now();
        alarm.wait(&clock, Some(Timestamp::from_ms(100))).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        alarm.wait(&clock, Some(Timestamp::from_ms(130))).await;
        assert_eq!(started.elapsed(), Duration::from_millis(30));
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_earlier_time_shortens_a_wait_that_has_begun_and_is_forgotten_after_it() {
        let (alarm, clock) = (Arc::new(Alarm::default()), Arc::new(At(AtomicU64::new(100))));
        let waiter = {
            let (alarm, clock) = (Arc::clone(&alarm), Arc::clone(&clock));
            tokio::spawn(async move { alarm.wait(&*clock, None).await })
        };
        tokio::task::yield_now().await;
        let started = tokio::time::Instant::now();
        alarm.set(Timestamp::from_ms(120));
        tokio::time::sleep(Duration::from_millis(19)).await;
        assert!(!waiter.is_finished());
        clock.0.store(120, Ordering::Relaxed);
        waiter.await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_millis(20));
        alarm.wait(&*clock, None).await;
        assert_eq!(started.elapsed(), Duration::from_millis(20) + NAP_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ring_is_not_lost_when_nobody_waits_yet() {
        let (alarm, clock) = (Alarm::default(), At(AtomicU64::new(100)));
        alarm.ring();
        let started = tokio::time::Instant::now();
        alarm.wait(&clock, None).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
