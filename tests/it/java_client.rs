//! What the Java clients of RocketMQ 4.9 and 5 need of an answer, in both header encodings: every field that they decode
//! as one that must be there, every code that they branch on, every body in the shape that fastjson reads. They cannot
//! be run here; their requests are written out as they write them. Where Go's client differs, it is named.

use std::time::Duration;

use mezzo_protocol::remoting::{HeaderEncoding, RemotingCommand};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::messages;
use mezzo_tests::producer::unique_key;
use mezzo_tests::wait::PATIENCE;
use mezzo_tests::wire::{Fields, OLD_CLIENT_VERSION, Wire};
use serde_json::{Value, json};

const SUCCESS: i32 = 0;
const SYSTEM_ERROR: i32 = 1;
const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
const TOPIC_NOT_EXIST: i32 = 17;
const PULL_NOT_FOUND: i32 = 19;
const PULL_RETRY_IMMEDIATELY: i32 = 20;
const PULL_OFFSET_MOVED: i32 = 21;
const QUERY_NOT_FOUND: i32 = 22;
const SUBSCRIPTION_NOT_EXIST: i32 = 24;
const SUBSCRIPTION_NOT_LATEST: i32 = 25;

/// What the answer to a pull must carry, whatever its code.
const PULL_FIELDS: &[&str] = &["suggestWhichBrokerId", "nextBeginOffset", "minOffset", "maxOffset"];
/// Clients refuse to filter if the broker says that it is older than RocketMQ 4.1.
const BROKER_VERSION_MIN: i32 = 232;
/// What the Java client of RocketMQ 5.3.3 says of itself.
const CLIENT_VERSION_5: i32 = 479;

/// A broker with topic `orders` (one queue) and group `CG`, and a connection to it that has sent a heartbeat.
struct Stage {
    broker: TestBroker,
    wire: Wire,
    encoding: HeaderEncoding,
}

impl Stage {
    /// Runs `test` once for each header encoding.
    fn each(test: impl Fn(Self)) {
        for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
            let broker = TestBroker::with_manual_clock(&[]);
            let wire = connect(broker.address(), encoding);
            let mut stage = Self { broker, wire, encoding };
            let topic = topic_fields("orders");
            assert_eq!(stage.wire.call(17, &topic, b"").code, SUCCESS);
            stage.heartbeat("java", "*", 7);
            test(stage);
        }
    }

    fn another(&self) -> Wire {
        connect(self.broker.address(), self.encoding)
    }

    fn name_server(&self) -> Wire {
        connect(self.broker.name_server(), self.encoding)
    }

    fn heartbeat(&mut self, client: &str, expression: &str, version: u64) -> RemotingCommand {
        let body = heartbeat(client, expression, version).to_string();
        let reply = self.wire.call(34, &[], body.as_bytes());
        assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
        reply
    }

    fn send(&mut self, tags: &str) -> RemotingCommand {
        let properties = format!("TAGS\u{1}{tags}\u{2}UNIQ_KEY\u{1}{}\u{2}WAIT\u{1}true\u{2}", unique_key());
        let reply = self.wire.call(310, &send_fields(&properties, "0"), b"body");
        assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
        reply
    }
}

fn connect(address: std::net::SocketAddr, encoding: HeaderEncoding) -> Wire {
    let mut wire = Wire::connect(address);
    wire.speak(encoding);
    wire
}

/// As Java 4.9.8 writes it; 5 adds `heartbeatFingerprint` and `withoutSub`.
fn heartbeat(client: &str, expression: &str, version: u64) -> Value {
    let subscription = |topic: &str, expression: &str| {
        let tags: Vec<&str> = expression.split("||").filter(|tag| *tag != "*").map(str::trim).collect();
        json!({"classFilterMode": false, "codeSet": tags.iter().map(|_| 65).collect::<Vec<_>>(),
            "expressionType": "TAG", "subString": expression, "subVersion": version, "tagsSet": tags, "topic": topic})
    };
    json!({"clientID": client, "heartbeatFingerprint": 0, "withoutSub": false,
        "consumerDataSet": [{"consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "consumeType": "CONSUME_PASSIVELY",
            "groupName": "CG", "messageModel": "CLUSTERING", "unitMode": false,
            "subscriptionDataSet": [subscription("orders", expression), subscription("%RETRY%CG", "*")]}],
        "producerDataSet": [{"groupName": "CLIENT_INNER_PRODUCER"}, {"groupName": "PG"}]})
}

fn topic_fields(topic: &str) -> Vec<(&'static str, &str)> {
    vec![
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "1"),
        ("writeQueueNums", "1"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
        ("attributes", ""),
        ("force", "false"),
    ]
}

fn send_fields<'a>(properties: &'a str, sys_flag: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![
        ("a", "PG"),
        ("b", "orders"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", sys_flag),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", properties),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
        ("n", "broker-a"),
    ]
}

/// A pull of the push consumer: its subscription is the one of its heartbeat. With the fields that only RocketMQ 5 has.
fn pull_fields<'a>(offset: &'a str, sys_flag: &'a str, version: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![
        ("consumerGroup", "CG"),
        ("topic", "orders"),
        ("queueId", "0"),
        ("queueOffset", offset),
        ("maxMsgNums", "32"),
        ("sysFlag", sys_flag),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "15000"),
        ("subVersion", version),
        ("maxMsgBytes", "2147483647"),
        ("requestSource", "-1"),
        ("expressionType", "TAG"),
        ("bname", "broker-a"),
        ("nsd", "false"),
        ("oway", "false"),
        ("lo", "false"),
    ]
}

const QUEUE: Fields<'_> = &[("consumerGroup", "CG"), ("topic", "orders"), ("queueId", "0")];

#[track_caller]
fn assert_fields(reply: &RemotingCommand, numbers: &[&str]) {
    for name in numbers {
        let value = reply.ext_value(name);
        assert!(value.is_some_and(|value| value.parse::<i64>().is_ok()), "{name} is {value:?} in {reply:?}");
    }
}

#[test]
fn an_answer_has_every_field_that_must_be_there() {
    Stage::each(|mut stage| {
        stage.send("a");
        let at_time: Fields<'_> = &[("topic", "orders"), ("queueId", "0"), ("timestamp", "1")];
        let first = pull_fields("0", "0", "7");
        let lite: Vec<_> =
            pull_fields("0", "22", "0").into_iter().chain([("subscription", "*")]).collect();
        let table: [(i32, Fields<'_>, &[&str]); 9] = [
            (310, &send_fields("WAIT\u{1}true\u{2}", "0"), &["queueId", "queueOffset"]),
            (11, &first, PULL_FIELDS),
            (361, &lite, PULL_FIELDS),
            (14, QUEUE, &["offset"]),
            (29, at_time, &["offset"]),
            (30, QUEUE, &["offset"]),
            (31, QUEUE, &["offset"]),
            (32, QUEUE, &["timestamp"]),
            (15, &[("consumerGroup", "CG"), ("topic", "orders"), ("queueId", "0"), ("commitOffset", "1")], &[]),
        ];
        for (code, fields, numbers) in table {
            let reply = stage.wire.call(code, fields, b"body");
            assert_eq!(reply.code, SUCCESS, "request {code}: {:?}", reply.remark);
            assert_fields(&reply, numbers);
        }
        assert_eq!(stage.wire.call(14, QUEUE, b"").ext_value("offset"), Some("1"), "what 15 reported");
    });
}

#[test]
fn a_pull_finds_the_same_under_either_number() {
    Stage::each(|mut stage| {
        stage.send("a");
        let push = stage.wire.call(11, &pull_fields("0", "0", "7"), b"");
        let lite: Vec<_> =
            pull_fields("0", "22", "0").into_iter().chain([("subscription", "a || b")]).collect();
        let lite = stage.wire.call(361, &lite, b"");
        assert_eq!((push.code, lite.code), (SUCCESS, SUCCESS));
        assert_eq!((push.body, push.ext), (lite.body, lite.ext));
    });
}

#[test]
fn a_send_is_answered_with_ids_that_its_transaction_can_be_ended_by() {
    Stage::each(|mut stage| {
        let key = unique_key();
        let half = format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG\u{2}UNIQ_KEY\u{1}{key}\u{2}");
        let reply = stage.wire.call(310, &send_fields(&half, "4"), b"half");
        assert_eq!(reply.code, SUCCESS, "timeouts of disk or replica would make the client roll back");
        let id = reply.ext_value("msgId").expect("an offset id").to_owned();
        assert!(id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
        assert_eq!(reply.ext_value("transactionId"), Some(&*key));
        assert_eq!(reply.ext_value("TRACE_ON"), Some("true"), "Go traces only then");
        let offset = u64::from_str_radix(&id[16..], 16).expect("the log offset").to_string();
        let fields: Fields<'_> = &[
            ("producerGroup", "PG"),
            ("tranStateTableOffset", reply.ext_value("queueOffset").expect("the table offset")),
            ("commitLogOffset", &offset),
            ("commitOrRollback", "8"),
            ("fromTransactionCheck", "false"),
            ("msgId", &key),
            ("transactionId", &key),
            ("topic", "orders"),
            ("bname", "broker-a"),
        ];
        stage.wire.oneway(37, fields, b"");
        let pulled = stage.wire.call(11, &pull_fields("0", "0", "7"), b"");
        assert_eq!(messages(&pulled.body)[0].key.as_deref(), Some(&*key));
    });
}

#[test]
fn a_batch_is_answered_with_one_id_per_message() {
    Stage::each(|mut stage| {
        let mut body = Vec::new();
        for text in ["one", "two"] {
            let properties = format!("UNIQ_KEY\u{1}{}\u{2}", unique_key());
            let size = u32::try_from(22 + text.len() + properties.len()).expect("small");
            body.extend(size.to_be_bytes());
            body.extend([0; 12]); // magic, checksum, flag: as the client leaves them
            body.extend(u32::try_from(text.len()).expect("small").to_be_bytes());
            body.extend(text.as_bytes());
            body.extend(u16::try_from(properties.len()).expect("small").to_be_bytes());
            body.extend(properties.as_bytes());
        }
        let mut fields = send_fields("WAIT\u{1}true\u{2}", "0");
        fields.retain(|(name, _)| *name != "m");
        fields.push(("m", "true"));
        let reply = stage.wire.call(320, &fields, &body);
        assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
        let ids = reply.ext_value("msgId").expect("ids");
        assert_eq!(ids.split(',').map(str::len).collect::<Vec<_>>(), [32, 32], "{ids}");
        assert_fields(&reply, &["queueId", "queueOffset"]);
    });
}

#[test]
fn what_fails_is_answered_with_the_code_that_clients_branch_on_and_says_why() {
    Stage::each(|mut stage| {
        stage.send("a");
        let other_group: Fields<'_> = &[("consumerGroup", "CG_other"), ("topic", "orders"), ("queueId", "0")];
        let unread: Fields<'_> = &[
            ("consumerGroup", "CG"),
            ("topic", "orders"),
            ("queueId", "0"),
            ("setZeroIfNotFound", "false"),
        ];
        let mut foreign = pull_fields("0", "0", "7");
        foreign[0].1 = "CG_other";
        let mut nowhere = pull_fields("0", "0", "7");
        nowhere[1].1 = "nowhere";
        let sql = br#"{"clientId":"java","group":"CG","namespace":"","subscriptionData":
            {"expressionType":"SQL92","subString":"a > 1","topic":"orders"}}"#;
        let missing: Fields<'_> = &[("consumerGroup", "CG"), ("topic", "nowhere"), ("queueId", "0")];
        let table: [(&str, i32, Fields<'_>, &[u8], i32); 11] = [
            ("nobody there", 38, other_group, b"", SYSTEM_ERROR),
            ("no offset", 14, unread, b"", QUERY_NOT_FOUND),
            ("no offset of a topic that is not there yet", 14, missing, b"", QUERY_NOT_FOUND),
            ("an unknown topic", 11, &nowhere, b"", TOPIC_NOT_EXIST),
            ("no heartbeat before", 11, &foreign, b"", SUBSCRIPTION_NOT_EXIST),
            ("a subscription newer than the heartbeat's", 11, &pull_fields("0", "0", "8"), b"", SUBSCRIPTION_NOT_LATEST),
            ("no such message", 33, &[("offset", "12345678")], b"", SYSTEM_ERROR),
            ("a filter that is not served", 46, &[], sql, SYSTEM_ERROR),
            ("progress of no group", 208, &[("consumerGroup", "CG_none")], b"", 26),
            ("pop", 25, &[], b"", REQUEST_CODE_NOT_SUPPORTED),
            ("assignment by the broker", 400, &[], b"{}", REQUEST_CODE_NOT_SUPPORTED),
        ];
        for (what, code, fields, body, expected) in table {
            let reply = stage.wire.call(code, fields, body);
            assert_eq!(reply.code, expected, "{what}: {:?}", reply.remark);
            assert!(reply.remark.is_some_and(|remark| !remark.is_empty()), "{what}: the answer says why");
        }
    });
}
