//! Consumers that are asked: polls, commits, places in a queue.

use std::collections::BTreeSet;
use std::time::Duration;

use mezzo_client::{Clock as _, MessageQueue, Producer, PullConsumer, QueueOffset, SeekTo, SystemClock};

use crate::inbox::{PATIENCE, message, text, until, within};
use crate::place::{Place, behaviours};

behaviours!(
    polls_give_each_message_and_go_on_at_the_last_commit,
    assigned_queues_are_read_without_a_group,
    a_stream_gives_messages_as_they_come,
    a_seek_goes_to_the_begin_the_end_an_offset_and_a_time,
);

async fn fill(producer: &Producer, queues: &[MessageQueue], count: usize) {
    for number in 0..count {
        for queue in queues {
            producer.send_to_queue(message(queue.topic.as_str(), number), queue).await.unwrap();
        }
    }
}

/// The next `count` messages as queue and offset; none may come twice.
async fn poll(consumer: &PullConsumer, count: usize, seen: &mut BTreeSet<(u32, u64)>) {
    let before = seen.len();
    while seen.len() < before + count {
        let messages = consumer.poll(PATIENCE, before + count - seen.len()).await.unwrap();
        assert!(!messages.is_empty(), "no message arrives");
        for message in messages {
            let place = (message.queue_id().0, message.queue_offset().0);
            assert!(seen.insert(place), "{place:?} came twice");
        }
    }
}

async fn polls_give_each_message_and_go_on_at_the_last_commit(place: Place) {
    let (client, topic, group) = (place.client().await, place.name("orders"), place.name("CG"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let queues = place.queues(&producer, &topic).await;
    fill(&producer, &queues, 10).await;
    let all = queues.len() * 10;
    let consumer = client.pull_consumer(&group).subscribe(&topic, "*").start().await.unwrap();
    let mut seen = BTreeSet::new();
    poll(&consumer, all / 2, &mut seen).await;
    assert!(consumer.commit().await);
    poll(&consumer, 3, &mut seen.clone()).await;
    consumer.shutdown().await;
    let consumer = client.pull_consumer(&group).subscribe(&topic, "*").start().await.unwrap();
    poll(&consumer, all - seen.len(), &mut seen).await;
    assert!(consumer.commit().await);
    assert_eq!(consumer.lag().await.unwrap().total(), 0);
    assert!(consumer.poll(Duration::from_millis(200), 1).await.unwrap().is_empty());
    consumer.shutdown().await;
}

async fn assigned_queues_are_read_without_a_group(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let queues = place.queues(&producer, &topic).await;
    fill(&producer, &queues, 5).await;
    let chosen = &queues[1..3];
    let group = place.name("CG");
    let consumer = client.pull_consumer(&group).assign(chosen.to_vec()).start().await.unwrap();
    let mut seen = BTreeSet::new();
    poll(&consumer, 10, &mut seen).await;
    let ids: BTreeSet<_> = seen.iter().map(|(queue, _)| *queue).collect();
    assert_eq!(ids, chosen.iter().map(|queue| queue.queue_id.0).collect());
    assert!(consumer.commit().await);
    consumer.shutdown().await;
    fill(&producer, &queues, 1).await;
    let consumer = client.pull_consumer(&group).assign(chosen.to_vec()).start().await.unwrap();
    let mut more = BTreeSet::new();
    poll(&consumer, 2, &mut more).await;
    assert_eq!(more, chosen.iter().map(|queue| (queue.queue_id.0, 5)).collect());
    consumer.shutdown().await;
}

async fn a_stream_gives_messages_as_they_come(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    producer.send(message(&topic, "there already")).await.unwrap();
    let consumer = client.pull_consumer(place.name("CG")).subscribe(&topic, "*").start().await.unwrap();
    let mut stream = consumer.stream();
    assert_eq!(text(&within("the first", stream.next()).await.unwrap()), "there already");
    for number in 0..5 {
        producer.send(message(&topic, number)).await.unwrap();
        assert_eq!(text(&within("the next", stream.next()).await.unwrap()), number.to_string());
    }
    consumer.shutdown().await;
    assert!(within("the end", stream.next()).await.is_none());
}

async fn a_seek_goes_to_the_begin_the_end_an_offset_and_a_time(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let queue = place.queues(&producer, &topic).await.remove(0);
    let one = std::slice::from_ref(&queue);
    let before = SystemClock.now();
    fill(&producer, one, 6).await;
    let between = SystemClock.now().saturating_add_ms(20);
    // nearer to the last of these than to the first of the next: brokers of 4.9 go to the nearest message
    let gap_ms = between.as_ms() - before.as_ms() + 20;
    until("the clock goes on", || SystemClock.now() > between.saturating_add_ms(gap_ms)).await;
    fill(&producer, one, 4).await;
    let consumer = client.pull_consumer(place.name("CG")).assign([queue.clone()]).start().await.unwrap();
    poll(&consumer, 10, &mut BTreeSet::new()).await;
    let expected = [
        (SeekTo::Begin, 0),
        (SeekTo::Offset(QueueOffset(7)), 7),
        (SeekTo::Time(between), 6),
        (SeekTo::Begin, 0),
    ];
    for (to, first) in expected {
        consumer.seek(&queue, to).await.unwrap();
        let mut seen = BTreeSet::new();
        poll(&consumer, 10 - first, &mut seen).await;
        assert_eq!(seen.first(), Some(&(queue.queue_id.0, first as u64)), "{to:?}");
    }
    consumer.seek(&queue, SeekTo::Begin).await.unwrap();
    consumer.seek(&queue, SeekTo::End).await.unwrap();
    fill(&producer, one, 1).await;
    let mut seen = BTreeSet::new();
    poll(&consumer, 1, &mut seen).await;
    assert_eq!(seen.first(), Some(&(queue.queue_id.0, 10)));
    consumer.shutdown().await;
}
