//! A start of the log: the one record of the blank frame that opens a term.
//!
//! ```text
//!  0                 1       2          4
//!  | acknowledgement | clean | reserved | version of the program …
//!    u8                u8      u16        string
//! ```

use crate::format::FormatError;
use crate::format::cursor::{Cursor, put_string};

/// When an append is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AckLevel {
    /// When the operating system has it: survives a crash of the process.
    Memory = 1,
    /// When the disk has it: survives a power cut.
    Durable = 2,
}

impl AckLevel {
    /// The level with this number.
    pub fn from_u8(number: u8) -> Result<Self, FormatError> {
        match number {
            1 => Ok(Self::Memory),
            2 => Ok(Self::Durable),
            other => Err(FormatError::BadValue { field: "acknowledgement", got: u64::from(other) }),
        }
    }
}

/// One start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start<'a> {
    /// When appends of this term are answered.
    pub ack: AckLevel,
    /// Whether the log before this was closed in order.
    pub clean: bool,
    /// Version of the program that started.
    pub version: &'a str,
}

impl<'a> Start<'a> {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.ack as u8, u8::from(self.clean), 0, 0]);
        put_string(out, self.version);
    }

    /// Reads the payload; this kind has no flags.
    pub fn decode(_flags: u16, payload: &'a [u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("start record", payload);
        let ack = AckLevel::from_u8(cursor.u8()?)?;
        let clean = cursor.u8()? != 0;
        cursor.u16()?;
        let version = cursor.string("version")?;
        cursor.finish()?;
        Ok(Self { ack, clean, version })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let start = Start { ack: AckLevel::Durable, clean: true, version: "0.1.0" };
        let mut out = Vec::new();
        start.encode(&mut out);
        assert_eq!(out, b"\x02\x01\0\0\x05\x000.1.0");
        assert_eq!(Start::decode(0, &out).unwrap(), start);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Start::decode(0, &bytes);
        }
    }
}
