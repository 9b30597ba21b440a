//! Consume, transform, produce when things go wrong: members come, go and die, leases are taken over, brokers restart,
//! commits are cut off or said twice. Every order has its one bill in the end, and nobody sees one that was fenced.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use mezzo_client::admin::{Admin, TransactionFilter};
use mezzo_client::config::{ConsumerConfig, TransactionConfig};
use mezzo_client::{LeasedBatch, Message, TransactionName, TransactionOutcome};
use mezzo_protocol::remoting::RemotingCommand;
use mezzo_tests::broker::TestBroker;
use mezzo_tests::producer::{END_TRANSACTION, Producer, SUCCESS};
use mezzo_tests::transform::{
    BILLING, BILLS, ORDERS, Worker, all_billed, bill, brisk, connect, consumer, greedy, numbered, order,
    producer, visible,
};
use mezzo_tests::wait;

const ILLEGAL_OPERATION: i32 = 604;
const UPDATE_CONSUMER_OFFSET: i32 = 15;

/// One queue of several orders.
async fn ordered(broker: &TestBroker, bodies: &[&str]) {
    let client = connect(broker).await;
    let producer = client.producer("waiters").start().await.unwrap();
    for body in bodies {
        let message = Message::builder(ORDERS).sharding_key("one").body((*body).to_owned()).build().unwrap();
        producer.send(message).await.unwrap();
    }
}

fn bodies(batch: &LeasedBatch) -> Vec<String> {
    batch.messages().iter().map(|m| String::from_utf8_lossy(m.body()).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_has_its_one_bill_while_members_come_and_go() {
    const ORDERS_IN_ALL: usize = 600;
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    let config = || brisk().batch_messages_max(3);
    order(&client, numbered(0..100)).await;
    let mut workers = vec![Worker::start(&broker, config()).await];
    let mut committed = 0;
    for round in 1..6 {
        workers.push(Worker::start(&broker, config()).await);
        order(&client, numbered(round * 100..(round + 1) * 100)).await;
        wait::until("some more bills", || (visible(&broker, BILLS).len() >= round * 80).then_some(()));
        if round % 2 == 0 {
            let left = workers.remove(0).leave().await;
            assert!(left.in_order, "its last transaction ended before its leases: {left:?}");
            committed += left.committed;
        }
    }
    all_billed(&broker, ORDERS_IN_ALL);
    for worker in workers {
        let left = worker.leave().await;
        assert!(left.in_order, "{left:?}");
        committed += left.committed;
    }
    assert!(committed >= (ORDERS_IN_ALL / 3) as u64, "{committed} batches of at most 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_goes_to_another_member_behind_the_transaction_that_is_under_way() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    order(&client, numbered(0..4)).await;
    let first = consumer(&client, brisk()).await;
    let (producer, _) = producer(&client, TransactionConfig::default()).await;
    let mut tx = producer.begin().await.unwrap();
    let mut batches = Vec::new();
    for _ in 0..4 {
        let batch = first.next_batch().await.unwrap();
        tx.ack(&batch).unwrap();
        batches.push(batch);
    }
    tx.send(Message::new(BILLS, "all").unwrap()).await.unwrap();
    let other = connect(&broker).await;
    let second = consumer(&other, brisk()).await;
    wait::until("two queues are taken away", || (first.queues().len() == 2).then_some(()));
    wait::until("and given to the other", || (second.queues().len() == 2).then_some(()));
    assert!(second.leased_queues().is_empty(), "which waits for the end of the transaction");
    let outcome = tx.commit().await;
    assert!(outcome.is_committed(), "{outcome}");
    wait::until("the other has the leases", || (second.leased_queues().len() == 2).then_some(()));
    assert_eq!(second.lag().await.unwrap().total(), 0);
    assert_eq!(visible(&broker, BILLS), ["all"]);
}

/// A process that dies between its last send and its commit, without a word to anybody.
fn dead_process(broker: &TestBroker) -> TransactionName {
    let address = broker.name_server().to_string();
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let name = runtime.block_on(async {
            let client = mezzo_client::Client::connect(address).await.unwrap();
            let consumer = consumer(&client, brisk()).await;
            let config = TransactionConfig::default().consuming_max_ms(0);
            let (producer, _) = producer(&client, config).await;
            let batch = consumer.next_batch().await.unwrap();
            let tx = bill(&producer, &batch).await.unwrap();
            assert!(tx.name().messages > 0);
            let name = tx.name().clone();
            // A process that is killed runs no destructor.
            std::mem::forget((tx, batch, consumer, producer, client));
            name
        });
        runtime.shutdown_background();
        name
    });
    process.join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_left_is_rolled_back_and_done_by_its_successor() {
    let broker = TestBroker::start(&["transaction.timeout=300ms", "transaction.check_interval=1s"]);
    let client = connect(&broker).await;
    order(&client, numbered(0..20)).await;
    let name = dead_process(&broker);
    assert!(name.moves_offsets);
    let (_asked, asked) = producer(&client, TransactionConfig::default()).await;
    let worker = Worker::start(&broker, brisk()).await;
    all_billed(&broker, 20);
    let (admin, filter) = (Admin::new(&client), TransactionFilter::default());
    let address = broker.address().to_string();
    wait::until("nothing is open", || {
        let open = admin.transactions(&address, &filter, None);
        let open = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(open));
        open.unwrap().transactions.is_empty().then_some(())
    });
    assert_eq!(asked.load(Ordering::SeqCst), 0, "a handler that would commit it is not asked");
    assert!(worker.leave().await.in_order);
    all_billed(&broker, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_commits_late_is_fenced_and_none_of_its_output_is_visible() {
    let broker = TestBroker::with_manual_clock(&[]);
    ordered(&broker, &["coffee", "tea"]).await;
    let client = connect(&broker).await;
    let zombie = greedy(&client, ConsumerConfig::default()).await;
    let (producer, _) = producer(&client, TransactionConfig::default()).await;
    let batch = zombie.next_batch().await.unwrap();
    let mut tx = producer.begin().await.unwrap();
    tx.ack(&batch).unwrap();
    tx.send(Message::new(BILLS, "of a zombie").unwrap()).await.unwrap();
    // It stands still for longer than its lease; another one takes the queue and goes on from the same place.
    broker.clock().advance(Duration::from_secs(31));
    let living = connect(&broker).await;
    let successor = greedy(&living, ConsumerConfig::default()).await;
    let taken = successor.next_batch().await.unwrap();
    assert_eq!((taken.from(), bodies(&taken)), (batch.from(), bodies(&batch)));
    assert!(taken.epoch() > batch.epoch());
    let (living_producer, _) = mezzo_tests::transform::producer(&living, TransactionConfig::default()).await;
    let living_tx = bill(&living_producer, &taken).await.unwrap();
    // Late, and before the successor has committed: the lease decides, not who is first.
    let late = tx.commit().await;
    assert!(late.is_fenced() && late.is_rolled_back(), "{late}");
    let outcome = living_tx.commit().await;
    assert!(outcome.is_committed(), "{outcome}");
    assert_eq!(visible(&broker, BILLS), bodies(&taken));
    // The zombie knows now, and gets the queue again when it is free.
    assert_eq!(zombie.queues().len(), 4);
    assert!(successor.shutdown().await);
    ordered(&broker, &["water"]).await;
    let batch = zombie.next_batch().await.unwrap();
    assert_eq!((bodies(&batch), batch.from()), (vec!["water".to_owned()], taken.next_offset()));
    assert!(bill(&producer, &batch).await.unwrap().commit().await.is_committed());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_has_its_one_bill_over_restarts_of_the_broker() {
    let mut broker = TestBroker::start(&[]);
    let config = || ConsumerConfig::default().batch_messages_max(2);
    let mut workers = Vec::new();
    for round in 0..3_usize {
        let client = connect(&broker).await;
        order(&client, numbered(round * 60..(round + 1) * 60)).await;
        if round < 2 {
            workers.push(Worker::start(&broker, config()).await);
        }
        wait::until("work is under way", || (visible(&broker, BILLS).len() >= round * 60 + 10).then_some(()));
        if round < 2 {
            let restarted = tokio::task::spawn_blocking(move || {
                broker.restart();
                broker
            });
            broker = restarted.await.unwrap();
        }
    }
    all_billed(&broker, 180);
    for worker in workers {
        worker.leave().await;
    }
    assert_eq!(visible(&broker, BILLS), numbered(0..180));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_cut_off_is_neither_lost_nor_doubled() {
    let broker = TestBroker::start(&[]);
    let client = connect(&broker).await;
    order(&client, numbered(0..40)).await;
    let consumer = consumer(&client, brisk().batch_messages_max(2)).await;
    let (producer, _) = producer(&client, TransactionConfig::default()).await;
    for cut_off in 0.. {
        if visible(&broker, BILLS).len() >= 40 {
            break;
        }
        let Ok(batch) = tokio::time::timeout(Duration::from_millis(200), consumer.next_batch()).await else {
            continue;
        };
        let tx = bill(&producer, &batch.unwrap()).await.unwrap();
        let commit = tx.commit();
        if cut_off < 15 {
            tokio::select! {
                biased;
                outcome = commit => drop(outcome),
                // The request is on its way, and whoever waited for its answer is gone.
                () = tokio::task::yield_now() => {}
            }
        } else {
            // A new lease has told where the group stands: no commit is wasted.
            let outcome = commit.await;
            assert!(outcome.is_committed(), "{outcome}");
        }
    }
    assert_eq!(visible(&broker, BILLS), numbered(0..40));
}

/// END_TRANSACTION by id, with the offset of one queue, as somebody may say it a second time.
fn end(broker: &TestBroker, id: &str, count: u16, batch: &LeasedBatch) -> RemotingCommand {
    let mut wire = Producer::connect(broker.address(), BILLING).wire;
    let queue = batch.queue();
    let body = format!(
        r#"{{"consumerGroup":"{BILLING}","offsets":[{{"topic":"{}","queueId":{},"offset":{},"epoch":{}}}]}}"#,
        queue.topic,
        queue.queue_id.0,
        batch.next_offset().0,
        batch.epoch()
    );
    let count = count.to_string();
    let fields = [
        ("producerGroup", BILLING),
        ("tranStateTableOffset", "-1"),
        ("commitLogOffset", "-1"),
        ("commitOrRollback", "8"),
        ("transactionId", id),
        ("mezzoTxCount", &*count),
        ("mezzoOffsets", "true"),
    ];
    wire.call(END_TRANSACTION, &fields, body.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_said_again_changes_nothing_under_its_name_or_another() {
    let mut broker = TestBroker::start(&[]);
    ordered(&broker, &["coffee"]).await;
    let client = connect(&broker).await;
    let consumer = consumer(&client, ConsumerConfig::default()).await;
    let (producer, _) = producer(&client, TransactionConfig::default()).await;
    let batch = consumer.next_batch().await.unwrap();
    let outcome = bill(&producer, &batch).await.unwrap().commit().await;
    let TransactionOutcome::Committed(name) = outcome else { panic!("{outcome}") };
    let word = |reply: &RemotingCommand| reply.ext_value("mezzoOutcome").unwrap_or_default().to_owned();
    for restarted in [false, true] {
        if restarted {
            tokio::task::block_in_place(|| broker.restart());
        }
        let again = end(&broker, &name.id, name.messages, &batch);
        assert_eq!((again.code, word(&again).as_str()), (SUCCESS, "COMMITTED"));
        let other = end(&broker, &format!("other-{restarted}"), 0, &batch);
        assert_eq!((other.code, word(&other).as_str()), (ILLEGAL_OPERATION, "FENCED"));
        assert_eq!(visible(&broker, BILLS), ["coffee"]);
    }
    ordered(&broker, &["tea"]).await;
    let next = consumer.next_batch().await.unwrap();
    assert_eq!((bodies(&next), next.from()), (vec!["tea".to_owned()], batch.next_offset()));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_offsets_are_refused_while_a_queue_is_leased() {
    let broker = TestBroker::start(&[]);
    ordered(&broker, &["coffee"]).await;
    let client = connect(&broker).await;
    let consumer = consumer(&client, ConsumerConfig::default()).await;
    let batch = consumer.next_batch().await.unwrap();
    let queue = batch.queue().queue_id.0.to_string();
    let report = || {
        let mut wire = mezzo_tests::consumer::Consumer::connect(broker.address(), BILLING).wire;
        let fields =
            [("consumerGroup", BILLING), ("topic", ORDERS), ("queueId", &*queue), ("commitOffset", "1")];
        wire.call(UPDATE_CONSUMER_OFFSET, &fields, b"")
    };
    let refused = report();
    assert_eq!((refused.code, refused.ext_value("mezzoOutcome")), (ILLEGAL_OPERATION, Some("LEASED")));
    drop(batch);
    assert_eq!(consumer.next_batch().await.unwrap().from().0, 0, "nothing has moved");
    assert!(consumer.shutdown().await);
    assert_eq!(report().code, SUCCESS, "the lease was given back");
}
