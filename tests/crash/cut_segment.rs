//! Somebody cuts a file of the log while the broker serves from it. No program can read what is gone: a read through the
//! map ends the process with SIGBUS, as a kill does. Nothing is answered with other bytes, the next start is refused and
//! names the file, and when the loss is accepted the rest is served.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use mezzo_tests::binary::Binary;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Producer, SUCCESS};
use mezzo_tests::wait::{self, PATIENCE};
use tempfile::TempDir;

const SIGBUS: i32 = 7;
const MESSAGES: u64 = 60;
const SETTINGS: [&str; 3] =
    ["limits.message_size=128KiB", "store.segment_size=1MiB", "store.checkpoint_size=1MiB"];

fn body(number: u64) -> Vec<u8> {
    let mut body = number.to_string().into_bytes();
    body.resize(60_000, b'x');
    body
}

fn first_segment(data: &Path) -> PathBuf {
    let mut names: Vec<PathBuf> =
        fs::read_dir(data.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.remove(0)
}

fn has_checkpoint_behind(data: &Path, position: u64) -> Option<()> {
    let names = fs::read_dir(data.join("checkpoint")).unwrap().flatten();
    let newest =
        names.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    newest.max().filter(|newest| *newest > position).map(drop)
}

#[test]
fn a_segment_that_somebody_cuts_is_never_served_with_other_bytes_and_the_rest_goes_on() {
    let scratch = TempDir::new().unwrap();
    let (data, log) = (scratch.path().join("data"), scratch.path().join("log"));
    let binary = Binary::serve(&data, &log, &SETTINGS);
    let mut producer = Producer::connect(binary.broker, "PG_cut");
    for number in 0..MESSAGES {
        producer.send_when_there_is_room("orders", 0, &body(number));
    }
    wait::until("the next start need not read the first segment", || has_checkpoint_behind(&data, 2 << 20));
    let mut consumer = Consumer::connect(binary.broker, "CG_cut");
    assert_eq!(consumer.drain("orders", 0, 0).len() as u64, MESSAGES, "all of it is mapped now");
    let victim = first_segment(&data);
    File::options().write(true).open(&victim).unwrap().set_len(4096).unwrap();

    let pull = consumer.pull_request("orders", 0, 0, "*", "4", "0");
    consumer.wire.send(&pull);
    let answer = consumer.wire.try_answer(pull.opaque, PATIENCE);
    assert!(answer.as_ref().is_none_or(|answer| answer.code != SUCCESS), "bytes that are gone are served");
    let (status, logged) = binary.ends_by_itself();
    assert_eq!(status.signal(), Some(SIGBUS), "{logged}");

    let why = Binary::try_serve(&data, &log, &SETTINGS).expect_err("a part of the log is gone");
    assert!(why.contains(victim.to_str().unwrap()) && why.contains("offset 4096"), "{why}");
    let folder = data.to_str().unwrap();
    let repaired = mezzo_tests::binary::run(&["log", "repair", "--accept-loss", "--data-dir", folder]);
    assert!(repaired.status.success(), "{}", String::from_utf8_lossy(&repaired.stderr));

    let binary = Binary::serve(&data, &log, &SETTINGS);
    let mut consumer = Consumer::connect(binary.broker, "CG_cut");
    let first = consumer.pull("orders", 0, 0, "*");
    let first = first.ext_value("minOffset").and_then(|offset| offset.parse().ok()).unwrap();
    let rest = consumer.drain("orders", 0, first);
    let numbers: Vec<u64> = (MESSAGES - rest.len() as u64..MESSAGES).collect();
    assert!(numbers.len() as u64 > MESSAGES / 2 && (numbers.len() as u64) < MESSAGES, "{}", numbers.len());
    for (number, message) in numbers.into_iter().zip(&rest) {
        assert!(message.body == body(number), "{number} has other bytes");
    }
    assert_eq!(binary.terminate().code(), Some(0));
}
