//! Where each field of a stored message is: the one place that knows the positions.

use crate::message::sys_flag::SysFlag;

/// Magic of messages whose topic length is one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of messages whose topic length is two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;

pub(super) const MAGIC_AT: usize = 4;
pub(super) const QUEUE_OFFSET_AT: usize = 20;
pub(super) const PHYSICAL_OFFSET_AT: usize = 28;
pub(super) const SYS_FLAG_AT: usize = 36;
pub(super) const BORN_HOST_AT: usize = 48;

const HOST_V4_BYTES: usize = 4 + 4;
const HOST_V6_BYTES: usize = 16 + 4;

/// Positions that depend on the host flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) store_timestamp_at: usize,
    pub(super) store_host_at: usize,
    pub(super) store_host_bytes: usize,
    pub(super) prepared_offset_at: usize,
    /// Where the length of the body is.
    pub(super) body_length_at: usize,
}

impl Layout {
    pub(super) const fn of(flag: SysFlag) -> Self {
        let born_host_bytes = host_bytes(flag.has(SysFlag::BORNHOST_V6));
        let store_host_bytes = host_bytes(flag.has(SysFlag::STOREHOST_V6));
        let store_timestamp_at = BORN_HOST_AT + born_host_bytes;
        let store_host_at = store_timestamp_at + 8;
        let prepared_offset_at = store_host_at + store_host_bytes + 4;
        Self {
            store_timestamp_at,
            store_host_at,
            store_host_bytes,
            prepared_offset_at,
            body_length_at: prepared_offset_at + 8,
        }
    }

    /// Length of the whole message.
    pub(super) const fn total(self, body: usize, topic: usize, properties: usize) -> usize {
        self.body_length_at + 4 + body + topic_length_bytes(topic) + topic + 2 + properties
    }
}

pub(super) const fn host_bytes(v6: bool) -> usize {
    if v6 { HOST_V6_BYTES } else { HOST_V4_BYTES }
}

/// Bytes of the length field of a topic this long.
pub(super) const fn topic_length_bytes(topic_bytes: usize) -> usize {
    if topic_bytes > crate::limits::TOPIC_BYTES_MAX { 2 } else { 1 }
}

/// The checksum of a body: CRC-32 without its top bit, because Java's field is signed.
#[must_use]
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

const _: () = assert!(Layout::of(SysFlag::NONE).body_length_at == 84);
const _: () = assert!(Layout::of(SysFlag::BORNHOST_V6).body_length_at == 96);
const _: () = assert!(
    Layout::of(SysFlag::BORNHOST_V6.with(SysFlag::STOREHOST_V6)).total(0, 200, 0) - 200
        == crate::limits::RECORD_FIXED_BYTES_MAX
);
