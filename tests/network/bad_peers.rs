//! Peers that speak something else, announce too much, begin and do not finish, or do not read: each is told from the
//! others in the log, its connection ends within its bound, and nobody else notices.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mezzo_protocol::remoting::HeaderEncoding;
use mezzo_tests::binary::Binary;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::Producer;
use mezzo_tests::wait::{self, PATIENCE};
use mezzo_tests::wire::Wire;
use tempfile::TempDir;

const SMALL: [&str; 4] = [
    "limits.message_size=128KiB",
    "store.segment_size=1MiB",
    "limits.frame_timeout=400ms",
    "limits.write_timeout=400ms",
];
/// The first bytes of a TLS client's hello.
const TLS_HELLO: [u8; 11] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03];

fn serve(scratch: &TempDir) -> Binary {
    Binary::serve(&scratch.path().join("data"), &scratch.path().join("log"), &SMALL)
}

fn logs(binary: &Binary, words: &str) {
    wait::until(words, || binary.logged().contains(words).then_some(()));
}

/// A send of one message, as bytes.
fn send_frame(broker: SocketAddr) -> BytesMut {
    let mut producer = Producer::connect(broker, "PG_peers");
    let (request, _) = producer.half_request("orders", 0, &[b'x'; 50_000], &[]);
    let mut bytes = BytesMut::new();
    request.encode(HeaderEncoding::Json, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_does_not_speak_the_protocol_is_closed_and_the_log_says_what_it_speaks() {
    let scratch = TempDir::new().unwrap();
    let binary = serve(&scratch);
    let peers: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "it speaks HTTP;"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "it speaks HTTP/2"),
        (&TLS_HELLO, "it asks for TLS"),
        (&[0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 4], "no frame of RocketMQ's remoting protocol"),
    ];
    for address in [binary.broker, binary.name_server] {
        for (bytes, words) in peers {
            let mut wire = Wire::connect(address);
            wire.send_bytes(bytes);
            assert!(wire.is_closed_within(PATIENCE), "{bytes:?}");
            logs(&binary, words);
        }
    }
    // a client that comes again and again does not fill the log
    for _ in 0..200 {
        Wire::connect(binary.broker).send_bytes(b"GET / HTTP/1.1\r\n\r\n");
    }
    let mut last = Wire::connect(binary.broker);
    last.send_bytes(b"GET / HTTP/1.1\r\n\r\n");
    assert!(last.is_closed_within(PATIENCE));
    let lines = binary.logged().matches("it speaks HTTP;").count();
    assert!(lines < 20, "{lines} lines");
    Producer::connect(binary.broker, "PG_peers").send("orders", 0, b"still served", &[]);
}

#[test]
fn a_request_that_begins_and_does_not_end_is_closed_in_time() {
    let scratch = TempDir::new().unwrap();
    let binary = serve(&scratch);
    let frame = send_frame(binary.broker);
    // in the length, in the header, in the body
    for there in [1, 3, 40, frame.len() - 1] {
        let mut wire = Wire::connect(binary.broker);
        wire.send_bytes(&frame[..there]);
        assert!(wire.is_closed_within(PATIENCE), "after {there} bytes");
    }
    logs(&binary, "a request began and did not arrive in full");
    // byte by byte, each in time but never done
    let mut stream = TcpStream::connect(binary.broker).unwrap();
    let began = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut closed = false;
    for byte in &frame {
        let sent = stream.write_all(&[*byte]);
        closed = sent.is_err() || stream.read(&mut [0]).is_ok_and(|read| read == 0);
        if closed {
            break;
        }
    }
    assert!(closed && began.elapsed() < PATIENCE, "after {:?}", began.elapsed());
    // who pauses between requests, however long the deadline of one, stays
    let mut producer = Producer::connect(binary.broker, "PG_peers");
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        assert!(!producer.wire.is_closed_within(Duration::from_millis(500)));
        producer.send("orders", 0, b"now and then", &[]);
    }
}

#[test]
fn a_client_that_does_not_read_is_closed_with_a_line_and_one_that_reads_slowly_gets_all() {
    let scratch = TempDir::new().unwrap();
    let binary = serve(&scratch);
    let mut producer = Producer::connect(binary.broker, "PG_peers");
    for _ in 0..32 {
        producer.send("orders", 0, &[b'x'; 100_000], &[]);
    }
    let mut deaf = Consumer::connect(binary.broker, "CG_deaf");
    let mut bytes = BytesMut::new();
    for _ in 0..100 {
        deaf.pull_request("orders", 0, 0, "*", "4", "0").encode(HeaderEncoding::Json, &mut bytes).unwrap();
    }
    deaf.wire.send_bytes(&bytes);
    // a slow one: some bytes at a time, never as long as the deadline without any
    let mut slow = Consumer::connect(binary.broker, "CG_slow");
    let pulls: Vec<_> = (0..10).map(|from| slow.pull_request("orders", 0, from, "*", "4", "0")).collect();
    slow.wire.try_send_all(pulls.iter()).unwrap();
    for pull in &pulls {
        assert_eq!(slow.wire.answer(pull.opaque).code, 0);
    }
    wait::until("the deaf one is cut off", || deaf.wire.is_reset().then_some(()));
    logs(&binary, "the client does not read its answers");
    producer.send("orders", 0, b"still served", &[]);
}
