//! Everything that happens in a run, in order: hashed, so that two runs of one seed can be compared, and the last of it
//! kept, so that a failure can be read.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Lines that a failure shows.
const KEPT: usize = 120;

/// The events of one run.
#[derive(Debug)]
pub struct Trace {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    begun: Instant,
    hash: u64,
    events: u64,
    recent: VecDeque<String>,
    /// All lines, if `MEZZO_SIM_TRACE` names a file.
    file: Option<BufWriter<File>>,
    line: String,
}

/// What is left of a run to compare and to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// Of every event.
    pub hash: u64,
    /// How many.
    pub events: u64,
    /// The last ones.
    pub recent: Vec<String>,
}

impl Trace {
    /// Begins now, in virtual time.
    pub fn new() -> Self {
        let path = std::env::var_os("MEZZO_SIM_TRACE");
        let file =
            path.map(|path| BufWriter::new(File::create(path).expect("MEZZO_SIM_TRACE can be written")));
        Self {
            inner: Mutex::new(Inner {
                begun: Instant::now(),
                hash: 0xCBF2_9CE4_8422_2325,
                events: 0,
                recent: VecDeque::new(),
                file,
                line: String::new(),
            }),
        }
    }

    /// One event.
    pub fn note(&self, event: fmt::Arguments<'_>) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let mut line = std::mem::take(&mut inner.line);
        line.clear();
        let micros = inner.begun.elapsed().as_micros();
        write!(line, "{:>9}.{:03} {event}", micros / 1000, micros % 1000).expect("a text can be written");
        for byte in line.bytes() {
            inner.hash = (inner.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        inner.events += 1;
        if let Some(file) = &mut inner.file {
            writeln!(file, "{line}").expect("the trace can be written");
        }
        // the oldest line's memory is used again
        if inner.recent.len() >= KEPT {
            inner.line = inner.recent.pop_front().unwrap_or_default();
        }
        inner.recent.push_back(line);
    }

    /// What there is so far.
    pub fn traced(&self) -> Traced {
        let mut inner = self.inner();
        if let Some(file) = &mut inner.file {
            file.flush().expect("the trace can be written");
        }
        Traced { hash: inner.hash, events: inner.events, recent: inner.recent.iter().cloned().collect() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes an event of the world.
macro_rules! note {
    ($trace:expr, $($text:tt)*) => { $trace.note(format_args!($($text)*)) };
}
pub(crate) use note;
