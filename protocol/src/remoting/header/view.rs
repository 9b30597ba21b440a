//! A header as it stands in a frame.

use std::borrow::Cow;

use super::ext_fields::ExtFields;
use crate::error::DecodeError;
use crate::ids::Opaque;
use crate::remoting::frame::{Frame, FrameView, HeaderEncoding};
use crate::remoting::language::LanguageCode;
use crate::remoting::request_code::RequestCode;
use crate::remoting::response_code::ResponseCode;
use crate::remoting::{header_binary, header_json};

/// Flag bit of a reply.
pub const FLAG_RESPONSE: u32 = 1;
/// Flag bit of a request that wants no reply.
pub const FLAG_ONEWAY: u32 = 1 << 1;

/// The fields of a header, borrowed from the frame.
#[derive(Debug, Clone)]
pub struct HeaderView<'a> {
    /// What is asked ([`RequestCode`]) or how it went ([`ResponseCode`]).
    pub code: i32,
    /// The language of the sender.
    pub language: LanguageCode,
    /// The protocol version of the sender.
    pub version: i32,
    /// Connects reply and request.
    pub opaque: i32,
    /// Bit 0: a reply. Bit 1: no reply wanted.
    pub flag: u32,
    /// What went wrong, in words.
    pub remark: Option<Cow<'a, str>>,
    /// The extension fields.
    pub ext: ExtFields<'a>,
}

impl<'a> HeaderView<'a> {
    /// Reads the header of `frame`.
    ///
    /// # Errors
    /// If the header is not what its encoding calls for, has no code, or is above a bound.
    pub fn parse(frame: &'a Frame) -> Result<Self, DecodeError> {
        Self::parse_bytes(frame.encoding, &frame.header)
    }

    /// Reads the header of a borrowed frame.
    ///
    /// # Errors
    /// As [`HeaderView::parse`].
    pub fn parse_view(frame: &FrameView<'a>) -> Result<Self, DecodeError> {
        Self::parse_bytes(frame.encoding, frame.header)
    }

    /// Reads a header by itself.
    ///
    /// # Errors
    /// As [`HeaderView::parse`].
    pub fn parse_bytes(encoding: HeaderEncoding, header: &'a [u8]) -> Result<Self, DecodeError> {
        match encoding {
            HeaderEncoding::Json => header_json::parse(header),
            HeaderEncoding::Binary => header_binary::parse(header),
        }
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

    /// The code of a request.
    #[must_use]
    pub const fn request_code(&self) -> RequestCode {
        RequestCode(self.code)
    }

    /// The code of a reply.
    #[must_use]
    pub const fn response_code(&self) -> ResponseCode {
        ResponseCode(self.code)
    }

    /// What connects reply and request.
    #[must_use]
    pub const fn opaque(&self) -> Opaque {
        Opaque(self.opaque)
    }
}
