//! An undecided transaction is asked about, by deadline, at any live member of its producer group, until it is
//! answered; then never again. One that nobody can answer is parked, not dropped.

use std::fs;
use std::time::Duration;

use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::log_reader;
use mezzo_tests::producer::{Half, Producer, SUCCESS, Verdict};
use mezzo_tests::wait::{self, PATIENCE};

const QUEUES: u32 = 4;
/// Long enough for a check-back that is due to arrive: the broker looks at a moved clock every half second.
const SOON: Duration = Duration::from_secs(3);
/// The broker's default `transaction.timeout` and `transaction.check_interval`.
const TIMEOUT: Duration = Duration::from_secs(6);
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// More than any interval that the broker may wait between two asks, back-off included.
const LONG: Duration = Duration::from_secs(3600);

fn delivered(broker: &TestBroker, topic: &str) -> Vec<String> {
    let mut consumer = Consumer::connect(broker.address(), "CG_check");
    consumer.drain_all(topic, QUEUES).iter().map(|message| message.text().to_owned()).collect()
}

#[test]
fn an_undecided_transaction_is_asked_at_its_deadline_and_not_before() {
    let broker = TestBroker::with_manual_clock(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_check");
    let half = producer.half("orders", b"ask me");
    broker.clock().advance(TIMEOUT - Duration::from_millis(100));
    assert_eq!(producer.asked(Duration::from_millis(1200)), None, "too early");
    // a moment later than the deadline: an END that was sent in time must not be crossed by the question
    broker.clock().advance(Duration::from_secs(1));
    assert_eq!(
        producer.asked(PATIENCE),
        Some(half.clone()),
        "the check-back names the transaction as END wants it"
    );
    producer.end_oneway(&half, Verdict::Commit, true);
    producer.heartbeat();
    assert_eq!(delivered(&broker, "orders"), ["ask me"]);
}

#[test]
fn a_message_can_set_its_own_deadline() {
    let broker = TestBroker::with_manual_clock(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_check");
    let half = producer.half_with("orders", 0, b"slow", &[("CHECK_IMMUNITY_TIME_IN_SECONDS", "60")]);
    broker.clock().advance(Duration::from_secs(59));
    assert_eq!(producer.asked(Duration::from_millis(1200)), None);
    broker.clock().advance(Duration::from_secs(2));
    assert_eq!(producer.asked(PATIENCE), Some(half));
}

#[test]
fn nothing_is_asked_after_a_decision() {
    for verdict in [Verdict::Commit, Verdict::RollBack] {
        let broker = TestBroker::with_manual_clock(&[]);
        let mut producer = Producer::connect(broker.address(), "PG_check");
        let half = producer.half("orders", b"decided");
        assert_eq!(producer.end(&half, verdict).code, SUCCESS);
        for _ in 0..3 {
            broker.clock().advance(LONG);
            assert_eq!(producer.asked(Duration::from_millis(700)), None, "{verdict:?}");
        }
    }
}

#[test]
fn a_check_answered_unknown_is_asked_again_and_an_answered_one_is_not() {
    let broker = TestBroker::with_manual_clock(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_check");
    let half = producer.half("orders", b"wait for it");
    producer.end_oneway(&half, Verdict::Unknown, false);
    broker.clock().advance(TIMEOUT * 2);
    assert_eq!(producer.asked(PATIENCE), Some(half.clone()));
    producer.end_oneway(&half, Verdict::Unknown, true);
    producer.heartbeat();
    assert!(delivered(&broker, "orders").is_empty());
    broker.clock().advance(LONG);
    assert_eq!(producer.asked(PATIENCE), Some(half.clone()));
    producer.end_oneway(&half, Verdict::Commit, true);
    producer.heartbeat();
    broker.clock().advance(LONG);
    assert_eq!(producer.asked(Duration::from_millis(1200)), None);
    assert_eq!(delivered(&broker, "orders"), ["wait for it"]);
}

/// Answers every ask with "unknown" until no more come; returns how many came.
fn ask_until_silent(broker: &TestBroker, producer: &mut Producer, half: &Half) -> u32 {
    let mut asks = 0;
    loop {
        broker.clock().advance(LONG);
        let Some(asked) = producer.asked(SOON) else { return asks };
        assert_eq!(&asked, half);
        asks += 1;
        producer.end_oneway(half, Verdict::Unknown, true);
        wait::until("the ask is counted", || {
            (log_reader::asks(broker.data_dir(), half.log_offset) == asks).then_some(())
        });
    }
}

#[test]
fn an_unknown_is_asked_check_max_times_then_parked_and_a_late_end_still_decides() {
    for (verdict, expected) in [(Verdict::Commit, vec!["late"]), (Verdict::RollBack, vec![])] {
        let broker = TestBroker::with_manual_clock(&[
            "transaction.check_max=3",
            "transaction.max_age=1000h",
            "store.retention=2000h",
            "history.horizon=2000h",
        ]);
        let mut producer = Producer::connect(broker.address(), "PG_check");
        let half = producer.half("orders", b"late");
        assert_eq!(ask_until_silent(&broker, &mut producer, &half), 3);
        assert!(delivered(&broker, "orders").is_empty(), "parked, neither delivered nor dropped");
        assert_eq!(producer.end(&half, verdict).code, SUCCESS);
        assert_eq!(delivered(&broker, "orders"), expected);
    }
}

#[test]
fn a_parked_transaction_stays_parked_across_a_restart_and_is_asked_once_by_each_new_connection() {
    let mut broker = TestBroker::with_manual_clock(&[
        "transaction.check_max=2",
        "transaction.max_age=1000h",
        "store.retention=2000h",
        "history.horizon=2000h",
    ]);
    let mut producer = Producer::connect(broker.address(), "PG_check");
    let half = producer.half("orders", b"in doubt");
    assert_eq!(ask_until_silent(&broker, &mut producer, &half), 2);
    broker.restart();
    let mut producer = Producer::connect(broker.address(), "PG_check");
    assert_eq!(producer.asked(PATIENCE), Some(half.clone()), "a new connection of the group is asked once");
    producer.end_oneway(&half, Verdict::Unknown, true);
    producer.heartbeat();
    broker.clock().advance(LONG);
    assert_eq!(producer.asked(SOON), None, "and only once");
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    assert_eq!(delivered(&broker, "orders"), ["in doubt"]);
}

#[test]
fn a_transaction_that_nobody_can_answer_waits_for_its_group() {
    let mut broker = TestBroker::with_manual_clock(&[
        "transaction.max_age=1000h",
        "store.retention=2000h",
        "history.horizon=2000h",
    ]);
    let mut producer = Producer::connect(broker.address(), "PG_check");
    let half = producer.half("orders", b"orphan");
    drop(producer);
    broker.clock().advance(LONG);
    broker.restart();
    broker.clock().advance(LONG);
    let mut stranger = Producer::connect(broker.address(), "PG_other");
    assert_eq!(stranger.asked(SOON), None, "only members of its group are asked");
    let mut heir = Producer::connect(broker.address(), "PG_check");
    broker.clock().advance(LONG);
    assert_eq!(heir.asked(PATIENCE), Some(half.clone()));
    heir.end_oneway(&half, Verdict::Commit, true);
    heir.heartbeat();
    assert_eq!(delivered(&broker, "orders"), ["orphan"]);
}

/// Base of the oldest segment of the log.
fn oldest_segment(broker: &TestBroker) -> u64 {
    let names = fs::read_dir(broker.data_dir().join("log")).expect("there is a log").flatten();
    let bases = names.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    bases.min().expect("a log has segments")
}

/// With the broker's own settings: asking ends, its part of the log goes, the broker comes and goes; it stays.
#[test]
fn a_transaction_whose_group_is_away_for_a_year_is_neither_decided_nor_dropped() {
    for (verdict, expected) in [(Verdict::Commit, vec!["orphan"]), (Verdict::RollBack, vec![])] {
        let mut broker =
            TestBroker::with_manual_clock(&["store.segment_size=1MiB", "store.checkpoint_size=1MiB"]);
        let mut producer = Producer::connect(broker.address(), "PG_check");
        let half = producer.half("orders", b"orphan");
        drop(producer);
        for quarter in 0..4 {
            let mut others = Producer::connect(broker.address(), "PG_other");
            for _ in 0..25 {
                others.send_when_there_is_room("ballast", 0, &[b'x'; 100_000]);
            }
            let before = oldest_segment(&broker);
            broker.clock().advance(LONG * 24 * 92);
            wait::until("retention goes on", || (oldest_segment(&broker) > before).then_some(()));
            if quarter == 1 {
                broker.restart();
            }
        }
        wait::until("asking ends", || (broker.in_doubt() == 1).then_some(()));
        assert!(delivered(&broker, "orders").is_empty());
        let mut heir = Producer::connect(broker.address(), "PG_check");
        assert_eq!(heir.asked(PATIENCE), Some(half.clone()), "who comes back is asked");
        assert_eq!(heir.end(&half, verdict).code, SUCCESS);
        assert_eq!(delivered(&broker, "orders"), expected);
    }
}

#[test]
fn another_member_of_the_group_is_asked_when_the_sender_is_gone() {
    let broker = TestBroker::with_manual_clock(&[]);
    let mut sender = Producer::connect(broker.address(), "PG_check");
    let half = sender.half("orders", b"inherited");
    let mut member = Producer::connect(broker.address(), "PG_check");
    drop(sender);
    // the broker notices a closed connection by itself; until then an ask may go to it, and the next comes to us
    broker.clock().advance(TIMEOUT * 2);
    let asked = member.asked(SOON).or_else(|| {
        broker.clock().advance(CHECK_INTERVAL * 2);
        member.asked(PATIENCE)
    });
    assert_eq!(asked, Some(half));
}

#[test]
fn a_healthy_run_asks_nothing_and_delivers_each_message_once() {
    let broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_healthy");
    let mut expected = Vec::new();
    for i in 0..200 {
        let half = producer.half("orders", format!("{i:03}").as_bytes());
        let verdict = if i % 4 == 3 { Verdict::RollBack } else { Verdict::Commit };
        assert_eq!(producer.end(&half, verdict).code, SUCCESS);
        if verdict == Verdict::Commit {
            expected.push(format!("{i:03}"));
        }
    }
    let mut seen = delivered(&broker, "orders");
    seen.sort();
    assert_eq!(seen, expected);
    assert_eq!(producer.asked(TIMEOUT + SOON), None, "no check-back at the default timeout");
}
