//! The barrier table over the years: made once, purged by age, never taken for another's, and no proof when it is old.

use std::sync::Arc;
use std::time::Duration;

use mezzo_client::admin::TransactionOutcome;
use mezzo_client::database::{Database, DatabaseError, PURGE_AGE_MIN, process_once_as};
use mezzo_client::{Client, Clock, SystemClock, Timestamp};
use tokio::task::JoinSet;

use crate::shop::{CONNECTIONS, Shop, add_order, furnish, with_each_database};
use crate::stage::{Member, Stage, order, until};

async fn the_table_is_made_once_by_whoever_comes_first<D: Shop>() {
    let Some(place) = D::place().await else { return };
    let mut makers = JoinSet::new();
    for _ in 0..4 {
        let db = Database::new(D::pool(&place, 1).await);
        makers.spawn(async move { db.prepare_schema().await });
    }
    while let Some(made) = makers.join_next().await {
        made.expect("no panic").expect("it is there, by whomever");
    }
    let pool = D::pool(&place, 1).await;
    let identities = D::texts(&pool, "SELECT CAST(reason AS CHAR(32)) FROM mezzo_barrier").await;
    assert_eq!(identities.len(), 1, "one database, one identity: {identities:?}");
}

async fn only_old_rows_are_purged<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    for name in ["old", "older", "young"] {
        let done = process_once_as(&stage.db, "shipping", name, async |_| Ok(())).await;
        assert!(done.expect("a healthy database").is_first());
    }
    let mut connection = stage.db.pool().acquire().await.expect("there is a connection");
    let age = PURGE_AGE_MIN.as_secs() + 60;
    let ageing = format!(
        "UPDATE mezzo_barrier SET created_at_s = created_at_s - {age} WHERE operation = 'process' AND message_key <> 'young'"
    );
    assert_eq!(D::execute(&mut connection, ageing).await.expect("the table is there"), 2);
    drop(connection);
    let too_young = stage.db.purge(PURGE_AGE_MIN - Duration::from_secs(1)).await;
    assert!(matches!(too_young, Err(DatabaseError::PurgeTooYoung)), "{too_young:?}");
    assert_eq!(stage.db.purge(PURGE_AGE_MIN).await.expect("a healthy database"), 2);
    assert_eq!(stage.db.purge(PURGE_AGE_MIN).await.expect("a healthy database"), 0);
    let again = process_once_as(&stage.db, "shipping", "young", async |_| Ok(())).await;
    assert!(!again.expect("a healthy database").is_first());
    let member = stage.member().await;
    let sold = member.producer.transaction(&member.db, order("tea"), async |_| Ok(())).await;
    assert!(sold.expect("the identity was not purged").is_committed());
}

async fn another_database_is_no_witness<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let Some(elsewhere) = D::place().await else { return };
    let first = stage.member().await;
    let said = first
        .producer
        .transaction(&first.db, order("tea"), async |tx| {
            add_order::<D>(tx, "tea").await?;
            first.client.shutdown().await;
            Ok(())
        })
        .await
        .expect("prepared");
    let origin = said.ids().offset_message_id.physical_offset;
    first.vanish().await;
    let stranger = stage.member_at(&elsewhere, CONNECTIONS).await;
    furnish(&stranger.db).await;
    until("the stranger was asked and did not decide", async || {
        (stage.asks(origin).await >= 2).then_some(())
    })
    .await;
    stranger.vanish().await;
    let _second = stage.member().await;
    assert_eq!(stage.decision(origin).await, TransactionOutcome::Committed);
    stage.assert_sold(&["tea"]).await;
}

/// The system's time, so much later.
#[derive(Debug)]
struct Later(Duration);

impl Clock for Later {
    fn now(&self) -> Timestamp {
        SystemClock.now().saturating_add_ms(self.0.as_millis() as u64)
    }
}

async fn a_row_that_may_have_been_purged_proves_nothing<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let cut_off = async |name: &'static str, works: bool| {
        let client = Client::connect(stage.broker.name_server().to_string()).await.expect("an address");
        let member = Member::<D>::join(client, Database::new(D::pool(&stage.place, 1).await)).await;
        let said = member.producer.transaction(&member.db, order(name), async |tx| {
            add_order::<D>(tx, name).await?;
            member.client.shutdown().await;
            Ok(())
        });
        let origin = said.await.expect("prepared").ids().offset_message_id.physical_offset;
        if !works {
            let mut connection = stage.db.pool().acquire().await.expect("there is a connection");
            let purge = "DELETE FROM mezzo_barrier WHERE operation = 'send'".to_owned();
            D::execute(&mut connection, purge).await.expect("the table is there");
        }
        origin
    };
    let purged = cut_off("purged", false).await;
    let kept = cut_off("kept", true).await;
    let client = Client::builder(stage.broker.name_server().to_string());
    let client = client.clock(Arc::new(Later(PURGE_AGE_MIN))).build().await.expect("an address");
    let late = Member::<D>::join(client, Database::new(D::pool(&stage.place, CONNECTIONS).await)).await;
    assert_eq!(stage.decision(kept).await, TransactionOutcome::Committed, "a row that is there counts");
    until("asked about the other one too", async || (stage.asks(purged).await >= 2).then_some(())).await;
    let open: Vec<u64> = stage.open().await.iter().map(|info| info.origin).collect();
    assert_eq!(open, [purged.0], "nobody guessed");
    late.vanish().await;
}

with_each_database!(
    the_table_is_made_once_by_whoever_comes_first,
    only_old_rows_are_purged,
    another_database_is_no_witness,
    a_row_that_may_have_been_purged_proves_nothing,
);
