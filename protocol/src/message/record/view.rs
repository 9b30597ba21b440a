//! Reads a stored or delivered message without copying it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::layout::{MAGIC_V1, MAGIC_V2, body_crc};
use crate::cursor::Cursor;
use crate::error::DecodeError;
use crate::ids::{OffsetMessageId, PhysicalOffset, QueueId, QueueOffset};
use crate::limits::{GROUP_TOPIC_BYTES_MAX, PROPERTIES_BYTES_MAX, TOPIC_BYTES_MAX};
use crate::message::properties;
use crate::message::sys_flag::SysFlag;
use crate::time::Timestamp;

/// A message whose structure was checked: every length inside it fits and they add up to its total. Its checksum is
/// checked by [`MessageView::verify_body_crc`] only. In a stored message all fields that depend on the place are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageView<'a> {
    bytes: &'a [u8],
    body_crc: u32,
    queue_id: QueueId,
    flag: i32,
    queue_offset: QueueOffset,
    physical_offset: PhysicalOffset,
    sys_flag: SysFlag,
    born_timestamp: Timestamp,
    born_host: SocketAddr,
    store_timestamp: Timestamp,
    store_host: SocketAddr,
    reconsume_times: i32,
    prepared_transaction_offset: PhysicalOffset,
    body: &'a [u8],
    topic: &'a str,
    properties: &'a [u8],
}

impl<'a> MessageView<'a> {
    /// Reads the message at the start of `bytes`; more may follow it, see [`MessageView::total_len`].
    ///
    /// # Errors
    /// If the bytes end too early, the magic is unknown, a length is out of bounds or they do not add up, a position is
    /// negative, or the topic is not UTF-8.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes, "message");
        let total = cursor.length_i32("message", i32::MAX as usize)?;
        let Some(bytes) = bytes.get(..total) else {
            return Err(DecodeError::Truncated { what: "message", needed: total, have: bytes.len() });
        };
        let mut cursor = Cursor::new(bytes.get(4..).unwrap_or_default(), "message");
        let magic = cursor.u32()?;
        let long_topic = match magic {
            MAGIC_V1 => false,
            MAGIC_V2 => true,
            got => return Err(DecodeError::BadMagic { what: "message", got }),
        };
        let body_crc = cursor.u32()?;
        let raw_queue_id = cursor.i32()?;
        let queue_id =
            QueueId::from_wire(raw_queue_id).ok_or_else(|| negative("queueId", i64::from(raw_queue_id)))?;
        let flag = cursor.i32()?;
        let queue_offset = QueueOffset(position(&mut cursor, "queueOffset")?);
        let physical_offset = PhysicalOffset(position(&mut cursor, "physicalOffset")?);
        let sys_flag = SysFlag(cursor.i32()?);
        let born_timestamp = Timestamp::from_wire_ms(cursor.i64()?);
        let born_host = host(&mut cursor, sys_flag.has(SysFlag::BORNHOST_V6), "bornHost")?;
        let store_timestamp = Timestamp::from_wire_ms(cursor.i64()?);
        let store_host = host(&mut cursor, sys_flag.has(SysFlag::STOREHOST_V6), "storeHost")?;
        let reconsume_times = cursor.i32()?;
        let prepared_transaction_offset = PhysicalOffset(position(&mut cursor, "preparedTransactionOffset")?);
        let body_bytes = cursor.length_i32("body", total)?;
        let body = cursor.bytes(body_bytes)?;
        let topic_bytes = if long_topic {
            cursor.length_i16("topic", GROUP_TOPIC_BYTES_MAX)?
        } else {
            usize::from(cursor.u8()?)
        };
        if !long_topic && topic_bytes > TOPIC_BYTES_MAX {
            return Err(DecodeError::TooLong { what: "topic", got: topic_bytes, max: TOPIC_BYTES_MAX });
        }
        let topic = cursor.text(topic_bytes, "topic")?;
        let properties_bytes = cursor.length_i16("properties", PROPERTIES_BYTES_MAX)?;
        let properties = cursor.bytes(properties_bytes)?;
        if cursor.remaining() != 0 {
            let expected = total - cursor.remaining();
            return Err(DecodeError::LengthMismatch { what: "message", got: total, expected });
        }
        Ok(Self {
            bytes,
            body_crc,
            queue_id,
            flag,
            queue_offset,
            physical_offset,
            sys_flag,
            born_timestamp,
            born_host,
            store_timestamp,
            store_host,
            reconsume_times,
            prepared_transaction_offset,
            body,
            topic,
            properties,
        })
    }

    /// The whole message.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Length of the whole message, in bytes.
    #[must_use]
    pub const fn total_len(&self) -> usize {
        self.bytes.len()
    }

    /// The body, compressed if the system flag says so.
    #[must_use]
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The checksum of the body that the message carries.
    #[must_use]
    pub const fn body_crc(&self) -> u32 {
        self.body_crc
    }

    /// Compares the body with its checksum.
    ///
    /// # Errors
    /// [`DecodeError::BadChecksum`] if they differ.
    pub fn verify_body_crc(&self) -> Result<(), DecodeError> {
        let got = body_crc(self.body);
        if got == self.body_crc {
            return Ok(());
        }
        Err(DecodeError::BadChecksum { what: "message body", got, expected: self.body_crc })
    }

    /// The topic.
    #[must_use]
    pub const fn topic(&self) -> &'a str {
        self.topic
    }

    /// The queue.
    #[must_use]
    pub const fn queue_id(&self) -> QueueId {
        self.queue_id
    }

    /// The application's flag.
    #[must_use]
    pub const fn flag(&self) -> i32 {
        self.flag
    }

    /// The system flag.
    #[must_use]
    pub const fn sys_flag(&self) -> SysFlag {
        self.sys_flag
    }

    /// The position in the queue; 0 where it is stored.
    #[must_use]
    pub const fn queue_offset(&self) -> QueueOffset {
        self.queue_offset
    }

    /// The position in the log; 0 where it is stored.
    #[must_use]
    pub const fn physical_offset(&self) -> PhysicalOffset {
        self.physical_offset
    }

    /// When the producer made the message.
    #[must_use]
    pub const fn born_timestamp(&self) -> Timestamp {
        self.born_timestamp
    }

    /// The producer's address.
    #[must_use]
    pub const fn born_host(&self) -> SocketAddr {
        self.born_host
    }

    /// When the message became visible; 0 where it is stored.
    #[must_use]
    pub const fn store_timestamp(&self) -> Timestamp {
        self.store_timestamp
    }

    /// The broker's address; unspecified where it is stored.
    #[must_use]
    pub const fn store_host(&self) -> SocketAddr {
        self.store_host
    }

    /// How often the message was consumed before.
    #[must_use]
    pub const fn reconsume_times(&self) -> i32 {
        self.reconsume_times
    }

    /// The origin of the transaction that the message belongs to; 0 where it is stored and without a transaction.
    #[must_use]
    pub const fn prepared_transaction_offset(&self) -> PhysicalOffset {
        self.prepared_transaction_offset
    }

    /// Encoded properties.
    #[must_use]
    pub const fn properties(&self) -> &'a [u8] {
        self.properties
    }

    /// The value of one property, see [`properties::find`].
    #[must_use]
    pub fn property(&self, key: &str) -> Option<&'a str> {
        properties::find(self.properties, key)
    }

    /// The id that the producer gave the message.
    #[must_use]
    pub fn unique_key(&self) -> Option<&'a str> {
        self.property(properties::UNIQUE_KEY)
    }

    /// The tag.
    #[must_use]
    pub fn tags(&self) -> Option<&'a str> {
        self.property(properties::TAGS)
    }

    /// The keys to find the message by.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        properties::keys(self.properties)
    }

    /// The broker's id of the message: where it is.
    #[must_use]
    pub const fn offset_message_id(&self) -> OffsetMessageId {
        OffsetMessageId::new(self.store_host, self.physical_offset)
    }
}

fn negative(field: &'static str, got: i64) -> DecodeError {
    DecodeError::bad_value(field, got.to_string(), "a number of 0 or more")
}

fn position(cursor: &mut Cursor<'_>, field: &'static str) -> Result<u64, DecodeError> {
    let raw = cursor.i64()?;
    u64::try_from(raw).map_err(|_| negative(field, raw))
}

fn host(cursor: &mut Cursor<'_>, v6: bool, field: &'static str) -> Result<SocketAddr, DecodeError> {
    let ip = if v6 {
        IpAddr::V6(Ipv6Addr::from_bits(cursor.u128()?))
    } else {
        IpAddr::V4(Ipv4Addr::from_bits(cursor.u32()?))
    };
    let raw_port = cursor.u32()?;
    let Ok(port) = u16::try_from(raw_port) else {
        return Err(DecodeError::bad_value(field, raw_port.to_string(), "a port of at most 65535"));
    };
    Ok(SocketAddr::new(ip, port))
}
