//! What a send stores, what it answers, and what it refuses.

use mezzo_protocol::{
    ids::OffsetMessageId,
    message::{
        batch::{self, BatchMessage},
        properties,
    },
};

use crate::wire::{TestBroker, bodies, messages, pull_fields, send_fields};

#[test]
fn a_send_creates_its_topic_and_its_message_is_delivered_with_its_place() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    assert_eq!(
        wire.put("T", &[("UNIQ_KEY", "K1"), ("TAGS", "a")], b"first").ext_value("queueOffset"),
        Some("0")
    );
    let reply = wire.put("T", &[("UNIQ_KEY", "K2")], b"second");
    assert_eq!(
        (reply.code, reply.ext_value("queueId"), reply.ext_value("queueOffset")),
        (0, Some("0"), Some("1"))
    );
    assert_eq!(reply.ext_value("transactionId"), Some("K2"));
    let id = OffsetMessageId::decode(reply.ext_value("msgId").unwrap()).unwrap();

    let pulled = wire.pull("T", 0, "*");
    assert_eq!((pulled.code, bodies(&pulled)), (0, vec!["first".to_owned(), "second".to_owned()]));
    for (field, value) in
        [("nextBeginOffset", "2"), ("minOffset", "0"), ("maxOffset", "2"), ("suggestWhichBrokerId", "0")]
    {
        assert_eq!(pulled.ext_value(field), Some(value), "{field}");
    }
    let second = messages(&pulled)[1];
    assert_eq!((second.queue_offset().0, second.physical_offset()), (1, id.physical_offset));
    assert_eq!((second.store_host(), second.store_timestamp().as_ms()), (id.host, broker.now_ms()));
    assert_eq!(second.unique_key(), Some("K2"));

    let viewed = wire.call(33, &[("offset", &id.physical_offset.0.to_string())], b"");
    assert_eq!((viewed.code, bodies(&viewed)), (0, vec!["second".to_owned()]));
    assert_ne!(wire.call(33, &[("offset", &(id.physical_offset.0 + 1).to_string())], b"").code, 0);
    assert_ne!(wire.call(33, &[("offset", "-1")], b"").code, 0);
}

#[test]
fn many_requests_in_one_write_are_answered_each_and_in_order() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    wire.put("T", &[], b"0");
    let opaques: Vec<i32> = (1..200)
        .map(|n: u32| wire.send(310, &send_fields("p", "T", "0", ""), n.to_string().as_bytes()))
        .collect();
    for (n, opaque) in (1..200).zip(opaques) {
        assert_eq!(wire.answer(opaque).ext_value("queueOffset"), Some(n.to_string().as_str()));
    }
    let pulled = wire.pull("T", 190, "*");
    assert_eq!(bodies(&pulled), (190..200).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_batch_is_stored_message_by_message_and_answered_with_all_ids() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    let mut body = Vec::new();
    for (n, text) in ["x", "y", "z"].iter().enumerate() {
        let own = properties::encode([("UNIQ_KEY", format!("K{n}").as_str())]).unwrap();
        let message = BatchMessage { flag: 0, body: text.as_bytes(), properties: own.as_bytes() };
        batch::encode(&message, &mut body).unwrap();
    }
    let shared = properties::encode([("UNIQ_KEY", "BATCH"), ("WAIT", "true")]).unwrap();
    let reply = wire.call(320, &send_fields("p", "T", "0", &shared), &body);
    assert_eq!((reply.code, reply.ext_value("queueOffset")), (0, Some("0")), "{:?}", reply.remark);
    assert_eq!(reply.ext_value("msgId").unwrap().split(',').count(), 3);
    let pulled = wire.pull("T", 0, "*");
    assert_eq!(bodies(&pulled), ["x", "y", "z"]);
    for (n, view) in messages(&pulled).iter().enumerate() {
        assert_eq!(view.unique_key(), Some(format!("K{n}").as_str()));
        assert_eq!(view.property("WAIT"), Some("true"));
    }
    // a bad message at the end: nothing is stored
    body.extend_from_slice(&[0, 0, 0, 9]);
    assert_eq!(wire.call(320, &send_fields("p", "T", "0", ""), &body).code, 13);
    assert_eq!(wire.max_offset("T", 0), 3);
}

#[test]
fn what_cannot_be_stored_is_refused_with_a_code_and_a_remark() {
    let broker = TestBroker::start(&["limits.message_size=1KiB"]);
    let mut wire = broker.connect();
    wire.put("T", &[], b"there");
    let with = |name: &'static str, value: &'static str| {
        let mut fields = send_fields("p", "T", "0", "");
        fields.iter_mut().filter(|(field, _)| *field == name).for_each(|field| field.1 = value);
        fields
    };
    let delay = properties::encode([("DELAY", "soon")]).unwrap();
    let long_delay = properties::encode([("TIMER_DELAY_SEC", "99999999999")]).unwrap();
    let cases = [
        (with("b", "bad topic"), 29),
        (with("b", "SCHEDULE_TOPIC_XXXX"), 16),
        (with("b", "%RETRY%unknown"), 26),
        (with("e", "7"), 29),
        (with("f", "128"), 13),
        (with("f", "64"), 13),
        (send_fields("p", "T", "0", &delay), 13),
        (send_fields("p", "T", "0", &long_delay), 13),
    ];
    for (fields, code) in cases {
        let reply = wire.call(310, &fields, b"body");
        assert_eq!(reply.code, code, "{fields:?}: {:?}", reply.remark);
        assert!(reply.remark.is_some_and(|remark| !remark.is_empty()));
    }
    assert_eq!(wire.call(310, &send_fields("p", "T", "0", ""), &[0; 2_000]).code, 13);
    assert_eq!(wire.max_offset("T", 0), 1);
}

#[test]
fn without_auto_creation_an_unknown_topic_is_refused() {
    let broker = TestBroker::start(&["topic.auto_create=false"]);
    let mut wire = broker.connect();
    assert_eq!(wire.put("T", &[], b"body").code, 17);
}

#[test]
fn a_queue_below_zero_lets_the_broker_choose() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    let mut fields = send_fields("p", "T", "-1", "");
    fields.iter_mut().filter(|(field, _)| *field == "d").for_each(|field| field.1 = "2");
    let mut queues: Vec<String> =
        (0..4).map(|_| wire.call(310, &fields, b"x").ext_value("queueId").unwrap().to_owned()).collect();
    queues.sort();
    assert_eq!(queues, ["0", "0", "1", "1"]);
}

#[test]
fn the_first_form_of_a_send_and_a_pull_in_its_name_work_as_well() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    let fields = [
        ("producerGroup", "p"),
        ("topic", "T"),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "1"),
        ("queueId", "0"),
        ("sysFlag", "0"),
        ("bornTimestamp", "1"),
        ("flag", "7"),
        ("properties", ""),
    ];
    assert_eq!(wire.call(10, &fields, b"old").code, 0);
    let pulled = wire.call(11, &pull_fields("T", "0", "*", "4", "0"), b"");
    assert_eq!((bodies(&pulled), messages(&pulled)[0].flag()), (vec!["old".to_owned()], 7));
}
