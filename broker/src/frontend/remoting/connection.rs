//! One connection from first byte to last: read what has arrived, translate every complete frame into one turn, append
//! once, wait once, answer with one write. While it waits for the disk it reads no more, so a group of requests forms
//! in the socket. Only this task writes to the socket.
//!
//! What it may hold: one read's bytes and one request's, in full, each within its bound; two turns' answers. What of this
//! goes beyond a small part is counted as in flight with that of all connections, and a request that would be too much is
//! answered as busy as soon as its header is there, its body dropped as it comes. A connection on which nothing happens
//! gives all its buffers back.

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, BytesMut};
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
use mezzo_storage::{Batch, FirstAnswer};
use tokio::{
    io::AsyncReadExt as _,
    time::{Instant, Sleep},
};

use super::{
    complaint, dispatch,
    outbound::{OutboundQueue, RemotingChannel},
    overload::{self, UNCOUNTED_BYTES},
    parting, response,
    transport::Transport,
    turn::{PendingReply, Request, Role, SendReply, Step, Turn},
};
use crate::metrics::Lane;
use crate::service::{
    Services,
    append::{AppendError, LimitWaiter},
    client_channel::ClientChannel,
    dedup::{self, Candidate, OwnSends, Verdict},
    in_flight::Share,
    stop::Stop,
    topic::TopicToCreate,
};

mod answers;

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
/// A connection from which nothing came for so long gives its buffers back.
const QUIET_AFTER: Duration = Duration::from_secs(10);

/// Why a connection ended, other than by the client or by a stop.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("what arrived is no remoting frame: {0}")]
    Malformed(#[from] DecodeError),
    #[error(transparent)]
    Socket(#[from] std::io::Error),
    #[error("the client did not read its answers for {0:?}")]
    SlowReader(Duration),
    #[error("a request began and did not arrive in full within {0:?}")]
    SlowFrame(Duration),
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
    let mut session = Session::new(connection);
    let ended = session.run().await;
    let (metrics, client) = (&services.metrics, channel.remote());
    match ended {
        Ok(()) => tracing::debug!(%client, "connection closed"),
        Err(Ended::Malformed(error)) => complaint::malformed(metrics, client, &session.input, &error),
        Err(Ended::SlowReader(waited)) => complaint::does_not_read(metrics, client, waited),
        Err(Ended::SlowFrame(waited)) => complaint::slow_frame(metrics, client, waited),
        Err(error) => tracing::debug!(%client, %error, "connection ended"),
    }
    drop(session);
    drop(departure);
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
        self.services.metrics.connections_ended.add(1);
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
    /// What of both is counted as in flight.
    in_flight: Share,
    /// Bytes still to come of a request that was refused before it was there in full.
    refused_bytes: usize,
    /// When the request began of which only a part is there.
    frame_began: Option<Instant>,
    /// When something was read last.
    last_read: Instant,
    /// Nothing came for a while: no buffers are held until something does.
    quiet: bool,
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
    Closed,
    Readable,
    Read(usize),
    Outbound(bytes::Bytes),
    Knocked(u64),
    Looked,
    Tick,
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
            in_flight: services.in_flight.share(),
            refused_bytes: 0,
            frame_began: None,
            last_read: Instant::now(),
            quiet: false,
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
        let limits = &self.services.config.limits;
        let tick = QUIET_AFTER.min(limits.idle_timeout).min(limits.frame_timeout);
        let timer = tokio::time::sleep(tick);
        tokio::pin!(timer);
        loop {
            match self.wake(timer.as_mut()).await? {
                Wake::Stopped => return self.part().await,
                Wake::Closed | Wake::Read(0) => return Ok(()),
                Wake::Readable => {
                    self.quiet = false;
                    timer.as_mut().reset(Instant::now() + tick);
                }
                Wake::Read(bytes) => {
                    self.lane().bytes_read.add(bytes as u64);
                    self.own_sends.heard();
                    self.adapt_read_size(bytes);
                    self.take_input().await?;
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
                // one timer for the connection's life: it is moved only when it fires and when a quiet time ends
                Wake::Tick => match self.next_tick(tick)? {
                    Some(next) => timer.as_mut().reset(next),
                    None => return Ok(()),
                },
            }
        }
    }

    /// Looks at the time: gives buffers back that are not used, and says when to look again; `None` when the connection
    /// has been idle for as long as it may.
    fn next_tick(&mut self, tick: Duration) -> Result<Option<Instant>, Ended> {
        let limits = &self.services.config.limits;
        let now = Instant::now();
        if let Some(began) = self.frame_began
            && now >= began + limits.frame_timeout
        {
            return Err(Ended::SlowFrame(limits.frame_timeout));
        }
        let idle_at = self.last_read + limits.idle_timeout;
        if now >= idle_at {
            return Ok(None);
        }
        if self.frame_began.is_some() || now < self.last_read + QUIET_AFTER {
            return Ok(Some(idle_at.min(now + tick)));
        }
        self.quiet = true;
        self.give_input_back();
        self.out = BytesMut::new();
        self.batch = Batch::default();
        self.replies = Vec::new();
        self.judged = Vec::new();
        Ok(Some(idle_at))
    }

    async fn wake(&mut self, timer: std::pin::Pin<&mut Sleep>) -> Result<Wake, Ended> {
        let (stream, input, quiet) = (&mut self.stream, &mut self.input, self.quiet);
        if !quiet {
            input.reserve(self.read_bytes);
        }
        let reading = async {
            if quiet {
                stream.ready_to_read().await.map(|()| Wake::Readable)
            } else {
                stream.read_buf(input).await.map(Wake::Read)
            }
        };
        tokio::select! {
            biased;
            () = self.stop.stopped() => Ok(Wake::Stopped),
            () = self.channel.closing() => Ok(Wake::Closed),
            Some(frame) = self.outbound.next() => Ok(Wake::Outbound(frame)),
            read = reading => Ok(read?),
            () = std::future::ready(()), if self.knocked.is_some() => Ok(Wake::Looked),
            knock = self.own_sends.knocked() => Ok(Wake::Knocked(knock)),
            () = timer => Ok(Wake::Tick),
        }
    }

    /// The broker stops: writes the answers that are decided, waits for those that are being worked on, and closes. The
    /// reactor bounds this by `limits.stop_timeout`.
    async fn part(&mut self) -> Result<(), Ended> {
        let recent = self.last_read.elapsed() < parting::RECENT;
        let mut wrote = false;
        while let Some(frame) = self.outbound.last().await {
            wrote = true;
            self.write_outbound(frame).await?;
        }
        if recent || wrote {
            parting::close(&mut self.stream).await;
        }
        Ok(())
    }

    /// Serves what has been read, and judges what is left of a request that is not there in full.
    async fn take_input(&mut self) -> Result<(), Ended> {
        let dropped = self.refused_bytes.min(self.input.len());
        self.input.advance(dropped);
        self.refused_bytes -= dropped;
        self.in_flight.set(self.input.len().saturating_sub(UNCOUNTED_BYTES));
        let before = self.input.len();
        self.take_turns().await?;
        let any_complete = self.input.len() < before;
        if self.input.len() > UNCOUNTED_BYTES && self.in_flight.is_exhausted() {
            self.refuse_begun().await?;
        }
        if self.input.is_empty() && self.in_flight.is_exhausted() {
            self.give_input_back();
        }
        self.in_flight.set(self.input.len().saturating_sub(UNCOUNTED_BYTES));
        // now, not before its turns: they may have waited for the disk
        self.last_read = Instant::now();
        let partial = !self.input.is_empty() || self.refused_bytes > 0;
        self.frame_began = match self.frame_began.filter(|_| !any_complete) {
            began @ Some(_) if partial => began,
            _ => partial.then_some(self.last_read),
        };
        Ok(())
    }

    /// Answers a request as busy whose header is there and whose body is not, and drops the body.
    async fn refuse_begun(&mut self) -> Result<(), Ended> {
        let frame_bytes_max = self.frame_bytes_max();
        let Some((frame, missing)) = frame::split_begun(&mut self.input, frame_bytes_max)? else {
            return Ok(());
        };
        self.refused_bytes = missing;
        if self.input.is_empty() {
            self.give_input_back();
        }
        self.refuse(&frame, overload::unread(&self.services))?;
        self.finish_turn().await
    }

    /// Gives back the buffer of an input that is empty.
    fn give_input_back(&mut self) {
        self.input = BytesMut::new();
        self.read_bytes = READ_BYTES_MIN;
    }

    fn frame_bytes_max(&self) -> usize {
        usize::try_from(self.services.config.limits.frame_size.as_u64()).unwrap_or(usize::MAX)
    }

    fn lane(&self) -> &Lane {
        self.services.metrics.lane(self.channel.id().0)
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
        let frame_bytes_max = self.frame_bytes_max();
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
}
