//! A disk that fails once and then says that all is well: the program believes it the first time. Nothing is acknowledged
//! behind the failure, it ends by itself with the code that says so, and the next start has all that was acknowledged,
//! although what the failed sync was to bring to the disk is gone.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use mezzo_tests::binary::Binary;
use mezzo_tests::chance::Chance;
use mezzo_tests::shim::Shim;
use tempfile::TempDir;

use super::rounds::{self, Machine};

/// The code with which `mezzo serve` ends when the disk has failed it (`docs/durability.md`).
const DISK_FAILED: i32 = 74;

struct Failing {
    data_dir: PathBuf,
    shim: Shim,
    /// Only paths with this part fail.
    part: &'static str,
    what: &'static str,
}

impl Machine for Failing {
    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    fn environment(&self) -> Vec<(String, String)> {
        self.shim.environment_for(self.part)
    }

    fn crash(&mut self, binary: Binary) {
        self.shim.fail(self.what);
        self.shim.wait_until_struck();
        let (status, logged) = binary.ends_by_itself();
        assert_eq!(status.code(), Some(DISK_FAILED), "{}:\n{logged}", self.what);
        assert!(logged.contains("the disk failed; nothing more is acknowledged"), "{logged}");
    }
}

fn run(part: &'static str, what: &'static str) {
    let mut scratch = TempDir::new().expect("a temporary folder can be made");
    let Some(shim) = built(&scratch) else { return };
    let chance = Chance::for_test(what);
    let mut machine = Failing { data_dir: scratch.path().join("data"), shim, part, what };
    rounds::run(&mut machine, rounds::rounds("MEZZO_DISK_FAILURES", 3), chance, &mut scratch);
}

/// The shim, or a sentence past the test runner's capture: nobody is to take this for a failure that was survived.
pub(super) fn built(scratch: &TempDir) -> Option<Shim> {
    let built = Shim::build(scratch.path());
    if let Err(why) = &built {
        writeln!(io::stderr(), "skipped: no disk fails: {why}").expect("standard error is open");
    }
    built.ok()
}

#[test]
fn what_producers_were_told_survives_a_failed_sync_and_nothing_is_told_behind_it() {
    run("/log/", "sync EIO");
}

/// A prepared segment whose name is not on the disk would take all that is written to it along.
#[test]
fn what_producers_were_told_survives_a_failed_sync_of_the_logs_folder() {
    run("/data/log/", "folder EIO");
}

/// A checkpoint that named pages which are not on the disk would be believed at the next start.
#[test]
fn what_producers_were_told_survives_a_failed_sync_of_the_consume_queues() {
    run("/queues/", "sync EIO");
}

#[test]
fn what_producers_were_told_survives_a_failed_write_and_nothing_is_told_behind_it() {
    run("/log/", "write EIO");
}

#[test]
fn what_producers_were_told_survives_a_write_that_finds_no_space() {
    run("/log/", "write ENOSPC");
}

/// A disk that loses what it was to sync and says that all went well: no program can survive that, and these tests must
/// not say that it has.
struct Lying(Failing);

impl Machine for Lying {
    fn data_dir(&self) -> PathBuf {
        self.0.data_dir()
    }

    fn environment(&self) -> Vec<(String, String)> {
        self.0.environment()
    }

    fn crash(&mut self, binary: Binary) {
        self.0.shim.fail(self.0.what);
        self.0.shim.wait_until_struck();
        // what is acknowledged behind the lie stands on nothing
        thread::sleep(Duration::from_millis(100));
        binary.kill();
    }
}

#[test]
fn a_disk_that_lies_is_noticed_by_these_tests() {
    let mut scratch = TempDir::new().expect("a temporary folder can be made");
    let Some(shim) = built(&scratch) else { return };
    let chance = Chance::for_test("sync lies");
    let mut machine =
        Lying(Failing { data_dir: scratch.path().join("data"), shim, part: "/log/", what: "sync lies" });
    let judged = catch_unwind(AssertUnwindSafe(|| rounds::run(&mut machine, 3, chance, &mut scratch)));
    scratch.disable_cleanup(false);
    assert!(judged.is_err(), "a loss was not noticed");
}

/// Every write may be cut short or interrupted at any time; that is no failure.
struct Interrupted(Failing);

impl Machine for Interrupted {
    fn data_dir(&self) -> PathBuf {
        self.0.data_dir()
    }

    fn environment(&self) -> Vec<(String, String)> {
        self.0.environment()
    }

    fn crash(&mut self, binary: Binary) {
        self.0.shim.fail("short");
        // not synchronisation: so long writes are cut short
        thread::sleep(Duration::from_millis(300));
        binary.kill();
        self.0.shim.be_well();
    }
}

#[test]
fn writes_that_are_cut_short_or_interrupted_are_finished() {
    let mut scratch = TempDir::new().expect("a temporary folder can be made");
    let Some(shim) = built(&scratch) else { return };
    let chance = Chance::for_test("short writes");
    let mut machine =
        Interrupted(Failing { data_dir: scratch.path().join("data"), shim, part: "/log/", what: "short" });
    rounds::run(&mut machine, rounds::rounds("MEZZO_DISK_FAILURES", 3), chance, &mut scratch);
}
