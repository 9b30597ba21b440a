//! A frame: what one group append writes, and what one Raft entry will be.
//!
//! ```text
//!  0       2         3      4        8      12    16      24        32          40
//!  | magic | version | kind | length | term | crc | index | time_ms | synced_to | records … to length
//!    u16     u8        u8     u32      u32    u32   u64     u64       u64
//! ```
//!
//! `crc` is CRC-32 over the log's nonce, the frame's position (u64), these 40 bytes with `crc` as zero, and the `crc`
//! field of each record in order. With each record's own CRC that covers every bit of the frame, its place in the
//! log and the log it belongs to. The bodies are hashed once, by whoever made the record, not again here.

use super::FormatError;
use super::cursor::Cursor;
use super::record::{LogSeed, RECORD_HEADER_BYTES, RecordHeader, RecordKind};

/// Bytes before a frame's first record.
pub const FRAME_HEADER_BYTES: usize = 40;

/// The frame version that this program writes and the only one that it reads: version 1 was never released.
pub const FRAME_VERSION: u8 = 2;

/// The first two bytes of every frame: "MZ".
pub const FRAME_MAGIC: [u8; 2] = *b"MZ";

/// Most bytes of a frame that any log may be laid out for.
pub const FRAME_BYTES_LIMIT: u32 = 8 * 1024 * 1024;

const CRC_AT: usize = 12;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A group of records.
    Records = 1,
    /// The opening of a term.
    Blank = 2,
    /// Reserved for replication.
    Membership = 3,
    // 4 was "pad" and is retired.
    /// The head of a segment.
    Segment = 5,
}

impl FrameKind {
    /// The kind with this number.
    pub fn from_u8(number: u8) -> Result<Self, FormatError> {
        match number {
            1 => Ok(Self::Records),
            2 => Ok(Self::Blank),
            3 => Ok(Self::Membership),
            5 => Ok(Self::Segment),
            other => Err(FormatError::Newer { what: "frame kind", got: u32::from(other), newest: 5 }),
        }
    }
}

/// A frame's header without magic, version and CRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is.
    pub kind: FrameKind,
    /// Bytes of the whole frame, header included.
    pub length: u32,
    /// One higher at each start of the log.
    pub term: u32,
    /// One higher per frame; a segment frame repeats the index of the frame before it.
    pub index: u64,
    /// Leader time: never falls along the log, milliseconds since 1970.
    pub time_ms: u64,
    /// Everything below this position was known durable when the frame was written.
    pub synced_to: u64,
}

impl FrameHeader {
    /// The stored header of a frame at `position` whose records have these CRCs (as they stand in their headers,
    /// little-endian, one after another).
    #[must_use]
    pub fn to_bytes(&self, seed: LogSeed, position: u64, record_crcs: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[0..2].copy_from_slice(&FRAME_MAGIC);
        out[2] = FRAME_VERSION;
        out[3] = self.kind as u8;
        out[4..8].copy_from_slice(&self.length.to_le_bytes());
        out[8..12].copy_from_slice(&self.term.to_le_bytes());
        out[16..24].copy_from_slice(&self.index.to_le_bytes());
        out[24..32].copy_from_slice(&self.time_ms.to_le_bytes());
        out[32..40].copy_from_slice(&self.synced_to.to_le_bytes());
        let mut hasher = seed.hasher();
        hasher.update(&position.to_le_bytes());
        hasher.update(&out);
        hasher.update(record_crcs);
        out[CRC_AT..CRC_AT + 4].copy_from_slice(&hasher.finalize().to_le_bytes());
        out
    }
}

/// The length that a frame header announces, if `header` looks like one at all: magic there, length between a bare
/// header and `frame_bytes_max`. Nothing is believed yet; this only says how many bytes [`Frame::parse`] needs.
#[must_use]
pub fn announced_length(header: &[u8], frame_bytes_max: u32) -> Option<usize> {
    let (magic, rest) = header.split_first_chunk::<2>()?;
    let length = rest.get(2..6)?.first_chunk::<4>().copied().map(u32::from_le_bytes)?;
    let length_usize = usize::try_from(length).ok()?;
    (*magic == FRAME_MAGIC && length <= frame_bytes_max && length_usize >= FRAME_HEADER_BYTES)
        .then_some(length_usize)
}

/// A frame whose CRC and whose records' CRCs hold, and all of whose parts this program can read.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Where it stands in the log.
    pub position: u64,
    /// Its header.
    pub header: FrameHeader,
    records: &'a [u8],
    /// Set if not every record holds: where the CRCs of those that do start.
    in_part: Option<LogSeed>,
}

/// A record inside a valid frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRecord<'a> {
    /// Position of its header in the log.
    pub position: u64,
    /// What the payload is.
    pub kind: RecordKind,
    /// Flags of this kind.
    pub flags: u16,
    /// The payload.
    pub payload: &'a [u8],
}

impl FrameRecord<'_> {
    /// Bytes of the record: header and payload. At most a frame.
    #[must_use]
    pub fn size(&self) -> u32 {
        u32::try_from(RECORD_HEADER_BYTES + self.payload.len()).unwrap_or(u32::MAX)
    }
}

impl<'a> Frame<'a> {
    /// Reads the frame that `bytes` hold whole and exactly, standing at `position`.
    ///
    /// [`FormatError::Newer`] and [`FormatError::Development`] mean that the CRCs hold but another version of the program
    /// wrote it; any other error means that there is no valid frame here. A header whose version is newer is judged by this version's CRC rule: a newer layout
    /// that changes the rule must change the magic, too.
    pub fn parse(seed: LogSeed, position: u64, bytes: &'a [u8]) -> Result<Self, FormatError> {
        Self::parse_with(seed, position, bytes, false)
    }

    /// As [`Frame::parse`], of a frame whose own CRC holds while some of its records do not: it shows the others. The
    /// frame's CRC vouches for the place and the order of all of them.
    pub fn parse_in_part(seed: LogSeed, position: u64, bytes: &'a [u8]) -> Result<Self, FormatError> {
        Self::parse_with(seed, position, bytes, true)
    }

    fn parse_with(seed: LogSeed, position: u64, bytes: &'a [u8], in_part: bool) -> Result<Self, FormatError> {
        let what = "frame";
        let (header_bytes, records) =
            bytes.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or(FormatError::Truncated { what })?;
        let mut cursor = Cursor::new(what, header_bytes);
        if cursor.array::<2>()? != FRAME_MAGIC {
            return Err(FormatError::BadMagic { what });
        }
        let version = cursor.u8()?;
        let kind = cursor.u8()?;
        let length = cursor.u32()?;
        let term = cursor.u32()?;
        let crc = cursor.u32()?;
        let (index, time_ms, synced_to) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
        if length as usize != bytes.len() || synced_to > position {
            return Err(FormatError::BadValue { field: "frame length", got: u64::from(length) });
        }
        if crc != frame_crc(seed, position, header_bytes, records)? {
            return Err(FormatError::Crc { what });
        }
        let raw = RawRecords { position: position + FRAME_HEADER_BYTES as u64, rest: records };
        let broken = raw.clone().any(|(_, header, payload)| !header.holds(seed, payload));
        if broken && !in_part {
            return Err(FormatError::Crc { what: "record" });
        }
        if version != FRAME_VERSION {
            let (what, got, newest) = ("frame version", u32::from(version), u32::from(FRAME_VERSION));
            return Err(match version {
                0..FRAME_VERSION => FormatError::Development { what, got },
                _ => FormatError::Newer { what, got, newest },
            });
        }
        let kind = FrameKind::from_u8(kind)?;
        if kind == FrameKind::Membership {
            return Err(FormatError::Newer { what: "frame kind", got: 3, newest: 2 });
        }
        for (_, header, payload) in raw {
            if !broken || header.holds(seed, payload) {
                header.known_kind()?;
            }
        }
        let header = FrameHeader { kind, length, term, index, time_ms, synced_to };
        Ok(Self { position, header, records, in_part: broken.then_some(seed) })
    }

    /// The position behind the frame.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.position + u64::from(self.header.length)
    }

    /// Where records that do not hold begin and end; none unless the frame was parsed in part.
    pub fn broken_records(&self) -> impl Iterator<Item = (u64, u64)> + 'a {
        let raw = RawRecords { position: self.position + FRAME_HEADER_BYTES as u64, rest: self.records };
        let in_part = self.in_part;
        raw.filter_map(move |(position, header, payload)| {
            let broken = in_part.is_some_and(|seed| !header.holds(seed, payload));
            broken.then(|| (position, position + (RECORD_HEADER_BYTES + payload.len()) as u64))
        })
    }

    /// Its records in order.
    pub fn records(&self) -> impl Iterator<Item = FrameRecord<'a>> + 'a {
        let raw = RawRecords { position: self.position + FRAME_HEADER_BYTES as u64, rest: self.records };
        let in_part = self.in_part;
        raw.filter_map(move |(position, header, payload)| {
            if in_part.is_some_and(|seed| !header.holds(seed, payload)) {
                return None;
            }
            let kind = header.known_kind().ok()?;
            Some(FrameRecord { position, kind, flags: header.flags, payload })
        })
    }
}

/// The CRC that the header should hold; fails if the records do not fill the frame exactly.
fn frame_crc(
    seed: LogSeed,
    position: u64,
    header: &[u8; FRAME_HEADER_BYTES],
    records: &[u8],
) -> Result<u32, FormatError> {
    let mut without_crc = *header;
    without_crc[CRC_AT..CRC_AT + 4].fill(0);
    let mut hasher = seed.hasher();
    hasher.update(&position.to_le_bytes());
    hasher.update(&without_crc);
    let mut raw = RawRecords { position, rest: records };
    for (_, header, _) in raw.by_ref() {
        hasher.update(&header.crc.to_le_bytes());
    }
    if raw.rest.is_empty() { Ok(hasher.finalize()) } else { Err(FormatError::Truncated { what: "record" }) }
}

/// Splits records without judging them; stops at the first that does not fit, leaving it in `rest`.
#[derive(Debug, Clone)]
struct RawRecords<'a> {
    position: u64,
    rest: &'a [u8],
}

impl<'a> Iterator for RawRecords<'a> {
    type Item = (u64, RecordHeader, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = RecordHeader::parse(self.rest).ok()?;
        let size = RECORD_HEADER_BYTES.checked_add(usize::try_from(header.length).ok()?)?;
        let (record, rest) = self.rest.split_at_checked(size)?;
        let position = self.position;
        self.rest = rest;
        self.position += size as u64;
        Some((position, header, &record[RECORD_HEADER_BYTES..]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::record::RecordHead;

    const NONCE: [u8; 16] = *b"a nonce for test";

    /// Builds a frame by the page, not by the code under test.
    fn frame(position: u64, kind: u8, records: &[(RecordKind, &[u8])]) -> Vec<u8> {
        frame_of(2, position, kind, records)
    }

    fn frame_of(version: u8, position: u64, kind: u8, records: &[(RecordKind, &[u8])]) -> Vec<u8> {
        let seed = LogSeed::from_nonce(&NONCE);
        let mut body = Vec::new();
        let mut crcs = Vec::new();
        for (kind, payload) in records {
            let head = RecordHead::new(seed, *kind, 0, &[payload]);
            body.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
            body.extend_from_slice(&[kind.as_u8(), 1, 0, 0]);
            body.extend_from_slice(&head.crc.to_le_bytes());
            body.extend_from_slice(payload);
            crcs.extend_from_slice(&head.crc.to_le_bytes());
        }
        let mut out = vec![b'M', b'Z', version, kind];
        out.extend_from_slice(&u32::try_from(40 + body.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]);
        for field in [9u64, 1_000, 64] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let covered = [&NONCE[..], &position.to_le_bytes(), &out, &crcs].concat();
        out[12..16].copy_from_slice(&crc32fast::hash(&covered).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    #[test]
    fn header_bytes_are_those_of_the_page() {
        let seed = LogSeed::from_nonce(&NONCE);
        let bytes = frame(4096, 1, &[(RecordKind::Tick, b"12345678"), (RecordKind::Message, b"")]);
        let header = FrameHeader {
            kind: FrameKind::Records,
            length: 72,
            term: 3,
            index: 9,
            time_ms: 1_000,
            synced_to: 64,
        };
        let crcs = [&bytes[48..52], &bytes[68..72]].concat();
        assert_eq!(header.to_bytes(seed, 4096, &crcs).as_slice(), &bytes[..40]);
        let frame = Frame::parse(seed, 4096, &bytes).unwrap();
        assert_eq!(frame.header, header);
        assert_eq!(frame.end(), 4168);
        let records: Vec<_> = frame.records().map(|r| (r.position, r.kind, r.payload, r.size())).collect();
        assert_eq!(
            records,
            [(4136, RecordKind::Tick, &b"12345678"[..], 20), (4156, RecordKind::Message, &b""[..], 12)]
        );
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let seed = LogSeed::from_nonce(&NONCE);
        let bytes = frame(4096, 1, &[(RecordKind::Message, b"payload"), (RecordKind::Tick, b"12345678")]);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let result = Frame::parse(seed, 4096, &damaged);
            let told = matches!(result, Err(FormatError::Newer { .. } | FormatError::Development { .. }));
            assert!(result.is_err() && !told, "bit {bit}");
        }
    }

    #[test]
    fn another_place_or_another_log_is_no_frame() {
        let bytes = frame(4096, 1, &[(RecordKind::Message, b"payload")]);
        assert!(Frame::parse(LogSeed::from_nonce(&NONCE), 4097, &bytes).is_err());
        assert!(Frame::parse(LogSeed::from_nonce(b"another nonce!!!"), 4096, &bytes).is_err());
    }

    #[test]
    fn what_another_version_wrote_is_told_from_damage() {
        let seed = LogSeed::from_nonce(&NONCE);
        let bytes = frame(4096, 7, &[]);
        let newer = Frame::parse(seed, 4096, &bytes);
        assert!(matches!(newer, Err(FormatError::Newer { what: "frame kind", got: 7, .. })));
        let old = frame_of(1, 4096, 1, &[]);
        let expected = FormatError::Development { what: "frame version", got: 1 };
        assert_eq!(Frame::parse(seed, 4096, &old).unwrap_err(), expected);
        let newer = frame_of(3, 4096, 1, &[]);
        assert!(matches!(
            Frame::parse(seed, 4096, &newer),
            Err(FormatError::Newer { got: 3, newest: 2, .. })
        ));
        let membership = frame(4096, 3, &[]);
        assert!(matches!(Frame::parse(seed, 4096, &membership), Err(FormatError::Newer { got: 3, .. })));
    }

    #[test]
    fn announced_length_is_bounded() {
        let bytes = frame(0, 1, &[]);
        assert_eq!(announced_length(&bytes, 4096), Some(40));
        assert_eq!(announced_length(&bytes, 39), None);
        assert_eq!(announced_length(&bytes[..7], 4096), None);
        assert_eq!(announced_length(&[0; 40], 4096), None);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 40..128), position: u64) {
            bytes[..2].copy_from_slice(&FRAME_MAGIC);
            let len = u32::try_from(bytes.len()).unwrap();
            bytes[4..8].copy_from_slice(&len.to_le_bytes());
            prop_assert!(Frame::parse(LogSeed::from_nonce(&NONCE), position, &bytes).is_err());
        }
    }
}
