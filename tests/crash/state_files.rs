//! A disk that fails once while a file is written that the log could be folded without: base, checkpoint, history. Such a
//! file is written anew, under a new name, until that goes well; the segment that it stands for stays until then, nobody
//! is told that anything is wrong, and a kill afterwards finds everything.

use std::fs;
use std::path::Path;

use mezzo_tests::binary::Binary;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Half, Producer, SUCCESS, Verdict};
use mezzo_tests::shim::Shim;
use mezzo_tests::wait;
use tempfile::TempDir;

use super::disk_fails::built;
use super::rounds;

const SETTINGS: [&str; 6] = [
    "limits.message_size=128KiB",
    "store.segment_size=1MiB",
    "store.checkpoint_size=1MiB",
    "store.retention=1s",
    "transaction.timeout=1h",
    "transaction.check_interval=1h",
];
const GROUP: &str = "PG_files";

/// Base of the oldest segment of the log.
fn oldest_segment(data: &Path) -> u64 {
    let names = fs::read_dir(data.join("log")).unwrap().flatten();
    let bases = names.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    bases.min().expect("there is a segment")
}

/// Fills segments until `done`.
fn fill(producer: &mut Producer, what: &str, mut done: impl FnMut() -> bool) {
    wait::until(what, || {
        for _ in 0..4 {
            producer.try_send("ballast", 0, &[b'x'; 60_000]);
        }
        done().then_some(())
    });
}

fn life(shim: &Shim, part: &str, what: &str, scratch: &Path) {
    let name = format!("{}-{}", part.replace('/', ""), what.replace(' ', ""));
    let (data, log) = (scratch.join(&name), scratch.join(format!("{name}.log")));
    let binary = Binary::serve_with(&data, &log, &SETTINGS, &shim.environment_for(part));
    let mut producer = Producer::connect(binary.broker, GROUP);
    let halves: Vec<Half> = (0..8).map(|_| producer.half("orders", b"paid")).collect();
    let (decided, open) = halves.split_at(4);
    for half in decided {
        assert_eq!(producer.end(half, Verdict::RollBack).code, SUCCESS);
    }
    shim.fail(what);
    fill(&mut producer, "the fault strikes", || shim.has_struck());
    let logged = binary.logged();
    assert!(!logged.contains("the disk failed"), "{name}: {logged}");
    // it is tried again, and what waits for the file goes on
    let before = oldest_segment(&data);
    fill(&mut producer, "retention goes on", || oldest_segment(&data) > before);
    binary.kill();

    let binary = Binary::serve(&data, &log, &SETTINGS);
    let mut producer = Producer::connect(binary.broker, GROUP);
    for half in decided {
        assert_eq!(producer.end(half, Verdict::RollBack).code, SUCCESS, "{name}: said again");
        assert_ne!(producer.end(half, Verdict::Commit).code, SUCCESS, "{name}: contradicted");
    }
    for half in open {
        assert_eq!(producer.end(half, Verdict::Commit).code, SUCCESS, "{name}: it is still open");
    }
    let delivered = Consumer::connect(binary.broker, "CG_files").drain("orders", 0, 0);
    assert_eq!(delivered.len(), open.len(), "{name}");
    assert_eq!(binary.terminate().code(), Some(0), "{name}");
}

#[test]
fn a_failed_sync_of_base_checkpoint_or_history_is_made_good_by_a_new_file() {
    let scratch = TempDir::new().expect("a temporary folder can be made");
    let Some(shim) = built(&scratch) else { return };
    if rounds::rounds("MEZZO_DISK_FAILURES", 3) == 0 {
        return;
    }
    for part in ["/base/", "/checkpoint/", "/history/"] {
        for what in ["sync EIO", "folder EIO"] {
            life(&shim, part, what, scratch.path());
            shim.be_well();
        }
    }
}
