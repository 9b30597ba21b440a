//! One damage: which file, where, and how.

use std::path::{Path, PathBuf};

use mezzo_storage::file_system::{FileSystem, OpenMode, SimulatedDisk};

use super::workload::Random;

const FOLDERS: [(&str, Kind); 5] = [
    ("log", Kind::Log),
    ("base", Kind::Base),
    ("checkpoint", Kind::Checkpoint),
    ("queues", Kind::Queues),
    ("history", Kind::History),
];

/// Bytes of a page that a disk may return as zeros.
const PAGE: u64 = 4096;

/// What the damaged file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    Base,
    Checkpoint,
    Queues,
    History,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    FlippedBit(u8),
    ZeroedPage,
    Truncated,
    Missing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    how: How,
    offset: u64,
    len: u64,
}

/// Paths of the files in a folder below `/data`.
pub(crate) fn files(disk: &SimulatedDisk, folder: &str) -> Vec<PathBuf> {
    let dir = Path::new("/data").join(folder);
    let mut names = disk.list(&dir).unwrap_or_default();
    // those mean nothing any more
    names.retain(|name| !name.ends_with(".deleted"));
    names.sort_unstable();
    names.into_iter().map(|name| dir.join(name)).collect()
}

impl Damage {
    pub(crate) fn draw(disk: &SimulatedDisk, random: &mut Random) -> Self {
        let mut kinds: Vec<(Kind, Vec<PathBuf>)> = FOLDERS
            .map(|(folder, kind)| (kind, files(disk, folder)))
            .into_iter()
            .filter(|k| !k.1.is_empty())
            .collect();
        // the log is what most of the disk is
        let (kind, paths) = if random.below(2) == 0 {
            kinds.swap_remove(0)
        } else {
            let drawn = random.below(kinds.len() as u64) as usize;
            kinds.swap_remove(drawn)
        };
        let path = paths[random.below(paths.len() as u64) as usize].clone();
        let content = disk.content(&path).unwrap();
        let len = content.len() as u64;
        // most of a file that was made in advance is zeros that nobody reads
        let used = content.iter().rposition(|byte| *byte != 0).map_or(1, |last| last as u64 + 1);
        let within = if random.below(8) == 0 { len } else { used };
        let offset = random.below(within.max(1));
        let how = match random.below(4) {
            _ if len == 0 => How::Missing,
            0 => How::FlippedBit(random.below(8) as u8),
            1 => How::ZeroedPage,
            2 => How::Truncated,
            _ => How::Missing,
        };
        Self { kind, path, how, offset, len }
    }

    pub(crate) fn inflict(&self, disk: &SimulatedDisk) {
        let open = || disk.open(&self.path, OpenMode::ReadWrite).unwrap();
        match self.how {
            How::FlippedBit(bit) => disk.flip_bit(&self.path, self.offset, bit).unwrap(),
            How::ZeroedPage => {
                let (from, to) = self.range();
                let file = open();
                file.write_all_at(&vec![0; (to - from) as usize], from).unwrap();
                file.sync_all().unwrap();
            }
            How::Truncated => {
                let file = open();
                file.set_len(self.offset).unwrap();
                file.sync_all().unwrap();
            }
            How::Missing => {
                disk.remove(&self.path).unwrap();
                disk.sync_dir(self.path.parent().unwrap()).unwrap();
            }
        }
    }

    /// The bytes of the file that are not what they were.
    fn range(&self) -> (u64, u64) {
        match self.how {
            How::FlippedBit(_) => (self.offset, self.offset + 1),
            How::ZeroedPage => {
                let from = self.offset - self.offset % PAGE;
                (from, (from + PAGE).min(self.len))
            }
            How::Truncated => (self.offset, u64::MAX),
            How::Missing => (0, u64::MAX),
        }
    }

    /// Positions of the log that are not what they were; empty if the damage is elsewhere.
    pub(crate) fn positions(&self, segment_bytes: u64) -> std::ops::Range<u64> {
        if self.kind != Kind::Log {
            return 0..0;
        }
        let base: u64 = self.path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let (from, to) = self.range();
        base + from..base + to.min(segment_bytes)
    }
}
