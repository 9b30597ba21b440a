//! How often open transactions have been asked, batched.
//!
//! ```text
//! | count u32 | count × ( origin u64 | asks u32 ) |
//! ```

use crate::format::FormatError;
use crate::format::cursor::{Cursor, put_count};

/// Bytes of one row.
const ROW_BYTES: usize = 12;

/// One transaction's counted asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedCount {
    /// The transaction.
    pub origin: u64,
    /// Asks counted so far, this one included.
    pub asks: u32,
}

/// A batch of counted asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asks {
    /// One row per transaction.
    pub rows: Vec<AskedCount>,
}

impl Asks {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_count(out, self.rows.len());
        for row in &self.rows {
            out.extend_from_slice(&row.origin.to_le_bytes());
            out.extend_from_slice(&row.asks.to_le_bytes());
        }
    }

    /// Reads the payload; this kind has no flags.
    pub fn decode(_flags: u16, payload: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("asks record", payload);
        let count = cursor.u32()? as usize;
        let mut rows = Vec::with_capacity(cursor.capacity_for(count, ROW_BYTES));
        for _ in 0..count {
            rows.push(AskedCount { origin: cursor.u64()?, asks: cursor.u32()? });
        }
        cursor.finish()?;
        Ok(Self { rows })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let asks = Asks { rows: vec![AskedCount { origin: 5, asks: 0x0102 }] };
        let mut out = Vec::new();
        asks.encode(&mut out);
        assert_eq!(out, [1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0]);
        assert_eq!(Asks::decode(0, &out).unwrap(), asks);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic_and_accepted_ones_round_trip(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            if let Ok(asks) = Asks::decode(0, &bytes) {
                let mut out = Vec::new();
                asks.encode(&mut out);
                prop_assert_eq!(out, bytes);
            }
        }
    }
}
