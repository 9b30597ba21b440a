//! A real process of the producer group is killed (`kill -9`), and another one settles what it left behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mezzo_client::Client;
use mezzo_client::admin::TransactionOutcome;
use mezzo_client::database::sqlx::{Postgres, Sqlite};
use mezzo_client::database::{Database, LocalTransaction};

use crate::cutting_proxy::{Cut, CuttingProxy};
use crate::shop::{Place, Shop, add_order};
use crate::stage::{Member, Stage, order};

/// Tells this program that it is the child, and where it is: the kind of database, the place, the name server.
const CHILD: &str = "MEZZO_DATABASE_TEST_CHILD";
const WORKING: &str = "the local transaction runs";

/// Not a test of its own: the process that the tests below start and kill.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(word) = std::env::var(CHILD) else { return };
    let mut parts = word.split('|');
    let mut part = || parts.next().expect("three parts");
    match part() {
        "sqlite" => sell::<Sqlite>(part(), part(), true).await,
        _ => sell::<Postgres>(part(), part(), false).await,
    }
}

async fn sell<D: Shop>(place: &str, name_server: &str, stops_at_work: bool) {
    let client = Client::connect(name_server).await.expect("an address");
    let db = Database::new(D::pool(&Place::from_word(place), 2).await);
    let member = Member::<D>::join(client, db).await;
    let work = async |tx: &mut LocalTransaction<D>| {
        add_order::<D>(tx, "tea").await?;
        println!("{WORKING}");
        if stops_at_work {
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    let said = member.producer.transaction(&member.db, order("tea"), work).await;
    panic!("it was to be killed before: {said:?}");
}

fn start_child(kind: &str, place: &Place, name_server: &str) -> Child {
    let program = std::env::current_exe().expect("this program has a file");
    Command::new(Path::new(&program))
        .args(["--exact", "dead_processes::child", "--nocapture"])
        .env(CHILD, format!("{kind}|{}|{name_server}", place.word()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it can be started again")
}

/// Returns once the child is at work.
fn wait_for_work(child: &mut Child) {
    let mut lines = BufReader::new(child.stdout.as_mut().expect("it is piped")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains(WORKING))), "the child ended before");
}

fn kill(mut child: Child) {
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_work_leaves_nothing_behind() {
    let stage = Stage::<Sqlite>::set().await.expect("SQLite is always there");
    let mut child = start_child("sqlite", &stage.place, &stage.broker.name_server().to_string());
    wait_for_work(&mut child);
    let origin = stage.prepared().await;
    kill(child);
    let _survivor = stage.member().await;
    assert_eq!(stage.decision(origin).await, TransactionOutcome::RolledBack);
    stage.assert_sold(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_databases_commit_and_its_own_leaves_both_committed() {
    let Some(stage) = Stage::<Postgres>::set().await else { return };
    let proxy = CuttingProxy::before(&stage.place.path, Cut::Silence);
    let place = stage.place.through(proxy.folder());
    let mut child = start_child("postgres", &place, &stage.broker.name_server().to_string());
    proxy.arm();
    wait_for_work(&mut child);
    proxy.cut().await;
    let origin = stage.prepared().await;
    kill(child);
    let _survivor = stage.member().await;
    assert_eq!(stage.decision(origin).await, TransactionOutcome::Committed);
    stage.assert_sold(&["tea"]).await;
}
