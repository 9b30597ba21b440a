//! Bytes that go bad on the disk under a broker that runs: whichever way a message is asked for, it is never answered with
//! other bytes; who asks is told, the log names file and offset, and all others are served.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::{Consumer, messages};
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};

const VIEW_MESSAGE_BY_ID: i32 = 33;
const SEND_BACK: i32 = 36;
const MESSAGES: usize = 40;
/// Those of them that are committed transactions: they are found by other ways.
const COMMITTED: [usize; 2] = [21, 30];
/// Above the ends of several segments.
const BODY_BYTES: usize = 100_000;
const SEGMENT_BYTES: u64 = 1 << 20;

/// A body that is nowhere else in the log.
fn body(number: usize) -> Vec<u8> {
    let mut body = format!("message {number} ").into_bytes();
    body.resize(BODY_BYTES, b'.');
    body
}

/// Turns a bit of the byte at this position of the log, on the disk and in all maps of it.
fn damage(broker: &TestBroker, position: u64) {
    let base = position - position % SEGMENT_BYTES;
    let path = broker.data_dir().join(format!("log/{base:020}"));
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position - base).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], position - base).unwrap();
}

/// Each way to a message, of a broker that reads its log through memory or from the disk.
fn every_way(hot_size: &str) {
    let broker = TestBroker::start(&["store.segment_size=1MiB", hot_size]);
    let mut producer = Producer::connect(broker.address(), "PG_damage");
    for number in (0..MESSAGES).filter(|number| !COMMITTED.contains(number)) {
        producer.send_when_there_is_room("orders", 0, &body(number));
        if COMMITTED.contains(&(number + 1)) {
            let half = producer.half("orders", &body(number + 1));
            assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
        }
    }
    let mut consumer = Consumer::connect(broker.address(), "CG_damage");
    consumer.join(&["orders", "%RETRY%CG_damage"]);
    let sound = consumer.drain("orders", 0, 0);
    assert_eq!(sound.len(), MESSAGES);
    // in the header of its record, in the message's own head, in the body, in the properties
    let victims: Vec<(usize, u64)> =
        vec![(3, 2), (9, 40), (15, 50_000), (16, BODY_BYTES as u64 + 150), (21, 50_000)];
    for (number, within) in &victims {
        damage(&broker, sound[*number].physical_offset + within);
    }
    let is_victim = |number: usize| victims.iter().any(|(victim, _)| *victim == number);

    for (number, message) in sound.iter().enumerate() {
        let reply = consumer.pull("orders", 0, number as u64, "*");
        let pulled = if reply.code == SUCCESS { messages(&reply.body) } else { Vec::new() };
        assert_eq!(!pulled.is_empty(), !is_victim(number), "{number}: {:?}", reply.remark);
        for (delivered, as_sent) in pulled.iter().zip(&sound[number..]) {
            assert_eq!(delivered, as_sent, "a pull from {number}");
        }
        if is_victim(number) {
            let remark = reply.remark.unwrap_or_default();
            assert!(remark.contains("damaged at offset"), "who asks is told: {remark}");
        }
        let offset = message.physical_offset.to_string();
        let viewed = consumer.wire.call(VIEW_MESSAGE_BY_ID, &[("offset", &offset)], b"");
        assert_eq!(viewed.code == SUCCESS, !is_victim(number), "a view of {number}: {:?}", viewed.remark);
        if viewed.code == SUCCESS {
            assert_eq!(messages(&viewed.body), std::slice::from_ref(message));
        }
        let back = [
            ("offset", &*offset),
            ("group", "CG_damage"),
            ("delayLevel", "1"),
            ("originMsgId", message.key.as_deref().unwrap_or_default()),
            ("originTopic", "orders"),
            ("unitMode", "false"),
            ("maxReconsumeTimes", "16"),
        ];
        if is_victim(number) {
            let reply = consumer.wire.call(SEND_BACK, &back, b"");
            assert_ne!(reply.code, SUCCESS, "{number}: a copy of what is damaged is not made");
        }
    }
}

#[test]
fn damaged_bytes_are_never_served_whichever_way_a_message_is_asked_for() {
    every_way("store.hot_size=1GiB");
    every_way("store.hot_size=64KiB");
}

#[test]
fn nobody_is_asked_with_a_damaged_half_message_and_its_decision_is_taken() {
    let broker = TestBroker::with_manual_clock(&["store.segment_size=1MiB"]);
    let mut producer = Producer::connect(broker.address(), "PG_damage");
    let halves = [producer.half("orders", &body(0)), producer.half("orders", &body(1))];
    damage(&broker, halves[0].log_offset + 50_000);
    broker.clock().advance(Duration::from_secs(60));
    assert_eq!(
        producer.asked(Duration::from_secs(10)),
        Some(halves[1].clone()),
        "the others are asked about"
    );
    assert_eq!(producer.asked(Duration::from_millis(1200)), None);
    for half in &halves {
        assert_eq!(producer.end(half, Verdict::Commit).code, SUCCESS);
    }
    let mut consumer = Consumer::connect(broker.address(), "CG_damage");
    let reply = consumer.pull("orders", 0, 0, "*");
    assert!(reply.remark.unwrap_or_default().contains("damaged at offset"));
    let behind = consumer.drain("orders", 0, 1);
    assert_eq!(behind.len(), 1);
    assert_eq!(behind[0].body, body(1));
}
