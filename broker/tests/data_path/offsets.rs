//! How far groups have come, and where queues begin and end.

use crate::wire::{TestBroker, Wire, pull_fields};

fn offset(wire: &mut Wire, code: i32, fields: &[(&'static str, &str)]) -> (i32, Option<String>) {
    let reply = wire.call(code, fields, b"");
    (reply.code, reply.ext_value("offset").map(str::to_owned))
}

#[test]
fn a_new_group_starts_at_the_first_message_and_then_where_it_reported_to_be() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    wire.put("T", &[], b"x");
    wire.create_group("g");
    let asked = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0")];
    assert_eq!(offset(&mut wire, 14, &asked), (0, Some("0".to_owned())));
    let strict = [asked[0], asked[1], asked[2], ("setZeroIfNotFound", "false")];
    assert_eq!(offset(&mut wire, 14, &strict), (22, None));

    let report = |at: &'static str| [asked[0], asked[1], asked[2], ("commitOffset", at)];
    assert_eq!(wire.call(15, &report("1"), b"").code, 0);
    assert_eq!(offset(&mut wire, 14, &asked), (0, Some("1".to_owned())));
    // "none" changes nothing
    assert_eq!(wire.call(15, &report("-1"), b"").code, 0);
    assert_eq!(offset(&mut wire, 14, &strict), (0, Some("1".to_owned())));

    let unknown = [("consumerGroup", "none"), ("topic", "T"), ("queueId", "0"), ("commitOffset", "1")];
    assert_eq!(wire.call(15, &unknown, b"").code, 26);
    let no_queue = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "5"), ("commitOffset", "1")];
    assert_eq!(wire.call(15, &no_queue, b"").code, 29);
    assert_eq!(
        offset(&mut wire, 14, &[("consumerGroup", "g"), ("topic", "none"), ("queueId", "0")]),
        (22, None)
    );
}

#[test]
fn a_pull_can_report_on_the_way() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    wire.put("T", &[], b"x");
    wire.create_group("g");
    let mut fields = pull_fields("T", "0", "*", "5", "0");
    fields.iter_mut().filter(|(field, _)| *field == "commitOffset").for_each(|field| field.1 = "1");
    assert_eq!(wire.call(11, &fields, b"").code, 0);
    let asked = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0")];
    assert_eq!(offset(&mut wire, 14, &asked), (0, Some("1".to_owned())));
}

#[test]
fn ends_and_times_of_a_queue_are_told() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    let begin = broker.now_ms();
    for _ in 0..3 {
        wire.put("T", &[], b"x");
    }
    broker.advance(1_000);
    wire.put("T", &[], b"y");
    let queue = [("topic", "T"), ("queueId", "0")];
    assert_eq!(offset(&mut wire, 30, &queue), (0, Some("4".to_owned())));
    assert_eq!(offset(&mut wire, 31, &queue), (0, Some("0".to_owned())));
    let earliest = wire.call(32, &queue, b"");
    assert_eq!(earliest.ext_value("timestamp"), Some(begin.to_string().as_str()));
    let mut at = |ms: u64, boundary: &str| {
        let time = ms.to_string();
        let fields = [queue[0], queue[1], ("timestamp", time.as_str()), ("boundaryType", boundary)];
        offset(&mut wire, 29, &fields).1.unwrap()
    };
    assert_eq!([at(begin - 9, "LOWER"), at(begin, "LOWER"), at(begin, "UPPER")], ["0", "0", "2"]);
    assert_eq!(
        [at(begin + 1, "LOWER"), at(begin + 1_000, "UPPER"), at(begin + 9_999, "LOWER")],
        ["3", "3", "4"]
    );
}
