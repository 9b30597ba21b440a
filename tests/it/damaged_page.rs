//! A page of a consume queue goes bad while the broker runs: its consumer is told to try again, and goes on when the page
//! was made anew from the log. Nothing has to be restarted.

use std::fs::File;
use std::os::unix::fs::FileExt;

use mezzo_tests::broker::TestBroker;
use mezzo_tests::consumer::Consumer;
use mezzo_tests::producer::{Producer, SUCCESS};
use mezzo_tests::scrape::metrics;
use mezzo_tests::wait;

const SYSTEM_BUSY: i32 = 2;
/// More than a page holds.
const MESSAGES: usize = 250;

#[test]
fn a_consumer_of_a_damaged_page_is_told_to_try_again_and_then_gets_every_message() {
    let broker = TestBroker::start(&["metrics.listen=127.0.0.1:0"]);
    let mut producer = Producer::connect(broker.address(), "PG_page");
    let requests: Vec<_> = (0..MESSAGES)
        .map(|number| producer.message_request("orders", 0, format!("{number}").as_bytes()).0)
        .collect();
    for request in &requests {
        producer.wire.send(request);
    }
    for request in &requests {
        assert_eq!(producer.wire.answer(request.opaque).code, SUCCESS);
    }
    let mut consumer = Consumer::connect(broker.address(), "CG_page");
    let before = consumer.drain("orders", 0, 0);
    assert_eq!(before.len(), MESSAGES);

    let pages =
        File::options().write(true).open(broker.data_dir().join("queues/pages-0")).expect("there it is");
    pages.write_all_at(&[0xA5; 64], 480).expect("a file of ours can be written");
    let refused = consumer.pull("orders", 0, 0, "*");
    assert_eq!(refused.code, SYSTEM_BUSY, "{:?}", refused.remark);
    assert!(refused.remark.is_some_and(|remark| remark.contains("pages-0") && remark.contains("try again")));
    assert_eq!(producer.try_send("orders", 0, b"meanwhile").0, SUCCESS);
    wait::until("the page is made anew", || {
        (consumer.pull("orders", 0, 0, "*").code == SUCCESS).then_some(())
    });
    let after = consumer.drain("orders", 0, 0);
    assert_eq!((&after[..MESSAGES], after.len()), (&before[..], MESSAGES + 1));
    let seen = metrics(broker.metrics().expect("metrics are served"));
    assert_eq!(seen.get("mezzo_queue_pages_damaged_total"), Some(&1.0));
    assert_eq!(seen.get("mezzo_queue_pages_mended_total"), Some(&1.0));
}
