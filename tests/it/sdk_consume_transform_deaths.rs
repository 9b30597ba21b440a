//! Consume, transform, produce by processes that die at any step of their work, and come back under their own name or are
//! followed by others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::future::Future;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use mezzo_client::Client;
use mezzo_client::config::TransactionConfig;
use mezzo_tests::broker::TestBroker;
use mezzo_tests::chance::Chance;
use mezzo_tests::transform::{
    BILLS, Worker, all_billed, bill, brisk, connect, consumer, numbered, order, producer, visible,
};

/// Where a process dies.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// It has a batch.
    Consumed,
    /// It has sent all bills.
    Produced,
    /// Its commit is on its way.
    Committing,
    /// Its commit is answered, and nothing of it written down.
    Committed,
}

const STEPS: [Step; 4] = [Step::Consumed, Step::Produced, Step::Committing, Step::Committed];

/// Longest wait of a process for a batch: all may be in the hands of others.
const IDLE: Duration = Duration::from_secs(2);

/// A process of this name that bills `batches` batches and dies at a step of the next.
fn process(name_server: SocketAddr, name: &'static str, batches: u64, step: Step) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::builder(name_server.to_string()).instance(name).build().await.unwrap();
        let consumer = consumer(&client, brisk().batch_messages_max(2)).await;
        let (producer, _) = producer(&client, TransactionConfig::default().consuming_max_ms(0)).await;
        for number in 0..=batches {
            let Ok(batch) = tokio::time::timeout(IDLE, consumer.next_batch()).await else { break };
            let batch = batch.unwrap();
            if number < batches {
                // Whatever comes of it: what is not committed comes again.
                if let Ok(tx) = bill(&producer, &batch).await {
                    drop(tx.commit().await);
                }
                continue;
            }
            if matches!(step, Step::Consumed) {
                std::mem::forget(batch);
                break;
            }
            let Ok(tx) = bill(&producer, &batch).await else { break };
            match step {
                Step::Consumed | Step::Produced => std::mem::forget(tx),
                Step::Committing => {
                    let mut commit = Box::pin(tx.commit());
                    // Asked for once: the request is on its way, and its answer is heard by nobody.
                    let ready =
                        std::future::poll_fn(|context| Poll::Ready(commit.as_mut().poll(context).is_ready()));
                    let _is_ready = ready.await;
                    std::mem::forget(commit);
                }
                Step::Committed => drop(tx.commit().await),
            }
            std::mem::forget(batch);
        }
        // A process that is killed runs no destructor.
        std::mem::forget((consumer, producer, client));
    });
    runtime.shutdown_background();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_has_its_one_bill_whichever_process_dies_at_which_step() {
    const ORDERS_IN_ALL: usize = 150;
    const DEATHS: u64 = 16;
    let broker = TestBroker::start(&["transaction.timeout=300ms", "transaction.check_interval=1s"]);
    order(&connect(&broker).await, numbered(0..ORDERS_IN_ALL)).await;
    let mut chance = Chance::for_test("deaths");
    for death in 0..DEATHS {
        let step = STEPS[usize::try_from(death).unwrap() % STEPS.len()];
        // The same again at once, or another that has to wait for the end of the leases.
        let name = ["billing-a", "billing-b"][usize::try_from(chance.below(4) / 3).unwrap()];
        let batches = chance.below(4);
        let name_server = broker.name_server();
        let died = tokio::task::spawn_blocking(move || process(name_server, name, batches, step));
        died.await.unwrap();
        let bills = visible(&broker, BILLS);
        let mut distinct = bills.clone();
        distinct.dedup();
        assert_eq!(bills, distinct, "behind death {death} of {name} at {step:?}");
    }
    let worker = Worker::start(&broker, brisk()).await;
    all_billed(&broker, ORDERS_IN_ALL);
    assert!(worker.leave().await.in_order);
    all_billed(&broker, ORDERS_IN_ALL);
}
