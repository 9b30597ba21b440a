//! Which segment files there are, and which of them form the log: each one's head says where the valid bytes before
//! it end, and that links it to the one before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layout::{Layout, SEGMENT_FRAME_BYTES};
use super::segment::parse_segment_name;
use super::walk::{FrameSource, Window};
use crate::error::StorageError;
use crate::file_system::{File, FileSystem, OpenMode};
use crate::format::frame::{Frame, FrameKind};
use crate::format::loss::{Loss, Losses};
use crate::format::record::{LayoutRecord, LogSeed, RecordKind};

/// One segment file as it was found.
pub(super) struct FoundSegment {
    pub(super) base: u64,
    pub(super) path: PathBuf,
    /// Bytes of the file.
    pub(super) len: u64,
    /// Its head, if a valid one stands there.
    pub(super) head: Option<Head>,
}

/// What a valid segment frame says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) previous_end: u64,
}

/// All segment files of a folder, by rising base.
pub(super) struct Folder {
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) dir: PathBuf,
    pub(super) layout: Layout,
    pub(super) seed: LogSeed,
    pub(super) files: Vec<FoundSegment>,
    /// What of it is lost, with a person's consent.
    pub(super) losses: Losses,
}

impl Folder {
    /// Whether no segment that held bytes at or above `position` has been given up: one begins there or before, or the
    /// one that is first says that nothing valid stands between.
    pub(super) fn reaches_back_to(&self, position: u64) -> bool {
        let mut heads = self.files.iter().filter_map(|f| Some((f.base, f.head?.previous_end)));
        heads.any(|(base, previous_end)| base <= position || previous_end <= position)
    }

    /// Lists the folder and reads every head. Files with other names are left alone.
    pub(super) fn read(
        fs: &Arc<dyn FileSystem>,
        dir: &Path,
        layout: &Layout,
        losses: &Losses,
    ) -> Result<Self, StorageError> {
        let mut folder = Self {
            fs: Arc::clone(fs),
            dir: dir.to_path_buf(),
            layout: *layout,
            seed: layout.seed(),
            files: Vec::new(),
            losses: losses.clone(),
        };
        let mut names = fs.list(dir).map_err(StorageError::io("list", dir))?;
        names.sort_unstable();
        for name in names {
            let Some(base) = parse_segment_name(&name) else { continue };
            let found = folder.inspect(base, dir.join(&name))?;
            folder.files.push(found);
        }
        Ok(folder)
    }

    fn inspect(&self, base: u64, path: PathBuf) -> Result<FoundSegment, StorageError> {
        let segment_bytes = self.layout.segment_bytes;
        let file = self.fs.open(&path, OpenMode::Read).map_err(StorageError::io("open", &path))?;
        let len = file.len().map_err(StorageError::io("measure", &path))?;
        let file_name = path.display();
        if !base.is_multiple_of(segment_bytes) {
            let reason = format!(
                "{file_name} is no segment of this log, whose numbers are multiples of {segment_bytes}: move it out of \
                 the folder"
            );
            return Err(StorageError::Layout { reason });
        }
        if len > segment_bytes {
            let reason = format!(
                "{file_name} has {len} bytes, a segment has {segment_bytes}: what stands behind them is not the \
                 broker's; restore the file from a backup, or cut it there (truncate -s {segment_bytes})"
            );
            return Err(StorageError::Layout { reason });
        }
        let source =
            FrameSource { len: len.min(SEGMENT_FRAME_BYTES as u64), ..self.source(&*file, base, len, &path) };
        let mut window = Window::default();
        let head = source.frame_at(&mut window, base)?.and_then(|frame| self.head(&frame));
        Ok(FoundSegment { base, path, len, head })
    }

    /// What a segment frame says. One that contradicts the layout cannot have a CRC that holds, since the nonce would
    /// have to be the same; if it happens all the same it is no head.
    fn head(&self, frame: &Frame<'_>) -> Option<Head> {
        let record = frame.records().next().filter(|record| record.kind == RecordKind::Layout)?;
        let layout = LayoutRecord::decode(record.flags, record.payload).ok()?;
        let same = layout.nonce == self.layout.nonce
            && layout.segment_bytes == self.layout.segment_bytes
            && layout.frame_bytes_max == self.layout.frame_bytes_max;
        (frame.header.kind == FrameKind::Segment && same && layout.previous_end <= frame.position)
            .then_some(Head { previous_end: layout.previous_end })
    }

    fn source<'a>(&self, file: &'a dyn File, base: u64, len: u64, path: &'a Path) -> FrameSource<'a> {
        let frame_bytes_max = self.layout.frame_bytes_max;
        FrameSource { file, path, base, len, seed: self.seed, frame_bytes_max }
    }

    /// A file opened for reading its frames.
    pub(super) fn source_of<'a>(&self, file: &'a dyn File, found: &'a FoundSegment) -> FrameSource<'a> {
        self.source(file, found.base, found.len, &found.path)
    }

    /// Opens the file with this index.
    pub(super) fn open(&self, index: usize, mode: OpenMode) -> Result<Arc<dyn File>, StorageError> {
        let found = &self.files[index];
        self.fs.open(&found.path, mode).map_err(StorageError::io("open", &found.path))
    }

    /// The file in which reading from `position` begins, and where in the log it begins: inside a segment, or at the
    /// head of the segment that follows if no byte is left before it. Between the end of one segment and the base of
    /// the next there are no bytes, so any position there means the next. `None`: the log is new.
    pub(super) fn start_at(&self, position: u64) -> Result<Option<(usize, u64)>, StorageError> {
        let follows =
            |f: &FoundSegment| f.base >= position && f.head.is_some_and(|head| head.previous_end <= position);
        if let Some(index) = self.only(position, 0, follows)? {
            return Ok(Some((index, self.files[index].base)));
        }
        let holds = |f: &FoundSegment| f.base < position && position - f.base <= self.layout.segment_bytes;
        if let Some(index) = self.files.iter().position(holds) {
            let found = &self.files[index];
            // the caller's state was made from durable bytes up to `position`: both must hold
            if found.head.is_none() && self.losses.behind(found.base).is_none() {
                return Err(StorageError::corrupt(&found.path, 0, "the head of this segment does not hold"));
            }
            if position - found.base > found.len {
                let reason = format!("the file ends here, the log goes on to position {position}");
                return Err(StorageError::corrupt(&found.path, found.len, reason));
            }
            return Ok(Some((index, position)));
        }
        if position == 0 {
            return Ok(None);
        }
        let reason = format!("the segment with position {position} is missing");
        Err(StorageError::corrupt(&self.dir, 0, reason))
    }

    /// The segment whose head says that the log before it ends at `end`, behind the file `after`.
    pub(super) fn linked_from(&self, end: u64, after: Option<usize>) -> Result<Option<usize>, StorageError> {
        let says_so = |f: &FoundSegment| f.base >= end && f.head.is_some_and(|head| head.previous_end == end);
        self.only(end, after.map_or(0, |index| index + 1), says_so)
    }

    /// The one file, from index `from` on, that follows `position`. Two would mean that the log was continued twice.
    fn only(
        &self,
        position: u64,
        from: usize,
        follows: impl Fn(&FoundSegment) -> bool,
    ) -> Result<Option<usize>, StorageError> {
        let mut found = (from..self.files.len()).filter(|index| follows(&self.files[*index]));
        let first = found.next();
        if let Some(second) = found.next() {
            let reason = format!("a second segment claims to follow position {position}");
            return Err(StorageError::corrupt(&self.files[second].path, 0, reason));
        }
        Ok(first)
    }

    /// The segments before `start` that belong to the log, by rising base, each with the end of its valid bytes.
    /// What is not linked is left out; a link to a segment that is missing although older ones are there is damage.
    pub(super) fn before(&self, start: usize) -> Result<Vec<(usize, u64)>, StorageError> {
        let mut chain = Vec::new();
        let mut current = start;
        while let Some(end) = self.end_before(current) {
            let is_linked = |f: &FoundSegment| f.head.is_some() || self.losses.behind(f.base).is_some();
            let older = self.files[..current].iter().rposition(|f| f.base < end && is_linked(f));
            let Some(older) = older else { break };
            let found = &self.files[older];
            if end - found.base > self.layout.segment_bytes || end - found.base > found.len {
                let reason =
                    format!("the log goes on to position {end}, the segment with it is missing or short");
                return Err(StorageError::corrupt(&found.path, found.len, reason));
            }
            chain.push((older, end));
            current = older;
        }
        chain.reverse();
        Ok(chain)
    }

    /// Where the valid bytes before a file end: its head says so, or an accepted loss that reaches into it.
    fn end_before(&self, index: usize) -> Option<u64> {
        let found = &self.files[index];
        let reaches_in = |loss: &&Loss| {
            let here = |to: u64| (found.base..found.base + self.layout.segment_bytes).contains(&to);
            loss.from < found.base && loss.to.is_some_and(here)
        };
        let lost_from = self.losses.list.iter().find(reaches_in).map(|loss| loss.from);
        lost_from.or_else(|| found.head.map(|head| head.previous_end))
    }

    /// The file that holds `position`.
    pub(super) fn holding(&self, position: u64) -> Option<usize> {
        let holds = |f: &FoundSegment| f.base <= position && position < f.base + f.len;
        self.files.iter().position(holds)
    }

    /// Fails if a file below `position` is not one of `chain`. Recovery removes what it cuts off before anything
    /// else happens, and all of that stands above the position it was asked to start from: a stray file below can
    /// only be a part of the log whose head is damaged, and must not be taken for rubbish.
    pub(super) fn check_strays(&self, position: u64, chain: &[usize]) -> Result<(), StorageError> {
        let stray = |(index, f): &(usize, &FoundSegment)| f.base < position && !chain.contains(index);
        self.files.iter().enumerate().find(stray).map_or(Ok(()), |(_, found)| {
            Err(StorageError::corrupt(
                &found.path,
                0,
                "the head of this segment does not hold, or does not link it",
            ))
        })
    }
}
