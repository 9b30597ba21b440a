//! Bytes that wait to be written to one socket. Callers append whole frames; the writer takes everything at once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use mezzo_protocol::error::EncodeError;
use tokio::sync::Notify;

use super::deadline::Deadline;

/// Capacity that an emptied buffer may keep for its next use, in bytes.
const KEPT_CAPACITY_MAX: usize = 1 << 20;

/// Why a frame was not taken. In each case none of it was written.
#[derive(Debug)]
pub(crate) enum PushError {
    /// No room before the deadline.
    Full,
    /// The connection is closed.
    Closed,
    /// The frame cannot be written.
    Encode(EncodeError),
}

#[derive(Debug)]
struct State {
    buffer: BytesMut,
    closed: bool,
}

/// The write buffer of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    bytes_max: usize,
    filled: Notify,
    drained: Notify,
}

impl Outbox {
    /// An empty outbox. One frame may go beyond `bytes_max`, so that a large frame fits an empty outbox of any size.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let state = Mutex::new(State { buffer: BytesMut::new(), closed: false });
        Self { state, bytes_max, filled: Notify::new(), drained: Notify::new() }
    }

    /// Appends what `encode` writes, now or not at all.
    pub(crate) fn try_push(
        &self,
        encode: &mut impl FnMut(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<(), PushError> {
        let mut state = self.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        if state.buffer.len() >= self.bytes_max {
            return Err(PushError::Full);
        }
        let was_empty = state.buffer.is_empty();
        encode(&mut state.buffer).map_err(PushError::Encode)?;
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Appends what `encode` writes, waiting for room until the deadline.
    pub(crate) async fn push(
        &self,
        mut encode: impl FnMut(&mut BytesMut) -> Result<(), EncodeError>,
        deadline: Deadline,
    ) -> Result<(), PushError> {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            // Listens before it looks: a drain between the two is not missed.
            drained.as_mut().enable();
            match self.try_push(&mut encode) {
                Err(PushError::Full) => {}
                done => return done,
            }
            if tokio::time::timeout_at(deadline.at(), drained).await.is_err() {
                return Err(PushError::Full);
            }
        }
    }

    /// Appends whole frames that were encoded elsewhere, waiting for room until the deadline: nobody encodes under the
    /// lock, and an empty outbox takes the buffer as it is.
    pub(crate) async fn push_whole(&self, frames: BytesMut, deadline: Deadline) -> Result<(), PushError> {
        let mut frames = Some(frames);
        let append = |out: &mut BytesMut| {
            match frames.take() {
                Some(frames) if out.is_empty() => *out = frames,
                Some(frames) => out.extend_from_slice(&frames),
                None => {}
            }
            Ok(())
        };
        self.push(append, deadline).await
    }

    /// Takes everything into `taken` (which is empty), waiting until there is something. `false` once closed.
    pub(crate) async fn take(&self, taken: &mut BytesMut) -> bool {
        loop {
            {
                let mut state = self.lock();
                if !state.buffer.is_empty() {
                    if taken.capacity() > KEPT_CAPACITY_MAX {
                        *taken = BytesMut::new();
                    }
                    std::mem::swap(&mut state.buffer, taken);
                    drop(state);
                    self.drained.notify_waiters();
                    return true;
                }
                if state.closed {
                    return false;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Takes no more frames; the writer finishes what is there.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while encoding leaves at worst a part of a frame, which the peer refuses; never a broken structure.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: &'static [u8]) -> impl FnMut(&mut BytesMut) -> Result<(), EncodeError> {
        move |out| {
            out.extend_from_slice(bytes);
            Ok(())
        }
    }

    #[tokio::test]
    async fn everything_that_waits_is_taken_at_once() {
        let outbox = Outbox::new(100);
        outbox.try_push(&mut put(b"one")).unwrap();
        outbox.try_push(&mut put(b"two")).unwrap();
        let mut taken = BytesMut::new();
        assert!(outbox.take(&mut taken).await);
        assert_eq!(&taken[..], b"onetwo");
    }

    #[tokio::test]
    async fn a_full_outbox_makes_senders_wait_until_it_is_taken() {
        let outbox = std::sync::Arc::new(Outbox::new(3));
        outbox.try_push(&mut put(b"full")).unwrap();
        assert!(matches!(outbox.push(put(b"x"), Deadline::after_ms(5)).await, Err(PushError::Full)));
        let waiting = tokio::spawn({
            let outbox = std::sync::Arc::clone(&outbox);
            async move { outbox.push(put(b"later"), Deadline::after_ms(10_000)).await }
        });
        let mut taken = BytesMut::new();
        assert!(outbox.take(&mut taken).await);
        waiting.await.unwrap().unwrap();
        taken.clear();
        assert!(outbox.take(&mut taken).await);
        assert_eq!(&taken[..], b"later");
    }

    #[tokio::test]
    async fn a_closed_outbox_is_emptied_and_then_over() {
        let outbox = Outbox::new(100);
        outbox.try_push(&mut put(b"last")).unwrap();
        outbox.close();
        assert!(matches!(outbox.try_push(&mut put(b"more")), Err(PushError::Closed)));
        let mut taken = BytesMut::new();
        assert!(outbox.take(&mut taken).await);
        taken.clear();
        assert!(!outbox.take(&mut taken).await);
    }
}
