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

    /// Returns once a read would not wait, without needing a buffer for it: how a connection on which nothing happens waits.
    /// A stream that cannot tell returns at once. Cancel safe.
    ///
    /// # Errors
    /// The stream has failed.
    fn ready_to_read(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        std::future::ready(Ok(()))
    }

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

    async fn ready_to_read(&mut self) -> io::Result<()> {
        self.readable().await
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::try_write(self, bytes)
    }
}
