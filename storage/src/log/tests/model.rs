//! A model of what a log must hold after a crash, and the small log that all tests here use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mezzo_protocol::time::Timestamp;

use crate::error::StorageError;
use crate::file_system::{FileSystem, OpenMode, SimulatedDisk};
use crate::format::frame::{Frame, FrameKind};
use crate::format::loss::Losses;
use crate::format::record::{AckLevel, RECORD_HEADER_BYTES, RecordHead, RecordKind};
use crate::log::{
    Class, FrameEnd, Layout, Log, LogOptions, Opening, PrepareStep, RecoveryReport, ResumePoint, Writer,
    recover,
};

pub(super) const SEGMENT_BYTES: u64 = 16 * 1024;

pub(super) const LAYOUT: Layout =
    Layout { nonce: *b"a nonce for test", segment_bytes: SEGMENT_BYTES, frame_bytes_max: 4096 };

pub(super) fn dir() -> PathBuf {
    PathBuf::from("/data/log")
}

pub(super) fn segment_path(base: u64) -> PathBuf {
    dir().join(format!("{base:020}"))
}

/// A frame of records as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) payloads: Vec<Vec<u8>>,
}

pub(super) struct Opened {
    pub(super) log: Arc<Log>,
    pub(super) writer: Writer,
    pub(super) report: RecoveryReport,
    /// Frames of kind `records` that recovery has shown.
    pub(super) seen: Vec<Seen>,
}

pub(super) fn seen(frame: &Frame<'_>) -> Option<Seen> {
    let payloads = frame.records().map(|record| record.payload.to_vec()).collect();
    (frame.header.kind == FrameKind::Records).then(|| Seen {
        start: frame.position,
        end: frame.end(),
        payloads,
    })
}

pub(super) fn opening(resume: ResumePoint) -> Opening {
    let options = LogOptions {
        hot_bytes: 6_000,
        writeback_bytes: 4096,
        zero_fill: true,
        spare_segments: 2,
        max_bytes: u64::MAX,
    };
    Opening {
        layout: LAYOUT,
        options,
        resume,
        ack: AckLevel::Durable,
        now: Timestamp::from_ms(1_000),
        losses: Losses::default(),
    }
}

pub(super) fn open_at(disk: &SimulatedDisk, resume: ResumePoint) -> Result<Opened, StorageError> {
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let mut frames = Vec::new();
    let (log, writer, report) = recover(&fs, &dir(), &opening(resume), &mut |frame| {
        frames.extend(seen(frame));
        Ok(())
    })?;
    Ok(Opened { log, writer, report, seen: frames })
}

pub(super) fn open(disk: &SimulatedDisk) -> Result<Opened, StorageError> {
    open_at(disk, ResumePoint::default())
}

impl Opened {
    pub(super) fn append(&mut self, payloads: &[Vec<u8>]) -> Result<FrameEnd, StorageError> {
        self.append_as(payloads, Class::Message)
    }

    pub(super) fn append_as(&mut self, payloads: &[Vec<u8>], class: Class) -> Result<FrameEnd, StorageError> {
        let bytes = payloads.iter().map(|payload| payload.len() + RECORD_HEADER_BYTES).sum();
        self.writer.begin(Timestamp::from_ms(2_000), bytes, class)?;
        for payload in payloads {
            let head = RecordHead::new(LAYOUT.seed(), RecordKind::Message, 0, &[payload]);
            self.writer.push(&head, &[payload]);
        }
        self.writer.commit()
    }

    pub(super) fn prepare(&self) -> Result<(), StorageError> {
        while self.log.prepare_segments()? == PrepareStep::Worked {}
        Ok(())
    }

    /// What a stop in order would write into its checkpoint.
    pub(super) fn clean_stop(&self) -> Result<ResumePoint, StorageError> {
        let synced_to = self.log.sync()?;
        Ok(ResumePoint {
            position: self.writer.position(),
            index: self.writer.index(),
            term: self.writer.term(),
            time_ms: self.writer.time().as_ms(),
            synced_to,
            clean: true,
        })
    }
}

/// What was tried, and what of it was answered.
#[derive(Debug, Default, Clone)]
pub(super) struct Model {
    /// Every frame whose `commit` was called, in order; the last one may have failed.
    pub(super) tried: Vec<Seen>,
    /// How many of them were committed.
    pub(super) appended: usize,
    /// How many of them were committed and then synced.
    pub(super) synced: usize,
}

impl Model {
    /// Appends frames that differ in number and size of records, syncing a group of three at a time and preparing
    /// segments in between, until `frames` are appended or the disk fails.
    pub(super) fn run(&mut self, opened: &mut Opened, frames: usize) -> Result<(), StorageError> {
        for _ in 0..frames {
            let n = self.tried.len();
            let number = u8::try_from(n % 251 + 1).unwrap();
            let payloads: Vec<_> =
                (0..1 + n % 3).map(|r| vec![number; 90 + (n * 331 + r * 77) % 700]).collect();
            let bytes = payloads.iter().map(|p| p.len() + RECORD_HEADER_BYTES).sum();
            opened.writer.begin(Timestamp::from_ms(2_000), bytes, Class::Essential)?;
            let start = opened.writer.position();
            for payload in &payloads {
                let head = RecordHead::new(LAYOUT.seed(), RecordKind::Message, 0, &[payload]);
                opened.writer.push(&head, &[payload]);
            }
            self.tried.push(Seen { start, end: start + 40 + bytes as u64, payloads });
            opened.writer.commit()?;
            self.appended = self.tried.len();
            if n % 3 == 2 {
                opened.log.sync()?;
                self.synced = self.appended;
            }
            if n % 4 == 3 {
                opened.prepare()?;
            }
        }
        Ok(())
    }

    /// Checks what a recovery has shown: a prefix of what was tried, with everything that was synced in it, and, if
    /// the page cache has survived, everything that was appended. Frames before `skip` were not to be shown.
    pub(super) fn check(&self, shown: &[Seen], skip: usize, kept_all: bool, context: &str) {
        let tried = self.tried.get(skip..).unwrap_or_default();
        assert!(shown.len() <= tried.len(), "{context}: phantom frames");
        assert_eq!(shown, &tried[..shown.len()], "{context}: not a prefix of what was tried");
        let least = if kept_all { self.appended } else { self.synced };
        assert!(
            shown.len() + skip >= least,
            "{context}: {} frames shown, {least} promised",
            shown.len() + skip
        );
    }

    /// No position that was ever given out may be given out again.
    pub(super) fn check_positions(&self, opened: &Opened, context: &str) {
        let highest = self.tried.iter().map(|frame| frame.end).max().unwrap_or(0);
        let lost_some = opened.report.end < highest;
        let next = opened.writer.position();
        assert!(next >= highest || !lost_some, "{context}: {next} is given out again, up to {highest} was");
    }
}

/// Every file of the log with its content.
pub(super) fn snapshot(disk: &SimulatedDisk) -> Vec<(String, Vec<u8>)> {
    let mut names = disk.list(&dir()).unwrap();
    names.sort();
    names.into_iter().map(|name| (name.clone(), disk.content(&dir().join(&name)).unwrap())).collect()
}

/// Overwrites part of a file, durably.
pub(super) fn overwrite(disk: &SimulatedDisk, path: &Path, offset: u64, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::ReadWrite).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}
