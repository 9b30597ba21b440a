//! Members of a group share its queues, learn of each other, and take over in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use mezzo_client::config::ConsumerConfig;

use crate::inbox::{Inbox, consumer_config, message, text, until};
use crate::place::{Place, behaviours};

behaviours!(
    members_share_the_queues_and_take_over_from_those_who_leave,
    a_member_hears_of_another_from_the_broker,
    the_order_of_each_queue_holds_while_members_come_and_go,
);

/// Members that look for each other often: how soon a broker tells them is another question.
fn watchful() -> ConsumerConfig {
    consumer_config(|config| config.rebalance_interval_ms = 500)
}

async fn members_share_the_queues_and_take_over_from_those_who_leave(place: Place) {
    let (client, other) = (place.client().await, place.client().await);
    let (topic, group) = (place.name("orders"), place.name("CG"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    producer.send(message(&topic, "makes the topic")).await.unwrap();
    let mut one = Inbox::open(client.push_consumer(&group).config(watchful()).subscribe(&topic, "*")).await;
    assert_eq!(one.next_text().await, "makes the topic");
    until("one has all four queues", || one.queues(&topic) == 4).await;
    let mut two = Inbox::open(other.push_consumer(&group).config(watchful()).subscribe(&topic, "*")).await;
    until("each has two queues", || one.queues(&topic) == 2 && two.queues(&topic) == 2).await;
    let queues = place.queues(&producer, &topic).await;
    for queue in &queues {
        producer.send_to_queue(message(&topic, queue.queue_id), queue).await.unwrap();
    }
    let (of_one, of_two) = (one.set(2).await, two.set(2).await);
    assert_eq!(of_one.union(&of_two).count(), 4, "{of_one:?} {of_two:?}");
    assert!(two.consumer.shutdown().await);
    until("one has all four again", || one.queues(&topic) == 4).await;
    for queue in &queues {
        producer.send_to_queue(message(&topic, format!("again {}", queue.queue_id)), queue).await.unwrap();
    }
    assert_eq!(one.set(4).await, (0..4).map(|queue| format!("again {queue}")).collect::<BTreeSet<_>>());
    assert!(one.is_empty(), "what the other member committed does not come again");
}

async fn a_member_hears_of_another_from_the_broker(place: Place) {
    let (client, other) = (place.client().await, place.client().await);
    let (topic, group) = (place.name("orders"), place.name("CG"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    producer.send(message(&topic, "makes the topic")).await.unwrap();
    // by itself it would look for others after an hour
    let patient = consumer_config(|config| config.rebalance_interval_ms = 3_600_000);
    let mut one = Inbox::open(client.push_consumer(&group).config(patient).subscribe(&topic, "*")).await;
    assert_eq!(one.next_text().await, "makes the topic");
    until("one has all four queues", || one.queues(&topic) == 4).await;
    let began = Instant::now();
    let two = Inbox::open(other.push_consumer(&group).config(watchful()).subscribe(&topic, "*")).await;
    until("one shares", || one.queues(&topic) == 2).await;
    assert!(began.elapsed() < Duration::from_secs(20), "after {:?}", began.elapsed());
    two.consumer.shutdown().await;
    until("one hears that it is alone", || one.queues(&topic) == 4).await;
}

async fn the_order_of_each_queue_holds_while_members_come_and_go(place: Place) {
    const EACH: usize = 60;
    let (client, other) = (place.client().await, place.client().await);
    let (topic, group) = (place.name("events"), place.name("CG"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let queues = place.queues(&producer, &topic).await;
    let builder = |client: &mezzo_client::Client| {
        client.push_consumer(&group).config(watchful()).subscribe(&topic, "*")
    };
    let fill = async |from: usize, to: usize| {
        for number in from..to {
            for queue in &queues {
                producer.send_to_queue(message(&topic, number), queue).await.unwrap();
            }
        }
    };
    fill(0, EACH / 3).await;
    let mut one = Inbox::ordered(builder(&client)).await;
    let mut seen = one.take(queues.len() * EACH / 3).await;
    let mut two = Inbox::ordered(builder(&other)).await;
    until("they share", || one.queues(&topic) == 2 && two.queues(&topic) == 2).await;
    fill(EACH / 3, 2 * EACH / 3).await;
    seen.extend(one.take(2 * EACH / 3).await);
    seen.extend(two.take(2 * EACH / 3).await);
    assert!(two.is_empty(), "nothing comes twice");
    assert!(two.consumer.shutdown().await);
    fill(2 * EACH / 3, EACH).await;
    seen.extend(one.take(queues.len() * EACH / 3).await);
    assert!(one.is_empty(), "nothing comes twice");
    let mut next = BTreeMap::new();
    for message in &seen {
        let next = next.entry(message.queue_id()).or_insert(0);
        assert_eq!(text(message), next.to_string(), "in queue {}", message.queue_id());
        *next += 1;
    }
    assert!(next.len() == queues.len() && next.values().all(|count| *count == EACH));
}
