//! The connection to the database breaks during COMMIT: the producer does not guess, and the check-back finds out.

use mezzo_client::admin::TransactionOutcome;
use mezzo_client::{Outcome, UnknownReason};

use crate::cutting_proxy::{Cut, CuttingProxy};
use crate::shop::{CONNECTIONS, Shop, add_order, with_each_server};
use crate::stage::{Stage, order};

async fn loses_its_commit<D: Shop>(cut: Cut, outcome: TransactionOutcome, sold: &[&str]) {
    let Some(stage) = Stage::<D>::set().await else { return };
    let proxy = CuttingProxy::before(&stage.place.path, cut);
    let member = stage.member_at(&stage.place.through(proxy.folder()), CONNECTIONS).await;
    let said = member
        .producer
        .transaction(&member.db, order("tea"), async |tx| {
            add_order::<D>(tx, "tea").await?;
            proxy.arm();
            Ok(())
        })
        .await
        .expect("prepared");
    proxy.cut().await;
    let Outcome::Unknown(ids, UnknownReason::LocalFailed(_)) = said else { panic!("{said}") };
    assert_eq!(stage.decision(ids.offset_message_id.physical_offset).await, outcome);
    stage.assert_sold(sold).await;
}

async fn a_commit_that_the_database_never_heard_is_rolled_back<D: Shop>() {
    loses_its_commit::<D>(Cut::Before, TransactionOutcome::RolledBack, &[]).await;
}

async fn a_commit_whose_answer_was_lost_is_committed<D: Shop>() {
    loses_its_commit::<D>(Cut::After, TransactionOutcome::Committed, &["tea"]).await;
}

with_each_server!(
    a_commit_that_the_database_never_heard_is_rolled_back,
    a_commit_whose_answer_was_lost_is_committed,
);
