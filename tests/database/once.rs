//! A message is processed once, however often and wherever at one time it is delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mezzo_client::database::{ProcessError, Processed, process_once, process_once_as};
use mezzo_client::{ReceivedMessage, Verdict};

use crate::shop::{Shop, add_order, orders, with_each_database};
use crate::stage::{Stage, arrivals, connect, order, text, until};

#[derive(Debug, thiserror::Error)]
#[error("no tape")]
struct NoTape;

async fn delivered_message<D: Shop>(stage: &Stage<D>) -> ReceivedMessage {
    let client = connect(&stage.broker).await;
    let producer = client.producer("PG_plain").start().await.expect("a producer starts");
    producer.send(order("tea")).await.expect("stored");
    let (consumer, mut received) = arrivals(&client).await;
    let message = received.recv().await.expect("it arrives");
    consumer.shutdown().await;
    message
}

async fn a_repeat_runs_nothing_and_says_so<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let message = delivered_message(&stage).await;
    let pack = |group: &'static str| {
        process_once(&stage.db, group, &message, async |tx| Ok(add_order::<D>(tx, group).await?))
    };
    assert_eq!(pack("shipping").await.expect("a healthy database"), Processed::Done(1));
    for _ in 0..3 {
        assert_eq!(pack("shipping").await.expect("a healthy database"), Processed::AlreadyDone);
    }
    assert!(pack("billing").await.expect("a healthy database").is_first(), "another group does its own work");
    assert_eq!(orders(&stage.db).await, ["billing", "shipping"]);
}

async fn what_failed_is_done_by_the_next_delivery<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let message = delivered_message(&stage).await;
    let failed = process_once(&stage.db, "shipping", &message, async |tx| {
        add_order::<D>(tx, "tea").await?;
        Err::<(), _>(NoTape.into())
    });
    let failed = failed.await;
    assert!(matches!(&failed, Err(ProcessError::Local(why)) if why.inner().is::<NoTape>()), "{failed:?}");
    assert_eq!(Verdict::from(failed), Verdict::Retry);
    assert!(orders(&stage.db).await.is_empty());
    let undone = process_once(&stage.db, "shipping", &message, async |tx| {
        add_order::<D>(tx, "tea").await?;
        D::execute(tx, "ROLLBACK".to_owned()).await?;
        Ok(())
    });
    assert!(matches!(undone.await, Err(ProcessError::Database(_))));
    let done = process_once(&stage.db, "shipping", &message, async |tx| Ok(add_order::<D>(tx, "tea").await?));
    assert_eq!(Verdict::from(done.await), Verdict::Done);
    assert_eq!(orders(&stage.db).await, ["tea"]);
}

async fn of_deliveries_at_one_time_one_does_the_work<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let message = delivered_message(&stage).await;
    let runs = Arc::new(AtomicU32::new(0));
    let deliveries: Vec<_> = (0..6)
        .map(|_| {
            let (db, message, runs) = (stage.db.clone(), message.clone(), Arc::clone(&runs));
            tokio::spawn(async move {
                process_once(&db, "shipping", &message, async |tx| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    add_order::<D>(tx, "tea").await?;
                    Ok(())
                })
                .await
            })
        })
        .collect();
    let mut done = 0;
    for delivery in deliveries {
        // an error would have it delivered again, which would find that it is done
        done += u32::from(matches!(delivery.await.expect("no panic"), Ok(Processed::Done(()))));
    }
    assert_eq!((done, runs.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(orders(&stage.db).await, ["tea"]);
}

async fn the_application_can_name_what_is_the_same<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    for (name, first) in [("a", true), ("A", true), ("a ", true), ("a", false)] {
        let said = process_once_as(&stage.db, "shipping", name, async |_| Ok(())).await;
        assert_eq!(said.expect("a healthy database").is_first(), first, "{name:?}");
    }
    let long = "x".repeat(256);
    let refused = process_once_as(&stage.db, "shipping", &long, async |_| Ok(())).await;
    assert!(matches!(refused, Err(ProcessError::Database(_))));
}

async fn a_handler_that_fails_once_ships_once<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let client = connect(&stage.broker).await;
    let producer = client.producer("PG_plain").start().await.expect("a producer starts");
    for name in ["tea", "coffee"] {
        producer.send(order(name)).await.expect("stored");
    }
    let calls = Arc::new(AtomicU32::new(0));
    let (db, counter) = (stage.db.clone(), Arc::clone(&calls));
    let handler = move |message: ReceivedMessage| {
        let (db, calls) = (db.clone(), Arc::clone(&counter));
        async move {
            process_once(&db, "shipping", &message, async |tx| {
                add_order::<D>(tx, &text(&message)).await?;
                if calls.fetch_add(1, Ordering::SeqCst) == 0 { Err(NoTape.into()) } else { Ok(()) }
            })
            .await
        }
    };
    let consumer = client
        .push_consumer("shipping")
        .subscribe("orders", "*")
        .handler(handler)
        .start()
        .await
        .expect("it starts");
    until("both are shipped", async || (orders(&stage.db).await.len() == 2).then_some(())).await;
    consumer.shutdown().await;
    assert_eq!(orders(&stage.db).await, ["coffee", "tea"]);
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

with_each_database!(
    a_repeat_runs_nothing_and_says_so,
    what_failed_is_done_by_the_next_delivery,
    of_deliveries_at_one_time_one_does_the_work,
    the_application_can_name_what_is_the_same,
    a_handler_that_fails_once_ships_once,
);
