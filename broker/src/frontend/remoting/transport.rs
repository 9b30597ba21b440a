//! What a connection needs of the stream of bytes below it: to wait for bytes and for room, as any asynchronous stream
//! lets it, and to take or put what is possible at once, which saves a timer and a wake-up for nearly every answer.

use std::io;

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A stream of bytes to one client.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Reads what has arrived, without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing has; else the stream has failed. `Ok(0)`: the client has closed its end.
    fn try_read(&mut self, into: &mut BytesMut) -> io::Result<usize>;

    /// Writes as much as there is room for, without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none; else the stream has failed.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

impl Transport for TcpStream {
    fn try_read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        Self::try_read_buf(self, into)
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::try_write(self, bytes)
    }
}
