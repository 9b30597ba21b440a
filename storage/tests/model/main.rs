//! The store against a reference model: random scripts of everything that can be asked of it, on a simulated disk with
//! an injected clock, through restarts and crashes. After each step both must say the same.
//!
//! A failure prints its seed and a script that was made short. `MEZZO_MODEL_SEED` runs one seed again,
//! `MEZZO_MODEL_STEPS` makes scripts longer or shorter, `MEZZO_MODEL_SEEDS` says how many there are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]
#![allow(unreachable_pub, reason = "the parts of a test have no other crate to be seen by")]

mod clock;
mod decisions;
mod look;
mod model;
mod names;
mod once;
mod policies;
mod restart;
mod rules;
mod run;
mod script;
mod seen;
mod shrink;
mod steps;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mezzo_storage::AckLevel;
use model::Fault;
use run::run;
use script::script;
use seen::Seen;
use steps::Step;

const SEEDS: u64 = 300;
const STEPS: usize = 3_500;

/// What the scripts must have come to, or they prove little.
const COVERED: [&str; 35] = [
    "decided",
    "decided with many messages",
    "decided without messages",
    "rolled back for a lost lease",
    "already decided",
    "conflict",
    "tick",
    "nothing to decide",
    "leased",
    "lease held",
    "lease lost",
    "report on a leased queue",
    "wrong group",
    "wrong table offset",
    "wrong key",
    "unknown",
    "unknown or expired",
    "incomplete",
    "too late",
    "not open",
    "out of sequence",
    "sequence reused",
    "too many open",
    "topic has open messages",
    "asked often enough",
    "segment deleted",
    "decision expired",
    "restart",
    "lost by a crash",
    "written though the write failed",
    "transaction full",
    "a send that repeats another",
    "a repeat that is answered as the first one",
    "clock set back",
    "offsets jump",
];

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A failing script made short, as the code that it is.
fn short(steps: Vec<Step>, at: usize, fault: Fault, ack: AckLevel) -> Vec<Step> {
    shrink::shrink(steps, at, |steps| run(steps, fault, ack).is_err())
}

fn run_seed(seed: u64, steps: usize) -> Seen {
    let steps = script(seed, steps);
    // each third one loses more in a crash, and shows more before
    let ack = if seed % 3 == 2 { AckLevel::Memory } else { AckLevel::Durable };
    match run(&steps, Fault::None, ack) {
        Ok(seen) => seen,
        Err(failure) => {
            let all = steps.len();
            let short = short(steps, failure.step, Fault::None, ack);
            let what = run(&short, Fault::None, ack).err().map_or_else(String::new, |failure| failure.what);
            let lines: Vec<String> = short.iter().map(|step| format!("    {step:?},\n")).collect();
            panic!(
                "seed {seed} of {all} steps (MEZZO_MODEL_SEED={seed} MEZZO_MODEL_STEPS={all}) fails at step {}: {}\n\
                 made short:\n{}{what}",
                failure.step,
                failure.what,
                lines.concat()
            );
        }
    }
}

/// All seeds, on every core.
fn run_seeds(seeds: std::ops::Range<u64>, steps: usize) -> Seen {
    let next = AtomicU64::new(seeds.start);
    let all = Mutex::new(Seen::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let seen = run_seed(seed, steps);
                    let mut all = all.lock().unwrap();
                    for (what, times) in seen {
                        *all.entry(what).or_default() += times;
                    }
                }
            });
        }
    });
    all.into_inner().unwrap()
}

#[test]
fn the_store_does_what_the_model_says() {
    let steps = setting("MEZZO_MODEL_STEPS").map_or(STEPS, |n| n as usize);
    let seeds = setting("MEZZO_MODEL_SEEDS").unwrap_or(SEEDS);
    let (first, seeds) = setting("MEZZO_MODEL_SEED").map_or((0, seeds), |seed| (seed, 1));
    let seen = run_seeds(first..first + seeds, steps);
    for (what, times) in &seen {
        println!("{times:>9} {what}");
    }
    if seeds < SEEDS {
        return;
    }
    for what in COVERED {
        assert!(seen.get(what).is_some_and(|times| *times > 0), "no script came to: {what}");
    }
}

/// The first seeds' scripts, until the model's fault shows.
fn noticed(fault: Fault) -> Option<(Vec<Step>, usize)> {
    (0..20).find_map(|seed| {
        let steps = script(seed, 1_500);
        run(&steps, fault, AckLevel::Durable).err().map(|failure| (steps, failure.step))
    })
}

#[test]
fn a_rule_that_the_model_has_wrong_is_noticed() {
    let faults = [
        Fault::LateCommitDelivers,
        Fault::GapsAreTaken,
        Fault::RestartForgets,
        Fault::NothingIsLost,
        Fault::DoubtIsFinal,
        Fault::DelayFromPrepare,
        Fault::LostLeaseMoves,
        Fault::NoBounds,
        Fault::RepeatsAreStored,
        Fault::EpochsComeAgain,
    ];
    for fault in faults {
        assert!(noticed(fault).is_some(), "nobody noticed: {fault:?}");
    }
}

/// A topic, a prepare, a rollback, a commit, and whatever makes the store show what it has.
#[test]
fn a_failing_script_is_made_short() {
    let (steps, at) = noticed(Fault::LateCommitDelivers).expect("a script that fails");
    let short = short(steps, at, Fault::LateCommitDelivers, AckLevel::Durable);
    assert!(short.len() <= 6, "{short:#?}");
    assert!(
        run(&short, Fault::None, AckLevel::Durable).is_ok(),
        "by the right rules nothing is wrong with it"
    );
}
