//! Transactions: what is committed arrives once, what is rolled back never, what is forgotten is asked about.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mezzo_client::{
    Client, LocalError, LocalOutcome, Message, Outcome, Producer, ReceivedMessage, TransactionProducer,
};

use tokio::sync::mpsc;

use crate::inbox::{Inbox, message, text, until, within};
use crate::place::{Place, behaviours};

behaviours!(
    a_half_message_is_invisible_until_its_commit,
    committed_transactions_arrive_once_and_rolled_back_ones_never,
    a_committed_message_arrives_with_all_that_was_sent,
    a_forgotten_transaction_is_committed_by_check_back,
    a_forgotten_transaction_is_rolled_back_by_check_back,
    a_check_back_shows_the_message_as_it_was_sent,
    a_check_back_without_an_answer_is_repeated,
    another_process_of_the_group_settles_what_a_dead_one_left,
);

/// A producer whose check-back handler answers with `answers` in turn, the last again and again, and counts.
async fn transactions(
    client: &Client,
    group: &str,
    answers: &'static [LocalOutcome],
) -> (TransactionProducer, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let handler = move |_half: ReceivedMessage| {
        let turn = counter.fetch_add(1, Ordering::SeqCst) as usize;
        let answer = answers.get(turn).or(answers.last()).copied().unwrap_or(LocalOutcome::Unknown);
        async move { Ok::<_, LocalError>(answer) }
    };
    let producer = client.transaction_producer(group).check_back(handler).start().await;
    (producer.unwrap(), asked)
}

/// One plain message to each queue: in each queue it comes behind everything that is visible now.
async fn mark(place: &Place, producer: &Producer, topic: &str) -> usize {
    let queues = place.queues(producer, topic).await;
    for queue in &queues {
        producer.send_to_queue(message(topic, "mark"), queue).await.unwrap();
    }
    queues.len()
}

/// What comes before and beside the marks.
async fn beside_marks(inbox: &mut Inbox, marks: usize) -> Vec<String> {
    let mut beside = Vec::new();
    let mut left = marks;
    while left > 0 {
        match inbox.next_text().await {
            body if body == "mark" => left -= 1,
            body => beside.push(body),
        }
    }
    beside
}

async fn a_half_message_is_invisible_until_its_commit(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let (producer, _) = transactions(&client, &place.name("PG_tx"), &[]).await;
    let plain = place.producer().await;
    mark(&place, &plain, &topic).await;
    let mut inbox = Inbox::ordered(client.push_consumer(place.name("CG")).subscribe(&topic, "*")).await;
    assert!(beside_marks(&mut inbox, 4).await.is_empty());
    let prepared = producer.prepare(message(&topic, "half")).await.unwrap();
    assert_eq!(producer.running(), 1);
    mark(&place, &plain, &topic).await;
    assert!(beside_marks(&mut inbox, 4).await.is_empty(), "what is sent later overtakes it");
    let outcome = prepared.commit().await.unwrap();
    assert!(outcome.is_committed(), "{outcome}");
    let arrived = inbox.next().await;
    assert_eq!((text(&arrived), arrived.unique_key()), ("half".to_owned(), Some(&*outcome.ids().unique_key)));
}

async fn committed_transactions_arrive_once_and_rolled_back_ones_never(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let (producer, _) = transactions(&client, &place.name("PG_tx"), &[]).await;
    let plain = place.producer().await;
    let mut expected = BTreeSet::new();
    for number in 0..20 {
        let said = if number % 4 == 0 { LocalOutcome::Rollback } else { LocalOutcome::Commit };
        let outcome =
            producer.send_in_transaction(message(&topic, number), |_| async move { Ok(said) }).await.unwrap();
        if said == LocalOutcome::Commit {
            assert!(matches!(outcome, Outcome::Committed(_)), "{outcome}");
            expected.insert(number.to_string());
        } else {
            assert!(matches!(outcome, Outcome::RolledBack(..)), "{outcome}");
        }
    }
    let mut inbox = Inbox::ordered(client.push_consumer(place.name("CG")).subscribe(&topic, "*")).await;
    assert_eq!(inbox.set(expected.len()).await, expected);
    let marks = mark(&place, &plain, &topic).await;
    assert!(beside_marks(&mut inbox, marks).await.is_empty());
    assert!(producer.shutdown().await);
}

async fn a_committed_message_arrives_with_all_that_was_sent(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let (producer, _) = transactions(&client, &place.name("PG_tx"), &[]).await;
    let sent = Message::builder(&topic).tag("paid").key("order-17").property("colour", "grün").flag(7);
    let sent = sent.sharding_key("anna").body("x".repeat(10_000)).build().unwrap();
    let commit = |_| async { Ok(LocalOutcome::Commit) };
    let outcome = producer.send_in_transaction(sent, commit).await.unwrap();
    assert!(outcome.is_committed(), "{outcome}");
    let mut inbox = Inbox::open(client.push_consumer(place.name("CG")).subscribe(&topic, "paid")).await;
    let arrived = inbox.next().await;
    assert_eq!(text(&arrived), "x".repeat(10_000));
    assert_eq!((arrived.tag(), arrived.flag(), arrived.delivery_attempt()), (Some("paid"), 7, 1));
    assert_eq!((arrived.property("colour"), arrived.sharding_key()), (Some("grün"), Some("anna")));
    assert_eq!(arrived.keys().collect::<Vec<_>>(), ["order-17"]);
    let ids = outcome.ids();
    assert_eq!((arrived.topic(), arrived.queue_id()), (&ids.topic, ids.queue.queue_id));
    assert_eq!(arrived.unique_key(), Some(&*ids.unique_key));
    assert_eq!(arrived.prepared_transaction_offset(), ids.offset_message_id.physical_offset);
}

async fn a_forgotten_transaction_is_committed_by_check_back(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let (producer, asked) = transactions(&client, &place.name("PG_tx"), &[LocalOutcome::Commit]).await;
    drop(producer.prepare(message(&topic, "forgotten")).await.unwrap());
    place.producer().await.send(message(&topic, "makes the topic")).await.unwrap();
    let mut inbox = Inbox::open(client.push_consumer(place.name("CG")).subscribe(&topic, "*")).await;
    let expected = BTreeSet::from(["forgotten".to_owned(), "makes the topic".to_owned()]);
    assert_eq!(inbox.set(2).await, expected);
    assert!(asked.load(Ordering::SeqCst) >= 1);
}

async fn a_forgotten_transaction_is_rolled_back_by_check_back(place: Place) {
    let (client, topic, group) = (place.client().await, place.name("orders"), place.name("PG_tx"));
    let (producer, asked) = transactions(&client, &group, &[LocalOutcome::Rollback]).await;
    drop(producer.prepare(message(&topic, "forgotten")).await.unwrap());
    until("the check-back", || asked.load(Ordering::SeqCst) > 0).await;
    // a second transaction is asked about later: whatever became of the first has happened by then
    drop(producer.prepare(message(&topic, "forgotten too")).await.unwrap());
    until("the next check-back", || asked.load(Ordering::SeqCst) > 1).await;
    let marks = mark(&place, &place.producer().await, &topic).await;
    let mut inbox = Inbox::ordered(client.push_consumer(place.name("CG")).subscribe(&topic, "*")).await;
    assert!(beside_marks(&mut inbox, marks).await.is_empty());
    // others ask once more when the answer crosses their next question
    if place.is_mezzo() {
        assert_eq!(asked.load(Ordering::SeqCst), 2, "a settled transaction is not asked about again");
    }
}

async fn a_check_back_shows_the_message_as_it_was_sent(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let (sender, mut halves) = mpsc::unbounded_channel();
    let handler = move |half: ReceivedMessage| {
        // a test that is over listens no more
        let _ = sender.send(half);
        async { Ok::<_, LocalError>(LocalOutcome::Rollback) }
    };
    let producer =
        client.transaction_producer(place.name("PG_tx")).check_back(handler).start().await.unwrap();
    // large enough to be compressed
    let body = "seventeen ".repeat(1_000);
    let sent = Message::builder(&topic).tag("paid").key("order-17").property("colour", "grün").flag(7);
    let prepared = producer.prepare(sent.body(body.clone()).build().unwrap()).await.unwrap();
    let ids = prepared.ids().clone();
    drop(prepared);
    let half = within("the check-back", halves.recv()).await.unwrap();
    assert!(text(&half) == body, "{} bytes were sent, other {} came", body.len(), half.body().len());
    assert_eq!((half.topic().as_str(), half.tag(), half.flag()), (&*topic, Some("paid"), 7));
    assert_eq!((half.property("colour"), half.keys().next()), (Some("grün"), Some("order-17")));
    assert_eq!((half.unique_key(), half.queue_id()), (Some(&*ids.unique_key), ids.queue.queue_id));
    assert!(producer.shutdown().await);
}

async fn a_check_back_without_an_answer_is_repeated(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let answers = &[LocalOutcome::Unknown, LocalOutcome::Unknown, LocalOutcome::Commit];
    let (producer, asked) = transactions(&client, &place.name("PG_tx"), answers).await;
    let undecided = |_| async { Ok(LocalOutcome::Unknown) };
    let outcome = producer.send_in_transaction(message(&topic, "undecided"), undecided).await.unwrap();
    assert!(matches!(outcome, Outcome::Unknown(..)), "{outcome}");
    until("three check-backs", || asked.load(Ordering::SeqCst) >= 3).await;
    let mut inbox = Inbox::open(client.push_consumer(place.name("CG")).subscribe(&topic, "*")).await;
    assert_eq!(inbox.next_text().await, "undecided");
}

async fn another_process_of_the_group_settles_what_a_dead_one_left(place: Place) {
    let (dead, topic, group) = (place.client().await, place.name("orders"), place.name("PG_tx"));
    let (producer, _) = transactions(&dead, &group, &[LocalOutcome::Rollback]).await;
    drop(producer.prepare(message(&topic, "inherited")).await.unwrap());
    dead.shutdown().await;
    drop((producer, dead));
    let heir = place.client().await;
    let (_producer, asked) = transactions(&heir, &group, &[LocalOutcome::Commit]).await;
    let mut inbox = Inbox::open(heir.push_consumer(place.name("CG")).subscribe(&topic, "*")).await;
    assert_eq!(inbox.next_text().await, "inherited");
    assert!(asked.load(Ordering::SeqCst) >= 1);
}
