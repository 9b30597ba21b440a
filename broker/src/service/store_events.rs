//! What the store tells the broker, made awaitable: the limit, queues that grew, and the end of service.

use std::sync::Arc;

use mezzo_protocol::ids::PhysicalOffset;
use mezzo_storage::{Queue, StoreObserver};
use tokio::sync::watch;

use super::long_poll::LongPolls;

/// The store's observer. Its calls come from whichever thread published or synced, hold no lock and never block.
pub(crate) struct StoreEvents {
    limit: watch::Sender<u64>,
    fenced: watch::Sender<Option<String>>,
    long_polls: Arc<LongPolls>,
}

impl StoreEvents {
    /// An observer that wakes `long_polls` when a watched queue grows.
    pub(crate) fn new(long_polls: Arc<LongPolls>) -> Self {
        Self { limit: watch::channel(0).0, fenced: watch::channel(None).0, long_polls }
    }

    /// The published limit as an awaitable value; starts at zero until the store first reports.
    pub(crate) fn limit(&self) -> watch::Receiver<u64> {
        self.limit.subscribe()
    }

    /// Becomes `Some(reason)` when the store refuses all further work.
    pub(crate) fn fenced(&self) -> watch::Receiver<Option<String>> {
        self.fenced.subscribe()
    }
}

impl StoreObserver for StoreEvents {
    fn limit_advanced(&self, limit: PhysicalOffset) {
        // two reporters may race: the greater position stands
        self.limit.send_if_modified(|known| {
            let grew = limit.0 > *known;
            *known = (*known).max(limit.0);
            grew
        });
    }

    fn queue_grew(&self, queue: &Arc<Queue>) {
        self.long_polls.queue_grew(queue);
    }

    fn fenced(&self, reason: &str) {
        self.fenced.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert_with(|| reason.to_owned());
            first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn events() -> StoreEvents {
        StoreEvents::new(Arc::new(LongPolls::new(&Config::default().limits)))
    }

    #[test]
    fn the_limit_never_goes_back() {
        let events = events();
        let mut limit = events.limit();
        events.limit_advanced(PhysicalOffset(20));
        assert!(limit.has_changed().unwrap());
        assert_eq!(*limit.borrow_and_update(), 20);
        // a slower reporter of an older limit
        events.limit_advanced(PhysicalOffset(10));
        assert!(!limit.has_changed().unwrap());
        assert_eq!(*limit.borrow(), 20);
    }

    #[tokio::test]
    async fn the_first_reason_for_a_fence_stands() {
        let events = events();
        let mut fenced = events.fenced();
        StoreObserver::fenced(&events, "the disk");
        StoreObserver::fenced(&events, "a consequence");
        assert_eq!(fenced.wait_for(Option::is_some).await.unwrap().as_deref(), Some("the disk"));
    }
}
