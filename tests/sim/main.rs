//! Deterministic simulation: the real storage and the real broker, with clients that speak real frames, on one thread, a
//! simulated disk, a simulated network and virtual time. A seed decides everything, so a failure can be played again.
//!
//! ```text
//! cargo test -p mezzo-tests --test sim                         # some hundred seeds, as CI does
//! cargo test -p mezzo-tests --test sim -- --seed 4711          # this one; also MEZZO_SIM_SEED=4711
//! cargo test --release -p mezzo-tests --test sim -- --seeds 10000 --from 1   # also MEZZO_SIM_SEEDS, MEZZO_SIM_FROM
//! MEZZO_SIM_TRACE=trace.txt …                                  # every event of the last run
//! MEZZO_SIM_LOG=mezzo=debug …                                  # what the broker logs
//! ```
//!
//! `docs/decisions/0010-simulation.md` says what is real in it and what is not.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a program of tests: an expectation that fails is a failed test, and nobody imports it"
)]

mod client;
mod consumer;
mod dice;
mod disk;
mod history;
mod host;
mod judge;
mod nemesis;
mod net;
mod operator;
mod plan;
mod producer;
mod repeat;
mod retention;
mod settle;
mod stats;
mod trace;
mod transform;
mod world;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::stats::Stats;
use crate::world::Outcome;

/// Seeds that CI runs.
const SEEDS: u64 = 300;
/// Seeds that are run twice, to see that a seed decides everything.
const TWICE: u64 = 12;
/// Seeds that are played with a disk that lies.
const LIES: u64 = 12;
/// Runs of fewer seeds need not have seen everything.
const SEEDS_FOR_ALL: u64 = 200;

/// Panics anywhere, also in tasks that nobody joins.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// What is to be run.
struct Arguments {
    only: Option<u64>,
    seeds: u64,
    from: u64,
}

fn arguments() -> Arguments {
    let number = |name: &str| -> Option<u64> {
        std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let mut arguments = Arguments {
        only: number("MEZZO_SIM_SEED"),
        seeds: number("MEZZO_SIM_SEEDS").unwrap_or(SEEDS),
        from: number("MEZZO_SIM_FROM").unwrap_or(1),
    };
    // what test runners say otherwise (--nocapture, a filter) means nothing here
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = |name: &str| -> u64 {
            let text = words.next().unwrap_or_default();
            text.parse().unwrap_or_else(|_| panic!("{name} needs a number, not {text:?}"))
        };
        match word.as_str() {
            "--seed" => arguments.only = Some(value("--seed")),
            "--seeds" => arguments.seeds = value("--seeds"),
            "--from" => arguments.from = value("--from"),
            _ => {}
        }
    }
    arguments
}

fn main() -> ExitCode {
    if let Ok(filter) = std::env::var("MEZZO_SIM_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        usual(info);
    }));
    let arguments = arguments();
    if let Some(seed) = arguments.only {
        let outcome = play(seed);
        outcome.stats.print();
        return verdict(seed, &outcome);
    }
    let begun = Instant::now();
    for seed in arguments.from..arguments.from + TWICE.min(arguments.seeds) {
        if let Some(code) = one_seed_gives_one_trace(seed) {
            return code;
        }
    }
    if !a_disk_that_lies_is_found_out(arguments.from) {
        println!("sim: FAILED: nothing is found with a disk that lies");
        return ExitCode::FAILURE;
    }
    let mut stats = Stats::default();
    for seed in arguments.from..arguments.from + arguments.seeds {
        let outcome = play(seed);
        if !outcome.violations.is_empty() {
            return verdict(seed, &outcome);
        }
        stats.add(&outcome.stats);
        if stats.seeds % 1_000 == 0 {
            println!("sim: {} seeds in {} s", stats.seeds, begun.elapsed().as_secs());
        }
    }
    stats.print();
    println!("sim: {} s, no violation", begun.elapsed().as_secs());
    let missing = stats.missing();
    if arguments.seeds >= SEEDS_FOR_ALL && !missing.is_empty() {
        println!("sim: FAILED: these runs have not seen what they are for: {missing:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn play(seed: u64) -> Outcome {
    let panics = PANICS.load(Ordering::Relaxed);
    let mut outcome = world::run(seed, false);
    if PANICS.load(Ordering::Relaxed) > panics {
        outcome.violations.push("something panicked".to_owned());
    }
    outcome
}

/// Whoever holds a broker to its word must notice one that cannot keep it: with a disk that says that it has synced the
/// log and has not, some of the first seeds must fail.
fn a_disk_that_lies_is_found_out(from: u64) -> bool {
    let found = (from..from + LIES).filter(|seed| !world::run(*seed, true).violations.is_empty()).count();
    println!("sim: with a disk that lies {found} of {LIES} seeds find it out");
    found > 0
}

/// The same seed twice: the same events, one after the other.
fn one_seed_gives_one_trace(seed: u64) -> Option<ExitCode> {
    let (first, second) = (play(seed), play(seed));
    if first.traced == second.traced {
        return None;
    }
    println!("sim: FAILED: seed {seed} was played twice and went two ways");
    println!("  {} and {} events", first.traced.events, second.traced.events);
    let (first, second) = (first.traced.recent, second.traced.recent);
    if let Some(at) = first.iter().zip(&second).position(|(one, two)| one != two) {
        println!("  in the last events they differ first at\n  {}\n  {}", first[at], second[at]);
    }
    Some(ExitCode::FAILURE)
}

/// Tells what was wrong and how to see it again.
fn verdict(seed: u64, outcome: &Outcome) -> ExitCode {
    if outcome.violations.is_empty() {
        println!("sim: seed {seed}: no violation, {} events", outcome.traced.events);
        return ExitCode::SUCCESS;
    }
    println!("sim: the last events of seed {seed}:");
    for line in &outcome.traced.recent {
        println!("  {line}");
    }
    println!("sim: plan: {:?}", outcome.plan);
    println!("sim: FAILED: seed {seed}:");
    for violation in &outcome.violations {
        println!("  {violation}");
    }
    println!("sim: again: cargo test -p mezzo-tests --test sim -- --seed {seed}");
    println!("sim: all events: MEZZO_SIM_TRACE=FILE, the broker's own words: MEZZO_SIM_LOG=debug");
    ExitCode::FAILURE
}
