//! What the Java clients of RocketMQ 4.9 and 5 need of an answer, in both header encodings: every field that they decode
//! as one that must be there, every code that they branch on, every body in the shape that fastjson reads.
//! Their requests are written out as they write them; `tests/java` plays with the clients themselves where they are
//! installed. Where Go's client differs, it is named.

use std::time::Duration;

use mezzo_protocol::remoting::{HeaderEncoding, RemotingCommand};
use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::messages;
use mezzo_tests::producer::unique_key;
use mezzo_tests::wait::{self, PATIENCE};
use mezzo_tests::wire::{Fields, OLD_CLIENT_VERSION, Wire};
use serde_json::{Value, json};

const SUCCESS: i32 = 0;
const SYSTEM_ERROR: i32 = 1;
const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
const MESSAGE_ILLEGAL: i32 = 13;
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
        let lite: Vec<_> = pull_fields("0", "22", "0").into_iter().chain([("subscription", "*")]).collect();
        let table: [(i32, Fields<'_>, &[&str]); 9] = [
            (310, &send_fields("WAIT\u{1}true\u{2}", "0"), &["queueId", "queueOffset"]),
            (11, &first, PULL_FIELDS),
            (361, &lite, PULL_FIELDS),
            (14, QUEUE, &["offset"]),
            (29, at_time, &["offset"]),
            (30, QUEUE, &["offset"]),
            (31, QUEUE, &["offset"]),
            (32, QUEUE, &["timestamp"]),
            (
                15,
                &[("consumerGroup", "CG"), ("topic", "orders"), ("queueId", "0"), ("commitOffset", "1")],
                &[],
            ),
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
        let committed = wait::until("what was committed one-way", || {
            let pulled = stage.wire.call(11, &pull_fields("0", "0", "7"), b"");
            messages(&pulled.body).pop()
        });
        assert_eq!(committed.key.as_deref(), Some(&*key));
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
        let unread: Fields<'_> =
            &[("consumerGroup", "CG"), ("topic", "orders"), ("queueId", "0"), ("setZeroIfNotFound", "false")];
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
            (
                "a subscription newer than the heartbeat's",
                11,
                &pull_fields("0", "0", "8"),
                b"",
                SUBSCRIPTION_NOT_LATEST,
            ),
            ("no such message", 33, &[("offset", "12345678")], b"", SYSTEM_ERROR),
            ("a filter that is not served", 46, &[], sql, SYSTEM_ERROR),
            ("progress of no group", 208, &[("consumerGroup", "CG_none")], b"", 26),
            ("a configuration change", 25, &[], b"", REQUEST_CODE_NOT_SUPPORTED),
            ("assignment by the broker", 400, &[], b"{}", REQUEST_CODE_NOT_SUPPORTED),
        ];
        for (what, code, fields, body, expected) in table {
            let reply = stage.wire.call(code, fields, body);
            assert_eq!(reply.code, expected, "{what}: {:?}", reply.remark);
            assert!(reply.remark.is_some_and(|remark| !remark.is_empty()), "{what}: the answer says why");
        }
    });
}

#[test]
fn a_pull_that_brings_nothing_says_where_to_go_on() {
    Stage::each(|mut stage| {
        for tags in ["a", "a", "b"] {
            stage.send(tags);
        }
        stage.heartbeat("java", "b || c", 8);
        let table: [(&str, &str, i32, &str); 4] = [
            ("the filter's messages", "2", SUCCESS, "3"),
            ("the end", "3", PULL_NOT_FOUND, "3"),
            ("beyond the end", "9", PULL_OFFSET_MOVED, "3"),
            ("before the begin", "-1", SUCCESS, "3"),
        ];
        for (what, offset, code, next) in table {
            let reply = stage.wire.call(11, &pull_fields(offset, "0", "8"), b"");
            assert_eq!(reply.code, code, "{what}: {:?}", reply.remark);
            assert_fields(&reply, PULL_FIELDS);
            assert_eq!(reply.ext_value("nextBeginOffset"), Some(next), "{what}");
            assert_eq!(reply.ext_value("suggestWhichBrokerId"), Some("0"), "the master, always");
        }
        stage.heartbeat("java", "c", 9);
        let reply = stage.wire.call(11, &pull_fields("0", "0", "9"), b"");
        assert_eq!((reply.code, reply.ext_value("nextBeginOffset")), (PULL_RETRY_IMMEDIATELY, Some("3")));
    });
}

#[test]
fn a_pull_that_waits_is_answered_in_the_encoding_of_its_request() {
    Stage::each(|mut stage| {
        let pull = stage.wire.request(11, &pull_fields("0", "2", "7"), b"");
        stage.wire.send(&pull);
        let mut producer = stage.another();
        assert_eq!(producer.call(310, &send_fields("TAGS\u{1}a\u{2}", "0"), b"late").code, SUCCESS);
        let reply = stage.wire.answer(pull.opaque);
        assert_eq!((reply.code, messages(&reply.body)[0].text()), (SUCCESS, "late"));
        assert_fields(&reply, PULL_FIELDS);
    });
}

#[test]
fn bodies_are_what_fastjson_reads() {
    Stage::each(|mut stage| {
        stage.send("a");
        let json = |reply: RemotingCommand| -> Value {
            assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
            serde_json::from_slice(&reply.body).expect("JSON")
        };
        assert_eq!(json(stage.wire.call(38, QUEUE, b"")), json!({"consumerIdList": ["java"]}));
        let queue = json!({"brokerName": "broker-a", "queueId": 0, "topic": "orders"});
        let lock =
            json!({"clientId": "java", "consumerGroup": "CG", "mqSet": [queue], "onlyThisBroker": false});
        let lock = lock.to_string().into_bytes();
        assert_eq!(
            json(stage.wire.call(41, &[], &lock)),
            json!({"lockOKMQSet": [queue]}),
            "as it was asked for"
        );
        let unlock = stage.wire.call(42, &[], &lock);
        assert_eq!((unlock.code, unlock.body.len()), (SUCCESS, 0));

        let mut names = stage.name_server();
        let topics = json(names.call(206, &[], b""));
        assert_eq!(topics["topicList"], json!(["%RETRY%CG", "orders"]));
        let route = json(names.call(105, &[("topic", "orders")], b""));
        let broker = json!({"brokerAddrs": {"0": stage.broker.address().to_string()}, "cluster": "DefaultCluster",
            "brokerName": route["brokerDatas"][0]["brokerName"], "enableActingMaster": false});
        assert_eq!(route["brokerDatas"], json!([broker]));
        assert_eq!(
            route["queueDatas"],
            json!([{"brokerName": broker["brokerName"], "perm": 6, "readQueueNums": 1, "writeQueueNums": 1,
                "topicSysFlag": 0}])
        );
        let address = format!("\"brokerAddrs\":{{0:\"{}\"}}", stage.broker.address());
        for (code, version) in [(105, OLD_CLIENT_VERSION), (106, CLIENT_VERSION_5)] {
            let mut request = names.request(code, &[("topic", "orders")], b"");
            request.version = version;
            names.send(&request);
            let body = names.answer(request.opaque).body;
            assert!(std::str::from_utf8(&body).expect("text").contains(&address), "{code}: {body:?}");
        }
    });
}

#[test]
fn progress_of_a_group_names_queues_by_objects() {
    Stage::each(|mut stage| {
        for _ in 0..3 {
            stage.send("a");
        }
        stage.wire.oneway(15, &[QUEUE, &[("commitOffset", "2")]].concat(), b"");
        let reply = stage.wire.call(208, &[("consumerGroup", "CG")], b"");
        assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
        let body = std::str::from_utf8(&reply.body).expect("text");
        let begin = r#"{"consumeTps":0.0,"offsetTable":{{"brokerName":""#;
        let middle =
            r#""queueId":0,"topic":"orders"}:{"brokerOffset":3,"consumerOffset":2,"lastTimestamp":1"#;
        assert!(body.starts_with(begin) && body.contains(middle), "{body}");
    });
}

#[test]
fn requests_of_which_only_the_code_counts_are_answered() {
    Stage::each(|mut stage| {
        let sent = stage.send("a");
        let id = sent.ext_value("msgId").expect("an id");
        let offset = u64::from_str_radix(&id[16..], 16).expect("an offset").to_string();
        let back: Fields<'_> = &[
            ("offset", &offset),
            ("group", "CG"),
            ("delayLevel", "0"),
            ("originMsgId", id),
            ("originTopic", "orders"),
            ("unitMode", "false"),
            ("maxReconsumeTimes", "16"),
            ("bname", "broker-a"),
        ];
        let tags = br#"{"clientId":"java","group":"CG","subscriptionData":{"expressionType":"TAG"}}"#;
        let group = br#"{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,
            "consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"CG_made",
            "groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,
            "retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#;
        let made = topic_fields("made");
        let consumer: Fields<'_> = &[("clientID", "java"), ("consumerGroup", "CG")];
        let producer: Fields<'_> = &[("clientID", "java"), ("producerGroup", "PG")];
        let table: [(i32, Fields<'_>, &[u8]); 9] = [
            (36, back, b""),
            (46, &[], tags),
            (17, &made, b""),
            (17, &made, b""),
            (200, &[], group),
            (207, &[("groupName", "CG_made"), ("removeOffset", "true")], b""),
            (215, &[("topic", "made")], b""),
            (35, consumer, b""),
            (35, producer, b""),
        ];
        for (code, fields, body) in table {
            let reply = stage.wire.call(code, fields, body);
            assert_eq!((reply.code, reply.is_response()), (SUCCESS, true), "{code}: {:?}", reply.remark);
        }
        let forget: Fields<'_> = &[("topic", "made"), ("clusterName", "DefaultCluster")];
        assert_eq!(stage.name_server().call(216, forget, b"").code, SUCCESS);
    });
}

#[test]
fn what_is_sent_one_way_is_carried_out_and_never_answered() {
    Stage::each(|mut stage| {
        let queue = json!({"brokerName": "b", "queueId": 0, "topic": "orders"});
        let lock = |client: &str| {
            json!({"clientId": client, "consumerGroup": "CG", "mqSet": [queue]}).to_string().into_bytes()
        };
        assert_eq!(stage.wire.call(41, &[], &lock("java")).code, SUCCESS);
        let offset = [QUEUE, &[("commitOffset", "0")]].concat();
        let unlock = lock("java");
        let requests: [(i32, Fields<'_>, &[u8]); 4] =
            [(15, &offset, b""), (42, &[], &unlock), (310, &send_fields("", "0"), b"x"), (9_999, &[], b"")];
        for (code, fields, body) in requests {
            let request = stage.wire.request(code, fields, body).oneway();
            stage.wire.send(&request);
            // answered behind it, on the same connection
            assert_eq!(stage.wire.call(30, QUEUE, b"").code, SUCCESS);
            assert_eq!(stage.wire.try_answer(request.opaque, Duration::ZERO), None, "{code}");
        }
        let free: Value =
            serde_json::from_slice(&stage.wire.call(41, &[], &lock("other")).body).expect("JSON");
        assert_eq!(free["lockOKMQSet"].as_array().map(Vec::len), Some(1));
        wait::until("the message sent one-way", || {
            (stage.wire.call(30, QUEUE, b"").ext_value("offset") == Some("1")).then_some(())
        });
    });
}

#[test]
fn a_heartbeat_is_read_as_every_client_writes_it() {
    Stage::each(|mut stage| {
        for tags in ["a", "b"] {
            stage.send(tags);
        }
        let mut go = heartbeat("go", "b", 1_700_000_000_000_000_000);
        // hashes as text, no word on units of 5, no field that is not known
        go["consumerDataSet"][0]["subscriptionDataSet"][0]["codeSet"] = json!(["98"]);
        let java_4 = heartbeat("java-4", "b", 1_700_000_000_000).to_string();
        let unquoted = java_4.replace("\"clientID\":", "clientID:").replace("\"groupName\":", "groupName:");
        let mut java_5 = heartbeat("java-5", "b", 1_700_000_000_001);
        java_5["heartbeatFingerprint"] = json!(-123_456);
        for (version, body) in [(1, java_5.to_string()), (2, java_4), (3, unquoted), (4, go.to_string())] {
            let mut wire = stage.another();
            let reply = wire.call(34, &[], body.as_bytes());
            assert_eq!(reply.code, SUCCESS, "{version}: {:?}", reply.remark);
            assert!(reply.version >= BROKER_VERSION_MIN);
            assert_ne!(reply.ext_value("isSupportHeartBeatV2"), Some("true"), "subscriptions come each time");
            let pulled = wire.call(11, &pull_fields("0", "0", "0"), b"");
            let found: Vec<_> = messages(&pulled.body)
                .iter()
                .map(|found| found.property("TAGS").map(str::to_owned))
                .collect();
            assert_eq!(found, [Some("b".to_owned())], "{version}: the heartbeat's filter");
        }
    });
}

#[test]
fn members_are_told_of_each_other_by_a_request_without_answer() {
    Stage::each(|mut stage| {
        let mut second = stage.another();
        assert_eq!(second.call(34, &[], heartbeat("second", "*", 7).to_string().as_bytes()).code, SUCCESS);
        for wire in [&mut stage.wire, &mut second] {
            let notice = wire.asked(40, PATIENCE).expect("a notice");
            assert!(notice.is_oneway());
            assert_eq!(notice.ext_value("consumerGroup"), Some("CG"));
        }
    });
}

#[test]
fn a_check_back_names_its_transaction_and_carries_its_message() {
    Stage::each(|mut stage| {
        let key = unique_key();
        let half = format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG\u{2}UNIQ_KEY\u{1}{key}\u{2}KEYS\u{1}k\u{2}");
        let sent = stage.wire.call(310, &send_fields(&half, "4"), b"half");
        stage.broker.clock().advance(Duration::from_secs(7));
        let check = stage.wire.asked(39, PATIENCE).expect("a check-back");
        assert!(check.is_oneway());
        assert_eq!(check.ext_value("tranStateTableOffset"), sent.ext_value("queueOffset"));
        assert_fields(&check, &["commitLogOffset"]);
        for name in ["msgId", "transactionId"] {
            assert_eq!(check.ext_value(name), Some(&*key), "{name}");
        }
        assert_eq!(check.ext_value("offsetMsgId"), sent.ext_value("msgId"));
        let found = messages(&check.body);
        let [message] = &found[..] else { panic!("one message, not {}", found.len()) };
        assert_eq!((message.text(), message.topic.as_str()), ("half", "orders"));
        assert_eq!(message.property("PGROUP"), Some("PG"), "the client looks for its producer by it");
        assert_eq!((message.key.as_deref(), message.property("KEYS")), (Some(&*key), Some("k")));
    });
}

/// Consumers of RocketMQ 5 leave messages without a region out of their traces.
#[test]
fn each_delivered_message_names_a_region_once() {
    Stage::each(|mut stage| {
        let with_region = format!("UNIQ_KEY\u{1}{}\u{2}MSG_REGION\u{1}elsewhere\u{2}", unique_key());
        // RocketMQ 5 leaves out the last separator
        let without = format!("TAGS\u{1}a\u{2}UNIQ_KEY\u{1}{}", unique_key());
        for properties in [&with_region, &without] {
            let reply = stage.wire.call(310, &send_fields(properties, "0"), b"body");
            assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
        }
        let reply = stage.wire.call(11, &pull_fields("0", "6", "7"), b"");
        assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
        let regions: Vec<_> = messages(&reply.body)
            .iter()
            .map(|message| message.property("MSG_REGION").map(str::to_owned))
            .collect();
        assert_eq!(regions, [Some("elsewhere".to_owned()), Some("DefaultRegion".to_owned())]);
    });
}

/// What `DefaultMQProducer.request` sends: nobody would carry the answer back, so it is not taken to be a message.
#[test]
fn a_message_that_asks_for_a_reply_is_refused_at_once() {
    Stage::each(|mut stage| {
        let properties = format!(
            "UNIQ_KEY\u{1}{}\u{2}CORRELATION_ID\u{1}c1\u{2}REPLY_TO_CLIENT\u{1}java\u{2}TTL\u{1}3000\u{2}",
            unique_key()
        );
        let reply = stage.wire.call(310, &send_fields(&properties, "0"), b"question");
        assert_eq!(reply.code, MESSAGE_ILLEGAL);
        assert!(reply.remark.unwrap_or_default().contains("request-reply is not served"));
        let reply = stage.wire.call(325, &send_fields(&properties, "0"), b"answer");
        assert_eq!(reply.code, REQUEST_CODE_NOT_SUPPORTED);
    });
}
