//! What the broker's log says of a transaction that nobody decides: that it is parked, with what a person needs; that it is
//! asked about once more when its group comes back; and how it ends. And that thousands of them do not flood it.

use std::io::Write;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use mezzo_tests::broker::TestBroker;
use mezzo_tests::producer::{Half, Producer, SUCCESS, Verdict};
use mezzo_tests::wait::{self, PATIENCE};

/// More than any interval that the broker may wait between two asks.
const LONG: Duration = Duration::from_secs(3600);
/// Lines of one kind that are said close to each other.
const BURST: usize = 10;

/// What all brokers of this process log.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_target(false);
        subscriber.with_writer(|| Log).try_init().expect("nobody else listens in this process");
    });
}

/// Lines about this producer group that hold all of these words.
fn lines(group: &str, words: &[&str]) -> Vec<String> {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let text = String::from_utf8_lossy(&log).into_owned();
    let about = format!("group=\"{group}\"");
    let wanted = |line: &&str| line.contains(&about) && words.iter().all(|word| line.contains(word));
    text.lines().filter(wanted).map(str::to_owned).collect()
}

fn parking_broker() -> TestBroker {
    TestBroker::with_manual_clock(&[
        "transaction.check_max=1",
        "transaction.max_age=100000h",
        "store.retention=200000h",
        "history.horizon=200000h",
    ])
}

/// Answers "unknown" until all of these are parked.
fn park(broker: &TestBroker, producer: &mut Producer, halves: &[Half], parked: impl Fn() -> bool) {
    broker.clock().advance(LONG);
    for _ in halves {
        let asked = producer.asked(PATIENCE).expect("it is asked");
        producer.end_oneway(&asked, Verdict::Unknown, true);
    }
    producer.heartbeat();
    wait::until("all are parked", || {
        broker.clock().advance(LONG);
        parked().then_some(())
    });
}

#[test]
fn a_transaction_in_doubt_is_spoken_of_when_it_is_parked_asked_again_and_decided() {
    listen();
    let group = "PG_spoken_of";
    let mut broker = parking_broker();
    let mut producer = Producer::connect(broker.address(), group);
    let half = producer.half("orders", b"in doubt");
    let origin = half.log_offset.to_string();
    let named = format!("origin={origin} ");
    let parked = || lines(group, &["WARN", "is IN_DOUBT", &named]);
    park(&broker, &mut producer, std::slice::from_ref(&half), || !parked().is_empty());
    let line = parked().remove(0);
    for part in [
        "age_s=",
        "asks=1",
        "in_doubt=1",
        &format!("mezzo tx show {origin}"),
        &format!("mezzo tx commit {origin}"),
        "asked as often as its policy allows",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("age_s=0 "), "{line}");

    broker.restart();
    let mut producer = Producer::connect(broker.address(), group);
    assert_eq!(producer.asked(PATIENCE), Some(half.clone()));
    let asked =
        || lines(group, &["INFO", "is asked about once more", &named, "producer=127.0.0.1:", "age_s="]);
    wait::until("the ask is spoken of", || (asked().len() == 1).then_some(()));

    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    let decided =
        lines(group, &["INFO", "is decided", &named, "outcome=\"COMMITTED\"", "by=Producer", "age_s="]);
    assert_eq!(decided.len(), 1, "{decided:?}");
    assert_eq!(parked().len(), 1, "it was said once");
}

#[test]
fn what_is_decided_in_time_is_not_spoken_of() {
    listen();
    let group = "PG_in_time";
    let broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), group);
    let half = producer.half("orders", b"in time");
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    assert_eq!(lines(group, &[]), Vec::<String>::new());
}

#[test]
fn many_that_are_parked_at_once_are_not_said_one_by_one() {
    listen();
    let group = "PG_many_parked";
    let broker = parking_broker();
    let mut producer = Producer::connect(broker.address(), group);
    let halves: Vec<Half> = (0..50).map(|i| producer.half("orders", format!("{i}").as_bytes())).collect();
    let store_says = || broker.in_doubt() == halves.len();
    park(&broker, &mut producer, &halves, store_says);
    let said = lines(group, &["is IN_DOUBT"]).len();
    assert!((1..=2 * BURST).contains(&said), "{said} lines for {} transactions", halves.len());
}
