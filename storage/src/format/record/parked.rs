//! A transaction is IN_DOUBT: asked no more on a timer, never dropped.
//!
//! ```text
//!  0        8        9          12     16               24
//!  | origin | reason | reserved | asks | previous event |
//!    u64      u8       3 bytes    u32    u64
//! ```

use crate::format::FormatError;
use crate::format::cursor::Cursor;

/// Why a transaction is asked no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ParkReason {
    /// Asked `check_max` times.
    CheckMax = 1,
    /// Older than `max_age`.
    MaxAge = 2,
}

impl ParkReason {
    /// The reason with this number.
    pub fn from_u8(number: u8) -> Result<Self, FormatError> {
        match number {
            1 => Ok(Self::CheckMax),
            2 => Ok(Self::MaxAge),
            other => Err(FormatError::BadValue { field: "park reason", got: u64::from(other) }),
        }
    }
}

/// One parked transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parked {
    /// The transaction.
    pub origin: u64,
    /// Why.
    pub reason: ParkReason,
    /// Asks counted so far.
    pub asks: u32,
    /// Position of the record of what happened to the transaction before; 0 if that was its prepare.
    pub previous_event: u64,
}

impl Parked {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.origin.to_le_bytes());
        out.extend_from_slice(&[self.reason as u8, 0, 0, 0]);
        out.extend_from_slice(&self.asks.to_le_bytes());
        out.extend_from_slice(&self.previous_event.to_le_bytes());
    }

    /// Reads the payload; this kind has no flags.
    pub fn decode(_flags: u16, payload: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("parked record", payload);
        let origin = cursor.u64()?;
        let reason = ParkReason::from_u8(cursor.u8()?)?;
        cursor.array::<3>()?;
        let (asks, previous_event) = (cursor.u32()?, cursor.u64()?);
        cursor.finish()?;
        Ok(Self { origin, reason, asks, previous_event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_exact_length() {
        let parked = Parked { origin: 5, reason: ParkReason::MaxAge, asks: 15, previous_event: 4 };
        let mut out = Vec::new();
        parked.encode(&mut out);
        assert_eq!(out, [5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 15, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Parked::decode(0, &out).unwrap(), parked);
        assert!(Parked::decode(0, &out[..23]).is_err());
        out[8] = 3;
        assert_eq!(Parked::decode(0, &out), Err(FormatError::BadValue { field: "park reason", got: 3 }));
    }
}
