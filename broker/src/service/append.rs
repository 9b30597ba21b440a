//! Appends outside a connection's batch (topics, ticks, asks, offsets), and the wait for the limit that every durable
//! answer needs.

use std::sync::Arc;

use super::{store_events::StoreEvents, watched::Receiver};
use mezzo_protocol::{ids::PhysicalOffset, time::Timestamp};
use mezzo_storage::{Batch, StorageError, Store};

/// Why an append could not be answered for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// The store refused the batch; nothing of it was appended.
    #[error(transparent)]
    Refused(#[from] StorageError),
    /// The store was fenced while the batch waited to become durable: whether it did is known after a restart.
    #[error("the store stopped before the append was durable: {0}")]
    Fenced(String),
}

/// Appends and waits. Cheap to clone; holds no state of its own.
#[derive(Clone)]
pub(crate) struct Appender {
    store: Arc<Store>,
    events: Arc<StoreEvents>,
}

impl Appender {
    /// An appender for `store`, whose observer is `events`.
    pub(crate) fn new(store: Arc<Store>, events: Arc<StoreEvents>) -> Self {
        Self { store, events }
    }

    /// Appends `batch` as one frame and returns when the limit has passed it.
    ///
    /// # Errors
    /// [`AppendError`]: refused as a whole, or fenced while waiting.
    pub(crate) async fn append(
        &self,
        now: Timestamp,
        batch: &mut Batch,
    ) -> Result<PhysicalOffset, AppendError> {
        let end = self.store.append(now, batch)?;
        self.waiter().wait_for(end).await?;
        Ok(end)
    }

    /// A waiter of one's own; a connection keeps one for its life.
    pub(crate) fn waiter(&self) -> LimitWaiter {
        LimitWaiter {
            store: Arc::clone(&self.store),
            limit: self.events.limit(),
            fenced: self.events.fenced(),
        }
    }
}

/// Waits until the published limit has reached a position.
pub(crate) struct LimitWaiter {
    store: Arc<Store>,
    limit: Receiver<u64>,
    fenced: Receiver<Option<String>>,
}

impl LimitWaiter {
    /// Returns when everything before `end` is published. An idle store is synced by the caller itself, which saves two
    /// thread switches; otherwise the syncer is woken and a group forms behind it.
    ///
    /// # Errors
    /// [`AppendError::Fenced`] when the store gives up first.
    pub(crate) async fn wait_for(&mut self, end: PhysicalOffset) -> Result<(), AppendError> {
        if self.store.limit() >= end {
            return Ok(());
        }
        // other connections of this reactor may have requests ready: what they append now goes into the same sync
        tokio::task::yield_now().await;
        if self.store.sync_now_if_idle(end) {
            return Ok(());
        }
        self.store.request_sync();
        tokio::select! {
            biased;
            // both senders live in the store's observer, which outlives every waiter
            _ = self.limit.wait_for(|limit| *limit >= end.0) => Ok(()),
            _ = self.fenced.wait_for(Option::is_some) => {
                let reason = self.fenced.borrow().clone();
                Err(AppendError::Fenced(reason.unwrap_or_else(|| "the store is closed".to_owned())))
            }
        }
    }
}
