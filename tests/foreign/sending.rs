//! What producers send arrives as they sent it, where their receipts say, and when it should.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mezzo_client::config::{BatchingPolicy, BodyCompression, ClientConfig, HeaderEncoding, ProducerConfig};
use mezzo_client::{Client, Clock as _, Message, SendReceipt, Stored, SystemClock};

use crate::inbox::{Inbox, message, text};
use crate::place::{Place, behaviours};

behaviours!(
    a_message_arrives_with_all_that_was_sent,
    binary_headers_work_as_json_headers_do,
    messages_go_to_the_queue_that_was_asked_for,
    all_messages_of_one_call_arrive_once_and_where_their_receipts_say,
    a_batch_is_stored_in_its_order_on_one_queue,
    messages_of_a_batch_have_unique_keys_of_their_own,
    single_sends_that_linger_arrive_once_each,
    one_way_sends_arrive,
    messages_of_one_key_arrive_in_their_order,
    a_delay_level_holds_a_message_back,
    a_message_is_delivered_at_its_time,
    a_plain_body_arrives_as_it_was_sent,
    a_zlib_body_arrives_as_it_was_sent,
    an_lz4_body_arrives_as_it_was_sent,
    a_zstd_body_arrives_as_it_was_sent,
    an_unreachable_name_server_is_passed_over,
);

async fn open(place: &Place, client: &Client, topic: &str) -> Inbox {
    Inbox::ordered(client.push_consumer(place.name("CG")).subscribe(topic, "*")).await
}

async fn full_message_arrives(place: &Place, client: &Client) {
    let topic = place.name("orders");
    let sent = Message::builder(&topic)
        .tag("paid")
        .key("order-17")
        .key("customer-4")
        .property("colour", "grün 🟢")
        .property("empty-like", "0")
        .flag(7)
        .body("seventeen")
        .build()
        .unwrap();
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let receipt = producer.send(sent).await.unwrap();
    assert_eq!(
        (receipt.stored, receipt.attempts, receipt.may_be_duplicated),
        (Stored::AsConfigured, 1, false)
    );
    let arrived = open(place, client, &topic).await.next().await;
    assert_eq!((text(&arrived), arrived.topic().as_str()), ("seventeen".to_owned(), &*topic));
    assert_eq!((arrived.tag(), arrived.flag(), arrived.delivery_attempt()), (Some("paid"), 7, 1));
    assert_eq!(arrived.keys().collect::<Vec<_>>(), ["order-17", "customer-4"]);
    assert_eq!(arrived.property("colour"), Some("grün 🟢"));
    assert_eq!(arrived.property("empty-like"), Some("0"));
    assert_eq!(arrived.unique_key(), Some(&*receipt.unique_key));
    assert_eq!((arrived.queue_id(), arrived.queue_offset()), (receipt.queue.queue_id, receipt.queue_offset));
    assert_eq!(*arrived.broker_name(), receipt.queue.broker_name);
    assert_eq!(arrived.offset_message_id().encode(), receipt.offset_message_id);
    assert!(arrived.born_host().ip().is_loopback() && arrived.store_host().ip().is_loopback());
    let age_ms = SystemClock.now().as_wire_ms() - arrived.store_timestamp().as_wire_ms();
    assert!((0..120_000).contains(&age_ms), "stored {age_ms} ms ago");
    assert!(arrived.born_timestamp() <= arrived.store_timestamp());
}

async fn a_message_arrives_with_all_that_was_sent(place: Place) {
    full_message_arrives(&place, &place.client().await).await;
}

async fn binary_headers_work_as_json_headers_do(place: Place) {
    let config = ClientConfig::default().header_encoding(HeaderEncoding::Binary);
    let client = Client::builder(place.name_server()).config(config).build().await.unwrap();
    full_message_arrives(&place, &client).await;
}

async fn messages_go_to_the_queue_that_was_asked_for(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let queues = place.queues(&producer, &topic).await;
    assert_eq!(queues.len(), 4, "a new topic has as many queues as the client asks for");
    for queue in &queues {
        let receipt = producer.send_to_queue(message(&topic, queue.queue_id), queue).await.unwrap();
        assert_eq!((&receipt.queue, receipt.queue_offset.0), (queue, 0));
    }
    for arrived in open(&place, &client, &topic).await.take(4).await {
        assert_eq!(text(&arrived), arrived.queue_id().to_string());
    }
}

/// Where each message is, by its unique key.
fn places(receipts: &[SendReceipt]) -> BTreeSet<(String, u32, u64)> {
    let place = |receipt: &SendReceipt| {
        (receipt.unique_key.to_string(), receipt.queue.queue_id.0, receipt.queue_offset.0)
    };
    receipts.iter().map(place).collect()
}

async fn all_messages_of_one_call_arrive_once_and_where_their_receipts_say(place: Place) {
    const COUNT: usize = 1_000;
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    producer.send(message(&topic, "makes the topic")).await.unwrap();
    let sent = producer.send_all((0..COUNT).map(|number| message(&topic, number))).await;
    let receipts: Vec<_> = sent.into_iter().map(Result::unwrap).collect();
    let mut inbox = open(&place, &client, &topic).await;
    let mut found = BTreeSet::new();
    for arrived in inbox.take(COUNT + 1).await {
        if text(&arrived) != "makes the topic" {
            let key = arrived.unique_key().unwrap().to_owned();
            assert!(found.insert((key, arrived.queue_id().0, arrived.queue_offset().0)));
        }
    }
    assert_eq!(found, places(&receipts));
    assert!(inbox.is_empty());
}

async fn a_batch_is_stored_in_its_order_on_one_queue(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let batch = (0..20).map(|number| {
        let message = Message::builder(&topic)
            .tag("t")
            .key(format!("k{number}"))
            .property("number", number.to_string());
        message.body(number.to_string()).build().unwrap()
    });
    let receipts = producer.send_batch(batch).await.unwrap();
    assert_eq!(receipts.len(), 20);
    let mut inbox = open(&place, &client, &topic).await;
    for (number, receipt) in receipts.iter().enumerate() {
        let (arrived, number) = (inbox.next().await, number.to_string());
        assert_eq!((text(&arrived), arrived.tag()), (number.clone(), Some("t")));
        assert_eq!(arrived.property("number"), Some(&*number));
        assert_eq!(arrived.keys().collect::<Vec<_>>(), [format!("k{number}")]);
        assert_eq!(
            (arrived.queue_id(), arrived.queue_offset()),
            (receipt.queue.queue_id, receipt.queue_offset)
        );
        assert_eq!(arrived.offset_message_id().encode(), receipt.offset_message_id);
    }
}

async fn messages_of_a_batch_have_unique_keys_of_their_own(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    let receipts = producer.send_batch((0..5).map(|number| message(&topic, number))).await.unwrap();
    let arrived = open(&place, &client, &topic).await.take(5).await;
    let keys: Vec<_> = arrived.iter().map(|message| message.unique_key().unwrap()).collect();
    assert_eq!(keys, receipts.iter().map(|receipt| &*receipt.unique_key).collect::<Vec<_>>());
}

async fn single_sends_that_linger_arrive_once_each(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer =
        client.producer(place.name("PG")).batching(BatchingPolicy::default()).start().await.unwrap();
    let mut sends = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (producer, message) = (producer.clone(), message(&topic, number));
        sends.spawn(async move { producer.send(message).await.unwrap() });
    }
    let receipts = sends.join_all().await;
    assert_eq!(places(&receipts).len(), 100);
    let mut inbox = open(&place, &client, &topic).await;
    assert_eq!(inbox.set(100).await, (0..100).map(|number: u32| number.to_string()).collect());
    assert!(inbox.is_empty());
}

async fn one_way_sends_arrive(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    producer.send(message(&topic, "makes the topic")).await.unwrap();
    for number in 0..20 {
        producer.send_oneway(message(&topic, number)).await.unwrap();
    }
    let mut expected: BTreeSet<_> = (0..20).map(|number: u32| number.to_string()).collect();
    expected.insert("makes the topic".to_owned());
    assert_eq!(open(&place, &client, &topic).await.set(21).await, expected);
}

async fn messages_of_one_key_arrive_in_their_order(place: Place) {
    let (client, topic) = (place.client().await, place.name("events"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    producer.send(message(&topic, "makes the topic")).await.unwrap();
    let event = |key: &str, number: u32| {
        Message::builder(&topic).sharding_key(key).body(number.to_string()).build().unwrap()
    };
    let mut queues = BTreeSet::new();
    for number in 0..10 {
        for key in ["anna", "bert", "cleo"] {
            let receipt = producer.send(event(key, number)).await.unwrap();
            queues.insert((key, receipt.queue.queue_id));
        }
    }
    assert_eq!(queues.len(), 3, "each key keeps its queue");
    let mut inbox = open(&place, &client, &topic).await;
    let arrived = inbox.take(31).await;
    for key in ["anna", "bert", "cleo"] {
        let of_key = arrived.iter().filter(|message| message.sharding_key() == Some(key)).map(text);
        assert_eq!(of_key.collect::<Vec<_>>(), (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

async fn a_delay_level_holds_a_message_back(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    producer.send(message(&topic, "makes the topic")).await.unwrap();
    let mut inbox = open(&place, &client, &topic).await;
    assert_eq!(inbox.next_text().await, "makes the topic");
    let began = Instant::now();
    let delayed = Message::builder(&topic).delay_level(1).tag("late").body("a second").build().unwrap();
    producer.send(delayed).await.unwrap();
    producer.send(message(&topic, "at once")).await.unwrap();
    assert_eq!(inbox.next_text().await, "at once");
    let late = inbox.next().await;
    assert!(began.elapsed() >= Duration::from_millis(950), "after {:?}", began.elapsed());
    assert_eq!((text(&late), late.tag()), ("a second".to_owned(), Some("late")));
    assert!(late.unique_key().is_some() && late.topic().as_str() == topic);
}

async fn a_message_is_delivered_at_its_time(place: Place) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    producer.send(message(&topic, "makes the topic")).await.unwrap();
    let mut inbox = open(&place, &client, &topic).await;
    assert_eq!(inbox.next_text().await, "makes the topic");
    let began = Instant::now();
    let at = SystemClock.now().saturating_add_ms(3_000);
    let by_time = Message::builder(&topic).deliver_at(at).body("at its time").build().unwrap();
    let by_delay = Message::builder(&topic).delay(Duration::from_millis(3_000)).body("after a while").build();
    producer.send(by_time).await.unwrap();
    producer.send(by_delay.unwrap()).await.unwrap();
    producer.send(message(&topic, "at once")).await.unwrap();
    assert_eq!(inbox.next_text().await, "at once");
    assert_eq!(inbox.set(2).await, BTreeSet::from(["at its time".to_owned(), "after a while".to_owned()]));
    // timer wheels turn in steps of a second
    assert!(began.elapsed() >= Duration::from_millis(1_900), "after {:?}", began.elapsed());
}

async fn body_arrives(place: Place, compression: BodyCompression) {
    let (client, topic) = (place.client().await, place.name("orders"));
    let config = ProducerConfig::default().compression(compression);
    let producer = client.producer(place.name("PG")).config(config).start().await.unwrap();
    let body = (0..6_000).map(|number| format!("{compression:?} {number} ")).collect::<String>();
    producer.send(message(&topic, &body)).await.unwrap();
    let arrived = open(&place, &client, &topic).await.next().await;
    assert!(text(&arrived) == body, "{} bytes were sent, other {} came", body.len(), arrived.body().len());
}

async fn a_plain_body_arrives_as_it_was_sent(place: Place) {
    body_arrives(place, BodyCompression::Off).await;
}

async fn a_zlib_body_arrives_as_it_was_sent(place: Place) {
    body_arrives(place, BodyCompression::Zlib).await;
}

async fn an_lz4_body_arrives_as_it_was_sent(place: Place) {
    body_arrives(place, BodyCompression::Lz4).await;
}

async fn a_zstd_body_arrives_as_it_was_sent(place: Place) {
    body_arrives(place, BodyCompression::Zstd).await;
}

async fn an_unreachable_name_server_is_passed_over(place: Place) {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::connect(format!("{nobody};{}", place.name_server())).await.unwrap();
    full_message_arrives(&place, &client).await;
}
