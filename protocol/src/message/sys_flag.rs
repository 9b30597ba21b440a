//! The system flag: what the transport must know about a message, as bits of a signed 32-bit integer.
//!
//! ```text
//!   bit  0 compressed      1 several tags   2..3 transaction   4 born host is IPv6   5 store host is IPv6
//!        6 needs unwrap    7 inner batch    8..10 compression type
//! ```

use std::fmt;

/// The system flag of a message; unknown bits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SysFlag(pub i32);

/// Bits 2 and 3: where a message stands in its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TransactionBits {
    /// No transaction, or one that needs no mention.
    #[default]
    Not,
    /// A half message: sent, not decided.
    Prepared,
    /// Decided: deliver.
    Commit,
    /// Decided: never deliver.
    Rollback,
}

impl TransactionBits {
    /// The bits in place, which is also the value of `commitOrRollback` in END_TRANSACTION.
    #[must_use]
    pub const fn bits(self) -> i32 {
        match self {
            Self::Not => 0,
            Self::Prepared => 0x1 << 2,
            Self::Commit => 0x2 << 2,
            Self::Rollback => 0x3 << 2,
        }
    }

    /// From the bits in place; `None` if any other bit is set.
    #[must_use]
    pub const fn from_bits(bits: i32) -> Option<Self> {
        match bits {
            0 => Some(Self::Not),
            0x4 => Some(Self::Prepared),
            0x8 => Some(Self::Commit),
            0xC => Some(Self::Rollback),
            _ => None,
        }
    }
}

/// How a compressed body was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// LZ4 frame format.
    Lz4,
    /// Zstandard.
    Zstd,
    /// Zlib; also what older clients mean that set no type.
    Zlib,
    /// A type this version does not know.
    Unknown,
}

impl SysFlag {
    /// No bit set.
    pub const NONE: Self = Self(0);
    /// The body is compressed.
    pub const COMPRESSED: Self = Self(0x1);
    /// The message has several tags.
    pub const MULTI_TAGS: Self = Self(0x1 << 1);
    /// The transaction bits of a message without transaction: none.
    pub const TRANSACTION_NOT: Self = Self(TransactionBits::Not.bits());
    /// The transaction bits of a half message.
    pub const TRANSACTION_PREPARED: Self = Self(TransactionBits::Prepared.bits());
    /// The transaction bits of a committed message.
    pub const TRANSACTION_COMMIT: Self = Self(TransactionBits::Commit.bits());
    /// The transaction bits of a message rolled back; also the mask over both bits.
    pub const TRANSACTION_ROLLBACK: Self = Self(TransactionBits::Rollback.bits());
    /// The producer's address takes 20 bytes instead of 8.
    pub const BORNHOST_V6: Self = Self(0x1 << 4);
    /// The broker's address takes 20 bytes instead of 8.
    pub const STOREHOST_V6: Self = Self(0x1 << 5);
    /// The body holds messages that the consumer must unwrap.
    pub const NEED_UNWRAP: Self = Self(0x1 << 6);
    /// The message is a batch stored as one.
    pub const INNER_BATCH: Self = Self(0x1 << 7);
    /// Compression type LZ4.
    pub const COMPRESSION_LZ4: Self = Self(0x1 << 8);
    /// Compression type Zstandard.
    pub const COMPRESSION_ZSTD: Self = Self(0x2 << 8);
    /// Compression type zlib.
    pub const COMPRESSION_ZLIB: Self = Self(0x3 << 8);
    /// The mask over the compression type.
    pub const COMPRESSION_MASK: Self = Self(0x7 << 8);

    /// The integer on the wire.
    #[must_use]
    pub const fn bits(self) -> i32 {
        self.0
    }

    /// Whether all bits of `flag` are set.
    #[must_use]
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    /// This flag with the bits of `flag` set.
    #[must_use]
    pub const fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }

    /// This flag with the bits of `flag` cleared.
    #[must_use]
    pub const fn without(self, flag: Self) -> Self {
        Self(self.0 & !flag.0)
    }

    /// Where the message stands in its transaction.
    #[must_use]
    pub const fn transaction(self) -> TransactionBits {
        match self.0 & Self::TRANSACTION_ROLLBACK.0 {
            0x4 => TransactionBits::Prepared,
            0x8 => TransactionBits::Commit,
            0xC => TransactionBits::Rollback,
            _ => TransactionBits::Not,
        }
    }

    /// This flag with other transaction bits.
    #[must_use]
    pub const fn with_transaction(self, transaction: TransactionBits) -> Self {
        Self(self.0 & !Self::TRANSACTION_ROLLBACK.0 | transaction.bits())
    }

    /// How the body is compressed; `None` if it is not.
    #[must_use]
    pub const fn compression(self) -> Option<Compression> {
        if !self.has(Self::COMPRESSED) {
            return None;
        }
        Some(match (self.0 & Self::COMPRESSION_MASK.0) >> 8 {
            0 | 3 => Compression::Zlib,
            1 => Compression::Lz4,
            2 => Compression::Zstd,
            _ => Compression::Unknown,
        })
    }
}

impl fmt::Display for SysFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_bits_change_nothing_else() {
        let flag = SysFlag(-1).with_transaction(TransactionBits::Not);
        assert_eq!(flag.0, !0xC);
        for bits in [
            TransactionBits::Not,
            TransactionBits::Prepared,
            TransactionBits::Commit,
            TransactionBits::Rollback,
        ] {
            assert_eq!(SysFlag::COMPRESSED.with_transaction(bits).transaction(), bits);
            assert_eq!(TransactionBits::from_bits(bits.bits()), Some(bits));
        }
        assert_eq!(TransactionBits::from_bits(5), None);
    }

    #[test]
    fn a_compressed_body_without_a_type_is_zlib() {
        assert_eq!(SysFlag::NONE.compression(), None);
        assert_eq!(SysFlag::COMPRESSED.compression(), Some(Compression::Zlib));
        assert_eq!(
            SysFlag::COMPRESSED.with(SysFlag::COMPRESSION_ZSTD).compression(),
            Some(Compression::Zstd)
        );
        assert_eq!(SysFlag::COMPRESSED.with(SysFlag(4 << 8)).compression(), Some(Compression::Unknown));
    }
}
