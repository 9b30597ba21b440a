//! The three kinds that carry a message appended by a producer.
//!
//! ```text
//! message   | message bytes |
//! prepared  | origin u64, if JOIN | delay_ms u64, if DELAYED | message bytes |
//! due       | due_ms u64 | message bytes |
//! ```
//!
//! Message bytes are one message in RocketMQ's encoding, independent of position; this layer does not look inside.

use super::RecordKind;
use crate::format::FormatError;
use crate::format::cursor::Cursor;

/// `prepared`: the message joins a transaction that is open already.
const JOIN: u16 = 1;
/// `prepared`: the message becomes visible some time after the commit.
const DELAYED: u16 = 2;

/// When the message becomes visible: decides the record's kind and what stands before the message bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessagePrefix {
    /// At once.
    Visible,
    /// When its transaction commits.
    Prepared {
        /// Origin of the open transaction that it joins; `None` opens one whose origin is this record.
        joins: Option<u64>,
        /// Visible this many milliseconds after the commit.
        delay_ms: Option<u64>,
    },
    /// At the first tick at or after `due_ms`.
    Due {
        /// Milliseconds since 1970.
        due_ms: u64,
    },
}

impl MessagePrefix {
    /// The record kind for this.
    #[must_use]
    pub const fn kind(&self) -> RecordKind {
        match self {
            Self::Visible => RecordKind::Message,
            Self::Prepared { .. } => RecordKind::Prepared,
            Self::Due { .. } => RecordKind::Due,
        }
    }

    /// The record flags for this.
    #[must_use]
    pub const fn flags(&self) -> u16 {
        match self {
            Self::Prepared { joins, delay_ms } => {
                (if joins.is_some() { JOIN } else { 0 }) | (if delay_ms.is_some() { DELAYED } else { 0 })
            }
            Self::Visible | Self::Due { .. } => 0,
        }
    }

    /// Appends what stands before the message bytes: at most 16 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Visible => {}
            Self::Prepared { joins, delay_ms } => {
                for field in [joins, delay_ms].into_iter().flatten() {
                    out.extend_from_slice(&field.to_le_bytes());
                }
            }
            Self::Due { due_ms } => out.extend_from_slice(&due_ms.to_le_bytes()),
        }
    }
}

/// A message and when it becomes visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagePayload<'a> {
    /// When it becomes visible.
    pub prefix: MessagePrefix,
    /// One message in RocketMQ's encoding.
    pub message: &'a [u8],
}

impl<'a> MessagePayload<'a> {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.prefix.encode(out);
        out.extend_from_slice(self.message);
    }

    /// Reads the payload of a `message`, `prepared` or `due` record; any other kind is a bad value.
    pub fn decode(kind: RecordKind, flags: u16, payload: &'a [u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("message record", payload);
        let prefix = match kind {
            RecordKind::Message => MessagePrefix::Visible,
            RecordKind::Prepared => MessagePrefix::Prepared {
                joins: if flags & JOIN == 0 { None } else { Some(cursor.u64()?) },
                delay_ms: if flags & DELAYED == 0 { None } else { Some(cursor.u64()?) },
            },
            RecordKind::Due => MessagePrefix::Due { due_ms: cursor.u64()? },
            other => {
                return Err(FormatError::BadValue { field: "message kind", got: u64::from(other.as_u8()) });
            }
        };
        Ok(Self { prefix, message: cursor.rest() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(prefix: MessagePrefix, kind: RecordKind, flags: u16, golden: &[u8]) {
        let payload = MessagePayload { prefix, message: b"mm" };
        let mut out = Vec::new();
        payload.encode(&mut out);
        assert_eq!(out, golden);
        assert_eq!((prefix.kind(), prefix.flags()), (kind, flags));
        assert_eq!(MessagePayload::decode(kind, flags, &out).unwrap(), payload);
    }

    #[test]
    fn golden_bytes_of_all_prefixes() {
        let nine = [9, 0, 0, 0, 0, 0, 0, 0];
        let seven = [7, 0, 0, 0, 0, 0, 0, 0];
        check(MessagePrefix::Visible, RecordKind::Message, 0, b"mm");
        let opens = MessagePrefix::Prepared { joins: None, delay_ms: None };
        check(opens, RecordKind::Prepared, 0, b"mm");
        let joins = MessagePrefix::Prepared { joins: Some(9), delay_ms: None };
        check(joins, RecordKind::Prepared, 1, &[&nine[..], b"mm"].concat());
        let delayed = MessagePrefix::Prepared { joins: None, delay_ms: Some(7) };
        check(delayed, RecordKind::Prepared, 2, &[&seven[..], b"mm"].concat());
        let both = MessagePrefix::Prepared { joins: Some(9), delay_ms: Some(7) };
        check(both, RecordKind::Prepared, 3, &[&nine[..], &seven[..], b"mm"].concat());
        check(MessagePrefix::Due { due_ms: 7 }, RecordKind::Due, 0, &[&seven[..], b"mm"].concat());
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic_and_accepted_ones_round_trip(
            kind in 1u8..18, flags in 0u16..4, bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let kind = RecordKind::from_u8(kind).unwrap();
            if let Ok(payload) = MessagePayload::decode(kind, flags, &bytes) {
                let mut out = Vec::new();
                payload.encode(&mut out);
                prop_assert_eq!(out, bytes);
            }
        }
    }
}
