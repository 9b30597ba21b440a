//! A network that fails again and again while an application works: cuts and silences around arrows that are drawn, a
//! broker that goes and comes back in the middle. When the network is whole again, everything is decided within a bound,
//! as the application says, and every committed message is there once.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::iter;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mezzo_protocol::remoting::RemotingCommand;
use mezzo_tests::broker::TestBroker;
use mezzo_tests::chance::Chance;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Half, Producer, SUCCESS, Verdict};
use mezzo_tests::proxy::{Arrow, Fault, Proxy};

const TOPIC: &str = "orders";
const GROUP: &str = "PG_storm";
const QUEUES: u32 = 4;
const TRANSACTIONS: u64 = 60;
/// How long the application waits for an answer.
const HEARD_WITHIN: Duration = Duration::from_millis(300);
/// Within this time after the last fault nothing is undecided any more: the broker asks every second here.
const DECIDED_WITHIN: Duration = Duration::from_secs(60);
/// MEZZO_LIST_TRANSACTIONS.
const LIST: i32 = 7_700_001;
const ARROWS: [Arrow; 6] =
    [Arrow::Half, Arrow::HalfAnswer, Arrow::End, Arrow::EndAnswer, Arrow::Check, Arrow::CheckAnswer];
const SETTINGS: [&str; 3] =
    ["transaction.timeout=1s", "transaction.check_interval=1s", "transaction.check_max=1000"];

struct Application {
    address: SocketAddr,
    producer: Option<Producer>,
    /// What it says of each transaction: rollback until its local transaction has committed.
    truth: BTreeMap<String, Verdict>,
    halves: Vec<Half>,
}

impl Application {
    /// One transaction, as far as the network lets it; a connection that does not answer is given up.
    fn transact(&mut self, chance: &mut Chance) {
        let connected = self.producer.take().or_else(|| Producer::try_connect(self.address, GROUP));
        let Some(mut producer) = connected else { return };
        let queue = chance.below(u64::from(QUEUES)) as u32;
        let (request, key) = producer.half_request(TOPIC, queue, b"paid", &[]);
        self.truth.insert(key.clone(), Verdict::RollBack);
        let Some(answer) = heard(&mut producer, &request) else { return };
        assert_eq!(answer.code, SUCCESS, "{:?}", answer.remark);
        let half = producer.prepared(TOPIC, key.clone(), &answer);
        let verdict = if chance.below(10) < 7 { Verdict::Commit } else { Verdict::RollBack };
        self.truth.insert(key, verdict);
        self.halves.push(half.clone());
        // some are forgotten and asked for
        if chance.below(4) > 0 {
            let end = producer.end_request(&half, verdict, false);
            let Some(answer) = heard(&mut producer, &end) else { return };
            assert_eq!(answer.code, SUCCESS, "{:?}", answer.remark);
        }
        while let Some(asked) = producer.asked(Duration::from_millis(1)) {
            let end = producer.end_request(&asked, self.truth[&asked.key], true).oneway();
            if producer.wire.try_send_all(iter::once(&end)).is_none() {
                return;
            }
        }
        self.producer = Some(producer);
    }
}

/// Sends a request and waits for its answer; `None` when the network has failed, or seems to have.
fn heard(producer: &mut Producer, request: &RemotingCommand) -> Option<RemotingCommand> {
    producer.wire.try_send_all(iter::once(request))?;
    producer.wire.try_answer(request.opaque, HEARD_WITHIN)
}

fn draw(chance: &mut Chance) -> (Arrow, Fault) {
    let arrow = ARROWS[chance.below(ARROWS.len() as u64) as usize];
    let faults: &[Fault] = if matches!(arrow, Arrow::Half | Arrow::Check | Arrow::HalfAnswer) {
        &[Fault::LostAndCut, Fault::ArrivesAndCut, Fault::LostInSilence, Fault::ArrivesInSilence]
    } else {
        &[
            Fault::LostAndCut,
            Fault::ArrivesAndCut,
            Fault::LostInSilence,
            Fault::ArrivesInSilence,
            Fault::Twice,
        ]
    };
    (arrow, faults[chance.below(faults.len() as u64) as usize])
}

/// What is still open at the broker.
fn open(member: &mut Producer) -> usize {
    let reply = member.wire.call(LIST, &[], b"");
    assert_eq!(reply.code, SUCCESS, "{:?}", reply.remark);
    let page: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    page["transactions"].as_array().unwrap().len()
}

#[test]
fn when_the_network_is_whole_again_all_is_decided_and_delivered_once() {
    let count = env::var("MEZZO_NETWORK_TRANSACTIONS")
        .map_or(TRANSACTIONS, |text| text.parse().expect("MEZZO_NETWORK_TRANSACTIONS is a number"));
    let mut chance = Chance::for_test("network");
    let mut broker = TestBroker::start(&SETTINGS);
    let proxy = Proxy::before(broker.address());
    let mut application =
        Application { address: proxy.address(), producer: None, truth: BTreeMap::new(), halves: Vec::new() };
    let mut struck = 0;
    for number in 0..count {
        if chance.below(2) == 0 {
            struck += u32::from(proxy.has_struck());
            let (arrow, fault) = draw(&mut chance);
            proxy.arm(arrow, fault);
        }
        if number == count / 2 {
            broker.restart();
        }
        application.transact(&mut chance);
    }
    proxy.be_well();
    drop(application.producer.take());

    let healed = Instant::now();
    let mut member = Producer::connect(broker.address(), GROUP);
    while open(&mut member) > 0 {
        assert!(healed.elapsed() < DECIDED_WITHIN, "{} are still undecided", open(&mut member));
        if let Some(asked) = member.asked(Duration::from_millis(200)) {
            assert_eq!(member.end(&asked, application.truth[&asked.key]).code, SUCCESS);
        }
    }
    let delivered = Consumer::connect(broker.address(), "CG_storm").drain_all_if_there(TOPIC, QUEUES);
    let keys: BTreeSet<&String> = delivered.iter().filter_map(|message| message.key.as_ref()).collect();
    let committed = application.truth.iter().filter(|(_, verdict)| **verdict == Verdict::Commit);
    let committed: BTreeSet<&String> = committed.map(|(key, _)| key).collect();
    println!(
        "{count} transactions, {struck} faults, {} committed, {} delivered, decided {:?} after the last fault",
        committed.len(),
        delivered.len(),
        healed.elapsed()
    );
    assert_eq!(keys, committed, "what is delivered is what was committed");
    assert_eq!(delivered.len(), keys.len(), "each once");
    for half in &application.halves {
        let truth = application.truth[&half.key];
        let opposite = if truth == Verdict::Commit { Verdict::RollBack } else { Verdict::Commit };
        assert_eq!(member.end(half, truth).code, SUCCESS, "{}", half.key);
        assert_ne!(member.end(half, opposite).code, SUCCESS, "{}", half.key);
    }
    assert!(struck > 0, "nothing failed");
}
