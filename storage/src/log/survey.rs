//! Reading all of a log that may be damaged, from the base on, for those who want to know what is wrong with it. Changes
//! nothing.
//!
//! A recovery stops at the first hole; this goes on at the next frame that holds and whose index and term lie behind
//! those of the last one. In the end it judges the holes as a recovery would: below what was known synced they are rot,
//! the first one above is a torn tail, and what stands behind that does not count.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::behind_hole::{BehindHole, first_frame_from, is_zero};
use super::chain::Folder;
use super::layout::Layout;
use super::recover::ResumePoint;
use super::replay::FrameVisitor;
use super::segment::segment_name;
use super::walk::{FrameSource, Window};
use super::writer::Sequence;
use crate::error::StorageError;
use crate::file_system::{FileSystem, OpenMode};
use crate::format::frame::{Frame, FrameKind};
use crate::format::loss::Losses;

/// A part of the log that does not hold although it was known durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hole {
    /// Position behind the last frame that holds.
    pub(crate) from: u64,
    /// Position at which frames hold again; `None` if none does.
    pub(crate) to: Option<u64>,
    /// The file it begins in.
    pub(crate) file: PathBuf,
    /// Byte offset in that file.
    pub(crate) offset: u64,
    /// What does not hold there.
    pub(crate) reason: String,
    /// Positions that are lost: all of the hole, or single records of a frame that holds otherwise.
    pub(crate) parts: Vec<(u64, u64)>,
    /// Frames that are missing, if the next one tells.
    pub(crate) frames: Option<u64>,
    /// The loss was accepted before.
    pub(crate) accepted: bool,
}

/// What recovery will cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TornTail {
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    /// Bytes behind the cut that are not zero or stand between such.
    pub(crate) bytes: u64,
    /// Whole frames among them.
    pub(crate) frames: u64,
}

/// A segment file that is no part of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unlinked {
    pub(crate) path: PathBuf,
    pub(crate) base: u64,
    /// It holds zeros only, as a prepared one does.
    pub(crate) zero: bool,
}

/// What the log is found to be.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// By rising position.
    pub(crate) holes: Vec<Hole>,
    pub(crate) torn: Option<TornTail>,
    /// Position behind the last frame that counts.
    pub(crate) end: u64,
    /// Everything below was once known durable.
    pub(crate) synced_to: u64,
    pub(crate) frames: u64,
    pub(crate) records: u64,
    /// Segments of the log.
    pub(crate) segments: usize,
    pub(crate) unlinked: Vec<Unlinked>,
    /// Base of the highest file there is.
    pub(crate) highest: Option<u64>,
    /// The file that `end` stands in.
    pub(crate) last_file: Option<PathBuf>,
}

/// Reads the log in `dir` from `resume`, the end of the base, on.
///
/// # Errors
/// Read errors; data of another version; whatever `visit` says.
pub(crate) fn survey(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    layout: &Layout,
    resume: &ResumePoint,
    losses: &Losses,
    visit: &mut FrameVisitor<'_>,
) -> Result<Survey, StorageError> {
    let folder = Folder::read(fs, dir, layout, losses)?;
    let mut walk = Walk {
        folder: &folder,
        position: resume.position,
        current: None,
        chain: Vec::new(),
        last: Sequence { term: resume.term, index: resume.index, time_ms: resume.time_ms },
        bridged: false,
        seen_at_hole: Vec::new(),
        found: Survey { synced_to: resume.synced_to.max(resume.position), ..Survey::default() },
    };
    walk.run(visit)?;
    walk.judge()
}

struct Walk<'f> {
    folder: &'f Folder,
    position: u64,
    current: Option<usize>,
    /// Files walked, each with the position behind its last frame.
    chain: Vec<(usize, u64)>,
    last: Sequence,
    bridged: bool,
    /// Per hole: frames seen before it.
    seen_at_hole: Vec<u64>,
    found: Survey,
}

impl Walk<'_> {
    fn run(&mut self, visit: &mut FrameVisitor<'_>) -> Result<(), StorageError> {
        match self.folder.start_at(self.position) {
            Ok(Some((index, position))) => (self.current, self.position) = (Some(index), position),
            Ok(None) => {}
            Err(StorageError::Corrupt { .. }) => {}
            Err(other) => return Err(other),
        }
        loop {
            if let Some(index) = self.current {
                self.walk_file(index, visit)?;
                self.chain.push((index, self.position));
                if let Ok(Some(next)) = self.folder.linked_from(self.position, Some(index)) {
                    (self.current, self.position) = (Some(next), self.folder.files[next].base);
                    continue;
                }
            }
            let Some((file, to)) = self.next_readable()? else { return Ok(()) };
            self.note_hole(to, "no valid frame here".into(), None);
            (self.current, self.position, self.bridged) = (Some(file), to, true);
            self.chain.retain(|(index, _)| *index != file);
        }
    }

    fn walk_file(&mut self, index: usize, visit: &mut FrameVisitor<'_>) -> Result<(), StorageError> {
        let file = self.folder.open(index, OpenMode::Read)?;
        let source = self.folder.source_of(&*file, &self.folder.files[index]);
        let mut window = Window::default();
        loop {
            while let Some(frame) = source.frame_at(&mut window, self.position)? {
                if !self.take(&frame, &source, visit)? {
                    return Ok(());
                }
            }
            let Some(frame) = source.frame_in_part_at(&mut window, self.position)? else { return Ok(()) };
            let parts: Vec<_> = frame.broken_records().collect();
            let frame_end = frame.end();
            self.note_hole(frame_end, "records of this frame do not hold".into(), Some(parts));
            self.bridged = true;
            if !self.take(&frame, &source, visit)? {
                return Ok(());
            }
        }
    }

    /// Takes a frame in, if it continues the log.
    fn take(
        &mut self,
        frame: &Frame<'_>,
        source: &FrameSource<'_>,
        visit: &mut FrameVisitor<'_>,
    ) -> Result<bool, StorageError> {
        let header = frame.header;
        let least = if header.kind == FrameKind::Segment { self.last.index } else { self.last.index + 1 };
        let follows = header.index == least || (self.bridged && header.index > least);
        let head_at_base = (header.kind == FrameKind::Segment) == (frame.position == source.base);
        if !follows || !head_at_base || header.term < self.last.term {
            return Ok(false);
        }
        if self.bridged
            && let Some(hole) = self.found.holes.last_mut()
            && hole.frames.is_none()
        {
            hole.frames = Some(header.index - least + u64::from(hole.parts.len() > 1));
        }
        visit(frame)?;
        self.bridged = false;
        self.last = Sequence { term: header.term, index: header.index, time_ms: header.time_ms };
        self.found.synced_to = self.found.synced_to.max(header.synced_to);
        self.found.frames += 1;
        self.found.records += frame.records().count() as u64;
        self.position = frame.end();
        Ok(true)
    }

    fn note_hole(&mut self, to: u64, reason: String, parts: Option<Vec<(u64, u64)>>) {
        let (file, offset) = self.place();
        let frames = parts.as_ref().map(|_| 0);
        let accepted = self.folder.losses.at(self.position).is_some_and(|loss| loss.to == Some(to));
        self.seen_at_hole.push(self.found.frames);
        self.found.holes.push(Hole {
            from: self.position,
            to: Some(to),
            file,
            offset,
            reason,
            parts: parts.unwrap_or_else(|| vec![(self.position, to)]),
            frames,
            accepted,
        });
    }

    /// File and offset of the walk's position.
    fn place(&self) -> (PathBuf, u64) {
        match self.current {
            Some(index) => {
                let found = &self.folder.files[index];
                (found.path.clone(), self.position - found.base)
            }
            None => {
                let base = self.folder.layout.base_of(self.position);
                (self.folder.dir.join(segment_name(base)), self.position - base)
            }
        }
    }

    /// The next frame that holds and can follow: its file and its position.
    fn next_readable(&self) -> Result<Option<(usize, u64)>, StorageError> {
        if let Some(to) = self.folder.losses.at(self.position).and_then(|loss| loss.to) {
            return Ok(self.folder.holding(to).map(|index| (index, to)));
        }
        let accepts = |frame: &Frame<'_>| {
            let header = frame.header;
            header.term >= self.last.term
                && (header.index > self.last.index
                    || (header.kind == FrameKind::Segment && header.index == self.last.index))
        };
        for (index, found) in self.folder.files.iter().enumerate().skip(self.current.unwrap_or(0)) {
            let offset = if Some(index) == self.current { self.position - found.base + 1 } else { 0 };
            let file = self.folder.open(index, OpenMode::Read)?;
            let source = self.folder.source_of(&*file, found);
            if let Some(position) = first_frame_from(&source, offset, &accepts)? {
                return Ok(Some((index, position)));
            }
        }
        Ok(None)
    }

    /// Tells rot from a torn tail.
    fn judge(mut self) -> Result<Survey, StorageError> {
        let mut behind = BehindHole::default();
        for (index, found) in self.folder.files.iter().enumerate().skip(self.current.unwrap_or(0)) {
            let file = self.folder.open(index, OpenMode::Read)?;
            let from = if Some(index) == self.current { self.position - found.base } else { 0 };
            behind.search(&self.folder.source_of(&*file, found), from)?;
        }
        let mut end = self.position;
        self.found.synced_to = self.found.synced_to.max(behind.synced_to);
        let synced_to = self.found.synced_to;
        let torn = self.found.holes.iter().position(|hole| hole.from >= synced_to && !hole.accepted);
        if let Some(torn) = torn {
            let hole = self.found.holes.swap_remove(torn);
            self.found.holes.truncate(torn);
            let frames = self.found.frames - self.seen_at_hole[torn] + behind.frames;
            self.found.torn = Some(TornTail {
                bytes: end - hole.from + behind.data_bytes,
                file: hole.file,
                offset: hole.offset,
                frames,
            });
            end = hole.from;
        } else if behind.data_bytes > 0 {
            let (file, offset) = self.place();
            let (bytes, frames) = (behind.data_bytes, behind.frames);
            self.found.torn = Some(TornTail { file, offset, bytes, frames });
        }
        self.chain.retain(|(index, file_end)| {
            let base = self.folder.files[*index].base;
            base <= end && (base < end || *file_end == base)
        });
        let last = self.chain.last().map(|(index, _)| *index);
        self.judge_end(end, last);
        self.found.end = end;
        self.found.segments = self.chain.len();
        self.found.highest = self.folder.files.last().map(|found| found.base);
        self.found.last_file = last.map(|last| self.folder.files[last].path.clone());
        for (index, found) in self.folder.files.iter().enumerate() {
            if self.chain.iter().any(|(linked, _)| *linked == index) {
                continue;
            }
            let file = self.folder.open(index, OpenMode::Read)?;
            let zero = is_zero(&self.folder.source_of(&*file, found), 0, found.len)?;
            self.found.unlinked.push(Unlinked { path: found.path.clone(), base: found.base, zero });
        }
        Ok(self.found)
    }

    /// Whether the log must have gone on behind its end.
    fn judge_end(&mut self, end: u64, last: Option<usize>) {
        let lost_to = self.folder.losses.at(end).map_or(end, |loss| loss.until);
        let (file, offset, reason) = if self.found.synced_to > lost_to {
            let (file, offset) = match last {
                Some(last) => (self.folder.files[last].path.clone(), end - self.folder.files[last].base),
                None => (self.folder.dir.join(segment_name(self.folder.layout.base_of(end))), 0),
            };
            (
                file,
                offset,
                format!(
                    "nothing readable from here on, although all up to position {} was on the disk",
                    self.found.synced_to
                ),
            )
        } else if let Err(StorageError::Corrupt { file, offset, reason }) = self.folder.check_end(last, end) {
            (file, offset, reason)
        } else {
            return;
        };
        self.found.torn = None;
        let to = self.found.synced_to.max(end);
        self.found.holes.push(Hole {
            from: end,
            to: None,
            file,
            offset,
            reason,
            parts: vec![(end, to)],
            frames: None,
            accepted: false,
        });
    }
}
