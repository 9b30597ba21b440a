//! What the load generator can be asked for, with the bounds that keep a run honest.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use serde::Serialize;

/// Most requests one connection may have open. Beyond this the socket buffers, not the broker, would be measured.
pub const IN_FLIGHT_MAX: u32 = 4096;
/// Most queues that requests are spread over: the queue number is one patched digit.
pub const QUEUES_MAX: u8 = 10;

/// What one unit of work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One SEND_MESSAGE_V2 (310) and its answer.
    Plain,
    /// A half message (310 with TRAN_MSG), then END_TRANSACTION (37) with its answer awaited: one commit.
    Transactional,
}

/// One measured run.
#[derive(Debug, Clone, Args)]
pub struct LoadOptions {
    /// The broker's address (not the name server's)
    #[arg(long, default_value = "127.0.0.1:10911")]
    pub address: SocketAddr,
    /// Connections; each has a thread of its own (two with --rate)
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub connections: u32,
    /// Requests (or transactions) kept open on each connection; not used with --rate
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX)))]
    pub in_flight: u32,
    /// Body bytes of each message
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1024 * 1024))]
    pub size: u32,
    /// What one unit of work is
    #[arg(long, value_enum, default_value_t = Mode::Plain)]
    pub mode: Mode,
    /// Measured seconds, after the warm-up
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub duration: u64,
    /// Seconds of load before measuring starts
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub warmup: u64,
    /// Fixed rate in units of work per second over all connections; latency then counts from when each was due, so a
    /// stall is charged to everything that had to wait for it (no coordinated omission)
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=2_000_000))]
    pub rate: Option<u64>,
    /// Topic; created by the broker on the first send
    #[arg(long, default_value = "mezzo_bench")]
    pub topic: String,
    /// Queues of the topic to spread over
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=i64::from(QUEUES_MAX)))]
    pub queues: u8,
    /// Process id of the broker on this machine: its CPU seconds and written bytes go into the result
    #[arg(long)]
    pub broker_pid: Option<u32>,
    /// A word copied into the result, for telling runs apart in a table
    #[arg(long, default_value = "")]
    pub label: String,
}
