//! A message that a group could not consume comes back to that group alone, later each time, and in the end goes where
//! it harms nobody and is not lost.

use std::time::Duration;

use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::{Consumer, Message};
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};
use mezzo_tests::wait;

const SEND_BACK: i32 = 36;
/// Longer than every step of the retry ladder.
const STEP: Duration = Duration::from_secs(3 * 3600);

/// A consumer that has joined its group, which is what creates the retry topic.
fn member(broker: &TestBroker) -> Consumer {
    let mut consumer = Consumer::connect(broker.address(), "CG_retry");
    consumer.join(&["orders", "%RETRY%CG_retry"]);
    consumer
}

fn send_back(consumer: &mut Consumer, message: &Message, max_reconsume: &str) {
    let fields: &[(&str, &str)] = &[
        ("offset", &message.physical_offset.to_string()),
        ("group", "CG_retry"),
        ("delayLevel", "0"),
        ("originMsgId", message.key.as_deref().unwrap_or_default()),
        ("originTopic", &message.topic),
        ("unitMode", "false"),
        ("maxReconsumeTimes", max_reconsume),
    ];
    let reply = consumer.wire.call(SEND_BACK, fields, b"");
    assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
}

/// The message at `offset` of a topic's first queue, once it is there.
fn appears(consumer: &mut Consumer, topic: &str, offset: u64) -> Message {
    wait::until(topic, || consumer.drain(topic, 0, offset).into_iter().next())
}

#[test]
fn a_message_sent_back_comes_again_to_its_group_with_its_count() {
    let broker = TestBroker::with_manual_clock(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_retry");
    let mut consumer = member(&broker);
    producer.send("orders", 0, b"again", &[("TAGS", "T"), ("KEYS", "k")]);
    let first = appears(&mut consumer, "orders", 0);
    send_back(&mut consumer, &first, "16");
    assert!(consumer.drain("%RETRY%CG_retry", 0, 0).is_empty(), "not at once");
    broker.clock().advance(STEP);
    let again = appears(&mut consumer, "%RETRY%CG_retry", 0);
    assert_eq!((again.text(), again.reconsume_times), ("again", 1));
    assert_eq!(again.property("RETRY_TOPIC"), Some("orders"));
    assert_eq!((again.property("TAGS"), again.property("KEYS")), (Some("T"), Some("k")));
    assert_eq!(again.key, first.key, "clients know it by its unique key");
    assert_eq!(consumer.drain("orders", 0, 0).len(), 1, "other groups do not see it twice");
}

#[test]
fn a_committed_message_can_be_sent_back_and_is_no_half_message_then() {
    let broker = TestBroker::with_manual_clock(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_retry");
    let mut consumer = member(&broker);
    let half = producer.half_with("orders", 0, b"paid", &[]);
    producer.end(&half, Verdict::Commit);
    let first = appears(&mut consumer, "orders", 0);
    send_back(&mut consumer, &first, "16");
    broker.clock().advance(STEP);
    assert_eq!(appears(&mut consumer, "%RETRY%CG_retry", 0).text(), "paid");
    broker.clock().advance(STEP);
    assert_eq!(producer.asked(Duration::from_millis(1200)), None, "nobody is asked about a retry");
}

#[test]
fn a_message_that_fails_too_often_becomes_a_dead_letter() {
    let broker = TestBroker::with_manual_clock(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_retry");
    let mut consumer = member(&broker);
    producer.send("orders", 0, b"poison", &[]);
    let mut message = appears(&mut consumer, "orders", 0);
    for attempt in 0..2 {
        send_back(&mut consumer, &message, "2");
        broker.clock().advance(STEP);
        message = appears(&mut consumer, "%RETRY%CG_retry", attempt);
    }
    assert_eq!(message.reconsume_times, 2);
    send_back(&mut consumer, &message, "2");
    broker.clock().advance(STEP);
    let dead = appears(&mut consumer, "%DLQ%CG_retry", 0);
    assert_eq!(dead.text(), "poison");
    assert_eq!(consumer.drain("%RETRY%CG_retry", 0, 0).len(), 2, "it is retried no more");
}
