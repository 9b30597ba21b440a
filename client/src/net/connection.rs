//! One connection: requests out, answers and requests in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use mezzo_protocol::error::EncodeError;
use mezzo_protocol::remoting::{Frame, HeaderEncoding, HeaderView, RemotingCommand, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::deadline::Deadline;
use super::outbox::{Outbox, PushError};
use super::pending::{AnswerSink, Pending, RegisterError, RunWaiter};
use super::reply::Reply;
use crate::config::ClientConfig;
use crate::error::RequestError;

/// Bytes that one read asks the socket for at least.
const READ_BYTES: usize = 64 << 10;

/// The part of the client's settings that concerns one connection.
#[derive(Debug, Clone)]
pub(crate) struct NetConfig {
    pub(crate) encoding: HeaderEncoding,
    pub(crate) connect_timeout_ms: u64,
    pub(crate) write_timeout_ms: u64,
    pub(crate) pending_requests_max: usize,
    pub(crate) write_buffer_bytes_max: usize,
    pub(crate) frame_bytes_max: usize,
}

impl From<&ClientConfig> for NetConfig {
    fn from(config: &ClientConfig) -> Self {
        Self {
            encoding: config.header_encoding,
            connect_timeout_ms: config.connect_timeout_ms,
            write_timeout_ms: config.write_timeout_ms,
            pending_requests_max: config.pending_requests_max,
            write_buffer_bytes_max: config.write_buffer_bytes_max,
            frame_bytes_max: config.frame_bytes_max,
        }
    }
}

/// A request that a peer sent to us, and where to answer it.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) connection: Arc<Connection>,
    pub(crate) frame: Frame,
}

/// An open (or just closed) connection. Shared with its two tasks, which end when it is closed.
#[derive(Debug)]
pub(crate) struct Connection {
    address: Arc<str>,
    config: NetConfig,
    outbox: Arc<Outbox>,
    pending: Arc<Pending>,
    closed: CancellationToken,
    close_reason: Mutex<Option<String>>,
}

impl Connection {
    /// Connects to `address` (`host:port`) within its time and by the deadline. Requests of the peer go to `inbound`.
    pub(crate) async fn open(
        address: &Arc<str>,
        config: &NetConfig,
        deadline: Deadline,
        inbound: mpsc::Sender<Inbound>,
    ) -> Result<Arc<Self>, RequestError> {
        let unreachable = |reason: String| RequestError::Unreachable { address: Arc::clone(address), reason };
        let limit = deadline.but_at_most_ms(config.connect_timeout_ms);
        let stream = match tokio::time::timeout_at(limit.at(), TcpStream::connect(&**address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => {
                return Err(unreachable(format!("not connected within {} ms", limit.waited_ms())));
            }
        };
        // Frames are batched by the writer; waiting for more would only add latency.
        stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let (reader, writer) = stream.into_split();
        Ok(Self::over(Arc::clone(address), config.clone(), reader, writer, inbound))
    }

    /// A connection over any pair of byte streams: encrypted ones too.
    pub(crate) fn over(
        address: Arc<str>,
        config: NetConfig,
        reader: impl AsyncRead + Unpin + Send + 'static,
        writer: impl AsyncWrite + Unpin + Send + 'static,
        inbound: mpsc::Sender<Inbound>,
    ) -> Arc<Self> {
        let connection = Arc::new(Self {
            address,
            outbox: Arc::new(Outbox::new(config.write_buffer_bytes_max)),
            pending: Arc::new(Pending::new(config.pending_requests_max)),
            config,
            closed: CancellationToken::new(),
            close_reason: Mutex::new(None),
        });
        tokio::spawn(Arc::clone(&connection).write_all(writer));
        tokio::spawn(Arc::clone(&connection).read_all(reader, inbound));
        connection
    }

    /// Whom it leads to.
    pub(crate) const fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// Whether requests can be sent.
    pub(crate) fn is_open(&self) -> bool {
        !self.closed.is_cancelled()
    }

    /// Completes when the connection is closed.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Sends a request and waits for its answer, whatever its code.
    pub(crate) async fn request(
        &self,
        command: RemotingCommand,
        deadline: Deadline,
    ) -> Result<Reply, RequestError> {
        self.check_in_time(deadline)?;
        let mut waiter = self.pending.register().map_err(|error| self.register_error(&error))?;
        let command = command.with_opaque(waiter.opaque());
        self.push(&command, deadline).await?;
        match tokio::time::timeout_at(deadline.at(), waiter.answer()).await {
            Ok(Some(frame)) => Ok(Reply::new(Arc::clone(&self.address), frame)),
            Ok(None) => Err(self.lost()),
            Err(_) => Err(RequestError::TimedOut {
                address: Arc::clone(&self.address),
                waited_ms: deadline.waited_ms(),
            }),
        }
    }

    /// Sends `count` requests in one piece; their answers go to `sink`. `encode` writes the frames with the opaques that
    /// it is given, in their order. Dropping what is returned gives up the answers that have not come.
    pub(crate) async fn request_run(
        &self,
        count: usize,
        sink: &Arc<dyn AnswerSink>,
        encode: impl FnOnce(&[i32], HeaderEncoding, &mut BytesMut) -> Result<(), EncodeError>,
        deadline: Deadline,
    ) -> Result<RunWaiter, RequestError> {
        self.check_in_time(deadline)?;
        let waiter = self.pending.register_run(count, sink).map_err(|error| self.register_error(&error))?;
        let mut frames = BytesMut::new();
        encode(waiter.opaques(), self.config.encoding, &mut frames)?;
        let pushed = self.outbox.push_whole(frames, deadline).await;
        pushed.map_err(|error| self.push_error(error, deadline.waited_ms()))?;
        Ok(waiter)
    }

    /// What the requests of a run get that were not answered when the connection ended.
    pub(crate) fn lost(&self) -> RequestError {
        RequestError::ConnectionLost { address: Arc::clone(&self.address), reason: self.reason() }
    }

    /// Sends a command that gets no answer: complete once it waits to be written.
    pub(crate) async fn send(
        &self,
        command: &RemotingCommand,
        deadline: Deadline,
    ) -> Result<(), RequestError> {
        self.push(command, deadline).await
    }

    /// As [`Connection::send`], but now or not at all: for destructors.
    pub(crate) fn try_send(&self, command: &RemotingCommand) -> Result<(), RequestError> {
        let encoding = self.config.encoding;
        self.outbox
            .try_push(&mut |out| command.encode(encoding, out))
            .map_err(|error| self.push_error(error, 0))
    }

    /// Answers a request of the peer in the encoding it used.
    pub(crate) fn try_answer(
        &self,
        reply: &RemotingCommand,
        encoding: HeaderEncoding,
    ) -> Result<(), RequestError> {
        self.outbox
            .try_push(&mut |out| reply.encode(encoding, out))
            .map_err(|error| self.push_error(error, 0))
    }

    /// Ends the connection: waiting requests fail, what waits to be written is written if the peer takes it.
    pub(crate) fn close(&self, reason: &str) {
        let mut held = self.close_reason.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = Some(reason.to_owned());
        }
        drop(held);
        self.closed.cancel();
        self.outbox.close();
        self.pending.close();
    }

    async fn push(&self, command: &RemotingCommand, deadline: Deadline) -> Result<(), RequestError> {
        let encoding = self.config.encoding;
        let pushed = self.outbox.push(|out| command.encode(encoding, out), deadline).await;
        pushed.map_err(|error| self.push_error(error, deadline.waited_ms()))
    }

    /// Sent too late, a request's answer could only come too late as well: a certain "not sent" would become an unknown
    /// outcome.
    fn check_in_time(&self, deadline: Deadline) -> Result<(), RequestError> {
        if deadline.is_over() {
            let (address, waited_ms) = (Arc::clone(&self.address), deadline.waited_ms());
            return Err(RequestError::TooLate { address, waited_ms });
        }
        Ok(())
    }

    fn register_error(&self, error: &RegisterError) -> RequestError {
        match error {
            RegisterError::Full => RequestError::TooManyPending {
                address: Arc::clone(&self.address),
                max: self.config.pending_requests_max,
            },
            RegisterError::Closed => self.unreachable(),
        }
    }

    fn push_error(&self, error: PushError, waited_ms: u64) -> RequestError {
        match error {
            PushError::Full => RequestError::Congested { address: Arc::clone(&self.address), waited_ms },
            PushError::Closed => self.unreachable(),
            PushError::Encode(error) => RequestError::Encode(error),
        }
    }

    fn unreachable(&self) -> RequestError {
        RequestError::Unreachable { address: Arc::clone(&self.address), reason: self.reason() }
    }

    fn reason(&self) -> String {
        let held = self.close_reason.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone().unwrap_or_else(|| "the connection is closed".to_owned())
    }

    async fn write_all(self: Arc<Self>, mut writer: impl AsyncWrite + Unpin) {
        let limit = Duration::from_millis(self.config.write_timeout_ms);
        let mut chunk = BytesMut::new();
        loop {
            chunk.clear();
            // Whoever is ready to run may add its frame to this write.
            tokio::task::yield_now().await;
            if !self.outbox.take(&mut chunk).await {
                break;
            }
            match tokio::time::timeout(limit, writer.write_all(&chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.close(&error.to_string()),
                Err(_) => return self.close("the peer takes no data"),
            }
        }
        // The peer sees an orderly end; what it makes of it does not matter any more.
        let _ = tokio::time::timeout(limit, writer.shutdown()).await;
    }

    async fn read_all(self: Arc<Self>, mut reader: impl AsyncRead + Unpin, inbound: mpsc::Sender<Inbound>) {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let reason = loop {
            match self.split_all(&mut buffer, &inbound) {
                Ok(()) => {}
                Err(reason) => break reason,
            }
            buffer.reserve(READ_BYTES);
            let read = tokio::select! {
                read = reader.read_buf(&mut buffer) => read,
                () = self.closed.cancelled() => return,
            };
            match read {
                Ok(0) => break "the peer closed the connection".to_owned(),
                Ok(_) => {}
                Err(error) => break error.to_string(),
            }
        };
        tracing::debug!(address = %self.address, reason, unanswered = self.pending.len(), "connection ended");
        self.close(&reason);
    }

    /// Hands on every complete frame in `buffer`.
    fn split_all(
        self: &Arc<Self>,
        buffer: &mut BytesMut,
        inbound: &mpsc::Sender<Inbound>,
    ) -> Result<(), String> {
        while let Some(frame) =
            frame::split(buffer, self.config.frame_bytes_max).map_err(|error| error.to_string())?
        {
            let header = HeaderView::parse(&frame).map_err(|error| error.to_string())?;
            let (opaque, code) = (header.opaque, header.code);
            if header.is_response() {
                if !self.pending.complete(&header, &frame) {
                    tracing::debug!(address = %self.address, opaque, code, "answer that nobody waits for");
                }
            } else if inbound.try_send(Inbound { connection: Arc::clone(self), frame }).is_err() {
                tracing::warn!(address = %self.address, code, "too many requests of brokers wait; dropped one");
            }
        }
        Ok(())
    }
}
