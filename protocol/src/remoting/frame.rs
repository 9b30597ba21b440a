//! Cuts a byte stream into frames, and a frame into header and body.
//!
//! ```text
//!   0  length of what follows u32
//!   4  header encoding u8 (0 JSON, 1 ROCKETMQ binary), header length u24
//!   8  header
//!   …  body
//! ```
//! Nothing is allocated by an announced length; a frame that is too long is refused as soon as its first four bytes are
//! there, and a header that does not fit its frame as soon as the first eight are.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::DecodeError;
use crate::limits::{FRAME_LENGTH_BYTES, HEADER_BYTES_MAX};

/// Bytes in front of the header.
pub(super) const PREFIX_BYTES: usize = 8;

/// How a header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HeaderEncoding {
    /// As a JSON object: what every client speaks.
    #[default]
    Json,
    /// RocketMQ's binary header: an option of Java clients.
    Binary,
}

impl HeaderEncoding {
    /// The byte on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Json => 0,
            Self::Binary => 1,
        }
    }

    fn from_code(code: u8) -> Result<Self, DecodeError> {
        match code {
            0 => Ok(Self::Json),
            1 => Ok(Self::Binary),
            other => {
                Err(DecodeError::bad_value("header encoding", other.to_string(), "0 (JSON) or 1 (binary)"))
            }
        }
    }
}

/// One frame, owning its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// How the header is written; the reply uses the same.
    pub encoding: HeaderEncoding,
    /// The header, not parsed.
    pub header: Bytes,
    /// The body; empty if there is none.
    pub body: Bytes,
}

/// One frame in somebody else's buffer: for a reader that handles all frames of a buffer before it reads more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameView<'a> {
    /// How the header is written; the reply uses the same.
    pub encoding: HeaderEncoding,
    /// The header, not parsed.
    pub header: &'a [u8],
    /// The body; empty if there is none.
    pub body: &'a [u8],
}

impl FrameView<'_> {
    /// Length of the whole frame in the buffer, in bytes.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        PREFIX_BYTES + self.header.len() + self.body.len()
    }
}

/// What the first bytes of a frame announce.
struct Announced {
    encoding: HeaderEncoding,
    header_bytes: usize,
    /// Length of the whole frame with its length field.
    frame_bytes: usize,
}

/// Reads the prefix; `None` if more bytes are needed to judge it.
fn announced(buffer: &[u8], max: usize) -> Result<Option<Announced>, DecodeError> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > max {
        return Err(DecodeError::TooLong { what: "frame", got: length, max });
    }
    if length < 4 {
        return Err(DecodeError::bad_value("frame length", length.to_string(), "at least 4"));
    }
    let Some([encoding, high, middle, low]) = buffer.get(4..).and_then(|rest| rest.first_chunk::<4>()) else {
        return Ok(None);
    };
    let encoding = HeaderEncoding::from_code(*encoding)?;
    let header_bytes = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
    if header_bytes > length - 4 {
        return Err(DecodeError::Truncated { what: "header", needed: header_bytes, have: length - 4 });
    }
    if header_bytes > HEADER_BYTES_MAX {
        return Err(DecodeError::TooLong { what: "header", got: header_bytes, max: HEADER_BYTES_MAX });
    }
    Ok(Some(Announced { encoding, header_bytes, frame_bytes: FRAME_LENGTH_BYTES + length }))
}

/// The first frame of `buffer`, borrowed; `None` if it is not complete yet. `max` bounds what follows the length field.
///
/// # Errors
/// If the frame is too long, or its prefix is wrong. The connection cannot be used further then.
pub fn peek(buffer: &[u8], max: usize) -> Result<Option<FrameView<'_>>, DecodeError> {
    let Some(Announced { encoding, header_bytes, frame_bytes }) = announced(buffer, max)? else {
        return Ok(None);
    };
    let Some(content) = buffer.get(PREFIX_BYTES..frame_bytes) else { return Ok(None) };
    let Some((header, body)) = content.split_at_checked(header_bytes) else { return Ok(None) };
    Ok(Some(FrameView { encoding, header, body }))
}

/// Takes the first frame out of `buffer` without copying it; `None` if it is not complete yet. `max` bounds what follows
/// the length field.
///
/// # Errors
/// If the frame is too long, or its prefix is wrong. The connection cannot be used further then.
pub fn split(buffer: &mut BytesMut, max: usize) -> Result<Option<Frame>, DecodeError> {
    let Some(Announced { encoding, header_bytes, frame_bytes }) = announced(buffer, max)? else {
        return Ok(None);
    };
    if buffer.len() < frame_bytes {
        return Ok(None);
    }
    let mut content = buffer.split_to(frame_bytes).freeze();
    content.advance(PREFIX_BYTES);
    let header = content.split_to(header_bytes);
    Ok(Some(Frame { encoding, header, body: content }))
}

/// Takes what there is of the first frame out of `buffer`, once its header is complete: the frame without its body, and
/// how many bytes of the body are still to come. For a receiver that answers a request without taking it in. `None` if
/// the header is not complete yet. `max` bounds what follows the length field.
///
/// # Errors
/// If the frame is too long, or its prefix is wrong. The connection cannot be used further then.
pub fn split_begun(buffer: &mut BytesMut, max: usize) -> Result<Option<(Frame, usize)>, DecodeError> {
    let Some(Announced { encoding, header_bytes, frame_bytes }) = announced(buffer, max)? else {
        return Ok(None);
    };
    if buffer.len() < PREFIX_BYTES + header_bytes {
        return Ok(None);
    }
    // copied: the header may be kept for longer than the body that lies behind it in the same allocation
    let header =
        Bytes::copy_from_slice(buffer.get(PREFIX_BYTES..PREFIX_BYTES + header_bytes).unwrap_or_default());
    let there = buffer.len().min(frame_bytes);
    buffer.advance(there);
    Ok(Some((Frame { encoding, header, body: Bytes::new() }, frame_bytes - there)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::FRAME_BYTES_MAX;

    const EXAMPLE: &[u8] = b"\0\0\0\x0a\0\0\0\x03{}\nbodyNEXT";

    #[test]
    fn a_frame_is_header_and_body_and_leaves_the_rest() {
        let mut buffer = BytesMut::from(EXAMPLE);
        buffer[3] = 11;
        let view = peek(&buffer, 64).unwrap().unwrap();
        assert_eq!((view.header, view.body), (&b"{}\n"[..], &b"body"[..]));
        assert_eq!(view.frame_len(), 15);
        let frame = split(&mut buffer, 64).unwrap().unwrap();
        assert_eq!(frame.encoding, HeaderEncoding::Json);
        assert_eq!((&frame.header[..], &frame.body[..]), (&b"{}\n"[..], &b"body"[..]));
        assert_eq!(&buffer[..], b"NEXT");
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_at_its_fourth_byte() {
        let mut buffer = BytesMut::from(&b"\x7f\xff\xff\xff"[..]);
        assert!(matches!(split(&mut buffer, FRAME_BYTES_MAX), Err(DecodeError::TooLong { .. })));
        assert!(split(&mut BytesMut::from(&b"\x7f\xff\xff"[..]), FRAME_BYTES_MAX).unwrap().is_none());
    }

    #[test]
    fn prefixes_that_cannot_be_are_refused() {
        for bad in [
            &b"\0\0\0\x03"[..],        // shorter than its own prefix
            b"\0\0\0\x08\0\0\0\x05",   // the header is longer than the frame
            b"\0\0\0\x08\x02\0\0\x04", // an unknown encoding
            b"\0\x60\0\0\0\x50\0\0",   // a header above its bound
        ] {
            assert!(peek(bad, FRAME_BYTES_MAX).is_err(), "{bad:?}");
            assert!(split(&mut BytesMut::from(bad), FRAME_BYTES_MAX).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_begun_frame_is_its_header_and_the_number_of_bytes_to_come() {
        for there in 0..=EXAMPLE.len() {
            let mut buffer = BytesMut::from(&EXAMPLE[..there]);
            let begun = split_begun(&mut buffer, 64).unwrap();
            if there < 11 {
                assert_eq!((begun, buffer.len()), (None, there));
                continue;
            }
            let (frame, missing) = begun.unwrap();
            assert_eq!((&frame.header[..], &frame.body[..]), (&b"{}\n"[..], &b""[..]));
            assert_eq!((missing, buffer.len()), (14_usize.saturating_sub(there), there.saturating_sub(14)));
        }
        assert!(split_begun(&mut BytesMut::from(EXAMPLE), 9).is_err());
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut buffer = BytesMut::from(&b"\0\xff\xff\xff\0\0\0\x10{"[..]);
        let before = buffer.capacity();
        assert!(split(&mut buffer, FRAME_BYTES_MAX).unwrap().is_none());
        assert_eq!(buffer.capacity(), before);
    }

    proptest! {
        #[test]
        fn a_stream_is_cut_alike_however_it_arrives(
            frames in proptest::collection::vec((any::<bool>(), ".{0,30}", ".{0,30}"), 1..5), step in 1_usize..40,
        ) {
            let mut stream = Vec::new();
            for (binary, header, body) in &frames {
                stream.extend_from_slice(&u32::try_from(4 + header.len() + body.len()).unwrap().to_be_bytes());
                let header_length = u32::try_from(header.len()).unwrap() | u32::from(*binary) << 24;
                stream.extend_from_slice(&header_length.to_be_bytes());
                stream.extend_from_slice(header.as_bytes());
                stream.extend_from_slice(body.as_bytes());
            }
            let mut buffer = BytesMut::new();
            let mut got = Vec::new();
            for piece in stream.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = split(&mut buffer, 4096).unwrap() {
                    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
                    got.push((frame.encoding == HeaderEncoding::Binary, text(&frame.header), text(&frame.body)));
                }
            }
            prop_assert!(buffer.is_empty());
            prop_assert_eq!(got, frames);
        }

        #[test]
        fn any_bytes_are_cut_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let borrowed = peek(&bytes, 48).map(|frame| frame.map(|frame| frame.frame_len()));
            let mut buffer = BytesMut::from(&bytes[..]);
            let owned = split(&mut buffer, 48).map(|frame| frame.map(|_| bytes.len() - buffer.len()));
            prop_assert_eq!(borrowed, owned);
        }
    }
}
