//! Power cuts at random moments: what was not synced is lost, and the file system replays its journal.

use std::io::{self, Write};
use std::path::PathBuf;

use mezzo_tests::binary::Binary;
use mezzo_tests::chance::Chance;
use mezzo_tests::loop_disk::LoopDisk;
use tempfile::TempDir;

use super::rounds::{self, Machine};

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
    let why =
        if cuts == 0 { Some("MEZZO_POWER_CUTS=0".to_owned()) } else { LoopDisk::unavailable(scratch.path()) };
    if let Some(why) = why {
        // past the test runner's capture: nobody is to take this for a power cut that was survived
        writeln!(io::stderr(), "skipped: no power is cut: {why}").expect("standard error is open");
        return;
    }
    let chance = Chance::for_test("power cut");
    let disk = LoopDisk::create(scratch.path()).expect("the probe could mount a disk here");
    let mut machine = Unplugged { disk };
    rounds::run(&mut machine, cuts, chance, &mut scratch);
}
