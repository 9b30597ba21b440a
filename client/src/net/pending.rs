//! Requests that wait for their answer, by opaque.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mezzo_protocol::remoting::Frame;
use tokio::sync::oneshot;

/// Why a request cannot wait here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RegisterError {
    /// The bound is reached.
    Full,
    /// The connection is closed.
    Closed,
}

#[derive(Debug, Default)]
struct State {
    waiters: HashMap<i32, oneshot::Sender<Frame>>,
    next_opaque: i32,
    closed: bool,
}

/// The bounded table of one connection's unanswered requests.
#[derive(Debug)]
pub(crate) struct Pending {
    state: Mutex<State>,
    max: usize,
}

impl Pending {
    /// An empty table for at most `max` requests.
    pub(crate) fn new(max: usize) -> Self {
        Self { state: Mutex::default(), max }
    }

    /// A new opaque and the place where its answer will arrive.
    pub(crate) fn register(self: &Arc<Self>) -> Result<Waiter, RegisterError> {
        let mut state = self.lock();
        if state.closed {
            return Err(RegisterError::Closed);
        }
        if state.waiters.len() >= self.max {
            return Err(RegisterError::Full);
        }
        let (sender, receiver) = oneshot::channel();
        let mut sender = Some(sender);
        // After four billion requests an opaque may come around that still waits: skip it.
        while let Some(waiting) = sender.take() {
            let opaque = state.next_opaque;
            state.next_opaque = opaque.wrapping_add(1);
            match state.waiters.entry(opaque) {
                Entry::Vacant(place) => {
                    place.insert(waiting);
                    drop(state);
                    return Ok(Waiter { opaque, receiver, table: Arc::clone(self) });
                }
                Entry::Occupied(_) => sender = Some(waiting),
            }
        }
        Err(RegisterError::Full)
    }

    /// Hands an answer to its request; `false` if nobody waits for it any more.
    pub(crate) fn complete(&self, opaque: i32, frame: Frame) -> bool {
        let waiter = self.lock().waiters.remove(&opaque);
        waiter.is_some_and(|waiter| waiter.send(frame).is_ok())
    }

    /// No answers will come: wakes all who wait.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        drop(waiters);
    }

    /// Requests that wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().waiters.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock, and each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiting request. Dropping it gives its place free.
#[derive(Debug)]
pub(crate) struct Waiter {
    opaque: i32,
    receiver: oneshot::Receiver<Frame>,
    table: Arc<Pending>,
}

impl Waiter {
    /// What connects request and answer.
    pub(crate) const fn opaque(&self) -> i32 {
        self.opaque
    }

    /// Waits for the answer; `None` if the connection ends before.
    pub(crate) async fn answer(&mut self) -> Option<Frame> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.table.lock().waiters.remove(&self.opaque);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use mezzo_protocol::remoting::HeaderEncoding;

    fn frame(text: &'static str) -> Frame {
        Frame {
            encoding: HeaderEncoding::Json,
            header: Bytes::from_static(text.as_bytes()),
            body: Bytes::new(),
        }
    }

    #[tokio::test]
    async fn an_answer_finds_its_request_whatever_the_order() {
        let table = Arc::new(Pending::new(8));
        let (mut first, mut second) = (table.register().unwrap(), table.register().unwrap());
        assert!(table.complete(second.opaque(), frame("2")));
        assert!(table.complete(first.opaque(), frame("1")));
        assert_eq!(first.answer().await, Some(frame("1")));
        assert_eq!(second.answer().await, Some(frame("2")));
        assert!(!table.complete(first.opaque(), frame("again")));
    }

    #[tokio::test]
    async fn the_table_is_bounded_and_given_up_places_are_free_again() {
        let table = Arc::new(Pending::new(1));
        let held = table.register().unwrap();
        assert_eq!(table.register().err(), Some(RegisterError::Full));
        drop(held);
        assert_eq!(table.len(), 0);
        assert!(table.register().is_ok());
    }

    #[tokio::test]
    async fn closing_wakes_all_and_refuses_new_ones() {
        let table = Arc::new(Pending::new(8));
        let mut waiter = table.register().unwrap();
        table.close();
        assert_eq!(waiter.answer().await, None);
        assert_eq!(table.register().err(), Some(RegisterError::Closed));
    }

    #[test]
    fn opaques_wrap_around_those_that_still_wait() {
        let table = Arc::new(Pending::new(8));
        table.lock().next_opaque = i32::MAX;
        let held = table.register().unwrap();
        let next = table.register().unwrap();
        assert_eq!((held.opaque(), next.opaque()), (i32::MAX, i32::MIN));
        table.lock().next_opaque = i32::MAX;
        assert_eq!(table.register().unwrap().opaque(), i32::MIN + 1);
    }
}
