//! Compressed bodies: inflated for the handler, to a bound, and only then.

use std::sync::Arc;

use mezzo_client::{ReceivedMessage, Verdict};
use tokio::sync::Semaphore;

use crate::consuming::{BACK, PATIENCE, PULL, broker, collecting, consume, next, put, quick, wait_committed};

/// 2,000 times "a", as zlib has it.
const SMALL: &[u8] = &[
    0x78, 0xda, 0x4b, 0x4c, 0x1c, 0x05, 0xa3, 0x60, 0x14, 0x8c, 0x82, 0x51, 0x30, 0x0a, 0x46, 0xc1, 0x50,
    0x07, 0x00, 0x64, 0xc6, 0xf5, 0xef,
];

#[tokio::test]
async fn a_body_above_the_bound_is_given_back_without_a_handler() {
    let broker = broker(1).await;
    broker.shared.lock().queues.put_compressed("orders", 0, SMALL);
    put(&broker, 0, &[("t", "fine")]);
    let client = broker.client().await;
    let (handler, mut messages) = collecting(Verdict::Done);
    let config = quick().inflated_bytes_max(1_999);
    let consumer = consume(&client, config, handler).await;
    assert_eq!(next(&mut messages).await.body(), "fine");
    wait_committed(&broker, 0, 2).await;
    assert_eq!(broker.wait_nth(BACK, 1).await.field("offset"), "0");
    consumer.shutdown().await;
    broker.shared.lock().queues.put_compressed("orders", 0, SMALL);
    let (handler, mut messages) = collecting(Verdict::Done);
    let config = quick().inflated_bytes_max(2_000);
    let consumer = consume(&client, config, handler).await;
    assert_eq!(next(&mut messages).await.body(), &vec![b'a'; 2_000]);
    consumer.shutdown().await;
}

#[tokio::test]
async fn messages_that_wait_count_as_large_as_they_came() {
    let broker = broker(1).await;
    for _ in 0..4 {
        broker.shared.lock().queues.put_compressed("orders", 0, SMALL);
    }
    let client = broker.client().await;
    let gate = Arc::new(Semaphore::new(0));
    // Room for all four as they came, and for no inflated one.
    let config = quick().prefetch_bytes(1_900).pull_messages_max(1).concurrency(1);
    let consumer = consume(&client, config, {
        let gate = Arc::clone(&gate);
        move |_: ReceivedMessage| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Verdict::Done
            }
        }
    })
    .await;
    let fits = |seen: &crate::fake::Seen| {
        seen.code() == PULL && seen.field("topic") == "orders" && seen.field("queueOffset") == "3"
    };
    broker.wait("the pull of the fourth, before any verdict", fits).await;
    gate.add_permits(4);
    wait_committed(&broker, 0, 4).await;
    consumer.shutdown().await;
}

#[tokio::test]
async fn one_poll_gives_no_more_than_the_bound_whatever_the_bodies_grow_to() {
    let broker = broker(1).await;
    for _ in 0..5 {
        broker.shared.lock().queues.put_compressed("orders", 0, SMALL);
    }
    put(&broker, 0, &[("t", "small")]);
    let client = broker.client().await;
    let builder = client.pull_consumer("readers").subscribe("orders", "*");
    let consumer = builder.config(quick().inflated_bytes_max(4_100)).start().await.unwrap();
    let mut offsets = Vec::new();
    while offsets.len() < 6 {
        let messages = consumer.poll(PATIENCE, 100).await.unwrap();
        assert!(messages.iter().map(|message| message.body().len()).sum::<usize>() <= 4_100);
        offsets.extend(messages.iter().map(|message| message.queue_offset().0));
    }
    assert_eq!(offsets, [0, 1, 2, 3, 4, 5], "what did not fit comes with the next poll, in its order");
    consumer.shutdown().await;
}
