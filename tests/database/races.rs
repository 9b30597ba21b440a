//! Check-backs while the local transaction still runs, or is about to: whichever inserts its row first is right, and the
//! other one follows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mezzo_client::admin::TransactionOutcome;
use mezzo_client::database::LocalTransaction;
use mezzo_client::database::sqlx::Postgres;
use mezzo_client::{Outcome, RollbackReason};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::shop::{Shop, add_order, orders, with_each_database};
use crate::stage::{Stage, names, order, until};

#[derive(Debug, thiserror::Error)]
#[error("changed my mind")]
struct ChangedMind;

/// The producer is cut off from the broker while its local transaction runs, and another member is asked.
async fn is_asked_about_while_it_runs<D: Shop>(commits: bool) {
    let Some(stage) = Stage::<D>::set().await else { return };
    let first = stage.member().await;
    let (working, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let sale = tokio::spawn({
        let (working, go_on) = (Arc::clone(&working), Arc::clone(&go_on));
        async move {
            let work = async |tx: &mut LocalTransaction<D>| {
                add_order::<D>(tx, "tea").await?;
                first.client.shutdown().await;
                working.notify_one();
                go_on.notified().await;
                if commits { Ok(()) } else { Err(ChangedMind.into()) }
            };
            first.producer.transaction(&first.db, order("tea"), work).await
        }
    });
    working.notified().await;
    let origin = stage.prepared().await;
    let _second = stage.member().await;
    // asked again: the first answer was no decision
    until("it is asked about twice", async || (stage.asks(origin).await >= 2).then_some(())).await;
    go_on.notify_one();
    let said = sale.await.expect("no panic").expect("prepared");
    assert!(!said.is_committed() && !said.is_rolled_back(), "no word reached the broker: {said}");
    let (outcome, sold): (_, &[&str]) = if commits {
        (TransactionOutcome::Committed, &["tea"])
    } else {
        (TransactionOutcome::RolledBack, &[])
    };
    assert_eq!(stage.decision(origin).await, outcome);
    stage.assert_sold(sold).await;
}

async fn a_check_back_waits_for_a_local_transaction_that_commits<D: Shop>() {
    is_asked_about_while_it_runs::<D>(true).await;
}

async fn a_check_back_waits_for_a_local_transaction_that_rolls_back<D: Shop>() {
    is_asked_about_while_it_runs::<D>(false).await;
}

async fn a_fenced_local_transaction_runs_nothing<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let slow = stage.member_with(1).await;
    let first = slow.producer.transaction(&slow.db, order("tea"), async |tx| {
        add_order::<D>(tx, "tea").await?;
        Ok(())
    });
    assert!(first.await.expect("prepared").is_committed());
    let taken = slow.db.pool().acquire().await.expect("the only one");
    let (producer, db) = (slow.producer.clone(), slow.db.clone());
    let sale = tokio::spawn(async move {
        producer.transaction(&db, order("coffee"), async |_| panic!("it must not run")).await
    });
    let origin = stage.prepared().await;
    // members take turns; the slow one says that its own transaction is under way
    let _quick = stage.member().await;
    assert_eq!(stage.decision(origin).await, TransactionOutcome::RolledBack);
    drop(taken);
    let said = sale.await.expect("no panic").expect("prepared");
    assert!(matches!(said, Outcome::RolledBack(_, RollbackReason::Fenced)), "{said}");
    stage.assert_sold(&["tea"]).await;
}

/// Many transactions of two members with few connections, so that some are asked about before they begin, some while they
/// run, and some fail: what was said, what was delivered and what the database holds agree.
async fn a_crowd_of_races_ends_in_one_story<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    race(&stage).await;
}

/// A database can have a stricter isolation as its default, under which a conflict with a row that the snapshot does not
/// show is an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_races_at_serializable_ends_in_one_story() {
    let Some(stage) = Stage::<Postgres>::set().await else { return };
    let mut connection = stage.db.pool().acquire().await.expect("there is a connection");
    let stricter = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', \
                    current_database()); END $$";
    Postgres::execute(&mut connection, stricter.to_owned()).await.expect("the owner may");
    let member = stage.member().await;
    let isolation = Postgres::texts(member.db.pool(), "SHOW default_transaction_isolation").await;
    assert_eq!(isolation, ["serializable"], "new connections have it");
    member.vanish().await;
    race(&stage).await;
}

async fn race<D: Shop>(stage: &Stage<D>) {
    const SALES: usize = 30;
    let (one, two) = (stage.member_with(2).await, stage.member_with(2).await);
    let mut sales = JoinSet::new();
    for (number, name) in names("order", SALES).into_iter().enumerate() {
        let member = if number % 2 == 0 { &one } else { &two };
        let (producer, db) = (member.producer.clone(), member.db.clone());
        sales.spawn(async move {
            let work = async |tx: &mut LocalTransaction<D>| {
                add_order::<D>(tx, &name).await?;
                tokio::time::sleep(Duration::from_millis((number as u64 * 53) % 240)).await;
                if number % 5 == 0 { Err(ChangedMind.into()) } else { Ok(()) }
            };
            let said = producer.transaction(&db, order(&name), work).await.expect("prepared");
            (name, said)
        });
    }
    let (mut committed, mut undone) = (BTreeSet::new(), BTreeSet::new());
    while let Some(sale) = sales.join_next().await {
        let (name, said) = sale.expect("no panic");
        match said {
            Outcome::Committed(_) => committed.insert(name),
            Outcome::RolledBack(..) => undone.insert(name),
            Outcome::Unknown(..) => false,
        };
    }
    let delivered = stage.delivered().await;
    assert_eq!(delivered, orders(&stage.db).await, "consumers and the database agree");
    let delivered: BTreeSet<String> = delivered.into_iter().collect();
    assert!(committed.is_subset(&delivered), "{committed:?} were committed, {delivered:?} delivered");
    assert!(undone.is_disjoint(&delivered), "{undone:?} were rolled back, {delivered:?} delivered");
}

with_each_database!(
    a_check_back_waits_for_a_local_transaction_that_commits,
    a_check_back_waits_for_a_local_transaction_that_rolls_back,
    a_fenced_local_transaction_runs_nothing,
    a_crowd_of_races_ends_in_one_story,
);
