//! What both kinds of crash have in common: load, crash, come back, hold everything against the oracle.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mezzo_tests::binary::Binary;
use mezzo_tests::chance::Chance;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::load::{Load, SharedOracle, insist};
use mezzo_tests::oracle::{Fate, Oracle};
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};
use tempfile::TempDir;

const TOPIC: &str = "crashes";
const GROUP: &str = "PG_crashes";
const QUEUES: u32 = 4;
const CONNECTIONS: u64 = 6;
/// Longest time under load before a crash.
const LOAD_MS_MAX: u64 = 700;
/// Decisions of earlier rounds that are contradicted after each crash.
const CONTRADICTIONS: usize = 20;
/// Transactions left open that are decided late after each crash.
const LATE_MAX: usize = 5;
/// Messages at the end of each queue that are read again after each crash.
const OVERLAP: usize = 500;
/// Every so many crashes, and after the last, everything is read again.
const WHOLE_EVERY: u32 = 20;
/// Small segments and checkpoints, so that crashes meet their boundaries often. No check-backs: the oracle alone says
/// what is decided.
const SETTINGS: [&str; 5] = [
    "limits.message_size=128KiB",
    "store.segment_size=1MiB",
    "store.checkpoint_size=2MiB",
    "transaction.timeout=1h",
    "transaction.check_interval=1h",
];

/// What a crash is.
pub(crate) trait Machine {
    /// Where the broker keeps its data.
    fn data_dir(&self) -> PathBuf;
    /// What the program finds in its environment besides.
    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// A setting of its own.
    fn setting(&self) -> Option<&'static str> {
        None
    }
    /// Ends the program the hard way; what its disk holds afterwards is what the next start finds.
    fn crash(&mut self, binary: Binary);
}

/// The number that an environment variable sets.
pub(crate) fn rounds(variable: &str, default: u32) -> u32 {
    env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Crashes `machine` so often, and judges after each time. `scratch` is kept when something is wrong.
pub(crate) fn run(machine: &mut impl Machine, rounds: u32, mut chance: Chance, scratch: &mut TempDir) {
    let oracle: SharedOracle =
        Arc::new(Mutex::new(Oracle::with_history(&scratch.path().join("history.txt"))));
    let log = scratch.path().join("mezzo.log");
    let more = env::var("MEZZO_CRASH_SET").ok();
    let settings: Vec<&str> = SETTINGS.into_iter().chain(machine.setting()).chain(more.as_deref()).collect();
    let began = Instant::now();
    for round in 0..=rounds {
        let binary = Binary::serve_with(&machine.data_dir(), &log, &settings, &machine.environment());
        {
            let mut oracle = oracle.lock().expect("no worker panicked");
            oracle.remark(&format!("# round {round}"));
            let whole = round % WHOLE_EVERY == 0 || round == rounds;
            let wrong = judge(&mut oracle, &binary, &mut chance, whole);
            if !wrong.is_empty() {
                oracle.flush_history();
                fail(round, &wrong, scratch);
            }
        }
        if round == rounds {
            finish(&oracle.lock().expect("no worker panicked"), binary, rounds, began);
            return;
        }
        let load = Load {
            broker: binary.broker,
            topic: TOPIC,
            queues: QUEUES,
            group: GROUP,
            oracle: Arc::clone(&oracle),
        };
        let workers = load.start(CONNECTIONS, &mut chance);
        // not synchronisation: the moment of the crash is what is drawn here
        thread::sleep(Duration::from_millis(chance.below(LOAD_MS_MAX)));
        machine.crash(binary);
        for worker in workers {
            worker.join().expect("no answer contradicts the protocol");
        }
    }
}

/// Looks at everything that is delivered, repeats what was cut off, contradicts what was decided, decides what was left.
fn judge(oracle: &mut Oracle, binary: &Binary, chance: &mut Chance, whole: bool) -> Vec<String> {
    let mut consumer = Consumer::connect(binary.broker, "CG_crashes");
    let mut wrong = look(oracle, &mut consumer, whole);
    let mut producer = Producer::connect(binary.broker, GROUP);
    // an END that was on its way is decided or not; if its message is there, it must have been a commit that won
    for (half, verdict) in oracle.ending() {
        let is_delivered = verdict == Verdict::Commit && oracle.is_delivered(&half.key);
        if is_delivered && producer.end(&half, Verdict::RollBack).code == SUCCESS {
            wrong.push(format!("{} is delivered, and yet a rollback was accepted", half.key));
        }
    }
    wrong.extend(insist(oracle, &mut producer, chance, CONTRADICTIONS));
    for half in oracle.some_prepared(chance, LATE_MAX) {
        let verdict = if chance.below(2) == 0 { Verdict::Commit } else { Verdict::RollBack };
        let answer = producer.end(&half, verdict);
        if answer.code == SUCCESS {
            oracle.note(&half.key.clone(), Fate::Decided(half, verdict));
        } else {
            wrong.push(format!(
                "{}: prepared before a crash, and its END is refused: {:?}",
                half.key, answer.remark
            ));
        }
    }
    wrong.extend(look(oracle, &mut consumer, false));
    wrong
}

/// Reads the topic, all of it or its end, and holds it against the oracle.
fn look(oracle: &mut Oracle, consumer: &mut Consumer, whole: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for queue in 0..QUEUES {
        let from = if whole { 0 } else { oracle.resume_at(queue, OVERLAP) };
        let delivered = consumer.drain_if_there(TOPIC, queue, from);
        wrong.extend(oracle.judge(queue, from, &delivered));
    }
    wrong.extend(oracle.judge_all(whole));
    wrong
}

fn finish(oracle: &Oracle, binary: Binary, rounds: u32, began: Instant) {
    let (committed, rolled_back, open) = oracle.counts();
    println!(
        "{rounds} rounds in {:.0} s: {committed} commits and {} ordinary messages delivered once each, {rolled_back} rollbacks never, {open} left open or cut off",
        began.elapsed().as_secs_f64(),
        oracle.stored()
    );
    assert!(committed > 0 || rounds == 0, "the load decided nothing");
    assert_eq!(binary.terminate().code(), Some(0));
}

fn fail(round: u32, wrong: &[String], scratch: &mut TempDir) -> ! {
    scratch.disable_cleanup(true);
    let kept = scratch.path();
    let _ = fs::write(kept.join("wrong.txt"), wrong.join("\n"));
    let shown: Vec<&str> = wrong.iter().take(20).map(String::as_str).collect();
    panic!(
        "after crash {round}, {} things are wrong (all in {}):\n{}",
        wrong.len(),
        kept.display(),
        shown.join("\n")
    );
}
