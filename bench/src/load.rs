//! One run: connect, load, measure, add up.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::closed_loop;
use crate::measure::{Tally, Window};
use crate::open_loop;
use crate::options::{LoadOptions, Mode};
use crate::process::Usage;
use crate::report::Report;
use crate::wire::{EndTemplate, SendTemplate};

/// How long to wait for a connection, and after the end of the window for answers that are still out.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Time for all threads to be there before load begins.
const LEAD: Duration = Duration::from_millis(50);
/// The producer group that all connections name.
const GROUP: &str = "mezzo_bench_producers";

/// What one connection sends.
#[derive(Debug, Clone)]
pub struct Work {
    /// Which connection this is, from 0.
    pub index: u32,
    /// What one unit of work is.
    pub mode: Mode,
    /// Queues to go round.
    pub queues: u8,
    /// The prebuilt send.
    pub send: SendTemplate,
    /// The prebuilt commit.
    pub end: EndTemplate,
}

/// Runs the load and measures it.
///
/// # Errors
/// When a connection cannot be made or breaks, an answer is not understood, or the broker's process is not there.
pub fn run(options: &LoadOptions) -> io::Result<Report> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let born_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    let run_seed = u64::try_from(since_1970.as_nanos() & u128::from(u64::MAX)).unwrap_or(0);
    let mut streams = Vec::new();
    for _ in 0..options.connections {
        let stream = TcpStream::connect_timeout(&options.address, PATIENCE).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot connect to {}: {error}", options.address))
        })?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let window = Window::new(
        Instant::now() + LEAD,
        Duration::from_secs(options.warmup),
        Duration::from_secs(options.duration),
    );
    let options = Arc::new(options.clone());
    let mut threads = Vec::new();
    for (index, stream) in (0..).zip(streams) {
        let seed = run_seed.wrapping_add(u64::from(index));
        let work = Work {
            index,
            mode: options.mode,
            queues: options.queues,
            send: SendTemplate::new(
                options.mode,
                GROUP,
                &options.topic,
                options.size as usize,
                seed,
                born_ms,
            ),
            end: EndTemplate::new(GROUP, seed),
        };
        let options = Arc::clone(&options);
        threads.push(thread::Builder::new().name(format!("load-{index}")).spawn(
            move || match options.rate {
                None => closed_loop::run(&stream, &work, window, options.in_flight),
                Some(rate) => open_loop::run(&stream, &work, window, rate, options.connections),
            },
        )?);
    }
    let (broker, generator) = usage_over(window, options.broker_pid)?;
    let mut tally = Tally::default();
    for thread in threads {
        let seen = thread.join().map_err(|_| io::Error::other("a load thread panicked"))??;
        tally.add(&seen);
    }
    Ok(Report::new(&options, &tally, broker, generator))
}

/// What the broker and this process use while the window is open.
fn usage_over(window: Window, broker: Option<u32>) -> io::Result<(Option<Usage>, Usage)> {
    let read = || -> io::Result<(Option<Usage>, Usage)> {
        let of_broker = broker.map(Usage::of).transpose().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("--broker-pid names no process that can be looked at: {error}"),
            )
        })?;
        Ok((of_broker, Usage::of(std::process::id())?))
    };
    thread::sleep(window.start.saturating_duration_since(Instant::now()));
    let (broker_before, generator_before) = read()?;
    thread::sleep(window.end.saturating_duration_since(Instant::now()));
    let (broker_after, generator_after) = read()?;
    let broker_used = broker_after.zip(broker_before).map(|(after, before)| after.since(before));
    Ok((broker_used, generator_after.since(generator_before)))
}
