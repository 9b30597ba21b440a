//! A disk that fills up under load: sends are refused with a code that clients try again after, the program lives on and
//! takes decisions, a kill in that state loses nothing, and when there is space again all goes on. Every other round is at
//! ack `memory`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mezzo_tests::binary::Binary;
use mezzo_tests::chance::Chance;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::load::{Load, SharedOracle, insist};
use mezzo_tests::loop_disk::LoopDisk;
use mezzo_tests::oracle::Oracle;
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};
use mezzo_tests::wait;
use tempfile::TempDir;

use super::rounds::rounds;

const SYSTEM_BUSY: i32 = 2;
const TOPIC: &str = "full";
const OTHERS_TOPIC: &str = "others";
const GROUP: &str = "PG_full";
const QUEUES: u32 = 2;
/// What the ballast leaves free at first: a few segments.
const LEFT_BYTES: u64 = 12 << 20;
const BALLAST_STEP_BYTES: usize = 1 << 20;
const SETTINGS: [&str; 5] = [
    "limits.message_size=128KiB",
    "store.segment_size=1MiB",
    "store.checkpoint_size=2MiB",
    "transaction.timeout=1h",
    "transaction.check_interval=1h",
];

/// Writes a file that leaves `left` bytes free.
fn ballast(disk: &LoopDisk, left: u64) {
    let mut file = File::options().create(true).append(true).open(disk.path().join("ballast")).unwrap();
    let piece = vec![0xA5; BALLAST_STEP_BYTES];
    for _ in 0..disk.free_bytes().saturating_sub(left) / BALLAST_STEP_BYTES as u64 {
        file.write_all(&piece).unwrap();
    }
    file.sync_all().unwrap();
}

/// Sends until the broker says that it is busy; then that it lives.
fn fill(producer: &mut Producer) {
    let began = Instant::now();
    loop {
        let (request, _) = producer.message_request(TOPIC, 0, &[b'x'; 60_000]);
        producer.wire.send(&request);
        let answer = producer.wire.answer(request.opaque);
        if answer.code == SYSTEM_BUSY {
            return;
        }
        assert_eq!(answer.code, SUCCESS, "{:?}", answer.remark);
        assert!(began.elapsed() < wait::PATIENCE * 3, "the disk does not fill up");
    }
}

#[test]
fn a_full_disk_refuses_sends_takes_decisions_and_recovers_when_there_is_space() {
    let count = rounds("MEZZO_FULL_DISKS", 1);
    let scratch = TempDir::new().unwrap();
    let why = if count == 0 {
        Some("MEZZO_FULL_DISKS=0".to_owned())
    } else {
        LoopDisk::unavailable(scratch.path())
    };
    if let Some(why) = why {
        // past the test runner's capture: nobody is to take this for a disk that was full
        writeln!(io::stderr(), "skipped: no disk is filled: {why}").unwrap();
        return;
    }
    let mut chance = Chance::for_test("disk full");
    let oracle: SharedOracle =
        Arc::new(Mutex::new(Oracle::with_history(&scratch.path().join("history.txt"))));
    let disk = LoopDisk::create(scratch.path()).expect("the probe could mount a disk here");
    let (data, log) = (disk.path().join("data"), scratch.path().join("mezzo.log"));
    for round in 0..count {
        let ack = ["store.ack=durable", "store.ack=memory"][round as usize % 2];
        let settings: Vec<&str> = SETTINGS.into_iter().chain([ack]).collect();
        let binary = Binary::serve(&data, &log, &settings);
        let mut producer = Producer::connect(binary.broker, GROUP);
        let open: Vec<_> = (0..20).map(|_| producer.half(TOPIC, b"open")).collect();
        ballast(&disk, LEFT_BYTES);
        // others work meanwhile, and are refused as well
        let broker = binary.broker;
        let load =
            Load { broker, topic: OTHERS_TOPIC, queues: QUEUES, group: GROUP, oracle: Arc::clone(&oracle) };
        let workers = load.start(2, &mut chance);
        fill(&mut producer);
        for half in &open[..10] {
            let answer = producer.end(half, Verdict::Commit);
            assert_eq!(answer.code, SUCCESS, "a decision is taken on a full disk: {:?}", answer.remark);
        }
        producer.heartbeat();
        // killed while it is full: it comes back while it still is, or says that there is no room to start in
        binary.kill();
        for worker in workers {
            worker.join().expect("no answer contradicts the protocol");
        }
        let started = Binary::try_serve(&data, &log, &settings);
        let started = started.map_err(|said| {
            assert!(said.contains("No space left on device") && said.contains("make room"), "{said}");
            println!("round {round}: no room to start in");
        });
        if let Ok(binary) = &started {
            let mut producer = Producer::connect(binary.broker, GROUP);
            for half in &open[10..] {
                let answer = producer.end(half, Verdict::RollBack);
                assert_eq!(answer.code, SUCCESS, "a decision is taken on a full disk: {:?}", answer.remark);
            }
        }
        fs::remove_file(disk.path().join("ballast")).unwrap();
        let binary = started.unwrap_or_else(|()| Binary::serve(&data, &log, &settings));
        let mut producer = Producer::connect(binary.broker, GROUP);
        for half in &open[10..] {
            assert_eq!(producer.end(half, Verdict::RollBack).code, SUCCESS);
        }
        wait::until("sends are taken again when there is space", || {
            let (request, _) = producer.message_request(TOPIC, 0, b"again");
            producer.wire.send(&request);
            (producer.wire.answer(request.opaque).code == SUCCESS).then_some(())
        });
        let mut oracle = oracle.lock().unwrap();
        let mut consumer = Consumer::connect(binary.broker, "CG_full");
        let mut wrong = Vec::new();
        for half in &open {
            let (kept, opposite) = if open[..10].contains(half) {
                (Verdict::Commit, Verdict::RollBack)
            } else {
                (Verdict::RollBack, Verdict::Commit)
            };
            if producer.end(half, kept).code != SUCCESS || producer.end(half, opposite).code == SUCCESS {
                wrong.push(format!("{} is not as decided", half.key));
            }
        }
        wrong.extend(insist(&mut oracle, &mut producer, &mut chance, 50));
        for queue in 0..QUEUES {
            let delivered = consumer.drain_if_there(OTHERS_TOPIC, queue, 0);
            wrong.extend(oracle.judge(queue, 0, &delivered));
        }
        wrong.extend(oracle.judge_all(true));
        let kept = consumer.drain(TOPIC, 0, 0).iter().filter(|message| message.body == b"open").count();
        assert_eq!(kept, 10 * (round as usize + 1), "what was committed on a full disk is delivered once");
        assert!(wrong.is_empty(), "round {round}:\n{}", wrong.join("\n"));
        let logged = binary.logged();
        assert!(!logged.contains("panicked"), "{logged}");
        assert_eq!(binary.terminate().code(), Some(0));
    }
}
