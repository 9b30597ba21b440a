//! What a committed transaction costs in the log: the message once, and at most 128 bytes more.

use mezzo_tests::broker::TestBroker;
use mezzo_tests::log_reader::{self, DECISION, PREPARED};
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};

/// What may be added to the message's own RocketMQ encoding.
const OVERHEAD_BYTES_MAX: usize = 128;

#[test]
fn a_committed_transaction_costs_its_encoding_and_at_most_128_bytes() {
    const COUNT: usize = 50;
    let mut broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_bytes");
    producer.send("orders", 0, b"creates the topic", &[]);
    let mut halves = Vec::new();
    for i in 0..COUNT {
        // one at a time: each half message and each decision is a frame of its own, the dearest case
        let half = producer.half_with("orders", 0, &vec![b'x'; 10 * i], &[]);
        assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
        halves.push(half);
    }
    broker.stop();

    let frames = log_reader::frames(broker.data_dir());
    let first = halves[0].log_offset;
    let of_transactions = frames.iter().filter(|frame| {
        frame.position >= first - 40
            && frame.records.iter().any(|record| [PREPARED, DECISION].contains(&record.kind))
    });
    let (mut written, mut encoded, mut prepared, mut decisions) = (0, 0, 0, 0);
    for frame in of_transactions {
        written += frame.bytes;
        for record in &frame.records {
            match record.kind {
                PREPARED => {
                    assert_eq!(record.flags, 0, "neither joined nor delayed");
                    encoded += record.payload.len();
                    prepared += 1;
                    assert!(
                        halves.iter().any(|half| half.log_offset == record.position),
                        "a half is named by its record"
                    );
                }
                DECISION => decisions += 1,
                other => panic!("a record of kind {other} came along"),
            }
        }
    }
    assert_eq!((prepared, decisions), (COUNT, COUNT));
    let overhead = (written - encoded) as f64 / COUNT as f64;
    assert!(
        overhead <= OVERHEAD_BYTES_MAX as f64,
        "{overhead} bytes beyond the encoding for each transaction"
    );
}

#[test]
fn the_log_holds_what_was_sent_and_nothing_is_written_twice() {
    let mut broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_bytes");
    let body = b"a body that stands in the log exactly once";
    let half = producer.half("orders", body);
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    broker.stop();
    let found = log_reader::frames(broker.data_dir())
        .iter()
        .flat_map(|frame| &frame.records)
        .filter(|record| record.payload.windows(body.len()).any(|window| window == body))
        .count();
    assert_eq!(found, 1);
}
