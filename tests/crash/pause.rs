//! SIGSTOP and SIGCONT at random moments: a program that stood still goes on where it was; also when the last thing it
//! hears is SIGKILL.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use mezzo_tests::binary::Binary;
use mezzo_tests::chance::Chance;
use tempfile::TempDir;

use super::rounds::{self, Machine};

/// Pauses of one round.
const PAUSES: u64 = 3;
/// Longest pause, in milliseconds.
const PAUSE_MS_MAX: u64 = 400;
/// Longest time between two pauses, in milliseconds.
const WORK_MS_MAX: u64 = 200;

struct Paused {
    data_dir: PathBuf,
    chance: Chance,
}

impl Machine for Paused {
    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    fn crash(&mut self, binary: Binary) {
        // not synchronisation: how long it stands and how long it works is what is drawn here
        for _ in 0..PAUSES {
            binary.freeze();
            thread::sleep(Duration::from_millis(self.chance.below(PAUSE_MS_MAX)));
            binary.thaw();
            thread::sleep(Duration::from_millis(self.chance.below(WORK_MS_MAX)));
        }
        if self.chance.below(2) == 0 {
            binary.freeze();
            binary.kill();
        } else {
            assert_eq!(binary.terminate().code(), Some(0), "a stop in order");
        }
    }
}

#[test]
fn what_producers_were_told_survives_pauses() {
    let mut chance = Chance::for_test("SIGSTOP");
    let mut scratch = TempDir::new().expect("a temporary folder can be made");
    let own = Chance::new(chance.below(u64::MAX >> 16));
    let mut machine = Paused { data_dir: scratch.path().join("data"), chance: own };
    rounds::run(&mut machine, rounds::rounds("MEZZO_PAUSE_ROUNDS", 3), chance, &mut scratch);
}
