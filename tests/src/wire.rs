//! A raw remoting connection: tests say which header fields go out, as text, and look at what comes back. It uses the
//! protocol crate for framing only, so a test names codes and fields exactly as a foreign client would.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mezzo_protocol::limits::FRAME_BYTES_MAX;
use mezzo_protocol::remoting::{HeaderEncoding, RemotingCommand, frame};

use crate::wait::PATIENCE;

/// What the Java client of RocketMQ 4.9.8 says of itself.
pub const CLIENT_VERSION: i32 = 409;
/// What Apache's C++ client says of itself: 4.6.0, from before standard JSON in routes.
pub const OLD_CLIENT_VERSION: i32 = 333;

/// One connection to a broker or name server.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    input: BytesMut,
    next_opaque: i32,
    encoding: HeaderEncoding,
    requests: VecDeque<RemotingCommand>,
    replies: VecDeque<RemotingCommand>,
}

/// Header fields by name.
pub type Fields<'a> = &'a [(&'static str, &'a str)];

impl Wire {
    /// Connects, and speaks JSON headers.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    /// Connects, if somebody is there.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            input: BytesMut::new(),
            next_opaque: 1,
            encoding: HeaderEncoding::Json,
            requests: VecDeque::new(),
            replies: VecDeque::new(),
        })
    }

    /// From now on writes headers in this encoding; answers must come in the same.
    pub fn speak(&mut self, encoding: HeaderEncoding) {
        self.encoding = encoding;
    }

    /// A request with these fields, not sent yet; its opaque is this connection's next.
    pub fn request(&mut self, code: i32, fields: Fields<'_>, body: &[u8]) -> RemotingCommand {
        let ext = fields.iter().map(|(key, value)| ((*key).into(), (*value).to_owned())).collect();
        let mut command = RemotingCommand::request(code, ext, body.to_vec()).with_opaque(self.next_opaque);
        command.version = CLIENT_VERSION;
        self.next_opaque += 1;
        command
    }

    /// Sends a request and waits for its answer. Requests of the broker's that come in between are kept.
    pub fn call(&mut self, code: i32, fields: Fields<'_>, body: &[u8]) -> RemotingCommand {
        let request = self.request(code, fields, body);
        self.send(&request);
        self.answer(request.opaque)
    }

    /// Sends a request without fields and waits for its answer; `None` when the other side is gone.
    pub fn try_call(&mut self, code: i32, body: &[u8]) -> Option<RemotingCommand> {
        let request = self.request(code, &[], body);
        self.try_send_all(std::iter::once(&request))?;
        self.try_answer(request.opaque, PATIENCE)
    }

    /// Sends a request that wants no answer.
    pub fn oneway(&mut self, code: i32, fields: Fields<'_>, body: &[u8]) {
        let request = self.request(code, fields, body).oneway();
        self.send(&request);
    }

    /// Writes a command.
    pub fn send(&mut self, command: &RemotingCommand) {
        let mut out = BytesMut::new();
        command.encode(self.encoding, &mut out).expect("a test's command fits a frame");
        self.send_bytes(&out);
    }

    /// Writes commands in one go; `None` when the other side is gone.
    pub fn try_send_all<'c>(&mut self, commands: impl Iterator<Item = &'c RemotingCommand>) -> Option<()> {
        let mut out = BytesMut::new();
        for command in commands {
            command.encode(self.encoding, &mut out).expect("a test's command fits a frame");
        }
        self.stream.write_all(&out).ok()
    }

    /// Writes bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker takes what it is sent");
    }

    /// Waits for the answer to `opaque`.
    pub fn answer(&mut self, opaque: i32) -> RemotingCommand {
        self.try_answer(opaque, PATIENCE).unwrap_or_else(|| panic!("no answer to request {opaque}"))
    }

    /// Waits `within` for the answer to `opaque`; `None` when none came or the connection closed.
    pub fn try_answer(&mut self, opaque: i32, within: Duration) -> Option<RemotingCommand> {
        let end = Instant::now() + within;
        loop {
            if let Some(at) = self.replies.iter().position(|reply| reply.opaque == opaque) {
                return self.replies.remove(at);
            }
            self.receive(end)?;
        }
    }

    /// Waits `within` for a request of the broker's with this code; others before it are dropped.
    pub fn asked(&mut self, code: i32, within: Duration) -> Option<RemotingCommand> {
        let end = Instant::now() + within;
        loop {
            while let Some(request) = self.requests.pop_front() {
                if request.code == code {
                    return Some(request);
                }
            }
            self.receive(end)?;
        }
    }

    /// True once the broker has closed this connection; waits `within` for it.
    pub fn is_closed_within(&mut self, within: Duration) -> bool {
        let end = Instant::now() + within;
        while self.receive(end).is_some() {}
        Instant::now() < end
    }

    /// True once the broker has closed this connection, found out without reading what it sent.
    pub fn is_reset(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("a connected socket takes options");
        match self.stream.write(&[0]) {
            Ok(written) => written == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// Takes one more frame; `None` at `end` or when the connection is closed.
    fn receive(&mut self, end: Instant) -> Option<()> {
        loop {
            if let Some(frame) =
                frame::split(&mut self.input, FRAME_BYTES_MAX).expect("the broker sends frames")
            {
                assert_eq!(frame.encoding, self.encoding, "an answer comes in its request's encoding");
                let command = RemotingCommand::from_frame(&frame).expect("the broker sends headers");
                let list = if command.is_response() { &mut self.replies } else { &mut self.requests };
                list.push_back(command);
                return Some(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).expect("a connected socket takes options");
            let mut chunk = [0; 64 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return None;
                }
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return None;
                }
                Err(error) => panic!("cannot read from the broker: {error}"),
            }
        }
    }
}
