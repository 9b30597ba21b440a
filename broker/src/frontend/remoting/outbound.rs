//! The sending side of one connection as others see it: a bounded queue of encoded frames, written by the connection's
//! own task. Held pulls answer through it, and codes 39 and 40 reach clients through it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use mezzo_protocol::{
    ids::GroupName,
    remoting::{command::RemotingCommand, frame::HeaderEncoding, request_code::RequestCode},
};
use tokio::sync::{Notify, mpsc};

use super::{check_transaction, complaint, response, turn::ReplyTo};
use crate::{
    metrics::Metrics,
    service::{
        client_channel::{ChannelId, ClientChannel, DecisionAsk, PushRefused},
        in_flight::Share,
    },
};

/// Bounds of one connection's outbound queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutboundBounds {
    /// Frames that may wait (`limits.outbound_frames`).
    pub(crate) frames: usize,
    /// Bytes that may wait (`limits.outbound_bytes`); one frame may exceed it when nothing else waits.
    pub(crate) bytes: usize,
    /// Requests that may be held open at once: long polls and reads on another thread (`limits.held_pulls_per_connection`).
    pub(crate) held: usize,
    /// Producer groups that the connection may speak for (`limits.groups_per_connection`).
    pub(crate) groups: usize,
}

/// One remoting connection, shared by its task, the registry and whoever holds one of its pulls.
pub(crate) struct RemotingChannel {
    id: ChannelId,
    remote: SocketAddr,
    bounds: OutboundBounds,
    queue: mpsc::Sender<Bytes>,
    queued_bytes: AtomicUsize,
    /// The same bytes, counted with those of all connections.
    in_flight: Share,
    held: AtomicUsize,
    /// How many of the held requests are being worked on: each will be answered soon.
    working: AtomicUsize,
    /// No request is being worked on any more.
    work_done: Notify,
    /// 1 once the client has sent a binary header: what we send unasked uses the same.
    binary: AtomicU8,
    /// Frames put into the queue so far.
    pushed: AtomicU64,
    /// Frames taken out of it, to be written before anything more is read.
    taken: AtomicU64,
    /// How many were written when the client's latest frame was read.
    heard_after: AtomicU64,
    /// Producer groups seen in requests of this connection: keeps sends away from the registry's lock.
    producer_groups: Mutex<Vec<GroupName>>,
    open: AtomicBool,
    close: Notify,
    metrics: Arc<Metrics>,
}

/// The receiving end of a channel's queue, owned by the connection's task.
pub(crate) struct OutboundQueue {
    frames: mpsc::Receiver<Bytes>,
    channel: Arc<RemotingChannel>,
}

/// Makes the channel of a new connection and the queue that its task drains.
pub(crate) fn channel(
    id: ChannelId,
    remote: SocketAddr,
    bounds: OutboundBounds,
    metrics: Arc<Metrics>,
    in_flight: Share,
) -> (Arc<RemotingChannel>, OutboundQueue) {
    let (queue, frames) = mpsc::channel(bounds.frames.max(1));
    let channel = Arc::new(RemotingChannel {
        id,
        remote,
        bounds,
        queue,
        queued_bytes: AtomicUsize::new(0),
        in_flight,
        held: AtomicUsize::new(0),
        working: AtomicUsize::new(0),
        work_done: Notify::new(),
        binary: AtomicU8::new(0),
        pushed: AtomicU64::new(0),
        taken: AtomicU64::new(0),
        heard_after: AtomicU64::new(0),
        producer_groups: Mutex::new(Vec::new()),
        open: AtomicBool::new(true),
        close: Notify::new(),
        metrics,
    });
    (Arc::clone(&channel), OutboundQueue { frames, channel })
}

impl RemotingChannel {
    /// Answers a request after its turn is over. A client that does not read its answers is disconnected: it could not
    /// tell a lost answer from a slow one.
    ///
    /// # Errors
    /// [`PushRefused`]: the connection is, or is being, closed.
    pub(crate) fn push_reply(&self, to: ReplyTo, command: RemotingCommand) -> Result<(), PushRefused> {
        if !to.wanted {
            return Ok(());
        }
        let mut frame = BytesMut::new();
        response::write(&mut frame, to, command, &self.metrics);
        let pushed = self.push(frame);
        if pushed == Err(PushRefused::Full) {
            complaint::too_many_answers(&self.metrics, self.remote);
            self.close();
        }
        pushed.map(|_| ())
    }

    /// Sends a one-way request; gives its number among what is sent this way. When the queue is full it is dropped and
    /// counted; the connection stays.
    ///
    /// # Errors
    /// [`PushRefused`]: it was not sent.
    pub(crate) fn push_oneway(&self, command: &RemotingCommand) -> Result<u64, PushRefused> {
        let encoding = if self.binary.load(Ordering::Relaxed) == 1 {
            HeaderEncoding::Binary
        } else {
            HeaderEncoding::Json
        };
        let mut frame = BytesMut::new();
        if let Err(error) = command.encode(encoding, &mut frame) {
            tracing::error!(code = command.code, %error, "a request to a client cannot be written");
            self.metrics.pushes_dropped.add(1);
            return Err(PushRefused::Unwritable);
        }
        let pushed = self.push(frame);
        if pushed == Err(PushRefused::Full) {
            self.metrics.pushes_dropped.add(1);
        }
        pushed
    }

    /// Gives the frame's number among those put into the queue, or a higher one if others push at the same time.
    fn push(&self, frame: BytesMut) -> Result<u64, PushRefused> {
        if !self.is_open() {
            return Err(PushRefused::Closed);
        }
        let len = frame.len();
        let before = self.queued_bytes.fetch_add(len, Ordering::Relaxed);
        if before > 0 && before.saturating_add(len) > self.bounds.bytes {
            self.queued_bytes.fetch_sub(len, Ordering::Relaxed);
            return Err(PushRefused::Full);
        }
        self.in_flight.add(len);
        // counted before it is sent and read after: never lower than its place in the queue
        self.pushed.fetch_add(1, Ordering::AcqRel);
        match self.queue.try_send(frame.freeze()) {
            Ok(()) => Ok(self.pushed.load(Ordering::Acquire)),
            Err(refused) => {
                self.pushed.fetch_sub(1, Ordering::AcqRel);
                self.queued_bytes.fetch_sub(len, Ordering::Relaxed);
                self.in_flight.give_back(len);
                Err(match refused {
                    mpsc::error::TrySendError::Full(_) => PushRefused::Full,
                    mpsc::error::TrySendError::Closed(_) => PushRefused::Closed,
                })
            }
        }
    }

    /// Counts messages that an answer to a pull carries.
    pub(crate) fn delivers(&self, messages: u64, bytes: usize) {
        if messages > 0 {
            let lane = self.metrics.lane(self.id.0);
            lane.messages_out.add(messages);
            lane.message_bytes_out.add(bytes as u64);
        }
    }

    /// The client's end of the connection.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// A frame of the client has been read: remembers which headers it reads, and what it had been sent before.
    pub(crate) fn saw_request(&self, encoding: HeaderEncoding) {
        self.binary.store(u8::from(encoding == HeaderEncoding::Binary), Ordering::Relaxed);
        self.heard_after.store(self.taken.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// True the first time that this connection names `group` as its producer group; the caller then registers it.
    pub(crate) fn is_new_producer_group(&self, group: &GroupName) -> bool {
        let mut known = self.producer_groups.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !known.contains(group) && known.len() < self.bounds.groups;
        if new {
            known.push(group.clone());
        }
        new
    }

    /// Whether this connection has named `group` as its producer group already.
    pub(crate) fn knows_producer_group(&self, group: &str) -> bool {
        let known = self.producer_groups.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().any(|known| known.as_str() == group)
    }

    /// Forgets a producer group that the client has left.
    pub(crate) fn forget_producer_group(&self, group: &GroupName) {
        self.producer_groups.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known != group);
    }

    /// Whether a further answer may be made for this client now: less than half of its outbound bounds wait, and not too
    /// much is in flight over all clients. Whoever answers many held pulls asks first and comes back later, so that a
    /// client that reads is never cut off.
    pub(crate) fn has_room(&self) -> bool {
        !self.in_flight.is_exhausted()
            && self.queued_bytes.load(Ordering::Relaxed) < self.bounds.bytes.div_ceil(2)
            && self.queue.capacity() > self.bounds.frames / 2
    }

    /// Takes one of the places for requests that are answered after their turn; `None` when all are taken. The place is
    /// free again when the returned value is dropped.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<Held> {
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                (held < self.bounds.held).then_some(held + 1)
            })
            .ok()
            .map(|_| Held { channel: Arc::clone(self), is_work: false })
    }

    /// As [`Self::hold`], for a request that is carried out at once elsewhere: a broker that stops waits for its answer.
    pub(crate) fn hold_for_work(self: &Arc<Self>) -> Option<Held> {
        let mut held = self.hold()?;
        held.is_work = true;
        self.working.fetch_add(1, Ordering::AcqRel);
        Some(held)
    }

    /// Makes the connection's task end; what is queued is not written any more.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
        self.close.notify_one();
    }

    /// Returns when [`Self::close`] is called. Only the connection's task waits here.
    pub(crate) async fn closing(&self) {
        while self.is_open() {
            self.close.notified().await;
        }
    }
}

/// A place for a request that is answered after its turn.
pub(crate) struct Held {
    channel: Arc<RemotingChannel>,
    is_work: bool,
}

impl Held {
    /// The connection it belongs to.
    pub(crate) fn channel(&self) -> &Arc<RemotingChannel> {
        &self.channel
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.channel.held.fetch_sub(1, Ordering::Relaxed);
        if self.is_work && self.channel.working.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.channel.work_done.notify_one();
        }
    }
}

impl ClientChannel for RemotingChannel {
    fn id(&self) -> ChannelId {
        self.id
    }

    fn remote(&self) -> SocketAddr {
        self.remote
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    fn heard_after(&self) -> u64 {
        self.heard_after.load(Ordering::Relaxed)
    }

    fn notify_members_changed(&self, group: &GroupName) -> Result<(), PushRefused> {
        let ext = vec![("consumerGroup".into(), group.as_str().to_owned())];
        let command = RemotingCommand::request(RequestCode::NOTIFY_CONSUMER_IDS_CHANGED, ext, Bytes::new());
        self.push_oneway(&command.oneway()).map(|_| ())
    }

    fn ask_decision(&self, ask: &DecisionAsk) -> Result<u64, PushRefused> {
        self.push_oneway(&check_transaction::request(ask))
    }
}

impl OutboundQueue {
    /// The next frame to write; waits for one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let frame = self.frames.recv().await;
        self.took(frame)
    }

    /// The next frame if one waits already.
    pub(crate) fn try_next(&mut self) -> Option<Bytes> {
        let frame = self.frames.try_recv().ok();
        self.took(frame)
    }

    /// The next frame of those that are there or are being worked on; `None` when there will be no more of them. For a
    /// broker that stops: pulls that wait for messages are not waited for.
    pub(crate) async fn last(&mut self) -> Option<Bytes> {
        loop {
            if !self.channel.is_open() {
                return None;
            }
            // asked first: work that is done has pushed its answer before
            let working = self.channel.working.load(Ordering::Acquire) > 0;
            if let Some(frame) = self.try_next() {
                return Some(frame);
            }
            if !working {
                return None;
            }
            tokio::select! {
                biased;
                frame = self.frames.recv() => return self.took(frame),
                () = self.channel.work_done.notified() => {}
            }
        }
    }

    fn took(&self, frame: Option<Bytes>) -> Option<Bytes> {
        if let Some(frame) = &frame {
            self.channel.queued_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
            self.channel.in_flight.give_back(frame.len());
            self.channel.taken.fetch_add(1, Ordering::Relaxed);
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;
    use mezzo_protocol::{ids::Opaque, remoting::response_code::ResponseCode};

    use super::*;
    use crate::service::in_flight::InFlight;

    fn made(frames: usize, bytes: usize) -> (Arc<RemotingChannel>, OutboundQueue) {
        let bounds = OutboundBounds { frames, bytes, held: 2, groups: 2 };
        let in_flight = InFlight::new(ByteSize::kib(8));
        channel(ChannelId(1), ([127, 0, 0, 1], 1).into(), bounds, Arc::default(), in_flight.share())
    }

    fn group(name: &str) -> GroupName {
        GroupName::new(name).unwrap()
    }

    fn answer(channel: &RemotingChannel, body: usize) -> Result<(), PushRefused> {
        let to = ReplyTo { opaque: Opaque(7), encoding: HeaderEncoding::Json, wanted: true };
        channel.push_reply(to, RemotingCommand::response(0, ResponseCode::SUCCESS).with_body(vec![0; body]))
    }

    #[test]
    fn an_answer_that_does_not_fit_closes_the_connection() {
        let (channel, _queue) = made(1, 1 << 20);
        assert_eq!(answer(&channel, 0), Ok(()));
        assert_eq!(answer(&channel, 0), Err(PushRefused::Full));
        assert!(!channel.is_open());
        assert_eq!(answer(&channel, 0), Err(PushRefused::Closed));
        assert_eq!(channel.metrics.slow_clients_closed.value(), 1);
    }

    #[test]
    fn a_notice_that_does_not_fit_is_dropped_and_counted() {
        let (channel, mut queue) = made(1, 1 << 20);
        assert_eq!(channel.notify_members_changed(&group("g")), Ok(()));
        assert_eq!(channel.notify_members_changed(&group("g")), Err(PushRefused::Full));
        assert!(channel.is_open());
        assert_eq!(channel.metrics.pushes_dropped.value(), 1);
        assert!(queue.try_next().is_some());
        assert_eq!(channel.notify_members_changed(&group("g")), Ok(()), "a read frame makes room");
    }

    #[test]
    fn queued_bytes_are_bounded_but_one_large_answer_passes() {
        let (channel, mut queue) = made(10, 1_000);
        assert_eq!(answer(&channel, 5_000), Ok(()), "nothing else waits");
        assert!(!channel.has_room());
        assert_eq!(answer(&channel, 1), Err(PushRefused::Full));
        while queue.try_next().is_some() {}
        assert!(channel.has_room());
    }

    #[test]
    fn an_answer_carries_its_requests_opaque_and_a_oneway_request_gets_none() {
        let (channel, mut queue) = made(4, 1 << 20);
        answer(&channel, 0).unwrap();
        let frame = queue.try_next().unwrap();
        assert!(frame.windows(10).any(|part| part == b"\"opaque\":7"), "{frame:?}");
        let nobody = ReplyTo { opaque: Opaque(8), encoding: HeaderEncoding::Json, wanted: false };
        channel.push_reply(nobody, RemotingCommand::response(0, ResponseCode::SUCCESS)).unwrap();
        assert!(queue.try_next().is_none());
    }

    #[test]
    fn places_for_held_requests_are_bounded_and_come_back() {
        let (channel, _queue) = made(1, 1);
        let first = channel.hold().unwrap();
        let _second = channel.hold().unwrap();
        assert!(channel.hold().is_none());
        drop(first);
        assert!(channel.hold().is_some());
    }

    #[test]
    fn a_client_has_no_room_while_too_much_is_in_flight_over_all() {
        let (channel, mut queue) = made(10, 1 << 20);
        answer(&channel, 9_000).unwrap();
        assert!(!channel.has_room());
        while queue.try_next().is_some() {}
        assert!(channel.has_room());
    }

    #[tokio::test]
    async fn a_stop_waits_for_answers_that_are_worked_on_and_for_no_others() {
        let (channel, mut queue) = made(10, 1 << 20);
        let _long_poll = channel.hold().unwrap();
        let work = channel.hold_for_work().unwrap();
        answer(&channel, 1).unwrap();
        assert!(queue.last().await.is_some(), "it was there already");
        let worker = tokio::spawn(async move {
            tokio::task::yield_now().await;
            answer(work.channel(), 2).unwrap();
        });
        assert!(queue.last().await.is_some(), "it came while the stop waited");
        assert!(queue.last().await.is_none());
        worker.await.unwrap();
        let unanswered = channel.hold_for_work().unwrap();
        drop(unanswered);
        assert!(queue.last().await.is_none(), "work that ends without an answer is not waited for either");
    }

    #[test]
    fn a_producer_group_is_new_once_until_it_is_left() {
        let (channel, _queue) = made(1, 1);
        assert!(channel.is_new_producer_group(&group("p")));
        assert!(!channel.is_new_producer_group(&group("p")) && channel.knows_producer_group("p"));
        assert!(channel.is_new_producer_group(&group("q")));
        assert!(!channel.is_new_producer_group(&group("r")), "beyond the bound nothing is remembered");
        channel.forget_producer_group(&group("p"));
        assert!(channel.is_new_producer_group(&group("p")));
    }
}
