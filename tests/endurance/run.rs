//! The run: everything starts, lasts, comes to rest, and is judged.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mezzo_tests::binary::Binary;
use mezzo_tests::chance::Chance;
use mezzo_tests::producer::{Producer, SUCCESS};
use tempfile::TempDir;

use super::books::Books;
use super::producers::{QUEUES, World};
use super::samples::{self, Sample};
use super::{consumers, producers};

/// MEZZO_LIST_TRANSACTIONS.
const LIST: i32 = 7_700_001;
/// Time between two samples; a long run takes fewer.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// Most samples that are kept.
const SAMPLES_MAX: u32 = 7_200;
/// Rows of the table that is printed.
const ROWS: usize = 30;
/// Within this time after the load everything is decided and delivered.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Least time that messages are kept, and the share of the run: by the second third segments go as fast as they come.
const RETENTION_MIN_S: u64 = 3;
const RETENTION_SHARE: u64 = 12;

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn settings(seconds: u64) -> Vec<String> {
    let kept = (seconds / RETENTION_SHARE).clamp(RETENTION_MIN_S, 60);
    vec![
        "limits.message_size=128KiB".to_owned(),
        "store.segment_size=1MiB".to_owned(),
        "store.checkpoint_size=1MiB".to_owned(),
        // guests read the oldest messages from the disk
        "store.hot_size=2MiB".to_owned(),
        "store.max_bytes=128MiB".to_owned(),
        "history.max_bytes=16MiB".to_owned(),
        "store.scrub_interval=1s".to_owned(),
        format!("store.retention={kept}s"),
        format!("history.horizon={kept}s"),
        "transaction.timeout=1s".to_owned(),
        "transaction.check_interval=1s".to_owned(),
        "transaction.check_max=1000".to_owned(),
    ]
}

/// What a thread does.
type Task = Box<dyn FnOnce(&World, Chance) + Send>;

/// Whoever works until it is told to rest, and whoever works until all is over.
struct Crew {
    restless: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

impl Crew {
    fn hire(world: &Arc<World>, rate: u32, mut chance: Chance) -> Self {
        let mut work = |task: Task| {
            let (world, own) = (Arc::clone(world), Chance::new(chance.below(u64::MAX >> 16)));
            thread::spawn(move || task(&world, own))
        };
        let each = rate / 4;
        let mut restless: Vec<_> = [false, false, true, true]
            .map(|transactions| {
                work(Box::new(move |world, chance| producers::produce(world, chance, each, transactions)))
            })
            .into();
        restless.push(work(Box::new(consumers::visit)));
        let mut others: Vec<_> = (0..QUEUES)
            .map(|queue| work(Box::new(move |world, chance| consumers::follow(world, chance, queue))))
            .collect();
        others.push(work(Box::new(producers::answer)));
        Self { restless, others }
    }
}

/// Transactions that the broker lists as open.
fn open(binary: &Binary) -> usize {
    let reply = Producer::connect(binary.broker, "PG_watch").wire.call(LIST, &[], b"");
    assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
    let page: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    page["transactions"].as_array().unwrap().len()
}

#[test]
fn under_steady_load_nothing_is_lost_or_doubled_and_nothing_grows() {
    let seconds = setting("MEZZO_ENDURANCE_SECONDS", 30);
    if seconds == 0 {
        writeln!(io::stderr(), "skipped: no endurance: MEZZO_ENDURANCE_SECONDS=0").unwrap();
        return;
    }
    let rate = u32::try_from(setting("MEZZO_ENDURANCE_RATE", 400)).unwrap();
    let chance = Chance::for_test("endurance");
    let mut scratch = TempDir::new().unwrap();
    let (data, log) = (scratch.path().join("data"), scratch.path().join("mezzo.log"));
    let settings = settings(seconds);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let binary = Binary::serve(&data, &log, &settings);
    let world = Arc::new(World {
        broker: binary.broker,
        books: Books::default(),
        resting: AtomicBool::new(false),
        over: AtomicBool::new(false),
    });
    let crew = Crew::hire(&world, rate, chance);

    let (began, long) = (Instant::now(), Duration::from_secs(seconds));
    let every = SAMPLE_EVERY.max(long / SAMPLES_MAX);
    let mut taken: Vec<Sample> = Vec::new();
    while began.elapsed() < long {
        // not synchronisation: a sample each so often
        thread::sleep(every);
        taken.push(samples::sample(binary.pid(), &data).expect("the broker runs"));
    }
    world.resting.store(true, Ordering::Release);
    crew.restless.into_iter().for_each(|worker| worker.join().expect("no client was surprised"));
    let rested = Instant::now();
    while rested.elapsed() < SETTLED_WITHIN && (world.books.missing() > 0 || open(&binary) > 0) {
        thread::sleep(LOOK);
    }
    let settled = rested.elapsed();
    let undecided = open(&binary);
    world.over.store(true, Ordering::Release);
    crew.others.into_iter().for_each(|worker| worker.join().expect("no client was surprised"));

    println!("{}", samples::table(&taken, ROWS));
    println!("{seconds} s at {rate}/s: {:?}, settled in {settled:?}", world.books.sums());
    let mut wrong = world.books.audit();
    if undecided > 0 {
        wrong.push(format!("{undecided} transactions are open {settled:?} after the load"));
    }
    wrong.extend(samples::grown(&taken).into_iter().map(|what| format!("grown: {what}")));
    let logged = binary.logged();
    let panics = logged.lines().filter(|line| line.contains("panicked"));
    wrong.extend(panics.map(str::to_owned));
    let segments = logged.matches("retention deleted a log segment").count();
    println!("{segments} segments went meanwhile; {:?}", levels(&logged));
    assert!(segments > 0, "no segment went");
    if !wrong.is_empty() {
        scratch.disable_cleanup(true);
        wrong.truncate(20);
        panic!("in {}:\n{}", scratch.path().display(), wrong.join("\n"));
    }
    assert_eq!(binary.terminate().code(), Some(0));
}

/// Lines of the broker's log by their level.
fn levels(logged: &str) -> BTreeMap<&str, usize> {
    let mut levels = BTreeMap::new();
    for level in logged.lines().filter_map(|line| line.split_whitespace().nth(1)) {
        *levels.entry(level).or_default() += 1;
    }
    levels
}
