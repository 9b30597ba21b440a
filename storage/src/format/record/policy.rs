//! How a producer group's open transactions are asked about.
//!
//! ```text
//! | producer group string | first_ms u64 | interval_ms u64 | backoff_percent u32 | check_max u32 | max_age_ms u64 |
//! | exhausted u8 | reserved 3 bytes |
//! ```

use mezzo_protocol::check_policy::{CheckPolicy, Exhausted};

use crate::format::FormatError;
use crate::format::cursor::{Cursor, put_string};

const DELETED: u16 = 1;

const PARK: u8 = 1;
const ROLL_BACK: u8 = 2;

/// One producer group's check-back policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy<'a> {
    /// Whether the policy is gone and the program's default holds again.
    pub deleted: bool,
    /// The producer group.
    pub group: &'a str,
    /// The policy.
    pub policy: CheckPolicy,
}

impl<'a> Policy<'a> {
    /// The record's flags.
    #[must_use]
    pub const fn flags(&self) -> u16 {
        if self.deleted { DELETED } else { 0 }
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_string(out, self.group);
        let policy = &self.policy;
        out.extend_from_slice(&policy.timeout_ms.to_le_bytes());
        out.extend_from_slice(&policy.interval_ms.to_le_bytes());
        out.extend_from_slice(&policy.backoff_percent.to_le_bytes());
        out.extend_from_slice(&policy.check_max.to_le_bytes());
        out.extend_from_slice(&policy.max_age_ms.to_le_bytes());
        let exhausted = match policy.exhausted {
            Exhausted::Park => PARK,
            Exhausted::RollBack => ROLL_BACK,
        };
        out.extend_from_slice(&[exhausted, 0, 0, 0]);
    }

    /// Reads the payload.
    pub fn decode(flags: u16, payload: &'a [u8]) -> Result<Self, FormatError> {
        let (policy, rest) = Self::decode_prefix(flags, payload)?;
        Cursor::new("policy record", rest).finish()?;
        Ok(policy)
    }

    /// Reads one payload and hands back what follows it, as the policies section of a state file needs it.
    pub fn decode_prefix(flags: u16, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), FormatError> {
        let mut cursor = Cursor::new("policy record", bytes);
        let policy = Self {
            deleted: flags & DELETED != 0,
            group: cursor.string("producer group")?,
            policy: CheckPolicy {
                timeout_ms: cursor.u64()?,
                interval_ms: cursor.u64()?,
                backoff_percent: cursor.u32()?,
                check_max: cursor.u32()?,
                max_age_ms: cursor.u64()?,
                exhausted: match cursor.u8()? {
                    PARK => Exhausted::Park,
                    ROLL_BACK => Exhausted::RollBack,
                    other => return Err(FormatError::BadValue { field: "exhausted", got: u64::from(other) }),
                },
            },
        };
        cursor.array::<3>()?;
        Ok((policy, cursor.rest()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let policy = Policy {
            deleted: false,
            group: "p",
            policy: CheckPolicy {
                timeout_ms: 6_000,
                interval_ms: 30_000,
                backoff_percent: 150,
                check_max: 15,
                max_age_ms: 86_400_000,
                exhausted: Exhausted::RollBack,
            },
        };
        let mut out = Vec::new();
        policy.encode(&mut out);
        let golden = b"\x01\0p\x70\x17\0\0\0\0\0\0\x30\x75\0\0\0\0\0\0\x96\0\0\0\x0F\0\0\0\0\x5C\x26\x05\0\0\0\0\x02\0\0\0";
        assert_eq!(out, golden);
        assert_eq!(Policy::decode(0, golden).unwrap(), policy);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(flags in 0u16..2, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Policy::decode(flags, &bytes);
        }
    }
}
