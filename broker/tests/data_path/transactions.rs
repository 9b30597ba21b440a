//! Half messages, decisions and check-backs as a producer sees them.

use mezzo_protocol::{
    ids::OffsetMessageId,
    message::{properties, sys_flag::TransactionBits},
    remoting::RemotingCommand,
};

use crate::wire::{PATIENCE, TestBroker, Wire, bodies, messages, send_fields};

/// Short times and few asks.
const CHECKS: [&str; 3] =
    ["transaction.timeout=2s", "transaction.check_interval=2s", "transaction.check_max=2"];

/// Past the first deadline, which the store sets half a second behind the timeout, and past every later one.
const ASK_AFTER_MS: u64 = 2_600;

/// Sends a half message; gives its origin as text.
fn half(wire: &mut Wire, extra: &[(&str, &str)], body: &[u8]) -> String {
    let own = [("TRAN_MSG", "true"), ("PGROUP", "p"), ("UNIQ_KEY", "K")];
    let props = properties::encode(own.iter().chain(extra).copied()).unwrap();
    let mut fields = send_fields("p", "T", "0", &props);
    fields.iter_mut().filter(|(field, _)| *field == "f").for_each(|field| field.1 = "4");
    let reply = wire.call(310, &fields, body);
    assert_eq!((reply.code, reply.ext_value("transactionId")), (0, Some("K")), "{:?}", reply.remark);
    let id = OffsetMessageId::decode(reply.ext_value("msgId").unwrap()).unwrap();
    let origin = id.physical_offset.0.to_string();
    assert_eq!(
        reply.ext_value("queueOffset"),
        Some(origin.as_str()),
        "END names the half by its origin twice"
    );
    origin
}

fn end_fields<'a>(origin: &'a str, how: &'a str, from_check: &'a str) -> [(&'static str, &'a str); 7] {
    [
        ("producerGroup", "p"),
        ("tranStateTableOffset", origin),
        ("commitLogOffset", origin),
        ("commitOrRollback", how),
        ("fromTransactionCheck", from_check),
        ("msgId", "K"),
        ("transactionId", "K"),
    ]
}

fn end(wire: &mut Wire, origin: &str, how: &str) -> RemotingCommand {
    wire.call(37, &end_fields(origin, how, "false"), b"")
}

#[test]
fn a_half_message_is_invisible_until_its_commit_and_committed_once() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    let origin = half(&mut wire, &[], b"money");
    assert_eq!(wire.pull("T", 0, "*").code, 19);
    assert_ne!(wire.call(33, &[("offset", &origin)], b"").code, 0);
    let first = end(&mut wire, &origin, "8");
    assert_eq!((first.code, first.ext_value("mezzoOutcome")), (0, Some("COMMITTED")));
    assert_eq!(end(&mut wire, &origin, "8").code, 0);
    let conflict = end(&mut wire, &origin, "12");
    assert_eq!((conflict.code, conflict.ext_value("mezzoOutcome")), (604, Some("COMMITTED")));
    let pulled = wire.pull("T", 0, "*");
    assert_eq!(bodies(&pulled), ["money"]);
    let message = messages(&pulled)[0];
    assert_eq!(message.sys_flag().transaction(), TransactionBits::Commit);
    assert_eq!(message.prepared_transaction_offset().0.to_string(), origin);
    assert_eq!(bodies(&wire.call(33, &[("offset", &origin)], b"")), ["money"]);
}

#[test]
fn a_rollback_stands_and_delivers_nothing() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    let origin = half(&mut wire, &[], b"no");
    wire.oneway(37, &end_fields(&origin, "12", "0"), b"");
    let conflict = end(&mut wire, &origin, "8");
    assert_eq!((conflict.code, conflict.ext_value("mezzoOutcome")), (604, Some("ROLLED_BACK")));
    assert_eq!(wire.max_offset("T", 0), 0);
}

#[test]
fn an_end_that_names_another_transaction_is_refused_and_decides_nothing() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    let origin = half(&mut wire, &[], b"x");
    let mut with = |name: &str, value: &str| {
        let mut fields = end_fields(&origin, "8", "false");
        fields.iter_mut().filter(|(field, _)| *field == name).for_each(|field| field.1 = value);
        let reply = wire.call(37, &fields, b"");
        (reply.code, reply.remark.unwrap_or_default())
    };
    assert_eq!(with("producerGroup", "other"), (1, "The producer group wrong".to_owned()));
    assert_eq!(with("tranStateTableOffset", "1"), (1, "The transaction state table offset wrong".to_owned()));
    assert_eq!(with("commitLogOffset", "1").0, 1);
    let mut fields = end_fields(&origin, "8", "false");
    (fields[5].1, fields[6].1) = ("another", "another");
    assert_eq!(wire.call(37, &fields, b"").code, 1);
    assert_eq!(wire.max_offset("T", 0), 0);
    assert_eq!(end(&mut wire, &origin, "8").code, 0);
}

#[test]
fn a_delayed_half_message_waits_from_its_commit_on() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    let origin = half(&mut wire, &[("DELAY", "1")], b"later");
    broker.advance(1_500);
    assert_eq!(end(&mut wire, &origin, "8").code, 0);
    assert_eq!(wire.max_offset("T", 0), 0);
    broker.advance(1_000);
    wire.wait_for_max("T", 1);
    assert_eq!(bodies(&wire.pull("T", 0, "*")), ["later"]);
}

#[test]
fn an_undecided_transaction_is_asked_and_the_answer_decides_it() {
    let broker = TestBroker::start(&CHECKS);
    let mut wire = broker.connect();
    let origin = half(&mut wire, &[], b"asked");
    broker.advance(ASK_AFTER_MS);
    let check = wire.asked(39);
    assert!(check.is_oneway());
    for (field, value) in [
        ("tranStateTableOffset", origin.as_str()),
        ("commitLogOffset", &origin),
        ("msgId", "K"),
        ("transactionId", "K"),
        ("topic", "T"),
    ] {
        assert_eq!(check.ext_value(field), Some(value), "{field}");
    }
    let offset_id = OffsetMessageId::decode(check.ext_value("offsetMsgId").unwrap()).unwrap();
    assert_eq!(offset_id.physical_offset.0.to_string(), origin);
    let whole = messages(&check)[0];
    assert_eq!(
        (whole.body(), whole.unique_key(), whole.property("PGROUP")),
        (&b"asked"[..], Some("K"), Some("p"))
    );
    wire.oneway(37, &end_fields(&origin, "8", "1"), b"");
    wire.wait_for_max("T", 1);
    // decided: never asked again
    broker.advance(60_000);
    half(&mut wire, &[("CHECK_IMMUNITY_TIME_IN_SECONDS", "1")], b"another");
    broker.advance(1_600);
    assert_ne!(wire.asked(39).ext_value("commitLogOffset"), Some(origin.as_str()));
    assert!(!wire.was_asked(39));
}

#[test]
fn unknown_is_asked_check_max_times_then_parked_and_a_late_end_still_decides() {
    let broker = TestBroker::start(&CHECKS);
    let mut wire = broker.connect();
    let origin = half(&mut wire, &[], b"x");
    for _ in 0..2 {
        broker.advance(ASK_AFTER_MS);
        assert_eq!(wire.asked(39).ext_value("commitLogOffset"), Some(origin.as_str()));
        let reply = wire.call(37, &end_fields(&origin, "0", "true"), b"");
        assert_eq!((reply.code, reply.ext_value("mezzoOutcome")), (0, Some("PREPARED")));
    }
    broker.advance(ASK_AFTER_MS);
    let begin = std::time::Instant::now();
    loop {
        assert!(begin.elapsed() < PATIENCE, "it is not parked");
        let reply = wire.call(37, &end_fields(&origin, "0", "false"), b"");
        if reply.ext_value("mezzoOutcome") == Some("IN_DOUBT") {
            break;
        }
        std::thread::yield_now();
    }
    assert!(!wire.was_asked(39), "a parked transaction is not asked on a timer");
    // a new connection of its group is asked once more
    let mut other = broker.connect();
    other.call(310, &send_fields("p", "T", "0", ""), b"sign of life");
    assert_eq!(other.asked(39).ext_value("commitLogOffset"), Some(origin.as_str()));
    assert_eq!(end(&mut wire, &origin, "8").code, 0);
    assert_eq!(bodies(&other.pull("T", 0, "*")), ["sign of life", "x"]);
}

#[test]
fn a_transaction_whose_producer_is_gone_is_asked_of_another_member_without_burning_attempts() {
    let broker = TestBroker::start(&CHECKS);
    let origin = {
        let mut gone = broker.connect();
        half(&mut gone, &[], b"x")
    };
    let mut bystander = broker.connect();
    for _ in 0..6 {
        broker.advance(ASK_AFTER_MS);
        // another driver's work shows that time has been seen
        let due = (broker.now_ms() + 1).to_string();
        let before = bystander.max_offset("D", 0).max(0);
        bystander.put("D", &[("TIMER_DELIVER_MS", &due)], b"tick");
        broker.advance(1);
        bystander.wait_for_max("D", before + 1);
    }
    let mut member = broker.connect();
    member.call(310, &send_fields("p", "T", "0", ""), b"here");
    assert_eq!(member.asked(39).ext_value("commitLogOffset"), Some(origin.as_str()));
    let reply = member.call(37, &end_fields(&origin, "8", "true"), b"");
    assert_eq!((reply.code, reply.ext_value("mezzoOutcome")), (0, Some("COMMITTED")));
}

#[test]
fn a_transaction_that_no_frame_can_ask_about_does_not_hold_up_the_next() {
    let broker = TestBroker::start(&CHECKS);
    let mut wire = broker.connect();
    // the question names the key twice, and JSON writes each of these as six bytes: too long for a header
    let key = "\u{3}".repeat(25_000);
    let props =
        properties::encode([("TRAN_MSG", "true"), ("PGROUP", "p"), ("UNIQ_KEY", key.as_str())]).unwrap();
    assert_eq!(wire.call(310, &send_fields("p", "T", "0", &props), b"unaskable").code, 0);
    let beside = half(&mut wire, &[], b"due at the same time");
    broker.advance(100);
    let behind = half(&mut wire, &[], b"due a moment later");
    broker.advance(2_440);
    assert_eq!(wire.asked(39).ext_value("commitLogOffset"), Some(beside.as_str()));
    // less than a connection rests that did not take a question
    broker.advance(100);
    assert_eq!(wire.asked(39).ext_value("commitLogOffset"), Some(behind.as_str()));
}
