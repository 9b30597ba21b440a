//! A parked transaction is PREPARED again, asked from zero.
//!
//! ```text
//! | origin u64 |
//! ```

use crate::format::FormatError;
use crate::format::cursor::Cursor;

/// A transaction that left IN_DOUBT undecided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// The transaction.
    pub origin: u64,
}

impl Resumed {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.origin.to_le_bytes());
    }

    /// Reads the payload; this kind has no flags.
    pub fn decode(_flags: u16, payload: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("resumed record", payload);
        let resumed = Self { origin: cursor.u64()? };
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
        Resumed { origin: 0x0A0B }.encode(&mut out);
        assert_eq!(out, [0x0B, 0x0A, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Resumed::decode(0, &out).unwrap().origin, 0x0A0B);
        assert!(Resumed::decode(0, &out[..7]).is_err());
    }
}
