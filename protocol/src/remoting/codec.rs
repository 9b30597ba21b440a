//! Frames for tokio's framed connections: what the client uses. The broker cuts its buffers itself, see [`super::frame`].

use std::io;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use super::command::RemotingCommand;
use super::frame::{self, Frame, HeaderEncoding};
use crate::error::{DecodeError, EncodeError};
use crate::limits::FRAME_BYTES_MAX;

/// Why a framed connection failed. After any of them it must be closed.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The other side sent what is no frame.
    #[error("a frame could not be read")]
    Decode(#[from] DecodeError),
    /// A command cannot be written; nothing of it was sent.
    #[error("a command could not be written")]
    Encode(#[from] EncodeError),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// Cuts frames and writes commands.
#[derive(Debug, Clone)]
pub struct RemotingCodec {
    encoding: HeaderEncoding,
    frame_bytes_max: usize,
}

impl RemotingCodec {
    /// Writes headers in `encoding`, refuses frames above `frame_bytes_max` bytes (at most [`FRAME_BYTES_MAX`]).
    #[must_use]
    pub fn new(encoding: HeaderEncoding, frame_bytes_max: usize) -> Self {
        Self { encoding, frame_bytes_max: frame_bytes_max.min(FRAME_BYTES_MAX) }
    }
}

impl Default for RemotingCodec {
    fn default() -> Self {
        Self::new(HeaderEncoding::Json, FRAME_BYTES_MAX)
    }
}

impl Decoder for RemotingCodec {
    type Item = Frame;
    type Error = CodecError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        Ok(frame::split(buffer, self.frame_bytes_max)?)
    }
}

impl Encoder<RemotingCommand> for RemotingCodec {
    type Error = CodecError;

    fn encode(&mut self, command: RemotingCommand, out: &mut BytesMut) -> Result<(), CodecError> {
        Ok(command.encode(self.encoding, out)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::request_code::RequestCode;

    #[test]
    fn what_one_side_writes_the_other_reads() {
        for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
            let mut codec = RemotingCodec::new(encoding, FRAME_BYTES_MAX);
            let command =
                RemotingCommand::request(RequestCode::HEART_BEAT, Vec::new(), "body").with_opaque(7);
            let mut wire = BytesMut::new();
            codec.encode(command.clone(), &mut wire).unwrap();
            let frame = codec.decode(&mut wire).unwrap().unwrap();
            assert_eq!(frame.encoding, encoding);
            assert_eq!(RemotingCommand::from_frame(&frame).unwrap(), command);
            assert!(codec.decode(&mut wire).unwrap().is_none());
        }
    }

    #[test]
    fn a_frame_above_the_bound_ends_the_connection() {
        let mut codec = RemotingCodec::new(HeaderEncoding::Json, 16);
        let mut wire = BytesMut::from(&b"\0\0\0\x11"[..]);
        assert!(matches!(codec.decode(&mut wire), Err(CodecError::Decode(DecodeError::TooLong { .. }))));
    }
}
