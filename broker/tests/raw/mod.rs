//! A client of raw frames: what the tests say on the wire is written out, not made by an SDK.

use std::{
    borrow::Cow,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use mezzo_protocol::{
    limits::FRAME_BYTES_MAX,
    remoting::{
        command::RemotingCommand,
        frame::{self, HeaderEncoding},
        request_code::RequestCode,
    },
};

/// Longest wait for a frame.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    input: BytesMut,
    encoding: HeaderEncoding,
    next_opaque: i32,
}

impl Client {
    /// Connects; headers go as JSON.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, HeaderEncoding::Json)
    }

    /// Connects; headers go in `encoding`.
    pub(crate) fn connect_with(address: SocketAddr, encoding: HeaderEncoding) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, input: BytesMut::new(), encoding, next_opaque: 1 }
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a request without waiting; returns its opaque.
    pub(crate) fn send(&mut self, request: RemotingCommand) -> i32 {
        let opaque = self.next_opaque;
        self.next_opaque += 1;
        let mut out = BytesMut::new();
        request.with_opaque(opaque).encode(self.encoding, &mut out).unwrap();
        self.send_bytes(&out);
        opaque
    }

    /// Sends the same request again and again and reads nothing, until the broker closes the connection; false if it
    /// does not.
    pub(crate) fn flood(&mut self, request: &RemotingCommand) -> bool {
        let mut one = BytesMut::new();
        request.encode(self.encoding, &mut one).unwrap();
        let many = one.repeat(1_000);
        let deadline = Instant::now() + PATIENCE;
        self.stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut sent = 0;
        while Instant::now() < deadline {
            match self.stream.write(&many[sent % many.len()..]) {
                Ok(bytes) => sent += bytes,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return true,
            }
        }
        false
    }

    /// The next frame that arrives; `None` when the broker closed the connection.
    pub(crate) fn receive(&mut self) -> Option<RemotingCommand> {
        loop {
            if let Some(frame) = frame::split(&mut self.input, FRAME_BYTES_MAX).unwrap() {
                return Some(RemotingCommand::from_frame(&frame).unwrap());
            }
            let mut some = [0; 4096];
            match self.stream.read(&mut some) {
                Ok(0) => return None,
                Ok(read) => self.input.extend_from_slice(&some[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing arrived: {error}"),
            }
        }
    }

    /// Sends a request and waits for its answer; what the broker sends unasked meanwhile is returned beside it.
    pub(crate) fn call_noting(
        &mut self,
        request: RemotingCommand,
    ) -> (RemotingCommand, Vec<RemotingCommand>) {
        let opaque = self.send(request);
        let mut unasked = Vec::new();
        loop {
            let frame = self.receive().expect("the broker closed the connection");
            if frame.is_response() && frame.opaque == opaque {
                return (frame, unasked);
            }
            unasked.push(frame);
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn call(&mut self, request: RemotingCommand) -> RemotingCommand {
        self.call_noting(request).0
    }
}

/// A request with these fields.
pub(crate) fn request(
    code: RequestCode,
    fields: &[(&'static str, &str)],
    body: impl Into<Vec<u8>>,
) -> RemotingCommand {
    let ext = fields.iter().map(|(key, value)| (Cow::Borrowed(*key), (*value).to_owned())).collect();
    RemotingCommand::request(code, ext, body.into())
}
