//! Frames that two foreign clients really sent (Apache's librocketmq 2.1 and the crate rocketmq-client-rust 1.0),
//! caught by `golden/recorder.py`. Our decoders must read in them what their authors meant.

use std::fs;
use std::path::Path;

use bytes::BytesMut;
use mezzo_protocol::limits::FRAME_BYTES_MAX;
use mezzo_protocol::message::sys_flag::SysFlag;
use mezzo_protocol::message::{batch, properties};
use mezzo_protocol::remoting::body::heartbeat::{ConsumeType, HeartbeatData, MessageModel};
use mezzo_protocol::remoting::body::lock::LockBatchRequest;
use mezzo_protocol::remoting::header::consumer_offset::{
    QueryConsumerOffsetHeader, UpdateConsumerOffsetHeader,
};
use mezzo_protocol::remoting::header::consumer_send_back::ConsumerSendBackHeader;
use mezzo_protocol::remoting::header::end_transaction::{EndTransactionHeader, Resolution};
use mezzo_protocol::remoting::header::pull_message::{PullMessageHeader, PullSysFlag};
use mezzo_protocol::remoting::header::send_message::SendMessageHeader;
use mezzo_protocol::remoting::header::topic::RouteHeader;
use mezzo_protocol::remoting::{Frame, HeaderEncoding, HeaderView, LanguageCode, RequestCode, frame};

const CPP: &str = "librocketmq";
const RUST: &str = "rocketmq-rust";

/// The captured frame, after checking that no shorter prefix of it passes for a frame.
fn captured(client: &str, name: &str) -> Frame {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(client).join(format!("{name}.frame"));
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut short = BytesMut::from(&bytes[..bytes.len() - 1]);
    assert_eq!(frame::split(&mut short, FRAME_BYTES_MAX), Ok(None), "{name}");
    let mut whole = BytesMut::from(&bytes[..]);
    let frame = frame::split(&mut whole, FRAME_BYTES_MAX).expect("a frame").expect("all of it");
    assert!(whole.is_empty(), "{name} is one frame");
    assert_eq!(frame.encoding, HeaderEncoding::Json, "{name}");
    frame
}

/// The header of a captured request, after checking what every request of that client has in common.
fn request<'f>(frame: &'f Frame, client: &str, code: RequestCode) -> HeaderView<'f> {
    let header = HeaderView::parse(frame).expect("a header");
    assert_eq!(header.request_code(), code);
    assert!(!header.is_response());
    let (language, version) =
        if client == CPP { (LanguageCode::CPP, 333) } else { (LanguageCode::RUST, 474) };
    assert_eq!((header.language, header.version), (language, version));
    header
}

#[test]
fn a_plain_send_of_cpp_has_numbers_and_text_side_by_side() {
    let frame = captured(CPP, "send_plain");
    let header = request(&frame, CPP, RequestCode::SEND_MESSAGE_V2);
    let send = SendMessageHeader::decode(&header.ext).unwrap();
    assert_eq!(
        (&*send.producer_group, &*send.topic, &*send.default_topic),
        ("PG_golden", "GoldenTopic", "TBW102")
    );
    assert_eq!((send.default_topic_queues, send.queue_id, send.sys_flag), (4, 0, SysFlag(0)));
    assert_eq!(send.born_timestamp.as_ms(), 1_795_424_797_478);
    assert_eq!((send.max_reconsume_times, send.batch, send.unit_mode), (Some(16), false, false));
    assert_eq!(properties::find(&*send.properties, "KEYS"), Some("order-1 order-2"));
    assert_eq!(properties::find(&*send.properties, "TAGS"), Some("TagA"));
    assert_eq!(properties::find(&*send.properties, "p1"), Some("属性"));
    assert_eq!(&frame.body[..], "hello, 世界".as_bytes());
}

#[test]
fn a_large_body_of_cpp_comes_compressed() {
    let frame = captured(CPP, "send_compressed");
    let header = request(&frame, CPP, RequestCode::SEND_MESSAGE_V2);
    let send = SendMessageHeader::decode(&header.ext).unwrap();
    assert!(send.sys_flag.has(SysFlag::COMPRESSED));
    assert!(frame.body.starts_with(&[0x78]), "zlib");
}

#[test]
fn a_delayed_send_of_cpp_names_its_level() {
    let frame = captured(CPP, "send_delayed");
    let header = request(&frame, CPP, RequestCode::SEND_MESSAGE_V2);
    let send = SendMessageHeader::decode(&header.ext).unwrap();
    assert_eq!(properties::find(&*send.properties, properties::DELAY), Some("2"));
}

#[test]
fn half_messages_of_both_clients_carry_flag_group_and_key() {
    for (client, code, group, key) in [
        (CPP, RequestCode::SEND_MESSAGE_V2, "PG_tx_golden", "7F00000133042E09963273405B5B0004"),
        (RUST, RequestCode::SEND_MESSAGE, "PG_18eaa16f4b84f4c2_15479", "C00002023C77AC4C820C7341EEEE0009"),
    ] {
        let frame = captured(client, "send_half");
        let header = request(&frame, client, code);
        let send = SendMessageHeader::decode(&header.ext).unwrap();
        assert_eq!(send.sys_flag.0, 4, "{client}");
        assert!(properties::is_true(&*send.properties, properties::TRANSACTION_PREPARED), "{client}");
        assert_eq!(properties::find(&*send.properties, properties::PRODUCER_GROUP), Some(group));
        assert_eq!(properties::find(&*send.properties, properties::UNIQUE_KEY), Some(key));
        assert_eq!(&*send.producer_group, group);
    }
}

#[test]
fn ends_of_both_clients_name_transaction_and_outcome() {
    let outcomes = [
        ("end_commit", Resolution::Commit, false),
        ("end_rollback", Resolution::Rollback, false),
        ("end_unknown", Resolution::Unknown, false),
        ("end_check_answer", Resolution::Commit, true),
    ];
    for client in [CPP, RUST] {
        for (name, resolution, from_check) in outcomes {
            let frame = captured(client, name);
            let header = request(&frame, client, RequestCode::END_TRANSACTION);
            let end = EndTransactionHeader::decode(&header.ext).unwrap();
            assert_eq!(
                (end.resolution, end.from_transaction_check),
                (resolution, from_check),
                "{client} {name}"
            );
            assert_eq!(
                end.commit_log_offset, end.tran_state_table_offset,
                "the recorder's offsets are equal"
            );
            assert_eq!(end.msg_id.as_deref().map(str::len), Some(32), "{client} {name}: the unique key");
            // C++ does not mark its ends as one-way although it awaits no answer
            assert_eq!(header.is_oneway(), client == RUST, "{client} {name}");
        }
    }
}

#[test]
fn the_first_end_of_cpp_has_its_key_in_one_of_two_fields_only() {
    let frame = captured(CPP, "end_commit");
    let header = request(&frame, CPP, RequestCode::END_TRANSACTION);
    let end = EndTransactionHeader::decode(&header.ext).unwrap();
    assert_eq!(end.msg_id.as_deref(), Some("7F00000133042E09963273405B5B0004"));
    assert_eq!(end.transaction_id.as_deref().unwrap_or_default(), "");
    assert_eq!(&*end.producer_group, "PG_tx_golden");
}

#[test]
fn a_batch_of_the_rust_client_holds_its_messages() {
    let frame = captured(RUST, "send_batch");
    let header = request(&frame, RUST, RequestCode::SEND_BATCH_MESSAGE);
    let send = SendMessageHeader::decode(&header.ext).unwrap();
    assert!(send.batch);
    let messages: Vec<_> = batch::decode(&frame.body).map(Result::unwrap).collect();
    assert_eq!(messages.len(), 10);
    for (index, message) in messages.iter().enumerate() {
        assert_eq!(message.body, format!("b{index}").as_bytes());
        assert_eq!(properties::find(message.properties, "TAGS"), Some("标签"));
    }
}

#[test]
fn heartbeats_of_cpp_name_groups_and_subscriptions() {
    let frame = captured(CPP, "heartbeat_producers");
    request(&frame, CPP, RequestCode::HEART_BEAT);
    let beat = HeartbeatData::decode(&frame.body).unwrap();
    let groups: Vec<&str> =
        beat.producer_data_set.iter().map(|producer| producer.group_name.as_str()).collect();
    assert_eq!(groups, ["PG_golden", "PG_tx_golden"]);
    assert!(beat.consumer_data_set.is_empty());

    let frame = captured(CPP, "heartbeat_concurrent_consumer");
    let beat = HeartbeatData::decode(&frame.body).unwrap();
    let consumer = &beat.consumer_data_set[0];
    assert_eq!(consumer.group_name, "CG_golden");
    assert_eq!(
        (consumer.consume_type, consumer.message_model),
        (ConsumeType::Push, MessageModel::Clustering)
    );
    let topics: Vec<&str> = consumer.subscription_data_set.iter().map(|s| s.topic.as_str()).collect();
    assert_eq!(topics, ["%RETRY%CG_golden", "GoldenTopic"]);
    let filtered = &consumer.subscription_data_set[1];
    assert_eq!(
        (filtered.sub_string.as_str(), &filtered.tags_set[..]),
        ("TagA || TagB", &["TagA".to_owned(), "TagB".to_owned()][..])
    );
    // C++ leaves the hashes zero: a broker must compute its own
    assert_eq!(filtered.code_set, [0, 0]);

    let frame = captured(CPP, "heartbeat_orderly_consumer");
    let beat = HeartbeatData::decode(&frame.body).unwrap();
    assert_eq!(beat.consumer_data_set[0].group_name, "CG_orderly_golden");
}

#[test]
fn pulls_of_both_clients_say_where_and_how_long() {
    let frame = captured(CPP, "pull");
    let header = request(&frame, CPP, RequestCode::PULL_MESSAGE);
    let pull = PullMessageHeader::decode(&header.ext).unwrap();
    assert_eq!((&*pull.consumer_group, &*pull.topic), ("CG_golden", "GoldenTopic"));
    assert_eq!((pull.queue_id.0, pull.queue_offset, pull.max_messages), (0, 0, 32));
    assert_eq!((pull.subscription.as_deref(), pull.suspend_timeout_ms), (Some("TagA || TagB"), 15_000));
    assert!(pull.sys_flag.has(PullSysFlag::SUSPEND) && pull.sys_flag.has(PullSysFlag::SUBSCRIPTION));

    let frame = captured(RUST, "pull");
    let header = request(&frame, RUST, RequestCode::PULL_MESSAGE);
    let pull = PullMessageHeader::decode(&header.ext).unwrap();
    assert_eq!(pull.subscription.as_deref().unwrap_or_default(), "", "its subscription is in its heartbeat");
    assert_eq!(pull.expression_type.as_deref(), Some("TAG"));
    assert!(pull.sys_flag.has(PullSysFlag::SUSPEND) && !pull.sys_flag.has(PullSysFlag::SUBSCRIPTION));
}

#[test]
fn offsets_and_send_backs_are_read() {
    let frame = captured(CPP, "query_offset");
    let query = request(&frame, CPP, RequestCode::QUERY_CONSUMER_OFFSET);
    let query = QueryConsumerOffsetHeader::decode(&query.ext).unwrap();
    assert_eq!(
        (&*query.consumer_group, &*query.topic, query.queue_id.0),
        ("CG_golden", "%RETRY%CG_golden", 0)
    );

    let frame = captured(CPP, "update_offset");
    let update = request(&frame, CPP, RequestCode::UPDATE_CONSUMER_OFFSET);
    assert_eq!(UpdateConsumerOffsetHeader::decode(&update.ext).unwrap().commit_offset, 0);

    let frame = captured(RUST, "update_offset_oneway");
    let update = request(&frame, RUST, RequestCode::UPDATE_CONSUMER_OFFSET);
    assert!(update.is_oneway());
    assert_eq!(UpdateConsumerOffsetHeader::decode(&update.ext).unwrap().commit_offset, 9);

    let frame = captured(CPP, "send_back");
    let back = request(&frame, CPP, RequestCode::CONSUMER_SEND_MSG_BACK);
    let back = ConsumerSendBackHeader::decode(&back.ext).unwrap();
    assert_eq!((back.offset, &*back.group, back.delay_level), (0, "CG_golden", 0));
    assert_eq!((back.origin_topic.as_deref(), back.max_reconsume_times), (Some("GoldenTopic"), Some(16)));
}

#[test]
fn locks_and_routes_are_read() {
    let frame = captured(CPP, "lock");
    request(&frame, CPP, RequestCode::LOCK_BATCH_MQ);
    let lock = LockBatchRequest::decode(&frame.body).unwrap();
    assert_eq!(lock.consumer_group, "CG_orderly_golden");
    assert_eq!((lock.mq_set[0].topic.as_str(), lock.mq_set[0].queue_id), ("%RETRY%CG_orderly_golden", 0));

    for client in [CPP, RUST] {
        let frame = captured(client, "route");
        let route = request(&frame, client, RequestCode::GET_ROUTEINFO_BY_TOPIC);
        let route = RouteHeader::decode(&route.ext).unwrap();
        assert!(!route.topic.is_empty(), "{client}");
        assert_eq!(route.accept_standard_json_only, None, "{client}");
    }
}
