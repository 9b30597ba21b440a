//! Topics with the attribute `dedup`: what a client sends again because it lost the answer is stored once, and what it
//! means to send twice stays two. The clients are those of RocketMQ, frame by frame: their own retry repeats the
//! message with its unique key on a new connection.

use mezzo_protocol::message::batch::{self, BatchMessage};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::producer::{END_TRANSACTION, HEART_BEAT, SUCCESS, unique_key};
use mezzo_tests::wait;
use mezzo_tests::wire::Wire;

use mezzo_protocol::remoting::RemotingCommand;

const UPDATE_TOPIC: i32 = 17;
const GET_MAX_OFFSET: i32 = 30;
const SEND: i32 = 310;
const SEND_BATCH: i32 = 320;
const TOPIC: &str = "orders";

/// Asks for `rule` on a topic; the broker's answer.
fn ask(broker: &TestBroker, topic: &str, rule: &str) -> RemotingCommand {
    let attributes = format!("+dedup={rule}");
    let fields: &[(&str, &str)] = &[
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "1"),
        ("writeQueueNums", "1"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
        ("attributes", &attributes),
    ];
    Wire::connect(broker.address()).call(UPDATE_TOPIC, fields, b"")
}

fn started(rule: &str, settings: &[&str]) -> TestBroker {
    let broker = TestBroker::start(settings);
    let reply = ask(&broker, TOPIC, rule);
    assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
    broker
}

fn props(entries: &[(&str, &str)]) -> String {
    entries.iter().map(|(name, value)| format!("{name}\u{1}{value}\u{2}")).collect()
}

/// A send as Java writes it.
fn send(wire: &mut Wire, code: i32, props: &str, sys_flag: &str, body: &[u8]) -> i32 {
    let fields: &[(&str, &str)] = &[
        ("a", "PG"),
        ("b", TOPIC),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", sys_flag),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", props),
        ("j", "0"),
        ("k", "false"),
        ("m", if code == SEND_BATCH { "true" } else { "false" }),
    ];
    let request = wire.request(code, fields, body);
    wire.send(&request);
    request.opaque
}

/// Sends and waits: the ids that the broker answers with.
fn sent(wire: &mut Wire, code: i32, props: &str, sys_flag: &str, body: &[u8]) -> (String, String) {
    let opaque = send(wire, code, props, sys_flag, body);
    let reply = wire.answer(opaque);
    assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
    let field = |name: &str| reply.ext_value(name).expect("the answer to a send names it").to_owned();
    (field("msgId"), field("queueOffset"))
}

fn plain(wire: &mut Wire, key: &str) -> (String, String) {
    sent(wire, SEND, &props(&[("UNIQ_KEY", key), ("WAIT", "true")]), "0", b"body")
}

fn messages(broker: &TestBroker) -> u64 {
    let fields: &[(&str, &str)] = &[("topic", TOPIC), ("queueId", "0")];
    let reply = Wire::connect(broker.address()).call(GET_MAX_OFFSET, fields, b"");
    reply.ext_value("offset").expect("an offset").parse().expect("a number")
}

fn heartbeat(wire: &mut Wire) {
    let body = br#"{"clientID":"PG@test","producerDataSet":[{"groupName":"PG"}],"consumerDataSet":[]}"#;
    assert_eq!(wire.call(HEART_BEAT, &[], body).code, SUCCESS);
}

/// Sends on a connection that is cut before the answer, once the message is stored, and again on a new one.
fn answer_is_lost(
    broker: &TestBroker,
    code: i32,
    props: &str,
    sys_flag: &str,
    body: &[u8],
) -> (String, String) {
    let before = messages(broker);
    let mut cut = Wire::connect(broker.address());
    send(&mut cut, code, props, sys_flag, body);
    if sys_flag == "0" {
        wait::until("the first one is stored", || (messages(broker) > before).then_some(()));
    }
    drop(cut);
    sent(&mut Wire::connect(broker.address()), code, props, sys_flag, body)
}

#[test]
fn a_retry_after_a_cut_connection_is_two_messages_by_default_and_one_where_the_topic_asks() {
    for (rule, stored) in [("off", 2), ("retries", 1), ("strict", 1)] {
        let broker = started(rule, &[]);
        let key = unique_key();
        let (id, offset) =
            answer_is_lost(&broker, SEND, &props(&[("UNIQ_KEY", &key), ("WAIT", "true")]), "0", b"body");
        assert_eq!(messages(&broker), stored, "{rule}");
        assert_eq!(offset, (stored - 1).to_string(), "{rule}: {id}");
    }
}

#[test]
fn a_retry_is_one_message_however_it_races_with_the_attempt_that_was_given_up() {
    let mut broker = started("retries", &[]);
    let mut ids = Vec::new();
    for _ in 0..50 {
        let key = unique_key();
        let mut given_up = Wire::connect(broker.address());
        send(&mut given_up, SEND, &props(&[("UNIQ_KEY", &key), ("WAIT", "true")]), "0", b"body");
        drop(given_up);
        ids.push(plain(&mut Wire::connect(broker.address()), &key).0);
    }
    // a stop lets requests in flight finish
    broker.restart();
    assert_eq!(messages(&broker), 50);
    ids.dedup();
    assert_eq!(ids.len(), 50);
}

#[test]
fn one_message_object_sent_twice_on_a_living_connection_is_two_messages() {
    let broker = started("retries", &[]);
    let key = unique_key();
    let mut wire = Wire::connect(broker.address());
    let first = plain(&mut wire, &key);
    assert_ne!(plain(&mut wire, &key), first);
    // and by another connection, while the first lives and has had its answer
    let mut other = Wire::connect(broker.address());
    plain(&mut other, &key);
    assert_eq!(messages(&broker), 3);
    heartbeat(&mut wire);
}

#[test]
fn once_the_retry_was_answered_the_same_object_sent_again_is_another_message() {
    let broker = started("retries", &[]);
    let text = props(&[("UNIQ_KEY", &unique_key()), ("WAIT", "true")]);
    let mut cut = Wire::connect(broker.address());
    let first = sent(&mut cut, SEND, &text, "0", b"body");
    drop(cut);
    let mut wire = Wire::connect(broker.address());
    assert_eq!(sent(&mut wire, SEND, &text, "0", b"body"), first, "the answer may have been lost");
    assert_ne!(sent(&mut wire, SEND, &text, "0", b"body"), first, "this connection has had it");
    assert_eq!(messages(&broker), 2);
}

#[test]
fn an_answer_that_was_read_is_not_lost_when_its_connection_ends() {
    let broker = started("retries", &[]);
    let key = unique_key();
    let mut wire = Wire::connect(broker.address());
    plain(&mut wire, &key);
    // what the client sends next shows that it has read
    heartbeat(&mut wire);
    drop(wire);
    plain(&mut Wire::connect(broker.address()), &key);
    assert_eq!(messages(&broker), 2);
}

#[test]
fn an_answer_later_than_the_client_waits_may_be_lost_on_a_living_connection_too() {
    let broker = started("retries", &["dedup.answer_timeout=0s"]);
    let key = unique_key();
    let mut wire = Wire::connect(broker.address());
    let first = plain(&mut wire, &key);
    assert_eq!(plain(&mut Wire::connect(broker.address()), &key), first);
    assert_eq!(messages(&broker), 1);
}

#[test]
fn a_retry_across_a_restart_is_one_message() {
    let mut broker = started("retries", &[]);
    let key = unique_key();
    let mut wire = Wire::connect(broker.address());
    let first = plain(&mut wire, &key);
    let unrelated = unique_key();
    broker.restart();
    let mut wire = Wire::connect(broker.address());
    assert_eq!(plain(&mut wire, &key), first);
    plain(&mut wire, &unrelated);
    assert_eq!(messages(&broker), 2);
}

#[test]
fn other_bodies_and_other_groups_are_other_messages() {
    let broker = started("retries", &[]);
    let text = props(&[("UNIQ_KEY", &unique_key()), ("WAIT", "true")]);
    answer_is_lost(&broker, SEND, &text, "0", b"body");
    sent(&mut Wire::connect(broker.address()), SEND, &text, "0", b"bodY");
    let other_group = format!("{text}{}", props(&[("PGROUP", "other")]));
    sent(&mut Wire::connect(broker.address()), SEND, &other_group, "0", b"body");
    assert_eq!(messages(&broker), 3);
}

#[test]
fn an_explicit_id_counts_once_on_a_strict_topic_whoever_sends_it_again() {
    let broker = started("strict", &[]);
    let named = |key: &str| props(&[("UNIQ_KEY", key), ("MEZZO_DEDUP_ID", "order-7")]);
    let mut wire = Wire::connect(broker.address());
    let first = sent(&mut wire, SEND, &named(&unique_key()), "0", b"body");
    assert_eq!(sent(&mut wire, SEND, &named(&unique_key()), "0", b"body"), first);
    assert_eq!(sent(&mut Wire::connect(broker.address()), SEND, &named("k"), "0", b"other"), first);
    assert_eq!(messages(&broker), 1);
    let spaced = props(&[("UNIQ_KEY", "k"), ("MEZZO_DEDUP_ID", "order 7")]);
    let opaque = send(&mut wire, SEND, &spaced, "0", b"body");
    assert_ne!(wire.answer(opaque).code, SUCCESS);
}

#[test]
fn a_batch_is_a_repeat_as_a_whole_only() {
    let broker = started("retries", &[]);
    let keys: Vec<String> = (0..3).map(|_| unique_key()).collect();
    let body = |keys: &[String]| {
        let mut body = Vec::new();
        for key in keys {
            let own = props(&[("UNIQ_KEY", key)]);
            let message = BatchMessage { flag: 0, body: b"body", properties: own.as_bytes() };
            batch::encode(&message, &mut body).unwrap();
        }
        body
    };
    let shared = props(&[("UNIQ_KEY", &unique_key()), ("WAIT", "true")]);
    let (ids, offset) = answer_is_lost(&broker, SEND_BATCH, &shared, "0", &body(&keys));
    assert_eq!((ids.split(',').count(), offset.as_str(), messages(&broker)), (3, "0", 3));
    // two of them are another batch
    sent(&mut Wire::connect(broker.address()), SEND_BATCH, &shared, "0", &body(&keys[..2]));
    assert_eq!(messages(&broker), 5);
}

#[test]
fn a_half_message_sent_again_is_the_same_transaction_before_its_decision_and_after() {
    let broker = started("retries", &[]);
    let key = unique_key();
    let half = props(&[("UNIQ_KEY", &key), ("TRAN_MSG", "true"), ("PGROUP", "PG")]);
    let mut wire = Wire::connect(broker.address());
    let opened = sent(&mut wire, SEND, &half, "4", b"body");
    drop(wire);
    assert_eq!(answer_is_lost(&broker, SEND, &half, "4", b"body"), opened);
    let origin = u64::from_str_radix(&opened.0[opened.0.len() - 16..], 16).unwrap().to_string();
    let end: &[(&str, &str)] = &[
        ("producerGroup", "PG"),
        ("tranStateTableOffset", &opened.1),
        ("commitLogOffset", &origin),
        ("commitOrRollback", "8"),
        ("fromTransactionCheck", "false"),
        ("msgId", &key),
        ("transactionId", &key),
    ];
    let mut wire = Wire::connect(broker.address());
    assert_eq!(wire.call(END_TRANSACTION, end, b"").code, SUCCESS);
    assert_eq!(sent(&mut wire, SEND, &half, "4", b"body"), opened);
    assert_eq!(wire.call(END_TRANSACTION, end, b"").code, SUCCESS);
    assert_eq!(messages(&broker), 1);
}

#[test]
fn the_attribute_is_refused_where_it_means_nothing() {
    let broker = started("retries", &[]);
    assert_ne!(ask(&broker, TOPIC, "sometimes").code, SUCCESS);
    assert_ne!(ask(&broker, "%RETRY%CG", "retries").code, SUCCESS);
    assert_eq!(ask(&broker, TOPIC, "off").code, SUCCESS);
    let key = unique_key();
    answer_is_lost(&broker, SEND, &props(&[("UNIQ_KEY", &key), ("WAIT", "true")]), "0", b"body");
    assert_eq!(messages(&broker), 2);
}
