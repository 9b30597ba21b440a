//! What clients cannot make the broker remember, or do.

use mezzo_protocol::message::{
    batch::{self, BatchMessage},
    properties,
};

use crate::wire::{TestBroker, send_fields};

#[test]
fn a_client_id_that_is_too_long_is_refused_wherever_it_would_be_remembered() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    for (bytes, code) in [(1024, 0), (1025, 1)] {
        let client = "c".repeat(bytes);
        let heartbeat = format!(
            r#"{{"clientID":"{client}","consumerDataSet":[{{"groupName":"g","subscriptionDataSet":[]}}]}}"#
        );
        assert_eq!(wire.call(34, &[], heartbeat.as_bytes()).code, code, "heartbeat, {bytes}");
        let lock = format!(
            r#"{{"consumerGroup":"g","clientId":"{client}","mqSet":[{{"topic":"T","brokerName":"b","queueId":0}}]}}"#
        );
        assert_eq!(wire.call(41, &[], lock.as_bytes()).code, code, "lock, {bytes}");
    }
}

#[test]
fn more_subscriptions_than_a_group_may_have_are_refused_and_not_cut() {
    let broker = TestBroker::start(&["limits.subscriptions_per_group=2"]);
    let mut wire = broker.connect();
    let heartbeat = |topics: &[&str]| {
        let topics: Vec<String> =
            topics.iter().map(|topic| format!(r#"{{"topic":"{topic}","subString":"*"}}"#)).collect();
        let topics = topics.join(",");
        format!(
            r#"{{"clientID":"c","consumerDataSet":[{{"groupName":"g","subscriptionDataSet":[{topics}]}}]}}"#
        )
    };
    assert_eq!(wire.call(34, &[], heartbeat(&["a", "b"]).as_bytes()).code, 0);
    let refused = wire.call(34, &[], heartbeat(&["a", "b", "c"]).as_bytes());
    assert_eq!(refused.code, 1);
    assert!(refused.remark.is_some_and(|remark| remark.contains("limits.subscriptions_per_group")));
}

#[test]
fn a_batch_that_says_for_all_its_messages_that_they_are_halves_or_late_is_refused() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    let mut body = Vec::new();
    batch::encode(&BatchMessage { flag: 0, body: b"m", properties: b"" }, &mut body).unwrap();
    for (shared, code) in [(("TRAN_MSG", "true"), 13), (("DELAY", "3"), 13), (("TAGS", "a"), 0)] {
        let props = properties::encode([shared]).unwrap();
        assert_eq!(wire.call(320, &send_fields("p", "T", "0", &props), &body).code, code, "{shared:?}");
    }
    assert_eq!(wire.max_offset("T", 0), 1);
}

#[test]
fn all_groups_of_a_heartbeat_come_to_exist_in_a_few_readings_of_it() {
    let broker = TestBroker::start(&[]);
    let mut wire = broker.connect();
    let groups: Vec<String> =
        (0..64).map(|n| format!(r#"{{"groupName":"g{n}","subscriptionDataSet":[]}}"#)).collect();
    let heartbeat = format!(r#"{{"clientID":"c","consumerDataSet":[{}]}}"#, groups.join(","));
    assert_eq!(wire.call(34, &[], heartbeat.as_bytes()).code, 0);
    for group in ["g0", "g63"] {
        assert_eq!(wire.max_offset(&format!("%RETRY%{group}"), 0), 0, "the retry topic of {group}");
        assert_eq!(wire.call(38, &[("consumerGroup", group)], b"").code, 0, "{group} has a member");
    }
}
