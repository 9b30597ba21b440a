//! `store.max_bytes`: what producers and consumers are told when the data folder has reached its bound.

use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::{Consumer, PULL_OFFSET_MOVED};
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};
use mezzo_tests::wait;

const SYSTEM_BUSY: i32 = 2;
/// Ten segments beside the files of consume queue pages.
const BOUND: [&str; 4] = [
    "store.segment_size=1MiB",
    "store.checkpoint_size=1MiB",
    "history.max_bytes=1MiB",
    "store.max_bytes=44MiB",
];
static BODY: [u8; 100_000] = [b'x'; 100_000];

/// Sends until the broker has no room; how many it took, and what it said then.
fn send_until_busy(producer: &mut Producer, most: u32) -> (u32, String) {
    for sent in 0..most {
        let (code, remark) = producer.try_send("orders", 0, &BODY);
        if code == SYSTEM_BUSY && remark.contains("store.max_bytes") {
            return (sent, remark);
        }
        if code == SYSTEM_BUSY {
            // the next segment is not prepared yet
            wait::until("a segment is prepared", || {
                let (code, remark) = producer.try_send("orders", 0, b"again");
                (code == SUCCESS || remark.contains("store.max_bytes")).then_some(())
            });
            continue;
        }
        assert_eq!(code, SUCCESS, "{remark}");
    }
    panic!("{most} messages of 100 kB were taken");
}

#[test]
fn at_the_bound_messages_are_refused_as_busy_and_decisions_are_taken() {
    let mut broker = TestBroker::start(&BOUND);
    let mut producer = Producer::connect(broker.address(), "PG_bound");
    let half = producer.half("orders", b"early");
    // a group that is not there yet would need room of its own
    let mut consumer = Consumer::connect(broker.address(), "CG_bound");
    consumer.drain("orders", 0, 0);
    let (sent, remark) = send_until_busy(&mut producer, 400);
    assert!(remark.contains("store.max_bytes is reached"), "{remark}");
    assert!(sent > 30, "{sent}");
    let (request, _) = producer.half_request("orders", 0, &BODY, &[]);
    producer.wire.send(&request);
    assert_eq!(producer.wire.answer(request.opaque).code, SYSTEM_BUSY, "half messages, too");
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    let found = consumer.drain("orders", 0, 0);
    assert!(found.iter().any(|message| message.body == b"early"));
    assert!(found.len() as u32 > sent, "nothing was deleted");
    // and after a start it is as before
    broker.restart();
    let mut producer = Producer::connect(broker.address(), "PG_bound");
    send_until_busy(&mut producer, 30);
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS, "the same answer");
}

#[test]
fn a_new_group_at_the_bound_is_told_why_and_begins_when_there_is_room() {
    let settings: Vec<&str> = BOUND.into_iter().chain(["store.retention=1h", "history.horizon=1h"]).collect();
    let broker = TestBroker::with_manual_clock(&settings);
    let mut producer = Producer::connect(broker.address(), "PG_group");
    producer.send("orders", 0, b"first", &[]);
    let mut known = Consumer::connect(broker.address(), "CG_known");
    assert_eq!(known.drain("orders", 0, 0).len(), 1);
    let (sent, _) = send_until_busy(&mut producer, 400);
    assert!(known.drain("orders", 0, 0).len() as u32 > sent, "a group that is there consumes");
    let mut new = Consumer::connect(broker.address(), "CG_new");
    let refused = new.pull("orders", 0, 0, "*");
    let remark = refused.remark.clone().unwrap_or_default();
    assert_eq!(refused.code, SYSTEM_BUSY, "{remark}");
    for part in ["CG_new", "store.max_bytes", "groups that are there already consume"] {
        assert!(remark.contains(part), "{part} in {remark}");
    }
    broker.clock().advance(std::time::Duration::from_secs(2 * 3600));
    wait::until("there is room", || (new.pull("orders", 0, 0, "*").code != SYSTEM_BUSY).then_some(()));
    new.join(&["orders"]);
}

#[test]
fn at_the_bound_the_oldest_go_if_so_configured_and_what_is_undecided_stays() {
    let settings: Vec<&str> = BOUND.into_iter().chain(["store.at_max_bytes=delete-oldest"]).collect();
    let broker = TestBroker::start(&settings);
    let mut producer = Producer::connect(broker.address(), "PG_oldest");
    let half = producer.half("orders", b"early");
    for n in 0..300 {
        wait::until("there is room again", || {
            let (code, remark) = producer.try_send("orders", 0, &BODY);
            assert!(code == SUCCESS || code == SYSTEM_BUSY, "{n}: {code} {remark}");
            (code == SUCCESS).then_some(())
        });
    }
    let mut consumer = Consumer::connect(broker.address(), "CG_oldest");
    let moved = consumer.pull("orders", 0, 0, "*");
    assert_eq!(moved.code, PULL_OFFSET_MOVED, "the first are gone: {:?}", moved.remark);
    let from: u64 = moved.ext_value("nextBeginOffset").expect("where to go on").parse().expect("a number");
    assert!(from > 100, "{from}");
    assert_eq!(producer.end(&half, Verdict::Commit).code, SUCCESS);
    let found = consumer.drain("orders", 0, from);
    let early: Vec<_> = found.iter().filter(|message| message.body == b"early").collect();
    assert_eq!(early.len(), 1, "shown once");
    assert_eq!(early[0].key.as_deref(), Some(half.key.as_str()));
    assert_ne!(early[0].physical_offset, half.log_offset, "from where it was carried to");
    assert_eq!(early[0].prepared_offset, half.log_offset, "its identity");
}
