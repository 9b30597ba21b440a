//! Asks that counted, batched: how often each transaction has been asked about, and how the latest ask went.
//!
//! ```text
//! | count u32 | count × 44 bytes:
//!  0        8                16     20          24     40     42       43
//!  | origin | previous event | asks | waited_ms | peer | port | answer | reserved |
//!    u64      u64              u32    u32         16 B   u16    u8       u8
//! ```

use std::net::SocketAddr;

use crate::format::FormatError;
use crate::format::cursor::{Cursor, put_count, put_peer};

/// Bytes of one row.
pub(crate) const ASK_ROW_BYTES: usize = 44;

/// What came of an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AskAnswer {
    /// Nothing: whoever was asked was heard afterwards, but did not answer.
    Silence = 1,
    /// Whoever was asked does not know yet.
    Unknown = 2,
}

impl AskAnswer {
    /// The answer with this number.
    pub fn from_u8(number: u8) -> Result<Self, FormatError> {
        match number {
            1 => Ok(Self::Silence),
            2 => Ok(Self::Unknown),
            other => Err(FormatError::BadValue { field: "ask answer", got: u64::from(other) }),
        }
    }
}

/// One transaction's latest ask that counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedCount {
    /// The transaction.
    pub origin: u64,
    /// Position of the record of what happened to the transaction before; 0 if that was its prepare.
    pub previous_event: u64,
    /// Asks counted so far, this one included.
    pub asks: u32,
    /// From the ask to this record, in milliseconds.
    pub waited_ms: u32,
    /// Who was asked, if known.
    pub peer: Option<SocketAddr>,
    /// What came of it.
    pub answer: AskAnswer,
}

/// A batch of counted asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asks {
    /// One row per ask.
    pub rows: Vec<AskedCount>,
}

impl Asks {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_count(out, self.rows.len());
        for row in &self.rows {
            out.extend_from_slice(&row.origin.to_le_bytes());
            out.extend_from_slice(&row.previous_event.to_le_bytes());
            out.extend_from_slice(&row.asks.to_le_bytes());
            out.extend_from_slice(&row.waited_ms.to_le_bytes());
            put_peer(out, row.peer);
            out.extend_from_slice(&[row.answer as u8, 0]);
        }
    }

    /// Reads the payload; this kind has no flags.
    pub fn decode(_flags: u16, payload: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("asks record", payload);
        let count = cursor.u32()? as usize;
        let mut rows = Vec::with_capacity(cursor.capacity_for(count, ASK_ROW_BYTES));
        for _ in 0..count {
            let (origin, previous_event) = (cursor.u64()?, cursor.u64()?);
            let (asks, waited_ms) = (cursor.u32()?, cursor.u32()?);
            let (peer, answer) = (cursor.peer()?, AskAnswer::from_u8(cursor.u8()?)?);
            cursor.u8()?;
            rows.push(AskedCount { origin, previous_event, asks, waited_ms, peer, answer });
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
        let row = AskedCount {
            origin: 5,
            previous_event: 4,
            asks: 0x0102,
            waited_ms: 3,
            peer: Some("10.1.2.3:258".parse().unwrap()),
            answer: AskAnswer::Unknown,
        };
        let asks = Asks { rows: vec![row] };
        let mut out = Vec::new();
        asks.encode(&mut out);
        let mut golden = vec![1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
        golden.extend_from_slice(&[2, 1, 0, 0, 3, 0, 0, 0]);
        golden.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 1, 2, 3, 2, 1, 2, 0]);
        assert_eq!(out, golden);
        assert_eq!(Asks::decode(0, &out).unwrap(), asks);
        for peer in [None, Some("[::1]:7".parse().unwrap())] {
            let asks = Asks { rows: vec![AskedCount { peer, answer: AskAnswer::Silence, ..row }; 2] };
            let mut out = Vec::new();
            asks.encode(&mut out);
            assert_eq!(out.len(), 4 + 2 * ASK_ROW_BYTES);
            assert_eq!(Asks::decode(0, &out).unwrap(), asks);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = Asks::decode(0, &bytes);
        }
    }
}
