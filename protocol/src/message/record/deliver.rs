//! Turns a stored message into a delivered one, in place, and reads delivered ones from the body of a pull reply.

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;

use super::layout::{
    Layout, MAGIC_AT, MAGIC_V1, MAGIC_V2, PHYSICAL_OFFSET_AT, QUEUE_OFFSET_AT, SYS_FLAG_AT, host_bytes,
};
use super::view::MessageView;
use crate::error::DecodeError;
use crate::ids::{PhysicalOffset, QueueOffset};
use crate::limits::PROPERTIES_BYTES_MAX;
use crate::message::properties::{self, NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR};
use crate::message::sys_flag::{SysFlag, TransactionBits};
use crate::time::Timestamp;

/// What a message learns when it is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Its position in the queue.
    pub queue_offset: QueueOffset,
    /// Where its bytes are now.
    pub physical_offset: PhysicalOffset,
    /// When it became visible.
    pub store_timestamp: Timestamp,
    /// The broker's address as clients reach it.
    pub store_host: SocketAddr,
    /// The origin of its transaction; 0 without one.
    pub prepared_transaction_offset: PhysicalOffset,
    /// Where it stands in its transaction: [`TransactionBits::Commit`] once decided, [`TransactionBits::Prepared`] in a
    /// request that asks its producer.
    pub transaction: TransactionBits,
}

/// Writes `delivery` into the stored message that `stored` holds. Length, body and checksum stay as they are.
///
/// # Errors
/// If `stored` is not exactly one message by length and magic, or the broker's address is IPv6 and the message has room
/// for IPv4 only. Nothing is changed then.
pub fn patch(stored: &mut [u8], delivery: &Delivery) -> Result<(), DecodeError> {
    let announced = read_u32(stored, 0)?;
    if usize::try_from(announced) != Ok(stored.len()) {
        let got = usize::try_from(announced).unwrap_or(usize::MAX);
        return Err(DecodeError::LengthMismatch { what: "message", got, expected: stored.len() });
    }
    let magic = read_u32(stored, MAGIC_AT)?;
    if magic != MAGIC_V1 && magic != MAGIC_V2 {
        return Err(DecodeError::BadMagic { what: "message", got: magic });
    }
    let flag = SysFlag(read_u32(stored, SYS_FLAG_AT)?.cast_signed());
    let layout = Layout::of(flag);
    if stored.len() < layout.body_length_at {
        return Err(DecodeError::Truncated {
            what: "message",
            needed: layout.body_length_at,
            have: stored.len(),
        });
    }
    let v6_slot = layout.store_host_bytes == host_bytes(true);
    let ip = delivery.store_host.ip().to_canonical();
    let mut host = [0; host_bytes(true)];
    match (ip, v6_slot) {
        (IpAddr::V4(ip), false) => put(&mut host, 0, &ip.octets()),
        (IpAddr::V4(ip), true) => put(&mut host, 0, &ip.to_ipv6_mapped().octets()),
        (IpAddr::V6(ip), true) => put(&mut host, 0, &ip.octets()),
        (IpAddr::V6(ip), false) => {
            return Err(DecodeError::bad_value("storeHost", ip.to_string(), "an IPv4 address"));
        }
    }
    let port = u32::from(delivery.store_host.port()).to_be_bytes();
    put(&mut host, layout.store_host_bytes - 4, &port);

    put(stored, QUEUE_OFFSET_AT, &delivery.queue_offset.as_wire().to_be_bytes());
    put(stored, PHYSICAL_OFFSET_AT, &delivery.physical_offset.as_wire().to_be_bytes());
    put(stored, SYS_FLAG_AT, &flag.with_transaction(delivery.transaction).bits().to_be_bytes());
    put(stored, layout.store_timestamp_at, &delivery.store_timestamp.as_wire_ms().to_be_bytes());
    put(stored, layout.store_host_at, host.get(..layout.store_host_bytes).unwrap_or_default());
    put(stored, layout.prepared_offset_at, &delivery.prepared_transaction_offset.as_wire().to_be_bytes());
    Ok(())
}

/// Gives the message that `out` ends with, from byte `start` on, one more property. One that has it already, or whose
/// properties have no room for it, stays as it is.
///
/// # Errors
/// If there is no message from `start` to the end. Nothing is changed then.
pub fn add_property(out: &mut BytesMut, start: usize, name: &str, value: &str) -> Result<(), DecodeError> {
    let message = out.get(start..).unwrap_or_default();
    let view = MessageView::parse(message)?;
    if view.total_len() != message.len() {
        let (got, expected) = (view.total_len(), message.len());
        return Err(DecodeError::LengthMismatch { what: "message", got, expected });
    }
    let present = view.properties();
    if properties::find(present, name).is_some() {
        return Ok(());
    }
    // newer clients leave out the separator behind the last entry
    let unfinished = present.last().is_some_and(|last| char::from(*last) != PROPERTY_SEPARATOR);
    let added = usize::from(unfinished) + name.len() + value.len() + 2;
    let length = present.len() + added;
    let (Ok(total), Ok(properties_length)) = (u32::try_from(message.len() + added), u16::try_from(length))
    else {
        return Ok(());
    };
    if length > PROPERTIES_BYTES_MAX {
        return Ok(());
    }
    let length_at = message.len() - present.len() - 2;
    let message = out.get_mut(start..).unwrap_or_default();
    put(message, 0, &total.to_be_bytes());
    put(message, length_at, &properties_length.to_be_bytes());
    let mut separators = [0; 4];
    if unfinished {
        out.extend_from_slice(PROPERTY_SEPARATOR.encode_utf8(&mut separators).as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(NAME_VALUE_SEPARATOR.encode_utf8(&mut separators).as_bytes());
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(PROPERTY_SEPARATOR.encode_utf8(&mut separators).as_bytes());
    Ok(())
}

fn read_u32(bytes: &[u8], at: usize) -> Result<u32, DecodeError> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    found.map(|chunk| u32::from_be_bytes(*chunk)).ok_or(DecodeError::Truncated {
        what: "message",
        needed: at + 4,
        have: bytes.len(),
    })
}

/// Overwrites bytes whose room was checked; writes nothing where there is none.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// Walks over the messages in the body of a pull reply; ends after the first error.
#[derive(Debug, Clone)]
pub struct Delivered<'a> {
    rest: &'a [u8],
}

/// The messages in the body of a pull reply, in the order of their queue.
#[must_use]
pub const fn decode_delivered(body: &[u8]) -> Delivered<'_> {
    Delivered { rest: body }
}

impl<'a> Iterator for Delivered<'a> {
    type Item = Result<MessageView<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = MessageView::parse(self.rest);
        self.rest = match &message {
            Ok(message) => self.rest.get(message.total_len()..).unwrap_or_default(),
            Err(_) => &[],
        };
        Some(message)
    }
}
