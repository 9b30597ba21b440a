//! CHECK_TRANSACTION_STATE (39): the broker asks a producer about a half message, whose stored form is the body. The
//! answer is an END_TRANSACTION of its own, never a reply.

use std::borrow::Cow;

use super::wire_field::wire_header;

wire_header! {
    /// Which half message is asked about. C++ reads these fields only if they are strings, which the writer sees to.
    CheckTransactionStateHeader<'a> {
        /// The topic; read by newer clients only.
        topic: Option<Cow<'a, str>> = "topic";
        /// The position of the half message in its queue; comes back in END_TRANSACTION.
        tran_state_table_offset: i64 = "tranStateTableOffset";
        /// The position of the half message in the log; comes back in END_TRANSACTION.
        commit_log_offset: i64 = "commitLogOffset";
        /// The unique key of the half message.
        msg_id: Option<Cow<'a, str>> = "msgId";
        /// The transaction's id: the unique key.
        transaction_id: Option<Cow<'a, str>> = "transactionId";
        /// The offset id of the half message.
        offset_msg_id: Option<Cow<'a, str>> = "offsetMsgId";
    }
}
