//! The owned command: what one side builds to send, and what a client keeps of a reply.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{Frame, HeaderEncoding, PREFIX_BYTES};
use super::header::HeaderView;
use super::language::{LanguageCode, PROTOCOL_VERSION};
use super::{header_binary, header_json};
use crate::error::{DecodeError, EncodeError};
use crate::limits::{FRAME_BYTES_MAX, HEADER_BYTES_MAX, REMARK_BYTES_MAX};

pub use super::header::{FLAG_ONEWAY, FLAG_RESPONSE};

/// Extension fields that a typed header was encoded to.
pub type ExtPairs = Vec<(Cow<'static, str>, String)>;

/// The fields of a header apart from the extension fields, borrowed for writing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) code: i32,
    pub(super) language: LanguageCode,
    pub(super) version: i32,
    pub(super) opaque: i32,
    pub(super) flag: u32,
    pub(super) remark: Option<&'a str>,
}

/// A request or a reply, with everything that the wire carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotingCommand {
    /// What is asked or how it went.
    pub code: i32,
    /// The language of the sender.
    pub language: LanguageCode,
    /// The protocol version of the sender.
    pub version: i32,
    /// Connects reply and request.
    pub opaque: i32,
    /// Bit 0: a reply. Bit 1: no reply wanted.
    pub flag: u32,
    /// What went wrong, in words. Clipped to [`REMARK_BYTES_MAX`] when written.
    pub remark: Option<String>,
    /// The extension fields; written as strings in JSON, always.
    pub ext: ExtPairs,
    /// The body.
    pub body: Bytes,
}

impl RemotingCommand {
    /// A request that wants a reply. Its `opaque` is 0 until [`RemotingCommand::with_opaque`] says otherwise.
    #[must_use]
    pub fn request(code: impl Into<i32>, ext: ExtPairs, body: impl Into<Bytes>) -> Self {
        Self {
            code: code.into(),
            language: LanguageCode::OTHER,
            version: PROTOCOL_VERSION,
            opaque: 0,
            flag: 0,
            remark: None,
            ext,
            body: body.into(),
        }
    }

    /// A reply to the request with this `opaque`.
    #[must_use]
    pub fn response(opaque: i32, code: impl Into<i32>) -> Self {
        let mut reply = Self::request(code, Vec::new(), Bytes::new());
        reply.opaque = opaque;
        reply.flag = FLAG_RESPONSE;
        reply
    }

    /// A reply to `request`.
    #[must_use]
    pub fn response_to(request: &HeaderView<'_>, code: impl Into<i32>) -> Self {
        Self::response(request.opaque, code)
    }

    /// This request, wanting no reply.
    #[must_use]
    pub const fn oneway(mut self) -> Self {
        self.flag |= FLAG_ONEWAY;
        self
    }

    /// This command with another `opaque`.
    #[must_use]
    pub const fn with_opaque(mut self, opaque: i32) -> Self {
        self.opaque = opaque;
        self
    }

    /// This command with a remark.
    #[must_use]
    pub fn with_remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    /// This command with these extension fields instead of its own.
    #[must_use]
    pub fn with_ext(mut self, ext: ExtPairs) -> Self {
        self.ext = ext;
        self
    }

    /// This command with a body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// This command as said by a program in `language`.
    #[must_use]
    pub const fn with_language(mut self, language: LanguageCode) -> Self {
        self.language = language;
        self
    }

    /// Whether this answers a request.
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether the sender wants no reply.
    #[must_use]
    pub const fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// The value of one extension field; of several with one name the last.
    #[must_use]
    pub fn ext_value(&self, key: &str) -> Option<&str> {
        self.ext.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Copies what a frame holds; the body is shared, not copied.
    ///
    /// # Errors
    /// As [`HeaderView::parse`].
    pub fn from_frame(frame: &Frame) -> Result<Self, DecodeError> {
        let header = HeaderView::parse(frame)?;
        let owned =
            |(key, value): (Cow<'_, str>, Cow<'_, str>)| (Cow::Owned(key.into_owned()), value.into_owned());
        Ok(Self {
            code: header.code,
            language: header.language,
            version: header.version,
            opaque: header.opaque,
            flag: header.flag,
            remark: header.remark.as_ref().map(|remark| remark.clone().into_owned()),
            ext: header.ext.iter().map(owned).collect(),
            body: frame.body.clone(),
        })
    }

    /// Appends the whole frame to `out`.
    ///
    /// # Errors
    /// If the header or the frame is above its bound, or the binary header cannot hold a value. `out` is as before then.
    pub fn encode(&self, encoding: HeaderEncoding, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.encode_head(encoding, self.body.len(), out)?;
        out.put_slice(&self.body);
        Ok(())
    }

    /// Appends the frame up to its body, which the caller sends itself: `body_bytes` bytes must follow. For replies whose
    /// body is sent from where it lies; [`RemotingCommand::body`] is not looked at.
    ///
    /// # Errors
    /// As [`RemotingCommand::encode`].
    pub fn encode_head(
        &self,
        encoding: HeaderEncoding,
        body_bytes: usize,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let head = Head {
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flag: self.flag,
            remark: self.remark.as_deref().map(clipped_remark),
        };
        let ext = self.ext.iter().map(|(key, value)| (key.as_ref(), value.as_str()));
        write_head(out, encoding, &head, ext, body_bytes)
    }
}

/// Appends prefix and header of a frame with `body_bytes` bytes of body. On error `out` is as before.
pub(super) fn write_head<'a>(
    out: &mut BytesMut,
    encoding: HeaderEncoding,
    head: &Head<'_>,
    ext: impl Iterator<Item = (&'a str, &'a str)>,
    body_bytes: usize,
) -> Result<(), EncodeError> {
    write_frame(out, encoding, body_bytes, |out| match encoding {
        HeaderEncoding::Json => {
            header_json::write(out, head, ext);
            Ok(())
        }
        HeaderEncoding::Binary => header_binary::write(out, head, ext),
    })
}

/// Appends the prefix of a frame and the header that `header` writes. On error `out` is as before.
pub(super) fn write_frame(
    out: &mut BytesMut,
    encoding: HeaderEncoding,
    body_bytes: usize,
    header: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_slice(&[0; PREFIX_BYTES]);
    let written = header(out);
    let header_bytes = out.len() - start - PREFIX_BYTES;
    match written.and_then(|()| prefix(encoding, header_bytes, body_bytes)) {
        Ok(prefix) => {
            if let Some(place) = out.get_mut(start..start + PREFIX_BYTES) {
                place.copy_from_slice(&prefix);
            }
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// The first eight bytes of a frame.
fn prefix(
    encoding: HeaderEncoding,
    header_bytes: usize,
    body_bytes: usize,
) -> Result<[u8; PREFIX_BYTES], EncodeError> {
    if header_bytes > HEADER_BYTES_MAX {
        return Err(EncodeError::TooLong { what: "header", got: header_bytes, max: HEADER_BYTES_MAX });
    }
    let length = 4 + header_bytes.saturating_add(body_bytes);
    if length > FRAME_BYTES_MAX {
        return Err(EncodeError::TooLong { what: "frame", got: length, max: FRAME_BYTES_MAX });
    }
    // Both are below their bounds here, which are below 2^24 and 2^32.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let header_length = u32::try_from(header_bytes).unwrap_or(u32::MAX) | u32::from(encoding.code()) << 24;
    let mut prefix = [0; PREFIX_BYTES];
    let (first, second) = prefix.split_at_mut(4);
    first.copy_from_slice(&length.to_be_bytes());
    second.copy_from_slice(&header_length.to_be_bytes());
    Ok(prefix)
}

/// The longest prefix of a remark within its bound.
fn clipped_remark(remark: &str) -> &str {
    let mut end = remark.len().min(REMARK_BYTES_MAX);
    while !remark.is_char_boundary(end) {
        end -= 1;
    }
    remark.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::frame::split;
    use crate::remoting::request_code::RequestCode;
    use crate::remoting::response_code::ResponseCode;

    fn example() -> RemotingCommand {
        let ext =
            vec![(Cow::Borrowed("topic"), "orders".to_owned()), (Cow::Borrowed("queueId"), "1".to_owned())];
        RemotingCommand::request(RequestCode::PULL_MESSAGE, ext, "body").with_opaque(5)
    }

    #[test]
    fn a_command_survives_the_wire_in_either_encoding() {
        for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
            let mut wire = BytesMut::new();
            let command = example().with_remark("why").with_language(LanguageCode::RUST).oneway();
            command.encode(encoding, &mut wire).unwrap();
            let frame = split(&mut wire, 4096).unwrap().unwrap();
            assert_eq!(RemotingCommand::from_frame(&frame).unwrap(), command);
            assert_eq!(command.ext_value("topic"), Some("orders"));
        }
    }

    #[test]
    fn a_reply_answers_its_request() {
        let mut wire = BytesMut::new();
        example().encode(HeaderEncoding::Json, &mut wire).unwrap();
        let frame = split(&mut wire, 4096).unwrap().unwrap();
        let request = HeaderView::parse(&frame).unwrap();
        let reply = RemotingCommand::response_to(&request, ResponseCode::PULL_NOT_FOUND);
        assert!(reply.is_response() && !reply.is_oneway());
        assert_eq!((reply.opaque, reply.code), (5, 19));
    }

    #[test]
    fn a_head_announces_the_body_that_follows_it() {
        let mut wire = BytesMut::new();
        example().encode_head(HeaderEncoding::Json, 3, &mut wire).unwrap();
        wire.extend_from_slice(b"xyz");
        let frame = split(&mut wire, 4096).unwrap().unwrap();
        assert_eq!(&frame.body[..], b"xyz");
        assert!(wire.is_empty());
    }

    #[test]
    fn what_is_too_long_leaves_the_buffer_as_it_was() {
        let mut wire = BytesMut::from(&b"before"[..]);
        let long = "x".repeat(HEADER_BYTES_MAX);
        let command = example().with_ext(vec![(Cow::Borrowed("k"), long)]);
        for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
            assert!(command.encode(encoding, &mut wire).is_err());
        }
        assert!(example().encode_head(HeaderEncoding::Json, FRAME_BYTES_MAX, &mut wire).is_err());
        assert!(
            RemotingCommand::request(RequestCode::POP_MESSAGE, Vec::new(), "")
                .encode(HeaderEncoding::Binary, &mut wire)
                .is_err()
        );
        assert_eq!(&wire[..], b"before");
    }

    #[test]
    fn a_long_remark_is_clipped_at_a_character() {
        let mut wire = BytesMut::new();
        let remark = format!("x{}", "é".repeat(REMARK_BYTES_MAX));
        RemotingCommand::response(1, ResponseCode::SYSTEM_ERROR)
            .with_remark(remark)
            .encode(HeaderEncoding::Json, &mut wire)
            .unwrap();
        let frame = split(&mut wire, 1 << 20).unwrap().unwrap();
        let read = RemotingCommand::from_frame(&frame).unwrap().remark.unwrap();
        assert_eq!(read.len(), REMARK_BYTES_MAX - 1);
    }
}
