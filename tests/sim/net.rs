//! The simulated network. Bytes of one connection arrive in order, each piece after a delay of its own, so connections
//! overtake each other. A connection can be cut, cut on one side only, or go silent; what is in flight is lost then.
//!
//! ```text
//!   client ──up──►  in flight (one queue of all, by time) ──► arrived ──► broker's Transport
//!          ◄─down─                                                        a window bounds what it may write
//! ```

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mezzo_broker::server::Transport;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::trace::{Trace, note};

/// Bytes that a broker may have written and its client not yet read.
const WINDOW_BYTES: usize = 64 << 10;

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    arrived: BytesMut,
    in_flight: usize,
    /// When the last piece that is on its way arrives.
    last_at: Option<Instant>,
    /// No more will come, in order or by a reset.
    ended: Option<Ending>,
    /// What is written from now on, or is on its way, gets lost.
    lost: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Closed,
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// How a connection ends without either side wanting it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both sides are told.
    Reset,
    /// The broker is told; the client waits for ever.
    BrokerKnows,
    /// The client is told; the broker waits for ever.
    ClientKnows,
    /// Nobody is told.
    Silent,
}

/// A connection.
#[derive(Debug)]
pub struct Link {
    /// Its number.
    pub id: u64,
    up: Mutex<Pipe>,
    down: Mutex<Pipe>,
}

enum Delivery {
    Bytes(Bytes),
    End(Ending),
}

/// All connections and what is on its way.
pub struct Net {
    trace: Arc<Trace>,
    state: Mutex<State>,
    changed: Notify,
    /// Pieces carry long delays while this is set.
    slow: AtomicBool,
    sent: AtomicU64,
}

struct State {
    dice: Dice,
    links: BTreeMap<u64, Arc<Link>>,
    next_link: u64,
    in_flight: BTreeMap<(Instant, u64), (Arc<Link>, Direction, Delivery)>,
    next_piece: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    fn pipe(&self, direction: Direction) -> MutexGuard<'_, Pipe> {
        locked(match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        })
    }

    fn end(&self, direction: Direction, ending: Ending) {
        let mut pipe = self.pipe(direction);
        pipe.lost = true;
        pipe.ended.get_or_insert(ending);
        if ending == Ending::Reset {
            pipe.arrived.clear();
        }
        pipe.wake();
    }
}

impl Pipe {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn room(&self) -> usize {
        WINDOW_BYTES.saturating_sub(self.in_flight + self.arrived.len())
    }
}

impl Net {
    /// Without connections.
    pub fn new(dice: Dice, trace: Arc<Trace>) -> Arc<Self> {
        let state =
            State { dice, links: BTreeMap::new(), next_link: 1, in_flight: BTreeMap::new(), next_piece: 0 };
        Arc::new(Self {
            trace,
            state: Mutex::new(state),
            changed: Notify::new(),
            slow: AtomicBool::new(false),
            sent: AtomicU64::new(0),
        })
    }

    /// Lets what is on its way arrive, for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            let next = locked(&self.state).in_flight.first_key_value().map(|((at, _), _)| *at);
            match next {
                Some(at) if at <= Instant::now() => self.deliver_first(),
                Some(at) => tokio::select! {
                    biased;
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    fn deliver_first(&self) {
        let first = locked(&self.state).in_flight.pop_first();
        let Some((_, (link, direction, delivery))) = first else { return };
        match delivery {
            Delivery::Bytes(bytes) => {
                let mut pipe = link.pipe(direction);
                pipe.in_flight = pipe.in_flight.saturating_sub(bytes.len());
                if !pipe.lost {
                    note!(self.trace, "net {} {direction:?} {}", link.id, bytes.len());
                    pipe.arrived.extend_from_slice(&bytes);
                    pipe.wake();
                }
            }
            Delivery::End(ending) => {
                let lost = link.pipe(direction).lost;
                if !lost {
                    note!(self.trace, "net {} {direction:?} {ending:?}", link.id);
                    link.end(direction, ending);
                }
            }
        }
    }

    /// A new connection: the client's end and the broker's.
    pub fn connect(self: &Arc<Self>) -> (ClientEnd, BrokerEnd) {
        let mut state = locked(&self.state);
        let id = state.next_link;
        state.next_link += 1;
        let link = Arc::new(Link { id, up: Mutex::default(), down: Mutex::default() });
        state.links.insert(id, Arc::clone(&link));
        // those that both sides have left need not be cut any more
        state.links.retain(|_, link| Arc::strong_count(link) > 1);
        drop(state);
        let client = ClientEnd { net: Arc::clone(self), link: Arc::clone(&link) };
        let broker = BrokerEnd { net: Arc::clone(self), link, alive: Arc::new(AtomicBool::new(true)) };
        (client, broker)
    }

    fn send(&self, link: &Arc<Link>, direction: Direction, delivery: Delivery) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let mut state = locked(&self.state);
        let now = Instant::now();
        let delay = state.delay(self.slow.load(Ordering::Relaxed));
        let mut pipe = link.pipe(direction);
        if pipe.lost {
            return;
        }
        let at = (now + delay).max(pipe.last_at.unwrap_or(now));
        pipe.last_at = Some(at);
        if let Delivery::Bytes(bytes) = &delivery {
            pipe.in_flight += bytes.len();
        }
        drop(pipe);
        let piece = state.next_piece;
        state.next_piece += 1;
        state.in_flight.insert((at, piece), (Arc::clone(link), direction, delivery));
        drop(state);
        self.changed.notify_one();
    }

    /// Pieces take long from now on, or not.
    pub fn set_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
    }

    /// Cuts a connection; its number, if there is one.
    pub fn cut_one(&self, cut: Cut) -> Option<u64> {
        let mut state = locked(&self.state);
        let ids: Vec<u64> = state.links.keys().copied().collect();
        if ids.is_empty() {
            return None;
        }
        let id = *state.dice.pick(&ids);
        let link = state.links.remove(&id)?;
        drop(state);
        note!(self.trace, "net {id} cut {cut:?}");
        link.cut(cut);
        Some(id)
    }

    /// Cuts all connections.
    pub fn cut_all(&self, cut: Cut) {
        note!(self.trace, "net cut all {cut:?}");
        for (_, link) in std::mem::take(&mut locked(&self.state).links) {
            link.cut(cut);
        }
    }
}

impl State {
    fn delay(&mut self, slow: bool) -> Duration {
        let dice = &mut self.dice;
        let micros = match dice.below(200) {
            0 => dice.between(200_000, 2_500_000),
            1..=9 => dice.between(5_000, 200_000),
            _ if slow => dice.between(100_000, 1_500_000),
            _ => dice.between(0, 2_000),
        };
        Duration::from_micros(micros)
    }
}

impl Link {
    fn cut(&self, cut: Cut) {
        for direction in [Direction::Up, Direction::Down] {
            self.pipe(direction).lost = true;
        }
        if matches!(cut, Cut::Reset | Cut::BrokerKnows) {
            self.end(Direction::Up, Ending::Reset);
        }
        if matches!(cut, Cut::Reset | Cut::ClientKnows) {
            self.end(Direction::Down, Ending::Reset);
        }
    }
}

/// What a client holds. Dropping it closes the connection in order.
pub struct ClientEnd {
    net: Arc<Net>,
    link: Arc<Link>,
}

impl ClientEnd {
    /// The connection's number.
    pub fn id(&self) -> u64 {
        self.link.id
    }

    /// Sends bytes, sometimes in two pieces.
    pub fn send(&self, bytes: Bytes) {
        let split = {
            let mut state = locked(&self.net.state);
            state.dice.one_in(8).then(|| state.dice.below(bytes.len() as u64) as usize)
        };
        match split {
            Some(at) if at > 0 => {
                self.net.send(&self.link, Direction::Up, Delivery::Bytes(bytes.slice(..at)));
                self.net.send(&self.link, Direction::Up, Delivery::Bytes(bytes.slice(at..)));
            }
            _ => self.net.send(&self.link, Direction::Up, Delivery::Bytes(bytes)),
        }
    }

    /// A reader of what arrives, which does not keep the connection open.
    pub fn reader(&self) -> ClientReader {
        ClientReader { link: Arc::clone(&self.link) }
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        self.net.send(&self.link, Direction::Up, Delivery::End(Ending::Closed));
        // its reader has nothing to wait for
        self.link.end(Direction::Down, Ending::Closed);
    }
}

/// Where a client reads.
pub struct ClientReader {
    link: Arc<Link>,
}

impl ClientReader {
    /// What has arrived; `None` at the end.
    pub async fn read(&mut self, into: &mut BytesMut) -> Option<()> {
        poll_fn(|cx| {
            let mut pipe = self.link.pipe(Direction::Down);
            if !pipe.arrived.is_empty() {
                into.extend_from_slice(&std::mem::take(&mut pipe.arrived));
                if let Some(writer) = pipe.writer.take() {
                    writer.wake();
                }
                return Poll::Ready(Some(()));
            }
            if pipe.ended.is_some() {
                return Poll::Ready(None);
            }
            pipe.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// What a broker holds.
pub struct BrokerEnd {
    net: Arc<Net>,
    link: Arc<Link>,
    /// Whether the broker's process lives: what a dead one writes never leaves it.
    alive: Arc<AtomicBool>,
}

impl BrokerEnd {
    /// The connection's number.
    pub fn id(&self) -> u64 {
        self.link.id
    }

    /// Ties it to a process.
    pub fn of_process(mut self, alive: Arc<AtomicBool>) -> Self {
        self.alive = alive;
        self
    }

    fn poll_arrived(&self, cx: Option<&mut Context<'_>>) -> Poll<io::Result<Bytes>> {
        let mut pipe = self.link.pipe(Direction::Up);
        if !pipe.arrived.is_empty() {
            return Poll::Ready(Ok(pipe.arrived.split().freeze()));
        }
        match pipe.ended {
            Some(Ending::Closed) => Poll::Ready(Ok(Bytes::new())),
            Some(Ending::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None => {
                if let Some(cx) = cx {
                    pipe.reader = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Gives back what was read and did not fit.
    fn put_back(&self, rest: &[u8]) {
        let mut pipe = self.link.pipe(Direction::Up);
        let newer = std::mem::take(&mut pipe.arrived);
        pipe.arrived.extend_from_slice(rest);
        pipe.arrived.extend_from_slice(&newer);
    }

    fn poll_put(&self, cx: Option<&mut Context<'_>>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.alive.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let room = {
            let mut pipe = self.link.pipe(Direction::Down);
            if pipe.ended == Some(Ending::Reset) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let room = pipe.room();
            if room == 0 {
                if let Some(cx) = cx {
                    pipe.writer = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
            room
        };
        let written = room.min(bytes.len());
        let piece = Bytes::copy_from_slice(&bytes[..written]);
        self.net.send(&self.link, Direction::Down, Delivery::Bytes(piece));
        Poll::Ready(Ok(written))
    }
}

impl Drop for BrokerEnd {
    fn drop(&mut self) {
        // the machine of a process that ended closes its connections, unless it lost power
        if self.alive.load(Ordering::Relaxed) {
            self.net.send(&self.link, Direction::Down, Delivery::End(Ending::Closed));
        }
    }
}

impl AsyncRead for BrokerEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_arrived(Some(cx)).map_ok(|bytes| {
            let fits = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..fits]);
            self.put_back(&bytes[fits..]);
        })
    }
}

impl AsyncWrite for BrokerEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_put(Some(cx), bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Transport for BrokerEnd {
    fn try_read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        match self.poll_arrived(None) {
            Poll::Ready(read) => read.map(|bytes| {
                into.extend_from_slice(&bytes);
                bytes.len()
            }),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.poll_put(None, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}
