//! A consumer group's configuration, whole each time.
//!
//! ```text
//! | name string | switches u8 | reserved u8 | retry queues u32 | retry max i32 | broker id u64 |
//! | slow broker id u64 | attribute count u16 | count × ( key string | value string ) |
//! ```

use crate::format::FormatError;
use crate::format::cursor::{Cursor, attributes, put_attributes, put_string};

const DELETED: u16 = 1;

/// One consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group<'a> {
    /// Whether the group is gone: the other fields are then what it was.
    pub deleted: bool,
    /// Its name.
    pub name: &'a str,
    /// See [`Group::CONSUME`] and its neighbours.
    pub switches: u8,
    /// Queues of its retry topic.
    pub retry_queues: u32,
    /// Deliveries after the first before a message goes to the dead letters; negative: the program's default.
    pub retry_max: i32,
    /// RocketMQ's broker id to consume from.
    pub broker_id: u64,
    /// RocketMQ's broker id to consume from when the group is slow.
    pub slow_broker_id: u64,
    /// Further settings.
    pub attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> Group<'a> {
    /// Switch: the group may consume.
    pub const CONSUME: u8 = 1;
    /// Switch: a new consumer starts at the least offset.
    pub const CONSUME_FROM_MIN: u8 = 2;
    /// Switch: broadcast consumption is allowed.
    pub const CONSUME_BROADCAST: u8 = 4;
    /// Switch: messages are consumed in order.
    pub const ORDERLY: u8 = 8;
    /// Switch: members are told when membership changes.
    pub const NOTIFY_IDS_CHANGED: u8 = 16;

    /// The record's flags.
    #[must_use]
    pub const fn flags(&self) -> u16 {
        if self.deleted { DELETED } else { 0 }
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_string(out, self.name);
        out.extend_from_slice(&[self.switches, 0]);
        out.extend_from_slice(&self.retry_queues.to_le_bytes());
        out.extend_from_slice(&self.retry_max.to_le_bytes());
        out.extend_from_slice(&self.broker_id.to_le_bytes());
        out.extend_from_slice(&self.slow_broker_id.to_le_bytes());
        put_attributes(out, &self.attributes);
    }

    /// Reads the payload.
    pub fn decode(flags: u16, payload: &'a [u8]) -> Result<Self, FormatError> {
        let (group, rest) = Self::decode_prefix(flags, payload)?;
        Cursor::new("group record", rest).finish()?;
        Ok(group)
    }

    /// Reads one payload and hands back what follows it, as the groups section of a state file needs it.
    pub fn decode_prefix(flags: u16, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), FormatError> {
        let mut cursor = Cursor::new("group record", bytes);
        let name = cursor.string("group")?;
        let switches = cursor.u8()?;
        cursor.u8()?;
        let group = Self {
            deleted: flags & DELETED != 0,
            name,
            switches,
            retry_queues: cursor.u32()?,
            retry_max: cursor.i32()?,
            broker_id: cursor.u64()?,
            slow_broker_id: cursor.u64()?,
            attributes: attributes(&mut cursor)?,
        };
        Ok((group, cursor.rest()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let group = Group {
            deleted: false,
            name: "g",
            switches: Group::CONSUME | Group::NOTIFY_IDS_CHANGED,
            retry_queues: 1,
            retry_max: -1,
            broker_id: 2,
            slow_broker_id: 3,
            attributes: vec![],
        };
        let mut out = Vec::new();
        group.encode(&mut out);
        let golden = b"\x01\0g\x11\0\x01\0\0\0\xFF\xFF\xFF\xFF\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\0\0";
        assert_eq!(out, golden);
        assert_eq!(Group::decode(0, golden).unwrap(), group);
        assert!(Group::decode(1, golden).unwrap().deleted);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(flags in 0u16..2, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Group::decode(flags, &bytes);
        }
    }
}
