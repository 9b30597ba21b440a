//! The reply to a send, written without intermediate maps or allocations: the broker writes one per message.

use bytes::{BufMut, BytesMut};

use super::command::{Head, write_frame, write_head};
use super::frame::HeaderEncoding;
use super::header::FLAG_RESPONSE;
use super::json_text::{Decimal, put_number, put_string};
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

/// Tells a producer that was set to trace its sends that it may: Go's traces nothing without it. Java's needs no word.
const TRACE_ON: (&str, &str) = ("TRACE_ON", "true");

/// Appends the frame of a successful reply. C++ reads these fields only if they are strings, so they are.
///
/// # Errors
/// If the ids are so long that the header is above its bound. `out` is as before then.
pub fn encode_send_reply(
    out: &mut BytesMut,
    encoding: HeaderEncoding,
    reply: &SendReply<'_>,
) -> Result<(), EncodeError> {
    match encoding {
        HeaderEncoding::Json => write_frame(out, encoding, 0, |out| {
            write_json(out, reply);
            Ok(())
        }),
        HeaderEncoding::Binary => write_binary(out, reply),
    }
}

/// The same header that the general writer makes, from few long pieces instead of many short ones.
fn write_json(out: &mut BytesMut, reply: &SendReply<'_>) {
    out.reserve(reply.msg_id.len() + reply.transaction_id.map_or(0, str::len) + FIXED_JSON_BYTES);
    out.put_slice(b"{\"code\":0,\"extFields\":{\"TRACE_ON\":\"true\",\"msgId\":");
    put_string(out, reply.msg_id);
    out.put_slice(b",\"queueId\":\"");
    put_number(out, i64::from(reply.queue_id.as_wire()));
    out.put_slice(b"\",\"queueOffset\":\"");
    put_number(out, reply.queue_offset.as_wire());
    out.put_u8(b'"');
    if let Some(id) = reply.transaction_id {
        out.put_slice(b",\"transactionId\":");
        put_string(out, id);
    }
    out.put_slice(b"},\"flag\":1,\"language\":\"OTHER\",\"opaque\":");
    put_number(out, i64::from(reply.opaque));
    out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    put_number(out, i64::from(reply.version));
    out.put_u8(b'}');
}

/// More than the reply takes apart from its ids.
const FIXED_JSON_BYTES: usize = 256;

fn write_binary(out: &mut BytesMut, reply: &SendReply<'_>) -> Result<(), EncodeError> {
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
    let fixed = [
        TRACE_ON,
        ("msgId", reply.msg_id),
        ("queueId", queue_id.as_str()),
        ("queueOffset", queue_offset.as_str()),
    ];
    let transaction = reply.transaction_id.map(|id| ("transactionId", id));
    write_head(out, HeaderEncoding::Binary, &head, fixed.into_iter().chain(transaction), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::command::RemotingCommand;
    use crate::remoting::frame::split;
    use crate::remoting::header::HeaderView;
    use crate::remoting::header::send_message::SendMessageReply;

    const REPLY: SendReply<'static> = SendReply {
        opaque: 9,
        version: 409,
        msg_id: "7F00000100002A9F000000000000ABCD",
        queue_id: QueueId(3),
        queue_offset: QueueOffset(12),
        transaction_id: Some("KEY"),
    };

    #[test]
    fn a_client_reads_the_reply_in_either_encoding() {
        for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
            let mut wire = BytesMut::new();
            encode_send_reply(&mut wire, encoding, &REPLY).unwrap();
            let frame = split(&mut wire, 4096).unwrap().unwrap();
            assert!(wire.is_empty() && frame.body.is_empty());
            assert_eq!(frame.encoding, encoding);
            let view = HeaderView::parse(&frame).unwrap();
            assert!(view.is_response() && view.response_code().is_success());
            assert_eq!(view.opaque, 9);
            let reply = SendMessageReply::decode(&view.ext).unwrap();
            assert_eq!(reply.msg_id, REPLY.msg_id);
            assert_eq!((reply.queue_id, reply.queue_offset), (QueueId(3), 12));
            assert_eq!(reply.transaction_id.as_deref(), Some("KEY"));

            let mut again = BytesMut::new();
            RemotingCommand::from_frame(&frame).unwrap().encode(encoding, &mut again).unwrap();
            assert_eq!(
                split(&mut again, 4096).unwrap().unwrap(),
                frame,
                "the general writer writes the same"
            );
        }
    }

    #[test]
    fn the_fields_are_json_strings() {
        let mut wire = BytesMut::new();
        encode_send_reply(&mut wire, HeaderEncoding::Json, &SendReply { transaction_id: None, ..REPLY })
            .unwrap();
        let text = std::str::from_utf8(&wire[8..]).unwrap();
        assert!(text.contains(
            r#""extFields":{"TRACE_ON":"true","msgId":"7F00000100002A9F000000000000ABCD","queueId":"3","queueOffset":"12"}"#
        ));
    }

    #[test]
    fn a_reply_that_is_too_long_leaves_the_buffer_as_it_was() {
        let long = "A".repeat(crate::limits::HEADER_BYTES_MAX);
        let mut wire = BytesMut::from(&b"before"[..]);
        let reply = SendReply { msg_id: &long, ..REPLY };
        assert!(encode_send_reply(&mut wire, HeaderEncoding::Json, &reply).is_err());
        assert_eq!(&wire[..], b"before");
    }
}
