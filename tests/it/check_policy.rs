//! Check-back policies: a group's own, a message's own, and what happens when asking has not helped.

use std::time::Duration;

use mezzo_client::Client;
use mezzo_client::admin::{Admin, CheckWish};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::producer::{Half, Producer, SUCCESS, Verdict};
use mezzo_tests::wait::{self, PATIENCE};
use mezzo_tests::wire::{Fields, Wire};
use serde_json::Value;

const SHOW: i32 = 7_700_002;
const GET_CHECK_POLICY: i32 = 7_700_005;
const SET_CHECK_POLICY: i32 = 7_700_006;
/// The broker's own policy, in the tests below.
const BROKER: [&str; 2] = ["transaction.check_max=1000", "transaction.max_age=100000h"];

fn shown(wire: &mut Wire, half: &Half) -> Value {
    let reply = wire.call(SHOW, &[("origin", &half.log_offset.to_string())], b"");
    assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
    serde_json::from_slice(&reply.body).expect("a JSON body")
}

fn policy(wire: &mut Wire, fields: Fields<'_>) -> Value {
    let code = if fields.len() == 2 { SET_CHECK_POLICY } else { GET_CHECK_POLICY };
    let reply = wire.call(code, fields, b"");
    assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
    serde_json::from_slice(&reply.body).expect("a JSON body")
}

/// Answers UNKNOWN until the transaction is in none of the open states, or is parked; returns the asks it took.
fn unknown_until(broker: &TestBroker, producer: &mut Producer, half: &Half, state: &str) -> u32 {
    let mut wire = Wire::connect(broker.address());
    let mut asks = 0;
    wait::until(state, || {
        broker.clock().advance(Duration::from_secs(3_600));
        producer.heartbeat();
        if producer.asked(Duration::from_millis(300)).as_ref() == Some(half) {
            asks += 1;
            producer.end_oneway(half, Verdict::Unknown, true);
        }
        (shown(&mut wire, half)["state"] == state).then_some(())
    });
    asks
}

#[test]
fn a_groups_policy_rolls_back_in_the_end_and_the_decision_says_so() {
    let mut broker = TestBroker::with_manual_clock(&BROKER);
    let mut wire = Wire::connect(broker.address());
    let before = policy(&mut wire, &[("group", "PG_policy")]);
    assert_eq!(
        (&before["own"], before["policy"].as_str().unwrap().contains("attempts=1000")),
        (&false.into(), true)
    );
    let wish = "interval=2m,attempts=2,then=rollback";
    let set = policy(&mut wire, &[("group", "PG_policy"), ("policy", wish)]);
    assert_eq!(set["own"], true);
    let text = set["policy"].as_str().unwrap();
    for part in ["first=6s", "interval=2m", "attempts=2", "then=rollback"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    broker.restart();
    let mut wire = Wire::connect(broker.address());
    assert_eq!(policy(&mut wire, &[("group", "PG_policy")]), set, "a policy survives a restart");
    let mut producer = Producer::connect(broker.address(), "PG_policy");
    let half = producer.half("orders", b"x");
    assert_eq!(unknown_until(&broker, &mut producer, &half, "ROLLED_BACK"), 2);
    let record = shown(&mut wire, &half);
    assert_eq!(record["decision"]["source"], "POLICY");
    let last = record["events"].as_array().unwrap().last().unwrap().clone();
    assert!(last["reason"].as_str().unwrap().contains("as often as the policy allows"), "{last}");
    let end = producer.end(&half, Verdict::Commit);
    assert_eq!(end.code, 604, "a late commit is told the conflict: {:?}", end.remark);
}

#[test]
fn the_brokers_own_policy_is_what_its_settings_say() {
    let settings = [
        "transaction.check_max=2",
        "transaction.max_age=100000h",
        "transaction.backoff=300",
        "transaction.then=rollback",
    ];
    let broker = TestBroker::with_manual_clock(&settings);
    let mut wire = Wire::connect(broker.address());
    let shown_policy = policy(&mut wire, &[("group", "PG_default")]);
    let text = shown_policy["policy"].as_str().unwrap();
    assert!(text.contains("backoff=300") && text.contains("then=rollback"), "{text}");
    let mut producer = Producer::connect(broker.address(), "PG_default");
    let half = producer.half("orders", b"x");
    assert_eq!(unknown_until(&broker, &mut producer, &half, "ROLLED_BACK"), 2);
    assert_eq!(shown(&mut wire, &half)["decision"]["source"], "POLICY");
    // a message may still ask to be kept
    let half = producer.half_with("orders", 0, b"x", &[("MEZZO_CHECK", "then=park")]);
    assert_eq!(unknown_until(&broker, &mut producer, &half, "IN_DOUBT"), 2);
}

#[test]
fn a_messages_own_policy_goes_over_its_groups_and_parks() {
    let broker = TestBroker::with_manual_clock(&BROKER);
    let mut wire = Wire::connect(broker.address());
    policy(&mut wire, &[("group", "PG_message"), ("policy", "attempts=500,then=rollback")]);
    let mut producer = Producer::connect(broker.address(), "PG_message");
    let half = producer.half_with("orders", 0, b"x", &[("MEZZO_CHECK", "attempts=1,then=park")]);
    assert_eq!(unknown_until(&broker, &mut producer, &half, "IN_DOUBT"), 1);
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
}

#[test]
fn a_policy_that_cannot_be_read_is_refused_where_it_is_given() {
    let broker = TestBroker::start(&[]);
    let mut wire = Wire::connect(broker.address());
    let refused = wire.call(SET_CHECK_POLICY, &[("group", "g"), ("policy", "attempts=0")], b"");
    assert!(refused.code != SUCCESS);
    assert!(refused.remark.is_some_and(|remark| remark.contains("attempts=0")));
    let mut producer = Producer::connect(broker.address(), "PG_bad");
    let (half, _) = producer.half_request("orders", 0, b"x", &[("MEZZO_CHECK", "first=soon")]);
    producer.wire.send(&half);
    let reply = producer.wire.answer(half.opaque);
    assert!(reply.code != SUCCESS);
    assert!(reply.remark.is_some_and(|remark| remark.contains("MEZZO_CHECK")));
    assert!(producer.asked(Duration::from_millis(100)).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_sets_and_clears_a_policy_through_the_sdk() {
    let broker = TestBroker::start(&[]);
    let client = Client::connect(broker.name_server().to_string()).await.unwrap();
    let (admin, address) = (Admin::new(&client), broker.address().to_string());
    let wish = CheckWish::parse("first=1s,backoff=200").unwrap();
    let set = admin.set_check_policy(&address, "g", Some(&wish)).await.unwrap();
    assert!(set.own && set.policy.contains("first=1s") && set.policy.contains("backoff=200"), "{set:?}");
    assert_eq!(admin.check_policy(&address, "g").await.unwrap(), set);
    assert!(!admin.set_check_policy(&address, "g", None).await.unwrap().own);
    assert!(tokio::time::timeout(PATIENCE, admin.check_policy(&address, "")).await.unwrap().is_err());
}
