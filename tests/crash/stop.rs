//! SIGTERM at random moments, for comparison: a stop in order under full load loses nothing either, ends with code 0, and
//! leaves a log that is continued in place.

use std::path::PathBuf;

use mezzo_tests::binary::Binary;
use mezzo_tests::chance::Chance;
use tempfile::TempDir;

use super::rounds::{self, Machine};

struct Stopped {
    data_dir: PathBuf,
}

impl Machine for Stopped {
    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    fn crash(&mut self, binary: Binary) {
        assert_eq!(binary.terminate().code(), Some(0), "a stop in order");
    }
}

#[test]
fn what_producers_were_told_survives_a_stop_in_order() {
    let chance = Chance::for_test("SIGTERM");
    let mut scratch = TempDir::new().expect("a temporary folder can be made");
    let mut machine = Stopped { data_dir: scratch.path().join("data") };
    rounds::run(&mut machine, rounds::rounds("MEZZO_STOP_ROUNDS", 3), chance, &mut scratch);
}
