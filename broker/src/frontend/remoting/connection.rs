//! One connection from first byte to last: read what has arrived, translate every complete frame into one turn, append
//! once, wait once, answer with one write. While it waits for the disk it reads no more, so a group of requests forms
//! in the socket. Only this task writes to the socket.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use mezzo_protocol::{
    error::DecodeError,
    ids::{GroupName, PhysicalOffset},
    remoting::{
        command::RemotingCommand,
        frame::{self, Frame},
        header::HeaderView,
    },
    time::Timestamp,
};
use mezzo_storage::{Batch, FirstAnswer, SendKey};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, Sleep},
};

use super::{
    dispatch,
    outbound::{OutboundQueue, RemotingChannel},
    response, send_message,
    transport::Transport,
    turn::{PendingReply, Request, Role, SendReply, Step, Turn},
};
use crate::service::{
    Services,
    append::{AppendError, LimitWaiter},
    client_channel::ClientChannel,
    dedup::{self, Candidate, OwnSends, Verdict},
    stop::Stop,
    topic::TopicToCreate,
};

/// Bytes that are read at once from a connection on which little happens.
const READ_BYTES_MIN: usize = 4 << 10;
/// Bytes that are read at once from a busy connection.
const READ_BYTES_MAX: usize = 256 << 10;
/// A turn ends once its requests have this many bytes; one larger request makes a turn of its own.
const TURN_BYTES_MAX: usize = 1 << 20;
/// How often one request may find that something it needs does not exist: its topic, its group, the group's retry topic,
/// and a few more in case that somebody deletes them meanwhile.
const CREATIONS_MAX: usize = 8;
/// A turn ends once its ready answers have this many bytes.
const TURN_REPLY_BYTES_MAX: usize = 1 << 20;
/// A buffer that is empty gives its memory back when it has grown beyond this.
const BUFFER_BYTES_KEPT: usize = 2 * READ_BYTES_MAX;

/// Why a connection ended, other than by the client or by a stop.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("what arrived is no remoting frame: {0}")]
    Malformed(#[from] DecodeError),
    #[error(transparent)]
    Socket(#[from] std::io::Error),
    #[error("the client did not read its answers for {0:?}")]
    SlowReader(Duration),
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// What a connection is made of.
pub(crate) struct Connection<T> {
    pub(crate) role: Role,
    pub(crate) services: Arc<Services>,
    pub(crate) channel: Arc<RemotingChannel>,
    pub(crate) outbound: OutboundQueue,
    pub(crate) stream: T,
    pub(crate) stop: Stop,
}

/// Serves a connection until either side closes it, the broker stops, or it breaks a bound.
pub(crate) async fn serve<T: Transport>(connection: Connection<T>) {
    let channel = Arc::clone(&connection.channel);
    let services = Arc::clone(&connection.services);
    let departure = Departure { channel: Arc::clone(&channel), services: Arc::clone(&services) };
    let ended = Session::new(connection).run().await;
    drop(departure);
    match ended {
        Ok(()) => tracing::debug!(client = %channel.remote(), "connection closed"),
        Err(Ended::Malformed(error)) => {
            services.metrics.malformed_frames.add(1);
            tracing::warn!(client = %channel.remote(), %error, "connection closed: no remoting frame");
        }
        Err(Ended::SlowReader(after)) => {
            services.metrics.slow_clients_closed.add(1);
            tracing::warn!(client = %channel.remote(), ?after, "connection closed: the client does not read");
        }
        Err(error) => tracing::debug!(client = %channel.remote(), %error, "connection ended"),
    }
}

/// Takes the connection off everything that knows it, however it ends: also by a panic, which must not leave a member
/// behind that nobody can reach.
struct Departure {
    channel: Arc<RemotingChannel>,
    services: Arc<Services>,
}

impl Drop for Departure {
    fn drop(&mut self) {
        let id = self.channel.id();
        self.channel.close();
        self.services.clients.channel_closed(id);
        self.services.long_polls.channel_closed(id);
    }
}

/// Makes groups and topics exist; returns when all of them are durable.
///
/// # Errors
/// The answer to whoever needed them.
async fn create(
    services: &Services,
    groups: Vec<GroupName>,
    topics: Vec<TopicToCreate>,
) -> Result<(), RemotingCommand> {
    for group in groups {
        let created = services.groups.create(services.now(), &group).await;
        created.map_err(|error| response::group_refusal(&group, &error))?;
        // the reactor's other connections do not wait for all of them
        tokio::task::yield_now().await;
    }
    for topic in topics {
        let created = services.topics.create(services.now(), &topic).await;
        created.map_err(|error| response::topic_refusal(&topic.name, &error))?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

struct Session<T> {
    role: Role,
    services: Arc<Services>,
    channel: Arc<RemotingChannel>,
    outbound: OutboundQueue,
    stream: T,
    stop: Stop,
    waiter: LimitWaiter,
    input: BytesMut,
    out: BytesMut,
    read_bytes: usize,
    batch: Batch,
    replies: Vec<PendingReply>,
    /// The time of the present turn.
    now: Timestamp,
    /// When the present turn began, on a clock that nobody sets.
    began: Instant,
    /// Its sends to topics that tell repeats.
    own_sends: OwnSends,
    /// Earlier sends that the present request is known not to repeat.
    judged: Vec<PhysicalOffset>,
    /// Another connection wants to know whether this one lives: to be answered after one more look at the socket.
    knocked: Option<u64>,
}

/// What the session waits for between turns.
enum Wake {
    Stopped,
    Read(usize),
    Outbound(bytes::Bytes),
    Knocked(u64),
    Looked,
    IdleCheck,
}

impl<T: Transport> Session<T> {
    fn new(connection: Connection<T>) -> Self {
        let Connection { role, services, channel, outbound, stream, stop } = connection;
        Self {
            waiter: services.appender.waiter(),
            own_sends: OwnSends::new(channel.id().0, services.store.first_sends(), &services.senders),
            judged: Vec::new(),
            knocked: None,
            began: Instant::now(),
            role,
            services,
            channel,
            outbound,
            stream,
            stop,
            input: BytesMut::new(),
            out: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            batch: Batch::default(),
            replies: Vec::new(),
            now: Timestamp::ZERO,
        }
    }

    async fn run(&mut self) -> Result<(), Ended> {
        let idle_timeout = self.services.config.limits.idle_timeout;
        let mut last_read = Instant::now();
        let idle = tokio::time::sleep(idle_timeout);
        tokio::pin!(idle);
        loop {
            match self.wake(idle.as_mut()).await? {
                Wake::Stopped | Wake::Read(0) => return Ok(()),
                Wake::Read(bytes) => {
                    last_read = Instant::now();
                    self.own_sends.heard();
                    self.adapt_read_size(bytes);
                    self.take_turns().await?;
                }
                Wake::Outbound(frame) => self.write_outbound(frame).await?,
                Wake::Knocked(knock) => {
                    self.knocked = Some(knock);
                    // the runtime asks the system about its sockets before this task goes on
                    tokio::task::yield_now().await;
                }
                Wake::Looked => {
                    if let Some(knock) = self.knocked.take() {
                        self.own_sends.answer_knock(knock);
                    }
                }
                // one timer for the connection's life: it is moved only when it fires
                Wake::IdleCheck => {
                    let deadline = last_read + idle_timeout;
                    if Instant::now() >= deadline {
                        return Ok(());
                    }
                    idle.as_mut().reset(deadline);
                }
            }
        }
    }

    async fn wake(&mut self, idle: std::pin::Pin<&mut Sleep>) -> Result<Wake, Ended> {
        self.input.reserve(self.read_bytes);
        tokio::select! {
            biased;
            () = self.stop.stopped() => Ok(Wake::Stopped),
            () = self.channel.closing() => Ok(Wake::Stopped),
            Some(frame) = self.outbound.next() => Ok(Wake::Outbound(frame)),
            read = self.stream.read_buf(&mut self.input) => Ok(Wake::Read(read?)),
            () = std::future::ready(()), if self.knocked.is_some() => Ok(Wake::Looked),
            knock = self.own_sends.knocked() => Ok(Wake::Knocked(knock)),
            () = idle => Ok(Wake::IdleCheck),
        }
    }

    /// Busy connections read more at once; quiet ones hold little memory.
    fn adapt_read_size(&mut self, read: usize) {
        if read >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if read < self.read_bytes / 16 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
    }

    /// Serves all complete frames of the input, in as many turns as their size calls for.
    async fn take_turns(&mut self) -> Result<(), Ended> {
        let frame_bytes_max =
            usize::try_from(self.services.config.limits.frame_size.as_u64()).unwrap_or(usize::MAX);
        let mut carried = None;
        loop {
            self.now = self.services.now();
            self.began = Instant::now();
            let mut request_bytes = 0;
            let mut reply_bytes = 0;
            let mut more = false;
            while let Some(frame) = match carried.take() {
                Some(frame) => Some(frame),
                None => frame::split(&mut self.input, frame_bytes_max)?,
            } {
                let bytes = frame.header.len() + frame.body.len();
                if request_bytes > 0 && request_bytes + bytes > TURN_BYTES_MAX
                    || reply_bytes > TURN_REPLY_BYTES_MAX
                {
                    carried = Some(frame);
                    more = true;
                    break;
                }
                request_bytes += bytes;
                self.translate(&frame).await?;
                if let Some(PendingReply::Ready(_, command)) = self.replies.last() {
                    reply_bytes += command.body.len();
                }
            }
            self.finish_turn().await?;
            if !more {
                break;
            }
        }
        if self.input.is_empty() && self.input.capacity() > BUFFER_BYTES_KEPT {
            self.input = BytesMut::new();
        }
        Ok(())
    }

    /// Hands one frame to its handler, creating topics and groups first where the handler asks for them.
    async fn translate(&mut self, frame: &Frame) -> Result<(), Ended> {
        self.judged.clear();
        let mut step = self.translate_now(frame, true)?;
        for _ in 0..CREATIONS_MAX {
            let (groups, topics) = match step {
                Step::Done => return Ok(()),
                Step::CreateTopic(topic) => (Vec::new(), vec![topic]),
                Step::CreateGroup(group) => (vec![group], Vec::new()),
                Step::CreateAll(groups, topics) => (groups, topics),
                Step::Settle(candidate) => {
                    if let Verdict::Repeat(answers) = self.settle(&candidate).await? {
                        return self.repeat(frame, *candidate, answers);
                    }
                    // it gave up before its send was served, and the retry has overtaken it
                    if self.client_has_left().await? {
                        return Ok(());
                    }
                    self.judged.extend(candidate.firsts.iter().map(|(.., first)| first.position));
                    step = self.translate_now(frame, false)?;
                    continue;
                }
            };
            if let Err(refusal) = create(&self.services, groups, topics).await {
                return self.refuse(frame, refusal);
            }
            step = self.translate_now(frame, false)?;
        }
        match step {
            Step::Done => Ok(()),
            _ => self.refuse(frame, response::keeps_vanishing()),
        }
    }

    /// Whether a send is a repeat. May wait for another connection's look at its socket, which may wait for this one's:
    /// so it is answered meanwhile. A client whose request is being served lives.
    async fn settle(&mut self, candidate: &Candidate) -> Result<Verdict, AppendError> {
        let settling = dedup::settle(&self.services, &mut self.waiter, candidate);
        tokio::pin!(settling);
        loop {
            tokio::select! {
                biased;
                verdict = &mut settling => return verdict,
                knock = self.own_sends.knocked() => self.own_sends.answer_knock(knock),
            }
        }
    }

    /// Whether the client has closed its end by now; what it sent before that is kept.
    async fn client_has_left(&mut self) -> Result<bool, Ended> {
        // the runtime asks the system about its sockets before this task goes on
        tokio::task::yield_now().await;
        self.input.reserve(READ_BYTES_MIN);
        match self.stream.try_read(&mut self.input) {
            Ok(read) => Ok(read == 0),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Answers a repeat as the first one was answered.
    fn repeat(
        &mut self,
        frame: &Frame,
        candidate: Candidate,
        answers: Vec<FirstAnswer>,
    ) -> Result<(), Ended> {
        let header = HeaderView::parse(frame)?;
        let to = Request { header: &header, frame }.reply_to();
        self.services.metrics.sends_deduplicated.add(answers.len() as u64);
        if let Some(first) = answers.first().filter(|_| to.wanted) {
            // an answer that comes too late is one that may be lost, as before
            if self.began.elapsed() < self.services.config.dedup.answer_timeout {
                for (key, _, first) in &candidate.firsts {
                    self.own_sends.answers_again(*key, first.position);
                }
            }
            let transaction_id = candidate.unique_key;
            let reply = SendReply { to, operations: 0..0, queue: first.queue, transaction_id, keys: None };
            let results = answers.into_iter().map(|answer| answer.result).collect();
            self.replies.push(PendingReply::Repeated(reply, results));
        }
        Ok(())
    }

    /// Sends of this turn that were stored under a guard.
    fn guarded(&self) -> Vec<(SendKey, PhysicalOffset)> {
        let results = self.batch.results();
        let sends = self.replies.iter().filter_map(|reply| match reply {
            PendingReply::Send(reply) => Some((reply, results.get(reply.operations.clone())?)),
            _ => None,
        });
        sends.flat_map(|(reply, results)| reply.guarded(results)).collect()
    }

    fn translate_now(&mut self, frame: &Frame, first: bool) -> Result<Step, Ended> {
        let header = HeaderView::parse(frame)?;
        if first {
            self.channel.saw_request(frame.encoding);
        }
        // nothing that is sent to clients expects a response
        if header.is_response() {
            return Ok(Step::Done);
        }
        let mut turn = Turn {
            services: &self.services,
            channel: &self.channel,
            sender: self.own_sends.id(),
            judged: &self.judged,
            now: self.now,
            batch: &mut self.batch,
            replies: &mut self.replies,
        };
        Ok(dispatch::dispatch(self.role, &mut turn, &Request { header: &header, frame }))
    }

    fn refuse(&mut self, frame: &Frame, refusal: RemotingCommand) -> Result<(), Ended> {
        let header = HeaderView::parse(frame)?;
        let to = Request { header: &header, frame }.reply_to();
        if to.wanted {
            self.replies.push(PendingReply::Ready(to, refusal));
        }
        Ok(())
    }

    /// Appends what the turn collected, waits where an answer needs it, and answers in request order.
    async fn finish_turn(&mut self) -> Result<(), Ended> {
        let mut refused = None;
        if !self.batch.is_empty() {
            let is_guarded =
                |reply: &PendingReply| matches!(reply, PendingReply::Send(reply) if reply.keys.is_some());
            let guards = self.replies.iter().any(is_guarded);
            if guards {
                self.own_sends.open_door();
            }
            match self.services.store.append(self.services.now(), &mut self.batch) {
                Ok(end) => {
                    let guarded = if guards { self.guarded() } else { Vec::new() };
                    for (key, position) in &guarded {
                        self.own_sends.appended(*key, *position);
                    }
                    if self.replies.iter().any(|reply| !matches!(reply, PendingReply::Ready(..))) {
                        self.waiter.wait_for(end).await?;
                    } else if self.services.store.limit() < end {
                        // one-way requests alone: nobody waits, but they must not stay behind for long
                        self.services.store.request_sync();
                    }
                    if guards && self.began.elapsed() >= self.services.config.dedup.answer_timeout {
                        // too late: the client may have given up waiting
                        self.own_sends.lose(guarded);
                    }
                }
                Err(error) => refused = Some(error),
            }
        }
        for reply in self.replies.drain(..) {
            let results = self.batch.results();
            match (reply, &refused) {
                (PendingReply::Ready(to, command), _) => response::write(&mut self.out, to, command),
                (PendingReply::Send(reply), None) => {
                    let results = results.get(reply.operations.clone()).unwrap_or_default();
                    if !send_message::encode_reply(&mut self.out, &reply, results, &self.services) {
                        // refused as a whole: the client may send all of it again
                        self.own_sends.lose(reply.guarded(results));
                    }
                }
                (PendingReply::Repeated(reply, results), _) => {
                    send_message::encode_reply(&mut self.out, &reply, &results, &self.services);
                }
                (PendingReply::AfterAppend { to, operations, finish }, None) => {
                    let command = finish(results.get(operations).unwrap_or_default());
                    response::write(&mut self.out, to, command);
                }
                (PendingReply::Send(SendReply { to, .. }), Some(error))
                | (PendingReply::AfterAppend { to, .. }, Some(error)) => {
                    response::write(&mut self.out, to, response::storage_refusal(error));
                }
            }
        }
        self.batch.clear();
        self.write().await
    }

    /// Writes a frame from the outbound queue and those that wait behind it, as one write where they are small.
    async fn write_outbound(&mut self, frame: bytes::Bytes) -> Result<(), Ended> {
        self.out.extend_from_slice(&frame);
        while self.out.len() < TURN_REPLY_BYTES_MAX {
            let Some(frame) = self.outbound.try_next() else { break };
            self.out.extend_from_slice(&frame);
        }
        self.write().await
    }

    async fn write(&mut self) -> Result<(), Ended> {
        if self.out.is_empty() {
            return Ok(());
        }
        // most answers fit the socket's buffer: no timer then
        let written = match self.stream.try_write(&self.out) {
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        let rest = self.out.get(written..).unwrap_or_default();
        if !rest.is_empty() {
            let patience = self.services.config.limits.write_timeout;
            tokio::time::timeout(patience, self.stream.write_all(rest))
                .await
                .map_err(|_| Ended::SlowReader(patience))??;
        }
        self.out.clear();
        if self.out.capacity() > BUFFER_BYTES_KEPT {
            self.out = BytesMut::new();
        }
        Ok(())
    }
}
