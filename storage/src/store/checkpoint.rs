//! Checkpoints, history files, retention and the orderly end.
//!
//! A segment goes only in this order: what closed its last open message durable, base' = fold(base, segment) durable,
//! then the segment's file removed. A crash between the two leaves a segment before the base, which the next start
//! removes.

use mezzo_protocol::time::Timestamp;

use super::{Store, lock};
use crate::concurrency::atomic::Ordering;
use crate::error::StorageError;
use crate::format::frame::FrameKind;
use crate::format::state_file::{StateFile, StateHeader, StateRole};
use crate::state::corrupt_log;
use crate::state::ledger::{At, Ledger};
use crate::state::publish::Unseen;
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
    /// One round of housekeeping: history files of closed segments, a checkpoint if enough was appended, retention.
    /// A full disk stops none of them for the others' sake, since retention is what makes room.
    ///
    /// # Errors
    /// When the disk refuses; nothing is lost, and the next round tries again.
    pub fn keep(&self, now: Timestamp) -> Result<(), StorageError> {
        let now = self.appender().leader_time(now);
        self.leader_ms.store(now.as_ms(), Ordering::Relaxed);
        let prepared = self.view.pages.prepare();
        // decisions that a power cut could still take back stay in memory
        let durable = self.limit.load(Ordering::Acquire).min(self.log.synced());
        self.history.close_segments_before(durable)?;
        let due = {
            let state = lock(&self.checkpointing);
            self.limit.load(Ordering::Acquire).saturating_sub(state.position) >= self.options.checkpoint_bytes
        };
        let checkpointed = if due { self.checkpoint(false) } else { Ok(()) };
        prepared.and(checkpointed).and(self.retain(now)).and(self.expire_history(now))
    }

    /// Writes a checkpoint of everything appended so far.
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
            (snapshot::checkpoint_file(&appender.ledger, header), position, freed, published)
        };
        self.announce(published);
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
        self.checkpoint(true)?;
        self.closed.store(true, Ordering::Release);
        self.log.seal();
        Ok(())
    }

    /// `now` is leader time, as what it is compared with. Deletes the front segments whose messages are all visible and older than the retention, one per call.
    fn retain(&self, now: Timestamp) -> Result<(), StorageError> {
        let segments = self.log.segments();
        // where the next one begins, not one segment on: after a cut there are gaps
        let (Some(oldest), Some(next)) = (segments.first(), segments.get(1)) else { return Ok(()) };
        let next = next.base;
        let mut state = lock(&self.checkpointing);
        // the checkpoint must lie beyond, or it would name what is gone
        if next > state.position || next > self.log.synced() {
            return Ok(());
        }
        let summary = self.appender().ledger.segments.get(oldest.base);
        let oldest_kept_ms = now.as_ms().saturating_sub(self.options.retention_ms);
        if summary.open > 0 || summary.newest_visible_ms >= oldest_kept_ms {
            return Ok(());
        }
        // a power cut must not open again what counts as closed here
        self.sync()?;
        state.base = self.advance_base(&state.base, next)?;
        let first = self.log.remove_first_segment()?;
        self.appender().ledger.segments.drop_before(first);
        for queue in self.topics().iter().flat_map(|t| t.queues()) {
            queue.drop_before(&self.view.pages, first)?;
        }
        tracing::info!(first_position = first, "retention deleted a log segment");
        Ok(())
    }

    /// Forgets decisions beyond the horizon. `now` is leader time.
    fn expire_history(&self, now: Timestamp) -> Result<(), StorageError> {
        let horizon_ms = self.options.history_horizon_ms.max(self.options.retention_ms);
        let older_than_ms = now.as_ms().saturating_sub(horizon_ms);
        self.history.expire(self.log.first_position(), older_than_ms, self.options.history_bytes_max)
    }

    /// base' = fold(base, frames below `to`), made durable.
    fn advance_base(&self, base: &StateHeader, to: u64) -> Result<StateHeader, StorageError> {
        let path = self.base.path(base.generation);
        let bytes = crate::base::read_whole(&*self.fs, &path)?;
        let file = StateFile::parse(&bytes).map_err(|e| StorageError::corrupt(&path, 0, e))?;
        let mut ledger = Ledger::new(self.options.segment_bytes, self.options.check, None);
        snapshot::restore_base(&mut ledger, &file)?;
        let mut header =
            StateHeader { generation: base.generation + 1, position: to, synced_to: to, ..file.header };
        // a base of before a cut may end in the gap behind it, where there are no bytes
        let from = base.position.max(self.log.first_position());
        let losses = ledger.lost.losses.clone();
        let mut end = from;
        self.log.scan(from, to, &mut |frame| {
            let follows = match frame.header.kind {
                FrameKind::Segment => header.index,
                _ => header.index + 1,
            };
            let bridged = losses.list.iter().any(|loss| (end..=frame.position).contains(&loss.from));
            end = frame.end();
            if frame.header.index != follows && !(bridged && frame.header.index > follows) {
                return Err(corrupt_log(frame.position, "the log does not continue the base"));
            }
            header.index = frame.header.index;
            header.time_ms = frame.header.time_ms;
            header.term = frame.header.term;
            for record in frame.records() {
                let at = At { position: record.position, size: record.size(), time_ms: frame.header.time_ms };
                ledger.apply(at, record.kind, record.flags, record.payload, &mut Unseen)?;
            }
            Ok(())
        })?;
        self.base.write(&*self.fs, header.generation, &snapshot::base_file(&ledger, header))?;
        Ok(header)
    }
}
