//! More under way than the broker may hold: sends and pulls are refused with codes that clients try again after,
//! decisions, offsets and heartbeats are served, memory stays within its bound, and all is well when it is over.

use std::fs;

use bytes::BytesMut;
use mezzo_protocol::remoting::HeaderEncoding;
use mezzo_tests::binary::Binary;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};
use mezzo_tests::wait::{self, PATIENCE};
use mezzo_tests::wire::Wire;
use tempfile::TempDir;

const SYSTEM_BUSY: i32 = 2;
const FLOW_CONTROL: i32 = 215;
const UPDATE_CONSUMER_OFFSET: i32 = 15;
const QUERY_CONSUMER_OFFSET: i32 = 14;
/// Far more connections than the budget lets have a request of 400 KiB under way: 4 MiB of it.
const CROWD: usize = 64;
const SETTINGS: [&str; 5] = [
    "limits.message_size=128KiB",
    "store.segment_size=1MiB",
    "limits.frame_size=512KiB",
    "limits.in_flight_bytes=4MiB",
    // the crowd never finishes by itself
    "limits.frame_timeout=10m",
];
/// What the broker may grow by while a crowd pushes 25 MiB at it: the budget thrice, what is not counted of each
/// connection, and the allocator's slack.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    kib.map_or(0, |kib| kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024)
}

#[test]
fn beyond_the_budget_sends_and_pulls_are_refused_and_decisions_offsets_and_heartbeats_served() {
    let scratch = TempDir::new().unwrap();
    let binary = Binary::serve(&scratch.path().join("data"), &scratch.path().join("log"), &SETTINGS);
    let mut producer = Producer::connect(binary.broker, "PG_overload");
    producer.send("orders", 0, b"before", &[]);
    let half = producer.half("orders", b"decided in the worst moment");
    let mut consumer = Consumer::connect(binary.broker, "CG_overload");
    consumer.join(&["orders"]);
    let before = resident(binary.pid());

    // each announces 400 KiB and sends all but the last byte; what is refused is refused before it is there in full
    let (request, _) = producer.half_request("orders", 0, &vec![b'x'; 400 << 10], &[]);
    let mut bytes = BytesMut::new();
    request.encode(HeaderEncoding::Json, &mut bytes).unwrap();
    let mut crowd: Vec<Wire> = (0..CROWD).map(|_| Wire::connect(binary.broker)).collect();
    for wire in &mut crowd {
        wire.send_bytes(&bytes[..bytes.len() - 1]);
    }
    wait::until("a send is refused as busy", || {
        let (small, _) = producer.message_request("orders", 1, b"small");
        producer.wire.send(&small);
        let answer = producer.wire.answer(small.opaque);
        assert!([SUCCESS, SYSTEM_BUSY].contains(&answer.code), "{:?}", answer.remark);
        (answer.code == SYSTEM_BUSY).then_some(())
    });
    let refused = crowd.iter_mut().filter_map(|wire| wire.try_answer(request.opaque, PATIENCE / 40));
    let refused: Vec<i32> = refused.map(|answer| answer.code).collect();
    assert!(refused.len() > CROWD / 2, "{} of the crowd", refused.len());
    assert!(refused.iter().all(|code| *code == SYSTEM_BUSY), "{refused:?}");

    assert_eq!(consumer.pull("orders", 0, 0, "*").code, FLOW_CONTROL);
    producer.heartbeat();
    consumer.join(&["orders"]);
    let place = [("consumerGroup", "CG_overload"), ("topic", "orders"), ("queueId", "0")];
    let moved = [&place[..], &[("commitOffset", "1")]].concat();
    assert_eq!(consumer.wire.call(UPDATE_CONSUMER_OFFSET, &moved, b"").code, SUCCESS);
    assert_eq!(consumer.wire.call(QUERY_CONSUMER_OFFSET, &place, b"").ext_value("offset"), Some("1"));
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS, "a decision is always taken");
    let grown = resident(binary.pid()).saturating_sub(before);
    println!(
        "{CROWD} requests of 400 KiB begun, {} refused, the broker grew by {} KiB",
        refused.len(),
        grown >> 10
    );
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
    assert!(binary.logged().contains("refused as busy"), "the log says so");

    // one that was refused goes on where its request ends
    let mut went_on = 0;
    for wire in &mut crowd {
        wire.send_bytes(&bytes[bytes.len() - 1..]);
        let answer = wire.call(34, &[], br#"{"clientID":"crowd"}"#);
        assert_eq!(answer.code, SUCCESS);
        went_on += 1;
    }
    assert_eq!(went_on, CROWD);
    wait::until("sends are taken again", || {
        let (small, _) = producer.message_request("orders", 1, b"small");
        producer.wire.send(&small);
        (producer.wire.answer(small.opaque).code == SUCCESS).then_some(())
    });
    let found = consumer.drain("orders", 0, 0);
    assert!(found.iter().any(|message| message.text() == "decided in the worst moment"));
}
