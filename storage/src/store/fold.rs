//! Folding the log again from the base on, beside the ledger in use: for the next base, and for what is derived and has
//! to be made anew.

use super::Store;
use crate::error::StorageError;
use crate::format::frame::{Frame, FrameKind};
use crate::format::loss::Losses;
use crate::format::state_file::{StateFile, StateHeader};
use crate::state::corrupt_log;
use crate::state::ledger::{At, Ledger};
use crate::state::publish::Publisher;
use crate::state::snapshot;

/// A fold that is under way.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) ledger: Ledger,
    /// The base's, with what the last frame said.
    pub(super) header: StateHeader,
    losses: Losses,
    /// Where the next frame stands, unless there is a loss.
    end: u64,
}

impl Fold {
    /// What stands in the base that `base` names.
    pub(super) fn from_base(store: &Store, base: &StateHeader) -> Result<Self, StorageError> {
        let path = store.base.path(base.generation);
        let bytes = crate::base::read_whole(&*store.fs, &path)?;
        let file = StateFile::parse(&bytes).map_err(|e| StorageError::corrupt(&path, 0, e))?;
        let mut ledger = Ledger::new(store.options.segment_bytes, store.options.check, None);
        snapshot::restore_base(&mut ledger, &file)?;
        let losses = ledger.lost.losses.clone();
        // a base of before a cut may end in the gap behind it, where there are no bytes
        let end = base.position.max(store.log.first_position());
        Ok(Self { ledger, header: file.header, losses, end })
    }

    /// Where the next frame is to be read.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Folds in the next frame of the log.
    pub(super) fn take(
        &mut self,
        frame: &Frame<'_>,
        publisher: &mut dyn Publisher,
    ) -> Result<(), StorageError> {
        let header = &mut self.header;
        let follows = match frame.header.kind {
            FrameKind::Segment => header.index,
            _ => header.index + 1,
        };
        let bridged = self.losses.list.iter().any(|loss| (self.end..=frame.position).contains(&loss.from));
        self.end = frame.end();
        if frame.header.index != follows && !(bridged && frame.header.index > follows) {
            return Err(corrupt_log(frame.position, "the log does not continue the base"));
        }
        header.index = frame.header.index;
        header.time_ms = frame.header.time_ms;
        header.term = frame.header.term;
        for record in frame.records() {
            let at = At { position: record.position, size: record.size(), time_ms: frame.header.time_ms };
            self.ledger.apply(at, record.kind, record.flags, record.payload, publisher)?;
        }
        Ok(())
    }
}
