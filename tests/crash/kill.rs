//! kill -9 at random moments: the operating system keeps what was written, the program forgets all else.

use std::path::PathBuf;

use mezzo_tests::binary::Binary;
use mezzo_tests::chance::Chance;
use tempfile::TempDir;

use super::rounds::{self, Machine};

struct Killed {
    data_dir: PathBuf,
    ack: Option<&'static str>,
}

impl Machine for Killed {
    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    fn setting(&self) -> Option<&'static str> {
        self.ack
    }

    fn crash(&mut self, binary: Binary) {
        binary.kill();
    }
}

fn run(ack: Option<&'static str>, rounds: u32) {
    let chance = Chance::for_test("kill -9");
    let mut scratch = TempDir::new().expect("a temporary folder can be made");
    let mut machine = Killed { data_dir: scratch.path().join("data"), ack };
    rounds::run(&mut machine, rounds, chance, &mut scratch);
}

#[test]
fn what_producers_were_told_survives_kill_9() {
    run(None, rounds::rounds("MEZZO_KILL_ROUNDS", 4));
}

#[test]
fn at_ack_memory_what_producers_were_told_survives_kill_9() {
    run(Some("store.ack=memory"), rounds::rounds("MEZZO_KILL_ROUNDS", 4).div_ceil(4));
}
