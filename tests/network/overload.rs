//! More under way than the broker may hold: sends and pulls are refused with codes that clients try again after,
//! decisions, offsets and heartbeats are served, memory stays within its bound, and all is well when it is over.

use std::fs;
use std::time::Duration;

use bytes::BytesMut;
use mezzo_protocol::remoting::HeaderEncoding;
use mezzo_tests::binary::Binary;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{HEART_BEAT, Producer, SUCCESS, Verdict};
use mezzo_tests::scrape;
use mezzo_tests::wait;
use mezzo_tests::wire::Wire;
use tempfile::TempDir;

const SYSTEM_BUSY: i32 = 2;
const FLOW_CONTROL: i32 = 215;
const UPDATE_CONSUMER_OFFSET: i32 = 15;
const QUERY_CONSUMER_OFFSET: i32 = 14;
/// Far more connections than the budget lets have a request of 400 KiB under way: 4 MiB of it.
const CROWD: usize = 64;
/// Clients that do not read: what the sockets do not hold of one answer of 3 MiB waits for each.
const DEAF: usize = 12;
const SETTINGS: [&str; 8] = [
    "limits.pull_bytes=4MiB",
    "limits.message_size=128KiB",
    "store.segment_size=1MiB",
    "limits.frame_size=512KiB",
    "limits.in_flight_bytes=4MiB",
    // neither the crowd nor the deaf end by themselves
    "limits.frame_timeout=10m",
    "limits.write_timeout=10m",
    "metrics.listen=127.0.0.1:0",
];
/// What the broker may grow by while a crowd pushes 25 MiB at it: the budget thrice, what is not counted of each
/// connection, and the allocator's slack.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    kib.map_or(0, |kib| kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024)
}

fn serve(scratch: &TempDir) -> Binary {
    Binary::serve(&scratch.path().join("data"), &scratch.path().join("log"), &SETTINGS)
}

/// Bytes that the broker counts as under way.
fn in_flight(binary: &Binary) -> f64 {
    scrape::metrics(binary.metrics.expect("metrics are served"))["mezzo_in_flight_bytes"]
}

/// Sends one small message; its answer's code.
fn send_code(producer: &mut Producer) -> i32 {
    let (small, _) = producer.message_request("orders", 1, b"small");
    producer.wire.send(&small);
    let answer = producer.wire.answer(small.opaque);
    assert!([SUCCESS, SYSTEM_BUSY].contains(&answer.code), "{:?}", answer.remark);
    answer.code
}

#[test]
fn requests_that_would_be_too_much_together_are_refused_before_they_are_there_in_full() {
    let scratch = TempDir::new().unwrap();
    let binary = serve(&scratch);
    let mut producer = Producer::connect(binary.broker, "PG_crowd");
    producer.send("orders", 0, b"before", &[]);
    let before = resident(binary.pid());
    // each announces 400 KiB and sends all but the last byte
    let (request, _) = producer.half_request("orders", 0, &vec![b'x'; 400 << 10], &[]);
    let mut bytes = BytesMut::new();
    request.encode(HeaderEncoding::Json, &mut bytes).unwrap();
    let (last, most) = bytes.split_last().unwrap();
    let mut crowd: Vec<Wire> = (0..CROWD).map(|_| Wire::connect(binary.broker)).collect();
    for wire in &mut crowd {
        wire.send_bytes(most);
    }
    // the budget has room for a dozen
    let mut refused = vec![false; CROWD];
    wait::until("most of the crowd is refused", || {
        for (wire, refused) in crowd.iter_mut().zip(&mut refused) {
            if let Some(answer) = wire.try_answer(request.opaque, Duration::from_millis(5)) {
                assert_eq!(answer.code, SYSTEM_BUSY, "{:?}", answer.remark);
                *refused = true;
            }
        }
        (refused.iter().filter(|refused| **refused).count() >= CROWD / 2).then_some(())
    });
    let grown = resident(binary.pid()).saturating_sub(before);
    let count = refused.iter().filter(|refused| **refused).count();
    println!("{CROWD} requests of 400 KiB begun, {count} refused, the broker grew by {} KiB", grown >> 10);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
    assert!(binary.logged().contains("refused as busy"), "the log says so");
    assert_eq!(send_code(&mut producer), SUCCESS, "what is refused leaves room for others");
    // each goes on where its request ends
    for wire in &mut crowd {
        wire.send_bytes(&[*last]);
        assert_eq!(wire.call(HEART_BEAT, &[], br#"{"clientID":"crowd"}"#).code, SUCCESS);
    }
    // a crowd that goes in the middle of its requests gives back what it had under way
    let mut crowd: Vec<Wire> = (0..CROWD).map(|_| Wire::connect(binary.broker)).collect();
    for wire in &mut crowd {
        wire.send_bytes(most);
    }
    wait::until("the budget is used up", || {
        let first =
            crowd.iter_mut().find_map(|wire| wire.try_answer(request.opaque, Duration::from_millis(5)));
        first.map(|answer| assert_eq!(answer.code, SYSTEM_BUSY, "{:?}", answer.remark))
    });
    assert!(in_flight(&binary) > 0.0, "something is under way");
    drop(crowd);
    wait::until("nothing is under way any more", || (in_flight(&binary) == 0.0).then_some(()));
}

#[test]
fn beyond_the_budget_sends_and_pulls_are_refused_and_decisions_offsets_and_heartbeats_served() {
    let scratch = TempDir::new().unwrap();
    let binary = serve(&scratch);
    let mut producer = Producer::connect(binary.broker, "PG_overload");
    for _ in 0..32 {
        producer.send("orders", 0, &[b'x'; 100_000], &[]);
    }
    let half = producer.half("orders", b"decided in the worst moment");
    let mut consumer = Consumer::connect(binary.broker, "CG_overload");
    consumer.join(&["orders"]);

    // clients that ask for far more than the sockets hold and read none of it
    let mut deaf: Vec<Consumer> = (0..DEAF).map(|_| Consumer::connect(binary.broker, "CG_deaf")).collect();
    for deaf in &mut deaf {
        let pulls: Vec<_> = (0..40).map(|_| deaf.pull_request("orders", 0, 0, "*", "4", "0")).collect();
        deaf.wire.try_send_all(pulls.iter()).unwrap();
    }
    wait::until("a send is refused as busy", || (send_code(&mut producer) == SYSTEM_BUSY).then_some(()));
    let pulled = consumer.pull("orders", 0, 0, "*");
    assert_eq!(pulled.code, FLOW_CONTROL, "{:?}", pulled.remark);
    assert!(
        pulled.remark.is_some_and(|remark| remark.contains("limits.in_flight_bytes")),
        "it says which bound"
    );

    producer.heartbeat();
    consumer.join(&["orders"]);
    let place = [("consumerGroup", "CG_overload"), ("topic", "orders"), ("queueId", "0")];
    let moved = [&place[..], &[("commitOffset", "1")]].concat();
    assert_eq!(consumer.wire.call(UPDATE_CONSUMER_OFFSET, &moved, b"").code, SUCCESS);
    assert_eq!(consumer.wire.call(QUERY_CONSUMER_OFFSET, &place, b"").ext_value("offset"), Some("1"));
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS, "a decision is always taken");
    assert_eq!(send_code(&mut producer), SYSTEM_BUSY, "all the while");

    drop(deaf);
    wait::until("sends are taken again", || (send_code(&mut producer) == SUCCESS).then_some(()));
    wait::until("nothing is under way any more", || (in_flight(&binary) == 0.0).then_some(()));
    let found = consumer.drain("orders", 0, 0);
    assert!(found.iter().any(|message| message.body == b"decided in the worst moment"));
}
