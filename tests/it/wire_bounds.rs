//! Whatever arrives, the broker answers or closes the connection, and goes on serving everybody else.

use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Producer, SUCCESS};
use mezzo_tests::wait::{self, PATIENCE};
use mezzo_tests::wire::Wire;

const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
const MESSAGE_ILLEGAL: i32 = 13;

#[test]
fn an_unknown_request_is_answered_as_not_supported() {
    let broker = TestBroker::start(&[]);
    for address in [broker.address(), broker.name_server()] {
        let mut wire = Wire::connect(address);
        for code in [9_999, -1, 0, i32::MAX] {
            let reply = wire.call(code, &[], b"whatever");
            assert_eq!(reply.code, REQUEST_CODE_NOT_SUPPORTED, "code {code}");
        }
    }
}

#[test]
fn bytes_that_are_no_frame_close_their_connection_and_no_other() {
    let broker = TestBroker::start(&[]);
    let mut good = Producer::connect(broker.address(), "PG_bounds");
    let nonsense: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[0xFF; 64],
        &[0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 4],
        &[0, 0, 0, 8, 0, 0, 0xFF, 0xFF, 1, 2, 3, 4],
        &[0, 0, 0, 8, 9, 0, 0, 4, b'{', b'}', b' ', b' '],
    ];
    for bytes in nonsense {
        let mut wire = Wire::connect(broker.address());
        wire.send_bytes(bytes);
        assert!(wire.is_closed_within(PATIENCE), "{bytes:?}");
    }
    good.send("orders", 0, b"still served", &[]);
}

#[test]
fn a_request_that_arrives_byte_by_byte_is_understood() {
    let broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_bounds");
    let (request, _) = producer.half_request("orders", 0, b"slowly", &[]);
    let mut bytes = bytes::BytesMut::new();
    request.encode(mezzo_protocol::remoting::HeaderEncoding::Json, &mut bytes).unwrap();
    for byte in &bytes {
        producer.wire.send_bytes(std::slice::from_ref(byte));
    }
    assert_eq!(producer.wire.answer(request.opaque).code, SUCCESS);
}

#[test]
fn many_requests_in_one_write_are_answered_each() {
    let broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_bounds");
    let requests: Vec<_> = (0..500).map(|_| producer.half_request("orders", 0, b"x", &[]).0).collect();
    let mut bytes = bytes::BytesMut::new();
    for request in &requests {
        request.encode(mezzo_protocol::remoting::HeaderEncoding::Json, &mut bytes).unwrap();
    }
    producer.wire.send_bytes(&bytes);
    for request in &requests {
        assert_eq!(producer.wire.answer(request.opaque).code, SUCCESS);
    }
}

#[test]
fn messages_beyond_the_bounds_are_refused_and_not_stored() {
    let broker = TestBroker::start(&["limits.message_size=1KiB"]);
    let mut producer = Producer::connect(broker.address(), "PG_bounds");
    producer.send("orders", 0, &[b'x'; 1024], &[]);
    let (request, _) = producer.half_request("orders", 0, &[b'x'; 1025], &[]);
    producer.wire.send(&request);
    let reply = producer.wire.answer(request.opaque);
    assert_eq!(reply.code, MESSAGE_ILLEGAL, "{:?}", reply.remark);
    let long_topic = "t".repeat(300);
    for topic in ["", "with space", "sl/ash", "emoji🚀", &long_topic] {
        let (request, _) = producer.half_request(topic, 0, b"x", &[]);
        producer.wire.send(&request);
        let reply = producer.wire.answer(request.opaque);
        assert_ne!(reply.code, SUCCESS, "topic {topic:?}");
        assert!(reply.remark.is_some_and(|remark| !remark.is_empty()), "topic {topic:?}");
    }
    assert_eq!(Consumer::connect(broker.address(), "CG_bounds").drain_all("orders", 4).len(), 1);
}

#[test]
fn a_client_that_does_not_read_its_answers_does_not_stop_others() {
    let broker = TestBroker::start(&["limits.write_timeout=500ms"]);
    let mut producer = Producer::connect(broker.address(), "PG_bounds");
    for _ in 0..32 {
        producer.send("orders", 0, &[b'x'; 100 * 1024], &[]);
    }
    let mut deaf = Consumer::connect(broker.address(), "CG_bounds");
    for _ in 0..200 {
        let pull = deaf.pull_request("orders", 0, 0, "*", "4", "0");
        let mut bytes = bytes::BytesMut::new();
        pull.encode(mezzo_protocol::remoting::HeaderEncoding::Json, &mut bytes).unwrap();
        deaf.wire.send_bytes(&bytes);
    }
    let mut other = Consumer::connect(broker.address(), "CG_bounds");
    assert_eq!(other.drain("orders", 0, 0).len(), 32);
    producer.send("orders", 0, b"still served", &[]);
    wait::until("it is cut off after limits.write_timeout", || deaf.wire.is_reset().then_some(()));
}
