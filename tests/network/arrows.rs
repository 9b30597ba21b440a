//! A cut or a silence around each arrow of the transaction protocol. The application knows whether its local transaction
//! ran, and says so when it is asked; whatever was lost, the transaction ends as the application says, within a few of
//! the broker's intervals, and its message is there once or never.

use std::time::Duration;

use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Half, Producer, SUCCESS, Verdict};
use mezzo_tests::proxy::{Arrow, Fault, Proxy};
use mezzo_tests::wait::PATIENCE;

const FAULTS: [Fault; 4] =
    [Fault::LostAndCut, Fault::ArrivesAndCut, Fault::LostInSilence, Fault::ArrivesInSilence];
/// How long a client of these tests waits for an answer that may have been lost.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(700);
/// How long nothing may come for it to be believed that nothing will: the broker looks at the clock every half second.
const NOTHING: Duration = Duration::from_millis(1200);
/// The broker's default `transaction.check_interval`, and a little.
const INTERVAL: Duration = Duration::from_secs(31);
/// Intervals within which a transaction is decided once a member of its group can be reached: one for the question that
/// was lost with the dead connection, one for the next, and one to spare.
const INTERVALS_MAX: u32 = 3;

/// What one run saw before the network was whole again.
struct Seen {
    half: Option<Half>,
    /// What the application says of it.
    truth: Verdict,
    /// Whether the decision has reached the broker.
    decided: bool,
    /// Whether the half message has.
    arrived: bool,
}

/// An application's first attempt, over the network that fails.
fn attempt(broker: &TestBroker, proxy: &Proxy, arrow: Arrow, fault: Fault) -> Seen {
    let frame_arrives = matches!(fault, Fault::ArrivesAndCut | Fault::ArrivesInSilence);
    let mut producer = Producer::connect(proxy.address(), "PG_arrows");
    proxy.arm(arrow, fault);
    let (request, key) = producer.half_request("orders", 0, b"paid", &[]);
    producer.wire.send(&request);
    let answer = producer
        .wire
        .try_answer(request.opaque, if arrow_is_early(arrow) { CLIENT_TIMEOUT } else { PATIENCE });
    let Some(answer) = answer else {
        // no answer: the local transaction does not run
        let arrived = arrow == Arrow::HalfAnswer || frame_arrives;
        return Seen { half: None, truth: Verdict::RollBack, decided: false, arrived };
    };
    let half = producer.prepared("orders", key, &answer);
    let truth = Verdict::Commit;
    let mut decided = false;
    match arrow {
        Arrow::Check | Arrow::CheckAnswer => {
            // it forgets to decide, and is asked
            broker.clock().advance(INTERVAL);
            let asked = producer.asked(if arrow == Arrow::Check && !frame_arrives {
                CLIENT_TIMEOUT
            } else {
                PATIENCE
            });
            if asked.is_some() {
                let end = producer.end_request(&half, truth, true).oneway();
                // a connection that was cut meanwhile loses it
                let _ = producer.wire.try_send_all(std::iter::once(&end));
                decided = arrow == Arrow::CheckAnswer && frame_arrives;
            }
            proxy.wait_until_struck();
        }
        Arrow::Half | Arrow::HalfAnswer => {}
        Arrow::End | Arrow::EndAnswer => {
            let end = producer.end_request(&half, truth, false);
            producer.wire.send(&end);
            let answered = producer.wire.try_answer(end.opaque, CLIENT_TIMEOUT);
            let may_be_answered = arrow == Arrow::EndAnswer && frame_arrives;
            assert_eq!(answered.is_some(), may_be_answered, "{arrow:?} {fault:?}");
            decided = arrow == Arrow::EndAnswer || frame_arrives;
        }
    }
    Seen { half: Some(half), truth, decided, arrived: true }
}

/// Whether the fault hits before the producer knows its half message.
fn arrow_is_early(arrow: Arrow) -> bool {
    matches!(arrow, Arrow::Half | Arrow::HalfAnswer)
}

/// The network is whole again: another member of the group answers what the broker asks.
fn heal(broker: &TestBroker, seen: &Seen, name: &str) {
    let mut member = Producer::connect(broker.address(), "PG_arrows");
    let mut half = seen.half.clone();
    let must_be_asked = seen.arrived && !seen.decided;
    let mut asked = None;
    for _ in 0..INTERVALS_MAX {
        // what lives says so; what does not is forgotten by the broker after a while
        member.heartbeat();
        broker.clock().advance(INTERVAL);
        asked = member.asked(NOTHING);
        if asked.is_some() {
            break;
        }
    }
    assert_eq!(asked.is_some(), must_be_asked, "{name}: asked again");
    if let Some(asked) = asked {
        if let Some(known) = &half {
            assert_eq!(known, &asked, "{name}");
        }
        assert_eq!(member.end(&asked, seen.truth).code, SUCCESS, "{name}");
        half = Some(asked);
    }
    let delivered = Consumer::connect(broker.address(), "CG_arrows").drain_all_if_there("orders", 4);
    assert_eq!(delivered.len(), usize::from(seen.truth == Verdict::Commit), "{name}: delivered");
    let Some(half) = half else { return };
    // said again it is the same, and the opposite is refused
    assert_eq!(member.end(&half, seen.truth).code, SUCCESS, "{name}: repeated");
    let opposite = if seen.truth == Verdict::Commit { Verdict::RollBack } else { Verdict::Commit };
    assert_ne!(member.end(&half, opposite).code, SUCCESS, "{name}: contradicted");
    let again = Consumer::connect(broker.address(), "CG_arrows").drain_all_if_there("orders", 4);
    assert_eq!(again, delivered, "{name}");
}

fn around(arrow: Arrow) {
    for fault in FAULTS {
        let broker = TestBroker::with_manual_clock(&[]);
        let proxy = Proxy::before(broker.address());
        let seen = attempt(&broker, &proxy, arrow, fault);
        proxy.wait_until_struck();
        heal(&broker, &seen, &format!("{arrow:?} {fault:?}"));
    }
}

#[test]
fn a_half_message_that_is_lost_or_arrives_unheard_is_never_delivered() {
    around(Arrow::Half);
}

#[test]
fn a_half_message_whose_answer_is_lost_is_asked_about_and_ends() {
    around(Arrow::HalfAnswer);
}

#[test]
fn a_decision_that_is_lost_is_asked_for() {
    around(Arrow::End);
}

#[test]
fn a_decision_whose_answer_is_lost_holds() {
    around(Arrow::EndAnswer);
}

#[test]
fn a_question_that_is_lost_is_asked_again_elsewhere() {
    around(Arrow::Check);
}

#[test]
fn an_answer_to_a_question_that_is_lost_is_asked_for_again() {
    around(Arrow::CheckAnswer);
}
