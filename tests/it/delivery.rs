//! Plain messages: what is accepted is there once, in order, for whoever asks, by every road that clients take.

use std::time::{Duration, Instant};

use mezzo_protocol::remoting::HeaderEncoding;
use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::{Consumer, PULL_NOT_FOUND, PULL_OFFSET_MOVED, messages};
use mezzo_tests::producer::{HEART_BEAT, Producer, SUCCESS, Verdict, unique_key};
use mezzo_tests::wire::{Fields, OLD_CLIENT_VERSION, Wire};

const SEND_MESSAGE: i32 = 10;
const SEND_BATCH_MESSAGE: i32 = 320;
const QUERY_CONSUMER_OFFSET: i32 = 14;
const UPDATE_CONSUMER_OFFSET: i32 = 15;
const QUERY_NOT_FOUND: i32 = 22;
const GET_MIN_OFFSET: i32 = 31;
const GET_MAX_OFFSET: i32 = 30;
const GET_ROUTEINFO: i32 = 105;
const TOPIC_NOT_EXIST: i32 = 17;
/// `sysFlag` of a pull that may wait and brings its subscription.
const MAY_WAIT: &str = "6";
/// `sysFlag` of a pull that may wait and wants what its group's heartbeats say.
const MAY_WAIT_AS_SUBSCRIBED: &str = "2";
const PULL_RETRY_IMMEDIATELY: i32 = 20;

/// Longer than a test waits for an answer: what comes in time was not brought by the end of the hold.
const HELD_MS: &str = "60000";

fn start() -> (TestBroker, Producer, Consumer) {
    let broker = TestBroker::start(&[]);
    let producer = Producer::connect(broker.address(), "PG_delivery");
    let consumer = Consumer::connect(broker.address(), "CG_delivery");
    (broker, producer, consumer)
}

#[test]
fn what_is_sent_is_delivered_in_order_with_all_its_parts() {
    let (_broker, mut producer, mut consumer) = start();
    let properties = [("KEYS", "order-1 order-2"), ("TAGS", "paid"), ("colour", "grün")];
    let sent: Vec<_> =
        (0..40).map(|i| producer.send("orders", 2, format!("m{i}").as_bytes(), &properties)).collect();
    let got = consumer.drain("orders", 2, 0);
    assert_eq!(got.len(), 40);
    for (index, (message, sent)) in got.iter().zip(&sent).enumerate() {
        assert_eq!((message.text(), message.queue), (format!("m{index}").as_str(), 2));
        assert_eq!((message.queue_offset, sent.queue_offset), (index as u64, index as u64));
        assert_eq!(message.physical_offset, sent.physical_offset());
        assert_eq!(message.property("colour"), Some("grün"));
        assert_eq!(message.property("KEYS"), Some("order-1 order-2"));
    }
}

/// A consumer that changes its filter has its next heartbeat answered, and counts on getting what is sent then.
#[test]
fn a_filter_that_changes_while_a_pull_waits_passes_nothing_over() {
    let (_broker, mut producer, mut consumer) = start();
    producer.send("orders", 0, b"first", &[("TAGS", "red")]);
    wants(&mut consumer, "red", 1);
    let held = consumer.pull_request("orders", 0, 1, "", MAY_WAIT_AS_SUBSCRIBED, HELD_MS);
    consumer.wire.send(&held);
    wants(&mut consumer, "blue", 2);
    producer.send("orders", 0, b"second", &[("TAGS", "blue")]);
    let answer = consumer.wire.answer(held.opaque);
    assert_eq!((answer.code, answer.ext_value("nextBeginOffset")), (PULL_RETRY_IMMEDIATELY, Some("1")));
    let again = consumer.pull_request("orders", 0, 1, "", MAY_WAIT_AS_SUBSCRIBED, HELD_MS);
    consumer.wire.send(&again);
    assert_eq!(messages(&consumer.wire.answer(again.opaque).body)[0].text(), "second");
}

/// A heartbeat of a consumer that wants these tags of `orders`.
fn wants(consumer: &mut Consumer, expression: &str, version: u64) {
    let body = format!(
        r#"{{"clientID":"filters@test","producerDataSet":[],"consumerDataSet":[{{"groupName":"CG_delivery",
        "consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET",
        "subscriptionDataSet":[{{"topic":"orders","subString":"{expression}","subVersion":{version}}}]}}]}}"#
    );
    let reply = consumer.wire.call(HEART_BEAT, &[], body.as_bytes());
    assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
}

#[test]
fn a_pull_that_may_wait_is_answered_when_a_message_becomes_visible() {
    let (_broker, mut producer, mut consumer) = start();
    let half = producer.half_with("orders", 0, b"by commit", &[]);
    let pull = consumer.pull_request("orders", 0, 0, "*", MAY_WAIT, HELD_MS);
    consumer.wire.send(&pull);
    assert!(
        consumer.wire.try_answer(pull.opaque, Duration::from_millis(300)).is_none(),
        "nothing is visible yet"
    );
    producer.end(&half, Verdict::Commit);
    let answer = consumer.wire.answer(pull.opaque);
    assert_eq!(messages(&answer.body)[0].text(), "by commit");

    let pull = consumer.pull_request("orders", 0, 1, "*", MAY_WAIT, HELD_MS);
    consumer.wire.send(&pull);
    producer.send("orders", 0, b"by send", &[]);
    assert_eq!(messages(&consumer.wire.answer(pull.opaque).body)[0].text(), "by send");
}

#[test]
fn a_pull_that_waited_in_vain_says_so_and_where_to_go_on() {
    let (_broker, mut producer, mut consumer) = start();
    producer.send("orders", 0, b"one", &[]);
    let pull = consumer.pull_request("orders", 0, 1, "*", MAY_WAIT, "1000");
    let began = Instant::now();
    consumer.wire.send(&pull);
    let answer = consumer.wire.answer(pull.opaque);
    assert!(began.elapsed() >= Duration::from_millis(900), "it waited {:?}", began.elapsed());
    assert_eq!((answer.code, answer.ext_value("nextBeginOffset")), (PULL_NOT_FOUND, Some("1")));
    assert_eq!((answer.ext_value("minOffset"), answer.ext_value("maxOffset")), (Some("0"), Some("1")));
}

#[test]
fn a_pull_beyond_the_end_is_told_where_the_queue_ends() {
    let (_broker, mut producer, mut consumer) = start();
    producer.send("orders", 0, b"one", &[]);
    let answer = consumer.pull("orders", 0, 1000, "*");
    assert_eq!((answer.code, answer.ext_value("nextBeginOffset")), (PULL_OFFSET_MOVED, Some("1")));
}

#[test]
fn only_messages_of_the_tags_asked_for_are_delivered() {
    let (_broker, mut producer, mut consumer) = start();
    for tag in ["A", "B", "C", "A"] {
        producer.send("orders", 0, tag.as_bytes(), &[("TAGS", tag)]);
    }
    let answer = consumer.pull("orders", 0, 0, "A || C");
    let bodies: Vec<String> =
        messages(&answer.body).iter().map(|message| message.text().to_owned()).collect();
    assert_eq!(bodies, ["A", "C", "A"]);
    assert_eq!(answer.ext_value("nextBeginOffset"), Some("4"));
}

#[test]
fn requests_in_the_binary_header_are_answered_in_it() {
    let (broker, mut producer, mut consumer) = start();
    producer.wire.speak(HeaderEncoding::Binary);
    consumer.wire.speak(HeaderEncoding::Binary);
    producer.send("orders", 0, b"binary", &[]);
    let half = producer.half("orders", b"binary too");
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    assert_eq!(consumer.drain_all("orders", 4).len(), 2);
    let mut name_server = Wire::connect(broker.name_server());
    name_server.speak(HeaderEncoding::Binary);
    assert_eq!(name_server.call(GET_ROUTEINFO, &[("topic", "orders")], b"").code, SUCCESS);
}

#[test]
fn the_first_form_of_send_is_understood() {
    let (_broker, mut producer, mut consumer) = start();
    let properties = format!("UNIQ_KEY\u{1}{}\u{2}", unique_key());
    let fields: Fields<'_> = &[
        ("producerGroup", "PG_delivery"),
        ("topic", "orders"),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "4"),
        ("queueId", "3"),
        ("sysFlag", "0"),
        ("bornTimestamp", "1700000000000"),
        ("flag", "7"),
        ("properties", &properties),
        ("reconsumeTimes", "0"),
        ("unitMode", "false"),
        ("batch", "false"),
    ];
    assert_eq!(producer.wire.call(SEND_MESSAGE, fields, b"v1").code, SUCCESS);
    assert_eq!(consumer.drain("orders", 3, 0)[0].text(), "v1");
}

#[test]
fn a_batch_becomes_single_messages_in_its_order() {
    let (_broker, mut producer, mut consumer) = start();
    let mut body = Vec::new();
    for text in ["first", "second", "third"] {
        let properties = format!("UNIQ_KEY\u{1}{}\u{2}", unique_key());
        let total = 4 + 4 + 4 + 4 + 4 + text.len() + 2 + properties.len();
        body.extend_from_slice(&(total as u32).to_be_bytes());
        body.extend_from_slice(&[0; 12]);
        body.extend_from_slice(&(text.len() as u32).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
        body.extend_from_slice(&(properties.len() as u16).to_be_bytes());
        body.extend_from_slice(properties.as_bytes());
    }
    let fields: Fields<'_> = &[
        ("a", "PG_delivery"),
        ("b", "orders"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "1"),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", ""),
        ("j", "0"),
        ("k", "false"),
        ("m", "true"),
    ];
    let answer = producer.wire.call(SEND_BATCH_MESSAGE, fields, &body);
    assert_eq!(answer.code, SUCCESS, "{:?}", answer.remark);
    assert_eq!(answer.ext_value("msgId").unwrap().split(',').count(), 3);
    let got: Vec<String> =
        consumer.drain("orders", 1, 0).iter().map(|message| message.text().to_owned()).collect();
    assert_eq!(got, ["first", "second", "third"]);
}

#[test]
fn a_group_keeps_its_offsets_and_a_new_group_begins_at_the_first_message() {
    let (_broker, mut producer, mut consumer) = start();
    producer.send("orders", 0, b"one", &[]);
    consumer.join(&["orders"]);
    let place: [(&'static str, &str); 3] =
        [("consumerGroup", "CG_delivery"), ("topic", "orders"), ("queueId", "0")];
    let fresh = consumer.wire.call(QUERY_CONSUMER_OFFSET, &place, b"");
    assert_eq!((fresh.code, fresh.ext_value("offset")), (SUCCESS, Some("0")));
    let mut update = place.to_vec();
    update.push(("commitOffset", "1"));
    assert_eq!(consumer.wire.call(UPDATE_CONSUMER_OFFSET, &update, b"").code, SUCCESS);
    let kept = consumer.wire.call(QUERY_CONSUMER_OFFSET, &place, b"");
    assert_eq!((kept.code, kept.ext_value("offset")), (SUCCESS, Some("1")));
    let missing = [("consumerGroup", "CG_delivery"), ("topic", "no_such_topic"), ("queueId", "0")];
    assert_eq!(consumer.wire.call(QUERY_CONSUMER_OFFSET, &missing, b"").code, QUERY_NOT_FOUND);
}

#[test]
fn a_queue_tells_where_it_begins_and_ends() {
    let (_broker, mut producer, mut consumer) = start();
    for _ in 0..5 {
        producer.send("orders", 0, b"x", &[]);
    }
    for (code, offset) in [(GET_MIN_OFFSET, "0"), (GET_MAX_OFFSET, "5")] {
        let reply = consumer.wire.call(code, &[("topic", "orders"), ("queueId", "0")], b"");
        assert_eq!((reply.code, reply.ext_value("offset")), (SUCCESS, Some(offset)));
    }
}

#[test]
fn a_one_way_send_is_stored_without_an_answer() {
    let (_broker, mut producer, mut consumer) = start();
    let (half, _) = producer.half_request("orders", 0, b"", &[]);
    let mut send = producer.wire.request(310, &[], b"one-way");
    send.ext = half.ext.iter().filter(|(key, _)| key != "f" && key != "i").cloned().collect();
    send.ext
        .extend([("f".into(), "0".to_owned()), ("i".into(), format!("UNIQ_KEY\u{1}{}\u{2}", unique_key()))]);
    let send = send.oneway();
    producer.wire.send(&send);
    producer.heartbeat();
    assert!(producer.wire.try_answer(send.opaque, Duration::from_millis(200)).is_none());
    assert_eq!(consumer.drain("orders", 0, 0)[0].text(), "one-way");
}

#[test]
fn a_route_names_the_broker_as_old_and_new_clients_can_read_it() {
    let (broker, mut producer, _consumer) = start();
    producer.send("orders", 0, b"x", &[]);
    let mut name_server = Wire::connect(broker.name_server());
    assert_eq!(name_server.call(GET_ROUTEINFO, &[("topic", "no_such_topic")], b"").code, TOPIC_NOT_EXIST);
    assert_eq!(name_server.call(GET_ROUTEINFO, &[("topic", "TBW102")], b"").code, SUCCESS);
    let address = broker.address().to_string();
    let mut old = name_server.request(GET_ROUTEINFO, &[("topic", "orders")], b"");
    old.version = OLD_CLIENT_VERSION;
    name_server.send(&old);
    let old = name_server.answer(old.opaque);
    let old = String::from_utf8(old.body.to_vec()).unwrap();
    assert!(old.contains(&format!("{{0:\"{address}\"}}")), "unquoted numeric keys for old clients: {old}");
    let new =
        name_server.call(GET_ROUTEINFO, &[("topic", "orders"), ("acceptStandardJsonOnly", "true")], b"");
    let new: serde_json::Value =
        serde_json::from_slice(&new.body).expect("standard JSON for those who ask for it");
    assert_eq!(new["brokerDatas"][0]["brokerAddrs"]["0"], address);
    assert!(new["brokerDatas"][0].get("enableActingMaster").is_some(), "5.x clients demand it");
    assert_eq!(new["queueDatas"][0]["writeQueueNums"], 4);
}

#[test]
fn many_connections_are_served_at_once() {
    let (broker, ..) = start();
    let senders = (0..16).map(|index| {
        let address = broker.address();
        std::thread::spawn(move || {
            let mut producer = Producer::connect(address, "PG_delivery");
            for i in 0..20 {
                producer.send("crowd", index % 4, format!("{index}-{i}").as_bytes(), &[]);
            }
        })
    });
    senders.collect::<Vec<_>>().into_iter().for_each(|sender| sender.join().unwrap());
    let mut consumer = Consumer::connect(broker.address(), "CG_delivery");
    let mut bodies: Vec<String> =
        consumer.drain_all("crowd", 4).iter().map(|message| message.text().to_owned()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 320);
}
