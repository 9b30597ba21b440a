//! Ten thousand connections on which nothing happens: they cost little memory, and others are served as if they were not
//! there.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::process::Command;

use mezzo_tests::binary::Binary;
use mezzo_tests::producer::Producer;
use mezzo_tests::wait;
use mezzo_tests::wire::Wire;
use tempfile::TempDir;

const CONNECTIONS: u64 = 10_000;
/// Files that this program needs beside the connections.
const OTHER_FILES: u64 = 300;
/// What one idle connection may cost the broker, in bytes. It is a fraction of that in a release build.
const BYTES_PER_CONNECTION_MAX: u64 = 16 * 1024;

/// Memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn ten_thousand_idle_connections_cost_little() {
    let wanted = env::var("MEZZO_IDLE_CONNECTIONS")
        .map_or(CONNECTIONS, |text| text.parse().expect("MEZZO_IDLE_CONNECTIONS is a number"));
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(0);
    // the broker is a process of its own, with a limit of its own that is as high
    if !cfg!(target_os = "linux") || files < wanted + OTHER_FILES + 1_024 {
        // past the test runner's capture: nobody is to take this for connections that were held
        writeln!(
            io::stderr(),
            "skipped: {wanted} idle connections: this process may open {files} files only"
        )
        .unwrap();
        return;
    }
    let scratch = TempDir::new().unwrap();
    let allowed = format!("limits.connections={}", wanted + 100);
    let settings = ["limits.message_size=128KiB", "store.segment_size=1MiB", allowed.as_str()];
    let binary = Binary::serve(&scratch.path().join("data"), &scratch.path().join("log"), &settings);
    let mut producer = Producer::connect(binary.broker, "PG_idle");
    producer.send("orders", 0, b"warm", &[]);
    let before = resident(binary.pid());
    let mut idle = Vec::new();
    for number in 0..wanted {
        let mut wire = Wire::try_connect(binary.broker).unwrap();
        // each has been used, as a client's would be
        wire.oneway(
            34,
            &[],
            format!(r#"{{"clientID":"c{number}","producerDataSet":[],"consumerDataSet":[]}}"#).as_bytes(),
        );
        idle.push(wire);
    }
    // the last one to be accepted is served: all are
    assert_eq!(idle.last_mut().unwrap().call(34, &[], br#"{"clientID":"last"}"#).code, 0);
    let during = resident(binary.pid());
    let each = |now: u64| now.saturating_sub(before) / wanted.max(1);
    println!("{wanted} idle connections: {} bytes each", each(during));
    assert!(each(during) < BYTES_PER_CONNECTION_MAX, "{} bytes each", each(during));
    producer.send("orders", 0, b"still served", &[]);
    assert_eq!(idle[0].call(34, &[], br#"{"clientID":"first"}"#).code, 0, "nobody was turned away");
    drop(idle);
    wait::until("their places are free again", || {
        let tasks = fs::read_dir(format!("/proc/{}/fd", binary.pid())).ok()?.count() as u64;
        (tasks < OTHER_FILES).then_some(())
    });
    assert_eq!(binary.terminate().code(), Some(0));
}

#[test]
fn a_limit_of_open_files_that_is_too_low_is_said_at_start_and_the_store_keeps_its_own() {
    let scratch = TempDir::new().unwrap();
    // a soft limit alone is raised, a hard one is not
    for (limit, warned) in [("ulimit -Sn 200", false), ("ulimit -n 300", true)] {
        let shell = Command::new("sh").args(["-c", limit]).status();
        if !shell.is_ok_and(|status| status.success()) {
            writeln!(io::stderr(), "skipped: this shell does not know {limit}").unwrap();
            return;
        }
        let log = scratch.path().join(limit.replace(' ', ""));
        let allowed = "limits.connections=500";
        let settings = ["limits.message_size=128KiB", "store.segment_size=1MiB", allowed];
        let data = scratch.path().join("data");
        let binary = Binary::serve_under(limit, &data, &log, &settings);
        assert_eq!(binary.logged().contains("may open only 300 files"), warned, "{}", binary.logged());
        let mut crowd: Vec<Wire> = (0..250).filter_map(|_| Wire::try_connect(binary.broker).ok()).collect();
        let mut producer = crowd.iter_mut().filter_map(|wire| wire.try_call(34, br#"{"clientID":"x"}"#));
        let served = producer.by_ref().count();
        // half of 300 files are the store's
        assert_eq!(served, if warned { 150 } else { 250 }, "{limit}");
        drop(crowd);
        wait::until("the places are free again", || {
            Wire::try_connect(binary.broker).ok()?.try_call(34, br#"{"clientID":"y"}"#)
        });
        Producer::connect(binary.broker, "PG_files").send("orders", 0, b"still served", &[]);
        assert_eq!(binary.terminate().code(), Some(0));
    }
}
