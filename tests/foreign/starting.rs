//! Where a group begins on queues that are new to it.

use std::collections::BTreeSet;
use std::time::Duration;

use mezzo_client::config::StartPosition;
use mezzo_client::{Clock as _, MessageQueue, Producer, SystemClock};

use crate::inbox::{Inbox, message, until, until_async};
use crate::place::{Place, behaviours};

behaviours!(
    a_group_that_starts_with_the_first_message_gets_everything,
    a_group_that_starts_with_the_last_message_gets_what_is_new,
    a_group_that_starts_at_a_time_gets_what_came_later,
);

/// One message to each queue.
async fn fill(producer: &Producer, queues: &[MessageQueue], topic: &str, stem: &str) -> BTreeSet<String> {
    let mut bodies = BTreeSet::new();
    for queue in queues {
        let body = format!("{stem} {}", queue.queue_id);
        producer.send_to_queue(message(topic, &body), queue).await.unwrap();
        bodies.insert(body);
    }
    bodies
}

async fn a_group_that_starts_with_the_first_message_gets_everything(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let queues = place.queues(&producer, &topic).await;
    let old = fill(&producer, &queues, &topic, "old").await;
    let builder = client.push_consumer(place.name("CG")).start_at(StartPosition::First);
    let mut inbox = Inbox::open(builder.subscribe(&topic, "*")).await;
    assert_eq!(inbox.set(queues.len()).await, old);
    let new = fill(&producer, &queues, &topic, "new").await;
    assert_eq!(inbox.set(queues.len()).await, new);
}

async fn a_group_that_starts_with_the_last_message_gets_what_is_new(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let queues = place.queues(&producer, &topic).await;
    fill(&producer, &queues, &topic, "old").await;
    let builder = client.push_consumer(place.name("CG")).start_at(StartPosition::Last);
    let mut inbox = Inbox::open(builder.subscribe(&topic, "*")).await;
    until("all queues are held", || inbox.queues(&topic) == queues.len()).await;
    let consumer = &inbox.consumer;
    until_async("all queues have begun", async || consumer.lag().await.is_ok_and(|lag| lag.total() == 0))
        .await;
    // what one queue gives is given before what is sent to it later
    let new = fill(&producer, &queues, &topic, "new").await;
    assert_eq!(inbox.set(queues.len()).await, new);
    assert!(inbox.is_empty());
}

async fn a_group_that_starts_at_a_time_gets_what_came_later(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let queues = place.queues(&producer, &topic).await;
    fill(&producer, &queues, &topic, "old").await;
    // the broker's clock is this machine's: the two must differ by a step of it
    let between = SystemClock.now().saturating_add_ms(20);
    while SystemClock.now() <= between.saturating_add_ms(20) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let new = fill(&producer, &queues, &topic, "new").await;
    let builder = client.push_consumer(place.name("CG")).start_at(StartPosition::At(between));
    let mut inbox = Inbox::open(builder.subscribe(&topic, "*")).await;
    assert_eq!(inbox.set(queues.len()).await, new);
    let newer = fill(&producer, &queues, &topic, "newer").await;
    assert_eq!(inbox.set(queues.len()).await, newer);
    assert!(inbox.is_empty());
}
