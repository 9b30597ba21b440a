//! The writing half of recovery; `recover.rs` gives the order of the steps and the reasons.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::behind_hole::is_zero;
use super::chain::Folder;
use super::layout::Layout;
use super::prepare::{allocate_segment, discard_file};
use super::recover::Opening;
use super::replay::Replayed;
use super::segment::{Segment, segment_name};
use super::shared::{Log, Parts};
use super::walk::{WINDOW_BYTES, Window};
use super::writer::{FramePlace, Sequence, Writer, segment_frame, single_record_frame};
use crate::error::StorageError;
use crate::file_system::{File, OpenMode};
use crate::format::frame::FrameKind;
use crate::format::record::{LayoutRecord, RecordKind, Start};

/// A new segment is filled with zeros this far before it is served from; the preparer fills the rest.
const FIRST_FILL_BYTES: u64 = 1024 * 1024;

/// The segment that the new term is written to.
struct Active {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    /// Position behind the term's first frame.
    end: u64,
}

/// Makes the disk say what the walk has found, opens the term, and hands out the running log.
pub(super) fn reopen(
    folder: &Folder,
    opening: &Opening,
    replayed: &Replayed,
    clean: bool,
    term: u32,
) -> Result<(Arc<Log>, Writer), StorageError> {
    let last = Sequence {
        term,
        index: replayed.last.index + 1,
        time_ms: opening.now.as_ms().max(replayed.last.time_ms),
    };
    let mut segments: VecDeque<_> = replayed
        .chain
        .iter()
        .map(|(index, end)| {
            let found = &folder.files[*index];
            Arc::new(Segment::closed(&folder.dir, found.base, *end, found.len))
        })
        .collect();
    let start = Start { ack: opening.ack, clean, version: env!("CARGO_PKG_VERSION") };
    let in_place = if clean { continue_in_place(folder, replayed, last, &start)? } else { None };
    let active = match (in_place, replayed.chain.last().copied()) {
        (Some(active), _) => {
            segments.pop_back();
            active
        }
        (None, Some((index, end))) => {
            let kept = settle_tail(folder, replayed, index, end)?;
            segments.pop_back();
            segments.push_back(kept);
            begin_segment(folder, replayed, last, &start)?
        }
        (None, None) => {
            // of a first start that was killed: a name that goes while the next one stays would look like damage
            folder.fs.sync_dir(&folder.dir).map_err(StorageError::io("sync", &folder.dir))?;
            begin_segment(folder, replayed, last, &start)?
        }
    };
    segments.push_back(Arc::clone(&active.segment));
    let spares = settle_spares(folder, replayed, &active.segment)?;
    let newest = spares.back().unwrap_or(&active.segment).base;
    let log = Arc::new(Log::new(Parts {
        fs: Arc::clone(&folder.fs),
        dir: folder.dir.clone(),
        layout: opening.layout,
        options: opening.options,
        segments,
        spares,
        next_base: newest + folder.layout.segment_bytes,
        end: active.end,
        losses: folder.losses.clone(),
    }));
    let writer = Writer::new(Arc::clone(&log), active.segment, active.file, last, active.end);
    Ok((log, writer))
}

/// Steps 1 and 2: what was read above `synced_to` is made durable, and the last file ends where the log does.
fn settle_tail(
    folder: &Folder,
    replayed: &Replayed,
    last: usize,
    end: u64,
) -> Result<Arc<Segment>, StorageError> {
    for (index, segment_end) in replayed.chain.iter().copied() {
        if segment_end > replayed.synced_to {
            write_again(folder, index, replayed.synced_to, segment_end)?;
        }
    }
    // the names, too: a process that was killed may have left a segment that only the page cache knows, and once the
    // new segment points back to it, its loss would look like damage
    folder.fs.sync_dir(&folder.dir).map_err(StorageError::io("sync", &folder.dir))?;
    let found = &folder.files[last];
    let kept = end - found.base;
    if found.len > kept {
        let file = folder.open(last, OpenMode::ReadWrite)?;
        file.set_len(kept).map_err(StorageError::io("cut", &found.path))?;
        file.sync_all().map_err(StorageError::io("sync", &found.path))?;
    }
    Ok(Arc::new(Segment::closed(&folder.dir, found.base, end, kept)))
}

/// Writes the bytes of `[from, to)` that stand in this file to where they stand, and syncs.
fn write_again(folder: &Folder, index: usize, from: u64, to: u64) -> Result<(), StorageError> {
    let found = &folder.files[index];
    let file = folder.open(index, OpenMode::ReadWrite)?;
    let mut window = Window::default();
    let mut at = from.max(found.base) - found.base;
    let end = to - found.base;
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(WINDOW_BYTES);
        let bytes =
            window.from(&*file, found.len, at, left).map_err(StorageError::io("read", &found.path))?;
        let Some(bytes) = bytes.and_then(|bytes| bytes.get(..left)) else { break };
        file.write_all_at(bytes, at).map_err(StorageError::io("write again", &found.path))?;
        at += left as u64;
    }
    file.sync_all().map_err(StorageError::io("sync", &found.path))
}

/// Step 3: a segment behind every file there is, with its head and the term's first frame.
fn begin_segment(
    folder: &Folder,
    replayed: &Replayed,
    first: Sequence,
    start: &Start<'_>,
) -> Result<Active, StorageError> {
    let base = folder.files.last().map_or(0, |found| found.base + folder.layout.segment_bytes);
    let path = folder.dir.join(segment_name(base));
    let made = new_file(folder, replayed, &path).and_then(|file| {
        let previous = Sequence { index: replayed.last.index, ..first };
        let mut bytes = segment_frame(
            folder.seed,
            base,
            &layout_record(&folder.layout, replayed.end),
            previous,
            replayed.end,
        );
        let position = base + bytes.len() as u64;
        bytes.extend_from_slice(&blank_frame(folder, position, replayed.end, first, start));
        let end = base + bytes.len() as u64;
        // one write for the frames and the first zeros: fewer states that a crash can leave
        let fill = FIRST_FILL_BYTES.min(folder.layout.segment_bytes);
        bytes.resize(usize::try_from(fill).unwrap_or(usize::MAX).max(bytes.len()), 0);
        file.write_all_at(&bytes, 0).map_err(StorageError::io("write", &path))?;
        file.sync_all().map_err(StorageError::io("sync", &path))?;
        Ok((file, end, bytes.len() as u64))
    });
    let (file, end, zeroed_to) = made.inspect_err(|_| discard_file(&*folder.fs, &path))?;
    folder.fs.sync_dir(&folder.dir).map_err(StorageError::io("sync", &folder.dir))?;
    let segment = Segment::open(&folder.dir, base, Arc::clone(&file), folder.layout.segment_bytes, zeroed_to);
    segment.set_end(end);
    Ok(Active { segment: Arc::new(segment), file, end })
}

/// The file of a new segment. On a full disk the space of one that will be removed anyway is taken, or a crash on a full
/// disk could never be recovered from.
///
/// Its name stays until the new segment is durable, so that no gap in the names can come of a crash (`whole.rs`) and
/// the next recovery goes behind it again.
fn new_file(folder: &Folder, replayed: &Replayed, path: &Path) -> Result<Arc<dyn File>, StorageError> {
    let segment_bytes = folder.layout.segment_bytes;
    let full = match allocate_segment(&*folder.fs, path, segment_bytes) {
        Err(error) if error.is_out_of_space() => error,
        other => return other,
    };
    discard_file(&*folder.fs, path);
    let unlinked = |index: &usize| replayed.chain.iter().all(|(linked, _)| linked != index);
    let whole = |index: &usize| folder.files[*index].len == segment_bytes;
    let Some(old) = (0..folder.files.len()).filter(unlinked).rfind(whole) else { return Err(full) };
    let emptied = folder.open(old, OpenMode::ReadWrite)?;
    let old_path = &folder.files[old].path;
    emptied.set_len(0).map_err(StorageError::io("empty", old_path))?;
    // the space is free when the disk knows of it
    emptied.sync_all().map_err(StorageError::io("sync", old_path))?;
    allocate_segment(&*folder.fs, path, segment_bytes)
}

/// After a stop in order: the term's first frame right behind the last one. `None` if there is no segment yet, or so
/// little room left in the last one that not even this frame fits.
fn continue_in_place(
    folder: &Folder,
    replayed: &Replayed,
    first: Sequence,
    start: &Start<'_>,
) -> Result<Option<Active>, StorageError> {
    let Some((index, end)) = replayed.chain.last().copied() else { return Ok(None) };
    let found = &folder.files[index];
    let blank = blank_frame(folder, end, end, first, start);
    if end + blank.len() as u64 > found.base + folder.layout.segment_bytes {
        return Ok(None);
    }
    let file = folder.open(index, OpenMode::ReadWrite)?;
    // a copied folder may have lost the reservation
    file.allocate(found.len).map_err(StorageError::io("allocate", &found.path))?;
    file.write_all_at(&blank, end - found.base).map_err(StorageError::io("write", &found.path))?;
    file.sync_all().map_err(StorageError::io("sync", &found.path))?;
    let end = end + blank.len() as u64;
    let segment = Segment::open(&folder.dir, found.base, Arc::clone(&file), found.len, end - found.base);
    segment.set_end(end);
    Ok(Some(Active { segment: Arc::new(segment), file, end }))
}

/// Step 4: keeps what is prepared and certainly unused, removes everything else that is not in the log, and sees to
/// it that one prepared segment is there. On a full disk there may be none: new messages are refused then, and what is
/// left of the segment that is written to is the reserve.
///
/// A file can only be unused for certain after a stop in order: then it stands above the segment that goes on in
/// place. After any other stop the new segment stands above every file.
///
/// Above that segment no gap in the names is left or made, not even by a crash in here: once the log had come to the gap,
/// the next start would take it for a segment that is lost (`whole.rs`).
fn settle_spares(
    folder: &Folder,
    replayed: &Replayed,
    active: &Segment,
) -> Result<VecDeque<Arc<Segment>>, StorageError> {
    let segment_bytes = folder.layout.segment_bytes;
    let sync_dir = || folder.fs.sync_dir(&folder.dir).map_err(StorageError::io("sync", &folder.dir));
    let mut spares = VecDeque::new();
    let mut next_base = active.base + segment_bytes;
    let mut useless = Vec::new();
    for (index, found) in folder.files.iter().enumerate() {
        if replayed.chain.iter().any(|(linked, _)| *linked == index) {
            continue;
        }
        if found.base == next_base && found.len == segment_bytes {
            let file = folder.open(index, OpenMode::ReadWrite)?;
            if is_zero(&folder.source_of(&*file, found), 0, FIRST_FILL_BYTES)? {
                file.allocate(segment_bytes).map_err(StorageError::io("allocate", &found.path))?;
                file.sync_all().map_err(StorageError::io("sync", &found.path))?;
                spares.push_back(Arc::new(Segment::open(&folder.dir, found.base, file, segment_bytes, 0)));
                next_base += segment_bytes;
                continue;
            }
        }
        useless.push(found);
    }
    for found in useless.into_iter().rev() {
        folder.fs.remove(&found.path).map_err(StorageError::io("remove", &found.path))?;
        if found.base > active.base {
            sync_dir()?;
        }
    }
    if spares.is_empty() {
        let path = folder.dir.join(segment_name(next_base));
        match allocate_segment(&*folder.fs, &path, segment_bytes) {
            Ok(file) => {
                spares.push_back(Arc::new(Segment::open(&folder.dir, next_base, file, segment_bytes, 0)));
            }
            Err(error) => {
                discard_file(&*folder.fs, &path);
                if !error.is_out_of_space() {
                    return Err(error);
                }
                tracing::warn!(
                    "the disk is full: new messages are refused until there is room for a segment"
                );
            }
        }
    }
    sync_dir()?;
    Ok(spares)
}

fn layout_record(layout: &Layout, previous_end: u64) -> LayoutRecord {
    LayoutRecord {
        nonce: layout.nonce,
        segment_bytes: layout.segment_bytes,
        frame_bytes_max: layout.frame_bytes_max,
        previous_end,
    }
}

fn blank_frame(
    folder: &Folder,
    position: u64,
    synced_to: u64,
    sequence: Sequence,
    start: &Start<'_>,
) -> Vec<u8> {
    let mut payload = Vec::new();
    start.encode(&mut payload);
    let place = FramePlace { kind: FrameKind::Blank, position, synced_to };
    single_record_frame(folder.seed, place, sequence, RecordKind::Start, &payload)
}
