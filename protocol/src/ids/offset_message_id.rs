//! The broker's id of a stored message: where it is. Address of the broker, port, position in its log, in hex.
//!
//! ```text
//!   IPv4:  4 bytes address | 4 bytes port | 8 bytes position    32 hex digits
//!   IPv6: 16 bytes address | 4 bytes port | 8 bytes position    56 hex digits
//! ```
//! Digits are written in upper case, because clients compare these ids as text; either case is read.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::numbers::PhysicalOffset;
use crate::cursor::Cursor;
use crate::error::DecodeError;

const V4_BYTES: usize = 4 + 4 + 8;
const V6_BYTES: usize = 16 + 4 + 8;
const HEX_UPPER: [u8; 16] = *b"0123456789ABCDEF";

/// Length of the longest id in hex digits.
pub const OFFSET_MESSAGE_ID_BYTES_MAX: usize = 2 * V6_BYTES;

/// A message's place: the broker that stores it and the position in that broker's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetMessageId {
    /// The broker's address as clients reach it.
    pub host: SocketAddr,
    /// The message's position in that broker's log.
    pub physical_offset: PhysicalOffset,
}

impl OffsetMessageId {
    /// The id of the message at `physical_offset` on `host`.
    #[must_use]
    pub const fn new(host: SocketAddr, physical_offset: PhysicalOffset) -> Self {
        Self { host, physical_offset }
    }

    /// Writes the hex digits into `buffer` and returns the part used: for replies on the hot path.
    #[must_use]
    pub fn encode_into<'b>(&self, buffer: &'b mut [u8; OFFSET_MESSAGE_ID_BYTES_MAX]) -> &'b str {
        let mut at = 0;
        let mut push = |bytes: &[u8]| {
            for byte in bytes {
                for nibble in [byte >> 4, byte & 0xF] {
                    buffer[at] = HEX_UPPER[usize::from(nibble)];
                    at += 1;
                }
            }
        };
        match self.host.ip() {
            IpAddr::V4(ip) => push(&ip.octets()),
            IpAddr::V6(ip) => push(&ip.octets()),
        }
        push(&u32::from(self.host.port()).to_be_bytes());
        push(&self.physical_offset.0.to_be_bytes());
        // Hex digits are ASCII, so the conversion cannot fail.
        std::str::from_utf8(&buffer[..at]).unwrap_or_default()
    }

    /// The id as 32 (IPv4) or 56 (IPv6) upper-case hex digits.
    #[must_use]
    pub fn encode(&self) -> String {
        self.encode_into(&mut [0; OFFSET_MESSAGE_ID_BYTES_MAX]).to_owned()
    }

    /// Reads 32 or 56 hex digits of either case.
    ///
    /// # Errors
    /// If the length is another, a digit is none, or the port is above 65535.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        let bad = || DecodeError::bad_value("msgId", text, "32 or 56 hex digits: address, port, position");
        let mut bytes = [0_u8; V6_BYTES];
        let used = match text.len() {
            n if n == 2 * V4_BYTES => V4_BYTES,
            n if n == 2 * V6_BYTES => V6_BYTES,
            _ => return Err(bad()),
        };
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return Err(bad()) };
            *byte = hex_value(*high).ok_or_else(bad)? << 4 | hex_value(*low).ok_or_else(bad)?;
        }
        let mut cursor = Cursor::new(&bytes[..used], "msgId");
        let ip = if used == V4_BYTES {
            IpAddr::V4(Ipv4Addr::from_bits(cursor.u32()?))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(cursor.u128()?))
        };
        let port = u16::try_from(cursor.u32()?).map_err(|_| bad())?;
        Ok(Self { host: SocketAddr::new(ip, port), physical_offset: PhysicalOffset(cursor.u64()?) })
    }
}

impl fmt::Display for OffsetMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encode_into(&mut [0; OFFSET_MESSAGE_ID_BYTES_MAX]))
    }
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_id_is_32_upper_case_digits() {
        let id = OffsetMessageId::new("127.0.0.1:10911".parse().unwrap(), PhysicalOffset(0xABCD));
        assert_eq!(id.encode(), "7F00000100002A9F000000000000ABCD");
        assert_eq!(OffsetMessageId::decode(&id.encode()).unwrap(), id);
        assert_eq!(OffsetMessageId::decode("7f00000100002a9f000000000000abcd").unwrap(), id);
    }

    #[test]
    fn an_ipv6_id_is_56_upper_case_digits() {
        let id = OffsetMessageId::new("[fe80::1]:10911".parse().unwrap(), PhysicalOffset(u64::MAX));
        assert_eq!(id.encode(), "FE80000000000000000000000000000100002A9FFFFFFFFFFFFFFFFF");
        assert_eq!(OffsetMessageId::decode(&id.encode()).unwrap(), id);
        assert_eq!(id.to_string(), id.encode());
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "7F00000100002A9F000000000000ABC",
            "7F00000100002A9F000000000000ABCG",
            "7F000001FFFFFFFF000000000000ABCD",
            "日本日本日本日本日本AB",
        ] {
            assert!(OffsetMessageId::decode(bad).is_err(), "{bad}");
        }
    }
}
