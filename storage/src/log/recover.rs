//! Opening a log: read, judge, cut, go on.
//!
//! Up to the judgement nothing is changed, so a log that is damaged, or written by a newer program, is left as it is.
//! The changes that follow are made in an order in which a crash after any of them is harmless, and the next recovery
//! comes to the same log:
//!
//! 1. *The unsynced tail is written again and synced.* It may stand in the page cache only, and a sync that failed
//!    before has perhaps marked those pages clean: a sync alone would succeed and change nothing. The same bytes go to
//!    the same places, so a crash on the way leaves no third content. The folder is synced, too, for the same reason.
//! 2. *The torn segment is cut.* After a crash here the hole is the end of the file.
//! 3. *A new segment is made behind every file that exists*, with its head (`previous_end` = the cut) and the term's
//!    blank frame, and synced; then the folder. Before that is durable, the old files are still there and the next
//!    recovery goes behind them again: a prepared segment that a power cut has emptied may have been in use, and
//!    its positions may be known to clients. After it, the walk arrives in the new segment by its link.
//! 4. *Files that are linked to nothing are removed*, only now that the new segment is named above them.
//!
//! A stop in order needs none of this: its last segment goes on in place. The blank frame is durable before anyone
//! gets a position behind it, so if only the blank frame is torn, nothing that was handed out is lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mezzo_protocol::time::Timestamp;

use super::behind_hole::{BehindHole, is_zero};
use super::chain::Folder;
use super::layout::{Layout, LogOptions};
use super::reopen::reopen;
use super::replay::{FrameVisitor, Replayed, replay};
use super::shared::Log;
use super::writer::Writer;
use crate::error::StorageError;
use crate::file_system::{FileSystem, OpenMode};
use crate::format::loss::Losses;
use crate::format::record::AckLevel;

/// After a stop in order, this much behind the log's end must be zero for the segment to go on in place.
const CLEAN_BYTES: u64 = 1024 * 1024;

/// Where the state ends that the log is read on top of: from the newest valid checkpoint, or the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResumePoint {
    /// Everything below is in the state, and was durable when the state was written.
    pub position: u64,
    /// Index of the last frame in the state; 0 if there is none.
    pub index: u64,
    /// Term of that frame.
    pub term: u32,
    /// Leader time of that frame, milliseconds since 1970.
    pub time_ms: u64,
    /// The log was known durable up to here.
    pub synced_to: u64,
    /// Whether a stop in order wrote the state, at the log's end.
    pub clean: bool,
}

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Sizes and secret: as the state file says, or new for a new log.
    pub layout: Layout,
    /// What this start chooses.
    pub options: LogOptions,
    /// Where to begin reading.
    pub resume: ResumePoint,
    /// When appends of this start are answered; recorded in the `start` record.
    pub ack: AckLevel,
    /// The clock, for the first frame of the term.
    pub now: Timestamp,
    /// Parts of the log whose loss was accepted.
    pub losses: Losses,
}

/// What a torn tail has cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Where the log was cut.
    pub position: u64,
    /// The segment file that was cut; the folder, if no segment holds the position.
    pub file: PathBuf,
    /// Bytes behind the cut that were not zero or stood between such: what was dropped, in all files.
    pub bytes: u64,
    /// Whole valid frames among them. None of them was durable together with all that came before it.
    pub frames: u64,
}

/// What opening a log has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Frames read.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Position behind the last valid frame, before this start wrote its own.
    pub end: u64,
    /// What was cut; `None` if nothing was.
    pub cut: Option<Cut>,
    /// Whether the log was closed in order, or is new.
    pub clean: bool,
    /// Segments, the one being written included.
    pub segments: usize,
    /// The term that this start opened.
    pub term: u32,
}

/// Whether the log in `dir` still holds everything from `position` on that it ever held. Changes nothing.
///
/// # Errors
/// When the folder cannot be read, or was made with another layout.
pub fn reaches_back_to(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    layout: &Layout,
    position: u64,
) -> Result<bool, StorageError> {
    Ok(Folder::read(fs, dir, layout, &Losses::default())?.reaches_back_to(position))
}

/// Opens the log in `dir` (created if missing), shows every valid frame from the resume point on to `visit`, in
/// order, and opens a new term. When this returns, the term's first frame and everything before it is durable, and at
/// least one prepared segment is there.
///
/// # Errors
/// [`StorageError::Corrupt`], [`StorageError::NewerVersion`], [`StorageError::Layout`] and whatever `visit` says leave
/// the disk as it was.
pub fn recover(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    opening: &Opening,
    visit: &mut FrameVisitor<'_>,
) -> Result<(Arc<Log>, Writer, RecoveryReport), StorageError> {
    opening.layout.validate()?;
    fs.create_dir_all(dir).map_err(StorageError::io("create", dir))?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs.sync_dir(parent).map_err(StorageError::io("sync", parent))?;
    }
    let folder = Folder::read(fs, dir, &opening.layout, &opening.losses)?;
    let replayed = replay(&folder, &opening.resume, visit)?;
    let clean = is_clean(&folder, &opening.resume, &replayed)?;
    let behind = if clean { BehindHole::default() } else { look_behind(&folder, &replayed)? };
    let synced_to = replayed.synced_to.max(behind.synced_to);
    let lost_to = opening.losses.at(replayed.end).map_or(replayed.end, |loss| loss.until);
    if synced_to > lost_to {
        return Err(rot(&folder, &replayed, synced_to));
    }
    folder.check_end(replayed.chain.last().map(|(index, _)| *index), replayed.end)?;
    let cut = (behind.data_bytes > 0).then(|| Cut {
        position: replayed.end,
        file: last_file(&folder, &replayed),
        bytes: behind.data_bytes,
        frames: behind.frames,
    });
    let term_before = replayed.last.term.max(behind.term);
    let term =
        term_before.checked_add(1).ok_or(StorageError::Layout { reason: "terms are used up".into() })?;
    let (log, writer) = reopen(&folder, opening, &replayed, clean, term)?;
    let report = RecoveryReport {
        frames: replayed.frames,
        records: replayed.records,
        end: replayed.end,
        cut,
        clean,
        segments: log.segments().len(),
        term,
    };
    Ok((log, writer, report))
}

/// Whether the last segment goes on in place: a state written by a stop in order, nothing behind it. A new log is
/// clean, too.
///
/// The bytes behind the end are looked at all the same: they hold something if the first frame of a later start was
/// torn, or if they were damaged. Then nothing is taken for granted.
fn is_clean(folder: &Folder, resume: &ResumePoint, replayed: &Replayed) -> Result<bool, StorageError> {
    let Some((last, _)) = replayed.chain.last() else {
        return Ok(folder.files.is_empty());
    };
    if !resume.clean || replayed.frames > 0 || replayed.end != resume.position {
        return Ok(false);
    }
    if folder.files[*last].len != folder.layout.segment_bytes || replayed.synced_to > replayed.end {
        return Ok(false);
    }
    for (index, found) in folder.files.iter().enumerate().skip(*last) {
        let file = folder.open(index, OpenMode::Read)?;
        let from = if index == *last { replayed.end - found.base } else { 0 };
        if !is_zero(&folder.source_of(&*file, found), from, from.saturating_add(CLEAN_BYTES))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Looks at everything behind the walk's end: the rest of its last file, and every file behind that.
fn look_behind(folder: &Folder, replayed: &Replayed) -> Result<BehindHole, StorageError> {
    let mut behind = BehindHole::default();
    let last = replayed.chain.last().map(|(index, _)| *index);
    for (index, found) in folder.files.iter().enumerate().skip(last.unwrap_or(0)) {
        let file = folder.open(index, OpenMode::Read)?;
        let from = if Some(index) == last { replayed.end - found.base } else { 0 };
        behind.search(&folder.source_of(&*file, found), from)?;
    }
    Ok(behind)
}

fn last_file(folder: &Folder, replayed: &Replayed) -> PathBuf {
    replayed.chain.last().map_or_else(|| folder.dir.clone(), |(index, _)| folder.files[*index].path.clone())
}

fn rot(folder: &Folder, replayed: &Replayed, synced_to: u64) -> StorageError {
    let base = replayed.chain.last().map_or(0, |(index, _)| folder.files[*index].base);
    let reason = format!(
        "no valid frame at position {}, although everything up to {synced_to} was once on the disk; \
         nothing has been changed",
        replayed.end
    );
    StorageError::corrupt(&last_file(folder, replayed), replayed.end - base, reason)
}
