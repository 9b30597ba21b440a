//! What an application can do to a running consumer: pause, resume, seek, ask for its lag, end its client first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mezzo_client::assignment::{AssignmentStrategy, Averagely};
use mezzo_client::{MessageQueue, PushConsumer, QueueOffset, ReceivedMessage, SeekTo, Timestamp, Verdict};
use mezzo_protocol::remoting::RequestCode;

use crate::consuming::{
    PATIENCE, PULL, broker, collecting, committed, consume, next, put, quick, wait_committed,
};
use crate::fake::FakeBroker;

fn queue(consumer: &PushConsumer, id: u32) -> MessageQueue {
    let mut queues = consumer.queues().into_iter();
    queues.find(|queue| queue.topic == *"orders" && queue.queue_id.0 == id).expect("the queue is held")
}

/// Waits for pulls that begin after now, to show that time goes by.
async fn some_pulls(broker: &FakeBroker) {
    let before = broker.all(PULL).len();
    broker.wait_nth(PULL, before + 4).await;
}

#[tokio::test]
async fn a_paused_consumer_handles_nothing_until_it_is_resumed() {
    let broker = broker(2).await;
    put(&broker, 0, &[("t", "a")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(&client, quick(), handler).await;
    assert_eq!(next(&mut messages).await.body(), "a");
    wait_committed(&broker, 0, 1).await;
    consumer.pause_queue(&queue(&consumer, 0));
    put(&broker, 0, &[("t", "b")]);
    put(&broker, 1, &[("t", "other")]);
    assert_eq!(next(&mut messages).await.body(), "other");
    some_pulls(&broker).await;
    assert!(messages.try_recv().is_err());
    consumer.pause();
    consumer.resume_queue(&queue(&consumer, 0));
    assert!(messages.try_recv().is_err(), "the consumer as a whole is paused");
    consumer.resume();
    assert_eq!(next(&mut messages).await.body(), "b");
    assert!(consumer.shutdown().await);
}

#[tokio::test]
async fn a_queue_goes_on_where_it_is_told_to_and_the_broker_knows() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a"), ("t", "b"), ("t", "c")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(&client, quick().concurrency(1), handler).await;
    for body in ["a", "b", "c"] {
        assert_eq!(next(&mut messages).await.body(), body);
    }
    let orders = queue(&consumer, 0);
    // The scripted broker answers a search by time with the time's last two digits.
    let to = [
        (SeekTo::Begin, vec!["a", "b", "c"]),
        (SeekTo::Offset(QueueOffset(1)), vec!["b", "c"]),
        (SeekTo::Time(Timestamp::from_ms(70_002)), vec!["c"]),
    ];
    for (to, expected) in to {
        wait_committed(&broker, 0, 3).await;
        consumer.seek(&orders, to).await.unwrap();
        for body in expected {
            assert_eq!(next(&mut messages).await.body(), body, "{to:?}");
        }
    }
    consumer.pause();
    put(&broker, 0, &[("t", "passed over")]);
    consumer.seek(&orders, SeekTo::End).await.unwrap();
    assert_eq!(committed(&broker, 0), Some(4));
    put(&broker, 0, &[("t", "new")]);
    consumer.resume();
    assert_eq!(next(&mut messages).await.body(), "new");
    let foreign = MessageQueue { broker_name: "elsewhere".into(), ..orders };
    assert!(consumer.seek(&foreign, SeekTo::Begin).await.is_err());
    consumer.shutdown().await;
}

#[tokio::test]
async fn the_lag_is_what_is_not_finished_in_each_queue() {
    let broker = broker(2).await;
    put(&broker, 0, &[("t", "a"), ("t", "b"), ("t", "c")]);
    put(&broker, 1, &[("t", "d")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(&client, quick(), handler).await;
    for _ in 0..4 {
        next(&mut messages).await;
    }
    wait_committed(&broker, 0, 3).await;
    wait_committed(&broker, 1, 1).await;
    assert_eq!(consumer.lag().await.unwrap().total(), 0);
    consumer.pause();
    put(&broker, 0, &[("t", "e"), ("t", "f")]);
    put(&broker, 1, &[("t", "g")]);
    let lag = consumer.lag().await.unwrap();
    let orders = lag.queues.iter().filter(|lag| lag.queue.topic == *"orders");
    assert_eq!(orders.map(|lag| lag.messages()).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(lag.total(), 3);
    consumer.shutdown().await;
}

#[tokio::test]
async fn a_client_that_is_shut_down_first_takes_its_consumer_with_it() {
    let broker = broker(2).await;
    put(&broker, 0, &[("t", "a")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let consumer = consume(&client, quick(), handler).await;
    next(&mut messages).await;
    client.shutdown().await;
    let pulls = broker.all(PULL).len();
    let ended = tokio::time::timeout(PATIENCE, consumer.shutdown()).await;
    assert!(ended.is_ok(), "nothing waits for brokers that can no longer be asked");
    // The handlers went with the tasks: nobody can send any more.
    assert!(tokio::time::timeout(PATIENCE, messages.recv()).await.unwrap().is_none());
    assert_eq!(broker.all(PULL).len(), pulls);
}

/// Panics until it is repaired.
struct Fragile(Arc<AtomicBool>);

impl AssignmentStrategy for Fragile {
    fn name(&self) -> &'static str {
        "fragile"
    }

    fn assign(&self, client_id: &str, queues: &[MessageQueue], clients: &[String]) -> Vec<MessageQueue> {
        assert!(self.0.load(Ordering::SeqCst), "as the test wants it");
        Averagely.assign(client_id, queues, clients)
    }
}

#[tokio::test]
async fn a_strategy_that_panics_is_asked_again() {
    let broker = broker(1).await;
    put(&broker, 0, &[("t", "a")]);
    let client = broker.client().await;
    let repaired = Arc::new(AtomicBool::new(false));
    let (handler, mut messages) = collecting(Verdict::Done);
    let builder = client.push_consumer("readers").subscribe("orders", "*").config(quick());
    let builder = builder.assignment(Fragile(Arc::clone(&repaired)));
    let consumer = builder.handler(handler).start().await.unwrap();
    broker.wait_nth(RequestCode::GET_CONSUMER_LIST_BY_GROUP, 4).await;
    assert!(consumer.queues().is_empty());
    repaired.store(true, Ordering::SeqCst);
    let message: ReceivedMessage = next(&mut messages).await;
    assert_eq!(message.body(), "a");
    consumer.shutdown().await;
}
