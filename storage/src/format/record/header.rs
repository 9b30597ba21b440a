//! The header before every record's payload.
//!
//! ```text
//!  0        4      5         6       8     12
//!  | length | kind | version | flags | crc | payload …
//!    u32      u8     u8        u16     u32
//! ```
//!
//! `crc` is CRC-32 over the log's nonce, bytes 0 to 7, and the payload. The nonce is secret, so a client cannot put
//! bytes into a message body that pass for a record. No position goes into it: the caller computes it before it
//! holds the append lock, when the position is not known yet. The frame's CRC binds the record to its place.

use super::kind::{RECORD_VERSION, RecordKind};
use crate::format::FormatError;
use crate::format::cursor::Cursor;

/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 12;

/// The state of a CRC-32 after the log's nonce: where every frame's and record's CRC starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSeed {
    crc: u32,
}

impl LogSeed {
    /// From the log's nonce.
    #[must_use]
    pub fn from_nonce(nonce: &[u8; 16]) -> Self {
        Self { crc: crc32fast::hash(nonce) }
    }

    /// A CRC that has already taken the nonce in.
    #[must_use]
    pub fn hasher(self) -> crc32fast::Hasher {
        crc32fast::Hasher::new_with_initial(self.crc)
    }
}

/// What the caller knows of a record before it is appended: computed outside every lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead {
    /// What the payload is.
    pub kind: RecordKind,
    /// Version of the payload's layout.
    pub version: u8,
    /// Flags of this kind.
    pub flags: u16,
    /// CRC over nonce, header bytes 0 to 7 and payload.
    pub crc: u32,
}

impl RecordHead {
    /// The head for a payload that stands in `parts`, one after another.
    #[must_use]
    pub fn new(seed: LogSeed, kind: RecordKind, flags: u16, parts: &[&[u8]]) -> Self {
        Self { kind, version: RECORD_VERSION, flags, crc: record_crc(seed, kind, flags, parts) }
    }
}

/// The CRC of a record whose payload stands in `parts`. A payload beyond 4 GiB cannot be stored: no frame takes it.
#[must_use]
pub fn record_crc(seed: LogSeed, kind: RecordKind, flags: u16, parts: &[&[u8]]) -> u32 {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let header = RecordHeader {
        length: u32::try_from(length).unwrap_or(u32::MAX),
        kind: kind.as_u8(),
        version: RECORD_VERSION,
        flags,
        crc: 0,
    };
    let mut hasher = seed.hasher();
    hasher.update(&header.to_bytes()[..8]);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// A record's header as it stands in the log; kind and version are not judged yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the payload.
    pub length: u32,
    /// Number of the kind.
    pub kind: u8,
    /// Version of the payload's layout.
    pub version: u8,
    /// Flags of this kind.
    pub flags: u16,
    /// CRC over nonce, header bytes 0 to 7 and payload.
    pub crc: u32,
}

impl RecordHeader {
    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut out = [0; RECORD_HEADER_BYTES];
        out[0..4].copy_from_slice(&self.length.to_le_bytes());
        out[4] = self.kind;
        out[5] = self.version;
        out[6..8].copy_from_slice(&self.flags.to_le_bytes());
        out[8..12].copy_from_slice(&self.crc.to_le_bytes());
        out
    }

    /// Reads the header at the front of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("record header", bytes);
        Ok(Self {
            length: cursor.u32()?,
            kind: cursor.u8()?,
            version: cursor.u8()?,
            flags: cursor.u16()?,
            crc: cursor.u32()?,
        })
    }

    /// Whether the CRC holds for this payload.
    #[must_use]
    pub fn holds(&self, seed: LogSeed, payload: &[u8]) -> bool {
        let mut hasher = seed.hasher();
        hasher.update(&self.to_bytes()[..8]);
        hasher.update(payload);
        hasher.finalize() == self.crc
    }

    /// The kind, if this program can read the payload.
    pub fn known_kind(&self) -> Result<RecordKind, FormatError> {
        let kind = RecordKind::from_u8(self.kind)?;
        if self.version == RECORD_VERSION {
            return Ok(kind);
        }
        Err(FormatError::Newer {
            what: "record version",
            got: u32::from(self.version),
            newest: u32::from(RECORD_VERSION),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: [u8; 16] = *b"a nonce for test";

    #[test]
    fn golden_header() {
        let header = RecordHeader { length: 0x0102, kind: 4, version: 1, flags: 3, crc: 0xAABB_CCDD };
        let golden = [2, 1, 0, 0, 4, 1, 3, 0, 0xDD, 0xCC, 0xBB, 0xAA];
        assert_eq!(header.to_bytes(), golden);
        assert_eq!(RecordHeader::parse(&golden).unwrap(), header);
    }

    #[test]
    fn crc_is_over_nonce_header_and_payload() {
        let seed = LogSeed::from_nonce(&SEED);
        let head = RecordHead::new(seed, RecordKind::Tick, 0, &[b"half", b"note"]);
        let mut plain = SEED.to_vec();
        plain.extend_from_slice(&[8, 0, 0, 0, 5, 1, 0, 0]);
        plain.extend_from_slice(b"halfnote");
        assert_eq!(head.crc, crc32fast::hash(&plain));
        let header = RecordHeader { length: 8, kind: 5, version: 1, flags: 0, crc: head.crc };
        assert!(header.holds(seed, b"halfnote"));
        assert!(!header.holds(seed, b"halfnotf"));
        assert!(!header.holds(LogSeed::from_nonce(b"another nonce!!!"), b"halfnote"));
    }

    #[test]
    fn newer_payload_version_is_named() {
        let header = RecordHeader { length: 0, kind: 1, version: 2, flags: 0, crc: 0 };
        assert!(matches!(
            header.known_kind(),
            Err(FormatError::Newer { what: "record version", got: 2, .. })
        ));
    }
}
