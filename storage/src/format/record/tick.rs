//! Time has passed: every due message with `due_ms` at or below this becomes visible, in (due, position) order.
//!
//! ```text
//! | due_ms u64 |
//! ```

use crate::format::FormatError;
use crate::format::cursor::Cursor;

/// One step of the clock that delayed messages follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Milliseconds since 1970.
    pub due_ms: u64,
}

impl Tick {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.due_ms.to_le_bytes());
    }

    /// Reads the payload; this kind has no flags.
    pub fn decode(_flags: u16, payload: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("tick record", payload);
        let tick = Self { due_ms: cursor.u64()? };
        cursor.finish()?;
        Ok(tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_exact_length() {
        let mut out = Vec::new();
        Tick { due_ms: 0x0102_0304 }.encode(&mut out);
        assert_eq!(out, [4, 3, 2, 1, 0, 0, 0, 0]);
        assert_eq!(Tick::decode(0, &out).unwrap().due_ms, 0x0102_0304);
        assert!(Tick::decode(0, &out[1..]).is_err());
        out.push(0);
        assert!(Tick::decode(0, &out).is_err());
    }
}
