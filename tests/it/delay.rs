//! Delayed messages appear at their time, not before it, and a restart in between changes nothing.

use std::time::Duration;

use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::{Consumer, Message};
use mezzo_tests::producer::Producer;
use mezzo_tests::wait;

/// Delay level 3: ten seconds.
const LEVEL: (&str, &str) = ("DELAY", "3");
const DELAY: Duration = Duration::from_secs(10);

fn visible(broker: &TestBroker) -> Vec<Message> {
    Consumer::connect(broker.address(), "CG_delay").drain("orders", 0, 0)
}

fn wait_for(broker: &TestBroker, count: usize) -> Vec<Message> {
    wait::until("the delayed messages appear", || {
        Some(visible(broker)).filter(|messages| messages.len() >= count)
    })
}

#[test]
fn a_delayed_message_appears_when_its_time_has_come() {
    let broker = TestBroker::with_manual_clock(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_delay");
    producer.send("orders", 0, b"later", &[LEVEL, ("TAGS", "T"), ("KEYS", "k")]);
    producer.send("orders", 0, b"now", &[]);
    broker.clock().advance(DELAY - Duration::from_millis(100));
    producer.send("orders", 0, b"still early", &[]);
    let early: Vec<String> = visible(&broker).iter().map(|message| message.text().to_owned()).collect();
    assert_eq!(early, ["now", "still early"]);
    broker.clock().advance(Duration::from_millis(200));
    let messages = wait_for(&broker, 3);
    let later = &messages[2];
    assert_eq!((later.text(), later.queue_offset, later.topic.as_str()), ("later", 2, "orders"));
    assert_eq!((later.property("TAGS"), later.property("KEYS")), (Some("T"), Some("k")));
}

#[test]
fn delayed_messages_appear_in_the_order_of_their_times() {
    let broker = TestBroker::with_manual_clock(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_delay");
    producer.send("orders", 0, b"30s", &[("DELAY", "4")]);
    producer.send("orders", 0, b"5s", &[("DELAY", "2")]);
    producer.send("orders", 0, b"10s", &[("DELAY", "3")]);
    broker.clock().advance(Duration::from_secs(60));
    let order: Vec<String> = wait_for(&broker, 3).iter().map(|message| message.text().to_owned()).collect();
    assert_eq!(order, ["5s", "10s", "30s"]);
}

#[test]
fn a_delayed_message_survives_a_restart() {
    let mut broker = TestBroker::with_manual_clock(&[]);
    Producer::connect(broker.address(), "PG_delay").send("orders", 0, b"later", &[LEVEL]);
    broker.restart();
    assert!(visible(&broker).is_empty());
    broker.clock().advance(DELAY * 2);
    assert_eq!(wait_for(&broker, 1)[0].text(), "later");
    broker.restart();
    assert_eq!(visible(&broker).len(), 1, "and it appears once");
}
