//! Reads the bytes of a log on disk by `docs/on-disk-format.md` alone, without the storage crate: what is in the files
//! is what the page says, or these tests fail.

use std::fs;
use std::path::Path;

const FRAME_HEADER_BYTES: usize = 40;
const RECORD_HEADER_BYTES: usize = 12;
/// Frame kind of the frame that opens a segment.
const SEGMENT_FRAME: u8 = 5;

/// Record kind: half message.
pub const PREPARED: u8 = 2;
/// Record kind: decision.
pub const DECISION: u8 = 4;

/// Record kind: how often transactions have been asked.
pub const ASKS: u8 = 6;

/// How often the log says that the transaction of this origin has been asked.
pub fn asks(data_dir: &Path, origin: u64) -> u32 {
    let frames = frames(data_dir);
    let asks = frames.iter().flat_map(|frame| &frame.records).filter(|record| record.kind == ASKS);
    let counts =
        asks.flat_map(|record| record.payload[4..].chunks_exact(44)).filter(|row| u64_at(row, 0) == origin);
    counts.map(|row| u32_at(row, 16)).max().unwrap_or(0)
}

/// One frame of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFrame {
    /// Position of its first byte.
    pub position: u64,
    /// 1 records, 2 blank, 5 segment.
    pub kind: u8,
    /// Bytes, header included.
    pub bytes: usize,
    /// What it holds.
    pub records: Vec<LogRecord>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Position of its header: for messages, the physical offset.
    pub position: u64,
    /// What it is.
    pub kind: u8,
    /// Flags of this kind.
    pub flags: u16,
    /// The payload.
    pub payload: Vec<u8>,
}

/// All frames of the log in `data_dir`, in order.
pub fn frames(data_dir: &Path) -> Vec<LogFrame> {
    let folder = data_dir.join("log");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{} has a log: {error}", data_dir.display()))
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit()))
        .collect();
    names.sort();
    let mut found = Vec::new();
    for name in names {
        let base: u64 = name.parse().expect("a segment is named by a position");
        let bytes = fs::read(folder.join(&name)).expect("a segment can be read");
        let mut at = 0;
        while let Some(frame) = frame(base, &bytes, at) {
            at += frame.bytes;
            found.push(frame);
        }
    }
    found
}

/// The frame at `at` of a segment; `None` where the segment holds no more.
fn frame(base: u64, segment: &[u8], at: usize) -> Option<LogFrame> {
    let header = segment.get(at..at + FRAME_HEADER_BYTES)?;
    if !header.starts_with(b"MZ") {
        return None;
    }
    assert_eq!(header[2], 2, "frame version at {}", base + at as u64);
    let bytes = u32_at(header, 4) as usize;
    let mut records = Vec::new();
    let mut next = at + FRAME_HEADER_BYTES;
    while next < at + bytes {
        let head = &segment[next..next + RECORD_HEADER_BYTES];
        let length = u32_at(head, 0) as usize;
        let payload_at = next + RECORD_HEADER_BYTES;
        records.push(LogRecord {
            position: base + next as u64,
            kind: head[4],
            flags: u16::from_le_bytes([head[6], head[7]]),
            payload: segment[payload_at..payload_at + length].to_vec(),
        });
        next = payload_at + length;
    }
    assert_eq!(next, at + bytes, "the records of a frame fill it");
    Some(LogFrame { position: base + at as u64, kind: header[3], bytes, records })
}

impl LogFrame {
    /// True for the frame that opens a segment.
    pub fn opens_a_segment(&self) -> bool {
        self.kind == SEGMENT_FRAME
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
