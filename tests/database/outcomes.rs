//! A message and a local transaction end alike while nobody crashes, whatever the work does with its statements.

use mezzo_client::database::sqlx::{Connection, MySql, MySqlConnection};
use mezzo_client::database::{Database, DatabaseError};
use mezzo_client::{LocalError, LocalOutcome, Outcome, ReceivedMessage, RollbackReason, TransactionError};
use tokio::sync::Notify;

use crate::shop::{Shop, add_order, with_each_database, with_each_server};
use crate::stage::{GROUP, Stage, connect, order};

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("sold out")]
struct SoldOut;

async fn both_are_committed_or_neither<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let member = stage.member().await;
    let mut rows = 0;
    let sold = member
        .producer
        .transaction(&member.db, order("tea"), async |tx| {
            rows = add_order::<D>(tx, "tea").await?;
            Ok(())
        })
        .await
        .expect("prepared");
    assert!(sold.is_committed(), "{sold}");
    assert_eq!(rows, 1, "work may give something back through what it borrows");
    let refused = member
        .producer
        .transaction(&member.db, order("coffee"), async |tx| {
            add_order::<D>(tx, "coffee").await?;
            Err(SoldOut.into())
        })
        .await
        .expect("prepared");
    let Outcome::RolledBack(_, RollbackReason::LocalFailed(why)) = refused else { panic!("{refused}") };
    assert_eq!(why.inner().downcast_ref(), Some(&SoldOut), "the work's own error comes back");
    stage.assert_sold(&["tea"]).await;
}

async fn many_messages_are_committed_with_it_or_none<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let member = stage.member().await;
    let messages = || [order("tea"), order("scones")];
    let refused = member.producer.transaction_many(&member.db, messages(), async |tx| {
        add_order::<D>(tx, "tea").await?;
        Err(SoldOut.into())
    });
    let refused = refused.await.expect("prepared");
    assert!(refused.is_rolled_back(), "{refused}");
    let sold = member.producer.transaction_many(&member.db, messages(), async |tx| {
        add_order::<D>(tx, "scones").await?;
        add_order::<D>(tx, "tea").await?;
        Ok(())
    });
    let sold = sold.await.expect("prepared");
    assert!(sold.is_committed(), "{sold}");
    stage.assert_sold(&["scones", "tea"]).await;
}

async fn work_that_ends_its_transaction_commits_nothing<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let member = stage.member().await;
    let sold = member
        .producer
        .transaction(&member.db, order("tea"), async |tx| {
            add_order::<D>(tx, "tea").await?;
            D::execute(tx, "ROLLBACK".to_owned()).await?;
            Ok(())
        })
        .await
        .expect("prepared");
    assert_undone(sold);
    stage.assert_sold(&[]).await;
}

fn assert_undone(outcome: Outcome) {
    let Outcome::RolledBack(_, RollbackReason::LocalFailed(why)) = outcome else { panic!("{outcome}") };
    assert!(matches!(why.inner().downcast_ref(), Some(DatabaseError::Undone)), "{why}");
}

/// PostgreSQL answers the COMMIT of such a transaction with success, and rolls it back.
async fn a_swallowed_error_does_not_pass_for_a_commit<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let member = stage.member().await;
    let sold = member
        .producer
        .transaction(&member.db, order("tea"), async |tx| {
            add_order::<D>(tx, "tea").await?;
            let again = add_order::<D>(tx, "tea").await;
            assert!(again.is_err(), "an order has a unique name");
            Ok(())
        })
        .await
        .expect("prepared");
    if sold.is_committed() {
        // MySQL undoes only the statement that failed: the transaction is whole
        return stage.assert_sold(&["tea"]).await;
    }
    assert_undone(sold);
    stage.assert_sold(&[]).await;
}

async fn nothing_is_prepared_without_a_barrier_table<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let member = stage.member().await;
    let Some(bare) = D::place().await else { return };
    let bare = Database::new(D::pool(&bare, 1).await);
    let refused = member.producer.transaction(&bare, order("tea"), async |_| Ok(())).await;
    let Err(TransactionError::Database(why)) = refused else { panic!("{refused:?}") };
    assert!(matches!(why.inner().downcast_ref(), Some(DatabaseError::NotPrepared)), "{why}");
    assert!(stage.open().await.is_empty());
}

async fn a_producer_without_a_database_refuses<D: Shop>() {
    let Some(stage) = Stage::<D>::set().await else { return };
    let client = connect(&stage.broker).await;
    let handler = |_: ReceivedMessage| async { Ok::<_, LocalError>(LocalOutcome::Unknown) };
    let producer = client.transaction_producer(GROUP).check_back(handler).start().await.expect("it starts");
    let refused = producer.transaction(&stage.db, order("tea"), async |_| Ok(())).await;
    let Err(TransactionError::Database(why)) = refused else { panic!("{refused:?}") };
    assert!(matches!(why.inner().downcast_ref(), Some(DatabaseError::NoCheckBack)), "{why}");
    assert!(stage.open().await.is_empty());
}

with_each_database!(
    both_are_committed_or_neither,
    many_messages_are_committed_with_it_or_none,
    work_that_ends_its_transaction_commits_nothing,
    nothing_is_prepared_without_a_barrier_table,
    a_producer_without_a_database_refuses,
);

mod servers {
    use super::*;
    with_each_server!(a_swallowed_error_does_not_pass_for_a_commit);
}

/// MySQL ends the whole transaction of a deadlock's victim, and answers its COMMIT with success.
#[tokio::test(flavor = "multi_thread")]
async fn a_swallowed_deadlock_does_not_pass_for_a_commit() {
    let Some(stage) = Stage::<MySql>::set().await else { return };
    let member = stage.member().await;
    let mut connection = stage.db.pool().acquire().await.expect("there is a connection");
    for name in ["one", "two"] {
        add_order::<MySql>(&mut connection, name).await.expect("the table is empty");
    }
    let lock = async |connection: &mut MySqlConnection, name: &str| {
        MySql::execute(connection, format!("SELECT * FROM orders WHERE name = '{name}' FOR UPDATE")).await
    };
    let (has_one, has_two) = (Notify::new(), Notify::new());
    let winner = async {
        let mut tx = connection.begin().await.expect("a healthy database");
        // the victim is whoever has done less
        for number in 0..20 {
            add_order::<MySql>(&mut tx, &format!("work{number}")).await.expect("these are new");
        }
        lock(&mut tx, "two").await.expect("nobody has it");
        has_two.notify_one();
        has_one.notified().await;
        lock(&mut tx, "one").await.expect("the other one is the victim");
        tx.rollback().await.expect("a healthy database");
    };
    let victim = member.producer.transaction(&member.db, order("tea"), async |tx| {
        lock(tx, "one").await?;
        has_one.notify_one();
        has_two.notified().await;
        assert!(lock(tx, "two").await.is_err(), "a deadlock");
        Ok(())
    });
    let ((), said) = tokio::join!(winner, victim);
    assert_undone(said.expect("prepared"));
    assert!(stage.delivered().await.is_empty());
}
