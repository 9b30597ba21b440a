//! A send, written without intermediate maps or allocations: a producer writes one per message.

use bytes::{BufMut, BytesMut};

use super::command::{Head, write_head};
use super::frame::HeaderEncoding;
use super::header::FLAG_ONEWAY;
use super::header::send_message::SendMessageHeader;
use super::json_text::Decimal;
use super::language::{LanguageCode, PROTOCOL_VERSION};
use super::request_code::RequestCode;
use crate::error::EncodeError;

/// One send: SEND_MESSAGE_V2 (310), or SEND_BATCH_MESSAGE (320) if the header says that the body is a batch.
#[derive(Debug, Clone, Copy)]
pub struct SendRequest<'a> {
    /// Connects the reply with it.
    pub opaque: i32,
    /// Whether no reply is wanted.
    pub oneway: bool,
    /// What is said about the message.
    pub header: &'a SendMessageHeader<'a>,
    /// The body of the message, or the batch.
    pub body: &'a [u8],
}

/// Appends the frame of a send: the same bytes that the general writer makes of [`SendMessageHeader::encode`].
///
/// # Errors
/// If the header or the frame is above its bound. `out` is as before then.
pub fn encode_send_request(
    out: &mut BytesMut,
    encoding: HeaderEncoding,
    request: &SendRequest<'_>,
) -> Result<(), EncodeError> {
    let SendRequest { opaque, oneway, header, body } = *request;
    let code = if header.batch { RequestCode::SEND_BATCH_MESSAGE } else { RequestCode::SEND_MESSAGE_V2 };
    let head = Head {
        code: code.0,
        language: LanguageCode::OTHER,
        version: PROTOCOL_VERSION,
        opaque,
        flag: if oneway { FLAG_ONEWAY } else { 0 },
        remark: None,
    };
    let number = |value: i32| Decimal::new(i64::from(value));
    let (queues, queue_id, sys_flag) =
        (number(header.default_topic_queues), number(header.queue_id), number(header.sys_flag.bits()));
    let (flag, reconsume_times) = (number(header.flag), number(header.reconsume_times));
    let born = Decimal::new(header.born_timestamp.as_wire_ms());
    let max_reconsume_times = header.max_reconsume_times.map(number);
    let word = |value: bool| if value { "true" } else { "false" };
    let fields = [
        Some(("a", &*header.producer_group)),
        Some(("b", &*header.topic)),
        Some(("c", &*header.default_topic)),
        Some(("d", queues.as_str())),
        Some(("e", queue_id.as_str())),
        Some(("f", sys_flag.as_str())),
        Some(("g", born.as_str())),
        Some(("h", flag.as_str())),
        Some(("i", &*header.properties)),
        Some(("j", reconsume_times.as_str())),
        Some(("k", word(header.unit_mode))),
        max_reconsume_times.as_ref().map(|times| ("l", times.as_str())),
        Some(("m", word(header.batch))),
        header.broker_name.as_ref().map(|name| ("n", &**name)),
    ];
    write_head(out, encoding, &head, fields.into_iter().flatten(), body.len())?;
    out.put_slice(body);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HEADER_BYTES_MAX;
    use crate::message::sys_flag::SysFlag;
    use crate::remoting::RemotingCommand;
    use crate::time::Timestamp;

    fn header() -> SendMessageHeader<'static> {
        let mut header = SendMessageHeader::new("group".into(), "topic".into(), -1);
        header.default_topic_queues = 8;
        header.sys_flag = SysFlag(0x301);
        header.born_timestamp = Timestamp::from_ms(1_700_000_000_000);
        header.flag = i32::MIN;
        header.properties = "TAGS\u{1}a \"quoted\" tag\u{2}".into();
        header
    }

    #[test]
    fn the_bytes_are_those_of_the_general_writer() {
        let plain = header();
        let mut all = header();
        all.max_reconsume_times = Some(16);
        all.broker_name = Some("broker-a".into());
        (all.batch, all.unit_mode, all.reconsume_times) = (true, true, 3);
        for header in [plain, all] {
            for (encoding, oneway) in [(HeaderEncoding::Json, false), (HeaderEncoding::Binary, true)] {
                let code =
                    if header.batch { RequestCode::SEND_BATCH_MESSAGE } else { RequestCode::SEND_MESSAGE_V2 };
                let general = RemotingCommand::request(code, header.encode(), "body").with_opaque(7);
                let general = if oneway { general.oneway() } else { general };
                let (mut expected, mut written) = (BytesMut::new(), BytesMut::new());
                general.encode(encoding, &mut expected).unwrap();
                let request = SendRequest { opaque: 7, oneway, header: &header, body: b"body" };
                encode_send_request(&mut written, encoding, &request).unwrap();
                assert_eq!(written, expected);
            }
        }
    }

    #[test]
    fn a_header_above_its_bound_leaves_nothing_behind() {
        let mut header = header();
        header.properties = "p".repeat(HEADER_BYTES_MAX).into();
        let mut out = BytesMut::from(&b"before"[..]);
        let request = SendRequest { opaque: 1, oneway: false, header: &header, body: b"" };
        assert!(encode_send_request(&mut out, HeaderEncoding::Json, &request).is_err());
        assert_eq!(out, &b"before"[..]);
    }
}
