//! CHECK_TRANSACTION_STATE (39): asks a producer what became of a transaction. One-way; the answer is an
//! END_TRANSACTION (37) of its own.

use std::borrow::Cow;

use mezzo_protocol::{
    ids::OffsetMessageId,
    message::{properties, record::MessageView},
    remoting::{
        command::RemotingCommand, header::check_transaction_state::CheckTransactionStateHeader,
        request_code::RequestCode,
    },
};

use crate::service::client_channel::DecisionAsk;

/// The request. What comes back in END_TRANSACTION must name the transaction by its origin, whatever the message's
/// place in the log is by now; so both offsets, and the position in the offset id, are the origin.
pub(crate) fn request(ask: &DecisionAsk) -> RemotingCommand {
    let offset_id = MessageView::parse(&ask.message)
        .ok()
        .map(|view| Cow::Owned(OffsetMessageId::new(view.store_host(), ask.origin).encode()));
    // what END is matched by: the id of a transaction that has one
    let id = MessageView::parse(&ask.message).ok();
    let id = id.and_then(|view| view.property(properties::MEZZO_TRANSACTION).map(str::to_owned));
    let header = CheckTransactionStateHeader {
        topic: Some(Cow::Borrowed(&ask.topic)),
        tran_state_table_offset: ask.origin.as_wire(),
        commit_log_offset: ask.origin.as_wire(),
        msg_id: Some(Cow::Borrowed(&ask.unique_key)),
        transaction_id: Some(id.map_or(Cow::Borrowed(ask.unique_key.as_ref()), Cow::Owned)),
        offset_msg_id: offset_id,
    };
    RemotingCommand::request(RequestCode::CHECK_TRANSACTION_STATE, header.encode(), ask.message.clone())
        .oneway()
}
