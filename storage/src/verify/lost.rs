//! What a hole in the log takes with it, as the checkpoint behind it tells.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::derived::Checkpoint;
use super::report::{Lost, LostQueue};
use crate::error::StorageError;
use crate::file_system::FileSystem;
use crate::format::history_row::HistoryRow;
use crate::log::Hole;
use crate::state::queues::PageStore;

/// Most origins that are listed of one hole.
const LISTED_MAX: usize = 10_000;

fn is_in(parts: &[(u64, u64)], position: u64) -> bool {
    parts.iter().any(|(from, to)| (*from..*to).contains(&position))
}

/// What is known of each hole without any other file.
pub(super) fn bare(hole: &Hole) -> Lost {
    Lost { positions: hole.parts.clone(), frames: hole.frames, ..Lost::default() }
}

/// Adds what the checkpoint knows of the bytes of each hole that lies before it.
pub(super) fn tell(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    checkpoint: &Checkpoint,
    holes: &mut [Lost],
) -> Result<(), StorageError> {
    let end = checkpoint.header.position;
    let mut before: Vec<&mut Lost> =
        holes.iter_mut().filter(|lost| lost.positions.iter().all(|(_, to)| *to <= end)).collect();
    if before.is_empty() {
        return Ok(());
    }
    for lost in &mut before {
        lost.told = checkpoint.pages_hold;
    }
    let ledger = &checkpoint.ledger;
    for row in ledger.open.iter() {
        for lost in before.iter_mut().filter(|lost| is_in(&lost.positions, row.location)) {
            if lost.open.len() < LISTED_MAX {
                lost.open.push(row.origin);
            }
        }
    }
    for (_, _, row) in ledger.due.iter() {
        for lost in before.iter_mut().filter(|lost| is_in(&lost.positions, row.location)) {
            lost.delayed += 1;
        }
    }
    if !checkpoint.pages_hold {
        return Ok(());
    }
    let pages = PageStore::for_reading(Arc::clone(fs), dir.join("queues"))?;
    for queue in ledger.topics.values().flat_map(|topic| topic.queues()) {
        let mut found: BTreeMap<usize, LostQueue> = BTreeMap::new();
        let mut from = queue.min_offset().0;
        loop {
            let plan = queue.log().plan(from, READ_ENTRIES);
            let read = plan.run(&pages, READ_ENTRIES, READ_ENTRIES, &mut |_| true)?;
            for (offset, entry) in &read.entries {
                for (number, _) in
                    before.iter().enumerate().filter(|(_, lost)| is_in(&lost.positions, entry.position))
                {
                    let of_queue = found.entry(number).or_insert_with(|| LostQueue {
                        topic: queue.topic().as_str().to_owned(),
                        queue: queue.id().0,
                        first: *offset,
                        last: *offset,
                        messages: 0,
                    });
                    of_queue.last = *offset;
                    of_queue.messages += 1;
                }
            }
            if read.next_offset <= from {
                break;
            }
            from = read.next_offset;
        }
        for (number, of_queue) in found {
            if let Some(lost) = before.get_mut(number) {
                lost.queues.push(of_queue);
            }
        }
    }
    Ok(())
}

/// Entries of a queue that are read at a time.
const READ_ENTRIES: usize = 16_000;

/// Adds a decision to the holes that its record stood in.
pub(super) fn tell_decision(holes: &mut [Lost], row: &HistoryRow) {
    for lost in holes.iter_mut().filter(|lost| is_in(&lost.positions, row.decision_position)) {
        if lost.decisions.len() < LISTED_MAX {
            lost.decisions.push((row.origin, row.outcome));
        }
    }
}
