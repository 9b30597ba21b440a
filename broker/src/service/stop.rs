//! The broker's stop signal: given once, seen by every acceptor, connection and driver.

use super::watched::{self, Receiver, Sender};

/// Gives the signal.
#[derive(Debug)]
pub(crate) struct Stopper(Sender<bool>);

/// Sees the signal; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Receiver<bool>);

/// A connected pair. A dropped [`Stopper`] counts as a signal.
pub(crate) fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = watched::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Gives the signal; more than once does no harm.
    pub(crate) fn stop(&self) {
        self.0.change(|stopped| !std::mem::replace(stopped, true));
    }
}

impl Stop {
    /// True once the signal was given.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.is_gone()
    }

    /// Returns when the signal is given, at once if it already was. Cancel safe.
    pub(crate) async fn stopped(&mut self) {
        // an error means that the stopper is gone, which is a stop as well
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_sees_the_signal_even_when_it_came_first() {
        let (stopper, mut stop) = pair();
        let mut other = stop.clone();
        assert!(!stop.is_stopped());
        stopper.stop();
        stop.stopped().await;
        other.stopped().await;
        assert!(other.is_stopped());
    }

    #[tokio::test]
    async fn a_dropped_stopper_stops() {
        let (stopper, mut stop) = pair();
        drop(stopper);
        stop.stopped().await;
        assert!(stop.is_stopped());
    }
}
