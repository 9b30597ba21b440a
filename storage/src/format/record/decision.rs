//! The end of a transaction, written once.
//!
//! ```text
//!  0        8         9        10      12          16     18         20
//!  | origin | outcome | source | count | decider v4 | port | reserved |
//!    u64      u8        u8       u16     4 bytes, BE   u16    u16
//!  then, by flags:  | previous event u64 (EVENT) | decider v6, 16 bytes (V6) | reason string (REASON) | offsets (OFFSETS) |
//!                   | producer group string, id string (NAMED) |
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Offsets;
use crate::format::FormatError;
use crate::format::cursor::{Cursor, put_string};

const REASON: u16 = 1;
const OFFSETS: u16 = 2;
const V6: u16 = 4;
const EVENT: u16 = 8;
const NAMED: u16 = 16;

/// An origin that says: this record. A transaction without messages has no other.
pub const ORIGIN_IS_HERE: u64 = u64::MAX;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Its messages are visible.
    Committed = 1,
    /// Its messages are dead.
    RolledBack = 2,
}

impl Outcome {
    /// The number on the disk.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// The outcome with this number.
    pub fn from_u8(number: u8) -> Result<Self, FormatError> {
        match number {
            1 => Ok(Self::Committed),
            2 => Ok(Self::RolledBack),
            other => Err(FormatError::BadValue { field: "outcome", got: u64::from(other) }),
        }
    }
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Source {
    /// The producer, by itself.
    Producer = 1,
    /// A producer's answer to a check-back.
    CheckBack = 2,
    /// A person.
    Operator = 3,
    /// The policy of the producer group.
    Policy = 4,
    /// A newer incarnation of the producer fenced the transaction off.
    Fenced = 5,
}

impl Source {
    /// The number on the disk.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// The source with this number.
    pub fn from_u8(number: u8) -> Result<Self, FormatError> {
        match number {
            1 => Ok(Self::Producer),
            2 => Ok(Self::CheckBack),
            3 => Ok(Self::Operator),
            4 => Ok(Self::Policy),
            5 => Ok(Self::Fenced),
            other => Err(FormatError::BadValue { field: "source", got: u64::from(other) }),
        }
    }
}

/// The end of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The transaction.
    pub origin: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Who decided.
    pub source: Source,
    /// How many messages were decided.
    pub count: u16,
    /// The peer that decided, if known.
    pub decider: Option<SocketAddr>,
    /// Position of the record of what happened to the transaction before; 0 if that was its prepare.
    pub previous_event: u64,
    /// Why, in words.
    pub reason: Option<&'a str>,
    /// Consumer offsets that move together with the decision.
    pub offsets: Option<Offsets<'a>>,
    /// Producer group and id of a transaction without messages, which no other record names.
    pub named: Option<(&'a str, &'a str)>,
}

impl<'a> Decision<'a> {
    /// The record's flags.
    #[must_use]
    pub fn flags(&self) -> u16 {
        (if self.reason.is_some() { REASON } else { 0 })
            | (if self.offsets.is_some() { OFFSETS } else { 0 })
            | (if matches!(self.decider, Some(SocketAddr::V6(_))) { V6 } else { 0 })
            | (if self.previous_event == 0 { 0 } else { EVENT })
            | (if self.named.is_some() { NAMED } else { 0 })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (v4, v6, port) = match self.decider {
            Some(SocketAddr::V4(host)) => (*host.ip(), None, host.port()),
            Some(SocketAddr::V6(host)) => (Ipv4Addr::UNSPECIFIED, Some(*host.ip()), host.port()),
            None => (Ipv4Addr::UNSPECIFIED, None, 0),
        };
        out.extend_from_slice(&self.origin.to_le_bytes());
        out.extend_from_slice(&[self.outcome.as_u8(), self.source.as_u8()]);
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&v4.octets());
        out.extend_from_slice(&port.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        if self.previous_event != 0 {
            out.extend_from_slice(&self.previous_event.to_le_bytes());
        }
        if let Some(v6) = v6 {
            out.extend_from_slice(&v6.octets());
        }
        if let Some(reason) = self.reason {
            put_string(out, reason);
        }
        if let Some(offsets) = &self.offsets {
            offsets.encode(out);
        }
        if let Some((group, id)) = self.named {
            put_string(out, group);
            put_string(out, id);
        }
    }

    /// Reads the payload.
    pub fn decode(flags: u16, payload: &'a [u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new("decision record", payload);
        let origin = cursor.u64()?;
        let outcome = Outcome::from_u8(cursor.u8()?)?;
        let source = Source::from_u8(cursor.u8()?)?;
        let count = cursor.u16()?;
        let v4 = Ipv4Addr::from(cursor.array::<4>()?);
        let port = cursor.u16()?;
        cursor.u16()?;
        let previous_event = if flags & EVENT == 0 { 0 } else { cursor.u64()? };
        let decider = if flags & V6 != 0 {
            Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(cursor.array::<16>()?)), port))
        } else if v4.is_unspecified() && port == 0 {
            None
        } else {
            Some(SocketAddr::new(IpAddr::V4(v4), port))
        };
        let reason = if flags & REASON == 0 { None } else { Some(cursor.string("reason")?) };
        let offsets = if flags & OFFSETS == 0 { None } else { Some(Offsets::read(&mut cursor)?) };
        let named = if flags & NAMED == 0 {
            None
        } else {
            Some((cursor.string("producer group")?, cursor.string("transaction id")?))
        };
        cursor.finish()?;
        Ok(Self { origin, outcome, source, count, decider, previous_event, reason, offsets, named })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::record::OffsetEntry;

    fn decision() -> Decision<'static> {
        Decision {
            origin: 0x0102,
            outcome: Outcome::RolledBack,
            source: Source::CheckBack,
            count: 1,
            decider: Some("10.1.2.3:258".parse().unwrap()),
            previous_event: 0,
            reason: None,
            offsets: None,
            named: None,
        }
    }

    fn check(decision: &Decision<'_>, flags: u16, golden: &[u8]) {
        let mut out = Vec::new();
        decision.encode(&mut out);
        assert_eq!(out, golden);
        assert_eq!(decision.flags(), flags);
        assert_eq!(&Decision::decode(flags, &out).unwrap(), decision);
    }

    #[test]
    fn golden_bytes_of_a_plain_decision() {
        let golden = [2, 1, 0, 0, 0, 0, 0, 0, 2, 2, 1, 0, 10, 1, 2, 3, 2, 1, 0, 0];
        check(&decision(), 0, &golden);
        let nobody = Decision { decider: None, ..decision() };
        let golden = [2, 1, 0, 0, 0, 0, 0, 0, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        check(&nobody, 0, &golden);
    }

    #[test]
    fn golden_bytes_of_a_decision_with_everything() {
        let full = Decision {
            decider: Some("[::1]:258".parse().unwrap()),
            previous_event: 7,
            reason: Some("by hand"),
            offsets: Some(Offsets {
                group: "g",
                entries: vec![OffsetEntry { topic: "t", queue: 1, offset: 2 }],
            }),
            named: Some(("pg", "id")),
            ..decision()
        };
        let mut golden = vec![2, 1, 0, 0, 0, 0, 0, 0, 2, 2, 1, 0, 0, 0, 0, 0, 2, 1, 0, 0];
        golden.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        golden.extend_from_slice(b"\x07\0by hand");
        golden.extend_from_slice(b"\x01\0g\x01\0\0\0\x01\0t\x01\0\0\0\x02\0\0\0\0\0\0\0");
        golden.extend_from_slice(b"\x02\0pg\x02\0id");
        check(&full, 31, &golden);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(flags in 0u16..32, bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Decision::decode(flags, &bytes);
        }
    }
}
