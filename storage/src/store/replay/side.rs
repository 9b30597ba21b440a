//! Ledgers that follow the log beside the running store, record by record.

use std::path::PathBuf;
use std::sync::Arc;

use super::digest;
use crate::file_system::SimulatedDisk;
use crate::format::frame::Frame;
use crate::format::record::RecordKind;
use crate::format::state_file::{StateFile, StateHeader, StateRole};
use crate::options::CheckPolicy;
use crate::state::ledger::{At, Ledger};
use crate::state::publish::Unseen;
use crate::state::snapshot;
use crate::state::transactions::history::History;

/// A record as it stood in the log.
#[derive(Debug, Clone)]
pub(super) struct Copied {
    pub(super) at: At,
    pub(super) kind: RecordKind,
    flags: u16,
    payload: Vec<u8>,
}

/// The records of a frame.
pub(super) fn copied(frame: &Frame<'_>) -> Vec<Copied> {
    let time_ms = frame.header.time_ms;
    let copy = |record: crate::format::frame::FrameRecord<'_>| Copied {
        at: At { position: record.position, size: record.size(), time_ms },
        kind: record.kind,
        flags: record.flags,
        payload: record.payload.to_vec(),
    };
    frame.records().map(copy).collect()
}

/// Two folds of the same records.
pub(super) struct Sides {
    segment_bytes: u64,
    /// Folded from nothing, without a stop.
    pub(super) plain: Ledger,
    /// Written to a base file and read back after each frame.
    base: Ledger,
}

impl Sides {
    pub(super) fn new(segment_bytes: u64) -> Self {
        let disk = Arc::new(SimulatedDisk::new());
        let history = History::open(disk, PathBuf::from("/side"), segment_bytes, 0).unwrap();
        let fresh = |history| Ledger::new(segment_bytes, CheckPolicy::default(), history);
        Self { segment_bytes, plain: fresh(Some(Arc::new(history))), base: fresh(None) }
    }

    /// Takes in a frame; both must agree then.
    pub(super) fn follow(&mut self, records: &[Copied]) {
        for Copied { at, kind, flags, payload } in records {
            self.plain.apply(*at, *kind, *flags, payload, &mut Unseen).unwrap();
            self.base.apply(*at, *kind, *flags, payload, &mut Unseen).unwrap();
        }
        let owes_jump = self.base.owes_jump;
        self.base = through_a_base(&self.base, self.segment_bytes);
        // no base is ever made between a start and its jump
        self.base.owes_jump = owes_jump;
        same("a base written and read back", &digest::of(&self.base), &digest::of(&self.plain));
    }
}

fn header(segment_bytes: u64, role: StateRole) -> StateHeader {
    StateHeader {
        role,
        generation: 1,
        position: 0,
        index: 0,
        time_ms: 0,
        synced_to: 0,
        term: 0,
        frame_bytes_max: 1 << 12,
        segment_bytes,
        nonce: [7; 16],
        clean: false,
    }
}

fn through_a_base(ledger: &Ledger, segment_bytes: u64) -> Ledger {
    let bytes = snapshot::base_file(ledger, header(segment_bytes, StateRole::Base));
    let mut restored = Ledger::new(segment_bytes, CheckPolicy::default(), None);
    snapshot::restore_base(&mut restored, &StateFile::parse(&bytes).unwrap()).unwrap();
    restored
}

/// What a start would make of a checkpoint of this ledger. `history` is another view of the ledger's own files.
pub(super) fn through_a_checkpoint(ledger: &Ledger, history: History, segment_bytes: u64) -> Ledger {
    let bytes = snapshot::checkpoint_file(ledger, header(segment_bytes, StateRole::Checkpoint));
    let mut restored = Ledger::new(segment_bytes, CheckPolicy::default(), Some(Arc::new(history)));
    snapshot::restore_checkpoint(&mut restored, &StateFile::parse(&bytes).unwrap()).unwrap();
    restored
}

/// Fails with the lines that only one of the two has.
pub(super) fn same(what: &str, got: &[String], want: &[String]) {
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).cloned().collect()
    };
    assert!(got == want, "{what}: has {:#?}, should have {:#?}", only(got, want), only(want, got));
}
