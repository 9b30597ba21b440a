//! Retention on a disk that is really full: an ext4 file system of a few dozen megabytes, filled by the broker itself.
//! What is old goes, what is undecided is carried, and producers go on at the pace at which there is room.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mezzo_tests::binary::Binary;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::loop_disk::LoopDisk;
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};
use mezzo_tests::wait;
use tempfile::TempDir;

const DISK_BYTES: u64 = 88 << 20;
const SYSTEM_BUSY: i32 = 2;
const SMALL: [&str; 4] = [
    "limits.message_size=128KiB",
    "store.segment_size=1MiB",
    // checkpoints all the time: they meet the full disk, too
    "store.checkpoint_size=1MiB",
    "server.reactors=2",
];

struct Place {
    disk: LoopDisk,
    scratch: TempDir,
}

impl Place {
    /// `None`, and said so, where no disk image can be mounted.
    fn find(test: &str) -> Option<Self> {
        let scratch = TempDir::new().expect("a temporary folder can be made");
        if let Some(why) = LoopDisk::unavailable(scratch.path()) {
            writeln!(io::stderr(), "skipped: {test}: {why}").expect("standard error is open");
            return None;
        }
        let disk =
            LoopDisk::create_of(scratch.path(), DISK_BYTES).expect("the probe could mount a disk here");
        Some(Self { disk, scratch })
    }

    fn serve(&self, settings: &[&str]) -> Binary {
        let settings: Vec<&str> = SMALL.into_iter().chain(settings.iter().copied()).collect();
        Binary::serve(&self.disk.path().join("data"), &self.log(), &settings)
    }

    fn log(&self) -> PathBuf {
        self.scratch.path().join("log")
    }
}

fn no_crash_in(log: &Path) {
    let logged = fs::read_to_string(log).unwrap_or_default();
    assert!(!logged.contains("fenced") && !logged.contains("panicked"), "{logged}");
}

#[test]
fn on_a_full_disk_retention_makes_room_and_carries_what_is_undecided() {
    let Some(place) = Place::find("retention on a full disk") else { return };
    let binary = place.serve(&["store.retention=4s"]);
    let mut producer = Producer::connect(binary.broker, "PG_carry");
    let half = producer.half("orders", b"undecided");
    // a group that is not there yet would need room of its own
    let mut consumer = Consumer::connect(binary.broker, "CG_carry");
    consumer.drain("orders", 0, 0);
    let body = [b'y'; 100_000];
    // several times the disk, at whatever pace retention makes room
    let mut refused = 0_u32;
    for _ in 0..2_000 {
        wait::until("retention makes room", || {
            let (code, remark) = producer.try_send("orders", 0, &body);
            assert!(code == SUCCESS || code == SYSTEM_BUSY, "{code}: {remark}");
            refused += u32::from(code == SYSTEM_BUSY);
            (code == SUCCESS).then_some(())
        });
    }
    assert!(refused > 0, "the disk was never full");
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    let from = consumer.pull("orders", 0, 0, "*");
    let from = from.ext_value("minOffset").and_then(|offset| offset.parse().ok()).unwrap_or(0);
    let found = consumer.drain("orders", 0, from);
    assert_eq!(found.iter().filter(|message| message.body == b"undecided").count(), 1);
    assert_eq!(binary.terminate().code(), Some(0), "a stop in order");
    no_crash_in(&place.log());
}
