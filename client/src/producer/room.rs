//! The bounds of what is in flight: a number of sends and of body bytes. Whoever holds room gives it back on every path
//! out of a send, by dropping it: an answer, an error, a cancelled future, a panic.

use std::sync::Arc;

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use super::send::Sender;
use crate::error::{RequestError, SendError};
use crate::net::Deadline;

/// What may be in flight at one time.
pub(super) struct Bounds {
    sends_max: usize,
    bytes_max: usize,
    sends: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// Places taken in the bounds.
pub(super) struct Room<'a> {
    bounds: &'a Bounds,
    sends: SemaphorePermit<'a>,
    bytes: SemaphorePermit<'a>,
}

/// Places taken in the bounds by what outlives the call that took them.
pub(super) struct HeldRoom {
    sends: (Arc<Semaphore>, usize),
    bytes: (Arc<Semaphore>, usize),
}

impl Bounds {
    /// At most so many sends with so many body bytes altogether; each bound is at least one.
    pub(super) fn new(sends_max: usize, bytes_max: usize) -> Self {
        let (sends_max, bytes_max) = (permits(sends_max), permits(bytes_max));
        let (sends, bytes) = (Arc::new(Semaphore::new(sends_max)), Arc::new(Semaphore::new(bytes_max)));
        Self { sends_max, bytes_max, sends, bytes }
    }

    /// Most sends in flight.
    pub(super) const fn sends_max(&self) -> usize {
        self.sends_max
    }

    /// Waits for room for `count` messages with bodies of so many bytes altogether. What is larger than a bound takes
    /// all of it.
    pub(super) async fn reserve(
        &self,
        count: usize,
        body_bytes: usize,
        deadline: Deadline,
    ) -> Result<Room<'_>, SendError> {
        if let Some(room) = self.try_reserve(count, body_bytes) {
            return Ok(room);
        }
        let (count, byte_count) = self.permits_for(count, body_bytes);
        let both = async {
            // Always in this order, so that two senders never wait for each other.
            let sends = self.sends.acquire_many(count).await?;
            let bytes = self.bytes.acquire_many(byte_count).await?;
            Ok(Room { bounds: self, sends, bytes })
        };
        let reserved: Result<Result<_, AcquireError>, _> = tokio::time::timeout_at(deadline.at(), both).await;
        match reserved {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_closed)) => Err(SendError::Route(RequestError::ShutDown.into())),
            Err(_) => Err(SendError::Saturated {
                in_flight: self.sends_max.saturating_sub(self.sends.available_permits()),
                waited_ms: deadline.waited_ms(),
            }),
        }
    }

    /// As [`Bounds::reserve`], but now or not at all. Whoever waits goes first.
    pub(super) fn try_reserve(&self, count: usize, body_bytes: usize) -> Option<Room<'_>> {
        let (count, bytes) = self.permits_for(count, body_bytes);
        let sends = self.sends.try_acquire_many(count).ok()?;
        let bytes = self.bytes.try_acquire_many(bytes).ok()?;
        Some(Room { bounds: self, sends, bytes })
    }

    /// Waits until nothing is in flight, and takes nothing more. Returns whether all ended in time.
    pub(super) async fn drain(&self, deadline: Deadline) -> bool {
        let all = u32::try_from(self.sends_max).unwrap_or(u32::MAX);
        let all_places = tokio::time::timeout_at(deadline.at(), self.sends.acquire_many(all)).await;
        // Closed while the places are still held: nobody slips in between.
        self.sends.close();
        // A second drain finds the places closed: it must not call drained what the first gave up waiting for.
        matches!(all_places, Ok(Ok(_))) || self.sends.available_permits() == self.sends_max
    }

    fn permits_for(&self, count: usize, body_bytes: usize) -> (u32, u32) {
        let (count, bytes) = (count.clamp(1, self.sends_max), body_bytes.clamp(1, self.bytes_max));
        (u32::try_from(count).unwrap_or(u32::MAX), u32::try_from(bytes).unwrap_or(u32::MAX))
    }
}

impl Room<'_> {
    /// The same room, for what goes on when the call has ended.
    pub(super) fn held(self) -> HeldRoom {
        let sends = (Arc::clone(&self.bounds.sends), self.sends.num_permits());
        let bytes = (Arc::clone(&self.bounds.bytes), self.bytes.num_permits());
        self.sends.forget();
        self.bytes.forget();
        HeldRoom { sends, bytes }
    }
}

impl Drop for HeldRoom {
    fn drop(&mut self) {
        for (semaphore, count) in [&self.sends, &self.bytes] {
            semaphore.add_permits(*count);
        }
    }
}

impl Sender {
    /// Takes no more sends and waits for those in flight; what waits for others to travel with goes at once. Returns
    /// whether all ended in time.
    pub(crate) async fn drain(self: &Arc<Self>) -> bool {
        self.flush_lingering();
        self.bounds.drain(Deadline::after_ms(self.config.drain_timeout_ms)).await
    }
}

/// A bound as a number of permits: at least one, at most what a semaphore and one request for permits can express.
fn permits(bound: usize) -> usize {
    bound.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_that_outlives_its_call_comes_back_when_it_is_dropped() {
        let bounds = Bounds::new(2, 10);
        let held = bounds.try_reserve(2, 99).unwrap().held();
        assert!(bounds.try_reserve(1, 1).is_none());
        let waits = bounds.reserve(1, 1, Deadline::after_ms(5)).await;
        assert!(matches!(waits, Err(SendError::Saturated { in_flight: 2, .. })));
        drop(held);
        assert!(bounds.reserve(2, 10, Deadline::after_ms(5)).await.is_ok());
        assert!(bounds.drain(Deadline::after_ms(5)).await);
        let late = bounds.reserve(1, 1, Deadline::after_ms(5)).await;
        assert!(matches!(late, Err(SendError::Route(_))));
    }

    #[tokio::test]
    async fn a_call_that_waits_for_room_and_is_cancelled_takes_none() {
        let bounds = Bounds::new(2, 10);
        let bytes = bounds.try_reserve(1, 10).unwrap();
        let waiting = bounds.reserve(1, 10, Deadline::after_ms(60_000));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(5), waiting).await.is_err());
        drop(bytes);
        assert!(bounds.try_reserve(2, 10).is_some());
    }
}
