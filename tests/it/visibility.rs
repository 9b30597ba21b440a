//! Before its decision a half message does not exist for anybody but the broker and its producer group.

use mezzo_protocol::remoting::RemotingCommand;
use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::{Consumer, messages};
use mezzo_tests::producer::{Half, Producer, SUCCESS, Verdict};

const VIEW_MESSAGE_BY_ID: i32 = 33;
const GET_MAX_OFFSET: i32 = 30;
const SEND_BACK: i32 = 36;
const QUEUES: u32 = 4;

fn view(consumer: &mut Consumer, half: &Half) -> RemotingCommand {
    consumer.wire.call(
        VIEW_MESSAGE_BY_ID,
        &[("topic", &half.topic), ("offset", &half.log_offset.to_string())],
        b"",
    )
}

fn max_offsets(consumer: &mut Consumer, topic: &str) -> Vec<u64> {
    let offset = |queue: u32| {
        let reply =
            consumer.wire.call(GET_MAX_OFFSET, &[("topic", topic), ("queueId", &queue.to_string())], b"");
        assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
        reply.ext_value("offset").and_then(|offset| offset.parse().ok()).expect("an offset")
    };
    (0..QUEUES).map(offset).collect()
}

#[test]
fn no_read_path_shows_a_half_message_before_its_commit() {
    let broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_visibility");
    let mut consumer = Consumer::connect(broker.address(), "CG_visibility");
    let half = producer.half("orders", b"half");

    assert!(consumer.drain_all("orders", QUEUES).is_empty());
    assert_eq!(max_offsets(&mut consumer, "orders"), [0; QUEUES as usize]);
    assert_ne!(view(&mut consumer, &half).code, SUCCESS);
    let back: &[(&str, &str)] = &[
        ("offset", &half.log_offset.to_string()),
        ("group", "CG_visibility"),
        ("delayLevel", "1"),
        ("originTopic", "orders"),
    ];
    assert_ne!(consumer.wire.call(SEND_BACK, back, b"").code, SUCCESS);

    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    assert_eq!(max_offsets(&mut consumer, "orders").iter().sum::<u64>(), 1);
    let seen = view(&mut consumer, &half);
    assert_eq!(seen.code, SUCCESS);
    assert_eq!(messages(&seen.body)[0].text(), "half");
}

#[test]
fn no_read_path_shows_a_rolled_back_message() {
    let broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_visibility");
    let mut consumer = Consumer::connect(broker.address(), "CG_visibility");
    let half = producer.half("orders", b"half");
    producer.end(&half, Verdict::RollBack);
    assert!(consumer.drain_all("orders", QUEUES).is_empty());
    assert_eq!(max_offsets(&mut consumer, "orders"), [0; QUEUES as usize]);
    assert_ne!(view(&mut consumer, &half).code, SUCCESS);
}

#[test]
fn bytes_that_look_like_a_message_inside_a_body_cannot_be_read() {
    let broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_visibility");
    let mut consumer = Consumer::connect(broker.address(), "CG_visibility");
    producer.send("orders", 0, b"genuine", &[]);
    let stored = consumer.pull("orders", 0, 0, "*").body;
    let outer = producer.send("orders", 0, &stored, &[]);
    // every position inside the message that carries the forged one
    for inside in 1..400 {
        let offset = (outer.physical_offset() + inside).to_string();
        let reply = consumer.wire.call(VIEW_MESSAGE_BY_ID, &[("topic", "orders"), ("offset", &offset)], b"");
        assert_ne!(reply.code, SUCCESS, "{inside} bytes behind the start of a record");
    }
}
