//! Power cuts at random moments: what was not synced is lost, and the file system replays its journal. Also a file system
//! that ends itself, as ext4 does when its disk fails it.

use std::io::{self, Write};
use std::path::PathBuf;

use mezzo_tests::binary::Binary;
use mezzo_tests::chance::Chance;
use mezzo_tests::loop_disk::LoopDisk;
use tempfile::TempDir;

use super::rounds::{self, Machine};

/// The disk, or a sentence past the test runner's capture: nobody is to take this for a power cut that was survived.
pub(super) fn disk(rounds: u32, scratch: &TempDir) -> Option<LoopDisk> {
    let why = if rounds == 0 {
        Some("MEZZO_POWER_CUTS=0".to_owned())
    } else {
        LoopDisk::unavailable(scratch.path())
    };
    if let Some(why) = why {
        writeln!(io::stderr(), "skipped: no power is cut: {why}").expect("standard error is open");
        return None;
    }
    Some(LoopDisk::create(scratch.path()).expect("the probe could mount a disk here"))
}

struct Unplugged {
    disk: LoopDisk,
}

impl Machine for Unplugged {
    fn data_dir(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    fn crash(&mut self, binary: Binary) {
        // frozen, it can neither write nor answer; so whatever was answered before is held against the copy
        binary.freeze();
        self.disk.copy_as_after_a_power_cut();
        binary.kill();
        self.disk.turn_on_the_copy();
    }
}

#[test]
fn what_producers_were_told_survives_a_power_cut() {
    let cuts = rounds::rounds("MEZZO_POWER_CUTS", 2);
    let mut scratch = TempDir::new().expect("a temporary folder can be made");
    let Some(disk) = disk(cuts, &scratch) else { return };
    let chance = Chance::for_test("power cut");
    let mut machine = Unplugged { disk };
    rounds::run(&mut machine, cuts, chance, &mut scratch);
}

/// The code with which `mezzo serve` ends when the disk has failed it (`docs/durability.md`).
const DISK_FAILED: i32 = 74;

/// Its file system becomes read-only in the middle of everything.
struct Aborted {
    disk: LoopDisk,
}

impl Machine for Aborted {
    fn data_dir(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    fn crash(&mut self, binary: Binary) {
        self.disk.abort().expect("an ext4 file system can be aborted");
        let (status, logged) = binary.ends_by_itself();
        assert_eq!(status.code(), Some(DISK_FAILED), "{logged}");
        assert!(logged.contains("the disk failed; nothing more is acknowledged"), "{logged}");
        self.disk.turn_on_again();
    }
}

#[test]
fn what_producers_were_told_survives_a_file_system_that_becomes_read_only() {
    let cuts = rounds::rounds("MEZZO_POWER_CUTS", 2).div_ceil(3);
    let mut scratch = TempDir::new().expect("a temporary folder can be made");
    let Some(disk) = disk(cuts, &scratch) else { return };
    let chance = Chance::for_test("read-only");
    let mut machine = Aborted { disk };
    rounds::run(&mut machine, cuts, chance, &mut scratch);
}
