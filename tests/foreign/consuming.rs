//! What a group gets: its tags, every message until it is done with it, each message where it stopped.

use std::time::Duration;

use mezzo_client::{Client, Message, ReceivedMessage, SeekTo, Verdict};

use crate::inbox::{Handling, Inbox, consumer_config, message, text, until, until_async};
use crate::place::{Place, behaviours};

behaviours!(
    a_subscription_by_tag_gets_its_tags_only,
    a_message_given_back_comes_again_with_its_attempts_counted,
    a_condemned_message_becomes_a_dead_letter,
    a_message_that_fails_too_often_becomes_a_dead_letter,
    an_ordered_queue_waits_for_the_message_that_failed,
    a_group_goes_on_where_it_stopped,
    two_groups_get_every_message_each,
    one_consumer_reads_several_topics,
    every_member_of_a_broadcast_gets_everything_and_goes_on_after_a_restart,
    a_paused_consumer_falls_behind_and_a_seek_brings_everything_again,
);

async fn a_subscription_by_tag_gets_its_tags_only(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    // "Aa" and "BB" have one Java hash code: a broker that compares hashes cannot tell them apart
    for tag in ["Aa", "BB", "paid", "lost", "Aa"] {
        producer.send(Message::builder(&topic).tag(tag).body(tag).build().unwrap()).await.unwrap();
    }
    producer.send(message(&topic, "no tag")).await.unwrap();
    let builder = client.push_consumer(place.name("CG")).subscribe(&topic, "Aa || paid");
    let mut inbox = Inbox::open(builder).await;
    let mut tags: Vec<_> = inbox.take(3).await.iter().map(text).collect();
    tags.sort();
    assert_eq!(tags, ["Aa", "Aa", "paid"]);
    producer.send(Message::builder(&topic).tag("paid").body("last").build().unwrap()).await.unwrap();
    assert_eq!(inbox.next_text().await, "last");
    assert!(inbox.is_empty());
}

async fn a_message_given_back_comes_again_with_its_attempts_counted(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let sent = Message::builder(&topic).tag("paid").key("k").property("colour", "green").body("thrice");
    producer.send(sent.build().unwrap()).await.unwrap();
    let verdict = |message: &ReceivedMessage| match message.delivery_attempt() {
        1 | 2 => Verdict::RetryAfter(Duration::from_secs(1)),
        _ => Verdict::Done,
    };
    let builder = client.push_consumer(place.name("CG")).subscribe(&topic, "paid");
    let mut inbox = Inbox::with(builder, Handling::SideBySide, verdict).await;
    let deliveries = inbox.take(3).await;
    for (message, attempt) in deliveries.iter().zip(1..) {
        assert_eq!((text(message), message.delivery_attempt()), ("thrice".to_owned(), attempt));
        assert_eq!(message.unique_key(), deliveries[0].unique_key());
        assert_eq!((message.topic().as_str(), message.tag()), (&*topic, Some("paid")));
        assert_eq!((message.property("colour"), message.keys().next()), (Some("green"), Some("k")));
    }
}

/// Waits for the dead letter of `group` and returns it.
async fn dead_letter(client: &Client, group: &str) -> ReceivedMessage {
    let reader = client.pull_consumer(format!("{group}_undertaker")).subscribe(format!("%DLQ%{group}"), "*");
    let reader = reader.start().await.unwrap();
    let mut found = None;
    until_async("the dead letter", async || {
        found = reader.poll(Duration::from_secs(1), 1).await.unwrap().pop();
        found.is_some()
    })
    .await;
    reader.shutdown().await;
    found.unwrap()
}

async fn a_condemned_message_becomes_a_dead_letter(place: Place) {
    let (client, topic, group) = (place.client().await, place.name("orders"), place.name("CG"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let receipt = producer.send(message(&topic, "poison")).await.unwrap();
    let builder = client.push_consumer(&group).subscribe(&topic, "*");
    let mut inbox = Inbox::with(builder, Handling::SideBySide, |_| Verdict::DeadLetter).await;
    assert_eq!(inbox.next_text().await, "poison");
    let dead = dead_letter(&client, &group).await;
    assert_eq!((text(&dead), dead.unique_key()), ("poison".to_owned(), Some(&*receipt.unique_key)));
    assert!(inbox.is_empty());
}

async fn a_message_that_fails_too_often_becomes_a_dead_letter(place: Place) {
    let (client, topic, group) = (place.client().await, place.name("orders"), place.name("CG"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    producer.send(message(&topic, "hopeless")).await.unwrap();
    let config = consumer_config(|config| config.retries_max = 1);
    let builder = client.push_consumer(&group).config(config).subscribe(&topic, "*");
    let verdict = |_: &ReceivedMessage| Verdict::RetryAfter(Duration::from_secs(1));
    let mut inbox = Inbox::with(builder, Handling::SideBySide, verdict).await;
    let attempts: Vec<_> = inbox.take(2).await.iter().map(ReceivedMessage::delivery_attempt).collect();
    assert_eq!(attempts, [1, 2]);
    assert_eq!(text(&dead_letter(&client, &group).await), "hopeless");
    assert!(inbox.is_empty());
}

async fn an_ordered_queue_waits_for_the_message_that_failed(place: Place) {
    let (client, topic) = (place.client().await, place.name("events"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let queue = place.queues(&producer, &topic).await.remove(0);
    for body in ["first", "second", "third"] {
        producer.send_to_queue(message(&topic, body), &queue).await.unwrap();
    }
    let config = consumer_config(|config| config.ordered_suspend_ms = 50);
    let builder = client.push_consumer(place.name("CG")).config(config).subscribe(&topic, "*");
    let verdict = |message: &ReceivedMessage| match (&*text(message), message.delivery_attempt()) {
        ("second", 1..3) => Verdict::Retry,
        _ => Verdict::Done,
    };
    let mut inbox = Inbox::with(builder, Handling::InOrder, verdict).await;
    let seen: Vec<_> =
        inbox.take(5).await.iter().map(|message| (text(message), message.delivery_attempt())).collect();
    let expected = [("first", 1), ("second", 1), ("second", 2), ("second", 3), ("third", 1)];
    assert_eq!(seen, expected.map(|(body, attempt)| (body.to_owned(), attempt)));
}

async fn a_group_goes_on_where_it_stopped(place: Place) {
    let (client, topic, group) = (place.client().await, place.name("orders"), place.name("CG"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    for number in 0..20 {
        producer.send(message(&topic, number)).await.unwrap();
    }
    let mut inbox = Inbox::open(client.push_consumer(&group).subscribe(&topic, "*")).await;
    inbox.set(20).await;
    assert!(inbox.consumer.shutdown().await, "everything is committed");
    producer.send(message(&topic, "late")).await.unwrap();
    let other = place.client().await;
    let mut inbox = Inbox::open(other.push_consumer(&group).subscribe(&topic, "*")).await;
    assert_eq!(inbox.next_text().await, "late");
    assert!(inbox.is_empty());
}

async fn two_groups_get_every_message_each(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let mut one = Inbox::open(client.push_consumer(place.name("CG_one")).subscribe(&topic, "*")).await;
    let mut two = Inbox::open(client.push_consumer(place.name("CG_two")).subscribe(&topic, "*")).await;
    for number in 0..10 {
        producer.send(message(&topic, number)).await.unwrap();
    }
    assert_eq!(one.set(10).await, two.set(10).await);
}

async fn one_consumer_reads_several_topics(place: Place) {
    let (client, group) = (place.client().await, place.name("CG"));
    let (orders, bills) = (place.name("orders"), place.name("bills"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    producer.send(message(&orders, "an order")).await.unwrap();
    producer.send(Message::builder(&bills).tag("due").body("a bill").build().unwrap()).await.unwrap();
    producer.send(Message::builder(&bills).tag("paid").body("no bill").build().unwrap()).await.unwrap();
    let builder = client.push_consumer(&group).subscribe(&orders, "*").subscribe(&bills, "due");
    let mut inbox = Inbox::open(builder).await;
    let mut seen: Vec<_> =
        inbox.take(2).await.iter().map(|message| (text(message), message.topic().to_string())).collect();
    seen.sort();
    assert_eq!(seen, [("a bill".to_owned(), bills), ("an order".to_owned(), orders)]);
}

async fn every_member_of_a_broadcast_gets_everything_and_goes_on_after_a_restart(place: Place) {
    let (topic, group) = (place.name("prices"), place.name("CG"));
    let clients = [place.client().await, place.client().await];
    let producer = clients[0].producer(place.name("PG")).start().await.unwrap();
    for round in 0..2 {
        let bodies = (0..10).map(|number| format!("{round}.{number}"));
        for body in bodies.clone() {
            producer.send(message(&topic, body)).await.unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            let file = place.file(&format!("member-{number}.offsets"));
            let builder = client.push_consumer(&group).subscribe(&topic, "*").broadcast(file);
            let mut inbox = Inbox::open(builder).await;
            assert_eq!(inbox.set(10).await, bodies.clone().collect());
            assert!(inbox.is_empty());
            assert!(inbox.consumer.shutdown().await);
        }
    }
}

async fn a_paused_consumer_falls_behind_and_a_seek_brings_everything_again(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let queues = place.queues(&producer, &topic).await;
    let fill = async |count: usize| {
        for number in 0..count {
            for queue in &queues {
                producer.send_to_queue(message(&topic, number), queue).await.unwrap();
            }
        }
    };
    fill(3).await;
    let mut inbox = Inbox::open(client.push_consumer(place.name("CG")).subscribe(&topic, "*")).await;
    let mut taken = inbox.take(queues.len() * 3).await.len();
    until("all queues are held", || inbox.queues(&topic) == queues.len()).await;
    inbox.consumer.pause();
    fill(2).await;
    let consumer = &inbox.consumer;
    until_async("a lag of what was sent meanwhile", async || {
        consumer.lag().await.is_ok_and(|lag| lag.total() == queues.len() as u64 * 2)
    })
    .await;
    assert!(inbox.is_empty());
    for queue in &queues {
        inbox.consumer.seek(queue, SeekTo::Begin).await.unwrap();
    }
    assert_eq!(inbox.consumer.lag().await.unwrap().total(), queues.len() as u64 * 5);
    inbox.consumer.resume();
    taken += inbox.take(queues.len() * 5).await.len();
    assert_eq!(taken, queues.len() * 8);
    assert!(inbox.consumer.shutdown().await);
}
