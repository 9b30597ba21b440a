//! The kinds of record. Numbers are never reused.

use crate::format::FormatError;

/// The version of every payload that this program writes and the newest that it reads.
pub const RECORD_VERSION: u8 = 1;

/// What a record's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A message that is visible at once.
    Message = 1,
    /// A message of an open transaction.
    Prepared = 2,
    /// A message that becomes visible at a time.
    Due = 3,
    /// The end of a transaction.
    Decision = 4,
    /// The passing of time: due messages become visible.
    Tick = 5,
    /// How often open transactions have been asked.
    Asks = 6,
    /// A transaction is in doubt.
    Parked = 7,
    /// An open message moved to a new location.
    Carried = 8,
    /// Consumer offsets of a group.
    Offsets = 9,
    /// A topic's configuration.
    Topic = 10,
    /// A consumer group's configuration.
    Group = 11,
    /// Who may move a queue's offset inside a decision.
    Lease = 12,
    /// A start of the log.
    Start = 13,
    /// The log's layout at the head of a segment.
    Layout = 14,
    /// All queues' next offsets rise.
    Jump = 15,
    /// A parked transaction is prepared again.
    Resumed = 16,
    /// The check-back policy of a producer group.
    Policy = 17,
}

impl RecordKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::Message,
        Self::Prepared,
        Self::Due,
        Self::Decision,
        Self::Tick,
        Self::Asks,
        Self::Parked,
        Self::Carried,
        Self::Offsets,
        Self::Topic,
        Self::Group,
        Self::Lease,
        Self::Start,
        Self::Layout,
        Self::Jump,
        Self::Resumed,
        Self::Policy,
    ];

    /// The number on the disk.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// The kind with this number; an unknown one was written by a newer program.
    pub fn from_u8(number: u8) -> Result<Self, FormatError> {
        usize::from(number)
            .checked_sub(1)
            .and_then(|index| Self::ALL.get(index).copied())
            .ok_or(FormatError::Newer { what: "record kind", got: u32::from(number), newest: 17 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_keeps_its_number() {
        for (index, kind) in RecordKind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.as_u8()), index + 1);
            assert_eq!(RecordKind::from_u8(kind.as_u8()), Ok(kind));
        }
        assert!(RecordKind::from_u8(0).is_err());
        assert!(RecordKind::from_u8(18).is_err());
    }
}
