//! A fixed number of requests in flight on one connection: each answer lets the next request go. One read takes all
//! answers that have arrived, one write sends all that follow from them, and the clock is read once for each.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use crate::load::{PATIENCE, Work};
use crate::measure::{Tally, Window};
use crate::options::Mode;
use crate::wire::{OPAQUE_END, OPAQUE_SEND, Reply, ReplyScanner};

/// Bytes asked for at once. Answers are some 200 bytes, so this is far more than can be in flight by default.
const READ_BYTES: usize = 256 * 1024;

/// A place for one unit of work that is in flight.
#[derive(Debug, Clone, Copy)]
struct Slot {
    began: Instant,
    counter: u64,
}

struct Loop<'w> {
    work: &'w Work,
    window: Window,
    slots: Vec<Slot>,
    next_counter: u64,
    outstanding: usize,
    out: Vec<u8>,
    tally: Tally,
}

/// Loads one connection until the window closes and the last answers are in.
///
/// # Errors
/// When the connection breaks, the broker falls silent for longer than [`PATIENCE`], or an answer is not understood.
pub fn run(stream: &TcpStream, work: &Work, window: Window, in_flight: u32) -> io::Result<Tally> {
    stream.set_read_timeout(Some(PATIENCE))?;
    thread::sleep(window.origin.saturating_duration_since(Instant::now()));
    let began = Instant::now();
    let mut this = Loop {
        work,
        window,
        slots: vec![Slot { began, counter: 0 }; in_flight as usize],
        next_counter: 0,
        outstanding: 0,
        out: Vec::with_capacity(in_flight as usize * work.send.frame_bytes()),
        tally: Tally::default(),
    };
    for slot in 0..in_flight {
        this.begin(slot, began);
    }
    this.drive(stream)?;
    Ok(this.tally)
}

impl Loop<'_> {
    fn drive(&mut self, mut stream: &TcpStream) -> io::Result<()> {
        let mut scanner = ReplyScanner::default();
        let mut bytes = vec![0; READ_BYTES];
        let mut filled = 0;
        while self.outstanding > 0 {
            if !self.out.is_empty() {
                stream.write_all(&self.out)?;
                self.out.clear();
            }
            if filled == bytes.len() {
                bytes.resize(bytes.len() * 2, 0);
            }
            let read = stream.read(&mut bytes[filled..]).map_err(|error| self.silence(&error))?;
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection"));
            }
            filled += read;
            let now = Instant::now();
            let mut taken = 0;
            while let Some((reply, length)) = scanner.next(&bytes[taken..filled]).map_err(io::Error::other)? {
                self.take(&mut scanner, reply, now)?;
                taken += length;
            }
            bytes.copy_within(taken..filled, 0);
            filled -= taken;
        }
        Ok(())
    }

    fn silence(&self, error: &io::Error) -> io::Error {
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            let what =
                format!("no answer for {} s with {} requests open", PATIENCE.as_secs(), self.outstanding);
            return io::Error::new(io::ErrorKind::TimedOut, what);
        }
        io::Error::new(error.kind(), error.to_string())
    }

    /// Starts a new unit of work in `slot`.
    fn begin(&mut self, slot: u32, now: Instant) {
        let counter = self.next_counter;
        self.next_counter += 1;
        let queue = ((counter + u64::from(self.work.index)) % u64::from(self.work.queues)) as u8;
        self.slots[slot as usize] = Slot { began: now, counter };
        self.work.send.append(&mut self.out, OPAQUE_SEND + slot, queue, counter);
        self.outstanding += 1;
    }

    /// Takes one answer; what follows from it goes into the output buffer.
    fn take(&mut self, scanner: &mut ReplyScanner, reply: Reply<'_>, now: Instant) -> io::Result<()> {
        let (opaque, code, header) = match reply {
            Reply::Answer { opaque, code, header } => (opaque, code, header),
            Reply::Request { code } => {
                self.tally.check_backs += u64::from(code == 39);
                return Ok(());
            }
        };
        let is_end = opaque >= OPAQUE_END;
        let slot = opaque.wrapping_sub(if is_end { OPAQUE_END } else { OPAQUE_SEND });
        let Some(Slot { began, counter }) = self.slots.get(slot as usize).copied() else {
            return Err(io::Error::other(format!("an answer to a request that was never sent: {opaque}")));
        };
        if code != 0 {
            self.tally.error(|| String::from_utf8_lossy(header).into_owned());
        } else if self.work.mode == Mode::Transactional && !is_end {
            let (log_offset, table_offset) = scanner
                .offsets(header)
                .ok_or_else(|| io::Error::other("the answer to a half message lacks msgId or queueOffset"))?;
            self.work.end.append(&mut self.out, OPAQUE_END + slot, log_offset, table_offset, counter);
            return Ok(());
        } else {
            self.tally.complete(&self.window, began, now);
        }
        self.outstanding -= 1;
        if now < self.window.end {
            self.begin(slot, now);
        }
        Ok(())
    }
}
