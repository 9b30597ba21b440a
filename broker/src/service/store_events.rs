//! What the store tells the broker, made awaitable: the limit, queues that grew, and the end of service.

use std::sync::Arc;

use super::{
    doubt::DoubtLines,
    long_poll::LongPolls,
    watched::{self, Receiver, Sender},
};
use mezzo_protocol::ids::PhysicalOffset;
use mezzo_storage::{LeftDoubt, Queue, StoreObserver};

/// The store's observer. Its calls come from whichever thread published or synced, hold no lock and never block.
pub(crate) struct StoreEvents {
    limit: Sender<u64>,
    fenced: Sender<Option<String>>,
    long_polls: Arc<LongPolls>,
    doubt: DoubtLines,
}

impl StoreEvents {
    /// An observer that wakes `long_polls` when a watched queue grows.
    pub(crate) fn new(long_polls: Arc<LongPolls>) -> Self {
        let doubt = DoubtLines::default();
        Self { limit: watched::channel(0).0, fenced: watched::channel(None).0, long_polls, doubt }
    }

    /// The published limit as an awaitable value; starts at zero until the store first reports.
    pub(crate) fn limit(&self) -> Receiver<u64> {
        self.limit.subscribe()
    }

    /// Becomes `Some(reason)` when the store refuses all further work.
    pub(crate) fn fenced(&self) -> Receiver<Option<String>> {
        self.fenced.subscribe()
    }
}

impl StoreObserver for StoreEvents {
    fn limit_advanced(&self, limit: PhysicalOffset) {
        // two reporters may race: the greater position stands
        self.limit.change(|known| {
            let grew = limit.0 > *known;
            *known = (*known).max(limit.0);
            grew
        });
    }

    fn queue_grew(&self, queue: &Arc<Queue>) {
        self.long_polls.queue_grew(queue);
    }

    fn left_doubt(&self, left: &LeftDoubt) {
        self.doubt.ended(left);
    }

    fn fenced(&self, reason: &str) {
        self.fenced.change(|known| {
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
        let limit = events.limit();
        events.limit_advanced(PhysicalOffset(20));
        assert_eq!(*limit.borrow(), 20);
        // a slower reporter of an older limit
        events.limit_advanced(PhysicalOffset(10));
        assert_eq!(*limit.borrow(), 20);
    }

    #[tokio::test]
    async fn the_first_reason_for_a_fence_stands() {
        let events = events();
        let fenced = events.fenced();
        StoreObserver::fenced(&events, "the disk");
        StoreObserver::fenced(&events, "a consequence");
        fenced.wait_for(Option::is_some).await.unwrap();
        assert_eq!(fenced.borrow().as_deref(), Some("the disk"));
    }
}
