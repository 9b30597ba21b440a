//! A topic's configuration, whole each time.
//!
//! ```text
//! | name string | read queues u32 | write queues u32 | permission u32 | system flag u32 | ordered u8 |
//! | message type u8 | attribute count u16 | count × ( key string | value string ) |
//! ```

use crate::format::FormatError;
use crate::format::cursor::{Cursor, attributes, put_attributes, put_string};

const DELETED: u16 = 1;

/// What kind of message a topic takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum MessageType {
    /// Any.
    #[default]
    Unspecified = 0,
    /// Plain messages.
    Normal = 1,
    /// Ordered by message group.
    Fifo = 2,
    /// Delayed messages.
    Delay = 3,
    /// Messages of transactions.
    Transaction = 4,
    /// All of them.
    Mixed = 5,
}

impl MessageType {
    /// The type with this number.
    pub fn from_u8(number: u8) -> Result<Self, FormatError> {
        match number {
            0 => Ok(Self::Unspecified),
            1 => Ok(Self::Normal),
            2 => Ok(Self::Fifo),
            3 => Ok(Self::Delay),
            4 => Ok(Self::Transaction),
            5 => Ok(Self::Mixed),
            other => Err(FormatError::BadValue { field: "message type", got: u64::from(other) }),
        }
    }
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic<'a> {
    /// Whether the topic is gone: the other fields are then what it was.
    pub deleted: bool,
    /// Its name.
    pub name: &'a str,
    /// Queues that consumers see.
    pub read_queues: u32,
    /// Queues that producers see.
    pub write_queues: u32,
    /// RocketMQ's permission bits: 4 read, 2 write, 1 inherit.
    pub permission: u32,
    /// RocketMQ's topic system flag.
    pub system_flag: u32,
    /// Whether clients keep its order across all queues.
    pub ordered: bool,
    /// What kind of message it takes.
    pub message_type: MessageType,
    /// Further settings.
    pub attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> Topic<'a> {
    /// The record's flags.
    #[must_use]
    pub const fn flags(&self) -> u16 {
        if self.deleted { DELETED } else { 0 }
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_string(out, self.name);
        for field in [self.read_queues, self.write_queues, self.permission, self.system_flag] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&[u8::from(self.ordered), self.message_type as u8]);
        put_attributes(out, &self.attributes);
    }

    /// Reads the payload.
    pub fn decode(flags: u16, payload: &'a [u8]) -> Result<Self, FormatError> {
        let (topic, rest) = Self::decode_prefix(flags, payload)?;
        Cursor::new("topic record", rest).finish()?;
        Ok(topic)
    }

    /// Reads one payload and hands back what follows it, as the topics section of a state file needs it.
    pub fn decode_prefix(flags: u16, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), FormatError> {
        let mut cursor = Cursor::new("topic record", bytes);
        let topic = Self {
            deleted: flags & DELETED != 0,
            name: cursor.string("topic")?,
            read_queues: cursor.u32()?,
            write_queues: cursor.u32()?,
            permission: cursor.u32()?,
            system_flag: cursor.u32()?,
            ordered: cursor.u8()? != 0,
            message_type: MessageType::from_u8(cursor.u8()?)?,
            attributes: attributes(&mut cursor)?,
        };
        Ok((topic, cursor.rest()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let topic = Topic {
            deleted: true,
            name: "t",
            read_queues: 8,
            write_queues: 4,
            permission: 6,
            system_flag: 1,
            ordered: true,
            message_type: MessageType::Transaction,
            attributes: vec![("k", "v")],
        };
        let mut out = Vec::new();
        topic.encode(&mut out);
        let golden = b"\x01\0t\x08\0\0\0\x04\0\0\0\x06\0\0\0\x01\0\0\0\x01\x04\x01\0\x01\0k\x01\0v";
        assert_eq!(out, golden);
        assert_eq!(topic.flags(), 1);
        assert_eq!(Topic::decode(1, golden).unwrap(), topic);
        out.extend_from_slice(b"tail");
        assert!(Topic::decode(1, &out).is_err());
        assert_eq!(Topic::decode_prefix(1, &out).unwrap().1, b"tail");
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(flags in 0u16..2, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Topic::decode(flags, &bytes);
        }
    }
}
