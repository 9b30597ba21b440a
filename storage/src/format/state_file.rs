//! Base and checkpoint: the fold of the log up to a position, as a header and sections.
//!
//! ```text
//!  0       8      10        12              16           24         32      40        48          56     60
//!  | magic | role | version | section count | generation | position | index | time_ms | synced_to | term |
//!    8 B     u16    u16       u32             u64          u64        u64     u64       u64         u32
//!  60                64              72      88      89         92    96
//!  | frame_bytes_max | segment_bytes | nonce | clean | reserved | crc | sections …
//!    u32               u64             16 B    u8      3 B        u32 over bytes 0 to 91
//! section:  | kind u32 | crc u32 over kind, length, bytes | length u64 | bytes |
//! ```

use super::FormatError;
use super::cursor::Cursor;

/// Bytes before the first section.
pub const STATE_HEADER_BYTES: usize = 96;

/// Bytes before a section's own.
pub const SECTION_HEADER_BYTES: usize = 16;

/// The version that this program writes and the only one that it reads: version 1 was never released.
pub const STATE_VERSION: u16 = 2;

const MAGIC: [u8; 8] = *b"MZSTATE1";
const CRC_AT: usize = 92;

/// What a state file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum StateRole {
    /// The state at the log's first byte: primary.
    Base = 1,
    /// The state at a recent position: derived.
    Checkpoint = 2,
}

/// What stands in a section. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SectionKind {
    /// Topics and their queues' next offsets.
    Topics = 1,
    /// Consumer groups.
    Groups = 2,
    /// Consumer offsets.
    Offsets = 3,
    /// Open transactions.
    OpenTransactions = 4,
    /// Due messages.
    DueMessages = 5,
    /// Leases.
    Leases = 6,
    /// Check-back policies.
    Policies = 7,
    /// What open transactions of many messages have beyond their rows.
    TransactionMessages = 8,
    /// Pages of the consume queues.
    QueuePages = 16,
    /// Summaries of the log's segments.
    Segments = 17,
    /// History rows of segments that are not closed.
    Decisions = 18,
    /// The last `start` record's payload.
    Start = 19,
    /// History files of closed segments, each with its rows.
    HistoryFiles = 20,
    /// Parts of the log whose loss was accepted.
    Losses = 21,
}

impl SectionKind {
    /// The kind with this number; an unknown one was written by a newer program.
    pub fn from_u32(number: u32) -> Result<Self, FormatError> {
        Ok(match number {
            1 => Self::Topics,
            2 => Self::Groups,
            3 => Self::Offsets,
            4 => Self::OpenTransactions,
            5 => Self::DueMessages,
            6 => Self::Leases,
            7 => Self::Policies,
            8 => Self::TransactionMessages,
            16 => Self::QueuePages,
            17 => Self::Segments,
            18 => Self::Decisions,
            19 => Self::Start,
            20 => Self::HistoryFiles,
            21 => Self::Losses,
            other => return Err(FormatError::Newer { what: "state section", got: other, newest: 21 }),
        })
    }
}

/// The first 96 bytes without magic, version, section count and CRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateHeader {
    /// What the file is for.
    pub role: StateRole,
    /// One higher with each file of this role.
    pub generation: u64,
    /// Everything below this position is folded in.
    pub position: u64,
    /// Index of the last frame folded in.
    pub index: u64,
    /// Leader time of that frame, milliseconds since 1970.
    pub time_ms: u64,
    /// The log was known durable up to here.
    pub synced_to: u64,
    /// Term of that frame.
    pub term: u32,
    /// Most bytes of a frame.
    pub frame_bytes_max: u32,
    /// Positions per segment.
    pub segment_bytes: u64,
    /// The log's secret.
    pub nonce: [u8; 16],
    /// Whether a stop in order wrote this.
    pub clean: bool,
}

impl StateHeader {
    fn to_bytes(self, section_count: u32) -> [u8; STATE_HEADER_BYTES] {
        let mut out = [0; STATE_HEADER_BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&(self.role as u16).to_le_bytes());
        out[10..12].copy_from_slice(&STATE_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&section_count.to_le_bytes());
        out[16..24].copy_from_slice(&self.generation.to_le_bytes());
        out[24..32].copy_from_slice(&self.position.to_le_bytes());
        out[32..40].copy_from_slice(&self.index.to_le_bytes());
        out[40..48].copy_from_slice(&self.time_ms.to_le_bytes());
        out[48..56].copy_from_slice(&self.synced_to.to_le_bytes());
        out[56..60].copy_from_slice(&self.term.to_le_bytes());
        out[60..64].copy_from_slice(&self.frame_bytes_max.to_le_bytes());
        out[64..72].copy_from_slice(&self.segment_bytes.to_le_bytes());
        out[72..88].copy_from_slice(&self.nonce);
        out[88] = u8::from(self.clean);
        let crc = crc32fast::hash(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header at the front of `bytes`: the header and how many sections follow.
    pub fn parse(bytes: &[u8]) -> Result<(Self, u32), FormatError> {
        let what = "state file header";
        let bytes = bytes.get(..STATE_HEADER_BYTES).ok_or(FormatError::Truncated { what })?;
        let mut cursor = Cursor::new(what, bytes);
        if cursor.array::<8>()? != MAGIC {
            return Err(FormatError::BadMagic { what: "state file" });
        }
        let role = cursor.u16()?;
        let version = cursor.u16()?;
        let section_count = cursor.u32()?;
        let mut header = Self {
            role: StateRole::Base,
            generation: cursor.u64()?,
            position: cursor.u64()?,
            index: cursor.u64()?,
            time_ms: cursor.u64()?,
            synced_to: cursor.u64()?,
            term: cursor.u32()?,
            frame_bytes_max: cursor.u32()?,
            segment_bytes: cursor.u64()?,
            nonce: cursor.array()?,
            clean: cursor.u8()? != 0,
        };
        cursor.array::<3>()?;
        if cursor.u32()? != crc32fast::hash(&bytes[..CRC_AT]) {
            return Err(FormatError::Crc { what });
        }
        if version != STATE_VERSION {
            let (what, got, newest) = ("state file version", u32::from(version), u32::from(STATE_VERSION));
            return Err(match version {
                0..STATE_VERSION => FormatError::Development { what, got },
                _ => FormatError::Newer { what, got, newest },
            });
        }
        header.role = match role {
            1 => StateRole::Base,
            2 => StateRole::Checkpoint,
            other => return Err(FormatError::BadValue { field: "state file role", got: u64::from(other) }),
        };
        Ok((header, section_count))
    }
}

/// Builds a state file in memory, section by section.
#[derive(Debug)]
pub struct StateFileBuilder {
    header: StateHeader,
    sections: u32,
    out: Vec<u8>,
}

impl StateFileBuilder {
    /// Starts a file with this header.
    #[must_use]
    pub fn new(header: StateHeader) -> Self {
        Self { header, sections: 0, out: vec![0; STATE_HEADER_BYTES] }
    }

    /// Appends one section whose bytes `write` appends to the buffer it is given.
    pub fn section(&mut self, kind: SectionKind, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        self.out.resize(start + SECTION_HEADER_BYTES, 0);
        write(&mut self.out);
        let body = start + SECTION_HEADER_BYTES;
        let length = self.out.len().saturating_sub(body) as u64;
        self.out[start..start + 4].copy_from_slice(&(kind as u32).to_le_bytes());
        self.out[start + 8..body].copy_from_slice(&length.to_le_bytes());
        let crc = section_crc(kind as u32, length, &self.out[body..]);
        self.out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        self.sections += 1;
    }

    /// The whole file.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let header = self.header.to_bytes(self.sections);
        self.out[..STATE_HEADER_BYTES].copy_from_slice(&header);
        self.out
    }
}

fn section_crc(kind: u32, length: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&kind.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// A checked state file.
#[derive(Debug, Clone)]
pub struct StateFile<'a> {
    /// The header.
    pub header: StateHeader,
    sections: Vec<(SectionKind, &'a [u8])>,
}

impl<'a> StateFile<'a> {
    /// Checks a whole file: header, every section's CRC, nothing before, between or behind them.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (header, count) = StateHeader::parse(bytes)?;
        let mut cursor =
            Cursor::new("state file section", bytes.get(STATE_HEADER_BYTES..).unwrap_or_default());
        let mut sections = Vec::with_capacity(cursor.capacity_for(count as usize, SECTION_HEADER_BYTES));
        for _ in 0..count {
            let kind = cursor.u32()?;
            let crc = cursor.u32()?;
            let length = cursor.u64()?;
            let body = cursor.take(usize::try_from(length).unwrap_or(usize::MAX))?;
            if crc != section_crc(kind, length, body) {
                return Err(FormatError::Crc { what: "state file section" });
            }
            sections.push((SectionKind::from_u32(kind)?, body));
        }
        cursor.finish()?;
        Ok(Self { header, sections })
    }

    /// Where the first damage of a file begins that does not hold together: the header, a section, or the file's end.
    #[must_use]
    pub fn damage_offset(bytes: &[u8]) -> u64 {
        let Ok((_, count)) = StateHeader::parse(bytes) else { return 0 };
        let mut at = STATE_HEADER_BYTES;
        for _ in 0..count {
            let mut cursor = Cursor::new("state file section", bytes.get(at..).unwrap_or_default());
            let mut section = || -> Result<usize, FormatError> {
                let (kind, crc, length) = (cursor.u32()?, cursor.u32()?, cursor.u64()?);
                let body = cursor.take(usize::try_from(length).unwrap_or(usize::MAX))?;
                let holds = crc == section_crc(kind, length, body);
                holds.then_some(body.len()).ok_or(FormatError::Crc { what: "state file section" })
            };
            match section() {
                Ok(length) => at += SECTION_HEADER_BYTES + length,
                Err(_) => break,
            }
        }
        at.min(bytes.len()) as u64
    }

    /// The bytes of the first section of this kind; empty if there is none.
    #[must_use]
    pub fn section(&self, kind: SectionKind) -> &'a [u8] {
        self.sections.iter().find(|(found, _)| *found == kind).map_or(&[], |(_, bytes)| bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> StateHeader {
        StateHeader {
            role: StateRole::Checkpoint,
            generation: 3,
            position: 0x0102,
            index: 4,
            time_ms: 5,
            synced_to: 6,
            term: 7,
            frame_bytes_max: 8,
            segment_bytes: 9,
            nonce: [0xAB; 16],
            clean: true,
        }
    }

    fn file() -> Vec<u8> {
        let mut builder = StateFileBuilder::new(header());
        builder.section(SectionKind::Groups, |out| out.extend_from_slice(b"gg"));
        builder.section(SectionKind::Decisions, |_| {});
        builder.finish()
    }

    #[test]
    fn golden_bytes() {
        let mut golden = b"MZSTATE1\x02\0\x02\0\x02\0\0\0\x03\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0".to_vec();
        for field in [4u64, 5, 6] {
            golden.extend_from_slice(&field.to_le_bytes());
        }
        golden.extend_from_slice(&[7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend_from_slice(&[0xAB; 16]);
        golden.extend_from_slice(&[1, 0, 0, 0]);
        let crc = crc32fast::hash(&golden);
        golden.extend_from_slice(&crc.to_le_bytes());
        let crc = crc32fast::hash(b"\x02\0\0\0\x02\0\0\0\0\0\0\0gg");
        golden.extend_from_slice(b"\x02\0\0\0");
        golden.extend_from_slice(&crc.to_le_bytes());
        golden.extend_from_slice(b"\x02\0\0\0\0\0\0\0gg");
        let crc = crc32fast::hash(b"\x12\0\0\0\0\0\0\0\0\0\0\0");
        golden.extend_from_slice(b"\x12\0\0\0");
        golden.extend_from_slice(&crc.to_le_bytes());
        golden.extend_from_slice(&[0; 8]);
        assert_eq!(file(), golden);
    }

    #[test]
    fn sections_come_back() {
        let bytes = file();
        let file = StateFile::parse(&bytes).unwrap();
        assert_eq!(file.header, header());
        assert_eq!(file.section(SectionKind::Groups), b"gg");
        assert_eq!(file.section(SectionKind::Decisions), b"");
        assert_eq!(file.section(SectionKind::Topics), b"");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_detected() {
        let bytes = file();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(StateFile::parse(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(StateFile::parse(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = StateFile::parse(&tail);
            let mut bytes = header().to_bytes(u32::MAX).to_vec();
            bytes.extend_from_slice(&tail);
            prop_assert!(StateFile::parse(&bytes).is_err());
        }
    }
}
