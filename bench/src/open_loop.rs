//! A fixed rate on one connection: request `k` is due at `origin + k × interval`, whether or not the broker keeps up,
//! and its latency counts from then. So a stall is charged to every request that had to wait for it, which a closed
//! loop would hide (coordinated omission).
//!
//! Two threads: one sends what is due, one reads answers. The number of a request is in its opaque, so the reader
//! knows when it was due without asking the sender. Commits that follow from answers go through a small shared buffer
//! to the sender, so that the reader never blocks on a full socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{PATIENCE, Work};
use crate::measure::{Tally, Window};
use crate::options::Mode;
use crate::wire::{OPAQUE_END, OPAQUE_SEND, Reply, ReplyScanner};

/// Shortest sleep of the sender: requests due within it go out together. It adds at most this to a latency.
const TICK: Duration = Duration::from_micros(100);
/// Most requests put into one write, so that commits are not kept waiting behind a backlog.
const BURST_MAX: u64 = 512;
/// Bytes asked for at once.
const READ_BYTES: usize = 256 * 1024;

/// When each request of this connection is due.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    first: Instant,
    interval_ns: u64,
    count: u64,
}

impl Schedule {
    fn new(window: Window, rate: u64, connections: u32, index: u32) -> Self {
        let interval_ns = (1_000_000_000 * u64::from(connections) / rate).max(1);
        // connections take turns instead of all sending at the same moments
        let first =
            window.origin + Duration::from_nanos(interval_ns * u64::from(index) / u64::from(connections));
        let span_ns =
            u64::try_from(window.end.saturating_duration_since(first).as_nanos()).unwrap_or(u64::MAX);
        let count = (span_ns / interval_ns).min(u64::from(OPAQUE_END - OPAQUE_SEND));
        Self { first, interval_ns, count }
    }

    fn due(&self, k: u64) -> Instant {
        self.first + Duration::from_nanos(self.interval_ns * k)
    }

    /// How many requests are due by `now`.
    fn due_by(&self, now: Instant) -> u64 {
        let passed_ns =
            u64::try_from(now.saturating_duration_since(self.first).as_nanos()).unwrap_or(u64::MAX);
        if now < self.first { 0 } else { (passed_ns / self.interval_ns + 1).min(self.count) }
    }
}

/// What the two threads share.
#[derive(Debug, Default)]
struct Shared {
    commits: Mutex<Vec<u8>>,
    wake: Condvar,
    /// Units of work that are over, answered or refused.
    finished: AtomicU64,
}

/// Loads one connection at its share of `rate` until the window closes and the last answers are in.
///
/// # Errors
/// When the connection breaks, the broker falls silent for longer than [`PATIENCE`], or an answer is not understood.
pub fn run(
    stream: &TcpStream,
    work: &Work,
    window: Window,
    rate: u64,
    connections: u32,
) -> io::Result<Tally> {
    let schedule = Schedule::new(window, rate, connections, work.index);
    let shared = Shared::default();
    stream.set_read_timeout(Some(PATIENCE + Duration::from_nanos(schedule.interval_ns)))?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(stream, work, schedule, &shared));
        let tally = receive(stream, work, window, schedule, &shared);
        if tally.is_err() {
            // the sender may be waiting for answers that will not come
            shared.finished.store(schedule.count, Ordering::Release);
        }
        shared.wake.notify_one();
        sender.join().map_err(|_| io::Error::other("a sending thread panicked"))??;
        tally
    })
}

fn send(mut stream: &TcpStream, work: &Work, schedule: Schedule, shared: &Shared) -> io::Result<()> {
    let mut out = Vec::with_capacity(BURST_MAX as usize * work.send.frame_bytes());
    let mut sent = 0;
    while shared.finished.load(Ordering::Acquire) < schedule.count {
        let due = schedule.due_by(Instant::now()).min(sent + BURST_MAX);
        while sent < due {
            let queue = ((sent + u64::from(work.index)) % u64::from(work.queues)) as u8;
            work.send.append(&mut out, OPAQUE_SEND + sent as u32, queue, sent);
            sent += 1;
        }
        {
            let mut commits = shared.commits.lock().unwrap_or_else(PoisonError::into_inner);
            if out.is_empty() && commits.is_empty() {
                let until =
                    if sent < schedule.count { schedule.due(sent) } else { Instant::now() + PATIENCE };
                let pause = until.saturating_duration_since(Instant::now()).max(TICK).min(PATIENCE);
                commits = shared.wake.wait_timeout(commits, pause).unwrap_or_else(PoisonError::into_inner).0;
            }
            out.append(&mut commits);
        }
        stream.write_all(&out)?;
        out.clear();
    }
    Ok(())
}

fn receive(
    mut stream: &TcpStream,
    work: &Work,
    window: Window,
    schedule: Schedule,
    shared: &Shared,
) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut scanner = ReplyScanner::default();
    let mut bytes = vec![0; READ_BYTES];
    let mut filled = 0;
    let mut commits = Vec::new();
    while shared.finished.load(Ordering::Relaxed) < schedule.count {
        if filled == bytes.len() {
            bytes.resize(bytes.len() * 2, 0);
        }
        let read = stream.read(&mut bytes[filled..])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection"));
        }
        filled += read;
        let now = Instant::now();
        let (mut taken, mut finished) = (0, 0);
        while let Some((reply, length)) = scanner.next(&bytes[taken..filled]).map_err(io::Error::other)? {
            taken += length;
            let Reply::Answer { opaque, code, header } = reply else {
                tally.check_backs += u64::from(matches!(reply, Reply::Request { code: 39 }));
                continue;
            };
            let is_end = opaque >= OPAQUE_END;
            let k = u64::from(opaque.wrapping_sub(if is_end { OPAQUE_END } else { OPAQUE_SEND }));
            if code != 0 {
                tally.error(|| String::from_utf8_lossy(header).into_owned());
            } else if work.mode == Mode::Transactional && !is_end {
                let (log_offset, table_offset) = scanner.offsets(header).ok_or_else(|| {
                    io::Error::other("the answer to a half message lacks msgId or queueOffset")
                })?;
                work.end.append(&mut commits, OPAQUE_END + k as u32, log_offset, table_offset, k);
                continue;
            } else {
                tally.complete(&window, schedule.due(k), now);
            }
            finished += 1;
        }
        if !commits.is_empty() {
            shared.commits.lock().unwrap_or_else(PoisonError::into_inner).append(&mut commits);
            shared.wake.notify_one();
        }
        shared.finished.fetch_add(finished, Ordering::Release);
        bytes.copy_within(taken..filled, 0);
        filled -= taken;
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_the_rate_whatever_the_broker_does() {
        let window = Window::new(Instant::now(), Duration::ZERO, Duration::from_secs(2));
        let schedule = Schedule::new(window, 1000, 4, 2);
        assert_eq!(schedule.count, 499);
        assert_eq!(schedule.due(1) - schedule.due(0), Duration::from_millis(4));
        assert_eq!(schedule.due_by(window.origin), 0);
        assert_eq!(schedule.due_by(schedule.first), 1);
        assert_eq!(schedule.due_by(schedule.due(7)), 8);
        assert_eq!(schedule.due_by(window.end + Duration::from_secs(9)), 499);
    }
}
