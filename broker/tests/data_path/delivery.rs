//! When and to whom messages are delivered: filters, long polls, delays, retries.

use mezzo_protocol::message::properties;

use crate::wire::{TestBroker, bodies, messages, pull_fields, send_fields};

#[test]
fn the_tag_filter_lets_through_what_is_wanted_and_moves_on_over_the_rest() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    for (tag, body) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
        wire.put("T", &[("TAGS", tag)], body.as_bytes());
    }
    let pulled = wire.pull("T", 0, "a || b");
    assert_eq!(
        (bodies(&pulled), pulled.ext_value("nextBeginOffset")),
        (vec!["1".into(), "2".into(), "3".into()], Some("4"))
    );
    let none = wire.pull("T", 0, "x");
    assert_eq!((none.code, none.ext_value("nextBeginOffset")), (20, Some("4")));
}

#[test]
fn an_offset_outside_the_queue_is_told_where_to_go_on() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    wire.put("T", &[], b"x");
    let moved = wire.call(11, &pull_fields("T", "9", "*", "4", "0"), b"");
    assert_eq!((moved.code, moved.ext_value("nextBeginOffset")), (21, Some("1")));
    // before the begin nothing may be skipped
    assert_eq!(bodies(&wire.call(11, &pull_fields("T", "-5", "*", "4", "0"), b"")), ["x"]);
    let end = wire.pull("T", 1, "*");
    assert_eq!((end.code, end.ext_value("nextBeginOffset")), (19, Some("1")));
    assert_eq!(wire.pull("unknown", 0, "*").code, 17);
    // without a subscription in the request there must be one of the group's heartbeat
    assert_eq!(wire.call(11, &pull_fields("T", "0", "*", "0", "0"), b"").code, 24);
}

#[test]
fn a_held_pull_is_answered_when_a_wanted_message_arrives() {
    let broker = TestBroker::start(&[]);
    let (mut producer, mut consumer) = (broker.connect(), broker.connect());
    producer.put("T", &[], b"before");
    let all = consumer.send(11, &pull_fields("T", "1", "*", "6", "15000"), b"");
    let some = consumer.send(11, &pull_fields("T", "1", "a", "6", "15000"), b"");
    // the connection is not blocked by what it holds
    assert_eq!(consumer.max_offset("T", 0), 1);
    producer.put("T", &[("TAGS", "b")], b"other");
    assert_eq!(bodies(&consumer.answer(all)), ["other"]);
    producer.put("T", &[("TAGS", "a")], b"wanted");
    let found = consumer.answer(some);
    assert_eq!((bodies(&found), found.ext_value("nextBeginOffset")), (vec!["wanted".to_owned()], Some("3")));
}

#[test]
fn a_held_pull_is_answered_empty_when_its_time_is_up() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    wire.put("T", &[], b"x");
    let held = wire.send(11, &pull_fields("T", "1", "*", "6", "15000"), b"");
    assert_eq!(wire.max_offset("T", 0), 1);
    broker.advance(15_001);
    let reply = wire.answer(held);
    assert_eq!((reply.code, reply.ext_value("nextBeginOffset")), (19, Some("1")));
}

#[test]
fn a_pull_of_a_topic_made_again_is_answered_though_another_still_waits_for_the_old_one() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    wire.put("T", &[], b"old");
    let _of_the_old = wire.send(11, &pull_fields("T", "1", "*", "6", "15000"), b"");
    assert_eq!(wire.call(215, &[("topic", "T")], b"").code, 0);
    wire.put("T", &[], b"first");
    let of_the_new = wire.send(11, &pull_fields("T", "1", "*", "6", "15000"), b"");
    assert_eq!(wire.max_offset("T", 0), 1);
    wire.put("T", &[], b"second");
    assert_eq!(bodies(&wire.answer(of_the_new)), ["second"]);
}

#[test]
fn past_the_bound_a_pull_is_answered_at_once() {
    let broker = TestBroker::start(&["limits.held_pulls=1"]);
    let mut wire = broker.connect();
    wire.put("T", &[], b"x");
    let held = wire.send(11, &pull_fields("T", "1", "*", "6", "15000"), b"");
    assert_eq!(wire.call(11, &pull_fields("T", "1", "*", "6", "15000"), b"").code, 19);
    wire.put("T", &[], b"y");
    assert_eq!(bodies(&wire.answer(held)), ["y"]);
}

#[test]
fn a_delayed_message_is_delivered_when_due_and_not_before() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    wire.put("T", &[], b"now");
    let due = (broker.now_ms() + 2_000).to_string();
    assert_eq!(wire.put("T", &[("DELAY", "2")], b"5 s").code, 0);
    assert_eq!(wire.put("T", &[("TIMER_DELIVER_MS", &due)], b"2 s").code, 0);
    assert_eq!(wire.put("T", &[("TIMER_DELAY_SEC", "3")], b"3 s").code, 0);
    assert_eq!(wire.put("T", &[("TIMER_DELIVER_MS", "5")], b"past").code, 0);
    assert_eq!(bodies(&wire.pull("T", 0, "*")), ["now", "past"]);
    broker.advance(2_000);
    wire.wait_for_max("T", 3);
    broker.advance(10_000);
    wire.wait_for_max("T", 5);
    let pulled = wire.pull("T", 0, "*");
    assert_eq!(bodies(&pulled), ["now", "past", "2 s", "3 s", "5 s"]);
    let last = messages(&pulled)[4];
    assert_eq!((last.property("DELAY"), last.store_timestamp().as_ms()), (None, broker.now_ms()));
}

#[test]
fn a_message_sent_back_comes_again_after_its_delay_and_ends_in_the_dead_letter_topic() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    wire.create_group("g");
    wire.put("T", &[("UNIQ_KEY", "K"), ("TAGS", "a")], b"hard");
    let pulled = wire.pull("T", 0, "*");
    let position = messages(&pulled)[0].physical_offset().0.to_string();
    let back = [("offset", position.as_str()), ("group", "g"), ("delayLevel", "0")];
    assert_eq!(wire.call(36, &back, b"").code, 0);
    assert_eq!(wire.max_offset("%RETRY%g", 0), 0);
    broker.advance(10_000);
    wire.wait_for_max("%RETRY%g", 1);
    let again = wire.pull("%RETRY%g", 0, "*");
    let retry = messages(&again)[0];
    assert_eq!((retry.body(), retry.reconsume_times(), retry.unique_key()), (&b"hard"[..], 1, Some("K")));
    assert_eq!((retry.property("RETRY_TOPIC"), retry.tags()), (Some("T"), Some("a")));
    let first_id = retry.property("ORIGIN_MESSAGE_ID").unwrap();

    let position = retry.physical_offset().0.to_string();
    let dead = [("offset", position.as_str()), ("group", "g"), ("delayLevel", "-1")];
    assert_eq!(wire.call(36, &dead, b"").code, 0);
    let letters = wire.pull("%DLQ%g", 0, "*");
    let letter = messages(&letters)[0];
    assert_eq!((letter.body(), letter.reconsume_times()), (&b"hard"[..], 2));
    assert_eq!(letter.property("DLQ_ORIGIN_TOPIC"), Some("T"));
    assert_eq!(letter.property("DLQ_ORIGIN_MESSAGE_ID"), Some(first_id));

    assert_eq!(wire.call(36, &[("offset", "3"), ("group", "g"), ("delayLevel", "0")], b"").code, 1);
    assert_eq!(wire.call(36, &[("offset", &position), ("group", "none"), ("delayLevel", "0")], b"").code, 26);
}

#[test]
fn a_retry_that_a_consumer_sends_itself_obeys_the_limit_of_attempts() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    wire.create_group("g");
    let props = properties::encode([("TRAN_MSG", "true"), ("DELAY", "3"), ("RETRY_TOPIC", "T")]).unwrap();
    let fields = |times: &'static str| {
        let mut fields = send_fields("CLIENT_INNER_PRODUCER", "%RETRY%g", "0", &props);
        fields.iter_mut().filter(|(field, _)| *field == "j").for_each(|field| field.1 = times);
        fields.push(("l", "2"));
        fields
    };
    // was a half message once: now a plain retry
    assert_eq!(wire.call(310, &fields("1"), b"again").code, 0);
    broker.advance(10_000);
    wire.wait_for_max("%RETRY%g", 1);
    assert_eq!(messages(&wire.pull("%RETRY%g", 0, "*"))[0].property("TRAN_MSG"), None);
    assert_eq!(wire.call(310, &fields("3"), b"dead").code, 0);
    assert_eq!(bodies(&wire.pull("%DLQ%g", 0, "*")), ["dead"]);
}
