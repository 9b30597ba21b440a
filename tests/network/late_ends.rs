//! Decisions that arrive twice, late, or after another one: the first that the broker hears stands, each later one gets
//! the answer that it got or is refused, and none touches another transaction.

use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Producer, SUCCESS, Verdict};
use mezzo_tests::proxy::{Arrow, Fault, Proxy};
use mezzo_tests::wait::PATIENCE;

fn delivered(broker: &TestBroker) -> Vec<String> {
    let mut consumer = Consumer::connect(broker.address(), "CG_late");
    consumer.drain_all_if_there("orders", 4).iter().map(|message| message.text().to_owned()).collect()
}

#[test]
fn a_decision_that_arrives_twice_is_answered_twice_and_taken_once() {
    let broker = TestBroker::start(&[]);
    let proxy = Proxy::before(broker.address());
    let mut producer = Producer::connect(proxy.address(), "PG_late");
    for (verdict, expected) in [(Verdict::Commit, vec!["paid"]), (Verdict::RollBack, vec!["paid"])] {
        let half = producer.half("orders", b"paid");
        proxy.arm(Arrow::End, Fault::Twice);
        let end = producer.end_request(&half, verdict, false);
        producer.wire.send(&end);
        for time in 0..2 {
            assert_eq!(producer.wire.answer(end.opaque).code, SUCCESS, "{verdict:?}, time {time}");
        }
        assert_eq!(delivered(&broker), expected, "{verdict:?}");
    }
}

#[test]
fn a_decision_that_comes_after_the_opposite_one_is_refused() {
    for (first, late) in [(Verdict::RollBack, Verdict::Commit), (Verdict::Commit, Verdict::RollBack)] {
        let broker = TestBroker::start(&[]);
        let proxy = Proxy::before(broker.address());
        let mut producer = Producer::connect(proxy.address(), "PG_late");
        let half = producer.half("orders", b"paid");
        proxy.arm(Arrow::End, Fault::KeptBack);
        let end = producer.end_request(&half, late, false);
        producer.wire.send(&end);
        proxy.wait_until_struck();
        let mut other = Producer::connect(broker.address(), "PG_late");
        assert_eq!(other.end(&half, first).code, SUCCESS);
        proxy.let_go();
        let answer = producer.wire.answer(end.opaque);
        assert_ne!(answer.code, SUCCESS, "{late:?} after {first:?}");
        assert!(answer.remark.is_some_and(|remark| !remark.is_empty()), "it says why");
        assert_eq!(delivered(&broker).len(), usize::from(first == Verdict::Commit));
    }
}

#[test]
fn a_late_decision_does_not_hit_the_producers_next_transaction() {
    let broker = TestBroker::start(&[]);
    let proxy = Proxy::before(broker.address());
    let mut producer = Producer::connect(proxy.address(), "PG_late");
    let first = producer.half("orders", b"first");
    proxy.arm(Arrow::End, Fault::KeptBack);
    let end = producer.end_request(&first, Verdict::RollBack, false);
    producer.wire.send(&end);
    proxy.wait_until_struck();
    let second = producer.half("orders", b"second");
    proxy.let_go();
    assert_eq!(producer.wire.answer(end.opaque).code, SUCCESS);
    assert_eq!(producer.end(&second, Verdict::Commit).code, SUCCESS);
    assert_eq!(delivered(&broker), ["second"]);
}

#[test]
fn a_decision_is_the_same_one_after_the_broker_came_back() {
    let mut broker = TestBroker::start(&[]);
    let mut producer = Producer::connect(broker.address(), "PG_late");
    let (committed, open) = (producer.half("orders", b"committed"), producer.half("orders", b"open"));
    assert_eq!(producer.end(&committed, Verdict::Commit).code, SUCCESS);
    broker.restart();
    assert!(producer.wire.is_closed_within(PATIENCE), "a stopped broker closes its connections");
    // the same frames again, on a new connection
    let mut producer = Producer::connect(broker.address(), "PG_late");
    for time in 0..2 {
        assert_eq!(producer.end(&committed, Verdict::Commit).code, SUCCESS, "time {time}");
        assert_ne!(producer.end(&committed, Verdict::RollBack).code, SUCCESS, "time {time}");
        assert_eq!(producer.end(&open, Verdict::RollBack).code, SUCCESS, "time {time}");
        assert_ne!(producer.end(&open, Verdict::Commit).code, SUCCESS, "time {time}");
    }
    assert_eq!(delivered(&broker), ["committed"]);
}
