//! What a monitor sees: `/metrics` tells of transactions from their prepare to their end, also after a restart; health
//! says whether the broker serves; and nobody can make the endpoint read or hold more than a little.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Half, Producer, SUCCESS, Verdict};
use mezzo_tests::scrape::{get, http, metrics};
use mezzo_tests::wait::{self, PATIENCE};
use mezzo_tests::wire::Wire;

const LISTEN: &str = "metrics.listen=127.0.0.1:0";
/// Connections that the endpoint serves at a time.
const CONNECTIONS_MAX: usize = 16;
/// More than any interval that the broker may wait between two asks.
const LONG: Duration = Duration::from_secs(3600);

fn address(broker: &TestBroker) -> SocketAddr {
    broker.metrics().expect("metrics are served")
}

/// Waits until every one of these samples has this value; groups and ages are counted anew every second.
fn shows(broker: &TestBroker, expected: &[(&str, f64)]) {
    wait::until(&format!("metrics show {expected:?}"), || {
        let seen = metrics(address(broker));
        expected.iter().all(|(name, value)| seen.get(*name) == Some(value)).then_some(())
    });
}

fn value(seen: &BTreeMap<String, f64>, name: &str) -> f64 {
    *seen.get(name).unwrap_or_else(|| panic!("{name} in {seen:?}"))
}

/// Asked once, answered with "unknown", and parked when it is due again.
fn park(broker: &TestBroker, producer: &mut Producer, half: &Half) {
    broker.clock().advance(LONG);
    assert_eq!(producer.asked(PATIENCE).as_ref(), Some(half));
    producer.end_oneway(half, Verdict::Unknown, true);
    producer.heartbeat();
    wait::until("the transaction is parked", || {
        broker.clock().advance(LONG);
        (value(&metrics(address(broker)), "mezzo_transactions_in_doubt") == 1.0).then_some(())
    });
}

#[test]
fn a_transaction_is_seen_from_its_prepare_to_its_decision_also_after_a_restart() {
    let mut broker = TestBroker::with_manual_clock(&[
        LISTEN,
        "transaction.check_max=1",
        "transaction.max_age=10000h",
        "store.retention=20000h",
        "history.horizon=20000h",
    ]);
    let in_doubt = "mezzo_transactions_group_in_doubt{group=\"PG_watched\"}";
    let open = "mezzo_transactions_group_open{group=\"PG_watched\"}";
    let mut producer = Producer::connect(broker.address(), "PG_watched");
    let half = producer.half("orders", b"watched");
    shows(&broker, &[("mezzo_transactions_open", 1.0), (open, 1.0), ("mezzo_transactions_in_doubt", 0.0)]);
    assert_eq!(value(&metrics(address(&broker)), "mezzo_transactions_prepared_total"), 1.0);

    park(&broker, &mut producer, &half);
    shows(&broker, &[(in_doubt, 1.0), (open, 1.0), ("mezzo_transactions_open", 1.0)]);
    let seen = metrics(address(&broker));
    assert_eq!(value(&seen, "mezzo_transactions_parked_total"), 1.0);
    assert_eq!(value(&seen, "mezzo_check_back_asks_total"), 1.0);
    assert_eq!(value(&seen, "mezzo_check_back_answers_total{answer=\"unknown\"}"), 1.0);
    assert!(value(&seen, "mezzo_transactions_oldest_open_seconds") >= 3600.0);

    broker.restart();
    shows(&broker, &[("mezzo_transactions_in_doubt", 1.0), (in_doubt, 1.0), (open, 1.0)]);
    let seen = metrics(address(&broker));
    assert_eq!(value(&seen, "mezzo_transactions_parked_total"), 0.0, "counters begin anew");

    let mut producer = Producer::connect(broker.address(), "PG_watched");
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    assert_ne!(producer.end(&half, Verdict::RollBack).code, SUCCESS);
    shows(&broker, &[("mezzo_transactions_in_doubt", 0.0), ("mezzo_transactions_open", 0.0)]);
    wait::until("the group is told of no longer", || {
        let seen = metrics(address(&broker));
        (!seen.contains_key(open) && value(&seen, "mezzo_transactions_oldest_open_seconds") == 0.0)
            .then_some(())
    });
    let seen = metrics(address(&broker));
    assert_eq!(value(&seen, "mezzo_transactions_committed_total{by=\"producer\"}"), 1.0);
    assert_eq!(value(&seen, "mezzo_transactions_repeated_ends_total"), 1.0);
    assert_eq!(value(&seen, "mezzo_transactions_conflicts_total"), 1.0);
    assert_eq!(value(&seen, "mezzo_requests_refused_total{code=\"ILLEGAL_OPERATION\"}"), 1.0);
}

#[test]
fn messages_connections_and_refusals_are_counted_as_they_happen() {
    let broker = TestBroker::start(&[LISTEN]);
    let mut producer = Producer::connect(broker.address(), "PG_counted");
    let half = producer.half("orders", &[b'x'; 1000]);
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    let seen = metrics(address(&broker));
    assert_eq!(value(&seen, "mezzo_messages_in_total{kind=\"half\"}"), 1.0);
    assert!(value(&seen, "mezzo_message_bytes_in_total{kind=\"half\"}") > 1000.0);
    assert_eq!(value(&seen, "mezzo_messages_out_total"), 0.0);
    assert_eq!(value(&seen, "mezzo_connections"), 1.0);
    assert!(value(&seen, "mezzo_network_bytes_in_total") > 1000.0);
    assert!(value(&seen, "mezzo_log_appended_bytes_total") > 1000.0);
    assert!(value(&seen, "mezzo_log_bytes") >= value(&seen, "mezzo_log_appended_bytes_total"));
    assert!(value(&seen, "mezzo_log_sync_seconds_count") >= 1.0, "a half is answered when it is synced");
    assert!(value(&seen, "mezzo_disk_free_bytes") > 0.0);

    let mut consumer = Consumer::connect(broker.address(), "CG_counted");
    assert_eq!(consumer.drain_all("orders", 4).len(), 1);
    let mut stranger = Wire::connect(broker.address());
    assert_eq!(stranger.call(9_999, &[], b"").code, 3);
    let seen = metrics(address(&broker));
    assert_eq!(value(&seen, "mezzo_messages_out_total"), 1.0);
    assert!(value(&seen, "mezzo_message_bytes_out_total") > 1000.0);
    assert_eq!(value(&seen, "mezzo_requests_refused_total{code=\"REQUEST_CODE_NOT_SUPPORTED\"}"), 1.0);
    drop((producer, consumer, stranger));
    shows(&broker, &[("mezzo_connections", 0.0)]);
    assert!(value(&metrics(address(&broker)), "mezzo_connections_accepted_total") >= 3.0);
}

#[test]
fn groups_beyond_the_bound_are_told_together() {
    let broker = TestBroker::start(&[LISTEN]);
    for number in 0..60 {
        let mut producer = Producer::connect(broker.address(), &format!("PG_{number:02}"));
        producer.half("orders", b"open");
    }
    shows(&broker, &[("mezzo_transactions_open", 60.0)]);
    wait::until("fifty groups are told by name", || {
        let seen = metrics(address(&broker));
        let groups: Vec<_> =
            seen.iter().filter(|(name, _)| name.starts_with("mezzo_transactions_group_open{")).collect();
        let others = seen.get("mezzo_transactions_group_open{group=\"(others)\"}");
        (groups.len() == 51 && others == Some(&10.0)).then_some(())
    });
}

#[test]
fn every_metric_of_the_page_is_told_and_no_other() {
    let broker = TestBroker::start(&[LISTEN]);
    // so that each label has a value
    let mut producer = Producer::connect(broker.address(), "PG_page");
    producer.half("orders", b"open");
    let page = mezzo_broker::metrics::documentation();
    let named = |line: &str| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned());
    let documented: BTreeSet<String> = page.lines().filter_map(named).collect();
    let mut told = BTreeSet::new();
    for name in metrics(address(&broker)).into_keys() {
        let name = name.split('{').next().unwrap_or_default();
        let name = ["_bucket", "_sum", "_count"].iter().fold(name, |name, part| {
            name.strip_suffix(part).filter(|stem| documented.contains(*stem)).unwrap_or(name)
        });
        told.insert(name.to_owned());
    }
    assert_eq!(told, documented);
}

#[test]
fn health_says_that_the_broker_serves_and_nothing_else_is_served() {
    let broker = TestBroker::start(&[LISTEN]);
    let address = address(&broker);
    assert_eq!((get(address, "/healthz").status, get(address, "/readyz").status), (200, 200));
    assert!(get(address, "/metrics").head.to_ascii_lowercase().contains("application/openmetrics-text"));
    assert_eq!(get(address, "/").status, 404);
    let post = http(address, b"POST /metrics HTTP/1.1\r\nHost: m\r\nContent-Length: 9999999999\r\n\r\n");
    assert_eq!(post.map(|answer| answer.status), Some(405));
}

#[test]
fn without_the_setting_nothing_listens() {
    assert_eq!(TestBroker::start(&[]).metrics(), None);
}

#[test]
fn a_request_that_is_too_long_is_refused() {
    let broker = TestBroker::start(&[LISTEN]);
    let long = format!("GET /metrics HTTP/1.1\r\nHost: m\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let answer = http(address(&broker), long.as_bytes());
    assert!(answer.is_none_or(|answer| answer.status == 431));
    let headers = "X: y\r\n".repeat(1000);
    let many = format!("GET /metrics HTTP/1.1\r\nHost: m\r\n{headers}\r\n");
    let answer = http(address(&broker), many.as_bytes());
    assert!(answer.is_none_or(|answer| answer.status == 431));
    assert_eq!(get(address(&broker), "/healthz").status, 200);
}

#[test]
fn silent_connections_take_all_places_only_until_they_are_closed() {
    let broker = TestBroker::start(&[LISTEN]);
    let silent: Vec<TcpStream> =
        (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(address(&broker)).unwrap()).collect();
    let request = b"GET /healthz HTTP/1.1\r\nHost: m\r\n\r\n";
    wait::until("there is no place for one more", || http(address(&broker), request).is_none().then_some(()));
    drop(silent);
    wait::until("there is room again", || http(address(&broker), request).map(|answer| answer.status == 200));
}

#[test]
fn what_retention_deletes_and_what_is_refused_for_want_of_room_is_counted_by_its_reason() {
    let settings = [
        LISTEN,
        "store.segment_size=1MiB",
        "store.checkpoint_size=1MiB",
        "history.max_bytes=1MiB",
        "store.max_bytes=44MiB",
        "store.at_max_bytes=delete-oldest",
        "limits.open_messages=1",
        "limits.held_pulls=1",
    ];
    let broker = TestBroker::start(&settings);
    let mut producer = Producer::connect(broker.address(), "PG_full");
    producer.half("orders", b"the one that may be open");
    let (second, _) = producer.half_request("orders", 0, b"one too many", &[]);
    producer.wire.send(&second);
    assert_eq!(producer.wire.answer(second.opaque).code, 2);
    let seen = metrics(address(&broker));
    assert_eq!(value(&seen, "mezzo_messages_refused_total{reason=\"open_messages\"}"), 1.0);
    assert_eq!(value(&seen, "mezzo_messages_refused_total{reason=\"max_bytes\"}"), 0.0);
    assert_eq!(value(&seen, "mezzo_retention_segments_total{reason=\"max_bytes\"}"), 0.0);

    let mut slow = Consumer::connect(broker.address(), "CG_slow");
    slow.join(&["orders"]);
    let place = [("consumerGroup", "CG_slow"), ("topic", "orders"), ("queueId", "0"), ("commitOffset", "1")];
    assert_eq!(slow.wire.call(15, &place, b"").code, SUCCESS);
    for _ in 0..2 {
        let held = slow.pull_request("orders", 1, 0, "*", "6", "20000");
        slow.wire.send(&held);
    }
    wait::until("a pull finds no place to wait", || {
        let seen = metrics(address(&broker));
        let not_held = value(&seen, "mezzo_requests_not_held_total{bound=\"broker\"}");
        (not_held == 1.0 && value(&seen, "mezzo_held_pulls") == 1.0).then_some(())
    });

    let body = vec![b'x'; 100_000];
    let unread = "mezzo_retention_unread_messages_total{group=\"CG_slow\"}";
    wait::until("retention deletes what was not read", || {
        producer.try_send("orders", 0, &body);
        metrics(address(&broker)).contains_key(unread).then_some(())
    });
    let seen = metrics(address(&broker));
    assert!(value(&seen, unread) > 0.0);
    assert_eq!(value(&seen, "mezzo_retention_unread_messages_total{group=\"(others)\"}"), 0.0);
    assert!(value(&seen, "mezzo_retention_segments_total{reason=\"max_bytes\"}") > 0.0);
    assert_eq!(value(&seen, "mezzo_retention_segments_total{reason=\"age\"}"), 0.0);
    assert!(value(&seen, "mezzo_retention_freed_bytes_total") >= 1_048_576.0);
    assert!(value(&seen, "mezzo_retention_carried_bytes_total") > 0.0, "the open half was carried on");
    assert_eq!(value(&seen, "mezzo_damage_met_total{by=\"read\"}"), 0.0);
}
