//! Checking what is derived: checkpoint, consume queue pages, history files.

use std::path::Path;
use std::sync::Arc;

use super::folder::{bad_state, numbered};
use super::progress::Progress;
use super::report::{Damage, DamageKind};
use crate::base::read_whole;
use crate::error::StorageError;
use crate::file_system::{FileSystem, OpenMode};
use crate::format::history_file::{HISTORY_FOOTER_BYTES, HISTORY_PAGE_BYTES, HistoryFooter, HistoryPage};
use crate::format::history_row::HistoryRow;
use crate::format::state_file::{StateFile, StateHeader};
use crate::options::CheckPolicy;
use crate::state::ledger::Ledger;
use crate::state::queues::{OwnedPage, check_pages};
use crate::state::snapshot;

/// A checkpoint that holds and belongs to the base.
pub(super) struct Checkpoint {
    pub(super) header: StateHeader,
    pub(super) ledger: Ledger,
    /// Decisions of segments that have no history file.
    pub(super) recent: Vec<HistoryRow>,
    /// Its consume queue pages hold, too.
    pub(super) pages_hold: bool,
}

/// Reads checkpoints and the pages that the newest usable one names.
pub(super) fn check_checkpoints(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    base: &StateHeader,
    newest_loss: u64,
    damages: &mut Vec<Damage>,
    progress: &mut dyn Progress,
) -> Result<(Option<Checkpoint>, u64), StorageError> {
    let mut usable = None;
    let mut known_synced = 0;
    for (_, path) in numbered(&**fs, &dir.join("checkpoint"))? {
        let bytes = read_whole(&**fs, &path)?;
        progress.file(&path, bytes.len() as u64);
        progress.advance(bytes.len() as u64);
        let mut derived = |offset, reason: String| {
            let file = path.clone();
            damages.push(Damage { kind: DamageKind::Derived, file, offset, reason, lost: None });
        };
        let file = match StateFile::parse(&bytes) {
            Ok(file) => file,
            Err(error) => {
                let bad = bad_state(&path, &bytes, &error)?;
                derived(bad.offset, bad.reason);
                continue;
            }
        };
        let header = file.header;
        if header.nonce != base.nonce || header.position < base.position {
            derived(0, "it belongs to another log, or lies before the base".into());
            continue;
        }
        known_synced = known_synced.max(header.synced_to).max(header.position);
        if snapshot::losses_of(&file)?.newest != newest_loss {
            derived(0, "it was written before a loss was accepted".into());
            continue;
        }
        let mut ledger = Ledger::new(base.segment_bytes, CheckPolicy::default(), None);
        match snapshot::restore_checkpoint(&mut ledger, &file) {
            Ok(_) => {
                let recent = snapshot::decisions_of(&file)?.into_iter().map(|(_, row)| row).collect();
                usable = Some(Checkpoint { header, ledger, recent, pages_hold: true });
            }
            Err(error) => derived(0, error.to_string()),
        }
    }
    if let Some(checkpoint) = &mut usable {
        let queues = checkpoint.ledger.topics.values().flat_map(|topic| topic.queues());
        let owned: Vec<OwnedPage> =
            queues.flat_map(|queue| queue.log().owned_pages().collect::<Vec<_>>()).collect();
        let pages = dir.join("queues");
        let bytes = (owned.len() * crate::state::queues::PAGE_BYTES) as u64;
        progress.file(&pages, bytes);
        check_pages(&**fs, &pages, owned, &mut |page| {
            checkpoint.pages_hold = false;
            let reason = format!("consume queue page: {}", page.reason);
            let (file, offset) = (page.file, page.offset);
            damages.push(Damage { kind: DamageKind::Derived, file, offset, reason, lost: None });
            true
        })?;
        progress.advance(bytes);
    }
    Ok((usable, known_synced))
}

/// Reads every page of every history file and shows its rows to `each`.
pub(super) fn check_history(
    fs: &dyn FileSystem,
    dir: &Path,
    base: &StateHeader,
    damages: &mut Vec<Damage>,
    progress: &mut dyn Progress,
    each: &mut dyn FnMut(&HistoryRow),
) -> Result<(), StorageError> {
    for (number, path) in numbered(fs, &dir.join("history"))? {
        let in_the_log = number >= base.position / base.segment_bytes.max(1);
        let kind = if in_the_log { DamageKind::Derived } else { DamageKind::History };
        if let Err((offset, reason)) = check_history_file(fs, &path, number, progress, each)? {
            damages.push(Damage { kind, file: path, offset, reason, lost: None });
        }
    }
    Ok(())
}

/// Bytes of the file; `Err`: where it does not hold, and what.
pub(crate) fn check_history_file(
    fs: &dyn FileSystem,
    path: &Path,
    number: u64,
    progress: &mut dyn Progress,
    each: &mut dyn FnMut(&HistoryRow),
) -> Result<Result<u64, (u64, String)>, StorageError> {
    let file = fs.open(path, OpenMode::Read).map_err(StorageError::io("open", path))?;
    let len = file.len().map_err(StorageError::io("measure", path))?;
    progress.file(path, len);
    progress.advance(len);
    let Some(at) = len.checked_sub(HISTORY_FOOTER_BYTES as u64) else {
        return Ok(Err((0, "it is shorter than a footer".into())));
    };
    let mut bytes = [0; HISTORY_FOOTER_BYTES];
    file.read_exact_at(&mut bytes, at).map_err(StorageError::io("read", path))?;
    let footer = match HistoryFooter::parse(&bytes) {
        Ok(footer) => footer,
        Err(error) => return Ok(Err((at, error.to_string()))),
    };
    if footer.file_bytes() != len || footer.segment != number {
        return Ok(Err((at, "its footer speaks of another file".into())));
    }
    let mut page: Box<HistoryPage> = Box::new([0; HISTORY_PAGE_BYTES]);
    for index in 0..footer.row_pages() + footer.index_pages() {
        let offset = u64::from(index) * HISTORY_PAGE_BYTES as u64;
        file.read_exact_at(&mut *page, offset).map_err(StorageError::io("read", path))?;
        let held = match index.checked_sub(footer.row_pages()) {
            None => footer.rows_of(index, &page).map(|rows| rows.iter().for_each(&mut *each)),
            Some(of_index) => footer.index_of(of_index, &page).map(|_| ()),
        };
        if let Err(error) = held {
            return Ok(Err((offset, error.to_string())));
        }
    }
    Ok(Ok(len))
}
