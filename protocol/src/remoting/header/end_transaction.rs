//! END_TRANSACTION (37): a producer decides a transaction. Clients send it without waiting for a reply.

use std::borrow::Cow;

use super::wire_field::{WireField, wire_header};
use crate::error::DecodeError;
use crate::message::sys_flag::TransactionBits;

/// What a producer says about a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// Deliver.
    Commit,
    /// Never deliver.
    Rollback,
    /// Not decided yet (RocketMQ: `UNKNOW`): ask again later.
    Unknown,
}

impl Resolution {
    /// The number on the wire: 8, 12 or 0.
    #[must_use]
    pub const fn as_wire(self) -> i32 {
        match self {
            Self::Commit => TransactionBits::Commit.bits(),
            Self::Rollback => TransactionBits::Rollback.bits(),
            Self::Unknown => TransactionBits::Not.bits(),
        }
    }

    /// From the number on the wire.
    #[must_use]
    pub const fn from_wire(number: i32) -> Option<Self> {
        match TransactionBits::from_bits(number) {
            Some(TransactionBits::Commit) => Some(Self::Commit),
            Some(TransactionBits::Rollback) => Some(Self::Rollback),
            Some(TransactionBits::Not) => Some(Self::Unknown),
            Some(TransactionBits::Prepared) | None => None,
        }
    }
}

impl WireField<'_> for Resolution {
    fn read(field: &'static str, text: Cow<'_, str>) -> Result<Self, DecodeError> {
        let number = i32::read(field, Cow::Borrowed(&*text))?;
        Self::from_wire(number)
            .ok_or_else(|| DecodeError::bad_value(field, text, "8 (commit), 12 (rollback) or 0 (unknown)"))
    }

    fn write(&self) -> Option<String> {
        Some(self.as_wire().to_string())
    }
}

wire_header! {
    /// Which transaction, and what becomes of it.
    EndTransactionHeader<'a> {
        /// The topic; sent by newer clients only.
        topic: Option<Cow<'a, str>> = "topic";
        /// The producer group.
        producer_group: Cow<'a, str> = "producerGroup";
        /// The position of the half message in its queue, as the reply to its send said.
        tran_state_table_offset: i64 = "tranStateTableOffset";
        /// The position of the half message in the log, taken out of its offset id.
        commit_log_offset: i64 = "commitLogOffset";
        /// The decision.
        resolution: Resolution = "commitOrRollback";
        /// Whether this answers a CHECK_TRANSACTION_STATE.
        from_transaction_check: bool = "fromTransactionCheck" or false;
        /// The unique key of the half message, in most clients.
        msg_id: Option<Cow<'a, str>> = "msgId";
        /// The transaction's id: the unique key, in most clients.
        transaction_id: Option<Cow<'a, str>> = "transactionId";
        /// Mezzo: how many messages the producer has prepared, for a transaction of many.
        mezzo_tx_count: Option<i32> = "mezzoTxCount";
        /// Mezzo: the body holds offsets that move with the commit, see
        /// [`TransactionOffsetsBody`](crate::remoting::body::transaction_offsets::TransactionOffsetsBody).
        mezzo_offsets: Option<bool> = "mezzoOffsets";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::header::ExtFields;

    #[test]
    fn the_fields_of_the_cpp_client_are_read() {
        // As librocketmq writes them: numbers and booleans as text, the key twice.
        let ext = ExtFields::from_pairs([
            ("msgId", "0A"),
            ("transactionId", "0A"),
            ("producerGroup", "g"),
            ("tranStateTableOffset", "5"),
            ("commitLogOffset", "1234"),
            ("commitOrRollback", "12"),
            ("fromTransactionCheck", "1"),
            ("Signature", ""),
        ])
        .unwrap();
        let header = EndTransactionHeader::decode(&ext).unwrap();
        assert_eq!(header.resolution, Resolution::Rollback);
        assert!(header.from_transaction_check);
        assert_eq!((header.tran_state_table_offset, header.commit_log_offset), (5, 1234));
        assert_eq!(header.msg_id.as_deref(), Some("0A"));
        assert_eq!(header.topic, None);
    }

    #[test]
    fn only_three_decisions_exist() {
        for (number, resolution) in
            [(8, Resolution::Commit), (12, Resolution::Rollback), (0, Resolution::Unknown)]
        {
            assert_eq!(Resolution::from_wire(number), Some(resolution));
            assert_eq!(resolution.as_wire(), number);
        }
        assert_eq!(Resolution::from_wire(4), None);
        assert_eq!(Resolution::from_wire(-1), None);
    }
}
