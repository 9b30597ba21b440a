//! A producer dies between any two steps: another process of the group, with nothing but the database, settles what it
//! left, and both sides tell the same story.

use std::future::pending;
use std::sync::Arc;

use mezzo_client::admin::TransactionOutcome;
use mezzo_client::database::LocalTransaction;
use tokio::sync::Notify;

use crate::shop::{Shop, add_order, with_each_database};
use crate::stage::{Stage, order};

async fn before_its_local_transaction_began<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let first = stage.member_with(1).await;
    let sold = first.producer.transaction(&first.db, order("tea"), async |tx| {
        add_order::<D>(tx, "tea").await?;
        Ok(())
    });
    assert!(sold.await.expect("prepared").is_committed());
    // its only connection is taken, so BEGIN waits
    let taken = first.db.pool().acquire().await.expect("the only one");
    let (producer, db) = (first.producer.clone(), first.db.clone());
    let sale = tokio::spawn(async move {
        producer.transaction(&db, order("coffee"), async |_| panic!("it has no connection")).await
    });
    let origin = stage.prepared().await;
    first.client.shutdown().await;
    sale.abort();
    drop(taken);
    first.vanish().await;
    let _second = stage.member().await;
    assert_eq!(stage.decision(origin).await, TransactionOutcome::RolledBack);
    stage.assert_sold(&["tea"]).await;
}

async fn in_the_middle_of_its_local_transaction<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let first = stage.member().await;
    let working = Arc::new(Notify::new());
    let (producer, db, begun) = (first.producer.clone(), first.db.clone(), Arc::clone(&working));
    let sale = tokio::spawn(async move {
        let work = async |tx: &mut LocalTransaction<D>| {
            add_order::<D>(tx, "tea").await?;
            begun.notify_one();
            pending().await
        };
        producer.transaction(&db, order("tea"), work).await
    });
    working.notified().await;
    let origin = stage.prepared().await;
    first.client.shutdown().await;
    sale.abort();
    first.vanish().await;
    let _second = stage.member().await;
    assert_eq!(stage.decision(origin).await, TransactionOutcome::RolledBack);
    stage.assert_sold(&[]).await;
}

async fn after_its_local_transaction_committed<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let first = stage.member().await;
    let said = first
        .producer
        .transaction(&first.db, order("tea"), async |tx| {
            add_order::<D>(tx, "tea").await?;
            // from here on no word of this process reaches the broker
            first.client.shutdown().await;
            Ok(())
        })
        .await
        .expect("prepared");
    assert!(!said.is_committed() && !said.is_rolled_back(), "{said}");
    let origin = said.ids().offset_message_id.physical_offset;
    first.vanish().await;
    let _second = stage.member().await;
    assert_eq!(stage.decision(origin).await, TransactionOutcome::Committed);
    stage.assert_sold(&["tea"]).await;
}

with_each_database!(
    before_its_local_transaction_began,
    in_the_middle_of_its_local_transaction,
    after_its_local_transaction_committed,
);
