//! A wall clock that is set while the broker runs, or while it does not: deadlines come neither early nor late. The clock
//! is the program's own, set through the shim; a time namespace would move only clocks that the broker does not compare.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use mezzo_tests::binary::Binary;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};
use mezzo_tests::shim::Shim;
use mezzo_tests::wait::{self, PATIENCE};
use tempfile::TempDir;

const DAY: i64 = 24 * 3600;
const HOUR: i64 = 3600;
/// The deadline of these tests' transactions, and the delay of their messages (level 1): short for a real clock.
const SOON: Duration = Duration::from_secs(1);
const SETTINGS: [&str; 4] = [
    "limits.message_size=128KiB",
    "store.segment_size=1MiB",
    "transaction.timeout=1s",
    "transaction.check_interval=1s",
];

struct Stage {
    scratch: TempDir,
    shim: Shim,
}

impl Stage {
    /// `None`, and a sentence, where the shim cannot be built.
    fn set() -> Option<Self> {
        let scratch = TempDir::new().expect("a temporary folder can be made");
        match Shim::build(scratch.path()) {
            Ok(shim) => Some(Self { scratch, shim }),
            Err(why) => {
                writeln!(io::stderr(), "skipped: no clock jumps: {why}").expect("standard error is open");
                None
            }
        }
    }

    fn serve(&self) -> Binary {
        let (data, log) = (self.scratch.path().join("data"), self.scratch.path().join("log"));
        Binary::serve_with(&data, &log, &SETTINGS, &self.shim.environment())
    }
}

/// A delayed message is sent; it must be visible after its delay on a clock that nobody sets, neither before nor much
/// later, though the broker's clock is set `by` seconds meanwhile.
fn delayed(stage: &Stage, binary: &Binary, from: i64, by: i64) {
    let mut producer = Producer::connect(binary.broker, "PG_clock");
    let mut consumer = Consumer::connect(binary.broker, "CG_clock");
    let seen = consumer.drain_all_if_there("later", 4).len();
    let sent_at = Instant::now();
    producer.send("later", 0, b"later", &[("DELAY", "1")]);
    stage.shim.set_clock(from + by);
    // forward, the clock says itself that the time has come
    wait::until("the message is due", || {
        (consumer.drain_all_if_there("later", 4).len() > seen).then_some(())
    });
    if by <= 0 {
        assert!(sent_at.elapsed() >= SOON * 9 / 10, "early: after {:?}", sent_at.elapsed());
    }
}

#[test]
fn a_clock_that_is_set_back_makes_nothing_early_and_nothing_late() {
    let Some(stage) = Stage::set() else { return };
    let binary = stage.serve();
    let mut producer = Producer::connect(binary.broker, "PG_clock");
    let prepared_at = Instant::now();
    let half = producer.half("orders", b"paid");
    stage.shim.set_clock(-DAY);
    assert_eq!(producer.asked(PATIENCE), Some(half.clone()), "a day is not waited for");
    assert!(prepared_at.elapsed() >= SOON * 9 / 10, "early: after {:?}", prepared_at.elapsed());
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    delayed(&stage, &binary, -DAY, -HOUR);
    assert_eq!(binary.terminate().code(), Some(0));

    // and it stays so for a start with a clock that is behind its own log
    stage.shim.set_clock(-2 * DAY);
    let binary = stage.serve();
    let mut producer = Producer::connect(binary.broker, "PG_clock");
    let half = producer.half("orders", b"paid again");
    assert_eq!(producer.asked(PATIENCE), Some(half.clone()));
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    delayed(&stage, &binary, -2 * DAY, 0);
    let delivered = Consumer::connect(binary.broker, "CG_clock").drain_all("orders", 4);
    assert_eq!(delivered.len(), 2);
}

#[test]
fn a_clock_that_is_set_forward_asks_at_once_and_decides_nothing() {
    let Some(stage) = Stage::set() else { return };
    let binary = stage.serve();
    let mut producer = Producer::connect(binary.broker, "PG_clock");
    let half = producer.half_with("orders", 0, b"paid", &[("CHECK_IMMUNITY_TIME_IN_SECONDS", "600")]);
    stage.shim.set_clock(HOUR);
    assert_eq!(producer.asked(PATIENCE), Some(half.clone()));
    // far beyond every deadline: parked, and still open for its decision
    stage.shim.set_clock(10 * DAY);
    producer.heartbeat();
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    delayed(&stage, &binary, 10 * DAY, HOUR);
    // back to the true time: all goes on
    stage.shim.set_clock(0);
    let half = producer.half("orders", b"after");
    assert_eq!(producer.asked(PATIENCE), Some(half.clone()));
    assert_eq!(producer.end(&half, Verdict::RollBack).code, SUCCESS);
    delayed(&stage, &binary, 0, 0);
    assert_eq!(Consumer::connect(binary.broker, "CG_clock").drain_all("orders", 4).len(), 1);
}
