//! The oracle itself, and the proof that it can fail.

use std::env;
use std::fs;
use std::time::Duration;

use mezzo_client::admin::TransactionOutcome;
use mezzo_tests::chance::Chance;
use mezzo_tests::wait;
use tempfile::TempDir;

use crate::audit::Books;
use crate::journal::{self, count};
use crate::ledger::Recorded;
use crate::process::Role;
use crate::storm::{Bank, SETTLED_WITHIN};
use crate::{consumer, producer};

/// Transactions that the broker is asked to show at the end.
const SHOWN: usize = 500;
/// How long a run is that must fail.
const CARELESS: Duration = Duration::from_secs(4);

fn seconds() -> Duration {
    let given = env::var("MEZZO_BANK_SECONDS").ok();
    Duration::from_secs(given.map_or(20, |text| text.parse().expect("MEZZO_BANK_SECONDS is a number")))
}

#[test]
fn no_coin_is_lost_or_made_whoever_is_killed() {
    let mut scratch = TempDir::new().expect("a temporary folder can be made");
    // evidence, until all is well
    scratch.disable_cleanup(true);
    println!("bank: {}", scratch.path().display());
    let mut chance = Chance::for_test("bank");
    let picks = Chance::new(chance.below(u64::MAX));
    let mut bank = Bank::open(scratch.path(), [Role::Producer, Role::Consumer], chance);
    bank.storm(seconds());
    let settled = bank.settle(SETTLED_WITHIN);
    let books = bank.books();
    let mut wrong = books.audit();
    wrong.append(&mut bank.wrong);
    wrong.extend(shown_otherwise(&bank, &books, picks));
    report(&bank, &books);
    match settled {
        Ok(took) => println!("settled within {:.1} s", took.as_secs_f64()),
        Err(why) => wrong.push(why),
    }
    if bank.close() != Some(0) {
        wrong.push("the broker did not stop in order".to_owned());
    }
    if !wrong.is_empty() {
        fail(&wrong, &scratch);
    }
    assert!(!books.debits.is_empty(), "no transfer came through");
    scratch.disable_cleanup(false);
}

#[test]
fn a_consumer_without_the_barrier_is_noticed() {
    let scratch = TempDir::new().expect("a temporary folder can be made");
    let roles = [Role::Producer, Role::CarelessConsumer];
    let mut bank = Bank::open(scratch.path(), roles, Chance::for_test("careless consumers"));
    bank.storm(CARELESS);
    bank.settle(SETTLED_WITHIN).expect("money moves all the same");
    let wrong = bank.books().audit();
    assert!(wrong.iter().any(|what| what.contains("more than at first")), "money was made: {wrong:?}");
    assert!(wrong.iter().any(|what| what.contains("has the credits")), "a credit came twice: {wrong:?}");
}

/// What the fence is for: the other process looks while the local transaction is slow, and finds nothing.
#[test]
fn a_check_back_that_does_not_fence_is_noticed() {
    let scratch = TempDir::new().expect("a temporary folder can be made");
    let roles = [Role::CarelessProducer, Role::Consumer];
    let mut bank = Bank::open(scratch.path(), roles, Chance::for_test("careless producers"));
    wait::until("a producer has committed what its group rolled back", || {
        let entries = journal::entries(scratch.path());
        (count(&entries, producer::CONFLICT) > 0).then_some(())
    });
    assert!(bank.settle(Duration::ZERO).is_err(), "money is lost");
    let wrong = bank.books().audit();
    assert!(wrong.iter().any(|what| what.contains("told conflict")), "a producer was told: {wrong:?}");
    assert!(wrong.iter().any(|what| what.contains("has no credit")), "a debit has no credit: {wrong:?}");
}

/// Where the answers of the broker differ from its log.
fn shown_otherwise(bank: &Bank, books: &Books, mut picks: Chance) -> Vec<String> {
    let mut some: Vec<&Recorded> = books.recorded.iter().collect();
    while some.len() > SHOWN {
        some.swap_remove(usize::try_from(picks.below(some.len() as u64)).expect("an index"));
    }
    let origins: Vec<u64> = some.iter().map(|recorded| recorded.origin).collect();
    let mut wrong = Vec::new();
    for (recorded, shown) in some.iter().zip(bank.shown(&origins)) {
        let outcome = shown.as_ref().and_then(|info| info.decision.as_ref()).map(|decision| decision.outcome);
        let is_commit = outcome.map(|outcome| outcome == TransactionOutcome::Committed);
        let key = shown.and_then(|info| info.unique_key);
        let expected = recorded.decisions.first().map(|decision| decision.is_commit);
        if is_commit != expected || key.as_ref() != Some(&recorded.message_key) {
            wrong.push(format!("{recorded:?} is shown as {outcome:?} of {key:?}"));
        }
    }
    wrong
}

fn report(bank: &Bank, books: &Books) {
    let decided = |is_commit: bool, by_check_back: bool| {
        let decisions = books.recorded.iter().flat_map(|recorded| &recorded.decisions);
        decisions
            .filter(|decision| decision.is_commit == is_commit && decision.by_check_back == by_check_back)
            .count()
    };
    let told = |what| count(&books.journal, what);
    println!(
        "{} prepared; {} committed by END and {} by check-back, {} rolled back by END and {} by check-back",
        books.recorded.len(),
        decided(true, false),
        decided(true, true),
        decided(false, false),
        decided(false, true)
    );
    println!(
        "producers were told: {} committed, {} rolled back, {} fenced, {} unknown, {} not begun; {} died before END",
        told(producer::COMMITTED),
        told(producer::ROLLED_BACK),
        told(producer::FENCED),
        told(producer::UNKNOWN),
        told(producer::NOT_BEGUN),
        told(producer::LOST_END)
    );
    println!(
        "{} debits, {} credits; {} deliveries again, which the barrier absorbed; {} sent back, {} failed",
        books.debits.len(),
        books.credits.len(),
        told(consumer::AGAIN),
        told(consumer::SENT_BACK),
        told(consumer::FAILED)
    );
    let faults: Vec<String> = bank.faults.iter().map(|(what, times)| format!("{what} {times}")).collect();
    println!("{}", faults.join(", "));
}

fn fail(wrong: &[String], scratch: &TempDir) -> ! {
    let _ = fs::write(scratch.path().join("wrong.txt"), wrong.join("\n"));
    let shown: Vec<&str> = wrong.iter().take(20).map(String::as_str).collect();
    panic!("{} things are wrong (all in {}):\n{}", wrong.len(), scratch.path().display(), shown.join("\n"));
}
