//! The program as a user meets it: it starts, says where it is, stops when told, and says in one line what is wrong.

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test, also in what tests share")]

use std::fs;
use std::net::TcpListener;

use mezzo_tests::binary::{Binary, run};
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::Producer;
use tempfile::TempDir;

/// Small segments: these tests start many brokers.
const SMALL: [&str; 2] = ["limits.message_size=128KiB", "store.segment_size=1MiB"];

/// Runs `mezzo serve` with arguments that must not work; returns what it said.
fn refused(arguments: &[&str]) -> String {
    let output = run(&[&["serve"], arguments].concat());
    assert!(!output.status.success(), "{arguments:?} must not start");
    assert!(output.status.code().is_some(), "{arguments:?} ends by itself");
    let said = String::from_utf8(output.stderr).expect("errors are text");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn it_serves_until_sigterm_and_ends_with_code_0() {
    let dir = TempDir::new().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    for round in 0..3 {
        let binary = Binary::serve(&data, &log, &SMALL);
        Producer::connect(binary.broker, "PG_program").send("orders", 0, b"x", &[]);
        let seen = Consumer::connect(binary.broker, "CG_program").drain("orders", 0, 0).len();
        assert_eq!(seen, round + 1);
        assert_eq!(binary.terminate().code(), Some(0));
    }
}

#[test]
fn a_setting_that_does_not_exist_is_named_with_a_hint() {
    let said = refused(&["--set", "store.akc=durable"]);
    assert!(said.contains("store.akc") && said.contains("store.ack"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
}

#[test]
fn a_bad_value_is_named_with_what_is_expected() {
    for (assignment, hint) in [
        ("store.ack=always", "durable"),
        ("transaction.timeout=soon", "6s"),
        ("store.segment_size=64MB;", "MiB"),
        ("transaction.check_max=-1", "transaction.check_max"),
    ] {
        let said = refused(&["--set", assignment]);
        assert!(said.contains(hint), "{assignment}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}

#[test]
fn a_segment_too_small_for_the_largest_message_is_refused() {
    let said = refused(&["--set", "store.segment_size=1MiB"]);
    assert!(said.contains("store.segment_size") && said.contains("limits.message_size"), "{said}");
}

#[test]
fn a_port_in_use_is_named() {
    let dir = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = dir.path().join("data");
    let said = refused(&[
        "--data-dir",
        data.to_str().unwrap(),
        "--listen",
        &address,
        "--name-server-listen",
        "127.0.0.1:0",
    ]);
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
}

#[test]
fn a_data_folder_that_another_broker_owns_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let owner = Binary::serve(&data, &log, &SMALL);
    let arguments = [
        "--data-dir",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--name-server-listen",
        "127.0.0.1:0",
    ];
    let said = refused(&arguments);
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    Producer::connect(owner.broker, "PG_program").send("orders", 0, b"x", &[]);
    assert_eq!(owner.terminate().code(), Some(0));
}

#[test]
fn a_data_folder_of_another_version_is_refused_and_left_alone() {
    for (version, said) in [(3, "newer version"), (1, "written by a development version")] {
        folder_is_refused(version, said);
    }
}

fn folder_is_refused(version: u8, expected: &str) {
    let dir = TempDir::new().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    Binary::serve(&data, &log, &SMALL).terminate();
    let base = data.join("base");
    let file =
        fs::read_dir(&base).expect("a base is written at the first start").flatten().next().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    // version (u16 at 10); the header's checksum (u32 at 92, over bytes 0 to 91) is made to hold
    bytes[10] = version;
    let crc = crc32(&bytes[..92]);
    bytes[92..96].copy_from_slice(&crc.to_le_bytes());
    for entry in
        fs::read_dir(&base).unwrap().flatten().chain(fs::read_dir(data.join("checkpoint")).unwrap().flatten())
    {
        if entry.path() != file {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    fs::write(&file, &bytes).unwrap();
    let said = refused(&[
        "--data-dir",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--name-server-listen",
        "127.0.0.1:0",
    ]);
    assert!(said.contains(expected), "{said}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

/// CRC-32 (IEEE), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1)))
    };
    !bytes.iter().fold(!0, step)
}

#[test]
fn the_configuration_that_it_prints_is_one_that_it_accepts() {
    let dir = TempDir::new().unwrap();
    let printed = run(&["config"]);
    assert!(printed.status.success());
    let file = dir.path().join("mezzo.toml");
    fs::write(&file, &printed.stdout).unwrap();
    let again = run(&["config", "--config", file.to_str().unwrap()]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(again.stdout, printed.stdout);
}
