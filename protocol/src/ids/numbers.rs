//! Numbers of the wire that must not be mixed up.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$inner> for $name {
            fn from(number: $inner) -> Self {
                Self(number)
            }
        }

        impl From<$name> for $inner {
            fn from(number: $name) -> Self {
                number.0
            }
        }
    };
}

number! {
    /// The number of a queue within its topic on one broker, from 0. On the wire a signed 32-bit integer.
    QueueId(u32)
}
number! {
    /// A position in the log, in bytes from its very beginning.
    PhysicalOffset(u64)
}
number! {
    /// A position in a queue, in messages from its very beginning.
    QueueOffset(u64)
}
number! {
    /// What connects a reply with its request on one connection; chosen by the side that asks.
    Opaque(i32)
}

/// As the signed 64-bit field that the wire has; numbers beyond it become its maximum.
const fn saturated_i64(number: u64) -> i64 {
    if number > i64::MAX as u64 { i64::MAX } else { number.cast_signed() }
}

impl PhysicalOffset {
    /// As the signed field that the wire has.
    #[must_use]
    pub const fn as_wire(self) -> i64 {
        saturated_i64(self.0)
    }

    /// From a wire field; `None` if negative.
    #[must_use]
    pub fn from_wire(raw: i64) -> Option<Self> {
        u64::try_from(raw).ok().map(Self)
    }
}

impl QueueOffset {
    /// As the signed field that the wire has.
    #[must_use]
    pub const fn as_wire(self) -> i64 {
        saturated_i64(self.0)
    }

    /// From a wire field; `None` if negative (clients use -1 for "none").
    #[must_use]
    pub fn from_wire(raw: i64) -> Option<Self> {
        u64::try_from(raw).ok().map(Self)
    }

    /// The position behind this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl QueueId {
    /// As the signed field that the wire has.
    #[must_use]
    pub const fn as_wire(self) -> i32 {
        if self.0 > i32::MAX as u32 { i32::MAX } else { self.0.cast_signed() }
    }

    /// From a wire field; `None` if negative (clients use -1 for "any").
    #[must_use]
    pub fn from_wire(raw: i32) -> Option<Self> {
        u32::try_from(raw).ok().map(Self)
    }
}
