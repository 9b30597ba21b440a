//! Bytes in flight, over all connections: of requests that are not answered yet and of answers that are not read yet.
//! One number with one bound, `limits.in_flight_bytes`, so that many connections that are each within their own bounds
//! cannot take all memory together. Beyond it the front-end refuses what brings or fetches messages and serves the rest.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytesize::ByteSize;

/// The sum of all [`Share`]s, and its bound.
#[derive(Debug)]
pub(crate) struct InFlight {
    used: AtomicUsize,
    max: usize,
}

impl InFlight {
    /// Nothing is in flight yet.
    pub(crate) fn new(max: ByteSize) -> Arc<Self> {
        let max = usize::try_from(max.as_u64()).unwrap_or(usize::MAX);
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    /// Whether nothing more is to be taken in or to be read for clients. What is small, and what helps others to finish,
    /// still is.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.max
    }

    /// Bytes of all shares.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A share of nothing.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { all: Arc::clone(self), mine: AtomicUsize::new(0) }
    }
}

/// What one holder has in flight; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    all: Arc<InFlight>,
    mine: AtomicUsize,
}

impl Share {
    /// Counts `bytes` more.
    pub(crate) fn add(&self, bytes: usize) {
        self.mine.fetch_add(bytes, Ordering::Relaxed);
        self.all.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back `bytes` that were added before.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.mine.fetch_sub(bytes, Ordering::Relaxed);
        self.all.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Makes the share `bytes`, whatever it was. For a share that one task alone changes.
    pub(crate) fn set(&self, bytes: usize) {
        let before = self.bytes();
        // mostly neither: a connection within what is not counted does not touch the line that all of them share
        if bytes > before {
            self.add(bytes - before);
        } else if bytes < before {
            self.give_back(before - bytes);
        }
    }

    /// What the share is now, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.mine.load(Ordering::Relaxed)
    }

    /// Whether all shares together have reached the bound.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.all.is_exhausted()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.used.fetch_sub(*self.mine.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_bound_and_are_given_back() {
        let all = InFlight::new(ByteSize::b(100));
        let (one, two) = (all.share(), all.share());
        one.set(60);
        two.add(39);
        assert!(!all.is_exhausted());
        two.add(1);
        assert!(all.is_exhausted() && one.is_exhausted());
        one.set(10);
        assert!(!all.is_exhausted());
        assert_eq!((one.bytes(), two.bytes()), (10, 40));
        two.give_back(40);
        one.add(90);
        assert!(all.is_exhausted());
        drop(one);
        assert!(!all.is_exhausted());
        assert_eq!(all.used.load(Ordering::Relaxed), 0);
    }
}
