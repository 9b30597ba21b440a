//! What an operator can see and do about transactions over the wire: open ones are listed by what is asked for, one is
//! shown from its prepare to its end, a parked one is decided or asked about again, and the first decision stands.

use std::time::Duration;

use mezzo_client::admin::{Admin, Decided, TransactionFilter, TransactionOutcome, TransactionState};
use mezzo_client::{Client, PhysicalOffset};
use mezzo_protocol::remoting::RemotingCommand;
use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Half, Producer, SUCCESS, Verdict};
use mezzo_tests::wait::{self, PATIENCE};
use mezzo_tests::wire::{Fields, Wire};
use serde_json::Value;

const QUEUES: u32 = 4;
const LIST: i32 = 7_700_001;
const SHOW: i32 = 7_700_002;
const DECIDE: i32 = 7_700_003;
const RESUME: i32 = 7_700_004;
const RESUME_CHECK_HALF_MESSAGE: i32 = 323;
const QUERY_NOT_FOUND: i32 = 22;
const ILLEGAL_OPERATION: i32 = 604;
/// More than any interval that the broker may wait between two asks.
const LONG: Duration = Duration::from_secs(3600);

struct Operator {
    wire: Wire,
}

impl Operator {
    fn connect(broker: &TestBroker) -> Self {
        Self { wire: Wire::connect(broker.address()) }
    }

    fn list(&mut self, filters: Fields<'_>) -> (Vec<Value>, Option<u64>) {
        let reply = self.wire.call(LIST, filters, b"");
        assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
        let page = json(&reply);
        (page["transactions"].as_array().expect("a list").clone(), page["next"].as_u64())
    }

    fn origins(&mut self, filters: Fields<'_>) -> Vec<u64> {
        self.list(filters)
            .0
            .iter()
            .map(|transaction| transaction["origin"].as_u64().expect("a number"))
            .collect()
    }

    fn show(&mut self, half: &Half) -> Value {
        let reply = self.wire.call(SHOW, &[("origin", &half.log_offset.to_string())], b"");
        assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
        json(&reply)
    }

    /// Code, `mezzoResult`, and what stands.
    fn decide(&mut self, half: &Half, outcome: &str, force: &str) -> (i32, String, Value) {
        let origin = half.log_offset.to_string();
        let fields = [("origin", &*origin), ("outcome", outcome), ("reason", "ticket 7"), ("force", force)];
        let reply = self.wire.call(DECIDE, &fields, b"");
        (reply.code, reply.ext_value("mezzoResult").unwrap_or_default().to_owned(), json(&reply))
    }
}

fn json(reply: &RemotingCommand) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {:?}", reply.remark))
}

fn delivered(broker: &TestBroker) -> Vec<String> {
    let mut consumer = Consumer::connect(broker.address(), "CG_operators");
    consumer.drain_all("orders", QUEUES).iter().map(|message| message.text().to_owned()).collect()
}

/// A transaction that was asked about once, answered with "unknown", and parked.
fn parked(broker: &TestBroker, producer: &mut Producer, operator: &mut Operator) -> Half {
    let half = producer.half("orders", b"parked");
    broker.clock().advance(LONG);
    assert_eq!(producer.asked(PATIENCE), Some(half.clone()));
    producer.end_oneway(&half, Verdict::Unknown, true);
    producer.heartbeat();
    wait::until("it is parked", || {
        broker.clock().advance(LONG);
        (operator.show(&half)["state"] == "IN_DOUBT").then_some(())
    });
    half
}

fn parking_broker() -> TestBroker {
    TestBroker::with_manual_clock(&["transaction.check_max=1", "transaction.max_age=100000h"])
}

#[test]
fn open_transactions_are_listed_by_group_topic_key_age_and_page() {
    let broker = TestBroker::with_manual_clock(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_one");
    let mut other = Producer::connect(broker.address(), "PG_two");
    let mut operator = Operator::connect(&broker);
    let halves: Vec<Half> = (0..5).map(|i| producer.half("orders", format!("{i}").as_bytes())).collect();
    let foreign = other.half("payments", b"x");
    let mut all: Vec<u64> = halves.iter().map(|half| half.log_offset).collect();
    assert_eq!(operator.origins(&[("group", "PG_one")]), all);
    assert_eq!(operator.origins(&[("topic", "payments")]), [foreign.log_offset]);
    assert_eq!(operator.origins(&[("uniqueKey", &halves[2].key)]), [all[2]]);
    assert_eq!(operator.origins(&[("state", "IN_DOUBT")]), Vec::<u64>::new());
    assert_eq!(operator.origins(&[("olderThanMs", "2000")]), Vec::<u64>::new());
    broker.clock().advance(Duration::from_secs(3));
    let young = producer.half("orders", b"young");
    all.push(foreign.log_offset);
    assert_eq!(operator.origins(&[("olderThanMs", "2000")]), all);
    producer.end(&halves[0], Verdict::Commit);
    all.remove(0);
    all.push(young.log_offset);
    // page by page
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let (page, next) = operator.list(&[("limit", "4"), ("after", &after)]);
        pages.push(page.iter().map(|t| t["origin"].as_u64().unwrap()).collect::<Vec<_>>());
        let Some(next) = next else { break };
        after = next.to_string();
    }
    assert_eq!(pages, [all[..4].to_vec(), all[4..].to_vec()]);
    let refused = operator.wire.call(LIST, &[("state", "COMMITTED")], b"");
    assert!(refused.code != SUCCESS && refused.remark.is_some_and(|remark| remark.contains("IN_DOUBT")));
}

#[test]
fn a_transaction_is_shown_from_its_prepare_to_its_end_also_after_a_restart() {
    let mut broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_show");
    let mut operator = Operator::connect(&broker);
    let half = producer.half_with("orders", 2, b"four", &[("KEYS", "order-9 x"), ("TAGS", "paid")]);
    let open = operator.show(&half);
    assert_eq!((&open["state"], &open["group"]), (&"PREPARED".into(), &"PG_show".into()));
    assert_eq!((&open["topic"], &open["queue"], &open["tag"]), (&"orders".into(), &2.into(), &"paid".into()));
    assert_eq!((&open["uniqueKey"], &open["keys"]), (&half.key.clone().into(), &"order-9 x".into()));
    assert_eq!((&open["asks"], &open["bodyBytes"]), (&0.into(), &4.into()));
    assert!(open["preparedAtMs"].as_u64() > Some(0) && open["decision"].is_null());
    producer.end(&half, Verdict::Commit);
    for _ in 0..2 {
        let decided = operator.show(&half);
        assert_eq!((&decided["state"], &decided["group"]), (&"COMMITTED".into(), &"PG_show".into()));
        assert_eq!((&decided["preparedAtMs"], &decided["keys"]), (&open["preparedAtMs"], &open["keys"]));
        let decision = &decided["decision"];
        assert_eq!((&decision["source"], &decision["queueOffset"]), (&"PRODUCER".into(), &0.into()));
        assert!(decision["decidedAtMs"].as_u64() >= open["preparedAtMs"].as_u64());
        broker.restart();
        operator = Operator::connect(&broker);
    }
}

#[test]
fn a_timeline_tells_who_was_asked_and_who_decided_why_also_after_a_restart() {
    let mut broker = parking_broker();
    let mut producer = Producer::connect(broker.address(), "PG_timeline");
    let mut operator = Operator::connect(&broker);
    let half = parked(&broker, &mut producer, &mut operator);
    let origin = half.log_offset.to_string();
    assert_eq!(operator.wire.call(RESUME, &[("origin", &origin)], b"").code, SUCCESS);
    assert_eq!(operator.decide(&half, "ROLLED_BACK", "true").1, "DECIDED");
    for _ in 0..2 {
        let shown = operator.show(&half);
        let events = shown["events"].as_array().expect("a timeline").clone();
        let what: Vec<_> = events.iter().map(|event| event["what"].as_str().unwrap()).collect();
        assert_eq!(what, ["PREPARED", "ASKED", "PARKED", "RESUMED", "ROLLED_BACK"]);
        let at: Vec<_> = events.iter().map(|event| event["atMs"].as_u64().unwrap()).collect();
        assert!(at.is_sorted(), "{at:?}");
        let (asked, parked, ended) = (&events[1], &events[2], &events[4]);
        assert!(asked["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{asked}");
        assert_eq!((&asked["asks"], &asked["answered"]), (&1.into(), &true.into()));
        assert_eq!((&parked["reason"], &parked["asks"]), (&"CHECK_MAX".into(), &1.into()));
        assert_eq!((&ended["source"], &ended["reason"]), (&"OPERATOR".into(), &"ticket 7".into()));
        assert_eq!((&ended["messages"], &ended["queueOffset"]), (&1.into(), &Value::Null));
        for acted in [&events[3], ended] {
            assert!(acted["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{acted}");
        }
        assert!(shown["olderEventsMissing"].is_null());
        broker.restart();
        operator = Operator::connect(&broker);
    }
}

#[test]
fn a_parked_transaction_is_decided_by_a_person_and_the_first_decision_stands() {
    for (outcome, other, expected) in
        [("COMMITTED", "ROLLED_BACK", vec!["parked"]), ("ROLLED_BACK", "COMMITTED", vec![])]
    {
        let broker = parking_broker();
        let mut producer = Producer::connect(broker.address(), "PG_parked");
        let mut operator = Operator::connect(&broker);
        let half = parked(&broker, &mut producer, &mut operator);
        assert_eq!(operator.origins(&[("state", "IN_DOUBT")]), [half.log_offset]);
        assert!(delivered(&broker).is_empty());
        let (code, result, stands) = operator.decide(&half, outcome, "false");
        assert_eq!((code, result.as_str()), (SUCCESS, "DECIDED"));
        assert_eq!((&stands["state"], &stands["decision"]["source"]), (&outcome.into(), &"OPERATOR".into()));
        assert_eq!(delivered(&broker), expected);
        let (code, result, again) = operator.decide(&half, outcome, "false");
        assert_eq!((code, result.as_str(), &again), (SUCCESS, "ALREADY", &stands));
        let (code, result, again) = operator.decide(&half, other, "true");
        assert_eq!((code, result.as_str(), &again), (ILLEGAL_OPERATION, "CONFLICT", &stands));
        assert!(operator.origins(&[]).is_empty());
        let end = producer.end(&half, if other == "COMMITTED" { Verdict::Commit } else { Verdict::RollBack });
        assert_eq!(end.code, ILLEGAL_OPERATION, "a late producer is told");
    }
}

#[test]
fn one_that_is_still_prepared_is_decided_only_by_force() {
    let broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_force");
    let mut operator = Operator::connect(&broker);
    let half = producer.half("orders", b"forced");
    let (code, result, stands) = operator.decide(&half, "COMMITTED", "false");
    assert_eq!(
        (code, result.as_str(), &stands["state"]),
        (ILLEGAL_OPERATION, "STILL_PREPARED", &"PREPARED".into())
    );
    assert!(delivered(&broker).is_empty());
    let (code, result, _) = operator.decide(&half, "COMMITTED", "true");
    assert_eq!((code, result.as_str()), (SUCCESS, "DECIDED"));
    assert_eq!(delivered(&broker), ["forced"]);
}

#[test]
fn a_parked_transaction_is_asked_about_again_when_it_is_resumed() {
    let broker = parking_broker();
    let mut producer = Producer::connect(broker.address(), "PG_resume");
    let mut operator = Operator::connect(&broker);
    for code in [RESUME, RESUME_CHECK_HALF_MESSAGE] {
        let half = parked(&broker, &mut producer, &mut operator);
        let origin = half.log_offset.to_string();
        // as Apache's administration names it: address, port, position, in hex
        let id = format!("7F000001{:08X}{:016X}", broker.address().port(), half.log_offset);
        let fields = if code == RESUME { [("origin", &*origin)] } else { [("msgId", &*id)] };
        assert_eq!(operator.wire.call(code, &fields, b"").code, SUCCESS);
        assert_eq!(operator.show(&half)["state"], "PREPARED");
        // by this clock the producer was silent for hours
        producer.heartbeat();
        wait::until("it is asked about again", || {
            broker.clock().advance(Duration::from_secs(1));
            producer.asked(Duration::from_millis(300)).filter(|asked| *asked == half)
        });
        assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
        let late = operator.wire.call(code, &fields, b"");
        assert_eq!(late.code, ILLEGAL_OPERATION, "{:?}", late.remark);
    }
}

#[test]
fn what_was_never_prepared_is_not_found() {
    let broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_unknown");
    let sent = producer.send("orders", 0, b"plain", &[]).physical_offset().to_string();
    let mut operator = Operator::connect(&broker);
    for origin in ["0", &*sent, "9223372036854775807"] {
        for (code, fields) in [
            (SHOW, vec![("origin", origin)]),
            (RESUME, vec![("origin", origin)]),
            (DECIDE, vec![("origin", origin), ("outcome", "COMMITTED"), ("force", "true")]),
        ] {
            let reply = operator.wire.call(code, &fields, b"");
            assert_eq!(reply.code, QUERY_NOT_FOUND, "{code} {origin} {:?}", reply.remark);
        }
    }
    for fields in [vec![], vec![("origin", "-1")], vec![("origin", "x")]] {
        let reply = operator.wire.call(SHOW, &fields, b"");
        assert!(reply.code != SUCCESS && reply.remark.is_some_and(|remark| remark.contains("origin")));
    }
    assert_eq!(delivered(&broker), ["plain"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_does_the_same_through_the_sdk() {
    let broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_admin");
    let half = producer.half("orders", b"x");
    let client = Client::connect(broker.name_server().to_string()).await.unwrap();
    let admin = Admin::new(&client);
    let brokers = admin.brokers().await.unwrap();
    assert_eq!(brokers, [broker.address().to_string().into()]);
    let filter = TransactionFilter { group: Some("PG_admin".to_owned()), ..TransactionFilter::default() };
    let page = admin.transactions(&brokers[0], &filter, None).await.unwrap();
    assert_eq!((page.transactions.len(), page.next), (1, None));
    let origin = PhysicalOffset(page.transactions[0].origin);
    assert_eq!(origin.0, half.log_offset);
    let commit = TransactionOutcome::Committed;
    let early = admin.decide(&brokers[0], origin, commit, None, false).await.unwrap();
    assert!(matches!(early, Decided::StillPrepared(_)), "{early:?}");
    admin.resume(&brokers[0], origin).await.expect("harmless while it is PREPARED");
    let decided = admin.decide(&brokers[0], origin, commit, Some("by hand"), true).await.unwrap();
    assert!(matches!(&decided, Decided::Now(now) if now.state == TransactionState::Committed), "{decided:?}");
    let other = admin.decide(&brokers[0], origin, TransactionOutcome::RolledBack, None, true).await.unwrap();
    assert!(matches!(other, Decided::Conflict(_)), "{other:?}");
    assert!(admin.resume(&brokers[0], origin).await.is_err());
    assert_eq!(admin.transaction(&brokers[0], PhysicalOffset(1)).await.unwrap(), None);
    let endless = "r".repeat(513);
    assert!(admin.decide(&brokers[0], origin, commit, Some(&endless), true).await.is_err());
    assert_eq!(delivered(&broker), ["x"]);
}
