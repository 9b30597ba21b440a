//! A broker that is told to stop while requests are under way: what it stored it has answered, and the answers arrive;
//! also of requests that are carried out on other threads than their connection's.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use mezzo_tests::binary::Binary;
use mezzo_tests::chance::Chance;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Producer, SUCCESS};
use tempfile::TempDir;

const ROUNDS: u32 = 4;
const REQUESTS: usize = 400;
const SMALL: [&str; 2] = ["limits.message_size=128KiB", "store.segment_size=1MiB"];

#[test]
fn what_a_stopping_broker_has_stored_it_has_answered() {
    let mut chance = Chance::for_test("stop");
    let scratch = TempDir::new().unwrap();
    let (data, log) = (scratch.path().join("data"), scratch.path().join("log"));
    let mut answered = BTreeSet::new();
    for round in 0..ROUNDS {
        let binary = Binary::serve(&data, &log, &SMALL);
        let mut producer = Producer::connect(binary.broker, "PG_stop");
        let requests: Vec<_> =
            (0..REQUESTS).map(|_| producer.message_request("orders", 0, &[b'x'; 1_000])).collect();
        producer.wire.try_send_all(requests.iter().map(|(request, _)| request)).unwrap();
        // not synchronisation: the moment of the stop is what is drawn here
        thread::sleep(Duration::from_millis(chance.below(20)));
        assert_eq!(binary.terminate().code(), Some(0), "round {round}");
        for (request, key) in requests {
            if let Some(answer) = producer.wire.try_answer(request.opaque, Duration::from_secs(5)) {
                assert_eq!(answer.code, SUCCESS, "{:?}", answer.remark);
                answered.insert(key);
            } else {
                // answers come in order, and the connection is closed behind the last
                break;
            }
        }
    }
    let binary = Binary::serve(&data, &log, &SMALL);
    let stored = Consumer::connect(binary.broker, "CG_stop").drain_all_if_there("orders", 4);
    assert_eq!(stored.len(), answered.len(), "each is there once");
    let stored: BTreeSet<String> = stored.into_iter().filter_map(|message| message.key).collect();
    assert_eq!(stored, answered);
}

const SEND_BACK: i32 = 36;
/// Send-backs of one round.
const BACK: u64 = 60;

#[test]
fn what_a_stopping_broker_has_sent_back_it_has_answered() {
    let mut chance = Chance::for_test("stop with send-backs");
    let scratch = TempDir::new().unwrap();
    let (data, log) = (scratch.path().join("data"), scratch.path().join("log"));
    let mut answered = 0;
    for round in 0..ROUNDS {
        let binary = Binary::serve(&data, &log, &SMALL);
        if round == 0 {
            let mut producer = Producer::connect(binary.broker, "PG_back");
            (0..BACK).for_each(|_| drop(producer.send("orders", 0, b"again", &[])));
        }
        let mut consumer = Consumer::connect(binary.broker, "CG_back");
        consumer.join(&["orders"]);
        let found = consumer.drain("orders", 0, 0);
        let requests: Vec<_> = found
            .iter()
            .map(|message| {
                let fields = [
                    ("offset", &*message.physical_offset.to_string()),
                    ("group", "CG_back"),
                    // at once: as a dead letter
                    ("delayLevel", "-1"),
                    ("originMsgId", "x"),
                    ("originTopic", "orders"),
                    ("unitMode", "false"),
                    ("maxReconsumeTimes", "16"),
                ];
                consumer.wire.request(SEND_BACK, &fields, b"")
            })
            .collect();
        consumer.wire.try_send_all(requests.iter()).unwrap();
        // not synchronisation: the moment of the stop is what is drawn here
        thread::sleep(Duration::from_millis(chance.below(10)));
        assert_eq!(binary.terminate().code(), Some(0), "round {round}");
        for request in requests {
            if let Some(answer) = consumer.wire.try_answer(request.opaque, Duration::from_millis(200)) {
                answered += usize::from(answer.code == SUCCESS);
            }
        }
    }
    let binary = Binary::serve(&data, &log, &SMALL);
    let dead = Consumer::connect(binary.broker, "CG_look").drain_all_if_there("%DLQ%CG_back", 1);
    println!("{answered} of {} were answered", BACK * u64::from(ROUNDS));
    assert_eq!(dead.len(), answered, "what is stored has been answered");
}
