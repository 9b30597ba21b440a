//! The read-only half of recovery: walking the frames from a known position to the first hole that nothing bridges.

use super::chain::Folder;
use super::recover::ResumePoint;
use super::walk::{FrameSource, Window};
use super::writer::Sequence;
use crate::error::StorageError;
use crate::file_system::OpenMode;
use crate::format::frame::{Frame, FrameKind};

/// Sees each valid frame, in order.
pub type FrameVisitor<'v> = dyn FnMut(&Frame<'_>) -> Result<(), StorageError> + 'v;

/// What the walk found.
pub(super) struct Replayed {
    /// The files that form the log, by rising base, each with the end of its valid bytes. Empty only if the walk
    /// began at position 0 and found nothing.
    pub(super) chain: Vec<(usize, u64)>,
    /// Position behind the last valid frame.
    pub(super) end: u64,
    /// Of the last valid frame, or of the point where the walk began.
    pub(super) last: Sequence,
    /// Everything below this was once known durable.
    pub(super) synced_to: u64,
    pub(super) frames: u64,
    pub(super) records: u64,
    /// The next frame stands behind an accepted loss: frames before it are missing.
    bridged: bool,
}

/// Walks from `resume` on and shows every valid frame to `visit`.
pub(super) fn replay(
    folder: &Folder,
    resume: &ResumePoint,
    visit: &mut FrameVisitor<'_>,
) -> Result<Replayed, StorageError> {
    let mut found = Replayed {
        chain: Vec::new(),
        end: resume.position,
        last: Sequence { term: resume.term, index: resume.index, time_ms: resume.time_ms },
        // the caller's state holds everything below its position, so that was durable whatever it says
        synced_to: resume.synced_to.max(resume.position),
        frames: 0,
        records: 0,
        bridged: false,
    };
    let lost_at_once = || folder.losses.at(resume.position).and_then(|loss| loss.to);
    let start = match (folder.start_at(resume.position), lost_at_once()) {
        (Err(StorageError::Corrupt { .. }) | Ok(None), Some(to)) => {
            found.bridged = true;
            folder.holding(to).map(|index| (index, to))
        }
        (start, _) => start?,
    };
    let mut current = None;
    if let Some((index, position)) = start {
        found.chain = folder.before(index)?;
        found.end = position;
        current = Some(index);
    }
    let known: Vec<_> = found.chain.iter().map(|(index, _)| *index).chain(current).collect();
    folder.check_strays(resume.position, &known)?;
    while let Some(index) = current {
        found.walk_file(folder, index, visit)?;
        found.chain.push((index, found.end));
        current = folder.linked_from(found.end, Some(index))?;
        if let Some(next) = current {
            found.end = folder.files[next].base;
        } else if let Some(to) = folder.losses.at(found.end).and_then(|loss| loss.to) {
            // the walk of this file would have gone on in it
            current = folder.holding(to).filter(|next| *next > index);
            if current.is_some() {
                found.end = to;
                found.bridged = true;
            }
        }
    }
    Ok(found)
}

impl Replayed {
    fn walk_file(
        &mut self,
        folder: &Folder,
        index: usize,
        visit: &mut FrameVisitor<'_>,
    ) -> Result<(), StorageError> {
        let file = folder.open(index, OpenMode::Read)?;
        let source = folder.source_of(&*file, &folder.files[index]);
        let mut window = Window::default();
        loop {
            while let Some(frame) = source.frame_at(&mut window, self.end)? {
                self.take(&frame, &source, visit)?;
            }
            let Some(to) = folder.losses.at(self.end).and_then(|loss| loss.to) else { return Ok(()) };
            self.bridged = true;
            match source.frame_in_part_at(&mut window, self.end)? {
                Some(frame) if frame.end() == to => self.take(&frame, &source, visit)?,
                _ if folder.holding(to) == Some(index) => self.end = to,
                _ => return Ok(()),
            }
        }
    }

    fn take(
        &mut self,
        frame: &Frame<'_>,
        source: &FrameSource<'_>,
        visit: &mut FrameVisitor<'_>,
    ) -> Result<(), StorageError> {
        if let Err(reason) = self.check_sequence(frame, source.base) {
            return Err(StorageError::corrupt(source.path, self.end - source.base, reason));
        }
        visit(frame)?;
        let header = frame.header;
        self.last = Sequence { term: header.term, index: header.index, time_ms: header.time_ms };
        self.synced_to = self.synced_to.max(header.synced_to);
        self.frames += 1;
        self.records += frame.records().count() as u64;
        self.end = frame.end();
        self.bridged = false;
        Ok(())
    }

    /// A frame whose CRC holds at its position but which does not continue the one before it was not written by this
    /// log in this state: the state it is read on top of is the wrong one.
    fn check_sequence(&self, frame: &Frame<'_>, base: u64) -> Result<(), &'static str> {
        let is_head = frame.header.kind == FrameKind::Segment;
        let index = if is_head { Some(self.last.index) } else { self.last.index.checked_add(1) };
        if is_head != (frame.position == base) {
            return Err("a segment frame stands where none belongs, or is missing");
        }
        let follows = Some(frame.header.index) == index
            || (self.bridged && index.is_some_and(|index| index < frame.header.index));
        if !follows {
            return Err("the frame's index does not follow the one before it");
        }
        if frame.header.term < self.last.term || frame.header.time_ms < self.last.time_ms {
            return Err("the frame's term or time is below the one before it");
        }
        Ok(())
    }
}
