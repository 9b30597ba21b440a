//! A message as it is stored and as a pull reply carries it: RocketMQ's encoding, big endian.
//!
//! ```text
//!    0 total length i32           28 physical offset i64 *        84+b+s body length i32, body
//!    4 magic u32                  36 system flag i32 (**)                topic length u8 (i16 with magic 2), topic
//!    8 checksum of the body i32   40 born time i64                       properties length i16, properties
//!   12 queue id i32               48 born host (b = 0, or 12 if IPv6)
//!   16 flag i32                   56+b store time i64 *
//!   20 queue offset i64 *         64+b store host * (s = 0, or 12 if IPv6)
//!                                 72+b+s reconsume times i32
//!                                 76+b+s prepared-transaction offset i64 *
//! ```
//! A host is its address (4 or 16 bytes) and its port as i32; bits 4 and 5 of the system flag say which.
//!
//! **Fields with * are zero where the message is stored** and [`patch`]ed in every reply, with the transaction bits of
//! the system flag (**): so the stored bytes do not depend on where they are, and a replica, a carried message and a
//! resend copy them. The checksum covers the body only and is CRC-32 without its top bit, as Java computes it.
//!
//! The second magic (topic length of two bytes) is used for topics above 127 bytes only, as RocketMQ does.

mod deliver;
mod encode;
mod layout;
#[cfg(test)]
mod tests;
mod view;

pub use deliver::{Delivered, Delivery, add_property, decode_delivered, patch};
pub use encode::{MessageParts, encode, encoded_len};
pub use layout::{MAGIC_V1, MAGIC_V2, body_crc};
pub use view::MessageView;
