//! The result of one run: one JSON line.

use serde::{Deserialize, Serialize};

use crate::measure::Tally;
use crate::options::{LoadOptions, Mode};
use crate::process::Usage;

/// One run. All latencies in microseconds; a unit of work is a send, or a whole committed transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// As given with `--label`.
    pub label: String,
    /// `plain` or `transactional`.
    pub mode: String,
    /// Connections.
    pub connections: u32,
    /// Units of work in flight per connection; 0 in a fixed-rate run.
    pub in_flight: u32,
    /// The fixed rate asked for, if any.
    pub target_rate: Option<u64>,
    /// Body bytes.
    pub size: u32,
    /// Measured seconds.
    pub seconds: u64,
    /// Units of work completed inside the window.
    pub completed: u64,
    /// Units of work per second.
    pub rate: f64,
    /// Median latency.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Longest.
    pub max_us: f64,
    /// CPU seconds of the broker inside the window; none without `--broker-pid`.
    pub broker_cpu_seconds: Option<f64>,
    /// Bytes that the broker had written inside the window.
    pub broker_written_bytes: Option<u64>,
    /// CPU seconds of the generator itself: it shares the machine.
    pub generator_cpu_seconds: f64,
    /// Check-backs received: 0 in a healthy run.
    pub check_backs: u64,
    /// Answers with a code other than 0.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
}

impl Report {
    /// Puts together what was asked and what was seen.
    #[must_use]
    pub fn new(options: &LoadOptions, tally: &Tally, broker: Option<Usage>, generator: Usage) -> Self {
        let us = |quantile: f64| tally.latency_ns.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            label: options.label.clone(),
            mode: match options.mode {
                Mode::Plain => "plain".to_owned(),
                Mode::Transactional => "transactional".to_owned(),
            },
            connections: options.connections,
            in_flight: if options.rate.is_some() { 0 } else { options.in_flight },
            target_rate: options.rate,
            size: options.size,
            seconds: options.duration,
            completed: tally.completed,
            rate: tally.completed as f64 / options.duration as f64,
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: tally.latency_ns.max() as f64 / 1000.0,
            broker_cpu_seconds: broker.map(|usage| usage.cpu_seconds),
            broker_written_bytes: broker.map(|usage| usage.written_bytes),
            generator_cpu_seconds: generator.cpu_seconds,
            check_backs: tally.check_backs,
            errors: tally.errors,
            first_error: tally.first_error.clone(),
        }
    }
}
