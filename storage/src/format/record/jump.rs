//! Every queue's next offset rises: after an unclean stop at acknowledgement `memory`, so that an offset which a
//! consumer may have seen before a power loss is never given to another message.
//!
//! ```text
//! | by u64 |
//! ```

use crate::format::FormatError;
use crate::format::cursor::Cursor;

/// How far all queues jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// Queue offsets to leave unused.
    pub by: u64,
}

impl Jump {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.by.to_le_bytes());
    }

    /// Reads the payload; this kind has no flags.
    pub fn decode(_flags: u16, payload: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("jump record", payload);
        let jump = Self { by: cursor.u64()? };
        cursor.finish()?;
        Ok(jump)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_exact_length() {
        let mut out = Vec::new();
        Jump { by: 0x0102 }.encode(&mut out);
        assert_eq!(out, [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Jump::decode(0, &out).unwrap().by, 0x0102);
        assert!(Jump::decode(0, &out[..7]).is_err());
    }
}
