//! Points in time as the wire writes them, and the seam through which others learn the time. No clock lives here:
//! this crate and every core take `now` as an argument.

use std::fmt;

/// A point in time: milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch itself; on the wire also "never".
    pub const ZERO: Self = Self(0);

    /// The point `ms` milliseconds after the epoch.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// From a signed wire field; times before the epoch become the epoch.
    #[must_use]
    pub const fn from_wire_ms(ms: i64) -> Self {
        Self(if ms < 0 { 0 } else { ms.unsigned_abs() })
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// As the signed 64-bit field that the wire has; times beyond it become its maximum.
    #[must_use]
    pub const fn as_wire_ms(self) -> i64 {
        if self.0 > i64::MAX as u64 { i64::MAX } else { self.0.cast_signed() }
    }

    /// This point moved `ms` milliseconds on; the end of time stays the end of time.
    #[must_use]
    pub const fn saturating_add_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// This point moved `ms` milliseconds back; the epoch stays the epoch.
    #[must_use]
    pub const fn saturating_sub_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// Milliseconds from `earlier` to here; 0 if `earlier` is later.
    #[must_use]
    pub const fn saturating_since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// Where drivers get the time from. The broker and the client have a system clock behind it, tests one that they move.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Timestamp::from_ms(5).saturating_since_ms(Timestamp::from_ms(9)), 0);
        assert_eq!(Timestamp::from_ms(u64::MAX).saturating_add_ms(1).as_ms(), u64::MAX);
        assert_eq!(Timestamp::from_ms(1).saturating_sub_ms(2), Timestamp::ZERO);
        assert_eq!(Timestamp::from_wire_ms(-1), Timestamp::ZERO);
        assert_eq!(Timestamp::from_ms(u64::MAX).as_wire_ms(), i64::MAX);
    }
}
