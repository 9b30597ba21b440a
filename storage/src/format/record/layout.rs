//! The log's layout and the link to the bytes before: the one record of a segment's first frame.
//!
//! ```text
//!  0       16              24               28         32             40
//!  | nonce | segment_bytes | frame_bytes_max | reserved | previous_end |
//!    16 B    u64             u32               u32        u64
//! ```

use crate::format::FormatError;
use crate::format::cursor::Cursor;

/// Bytes of the payload.
pub const LAYOUT_BYTES: usize = 40;

/// What a segment frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutRecord {
    /// The log's secret: every CRC begins with it.
    pub nonce: [u8; 16],
    /// Positions per segment.
    pub segment_bytes: u64,
    /// Most bytes of a frame.
    pub frame_bytes_max: u32,
    /// Where the log's valid bytes before this segment end.
    pub previous_end: u64,
}

impl LayoutRecord {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.segment_bytes.to_le_bytes());
        out.extend_from_slice(&self.frame_bytes_max.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.previous_end.to_le_bytes());
    }

    /// Reads the payload; this kind has no flags.
    pub fn decode(_flags: u16, payload: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("layout record", payload);
        let nonce = cursor.array()?;
        let segment_bytes = cursor.u64()?;
        let frame_bytes_max = cursor.u32()?;
        cursor.u32()?;
        let previous_end = cursor.u64()?;
        cursor.finish()?;
        Ok(Self { nonce, segment_bytes, frame_bytes_max, previous_end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_exact_length() {
        let layout = LayoutRecord {
            nonce: [7; 16],
            segment_bytes: 0x0400_0000,
            frame_bytes_max: 0x10_0000,
            previous_end: 5,
        };
        let mut out = Vec::new();
        layout.encode(&mut out);
        let mut golden = vec![7; 16];
        golden
            .extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(out, golden);
        assert_eq!(out.len(), LAYOUT_BYTES);
        assert_eq!(LayoutRecord::decode(0, &out).unwrap(), layout);
        assert!(LayoutRecord::decode(0, &out[..39]).is_err());
    }
}
