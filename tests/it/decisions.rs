//! A transaction is decided once: the first decision wins, a repeat hears the same, a contradiction hears who won, and
//! an END that does not fit its half message changes nothing.

use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{END_TRANSACTION, Half, Producer, SUCCESS, Verdict};

/// Queues of a topic that the broker creates by itself.
const QUEUES: u32 = 4;

struct Stage {
    broker: TestBroker,
    producer: Producer,
    consumer: Consumer,
}

impl Stage {
    fn new() -> Self {
        let broker = TestBroker::start(&[]);
        let producer = Producer::connect(broker.address(), "PG_decisions");
        let consumer = Consumer::connect(broker.address(), "CG_decisions");
        Self { broker, producer, consumer }
    }

    fn delivered(&mut self, topic: &str) -> Vec<String> {
        self.consumer.drain_all(topic, QUEUES).iter().map(|message| message.text().to_owned()).collect()
    }
}

#[test]
fn a_commit_delivers_the_half_message_itself() {
    let mut stage = Stage::new();
    let half = stage.producer.half("orders", b"paid");
    assert_eq!(stage.producer.end(&half, Verdict::Commit).code, SUCCESS);
    let delivered = stage.consumer.drain_all("orders", QUEUES);
    assert_eq!(delivered.len(), 1);
    let message = &delivered[0];
    assert_eq!((message.text(), message.topic.as_str()), ("paid", "orders"));
    assert_eq!(message.key.as_deref(), Some(half.key.as_str()));
    assert_eq!(message.physical_offset, half.log_offset, "by reference: the bytes that were prepared");
    assert_eq!(message.prepared_offset, half.log_offset);
    assert_eq!(message.sys_flag & 0xC, 8, "clients see a committed message");
    assert!(message.store_ms > 0);
}

#[test]
fn a_rollback_never_delivers() {
    let mut stage = Stage::new();
    let half = stage.producer.half("orders", b"no");
    assert_eq!(stage.producer.end(&half, Verdict::RollBack).code, SUCCESS);
    assert_eq!(stage.delivered("orders"), Vec::<String>::new());
}

#[test]
fn committing_twice_delivers_once_and_answers_the_same() {
    let mut stage = Stage::new();
    let half = stage.producer.half("orders", b"once");
    let first = stage.producer.end(&half, Verdict::Commit);
    let second = stage.producer.end(&half, Verdict::Commit);
    assert_eq!((first.code, second.code), (SUCCESS, SUCCESS));
    assert_eq!(first.ext_value("queueOffset"), second.ext_value("queueOffset"));
    assert_eq!(stage.delivered("orders"), ["once"]);
}

#[test]
fn committing_twice_in_one_write_delivers_once() {
    let mut stage = Stage::new();
    let half = stage.producer.half("orders", b"once");
    let requests = [(); 5].map(|()| stage.producer.end_request(&half, Verdict::Commit, false));
    for request in &requests {
        stage.producer.wire.send(request);
    }
    for request in &requests {
        assert_eq!(stage.producer.wire.answer(request.opaque).code, SUCCESS);
    }
    assert_eq!(stage.delivered("orders"), ["once"]);
}

#[test]
fn a_commit_after_a_rollback_is_a_conflict_and_delivers_nothing() {
    let mut stage = Stage::new();
    let half = stage.producer.half("orders", b"no");
    assert_eq!(stage.producer.end(&half, Verdict::RollBack).code, SUCCESS);
    let conflict = stage.producer.end(&half, Verdict::Commit);
    assert_ne!(conflict.code, SUCCESS);
    let remark = conflict.remark.unwrap_or_default().to_lowercase();
    assert!(remark.contains("rolled back"), "the conflict names what was decided: {remark}");
    assert_eq!(stage.delivered("orders"), Vec::<String>::new());
    assert_eq!(stage.producer.end(&half, Verdict::RollBack).code, SUCCESS, "the first decision stands");
}

#[test]
fn a_rollback_after_a_commit_is_a_conflict_and_takes_nothing_back() {
    let mut stage = Stage::new();
    let half = stage.producer.half("orders", b"kept");
    assert_eq!(stage.producer.end(&half, Verdict::Commit).code, SUCCESS);
    let conflict = stage.producer.end(&half, Verdict::RollBack);
    assert_ne!(conflict.code, SUCCESS);
    let remark = conflict.remark.unwrap_or_default().to_lowercase();
    assert!(remark.contains("committed"), "the conflict names what was decided: {remark}");
    assert_eq!(stage.delivered("orders"), ["kept"]);
}

#[test]
fn decisions_are_final_across_a_restart() {
    let mut stage = Stage::new();
    let committed = stage.producer.half("orders", b"yes");
    let rolled_back = stage.producer.half("orders", b"no");
    let open = stage.producer.half("orders", b"later");
    stage.producer.end(&committed, Verdict::Commit);
    stage.producer.end(&rolled_back, Verdict::RollBack);
    stage.broker.restart();
    stage.producer = Producer::connect(stage.broker.address(), "PG_decisions");
    stage.consumer = Consumer::connect(stage.broker.address(), "CG_decisions");
    assert_eq!(stage.delivered("orders"), ["yes"]);
    assert_eq!(stage.producer.end(&committed, Verdict::Commit).code, SUCCESS);
    assert_ne!(stage.producer.end(&committed, Verdict::RollBack).code, SUCCESS);
    assert_ne!(stage.producer.end(&rolled_back, Verdict::Commit).code, SUCCESS);
    assert_eq!(stage.producer.end(&open, Verdict::Commit).code, SUCCESS);
    let mut delivered = stage.delivered("orders");
    delivered.sort();
    assert_eq!(delivered, ["later", "yes"]);
}

#[test]
fn an_end_that_does_not_fit_its_half_message_is_refused_and_changes_nothing() {
    let mut stage = Stage::new();
    let half = stage.producer.half("orders", b"mine");
    let other = stage.producer.half("orders", b"other");
    let wrong = [
        ("group", Half { group: "PG_other".to_owned(), ..half.clone() }),
        ("log offset", Half { log_offset: half.log_offset + 1, ..half.clone() }),
        ("log offset of another", Half { log_offset: other.log_offset, ..half.clone() }),
        ("log offset beyond the log", Half { log_offset: 1 << 60, ..half.clone() }),
        ("table offset", Half { table_offset: half.table_offset + 1, ..half.clone() }),
        ("key", Half { key: other.key.clone(), ..half.clone() }),
        ("no key", Half { key: String::new(), ..half.clone() }),
    ];
    for (what, wrong) in wrong {
        for verdict in [Verdict::Commit, Verdict::RollBack] {
            let answer = stage.producer.end(&wrong, verdict);
            assert_ne!(answer.code, SUCCESS, "wrong {what}");
            assert!(
                answer.remark.is_some_and(|remark| !remark.is_empty()),
                "wrong {what}: the refusal says why"
            );
        }
    }
    assert_eq!(stage.delivered("orders"), Vec::<String>::new());
    assert_eq!(stage.producer.end(&half, Verdict::Commit).code, SUCCESS, "the right END still decides");
    assert_eq!(stage.producer.end(&other, Verdict::RollBack).code, SUCCESS);
    assert_eq!(stage.delivered("orders"), ["mine"]);
}

#[test]
fn an_end_that_names_a_plain_message_is_refused() {
    let mut stage = Stage::new();
    let sent = stage.producer.send("orders", 0, b"plain", &[]);
    let forged = Half {
        group: "PG_decisions".to_owned(),
        topic: "orders".to_owned(),
        key: "0".repeat(32),
        log_offset: sent.physical_offset(),
        table_offset: sent.physical_offset(),
    };
    assert_ne!(stage.producer.end(&forged, Verdict::RollBack).code, SUCCESS);
    assert_eq!(stage.delivered("orders"), ["plain"]);
}

#[test]
fn a_one_way_commit_is_carried_out_without_an_answer() {
    let mut stage = Stage::new();
    let half = stage.producer.half("orders", b"quiet");
    stage.producer.end_oneway(&half, Verdict::Commit, false);
    // the next request of the same connection is served after it
    stage.producer.heartbeat();
    assert_eq!(stage.delivered("orders"), ["quiet"]);
}

#[test]
fn visible_order_is_the_order_of_decisions_and_every_message_comes_once() {
    let mut stage = Stage::new();
    let halves: Vec<Half> =
        (0..20).map(|i| stage.producer.half_with("orders", 1, i.to_string().as_bytes(), &[])).collect();
    for half in halves.iter().rev() {
        assert_eq!(stage.producer.end(half, Verdict::Commit).code, SUCCESS);
    }
    let delivered = stage.consumer.drain("orders", 1, 0);
    let expected: Vec<String> = (0..20).rev().map(|i| i.to_string()).collect();
    assert_eq!(delivered.iter().map(|message| message.text().to_owned()).collect::<Vec<_>>(), expected);
    let offsets: Vec<u64> = delivered.iter().map(|message| message.queue_offset).collect();
    assert_eq!(offsets, (0..20).collect::<Vec<u64>>());
}

/// END by the key alone, as a producer says it that was restarted and has nothing but what it wrote down.
fn end_by_key(producer: &mut Producer, key: &str, verdict: Verdict) -> (i32, String) {
    let fields = [
        ("producerGroup", "PG_decisions"),
        ("transactionId", key),
        ("commitLogOffset", "-1"),
        ("tranStateTableOffset", "-1"),
        ("commitOrRollback", verdict.flag()),
    ];
    let reply = producer.wire.call(END_TRANSACTION, &fields, b"");
    (reply.code, reply.ext_value("mezzoOutcome").unwrap_or_default().to_owned())
}

#[test]
fn a_transaction_is_decided_by_its_messages_key_alone_also_after_a_restart() {
    let mut stage = Stage::new();
    let kept = stage.producer.half("orders", b"kept");
    let undone = stage.producer.half("orders", b"undone");
    stage.broker.restart();
    let mut producer = Producer::connect(stage.broker.address(), "PG_decisions");
    assert_eq!(end_by_key(&mut producer, &kept.key, Verdict::Commit), (SUCCESS, "COMMITTED".to_owned()));
    assert_eq!(end_by_key(&mut producer, &kept.key, Verdict::Commit), (SUCCESS, "COMMITTED".to_owned()));
    assert_eq!(
        end_by_key(&mut producer, &undone.key, Verdict::RollBack),
        (SUCCESS, "ROLLED_BACK".to_owned())
    );
    assert_eq!(end_by_key(&mut producer, &undone.key, Verdict::Commit), (604, "ROLLED_BACK".to_owned()));
    assert_eq!(end_by_key(&mut producer, "nobody's", Verdict::Commit).1, "UNKNOWN_OR_EXPIRED");
    stage.consumer = Consumer::connect(stage.broker.address(), "CG_decisions");
    assert_eq!(stage.delivered("orders"), ["kept"]);
}

#[test]
fn a_key_that_several_transactions_have_decides_none_of_them() {
    let mut stage = Stage::new();
    // as Java does it when one Message object is sent twice
    let (request, key) = stage.producer.half_request("orders", 0, b"twice", &[]);
    let halves = [0, 1].map(|number| {
        let request = request.clone().with_opaque(request.opaque + 1_000 + number);
        stage.producer.wire.send(&request);
        let reply = stage.producer.wire.answer(request.opaque);
        stage.producer.prepared("orders", key.clone(), &reply)
    });
    assert_eq!(end_by_key(&mut stage.producer, &key, Verdict::Commit), (604, "AMBIGUOUS".to_owned()));
    assert_eq!(stage.producer.end(&halves[0], Verdict::RollBack).code, SUCCESS);
    // a late END for the one that is decided must not hit the other
    assert_eq!(end_by_key(&mut stage.producer, &key, Verdict::Commit), (604, "AMBIGUOUS".to_owned()));
    assert!(stage.delivered("orders").is_empty());
    assert_eq!(stage.producer.end(&halves[1], Verdict::Commit).code, SUCCESS, "its offsets name it");
    assert_eq!(stage.delivered("orders"), ["twice"]);
}
