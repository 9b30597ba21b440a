//! What operators ask about transactions: Mezzo's own requests, from 7,700,001 on, and RESUME_CHECK_HALF_MESSAGE (323)
//! as Apache's administration sends it. A transaction is named by its origin, the position of its half message in the
//! log of the broker that holds it: RocketMQ's `commitLogOffset`.

use std::borrow::Cow;

use super::wire_field::{WireField, wire_header};
use crate::error::DecodeError;
use crate::remoting::body::transaction::{TransactionOutcome, TransactionState};

impl WireField<'_> for TransactionState {
    fn read(field: &'static str, text: Cow<'_, str>) -> Result<Self, DecodeError> {
        Self::from_name(text.trim()).ok_or_else(|| {
            DecodeError::bad_value(field, text, "PREPARED, IN_DOUBT, COMMITTED or ROLLED_BACK")
        })
    }

    fn write(&self) -> Option<String> {
        Some(self.name().to_owned())
    }
}

impl WireField<'_> for TransactionOutcome {
    fn read(field: &'static str, text: Cow<'_, str>) -> Result<Self, DecodeError> {
        Self::from_name(text.trim())
            .ok_or_else(|| DecodeError::bad_value(field, text, "COMMITTED or ROLLED_BACK"))
    }

    fn write(&self) -> Option<String> {
        Some(self.name().to_owned())
    }
}

wire_header! {
    /// MEZZO_LIST_TRANSACTIONS (7,700,001): which open transactions. What is absent does not matter. The answer's body
    /// is a [`TransactionPage`](crate::remoting::body::transaction::TransactionPage).
    ListTransactionsHeader<'a> {
        /// PREPARED or IN_DOUBT; decided ones are not listed.
        state: Option<TransactionState> = "state";
        /// The producer group.
        group: Option<Cow<'a, str>> = "group";
        /// The topic that the message is meant for.
        topic: Option<Cow<'a, str>> = "topic";
        /// The message's unique key.
        unique_key: Option<Cow<'a, str>> = "uniqueKey";
        /// Prepared at least this many milliseconds ago.
        older_than_ms: Option<i64> = "olderThanMs";
        /// Only origins behind this one: the `next` of the page before.
        after: Option<i64> = "after";
        /// Transactions in one answer, 1 to [`TRANSACTIONS_PER_PAGE_MAX`](crate::limits::TRANSACTIONS_PER_PAGE_MAX);
        /// what is beyond counts as the most.
        limit: Option<i32> = "limit";
    }
}

wire_header! {
    /// MEZZO_SHOW_TRANSACTION (7,700,002). The answer's body is a
    /// [`TransactionInfo`](crate::remoting::body::transaction::TransactionInfo); QUERY_NOT_FOUND (22) when nobody
    /// knows the transaction.
    ShowTransactionHeader {
        /// The transaction.
        origin: i64 = "origin";
    }
}

wire_header! {
    /// MEZZO_DECIDE_TRANSACTION (7,700,003). The answer says in `mezzoResult` what became of it
    /// ([`DecideResult`](crate::remoting::body::transaction::DecideResult)), and its body is the
    /// [`TransactionInfo`](crate::remoting::body::transaction::TransactionInfo) of what stands.
    DecideTransactionHeader<'a> {
        /// The transaction.
        origin: i64 = "origin";
        /// What to decide.
        outcome: TransactionOutcome = "outcome";
        /// Why; stands in the log. At most [`REASON_BYTES_MAX`](crate::limits::REASON_BYTES_MAX) bytes.
        reason: Option<Cow<'a, str>> = "reason";
        /// Decide it although it is still PREPARED: its producer may be about to.
        force: bool = "force" or false;
    }
}

wire_header! {
    /// MEZZO_RESUME_TRANSACTION (7,700,004): an IN_DOUBT transaction becomes PREPARED, asked from zero.
    ResumeTransactionHeader {
        /// The transaction.
        origin: i64 = "origin";
    }
}

wire_header! {
    /// RESUME_CHECK_HALF_MESSAGE (323).
    ResumeCheckHalfMessageHeader<'a> {
        /// The topic; sent by newer clients only.
        topic: Option<Cow<'a, str>> = "topic";
        /// The offset message id of the half message.
        msg_id: Cow<'a, str> = "msgId";
    }
}

wire_header! {
    /// MEZZO_GET_CHECK_POLICY (7,700,005). The answer's body is a
    /// [`CheckPolicyInfo`](crate::remoting::body::transaction::CheckPolicyInfo).
    GetCheckPolicyHeader<'a> {
        /// The producer group.
        group: Cow<'a, str> = "group";
    }
}

wire_header! {
    /// MEZZO_SET_CHECK_POLICY (7,700,006). The answer's body is the
    /// [`CheckPolicyInfo`](crate::remoting::body::transaction::CheckPolicyInfo) that holds then.
    SetCheckPolicyHeader<'a> {
        /// The producer group.
        group: Cow<'a, str> = "group";
        /// The parts that differ from the broker's own policy, as [`CheckWish`](crate::check_policy::CheckWish) reads
        /// them; absent: the group has no policy of its own any more.
        policy: Option<Cow<'a, str>> = "policy";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::header::ExtFields;

    #[test]
    fn filters_that_are_absent_do_not_matter_and_states_go_by_name() {
        let none = ListTransactionsHeader::decode(&ExtFields::new()).unwrap();
        assert_eq!((none.state, none.limit, none.after), (None, None, None));
        let ext =
            ExtFields::from_pairs([("state", "IN_DOUBT"), ("olderThanMs", "5"), ("group", "g")]).unwrap();
        let some = ListTransactionsHeader::decode(&ext).unwrap();
        assert_eq!(some.state, Some(TransactionState::InDoubt));
        assert_eq!((some.older_than_ms, some.group.as_deref()), (Some(5), Some("g")));
        let bad = ExtFields::from_pairs([("state", "OPEN")]).unwrap();
        assert!(ListTransactionsHeader::decode(&bad).unwrap_err().to_string().contains("IN_DOUBT"));
    }

    #[test]
    fn a_decision_needs_an_origin_and_an_outcome() {
        let ext =
            ExtFields::from_pairs([("origin", "7"), ("outcome", "ROLLED_BACK"), ("force", "1")]).unwrap();
        let header = DecideTransactionHeader::decode(&ext).unwrap();
        assert_eq!((header.origin, header.outcome), (7, TransactionOutcome::RolledBack));
        assert!(header.force);
        assert!(DecideTransactionHeader::decode(&ExtFields::from_pairs([("origin", "7")]).unwrap()).is_err());
    }
}
