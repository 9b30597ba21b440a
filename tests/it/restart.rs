//! A broker that was stopped in order comes back with everything it had.

use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::log_reader;
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};
use mezzo_tests::wire::Wire;

const UPDATE_AND_CREATE_TOPIC: i32 = 17;
const QUERY_CONSUMER_OFFSET: i32 = 14;
const UPDATE_CONSUMER_OFFSET: i32 = 15;
const GET_ROUTEINFO: i32 = 105;

#[test]
fn messages_offsets_and_topics_are_there_after_a_restart() {
    let mut broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_restart");
    for i in 0..300 {
        producer.send("orders", i % 4, format!("{i}").as_bytes(), &[]);
    }
    let topic: &[(&str, &str)] = &[
        ("topic", "made"),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "7"),
        ("writeQueueNums", "7"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
    ];
    assert_eq!(producer.wire.call(UPDATE_AND_CREATE_TOPIC, topic, b"").code, SUCCESS);
    let place: [(&'static str, &str); 3] =
        [("consumerGroup", "CG_restart"), ("topic", "orders"), ("queueId", "1")];
    let mut consumer = Consumer::connect(broker.address(), "CG_restart");
    consumer.join(&["orders"]);
    let update: Vec<_> = place.iter().copied().chain([("commitOffset", "33")]).collect();
    assert_eq!(consumer.wire.call(UPDATE_CONSUMER_OFFSET, &update, b"").code, SUCCESS);
    let before = consumer.drain_all("orders", 4);
    assert_eq!(before.len(), 300);

    for _ in 0..3 {
        broker.restart();
        let mut consumer = Consumer::connect(broker.address(), "CG_restart");
        assert_eq!(consumer.drain_all("orders", 4), before);
        let offset = consumer.wire.call(QUERY_CONSUMER_OFFSET, &place, b"");
        assert_eq!(offset.ext_value("offset"), Some("33"));
        let route = Wire::connect(broker.name_server()).call(
            GET_ROUTEINFO,
            &[("topic", "made"), ("acceptStandardJsonOnly", "true")],
            b"",
        );
        let route: serde_json::Value = serde_json::from_slice(&route.body).unwrap();
        assert_eq!(route["queueDatas"][0]["writeQueueNums"], 7);
    }
    let mut producer = Producer::connect(broker.address(), "PG_restart");
    assert_eq!(producer.send("orders", 0, b"next", &[]).queue_offset, 75, "queues go on where they ended");
}

#[test]
fn a_log_of_many_segments_is_read_across_a_restart() {
    const COUNT: usize = 220;
    let mut broker = TestBroker::start(&["store.segment_size=1MiB"]);
    let mut producer = Producer::connect(broker.address(), "PG_restart");
    let body = vec![b'x'; 16 * 1024];
    let mut open = Vec::new();
    for i in 0..COUNT {
        let half = producer.half_with("large", 0, &body, &[]);
        if i % 3 == 0 {
            open.push(half);
        } else {
            assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
        }
    }
    broker.restart();
    let segments =
        log_reader::frames(broker.data_dir()).iter().filter(|frame| frame.opens_a_segment()).count();
    assert!(segments >= 4, "the log has {segments} segments");
    let mut producer = Producer::connect(broker.address(), "PG_restart");
    for half in &open {
        assert_eq!(
            producer.end(half, Verdict::Commit).code,
            SUCCESS,
            "halves of old segments can still be decided"
        );
    }
    let got = Consumer::connect(broker.address(), "CG_restart").drain("large", 0, 0);
    assert_eq!(got.len(), COUNT);
    assert!(got.iter().all(|message| message.body == body));
}
