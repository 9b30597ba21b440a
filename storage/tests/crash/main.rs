//! The whole store on a simulated disk, against a model: a script of operations, and each single thing that a store does to
//! its disk (`actions.rs`), is stopped at every disk operation and at every kind of crash, the store is opened again, and what it shows must be exactly what the model held at the end
//! of the recovered log, which must not lie before what was synced.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]
#![allow(unreachable_pub, reason = "the parts of a test have no other crate to be seen by")]

mod actions;
mod run;
mod script;
mod steps;
mod sweep;
mod torn_frames;
mod verify;

use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{AckLevel, Visibility};

use run::{Run, options};
use verify::verify;

fn crash_modes(seed: u64) -> [CrashMode; 4] {
    [CrashMode::LoseUnsynced, CrashMode::KeepAll, CrashMode::Seeded(seed), CrashMode::Seeded(seed ^ 0xFFFF)]
}

/// How many crashes were verified, and how many of them compared with the model.
fn sweep(ack: AckLevel, seed: u64, steps: u64, stride: u64) -> (u64, u64) {
    let mut whole = Run::new(SimulatedDisk::new(), options(ack));
    whole.script(seed, steps).unwrap();
    let operations = whole.disk.operations();
    drop(whole);
    let (mut verified, mut compared) = (0, 0);
    let mut stop = 1 + seed % stride;
    while stop <= operations {
        let disk = SimulatedDisk::new();
        disk.fail_after_ops(stop);
        let mut run = Run::new(disk.clone(), options(ack));
        let ended = run.script(seed, steps);
        assert!(ended.is_err() || stop >= operations, "the script went on after its disk had died");
        run.store = None;
        for mode in crash_modes(seed.wrapping_mul(1000) + stop) {
            let what = format!("{ack:?}, seed {seed}, stopped at operation {stop}, {mode:?}");
            verified += 1;
            let verified = verify(&run, disk.crash(mode), mode == CrashMode::KeepAll, &what);
            compared += u64::from(verified.is_some());
        }
        stop += stride;
    }
    (verified, compared)
}

fn most_are_compared((verified, compared): (u64, u64)) {
    assert!(
        compared * 2 > verified,
        "only {compared} of {verified} crashes could be compared with the model"
    );
}

#[test]
fn every_stop_of_a_durable_store_recovers_to_what_the_log_says() {
    most_are_compared(sweep(AckLevel::Durable, 1, 25, 1));
}

#[test]
fn every_stop_of_a_memory_store_recovers_to_what_the_log_says() {
    most_are_compared(sweep(AckLevel::Memory, 2, 25, 1));
}

/// More scripts, at scattered stops. `MEZZO_CRASH_SEEDS` asks for more.
#[test]
fn scattered_stops_of_many_scripts_recover() {
    let seeds = std::env::var("MEZZO_CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let (mut verified, mut compared) = (0, 0);
    for seed in 10..10 + seeds {
        let ack = if seed % 3 == 0 { AckLevel::Memory } else { AckLevel::Durable };
        let (some, of_them) = sweep(ack, seed, 60, 41);
        (verified, compared) = (verified + some, compared + of_them);
    }
    most_are_compared((verified, compared));
}

#[test]
fn a_failed_sync_acknowledges_nothing_any_more() {
    let disk = SimulatedDisk::new();
    let mut run = Run::new(disk.clone(), options(AckLevel::Durable));
    run.start().unwrap();
    run.put_topic("t").unwrap();
    run.sync().unwrap();
    run.send("t", Visibility::Now, 10).unwrap();
    run.sync().unwrap();
    run.send("t", Visibility::Now, 10).unwrap();
    disk.fail_sync(1);
    let limit = run.store().limit();
    assert!(run.sync().is_err());
    assert_eq!(run.store().limit(), limit);
    assert!(run.store().is_fenced());
    assert!(run.send("t", Visibility::Now, 10).is_err(), "nothing is appended after a failed sync");
    assert!(run.sync().is_err(), "a sync is never retried");
    assert_eq!(run.store().limit(), limit);
}
