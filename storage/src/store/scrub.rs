//! Reading again, slowly, what nobody asks for: closed segments, the base, history files. A byte that went bad is found
//! while there may still be a backup that has it. Nothing is changed: what is found is logged once, with file and
//! offset, and counted; what to do about it stands in `mezzo log verify`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Store, lock};
use crate::concurrency::Mutex;
use crate::concurrency::atomic::{AtomicU64, Ordering};
use crate::error::StorageError;
use crate::format::state_file::StateFile;

/// Bytes of the log that one step reads, about.
const STEP_BYTES: u64 = 1024 * 1024;
/// Damaged places that are remembered, so that each is logged once; beyond, they are only counted.
const PLACES_MAX: usize = 1024;

/// What reading has found so far, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DamageCounts {
    /// Rounds of the scrub that came to their end.
    pub scrub_rounds: u64,
    /// Bytes that the scrub has read.
    pub scrubbed_bytes: u64,
    /// Damaged places that the scrub has met, again in each round.
    pub scrub_damages: u64,
    /// Reads for consumers and others that met damage and were answered with an error.
    pub damaged_reads: u64,
    /// Pages of consume queues that were found damaged while the store was open.
    pub damaged_pages: u64,
    /// Those of them that were made anew from the log.
    pub mended_pages: u64,
}

/// Counts, and which places were logged.
#[derive(Debug, Default)]
pub(super) struct DamageLog {
    rounds: AtomicU64,
    bytes: AtomicU64,
    scrubbed: AtomicU64,
    reads: AtomicU64,
    pages: AtomicU64,
    mended: AtomicU64,
    places: Mutex<BTreeSet<(PathBuf, u64)>>,
}

impl DamageLog {
    /// Logs a damaged place if it is the first time; anything else than damage is passed over. Whether it was damage.
    fn note(&self, error: &StorageError) -> bool {
        let StorageError::Corrupt { file, offset, reason } = error else { return false };
        let mut places = lock(&self.places);
        if places.len() < PLACES_MAX && places.insert((file.clone(), *offset)) {
            tracing::error!(
                file = %file.display(), offset, reason,
                "damage on the disk: take a backup of what is readable; with the broker stopped, `mezzo log verify` \
                 tells what is lost"
            );
        }
        true
    }

    /// A page of a consume queue is damaged. Each is logged once, also if it is again after it was made anew.
    pub(super) fn note_page(&self, error: &StorageError) {
        let StorageError::PageDamaged { file, offset, reason } = error else { return };
        self.pages.fetch_add(1, Ordering::Relaxed);
        let mut places = lock(&self.places);
        if places.len() < PLACES_MAX && places.insert((file.clone(), *offset)) {
            tracing::warn!(
                file = %file.display(), offset, reason,
                "damaged consume queue page: it is made anew from the log; who reads it meanwhile is told to try again"
            );
        }
    }

    /// A damaged page was made anew.
    pub(super) fn note_mended(&self) {
        self.mended.fetch_add(1, Ordering::Relaxed);
    }

    /// A read that somebody waited for has failed.
    pub(super) fn note_read(&self, error: &StorageError) {
        if self.note(error) {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How far a round has come.
#[derive(Debug, Clone, Default)]
pub enum Scrub {
    /// In the log, at this position or behind it.
    #[default]
    Begin,
    /// In the log, at this position.
    Log(u64),
    /// At the history file with this number, or a greater one.
    History(u64),
}

/// What a step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrubStep {
    /// So many bytes were read; there is more.
    Read(u64),
    /// The round is at its end.
    RoundDone,
}

impl Store {
    /// What reading has found so far.
    #[must_use]
    pub fn damage_counts(&self) -> DamageCounts {
        DamageCounts {
            scrub_rounds: self.damage.rounds.load(Ordering::Relaxed),
            scrubbed_bytes: self.damage.bytes.load(Ordering::Relaxed),
            scrub_damages: self.damage.scrubbed.load(Ordering::Relaxed),
            damaged_reads: self.damage.reads.load(Ordering::Relaxed),
            damaged_pages: self.damage.pages.load(Ordering::Relaxed),
            mended_pages: self.damage.mended.load(Ordering::Relaxed),
        }
    }

    /// One step of a scrub: about 1 MiB of a closed segment, or one other file. Waits for the disk.
    ///
    /// # Errors
    /// What the disk refuses; damage is none. The step counts as done.
    pub fn scrub_step(&self, scrub: &mut Scrub) -> Result<ScrubStep, StorageError> {
        let step = match *scrub {
            Scrub::Begin => self.scrub_base(scrub),
            Scrub::Log(position) => self.scrub_log(scrub, position),
            Scrub::History(number) => self.scrub_history(scrub, number),
        };
        match step {
            Ok(ScrubStep::Read(bytes)) => {
                self.damage.bytes.fetch_add(bytes, Ordering::Relaxed);
                Ok(ScrubStep::Read(bytes))
            }
            Ok(ScrubStep::RoundDone) => {
                self.damage.rounds.fetch_add(1, Ordering::Relaxed);
                Ok(ScrubStep::RoundDone)
            }
            Err(error) if self.damage.note(&error) => {
                self.damage.scrubbed.fetch_add(1, Ordering::Relaxed);
                Ok(ScrubStep::Read(STEP_BYTES))
            }
            Err(error) => Err(error),
        }
    }

    fn scrub_base(&self, scrub: &mut Scrub) -> Result<ScrubStep, StorageError> {
        *scrub = Scrub::Log(0);
        // no newer one is written, and the one before not removed, meanwhile
        let state = lock(&self.checkpointing);
        let path = self.base.path(state.base.generation);
        let bytes = crate::base::read_whole(&*self.fs, &path)?;
        drop(state);
        StateFile::parse(&bytes)
            .map_err(|error| StorageError::corrupt(&path, StateFile::damage_offset(&bytes), error))?;
        Ok(ScrubStep::Read(bytes.len() as u64))
    }

    fn scrub_log(&self, scrub: &mut Scrub, position: u64) -> Result<ScrubStep, StorageError> {
        let segments = self.log.segments();
        let closed = segments.split_last().map_or(&[][..], |(_, closed)| closed);
        let Some(segment) = closed.iter().find(|segment| segment.end > position) else {
            *scrub = Scrub::History(0);
            return Ok(ScrubStep::Read(0));
        };
        let from = position.max(segment.base);
        // after damage the next segment is next: how much of this one is readable is for `mezzo log verify` to tell
        *scrub = Scrub::Log(segment.end);
        let to = segment.end.min(from + STEP_BYTES);
        match self.log.scan(from, to, &mut |_| Ok(())) {
            Ok(end) => {
                *scrub = Scrub::Log(end);
                Ok(ScrubStep::Read(end.saturating_sub(from)))
            }
            // retention was faster
            Err(StorageError::Gone { .. }) => Ok(ScrubStep::Read(0)),
            Err(error) => Err(error),
        }
    }

    fn scrub_history(&self, scrub: &mut Scrub, number: u64) -> Result<ScrubStep, StorageError> {
        let dir = self.options.dir.join("history");
        let files = crate::verify::numbered(&*self.fs, &dir)?;
        let Some((number, path)) = files.into_iter().find(|(found, _)| *found >= number) else {
            *scrub = Scrub::Begin;
            return Ok(ScrubStep::RoundDone);
        };
        *scrub = Scrub::History(number + 1);
        let checked = crate::verify::check_history_file(
            &*self.fs,
            &path,
            number,
            &mut crate::verify::NoProgress,
            &mut |_| {},
        );
        match checked {
            Ok(Ok(bytes)) => Ok(ScrubStep::Read(bytes)),
            Ok(Err((offset, reason))) => Err(StorageError::corrupt(&path, offset, reason)),
            // it has expired meanwhile
            Err(_) if matches!(self.fs.exists(&path), Ok(false)) => Ok(ScrubStep::Read(0)),
            Err(error) => Err(error),
        }
    }
}
