//! What a kill leaves of consumer offsets. A group's report is answered from memory and logged within about a second, so
//! the last one may go back, to one that was reported before and never to anything else.

use mezzo_tests::binary::Binary;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Producer, SUCCESS};
use mezzo_tests::scrape;
use mezzo_tests::wait;
use tempfile::TempDir;

use super::rounds;

const UPDATE_CONSUMER_OFFSET: i32 = 15;
const QUERY_CONSUMER_OFFSET: i32 = 14;
const GROUP: &str = "CG_offsets";
const PLACE: [(&str, &str); 3] = [("consumerGroup", GROUP), ("topic", "orders"), ("queueId", "0")];
const SETTINGS: [&str; 3] =
    ["limits.message_size=128KiB", "store.segment_size=1MiB", "metrics.listen=127.0.0.1:0"];

fn report(consumer: &mut Consumer, offset: u64) {
    let offset = offset.to_string();
    let fields = [&PLACE[..], &[("commitOffset", &offset)]].concat();
    assert_eq!(consumer.wire.call(UPDATE_CONSUMER_OFFSET, &fields, b"").code, SUCCESS);
}

fn reported(consumer: &mut Consumer) -> Option<u64> {
    let answer = consumer.wire.call(QUERY_CONSUMER_OFFSET, &PLACE, b"");
    answer.ext_value("offset").and_then(|offset| offset.parse().ok())
}

fn appended(binary: &Binary) -> f64 {
    scrape::metrics(binary.metrics.expect("metrics are served"))["mezzo_log_appended_bytes_total"]
}

#[test]
fn offsets_are_logged_soon_and_a_kill_takes_at_most_the_last_report() {
    let scratch = TempDir::new().unwrap();
    let (data, log) = (scratch.path().join("data"), scratch.path().join("log"));
    let mut last = 0;
    for round in 0..rounds::rounds("MEZZO_KILL_ROUNDS", 4).div_ceil(2) {
        let binary = Binary::serve(&data, &log, &SETTINGS);
        let mut producer = Producer::connect(binary.broker, "PG_offsets");
        for _ in 0..20 {
            producer.send("orders", 0, b"paid", &[]);
        }
        let mut consumer = Consumer::connect(binary.broker, GROUP);
        consumer.join(&["orders"]);
        if round > 0 {
            let found = reported(&mut consumer).expect("the group has reported");
            assert!(
                found == last || found == last + 1,
                "round {round}: {found}, reported {last}, {}",
                last + 1
            );
            last = found;
        }
        for _ in 0..2 {
            let before = appended(&binary);
            last += 1;
            report(&mut consumer, last);
            // nobody else makes the log grow
            wait::until("the report is logged", || (appended(&binary) > before).then_some(()));
        }
        // this one is known to nobody but the memory of the process that dies
        report(&mut consumer, last + 1);
        binary.kill();
    }
}
