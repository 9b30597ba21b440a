//! The check of a whole data folder.

use std::path::Path;
use std::sync::Arc;

use super::derived::{Checkpoint, check_checkpoints, check_history};
use super::folder::{Bases, layout_of_segments, lock, read_bases};
use super::lost::{bare, tell, tell_decision};
use super::progress::Progress;
use super::report::{Damage, DamageKind, Lost, VerifyReport};
use crate::error::StorageError;
use crate::file_system::FileSystem;
use crate::format::frame::Frame;
use crate::format::loss::Losses;
use crate::format::record::RecordKind;
use crate::format::state_file::{StateHeader, StateRole};
use crate::log::{Layout, ResumePoint, Survey, survey};

/// Checks every file of the data folder in `dir`, which no broker may have open. Changes nothing but who last held the
/// lock.
///
/// # Errors
/// [`StorageError::Locked`] while a broker has the folder; [`StorageError::NewerVersion`]; read errors, such as those of
/// a disk that fails.
pub fn verify(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<VerifyReport, StorageError> {
    let _guard = lock(&**fs, dir)?;
    Ok(inspect(fs, dir, progress)?.report)
}

/// All that is known of a folder after every file was read.
pub(super) struct Inspection {
    pub(super) report: VerifyReport,
    pub(super) base: Option<StateHeader>,
    pub(super) losses: Losses,
    pub(super) bases: Bases,
    pub(super) survey: Survey,
}

pub(super) fn inspect(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<Inspection, StorageError> {
    let mut report = VerifyReport::default();
    let bases = read_bases(&**fs, dir)?;
    let (base, losses) = choose_base(fs, dir, &bases)?;
    let Some(base) = base else {
        let (file, offset, reason) = bases.damaged.last().map_or_else(
            || (dir.join("base"), 0, "there is no base".to_owned()),
            |bad| (bad.path.clone(), bad.offset, bad.reason.clone()),
        );
        report.damages.push(Damage { kind: DamageKind::Rot, file, offset, reason, lost: None });
        return Ok(Inspection { report, base: None, losses, bases, survey: Survey::default() });
    };
    let mut derived = Vec::new();
    let (checkpoint, known_synced) =
        check_checkpoints(fs, dir, &base, losses.newest, &mut derived, progress)?;
    let found = check_log(fs, dir, &base, &losses, known_synced, &mut report, progress)?;
    // an older base stands in for the newest as long as the log goes back to it
    let reached = bases.newest.is_some() && found.holes.first().is_none_or(|hole| hole.from > base.position);
    let newest = dir.join("base").join(format!("{:020}", base.generation));
    for bad in &bases.damaged {
        let kind = if reached || bad.path < newest { DamageKind::Derived } else { DamageKind::Rot };
        let (file, offset, reason) = (bad.path.clone(), bad.offset, bad.reason.clone());
        report.damages.push(Damage { kind, file, offset, reason, lost: None });
    }
    if bases.newest.is_none() && bases.damaged.is_empty() {
        let (file, reason) = (dir.join("base"), "there is no base".to_owned());
        report.damages.push(Damage { kind: DamageKind::Rot, file, offset: 0, reason, lost: None });
    }
    let mut lost: Vec<Lost> = found.holes.iter().map(bare).collect();
    if let Some(checkpoint) = &checkpoint {
        tell(fs, dir, checkpoint, &mut lost)?;
        tell_recent(checkpoint, &mut lost);
    }
    check_history(&**fs, dir, &base, &mut derived, progress, &mut |row| tell_decision(&mut lost, row))?;
    for (hole, lost) in found.holes.iter().zip(lost) {
        let kind = if hole.accepted { DamageKind::Accepted } else { DamageKind::Rot };
        report.damages.push(Damage {
            kind,
            file: hole.file.clone(),
            offset: hole.offset,
            reason: hole.reason.clone(),
            lost: Some(lost),
        });
    }
    if let Some(torn) = &found.torn {
        let reason = format!(
            "{} bytes, {} whole frames among them, were never known durable",
            torn.bytes, torn.frames
        );
        let (file, offset) = (torn.file.clone(), torn.offset);
        report.damages.push(Damage { kind: DamageKind::TornTail, file, offset, reason, lost: None });
    }
    report.damages.append(&mut derived);
    Ok(Inspection { report, base: Some(base), losses, bases, survey: found })
}

/// The base to read the log on top of; if none holds, one that knows nothing, as long as the log itself tells its
/// layout.
pub(super) fn choose_base(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    bases: &Bases,
) -> Result<(Option<StateHeader>, Losses), StorageError> {
    if let Some((header, losses)) = &bases.newest {
        return Ok((Some(*header), losses.clone()));
    }
    let layout = layout_of_segments(fs, &dir.join("log"))?;
    let header = layout.map(|layout| StateHeader {
        role: StateRole::Base,
        generation: bases.greatest,
        position: 0,
        index: 0,
        time_ms: 0,
        synced_to: 0,
        term: 0,
        frame_bytes_max: layout.frame_bytes_max,
        segment_bytes: layout.segment_bytes,
        nonce: layout.nonce,
        clean: false,
    });
    Ok((header, Losses::default()))
}

fn check_log(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    base: &StateHeader,
    losses: &Losses,
    known_synced: u64,
    report: &mut VerifyReport,
    progress: &mut dyn Progress,
) -> Result<Survey, StorageError> {
    let layout = Layout {
        nonce: base.nonce,
        segment_bytes: base.segment_bytes,
        frame_bytes_max: base.frame_bytes_max,
    };
    let resume = ResumePoint {
        position: base.position,
        index: base.index,
        term: base.term,
        time_ms: base.time_ms,
        synced_to: base.synced_to.max(known_synced),
        clean: false,
    };
    let log_dir = dir.join("log");
    let mut segment = u64::MAX;
    let mut visit = |frame: &Frame<'_>| {
        let number = frame.position / layout.segment_bytes;
        if number != segment {
            segment = number;
            let name = format!("{:020}", layout.base_of(frame.position));
            progress.file(&log_dir.join(name), layout.segment_bytes);
        }
        progress.advance(u64::from(frame.header.length));
        report.bytes += u64::from(frame.header.length);
        for record in frame.records() {
            match record.kind {
                RecordKind::Message | RecordKind::Prepared | RecordKind::Due => report.messages += 1,
                RecordKind::Decision => report.decisions += 1,
                _ => {}
            }
        }
        Ok(())
    };
    let found = survey(fs, &log_dir, &layout, &resume, losses, &mut visit)?;
    report.first = base.position;
    report.end = found.end;
    report.synced_to = found.synced_to;
    report.segments = found.segments;
    report.frames = found.frames;
    report.records = found.records;
    Ok(found)
}

/// Decisions of segments that have no history file yet.
fn tell_recent(checkpoint: &Checkpoint, lost: &mut [Lost]) {
    for row in &checkpoint.recent {
        tell_decision(lost, row);
    }
}
