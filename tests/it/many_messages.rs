//! Transactions of many messages on the wire, as raw fields: messages join one after another, one END decides them all,
//! and consumer offsets move with it, for whoever holds the lease.

use std::time::Duration;

use mezzo_protocol::remoting::RemotingCommand;
use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::{Consumer, Message};
use mezzo_tests::producer::{CHECK_TRANSACTION_STATE, END_TRANSACTION, Producer, SUCCESS};
use mezzo_tests::wait::PATIENCE;

const ILLEGAL_OPERATION: i32 = 604;
const QUERY_CONSUMER_OFFSET: i32 = 14;
const UPDATE_CONSUMER_OFFSET: i32 = 15;
const LEASE_QUEUE: i32 = 7_700_011;
const RELEASE_QUEUE: i32 = 7_700_012;
const GROUP: &str = "PG_many";
const READERS: &str = "CG_many";
/// Queues of a topic that the broker creates by itself.
const QUEUES: u32 = 4;

struct Stage {
    broker: TestBroker,
    producer: Producer,
    consumer: Consumer,
}

/// What a program reads of an answer.
fn outcome(reply: &RemotingCommand) -> (i32, &str) {
    (reply.code, reply.ext_value("mezzoOutcome").unwrap_or_default())
}

fn number(reply: &RemotingCommand, field: &str) -> u64 {
    reply.ext_value(field).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{field}: {reply:?}"))
}

/// Topic, queue, where the group stood, the next offset, the lease's epoch.
type Move<'a> = (&'a str, u32, Option<u64>, u64, u64);

fn offsets_body(entries: &[Move<'_>]) -> String {
    let entry = |(topic, queue, from, offset, epoch): &Move<'_>| {
        let from = from.map_or(String::new(), |from| format!(r#""from":{from},"#));
        format!(r#"{{"topic":"{topic}","queueId":{queue},{from}"offset":{offset},"epoch":{epoch}}}"#)
    };
    let entries: Vec<String> = entries.iter().map(entry).collect();
    format!(r#"{{"consumerGroup":"{READERS}","offsets":[{}]}}"#, entries.join(","))
}

impl Stage {
    fn new() -> Self {
        let broker = TestBroker::start(&[]);
        let mut producer = Producer::connect(broker.address(), GROUP);
        let mut consumer = Consumer::connect(broker.address(), READERS);
        // the topics are there, each with one message
        for topic in ["orders", "bills"] {
            producer.send(topic, 3, b"before", &[]);
            consumer.join(&[topic]);
        }
        Self { broker, producer, consumer }
    }

    fn restart(&mut self) {
        self.broker.restart();
        self.producer = Producer::connect(self.broker.address(), GROUP);
        self.consumer = Consumer::connect(self.broker.address(), READERS);
    }

    /// Sends a half message of a transaction of many; the answer.
    fn half(&mut self, topic: &str, id: &str, sequence: u16, body: &str) -> RemotingCommand {
        let sequence = sequence.to_string();
        let place = [("MEZZO_TX", id), ("MEZZO_TX_SEQ", sequence.as_str())];
        let (request, _) = self.producer.half_request(topic, 0, body.as_bytes(), &place);
        self.producer.wire.send(&request);
        self.producer.wire.answer(request.opaque)
    }

    fn prepared(&mut self, topic: &str, id: &str, sequence: u16, body: &str) -> u64 {
        let reply = self.half(topic, id, sequence, body);
        assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
        number(&reply, "queueOffset")
    }

    /// END by id alone, with these further fields.
    fn end(&mut self, id: &str, flag: &str, more: &[(&'static str, &str)], body: &str) -> RemotingCommand {
        let mut fields = vec![
            ("producerGroup", GROUP),
            ("tranStateTableOffset", "-1"),
            ("commitLogOffset", "-1"),
            ("commitOrRollback", flag),
            ("transactionId", id),
        ];
        fields.extend_from_slice(more);
        self.producer.wire.call(END_TRANSACTION, &fields, body.as_bytes())
    }

    fn commit(&mut self, id: &str, count: &str) -> RemotingCommand {
        self.end(id, "8", &[("mezzoTxCount", count)], "")
    }

    fn commit_with(&mut self, id: &str, count: &str, entries: &[Move<'_>]) -> RemotingCommand {
        self.end(id, "8", &[("mezzoTxCount", count), ("mezzoOffsets", "true")], &offsets_body(entries))
    }

    fn lease(&mut self, client: &str, queue: &str) -> RemotingCommand {
        self.lease_or_renew(client, queue, None)
    }

    fn lease_or_renew(&mut self, client: &str, queue: &str, epoch: Option<u64>) -> RemotingCommand {
        let epoch = epoch.map(|epoch| epoch.to_string());
        let mut fields = vec![
            ("consumerGroup", READERS),
            ("topic", "orders"),
            ("queueId", queue),
            ("clientId", client),
            ("ttlMs", "600000"),
        ];
        fields.extend(epoch.as_deref().map(|epoch| ("epoch", epoch)));
        self.consumer.wire.call(LEASE_QUEUE, &fields, b"")
    }

    fn release(&mut self, queue: &str, epoch: u64) -> RemotingCommand {
        let epoch = epoch.to_string();
        let fields =
            [("consumerGroup", READERS), ("topic", "orders"), ("queueId", queue), ("epoch", &*epoch)];
        self.consumer.wire.call(RELEASE_QUEUE, &fields, b"")
    }

    fn report(&mut self, queue: &str, offset: &str) -> RemotingCommand {
        let fields =
            [("consumerGroup", READERS), ("topic", "orders"), ("queueId", queue), ("commitOffset", offset)];
        self.consumer.wire.call(UPDATE_CONSUMER_OFFSET, &fields, b"")
    }

    fn consumed(&mut self, queue: &str) -> Option<u64> {
        let fields = [
            ("consumerGroup", READERS),
            ("topic", "orders"),
            ("queueId", queue),
            ("setZeroIfNotFound", "false"),
        ];
        let reply = self.consumer.wire.call(QUERY_CONSUMER_OFFSET, &fields, b"");
        (reply.code == SUCCESS).then(|| number(&reply, "offset"))
    }

    /// What both topics hold in their first queue.
    fn delivered(&mut self) -> [Vec<String>; 2] {
        ["orders", "bills"].map(|topic| {
            let messages: Vec<Message> = self.consumer.drain_all(topic, QUEUES);
            let bodies = messages.iter().map(|message| message.text().to_owned());
            bodies.filter(|body| body != "before").collect()
        })
    }
}

#[test]
fn messages_to_two_topics_become_visible_by_one_end() {
    let mut stage = Stage::new();
    let origin = stage.prepared("orders", "tx-1", 0, "order");
    assert_eq!(stage.prepared("bills", "tx-1", 1, "bill"), origin, "every answer names the transaction");
    assert_eq!(stage.prepared("orders", "tx-1", 2, "order 2"), origin);
    assert_eq!(stage.delivered(), [[""; 0]; 2]);
    let reply = stage.commit("tx-1", "3");
    assert_eq!(outcome(&reply), (SUCCESS, "COMMITTED"));
    assert_eq!((number(&reply, "mezzoOrigin"), number(&reply, "mezzoTxCount")), (origin, 3));
    assert_eq!(
        (reply.ext_value("queueOffset"), reply.ext_value("mezzoQueueOffsets")),
        (Some("0"), Some("0,0,1"))
    );
    assert_eq!(stage.delivered(), [vec!["order", "order 2"], vec!["bill"]]);
    assert_eq!(outcome(&stage.commit("tx-1", "3")), (SUCCESS, "COMMITTED"), "a repeat");
    assert_eq!(outcome(&stage.end("tx-1", "12", &[], "")), (ILLEGAL_OPERATION, "COMMITTED"));
    stage.restart();
    assert_eq!(outcome(&stage.commit("tx-1", "3")), (SUCCESS, "COMMITTED"), "after a restart");
    assert_eq!(stage.delivered(), [vec!["order", "order 2"], vec!["bill"]]);
}

#[test]
fn an_end_that_names_the_origin_and_the_id_decides_too() {
    let mut stage = Stage::new();
    let origin = stage.prepared("orders", "tx-1", 0, "order").to_string();
    stage.prepared("bills", "tx-1", 1, "bill");
    let fields = [
        ("producerGroup", GROUP),
        ("tranStateTableOffset", &*origin),
        ("commitLogOffset", &*origin),
        ("commitOrRollback", "12"),
        ("transactionId", "tx-1"),
    ];
    let reply = stage.producer.wire.call(END_TRANSACTION, &fields, b"");
    assert_eq!(outcome(&reply), (SUCCESS, "ROLLED_BACK"));
    assert_eq!(stage.delivered(), [[""; 0]; 2]);
}

#[test]
fn a_commit_that_misses_a_message_is_told_how_many_there_are() {
    let mut stage = Stage::new();
    stage.prepared("orders", "tx-1", 0, "order");
    let reply = stage.commit("tx-1", "2");
    assert_eq!(outcome(&reply), (ILLEGAL_OPERATION, "INCOMPLETE"));
    assert_eq!(number(&reply, "mezzoTxCount"), 1);
    stage.prepared("bills", "tx-1", 1, "bill");
    assert_eq!(outcome(&stage.commit("tx-1", "2")), (SUCCESS, "COMMITTED"));
}

#[test]
fn what_does_not_fit_a_transaction_is_refused_with_a_word_for_programs() {
    let mut stage = Stage::new();
    assert_eq!(outcome(&stage.half("orders", "tx-1", 1, "b")), (ILLEGAL_OPERATION, "NOT_OPEN"));
    stage.prepared("orders", "tx-1", 0, "a");
    let early = stage.half("orders", "tx-1", 2, "c");
    assert_eq!((outcome(&early).1, number(&early, "mezzoExpected")), ("OUT_OF_SEQUENCE", 1));
    assert_eq!(outcome(&stage.half("orders", "tx-1", 0, "other")).1, "SEQUENCE_REUSED");
    assert_eq!(outcome(&stage.end("tx-1", "12", &[], "")), (SUCCESS, "ROLLED_BACK"));
    let late = stage.half("orders", "tx-1", 1, "b");
    assert_eq!(outcome(&late), (ILLEGAL_OPERATION, "DECIDED"));
    assert_eq!(late.ext_value("mezzoDecision"), Some("ROLLED_BACK"));
    assert_eq!(outcome(&stage.commit("nobody", "1")).1, "UNKNOWN_OR_EXPIRED");
    assert_eq!(outcome(&stage.commit("empty", "0")), (SUCCESS, "NOTHING"));
    for (id, sequence) in [("a b", 0), ("tx-2", 1000)] {
        assert_ne!(stage.half("orders", id, sequence, "x").code, SUCCESS, "{id} {sequence}");
    }
}

#[test]
fn offsets_move_with_the_messages_of_a_transaction() {
    let mut stage = Stage::new();
    let lease = stage.lease("reader-1", "3");
    assert_eq!(lease.code, SUCCESS, "{:?}", lease.remark);
    let epoch = number(&lease, "epoch");
    assert!(number(&lease, "expiresAtMs") > 0);
    assert_eq!(lease.ext_value("nextOffset"), None);
    stage.prepared("bills", "tx-1", 0, "bill");
    assert_eq!(stage.consumed("3"), None);
    let reply = stage.commit_with("tx-1", "1", &[("orders", 3, None, 1, epoch)]);
    assert_eq!(outcome(&reply), (SUCCESS, "COMMITTED"));
    assert_eq!(stage.consumed("3"), Some(1));
    // nothing produced
    assert_eq!(
        outcome(&stage.commit_with("tx-2", "0", &[("orders", 3, Some(1), 2, epoch)])),
        (SUCCESS, "COMMITTED")
    );
    assert_eq!(
        outcome(&stage.commit_with("tx-1", "1", &[("orders", 3, None, 1, epoch)])),
        (SUCCESS, "COMMITTED")
    );
    assert_eq!(stage.consumed("3"), Some(2), "a repeat takes nothing back");
    stage.restart();
    assert_eq!(stage.consumed("3"), Some(2));
    let renewed = stage.lease_or_renew("reader-1", "3", Some(epoch));
    assert_eq!((number(&renewed, "epoch"), number(&renewed, "nextOffset")), (epoch, 2));
    // restarted under its name: what it sent before counts no more
    assert!(number(&stage.lease("reader-1", "3"), "epoch") > epoch);
    assert_eq!(outcome(&stage.lease_or_renew("reader-1", "3", Some(epoch))), (ILLEGAL_OPERATION, "LOST"));
    let late = stage.commit_with("tx-3", "0", &[("orders", 3, Some(2), 3, epoch)]);
    assert_eq!(outcome(&late), (ILLEGAL_OPERATION, "FENCED"));
    assert_eq!(stage.consumed("3"), Some(2));
}

#[test]
fn a_commit_behind_a_lost_lease_is_fenced_and_delivers_nothing() {
    let mut stage = Stage::new();
    let first = number(&stage.lease("reader-1", "0"), "epoch");
    let held = stage.lease("reader-2", "0");
    assert_eq!(outcome(&held), (ILLEGAL_OPERATION, "HELD"));
    assert!(number(&held, "mezzoUntilMs") > 0);
    assert_eq!(stage.release("0", first).code, SUCCESS);
    assert!(number(&stage.lease("reader-2", "0"), "epoch") > first);
    assert_eq!(outcome(&stage.release("0", first)), (ILLEGAL_OPERATION, "LOST"));
    stage.prepared("bills", "tx-1", 0, "bill");
    for _ in 0..2 {
        let reply = stage.commit_with("tx-1", "1", &[("orders", 0, None, 5, first)]);
        assert_eq!(outcome(&reply), (ILLEGAL_OPERATION, "FENCED"));
    }
    assert_eq!(stage.consumed("0"), None);
    assert_eq!(stage.delivered(), [[""; 0]; 2]);
}

#[test]
fn plain_reports_for_a_leased_queue_are_refused() {
    let mut stage = Stage::new();
    assert_eq!(stage.report("0", "1").code, SUCCESS);
    let epoch = number(&stage.lease("reader-1", "0"), "epoch");
    assert_eq!(outcome(&stage.report("0", "2")), (ILLEGAL_OPERATION, "LEASED"));
    assert_eq!(stage.report("1", "2").code, SUCCESS, "another queue");
    assert_eq!(stage.consumed("0"), Some(1));
    assert_eq!(stage.release("0", epoch).code, SUCCESS);
    assert_eq!(stage.report("0", "2").code, SUCCESS);
}

#[test]
fn a_check_back_names_the_id_and_its_answer_decides_all_messages() {
    let broker = TestBroker::with_manual_clock(&[]);
    let producer = Producer::connect(broker.address(), GROUP);
    let consumer = Consumer::connect(broker.address(), READERS);
    let mut stage = Stage { broker, producer, consumer };
    let origin = stage.prepared("orders", "tx-1", 0, "order").to_string();
    stage.prepared("bills", "tx-1", 1, "bill");
    stage.broker.clock().advance(Duration::from_secs(7));
    let check = stage.producer.wire.asked(CHECK_TRANSACTION_STATE, PATIENCE).expect("it is asked about");
    assert_eq!(check.ext_value("transactionId"), Some("tx-1"));
    assert_eq!(check.ext_value("commitLogOffset"), Some(&*origin));
    let answer = [("fromTransactionCheck", "true")];
    assert_eq!(outcome(&stage.end("tx-1", "0", &answer, "")).0, SUCCESS, "UNKNOWN decides nothing");
    let reply = stage.end("tx-1", "8", &answer, "");
    assert_eq!((outcome(&reply), number(&reply, "mezzoTxCount")), ((SUCCESS, "COMMITTED"), 2));
    assert_eq!(stage.delivered(), [["order"], ["bill"]]);
}

#[test]
fn malformed_requests_change_nothing() {
    let mut stage = Stage::new();
    stage.prepared("orders", "tx-1", 0, "a");
    let with = [("mezzoTxCount", "1"), ("mezzoOffsets", "true")];
    for body in ["", "{", r#"{"consumerGroup":"g"}"#, r#"{"consumerGroup":"a b","offsets":[]}"#] {
        assert_ne!(stage.end("tx-1", "8", &with, body).code, SUCCESS, "{body}");
    }
    for count in ["-1", "65536", "x"] {
        assert_ne!(stage.commit("tx-1", count).code, SUCCESS, "{count}");
    }
    for ttl in ["999", "600001", "-1"] {
        let fields = [
            ("consumerGroup", READERS),
            ("topic", "orders"),
            ("queueId", "0"),
            ("clientId", "c"),
            ("ttlMs", ttl),
        ];
        assert_ne!(stage.consumer.wire.call(LEASE_QUEUE, &fields, b"").code, SUCCESS, "{ttl}");
    }
    assert_eq!(outcome(&stage.commit("tx-1", "1")), (SUCCESS, "COMMITTED"));
}
