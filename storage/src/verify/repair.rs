//! Accepting a loss: a new base says which parts of the log are lost, and the next start folds the log over them.
//!
//! Nothing of the log is written: damaged bytes stay where they are, and what cannot stay (files that belong to nothing
//! any more, derived files of what is lost) is moved to `damaged/`. In this order, so that a crash after any step leaves
//! a folder that is still refused, or one that is repaired:
//!
//! 1. *Copies and history files.* The tail that the next start will cut is copied; history files of segments behind the
//!    loss are moved away, because queue offsets in them will not be true any more. They are derived.
//! 2. *The base*, under the next number, written as every base: whole or not at all. From here on the loss is accepted.
//!    A checkpoint of before is not used any more, since it knows of fewer losses (`newest`).
//! 3. *Files of the log that no link reaches.* A start would refuse them, or remove them. Before the highest name goes,
//!    an empty file takes a higher one: the next start goes on behind every name, so no position is used twice.
//!
//! `docs/decisions/0009-accepted-losses.md` says what the fold makes of a loss, and why.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{Inspection, inspect};
use super::folder::{lock, numbered};
use super::progress::Progress;
use super::report::VerifyReport;
use crate::base::{read_whole, write_durably};
use crate::error::StorageError;
use crate::file_system::{FileSystem, OpenMode};
use crate::format::loss::{Loss, Losses};
use crate::format::state_file::{StateFile, StateHeader};
use crate::log::Survey;
use crate::options::CheckPolicy;
use crate::state::ledger::Ledger;
use crate::state::snapshot;
use crate::store::UNSYNCED_MESSAGES_MAX;

/// No record of a message is shorter, with its header.
const MESSAGE_RECORD_BYTES_LEAST: u64 = 64;
/// Bytes copied at a time.
const COPY_BYTES: usize = 1024 * 1024;

/// What was done.
#[derive(Debug)]
pub struct Repair {
    /// What was found before anything was done.
    pub found: VerifyReport,
    /// Losses that were accepted just now.
    pub accepted: Vec<Loss>,
    /// There was no base that holds, and a new one was made that knows nothing but the log.
    pub base_made: bool,
    /// Where files were moved or copied to.
    pub set_aside: Vec<PathBuf>,
}

/// Accepts the loss of whatever [`super::verify`] calls rot. Does nothing if there is none.
///
/// # Errors
/// As [`super::verify`]; what the disk refuses; [`StorageError::Corrupt`] if neither base nor log says how to read the
/// folder.
pub fn repair(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<Repair, StorageError> {
    let _guard = lock(&**fs, dir)?;
    settle_names(&**fs, dir)?;
    let inspection = inspect(fs, dir, progress)?;
    let Some(base) = inspection.base else {
        let reason = "no base holds, and no segment of the log says how to read it: only a backup helps";
        return Err(StorageError::corrupt(&dir.join("base"), 0, reason));
    };
    let Inspection { report, losses, bases, survey, .. } = inspection;
    let accepted = losses_of(&survey, &base);
    let base_made = bases.newest.is_none();
    let mut aside = Aside { fs: &**fs, dir: dir.join("damaged"), moved: Vec::new() };
    if let Some(first) = accepted.first() {
        aside.prepare(dir)?;
        if accepted.last().is_some_and(|loss| loss.to.is_none()) {
            aside.copy_tail(&survey)?;
        }
        let from = first.from / base.segment_bytes.max(1);
        for (_, path) in numbered(&**fs, &dir.join("history"))?.into_iter().filter(|(n, _)| *n >= from) {
            aside.take(&path)?;
        }
    }
    if base_made || !accepted.is_empty() {
        let known = Losses {
            newest: losses.newest + u64::from(!accepted.is_empty()),
            list: merged(&losses.list, &accepted),
        };
        write_base(&**fs, dir, &base, base_made, known, bases.greatest + 1)?;
    }
    aside.strays(dir, &survey, base.segment_bytes)?;
    if base_made || !accepted.is_empty() {
        for bad in &bases.damaged {
            aside.take(&bad.path)?;
        }
    }
    Ok(Repair { found: report, accepted, base_made, set_aside: aside.moved })
}

/// Makes durable what a command that was killed has left: a base that only memory knows would be found, and nothing done,
/// and a power cut would take it away again.
fn settle_names(fs: &dyn FileSystem, dir: &Path) -> Result<(), StorageError> {
    for folder in ["damaged", "base", "log", "history"].map(|folder| dir.join(folder)) {
        if fs.exists(&folder).map_err(StorageError::io("look for", &folder))? {
            fs.sync_dir(&folder).map_err(StorageError::io("sync folder", &folder))?;
        }
    }
    Ok(())
}

/// One loss per hole that was not accepted before.
fn losses_of(survey: &Survey, base: &StateHeader) -> Vec<Loss> {
    let top = survey.highest.unwrap_or(0).saturating_add(base.segment_bytes).max(survey.synced_to);
    // each message that ever had an offset behind the base has a record there; and as after every unclean stop
    let by = (top - base.position.min(top)) / MESSAGE_RECORD_BYTES_LEAST + 2 * UNSYNCED_MESSAGES_MAX;
    let until = survey.end.max(survey.synced_to);
    let fresh = survey.holes.iter().filter(|hole| !hole.accepted);
    fresh.map(|hole| Loss { from: hole.from, to: hole.to, until, by }).collect()
}

/// Both lists by rising position; of two with the same beginning the new one.
fn merged(known: &[Loss], accepted: &[Loss]) -> Vec<Loss> {
    let renewed = |loss: &&Loss| accepted.iter().all(|new| new.from != loss.from);
    let mut all: Vec<Loss> = known.iter().filter(renewed).chain(accepted).copied().collect();
    all.sort_unstable_by_key(|loss| loss.from);
    all
}

fn write_base(
    fs: &dyn FileSystem,
    dir: &Path,
    base: &StateHeader,
    made: bool,
    losses: Losses,
    generation: u64,
) -> Result<(), StorageError> {
    let folder = dir.join("base");
    let mut ledger = Ledger::new(base.segment_bytes, CheckPolicy::default(), None);
    if !made {
        let path = folder.join(format!("{:020}", base.generation));
        let bytes = read_whole(fs, &path)?;
        let file = StateFile::parse(&bytes).map_err(|error| StorageError::corrupt(&path, 0, error))?;
        snapshot::restore_base(&mut ledger, &file)?;
    }
    ledger.lost = crate::state::AfterLoss::starting_at(losses, base.position);
    let header = StateHeader { generation, ..*base };
    let path = folder.join(format!("{generation:020}"));
    write_durably(fs, &folder, &path, &snapshot::base_file(&ledger, header))
}

/// The folder for what cannot stay.
struct Aside<'f> {
    fs: &'f dyn FileSystem,
    dir: PathBuf,
    moved: Vec<PathBuf>,
}

impl Aside<'_> {
    fn prepare(&self, data: &Path) -> Result<(), StorageError> {
        self.fs.create_dir_all(&self.dir).map_err(StorageError::io("create folder", &self.dir))?;
        self.fs.sync_dir(data).map_err(StorageError::io("sync folder", data))
    }

    /// A free name that tells where the file stood.
    fn name_for(&self, path: &Path) -> Result<PathBuf, StorageError> {
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let folder = part(path.parent().and_then(Path::file_name));
        let name = format!("{folder}-{}", part(path.file_name()));
        let mut free = self.dir.join(&name);
        let mut number = 0;
        while self.fs.exists(&free).map_err(StorageError::io("look for", &free))? {
            number += 1;
            free = self.dir.join(format!("{name}.{number}"));
        }
        Ok(free)
    }

    fn take(&mut self, path: &Path) -> Result<(), StorageError> {
        let to = self.name_for(path)?;
        self.fs.rename(path, &to).map_err(StorageError::io("set aside", path))?;
        // the new name first: a file in two folders is better than one in none
        self.fs.sync_dir(&self.dir).map_err(StorageError::io("sync folder", &self.dir))?;
        if let Some(folder) = path.parent() {
            self.fs.sync_dir(folder).map_err(StorageError::io("sync folder", folder))?;
        }
        self.moved.push(to);
        Ok(())
    }

    /// Copies what stands behind the log's end in its last file, which the next start cuts.
    fn copy_tail(&mut self, survey: &Survey) -> Result<(), StorageError> {
        let hole = survey.holes.last().filter(|hole| hole.to.is_none());
        let (Some(hole), Some(path)) = (hole, &survey.last_file) else { return Ok(()) };
        let from = if hole.file == *path { hole.offset } else { return Ok(()) };
        let file = self.fs.open(path, OpenMode::Read).map_err(StorageError::io("open", path))?;
        let len = file.len().map_err(StorageError::io("measure", path))?;
        if from >= len {
            return Ok(());
        }
        let to = self.name_for(&path.with_extension(format!("from-{from}")))?;
        let copy = self.fs.open(&to, OpenMode::Create).map_err(StorageError::io("create", &to))?;
        let mut at = from;
        while at < len {
            let piece = usize::try_from(len - at).unwrap_or(usize::MAX).min(COPY_BYTES);
            let mut bytes = vec![0; piece];
            // what the disk does not give back any more stays zero
            let readable = file.read_exact_at(&mut bytes, at).is_ok();
            if readable && bytes.iter().any(|byte| *byte != 0) {
                copy.write_all_at(&bytes, at - from).map_err(StorageError::io("write", &to))?;
            }
            at += piece as u64;
        }
        copy.sync_all().map_err(StorageError::io("sync", &to))?;
        self.fs.sync_dir(&self.dir).map_err(StorageError::io("sync folder", &self.dir))?;
        self.moved.push(to);
        Ok(())
    }

    /// Step 3.
    fn strays(&mut self, data: &Path, survey: &Survey, segment_bytes: u64) -> Result<(), StorageError> {
        let ends_in_loss = survey.holes.last().is_some_and(|hole| hole.to.is_none());
        let below = |base: u64| base < survey.end;
        let mut stray =
            survey.unlinked.iter().filter(|file| below(file.base) || (ends_in_loss && !file.zero)).peekable();
        let Some(highest) = survey.highest.filter(|_| stray.peek().is_some()) else { return Ok(()) };
        self.prepare(data)?;
        let log = data.join("log");
        let above = log.join(format!("{:020}", highest.saturating_add(segment_bytes)));
        let empty = self.fs.open(&above, OpenMode::Create).map_err(StorageError::io("create", &above))?;
        empty.sync_all().map_err(StorageError::io("sync", &above))?;
        self.fs.sync_dir(&log).map_err(StorageError::io("sync folder", &log))?;
        for file in stray {
            self.take(&file.path)?;
        }
        Ok(())
    }
}
