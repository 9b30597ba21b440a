//! What operators do with requests that are RocketMQ's own; and what Mezzo adds, where it is not known.

use mezzo_client::admin::{Admin, TransactionFilter};
use mezzo_client::{Error, RequestError, ResponseCode};

use crate::inbox::{Inbox, message};
use crate::place::{Place, behaviours};

behaviours!(
    the_name_server_tells_its_brokers,
    a_group_that_is_deleted_starts_anew,
    requests_that_are_mezzos_own_are_refused_in_words_elsewhere,
);

async fn the_name_server_tells_its_brokers(place: Place) {
    let client = place.client().await;
    let brokers = Admin::new(&client).brokers().await.unwrap();
    assert_eq!(brokers.len(), 1);
    assert!(brokers[0].starts_with("127.0.0.1:"), "{brokers:?}");
}

async fn a_group_that_is_deleted_starts_anew(place: Place) {
    let (client, topic, group) = (place.client().await, place.name("orders"), place.name("CG"));
    let producer = client.producer(place.name("PG")).start().await.unwrap();
    for number in 0..8 {
        producer.send(message(&topic, number)).await.unwrap();
    }
    let mut inbox = Inbox::open(client.push_consumer(&group).subscribe(&topic, "*")).await;
    let all = inbox.set(8).await;
    assert!(inbox.consumer.shutdown().await);
    let admin = Admin::new(&client);
    for broker in admin.brokers().await.unwrap() {
        admin.delete_group(&broker, &group).await.unwrap();
    }
    let mut inbox = Inbox::open(client.push_consumer(&group).subscribe(&topic, "*")).await;
    assert_eq!(inbox.set(8).await, all);
}

async fn requests_that_are_mezzos_own_are_refused_in_words_elsewhere(place: Place) {
    let client = place.client().await;
    let admin = Admin::new(&client);
    let broker = admin.brokers().await.unwrap().remove(0);
    let listed = admin.transactions(&broker, &TransactionFilter::default(), None).await;
    if place.is_mezzo() {
        assert!(listed.unwrap().transactions.is_empty());
    } else {
        let Err(Error::Request(RequestError::Refused { code, .. })) = listed else { panic!("{listed:?}") };
        assert_eq!(code, ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
    }
}
