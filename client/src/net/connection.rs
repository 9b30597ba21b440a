//! One connection: requests out, answers and requests in.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use mezzo_protocol::error::EncodeError;
use mezzo_protocol::remoting::frame::{self, HeaderEncoding};
use mezzo_protocol::remoting::{Frame, HeaderView, RemotingCommand, RequestCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deadline::Deadline;
use super::encoding;
use super::measured::{MeasuredRequest, MeasuredRun};
use super::outbox::{Outbox, PushError};
use super::pending::{AnswerSink, Pending, RegisterError};
use super::reply::Reply;
use super::run::RunWaiter;
use super::silence::Silence;
use crate::config::ClientConfig;
use crate::error::RequestError;
use crate::metrics::{Installed, RequestOutcome};
use crate::transport::{AnyTransport, ByteStreams};

/// Bytes that one read asks the socket for at least.
const READ_BYTES: usize = 64 << 10;

/// Heartbeats in a row without an answer after which a connection is given up whose peer answers other requests: it
/// forgets us soon.
const HEARTBEATS_MISSED_MAX: u32 = 2;

/// The part of the client's settings that concerns one connection.
#[derive(Clone)]
pub(crate) struct NetConfig {
    pub(crate) transport: Arc<dyn AnyTransport>,
    pub(crate) metrics: Installed,
    pub(crate) encoding: encoding::HeaderEncoding,
    pub(crate) connect_timeout_ms: u64,
    pub(crate) write_timeout_ms: u64,
    pub(crate) silence_max_ms: u64,
    pub(crate) pending_requests_max: usize,
    pub(crate) write_buffer_bytes_max: usize,
    pub(crate) frame_bytes_max: usize,
}

impl NetConfig {
    /// What the client's settings say, and how bytes travel and who counts them.
    pub(crate) fn new(config: &ClientConfig, transport: Arc<dyn AnyTransport>, metrics: Installed) -> Self {
        Self {
            transport,
            metrics,
            encoding: config.header_encoding,
            connect_timeout_ms: config.connect_timeout_ms,
            write_timeout_ms: config.write_timeout_ms,
            silence_max_ms: config.silence_max_ms,
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

/// Closes a connection when one of its tasks ends, however it ends: code of the application that is called there (a
/// transport's stream) may panic, and nobody must wait for a task that is gone.
struct Ending(Arc<Connection>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.close("a task of the connection ended");
    }
}

/// An open (or just closed) connection. Shared with its two tasks, which end when it is closed.
pub(crate) struct Connection {
    address: Arc<str>,
    config: NetConfig,
    born: Instant,
    /// Whether headers are written in the binary form.
    binary: AtomicBool,
    /// Whether the peer has said that it is a Mezzo broker.
    mezzo: AtomicBool,
    /// When the peer was last heard: microseconds since `born` plus one, 0 for never.
    heard: AtomicU64,
    silence: Mutex<Silence>,
    heartbeats_missed: AtomicU32,
    outbox: Arc<Outbox>,
    pending: Arc<Pending>,
    closed: CancellationToken,
    close_reason: Mutex<Option<String>>,
}

impl Connection {
    /// Connects to `address` within its time and by the deadline. Requests of the peer go to `inbound`.
    pub(crate) async fn open(
        address: &Arc<str>,
        config: &NetConfig,
        deadline: Deadline,
        inbound: mpsc::Sender<Inbound>,
    ) -> Result<Arc<Self>, RequestError> {
        let unreachable = |reason: String| RequestError::Unreachable { address: Arc::clone(address), reason };
        let limit = deadline.but_at_most_ms(config.connect_timeout_ms);
        match tokio::time::timeout_at(limit.at(), config.transport.connect_boxed(address)).await {
            Ok(Ok(streams)) => Ok(Self::over(Arc::clone(address), config.clone(), streams, inbound)),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable(format!("not connected within {} ms", limit.waited_ms()))),
        }
    }

    /// A connection over any pair of byte streams.
    fn over(
        address: Arc<str>,
        config: NetConfig,
        streams: ByteStreams,
        inbound: mpsc::Sender<Inbound>,
    ) -> Arc<Self> {
        let connection = Arc::new(Self {
            address,
            born: Instant::now(),
            binary: AtomicBool::new(config.encoding.first() == HeaderEncoding::Binary),
            mezzo: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            silence: Mutex::default(),
            heartbeats_missed: AtomicU32::new(0),
            outbox: Arc::new(Outbox::new(config.write_buffer_bytes_max)),
            pending: Arc::new(Pending::new(config.pending_requests_max)),
            config,
            closed: CancellationToken::new(),
            close_reason: Mutex::new(None),
        });
        tokio::spawn(Arc::clone(&connection).write_all(streams.writer));
        tokio::spawn(Arc::clone(&connection).read_all(streams.reader, inbound));
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
        let mut measured = MeasuredRequest::begin(&self.config.metrics, &self.address, command.code);
        match tokio::time::timeout_at(deadline.at(), waiter.answer()).await {
            Ok(Some(frame)) => {
                measured.answered(&frame);
                Ok(Reply::new(Arc::clone(&self.address), frame))
            }
            Ok(None) => {
                measured.ended(RequestOutcome::Lost);
                Err(self.lost())
            }
            Err(_) => {
                measured.ended(RequestOutcome::TimedOut);
                self.note_timeout(deadline);
                let (address, waited_ms) = (Arc::clone(&self.address), deadline.waited_ms());
                Err(RequestError::TimedOut { address, waited_ms })
            }
        }
    }

    /// Sends `count` requests with this code in one piece; their answers go to `sink`. `encode` writes the frames with the opaques that
    /// it is given, in their order. Dropping what is returned gives up the answers that have not come.
    pub(crate) async fn request_run(
        self: &Arc<Self>,
        code: RequestCode,
        count: usize,
        sink: &Arc<dyn AnswerSink>,
        encode: impl FnOnce(&[i32], HeaderEncoding, &mut BytesMut) -> Result<(), EncodeError>,
        deadline: Deadline,
    ) -> Result<RunWaiter, RequestError> {
        self.check_in_time(deadline)?;
        let measured = MeasuredRun::new(&self.config.metrics, &self.address, code, sink);
        let sink = measured.as_ref().map_or_else(
            || Arc::clone(sink),
            |measured| -> Arc<dyn AnswerSink> { Arc::<MeasuredRun>::clone(measured) },
        );
        let places = self.pending.register_run(count, &sink).map_err(|error| self.register_error(&error))?;
        let mut frames = BytesMut::new();
        encode(places.opaques(), self.encoding(), &mut frames)?;
        if let Some(measured) = &measured {
            measured.begin(count);
        }
        let waiter = RunWaiter::new(Arc::clone(self), places, measured, deadline);
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
        self.push(command, deadline).await?;
        self.count_oneway(command);
        Ok(())
    }

    /// As [`Connection::send`], but now or not at all: for destructors.
    pub(crate) fn try_send(&self, command: &RemotingCommand) -> Result<(), RequestError> {
        let encoding = self.encoding_of(command);
        let pushed = self.outbox.try_push(&mut |out| command.encode(encoding, out));
        pushed.map_err(|error| self.push_error(error, 0))?;
        self.count_oneway(command);
        Ok(())
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

    /// The peer has shown that it reads binary headers: they are used from now on, unless the settings forbid it.
    pub(crate) fn use_binary(&self) {
        if self.config.encoding == encoding::HeaderEncoding::Auto {
            self.binary.store(true, Ordering::Relaxed);
        }
    }

    /// Learns from the answer to a heartbeat that all is well, and how headers may be written.
    pub(crate) fn learn(&self, answer: &HeaderView<'_>) -> encoding::Shown {
        self.heartbeats_missed.store(0, Ordering::Relaxed);
        let shown = encoding::shown(answer);
        if shown == encoding::Shown::Surely {
            self.mezzo.store(true, Ordering::Relaxed);
            self.use_binary();
        }
        shown
    }

    /// Fails unless the peer's answer to a heartbeat has said that it is a Mezzo broker: every connection of a member is
    /// greeted with one before it is used. `what` cannot be asked of other brokers, which would ignore a part of it.
    pub(crate) fn require_mezzo(&self, what: &'static str) -> Result<(), RequestError> {
        if self.mezzo.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(RequestError::NotMezzo { address: Arc::clone(&self.address), what })
    }

    /// How the header of this command is written now. The binary form has 16 bits for a code, and those of Mezzo's own
    /// requests are larger: they stay JSON, which every peer reads.
    fn encoding_of(&self, command: &RemotingCommand) -> HeaderEncoding {
        if i16::try_from(command.code).is_ok() { self.encoding() } else { HeaderEncoding::Json }
    }

    /// How headers are written now.
    pub(super) fn encoding(&self) -> HeaderEncoding {
        if self.binary.load(Ordering::Relaxed) { HeaderEncoding::Binary } else { HeaderEncoding::Json }
    }

    /// A heartbeat that was sent at the start of `deadline` got no answer in its time. A peer that is silent altogether
    /// would swallow sends and check-backs too, and is given up at once; one that answers others may only be slow.
    pub(crate) fn note_missed_heartbeat(&self, deadline: Deadline) {
        let missed = self.heartbeats_missed.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let is_silent = self.heard_us().is_none_or(|heard_us| heard_us < self.sent_us(deadline));
        if is_silent || missed >= HEARTBEATS_MISSED_MAX {
            self.close("no answer to a heartbeat");
        }
    }

    /// A request that was sent at the start of `deadline` got no answer in its time: a peer that is silent altogether is
    /// given up.
    pub(super) fn note_timeout(&self, deadline: Deadline) {
        let gone = {
            let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
            silence.timed_out(
                self.sent_us(deadline),
                self.heard_us(),
                self.life_us(Instant::now()),
                self.config.silence_max_ms.saturating_mul(1_000),
            )
        };
        if gone {
            self.close("the peer is silent and owes answers");
        }
    }

    fn sent_us(&self, deadline: Deadline) -> u64 {
        self.life_us(deadline.started())
    }

    fn heard_us(&self) -> Option<u64> {
        self.heard.load(Ordering::Relaxed).checked_sub(1)
    }

    fn life_us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_micros()).unwrap_or(u64::MAX)
    }

    fn count_oneway(&self, command: &RemotingCommand) {
        if let Some(metrics) = &self.config.metrics {
            metrics.sent_oneway(&self.address, RequestCode(command.code));
        }
    }

    async fn push(&self, command: &RemotingCommand, deadline: Deadline) -> Result<(), RequestError> {
        let encoding = self.encoding_of(command);
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

    /// Why it was closed.
    pub(super) fn reason(&self) -> String {
        let held = self.close_reason.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone().unwrap_or_else(|| "the connection is closed".to_owned())
    }

    async fn write_all(self: Arc<Self>, mut writer: impl AsyncWrite + Unpin) {
        let _ending = Ending(Arc::clone(&self));
        let limit = Duration::from_millis(self.config.write_timeout_ms);
        let mut chunk = BytesMut::new();
        loop {
            chunk.clear();
            // Whoever is ready to run may add its frame to this write.
            tokio::task::yield_now().await;
            if !self.outbox.take(&mut chunk).await {
                break;
            }
            let written = async {
                writer.write_all(&chunk).await?;
                // Encrypted streams hold back what they could not pass on at once.
                writer.flush().await
            };
            match tokio::time::timeout(limit, written).await {
                Ok(Ok(())) => {
                    if let Some(metrics) = &self.config.metrics {
                        metrics.bytes_written(&self.address, chunk.len());
                    }
                }
                Ok(Err(error)) => return self.close(&error.to_string()),
                Err(_) => return self.close("the peer takes no data"),
            }
        }
        // The peer sees an orderly end; what it makes of it does not matter any more.
        let _ = tokio::time::timeout(limit, writer.shutdown()).await;
    }

    async fn read_all(self: Arc<Self>, mut reader: impl AsyncRead + Unpin, inbound: mpsc::Sender<Inbound>) {
        let _ending = Ending(Arc::clone(&self));
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
                Ok(bytes) => {
                    self.heard.store(self.life_us(Instant::now()).saturating_add(1), Ordering::Relaxed);
                    if let Some(metrics) = &self.config.metrics {
                        metrics.bytes_read(&self.address, bytes);
                    }
                }
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
            if frame.encoding == HeaderEncoding::Binary && self.encoding() == HeaderEncoding::Json {
                self.use_binary();
            }
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

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("address", &self.address)
            .field("open", &self.is_open())
            .field("unanswered", &self.pending.len())
            .finish_non_exhaustive()
    }
}
