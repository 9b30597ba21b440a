//! The reply to a send, written without intermediate maps or allocations: the broker writes one per message.

use bytes::BytesMut;

use super::command::{Head, write_head};
use super::frame::HeaderEncoding;
use super::header::FLAG_RESPONSE;
use super::json_text::Decimal;
use super::language::LanguageCode;
use super::response_code::ResponseCode;
use crate::error::EncodeError;
use crate::ids::{QueueId, QueueOffset};

/// What a producer learns about a message that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendReply<'a> {
    /// The request's `opaque`.
    pub opaque: i32,
    /// The protocol version that the broker claims.
    pub version: i32,
    /// The offset id ([`crate::ids::OffsetMessageId`]); several joined by commas for a batch.
    pub msg_id: &'a str,
    /// The queue.
    pub queue_id: QueueId,
    /// The position in the queue; of a batch, that of its first message.
    pub queue_offset: QueueOffset,
    /// The transaction's id, for half messages.
    pub transaction_id: Option<&'a str>,
}

/// Appends the frame of a successful reply. C++ reads these fields only if they are strings, so they are.
///
/// # Errors
/// If the ids are so long that the header is above its bound. `out` is as before then.
pub fn encode_send_reply(
    out: &mut BytesMut,
    encoding: HeaderEncoding,
    reply: &SendReply<'_>,
) -> Result<(), EncodeError> {
    let head = Head {
        code: ResponseCode::SUCCESS.0,
        language: LanguageCode::OTHER,
        version: reply.version,
        opaque: reply.opaque,
        flag: FLAG_RESPONSE,
        remark: None,
    };
    let queue_id = Decimal::new(i64::from(reply.queue_id.as_wire()));
    let queue_offset = Decimal::new(reply.queue_offset.as_wire());
    let fixed =
        [("msgId", reply.msg_id), ("queueId", queue_id.as_str()), ("queueOffset", queue_offset.as_str())];
    let transaction = reply.transaction_id.map(|id| ("transactionId", id));
    write_head(out, encoding, &head, fixed.into_iter().chain(transaction), 0)
}
