//! An open message, moved here from a segment that is about to be deleted.
//!
//! ```text
//!  0        8              16                    24                     32
//!  | origin | old location | due_ms or delay_ms | transaction's origin | message bytes …
//!    u64      u64            u64                  u64
//! ```

use super::message::MessagePrefix;
use crate::format::FormatError;
use crate::format::cursor::Cursor;

const JOIN: u16 = 1;
const DELAYED: u16 = 2;
const DUE: u16 = 4;

/// A transaction's origin in the record of a message that belongs to none: a delayed one.
pub const NO_TRANSACTION: u64 = u64::MAX;

/// What the carried message waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarriedTiming {
    /// Its transaction's decision.
    Decision,
    /// Its transaction's decision and this many milliseconds more.
    DelayedDecision {
        /// Milliseconds after the commit.
        delay_ms: u64,
    },
    /// A time.
    Due {
        /// Milliseconds since 1970.
        due_ms: u64,
    },
}

/// A message at a new location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried<'a> {
    /// Physical offset of the message's first record: its identity.
    pub origin: u64,
    /// Where its bytes stood until now.
    pub old_location: u64,
    /// What it waits for.
    pub timing: CarriedTiming,
    /// Origin of its transaction: equal to `origin` for the first message of one, [`NO_TRANSACTION`] for a message
    /// that belongs to none.
    pub transaction_origin: u64,
    /// Whether it had joined an open transaction.
    pub joined: bool,
    /// One message in RocketMQ's encoding.
    pub message: &'a [u8],
}

impl<'a> Carried<'a> {
    /// When the message becomes visible, as the record that it was first written in says or would say.
    #[must_use]
    pub fn prefix(&self) -> MessagePrefix {
        let joins = self.joined.then_some(self.transaction_origin);
        match self.timing {
            CarriedTiming::Decision => MessagePrefix::Prepared { joins, delay_ms: None },
            CarriedTiming::DelayedDecision { delay_ms } => {
                MessagePrefix::Prepared { joins, delay_ms: Some(delay_ms) }
            }
            CarriedTiming::Due { due_ms } => MessagePrefix::Due { due_ms },
        }
    }

    /// The record's flags.
    #[must_use]
    pub const fn flags(&self) -> u16 {
        let timing = match self.timing {
            CarriedTiming::Decision => 0,
            CarriedTiming::DelayedDecision { .. } => DELAYED,
            CarriedTiming::Due { .. } => DUE,
        };
        if self.joined { timing | JOIN } else { timing }
    }

    /// Appends what stands before the message bytes: 32 bytes.
    pub fn encode_prefix(&self, out: &mut Vec<u8>) {
        let time_ms = match self.timing {
            CarriedTiming::Decision => 0,
            CarriedTiming::DelayedDecision { delay_ms } => delay_ms,
            CarriedTiming::Due { due_ms } => due_ms,
        };
        for field in [self.origin, self.old_location, time_ms, self.transaction_origin] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_prefix(out);
        out.extend_from_slice(self.message);
    }

    /// Reads the payload; DELAYED together with DUE is a bad value.
    pub fn decode(flags: u16, payload: &'a [u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("carried record", payload);
        let origin = cursor.u64()?;
        let old_location = cursor.u64()?;
        let time_ms = cursor.u64()?;
        let transaction_origin = cursor.u64()?;
        let timing = match flags & (DELAYED | DUE) {
            0 => CarriedTiming::Decision,
            DELAYED => CarriedTiming::DelayedDecision { delay_ms: time_ms },
            DUE => CarriedTiming::Due { due_ms: time_ms },
            _ => return Err(FormatError::BadValue { field: "carried flags", got: u64::from(flags) }),
        };
        let joined = flags & JOIN != 0;
        Ok(Self { origin, old_location, timing, transaction_origin, joined, message: cursor.rest() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let carried = Carried {
            origin: 1,
            old_location: 2,
            timing: CarriedTiming::DelayedDecision { delay_ms: 3 },
            transaction_origin: 4,
            joined: true,
            message: b"mm",
        };
        let mut out = Vec::new();
        carried.encode(&mut out);
        let mut golden = Vec::new();
        for field in [1u8, 2, 3, 4] {
            golden.extend_from_slice(&[field, 0, 0, 0, 0, 0, 0, 0]);
        }
        golden.extend_from_slice(b"mm");
        assert_eq!(out, golden);
        assert_eq!(carried.flags(), 3);
        assert_eq!(Carried::decode(3, &out).unwrap(), carried);
        let due = Carried { timing: CarriedTiming::Due { due_ms: 3 }, joined: false, ..carried };
        assert_eq!(due.flags(), 4);
        assert_eq!(Carried::decode(4, &out).unwrap(), due);
        assert!(Carried::decode(6, &out).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(flags in 0u16..8, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Carried::decode(flags, &bytes);
        }
    }
}
