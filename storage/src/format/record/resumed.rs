//! A parked transaction is PREPARED again, asked from zero.
//!
//! ```text
//! | origin u64 | previous event u64 | by whom 16 B | port u16 | reserved 6 B |
//! ```

use std::net::SocketAddr;

use crate::format::FormatError;
use crate::format::cursor::{Cursor, put_peer};

/// A transaction that left IN_DOUBT undecided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// The transaction.
    pub origin: u64,
    /// Position of the record of what happened to the transaction before.
    pub previous_event: u64,
    /// Who wanted it so, if known.
    pub by: Option<SocketAddr>,
}

impl Resumed {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.origin.to_le_bytes());
        out.extend_from_slice(&self.previous_event.to_le_bytes());
        put_peer(out, self.by);
        out.extend_from_slice(&[0; 6]);
    }

    /// Reads the payload; this kind has no flags.
    pub fn decode(_flags: u16, payload: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("resumed record", payload);
        let resumed = Self { origin: cursor.u64()?, previous_event: cursor.u64()?, by: cursor.peer()? };
        cursor.take(6)?;
        cursor.finish()?;
        Ok(resumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_exact_length() {
        let mut out = Vec::new();
        let by = Some("10.1.2.3:258".parse().unwrap());
        let resumed = Resumed { origin: 0x0A0B, previous_event: 9, by };
        resumed.encode(&mut out);
        let mut golden = vec![0x0B, 0x0A, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        golden.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 1, 2, 3, 2, 1]);
        golden.extend_from_slice(&[0; 6]);
        assert_eq!(out, golden);
        assert_eq!(Resumed::decode(0, &out).unwrap(), resumed);
        assert!(Resumed::decode(0, &out[..39]).is_err());
    }
}
