//! Who may move a queue's offset inside a decision.
//!
//! ```text
//! | group string | topic string | queue u32 | client string | epoch u64 | expires_ms u64 |
//! ```

use crate::format::FormatError;
use crate::format::cursor::{Cursor, put_string};

const RELEASED: u16 = 1;

/// One client's right to one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease<'a> {
    /// Whether the right is given back.
    pub released: bool,
    /// The consumer group.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The queue within the topic.
    pub queue: u32,
    /// The client that holds the right.
    pub client: &'a str,
    /// One higher with each holder.
    pub epoch: u64,
    /// Leader time at which the right ends by itself, milliseconds since 1970.
    pub expires_ms: u64,
}

impl<'a> Lease<'a> {
    /// The record's flags.
    #[must_use]
    pub const fn flags(&self) -> u16 {
        if self.released { RELEASED } else { 0 }
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_string(out, self.group);
        put_string(out, self.topic);
        out.extend_from_slice(&self.queue.to_le_bytes());
        put_string(out, self.client);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.expires_ms.to_le_bytes());
    }

    /// Reads the payload.
    pub fn decode(flags: u16, payload: &'a [u8]) -> Result<Self, FormatError> {
        let (lease, rest) = Self::decode_prefix(flags, payload)?;
        Cursor::new("lease record", rest).finish()?;
        Ok(lease)
    }

    /// Reads one payload and hands back what follows it, as the leases section of a state file needs it.
    pub fn decode_prefix(flags: u16, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), FormatError> {
        let mut cursor = Cursor::new("lease record", bytes);
        let lease = Self {
            released: flags & RELEASED != 0,
            group: cursor.string("group")?,
            topic: cursor.string("topic")?,
            queue: cursor.u32()?,
            client: cursor.string("client")?,
            epoch: cursor.u64()?,
            expires_ms: cursor.u64()?,
        };
        Ok((lease, cursor.rest()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let lease = Lease {
            released: true,
            group: "g",
            topic: "t",
            queue: 2,
            client: "c",
            epoch: 3,
            expires_ms: 0x0102,
        };
        let mut out = Vec::new();
        lease.encode(&mut out);
        let golden = b"\x01\0g\x01\0t\x02\0\0\0\x01\0c\x03\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0";
        assert_eq!(out, golden);
        assert_eq!(lease.flags(), 1);
        assert_eq!(Lease::decode(1, golden).unwrap(), lease);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(flags in 0u16..2, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Lease::decode(flags, &bytes);
        }
    }
}
