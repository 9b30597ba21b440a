//! The broker and its name server over raw frames: what clients ask before they send or pull their first message.

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test, also in what tests share")]

mod raw;

use std::time::{Duration, Instant};

use mezzo_broker::{Broker, Config};
use mezzo_protocol::remoting::{
    body::{
        consumer_list::ConsumerList,
        heartbeat::{ConsumerData, HeartbeatData, ProducerData, SubscriptionData},
        lock::{LockBatchReply, LockBatchRequest, QueueName},
        route::TopicRouteData,
    },
    command::RemotingCommand,
    frame::HeaderEncoding,
    request_code::RequestCode as Request,
    response_code::ResponseCode as Response,
};
use raw::{Client, request};

/// A broker in a folder that vanishes with it.
struct Started {
    broker: Broker,
    _dir: tempfile::TempDir,
}

fn config(dir: &std::path::Path) -> Config {
    let mut config = Config::default();
    config.store.dir = dir.to_owned();
    for assignment in
        ["server.listen=127.0.0.1:0", "server.name_server_listen=127.0.0.1:0", "server.reactors=2"]
    {
        config.set(assignment).unwrap();
    }
    // small files keep tests quick
    config.set("store.segment_size=20MiB").unwrap();
    config
}

fn start() -> Started {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_blocking(config(dir.path())).unwrap();
    Started { broker, _dir: dir }
}

impl Started {
    fn client(&self) -> Client {
        Client::connect(self.broker.broker_address())
    }

    fn name_server(&self) -> Client {
        Client::connect(self.broker.name_server_address())
    }
}

fn assert_code(answer: &RemotingCommand, code: Response) {
    assert_eq!(answer.code, code.0, "{:?}", answer.remark);
}

fn heartbeat(client_id: &str, consumer_group: &str) -> RemotingCommand {
    let data = HeartbeatData {
        client_id: client_id.to_owned(),
        producer_data_set: vec![ProducerData { group_name: "producers".to_owned() }],
        consumer_data_set: vec![ConsumerData {
            group_name: consumer_group.to_owned(),
            subscription_data_set: vec![SubscriptionData {
                topic: "news".to_owned(),
                sub_string: "*".to_owned(),
                sub_version: 1,
                ..SubscriptionData::default()
            }],
            ..ConsumerData::default()
        }],
        ..HeartbeatData::default()
    };
    request(Request::HEART_BEAT, &[], data.encode())
}

fn route(client: &mut Client, topic: &str) -> RemotingCommand {
    client.call(request(Request::GET_ROUTEINFO_BY_TOPIC, &[("topic", topic)], []))
}

fn create_topic(client: &mut Client, topic: &str, queues: &str) -> RemotingCommand {
    let fields = [
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", queues),
        ("writeQueueNums", queues),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
        ("attributes", "+message.type=NORMAL"),
    ];
    client.call(request(Request::UPDATE_AND_CREATE_TOPIC, &fields, []))
}

fn members(client: &mut Client, group: &str) -> Vec<String> {
    let answer = client.call(request(Request::GET_CONSUMER_LIST_BY_GROUP, &[("consumerGroup", group)], []));
    assert_code(&answer, Response::SUCCESS);
    ConsumerList::decode(&answer.body).unwrap().client_ids
}

#[test]
fn the_default_topic_has_a_route_and_an_unknown_one_does_not() {
    let started = start();
    let mut client = started.name_server();
    let answer = route(&mut client, "TBW102");
    assert_code(&answer, Response::SUCCESS);
    let data = TopicRouteData::decode(&answer.body).unwrap();
    assert_eq!((data.queue_datas[0].write_queue_nums, data.queue_datas[0].perm), (4, 7));
    assert_eq!(data.broker_datas[0].broker_addrs[&0], started.broker.broker_address().to_string());
    assert_code(&route(&mut client, "nothing"), Response::TOPIC_NOT_EXIST);
}

#[test]
fn route_keys_are_quoted_only_for_clients_that_read_them() {
    let started = start();
    let mut client = started.name_server();
    let of_version = |client: &mut Client, version| {
        let mut old = request(Request::GET_ROUTEINFO_BY_TOPIC, &[("topic", "TBW102")], []);
        old.version = version;
        String::from_utf8(client.call(old).body.to_vec()).unwrap()
    };
    assert!(of_version(&mut client, 64).contains("\"brokerAddrs\":{0:"));
    assert!(of_version(&mut client, 435).contains("\"brokerAddrs\":{\"0\":"));
    let cluster = client.call(request(Request::GET_BROKER_CLUSTER_INFO, &[], []));
    assert!(String::from_utf8(cluster.body.to_vec()).unwrap().contains("{0:\"127.0.0.1:"));
}

#[test]
fn a_topic_made_by_an_administrator_is_routed_at_once_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_blocking(config(dir.path())).unwrap();
    assert_code(
        &create_topic(&mut Client::connect(broker.broker_address()), "orders", "3"),
        Response::SUCCESS,
    );
    let queues = |broker: &Broker| {
        let answer = route(&mut Client::connect(broker.name_server_address()), "orders");
        assert_code(&answer, Response::SUCCESS);
        TopicRouteData::decode(&answer.body).unwrap().queue_datas[0].read_queue_nums
    };
    assert_eq!(queues(&broker), 3);
    drop(broker);
    let broker = Broker::start_blocking(config(dir.path())).unwrap();
    assert_eq!(queues(&broker), 3);
    let mut client = Client::connect(broker.broker_address());
    assert_code(
        &client.call(request(Request::DELETE_TOPIC_IN_BROKER, &[("topic", "orders")], [])),
        Response::SUCCESS,
    );
    let gone = route(&mut Client::connect(broker.name_server_address()), "orders");
    assert_code(&gone, Response::TOPIC_NOT_EXIST);
}

#[test]
fn a_topic_with_more_queues_than_allowed_is_refused() {
    let started = start();
    let answer = create_topic(&mut started.client(), "wide", "1025");
    assert_code(&answer, Response::INVALID_PARAMETER);
    assert!(answer.remark.unwrap().contains("limits.queues_per_topic"));
}

#[test]
fn a_heartbeat_makes_the_retry_topic_and_a_member() {
    let started = start();
    let mut client = started.client();
    assert_code(&client.call(heartbeat("a", "readers")), Response::SUCCESS);
    assert_eq!(members(&mut client, "readers"), ["a"]);
    assert_code(&route(&mut started.name_server(), "%RETRY%readers"), Response::SUCCESS);
}

#[test]
fn members_are_told_of_a_join_and_of_a_closed_connection() {
    let started = start();
    let mut first = started.client();
    first.call(heartbeat("a", "readers"));
    let mut second = Client::connect_with(started.broker.broker_address(), HeaderEncoding::Binary);
    second.call(heartbeat("b", "readers"));
    assert_eq!(members(&mut second, "readers"), ["a", "b"]);
    drop(second);
    // one notice each: a joined, b joined, b's connection closed
    for _ in 0..3 {
        let notice = first.receive().unwrap();
        assert_eq!(notice.code, Request::NOTIFY_CONSUMER_IDS_CHANGED.0);
        assert!(notice.is_oneway());
        assert_eq!(notice.ext_value("consumerGroup"), Some("readers"));
    }
    assert_eq!(members(&mut first, "readers"), ["a"]);
}

#[test]
fn a_client_that_unregisters_is_no_member_any_more() {
    let started = start();
    let (mut first, mut second) = (started.client(), started.client());
    first.call(heartbeat("a", "readers"));
    second.call(heartbeat("b", "readers"));
    let fields = [("clientID", "b"), ("consumerGroup", "readers")];
    assert_code(&second.call(request(Request::UNREGISTER_CLIENT, &fields, [])), Response::SUCCESS);
    assert_eq!(members(&mut first, "readers"), ["a"]);
    let last = [("clientID", "a"), ("consumerGroup", "readers"), ("producerGroup", "producers")];
    assert_code(&first.call(request(Request::UNREGISTER_CLIENT, &last, [])), Response::SUCCESS);
    let empty = first.call(request(Request::GET_CONSUMER_LIST_BY_GROUP, &[("consumerGroup", "readers")], []));
    assert_code(&empty, Response::SYSTEM_ERROR);
}

#[test]
fn a_queue_is_locked_by_one_client_at_a_time() {
    let started = start();
    let mut client = started.client();
    let body = |client_id: &str| {
        let queue = QueueName { topic: "news".to_owned(), broker_name: "broker-a".to_owned(), queue_id: 0 };
        LockBatchRequest {
            consumer_group: "readers".to_owned(),
            client_id: client_id.to_owned(),
            mq_set: vec![queue],
            ..LockBatchRequest::default()
        }
        .encode()
    };
    let mut lock = |client_id: &str| {
        let answer = client.call(request(Request::LOCK_BATCH_MQ, &[], body(client_id)));
        assert_code(&answer, Response::SUCCESS);
        LockBatchReply::decode(&answer.body).unwrap().locked.len()
    };
    assert_eq!((lock("a"), lock("b"), lock("a")), (1, 0, 1));
    assert_code(&client.call(request(Request::UNLOCK_BATCH_MQ, &[], body("a"))), Response::SUCCESS);
    let answer = client.call(request(Request::LOCK_BATCH_MQ, &[], body("b")));
    assert_eq!(LockBatchReply::decode(&answer.body).unwrap().locked.len(), 1);
}

#[test]
fn an_unsupported_code_is_refused_on_both_listeners_and_in_either_encoding() {
    let started = start();
    for address in [started.broker.broker_address(), started.broker.name_server_address()] {
        for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
            let mut client = Client::connect_with(address, encoding);
            let answer = client.call(request(Request(9_999), &[], []));
            assert_code(&answer, Response::REQUEST_CODE_NOT_SUPPORTED);
        }
    }
}

#[test]
fn a_malformed_request_is_answered_and_a_malformed_frame_ends_the_connection() {
    let started = start();
    let mut client = started.client();
    let answer = client.call(request(Request::GET_CONSUMER_LIST_BY_GROUP, &[], []));
    assert_code(&answer, Response::SYSTEM_ERROR);
    assert!(answer.remark.unwrap().contains("consumerGroup"));
    client.send_bytes(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.receive(), None);
    assert_code(&started.client().call(heartbeat("a", "readers")), Response::SUCCESS);
}

#[test]
fn requests_of_one_read_are_answered_in_their_order() {
    let started = start();
    let mut client = started.client();
    let mut sent: Vec<i32> = (0..20).map(|_| client.send(heartbeat("a", "readers"))).collect();
    sent.insert(0, client.send(request(Request(9_999), &[], [])));
    let mut answered = Vec::new();
    while answered.len() < sent.len() {
        let frame = client.receive().unwrap();
        if frame.is_response() {
            answered.push(frame.opaque);
        }
    }
    sent.sort_unstable();
    assert_eq!(answered, sent);
}

#[test]
fn several_brokers_run_in_one_process() {
    let (one, other) = (start(), start());
    assert_ne!(one.broker.broker_address(), other.broker.broker_address());
    assert_code(&create_topic(&mut one.client(), "only-here", "1"), Response::SUCCESS);
    assert_code(&route(&mut other.name_server(), "only-here"), Response::TOPIC_NOT_EXIST);
}

#[tokio::test]
async fn a_shutdown_closes_connections_and_frees_ports_and_folder() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_blocking(config(dir.path())).unwrap();
    let address = broker.broker_address();
    let mut client = Client::connect(address);
    assert_code(&client.call(heartbeat("a", "readers")), Response::SUCCESS);
    broker.shutdown().await.unwrap();
    while let Some(frame) = client.receive() {
        assert!(frame.is_oneway(), "only notices may still arrive");
    }
    let mut again = config(dir.path());
    again.server.listen = address;
    Broker::start_blocking(again).unwrap().shutdown().await.unwrap();
}

#[test]
fn connections_beyond_the_limit_are_closed_and_others_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.set("limits.connections=2").unwrap();
    let broker = Broker::start_blocking(config).unwrap();
    let mut first = Client::connect(broker.broker_address());
    first.call(heartbeat("a", "readers"));
    let mut second = Client::connect(broker.broker_address());
    second.call(heartbeat("b", "readers"));
    let mut third = Client::connect(broker.broker_address());
    assert_eq!(third.receive(), None);
    assert_eq!(members(&mut first, "readers"), ["a", "b"]);
}

#[test]
fn a_client_that_does_not_read_its_answers_is_disconnected() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.set("limits.write_timeout=100ms").unwrap();
    let broker = Broker::start_blocking(config).unwrap();
    let mut client = Client::connect(broker.name_server_address());
    // far more answers than the buffers of both sockets hold: the broker first stops reading, then gives up
    assert!(client.flood(&request(Request::GET_ROUTEINFO_BY_TOPIC, &[("topic", "TBW102")], [])));
    assert_code(&route(&mut Client::connect(broker.name_server_address()), "TBW102"), Response::SUCCESS);
}

#[test]
fn a_silent_connection_is_closed_after_the_idle_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.set("limits.idle_timeout=100ms").unwrap();
    let broker = Broker::start_blocking(config).unwrap();
    assert_eq!(Client::connect(broker.broker_address()).receive(), None);
}

#[test]
fn an_empty_folder_is_served_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let mut config = Config::default();
    config.store.dir = dir.path().to_owned();
    config.set("server.listen=127.0.0.1:0").unwrap();
    config.set("server.name_server_listen=127.0.0.1:0").unwrap();
    let broker = Broker::start_blocking(config).unwrap();
    let answer = route(&mut Client::connect(broker.name_server_address()), "TBW102");
    assert_code(&answer, Response::SUCCESS);
    // the promise is 0.2 s; an unoptimised build on a busy machine gets more, and still must not write whole segments
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}
