//! Writes a message as it is stored: everything that depends on its place is zero.

use std::net::{IpAddr, SocketAddr};

use super::layout::{Layout, MAGIC_V1, MAGIC_V2, body_crc, topic_length_bytes};
use crate::error::EncodeError;
use crate::ids::QueueId;
use crate::limits::{BODY_BYTES_MAX, GROUP_TOPIC_BYTES_MAX, PROPERTIES_BYTES_MAX};
use crate::message::sys_flag::SysFlag;
use crate::time::Timestamp;

/// What a stored message is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageParts<'a> {
    /// The topic, at most 255 bytes.
    pub topic: &'a str,
    /// The queue.
    pub queue_id: QueueId,
    /// The application's flag.
    pub flag: i32,
    /// The system flag; the two bits about hosts are set by the writer, whatever they are here.
    pub sys_flag: SysFlag,
    /// When the producer made the message.
    pub born_timestamp: Timestamp,
    /// The producer's address; an IPv4 address in IPv6 clothing is stored as IPv4.
    pub born_host: SocketAddr,
    /// Whether room is left for an IPv6 address of the broker.
    pub store_host_v6: bool,
    /// How often the message was consumed before.
    pub reconsume_times: i32,
    /// The body, at most 4 MiB.
    pub body: &'a [u8],
    /// Encoded properties, at most 32,767 bytes.
    pub properties: &'a [u8],
}

impl MessageParts<'_> {
    fn stored_sys_flag(&self) -> SysFlag {
        let mut flag = self.sys_flag.without(SysFlag::BORNHOST_V6).without(SysFlag::STOREHOST_V6);
        if self.born_host.ip().to_canonical().is_ipv6() {
            flag = flag.with(SysFlag::BORNHOST_V6);
        }
        if self.store_host_v6 {
            flag = flag.with(SysFlag::STOREHOST_V6);
        }
        flag
    }
}

/// Length of the stored message, in bytes.
#[must_use]
pub fn encoded_len(message: &MessageParts<'_>) -> usize {
    Layout::of(message.stored_sys_flag()).total(
        message.body.len(),
        message.topic.len(),
        message.properties.len(),
    )
}

/// Appends the stored message to `out`.
///
/// # Errors
/// If topic, body or properties are above their bounds, or the topic is empty. Nothing is appended then.
pub fn encode(message: &MessageParts<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    check("topic", message.topic.len(), GROUP_TOPIC_BYTES_MAX)?;
    check("body", message.body.len(), BODY_BYTES_MAX)?;
    check("properties", message.properties.len(), PROPERTIES_BYTES_MAX)?;
    if message.topic.is_empty() {
        return Err(EncodeError::bad_value("topic", "", "a name"));
    }
    let flag = message.stored_sys_flag();
    let layout = Layout::of(flag);
    let total = layout.total(message.body.len(), message.topic.len(), message.properties.len());
    let long_topic = topic_length_bytes(message.topic.len()) == 2;

    out.reserve(total);
    let start = out.len();
    put_length(out, total);
    out.extend_from_slice(&(if long_topic { MAGIC_V2 } else { MAGIC_V1 }).to_be_bytes());
    out.extend_from_slice(&body_crc(message.body).to_be_bytes());
    out.extend_from_slice(&message.queue_id.as_wire().to_be_bytes());
    out.extend_from_slice(&message.flag.to_be_bytes());
    out.extend_from_slice(&[0; 8 + 8]);
    out.extend_from_slice(&flag.bits().to_be_bytes());
    out.extend_from_slice(&message.born_timestamp.as_wire_ms().to_be_bytes());
    match message.born_host.ip().to_canonical() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&u32::from(message.born_host.port()).to_be_bytes());
    out.resize(start + layout.prepared_offset_at - 4, 0);
    out.extend_from_slice(&message.reconsume_times.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    put_length(out, message.body.len());
    out.extend_from_slice(message.body);
    if long_topic {
        put_short_length(out, message.topic.len());
    } else {
        // At most 127 here, so the low byte is the whole number.
        out.push(message.topic.len().to_be_bytes()[size_of::<usize>() - 1]);
    }
    out.extend_from_slice(message.topic.as_bytes());
    put_short_length(out, message.properties.len());
    out.extend_from_slice(message.properties);
    debug_assert_eq!(out.len() - start, total);
    Ok(())
}

fn check(what: &'static str, got: usize, max: usize) -> Result<(), EncodeError> {
    if got > max { Err(EncodeError::TooLong { what, got, max }) } else { Ok(()) }
}

/// Lengths are checked against bounds far below 2^31 before anything is written, so saturation cannot happen.
fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes());
}

fn put_short_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&i16::try_from(length).unwrap_or(i16::MAX).to_be_bytes());
}
