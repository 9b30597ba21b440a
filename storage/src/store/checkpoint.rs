//! Checkpoints and the orderly end.

use mezzo_protocol::time::Timestamp;

use super::{Store, lock};
use crate::concurrency::atomic::Ordering;
use crate::error::StorageError;
use crate::format::state_file::{StateHeader, StateRole};
use crate::state::snapshot;

/// What is known of the newest checkpoint and base.
#[derive(Debug)]
pub(super) struct CheckpointState {
    /// Position of the newest checkpoint.
    pub(super) position: u64,
    /// Header of the newest base.
    pub(super) base: StateHeader,
}

impl Store {
    /// Writes a checkpoint of everything appended so far; a `clean` one is the last, and nothing is appended after it.
    ///
    /// # Errors
    /// When the log cannot be synced or the file not be written.
    pub fn checkpoint(&self, clean: bool) -> Result<(), StorageError> {
        let mut state = lock(&self.checkpointing);
        // most of the waiting happens outside the append lock
        self.sync()?;
        let (bytes, position, freed, published) = {
            let appender = self.appender();
            // after a failed write the ledger holds what the log does not
            self.log.check()?;
            let published = self.sync_unannounced()?;
            let position = appender.writer.position();
            let header = StateHeader {
                role: StateRole::Checkpoint,
                generation: position,
                position,
                index: appender.writer.index(),
                time_ms: appender.writer.time().as_ms(),
                synced_to: self.log.synced(),
                term: appender.writer.term(),
                clean,
                ..state.base
            };
            // pages given back from here on are named by this checkpoint
            let freed = self.view.pages.take_freed();
            if clean {
                // with the append lock held: what came behind the last checkpoint would be acknowledged, and no restart
                // would know that it may be lost
                self.closed.store(true, Ordering::Release);
                self.log.seal();
            }
            (snapshot::checkpoint_file(&appender.ledger, header), position, freed, published)
        };
        self.announce(published);
        self.state_bytes.fetch_max(bytes.len() as u64, Ordering::Relaxed);
        let written = self
            .view
            .pages
            .sync()
            // a second sync could succeed and change nothing, as everywhere
            .inspect_err(|e| self.log.fence(e.to_string()))
            .and_then(|()| self.checkpoints.write(&*self.fs, position, &bytes));
        if let Err(e) = written {
            self.view.pages.free(freed);
            self.report_if_fenced();
            return Err(e);
        }
        self.view.pages.reuse(freed);
        state.position = position;
        Ok(())
    }

    /// Ends in order: everything durable, a clean checkpoint at the log's end. Nothing may be appended afterwards.
    ///
    /// # Errors
    /// When the disk refuses; the next start then recovers as after a crash.
    pub fn close(&self, now: Timestamp) -> Result<(), StorageError> {
        self.flush_offsets(now)?;
        self.checkpoint(true)
    }
}
