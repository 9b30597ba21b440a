//! END by unique key alone: a restarted producer finishes its own transaction of one message, and never another one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod fixture;

use std::path::Path;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset, TransactionId};
use mezzo_storage::{EndTarget, EndTransaction, Operation, OperationResult, Outcome, Refusal, Source, Store};

use fixture::{T0, all, open_real, prepare_at, put_topic};

fn open(dir: &Path) -> Arc<Store> {
    let store = open_real(dir);
    put_topic(&store);
    store
}

fn prepare(store: &Store, group: &str, key: &str, more: &str) -> PhysicalOffset {
    prepare_at(store, T0, &format!("UNIQ_KEY\u{1}{key}\u{2}PGROUP\u{1}{group}\u{2}{more}"))
}

fn by_key(group: &str, key: &str, outcome: Outcome) -> Operation {
    let target =
        EndTarget::Id { group: GroupName::new(group).unwrap(), id: TransactionId::new(key).unwrap() };
    Operation::End(EndTransaction::new(target, outcome, Source::Producer))
}

fn by_origin(origin: PhysicalOffset, outcome: Outcome) -> Operation {
    Operation::End(EndTransaction::new(EndTarget::Origin(origin), outcome, Source::Producer))
}

fn end(store: &Store, group: &str, key: &str, outcome: Outcome) -> OperationResult {
    all(store, vec![by_key(group, key, outcome)]).remove(0)
}

fn refused(refusal: Refusal) -> OperationResult {
    OperationResult::Refused(refusal)
}

#[test]
fn the_only_open_transaction_of_a_key_is_decided_by_it_and_the_answer_stands() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let origin = prepare(&store, "g", "k", "");
    prepare(&store, "g", "other", "");
    prepare(&store, "stranger", "k", "");
    assert_eq!(end(&store, "nobody", "k", Outcome::Committed), refused(Refusal::UnknownOrExpired));
    let decided = end(&store, "g", "k", Outcome::Committed);
    assert!(
        matches!(&decided, OperationResult::Decided(d) if d.origin == origin && d.count == 1),
        "{decided:?}"
    );
    assert!(matches!(end(&store, "g", "k", Outcome::Committed), OperationResult::AlreadyDecided(_)));
    assert!(matches!(end(&store, "g", "k", Outcome::RolledBack), OperationResult::Conflict(_)));
    assert_eq!(store.standing().open, 2, "neither another key nor another group");
}

#[test]
fn a_key_is_known_after_a_restart_from_the_log_and_from_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    for clean in [false, true] {
        let store = open(dir.path());
        let key = format!("k-{clean}");
        let origin = prepare(&store, "g", &key, "");
        if clean {
            store.close(T0).unwrap();
        }
        drop(store);
        let store = open(dir.path());
        let decided = end(&store, "g", &key, Outcome::RolledBack);
        assert!(matches!(decided, OperationResult::Decided(d) if d.origin == origin), "{clean}");
    }
}

#[test]
fn several_open_ones_of_a_key_are_told_apart_by_their_offsets_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let origins: Vec<_> = (0..3).map(|_| prepare(&store, "g", "k", "")).collect();
    for (left, origin) in [(2, origins[1]), (1, origins[0])] {
        assert_eq!(end(&store, "g", "k", Outcome::Committed), refused(Refusal::Ambiguous));
        drop(store);
        store = open(dir.path());
        assert_eq!(end(&store, "g", "k", Outcome::Committed), refused(Refusal::Ambiguous));
        all(&store, vec![by_origin(origin, Outcome::RolledBack)]);
        assert_eq!(store.standing().open, left);
    }
    // one is left, but a late END may mean one that is decided
    assert_eq!(end(&store, "g", "k", Outcome::Committed), refused(Refusal::Ambiguous));
    all(&store, vec![by_origin(origins[2], Outcome::Committed)]);
    let newest = end(&store, "g", "k", Outcome::Committed);
    assert!(matches!(newest, OperationResult::AlreadyDecided(d) if d.origin == origins[2]));
}

#[test]
fn a_decided_transaction_of_the_same_key_keeps_a_late_end_from_hitting_the_open_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = prepare(&store, "g", "k", "");
    all(&store, vec![by_origin(first, Outcome::RolledBack)]);
    let second = prepare(&store, "g", "k", "");
    assert_eq!(end(&store, "g", "k", Outcome::Committed), refused(Refusal::Ambiguous));
    assert_eq!(end(&store, "g", "k", Outcome::RolledBack), refused(Refusal::Ambiguous));
    assert_eq!(store.transaction(second).map(|open| open.origin), Some(second), "still open");
}

#[test]
fn an_id_of_many_messages_that_is_also_a_messages_key_is_refused_while_both_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let many = prepare(&store, "g", "first", "MEZZO_TX\u{1}x\u{2}MEZZO_TX_SEQ\u{1}0\u{2}");
    let alone = prepare(&store, "g", "x", "");
    assert_eq!(end(&store, "g", "x", Outcome::RolledBack), refused(Refusal::Ambiguous));
    all(&store, vec![by_origin(many, Outcome::RolledBack)]);
    // the decided one of many would be meant as well
    assert_eq!(end(&store, "g", "x", Outcome::Committed), refused(Refusal::Ambiguous));
    assert!(store.transaction(alone).is_some());
}

#[test]
fn in_one_batch_the_first_decision_stands_however_the_transaction_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let origin = prepare(&store, "g", "k", "");
    let results = all(
        &store,
        vec![
            by_key("g", "k", Outcome::Committed),
            by_key("g", "k", Outcome::RolledBack),
            by_origin(origin, Outcome::RolledBack),
        ],
    );
    // those by key are carried out behind the others: the history is asked before
    assert!(matches!(results[2], OperationResult::Decided(_)), "{results:?}");
    assert!(matches!(results[0], OperationResult::Conflict(_)), "{results:?}");
    assert!(matches!(results[1], OperationResult::AlreadyDecided(_)), "{results:?}");
}

#[test]
fn a_commit_that_counts_other_messages_than_one_decides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let origin = prepare(&store, "g", "k", "");
    for count in [0, 2] {
        let Operation::End(ending) = by_key("g", "k", Outcome::Committed) else { panic!("an END") };
        let got = all(&store, vec![Operation::End(EndTransaction { count: Some(count), ..ending })]);
        assert_eq!(got, [refused(Refusal::Incomplete { expected: 1, got: Some(count) })]);
    }
    assert!(store.transaction(origin).is_some());
}
