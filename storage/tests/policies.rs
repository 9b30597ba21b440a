//! Check-back policies in the store: the parts that a message brings and its group's policy survive restarts and
//! checkpoints, each transaction is due by the one that holds for it, and only a person's force decides a PREPARED one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod fixture;

use mezzo_protocol::check_policy::{CheckWish, Exhausted};
use mezzo_protocol::ids::{GroupName, PhysicalOffset};
use mezzo_protocol::limits::CHECK_POLICIES_MAX;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::{
    Batch, CheckPolicy, EndTarget, EndTransaction, Operation, OperationResult, Outcome, ParkReason, Refusal,
    Source, Store,
};

use fixture::{T0, one, open_real as open, prepare_at, put_topic};

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(T0.as_ms() + ms)
}

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn policy(text: &str) -> CheckPolicy {
    CheckWish::parse(text).unwrap().over(&CheckPolicy::default())
}

fn put(store: &Store, name: &str, text: &str) -> OperationResult {
    one(store, Operation::PutPolicy { group: group(name), policy: policy(text) })
}

fn prepare(store: &Store, name: &str, wish: Option<&str>) -> PhysicalOffset {
    let wish = wish.map_or_else(String::new, |wish| format!("MEZZO_CHECK\u{1}{wish}\u{2}"));
    prepare_at(store, T0, &format!("UNIQ_KEY\u{1}k\u{2}PGROUP\u{1}{name}\u{2}{wish}"))
}

/// What is due until `ms`, as (origin, attempts, what then).
fn due(store: &Store, ms: u64) -> Vec<(PhysicalOffset, u32, Exhausted)> {
    let due = store.due_checks(at(ms), 100);
    due.iter().map(|d| (d.transaction.origin, d.policy.check_max, d.policy.exhausted)).collect()
}

#[test]
fn each_transaction_is_due_by_its_own_policy_its_groups_or_the_default_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    put_topic(&store);
    assert_eq!(put(&store, "own", "first=2s,attempts=3,then=rollback"), OperationResult::Done);
    let message = prepare(&store, "own", Some("first=1s,attempts=7"));
    let of_group = prepare(&store, "own", None);
    let default = prepare(&store, "other", None);
    for round in 0..3 {
        assert_eq!(store.check_policy(&group("own")), Some(policy("first=2s,attempts=3,then=rollback")));
        assert_eq!(store.check_policy(&group("other")), None);
        if round == 0 {
            // once from the log, then from a checkpoint
            drop(store);
        } else {
            store.close(at(0)).unwrap();
            drop(store);
        }
        store = open(dir.path());
    }
    assert!(due(&store, 1_400).is_empty());
    assert_eq!(due(&store, 1_600), [(message, 7, Exhausted::RollBack)]);
    assert_eq!(due(&store, 2_600), [(of_group, 3, Exhausted::RollBack)]);
    assert!(due(&store, 6_400).is_empty());
    assert_eq!(due(&store, 6_600), [(default, 15, Exhausted::Park)]);
    one(&store, Operation::DeletePolicy(group("own")));
    one(&store, Operation::DeletePolicy(group("never-there")));
    store.reschedule(of_group, at(6_600), at(7_000));
    assert_eq!(due(&store, 7_100), [(of_group, 15, Exhausted::Park)], "the next deadline knows");
    drop(store);
    assert_eq!(open(dir.path()).check_policy(&group("own")), None);
}

#[test]
fn groups_with_a_policy_are_bounded_and_known_ones_can_still_change_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut batch = Batch::default();
    for number in 0..CHECK_POLICIES_MAX {
        batch
            .push(Operation::PutPolicy { group: group(&format!("g{number}")), policy: policy("attempts=2") });
    }
    store.append(at(0), &mut batch).unwrap();
    assert!(batch.results().iter().all(|result| *result == OperationResult::Done));
    let refused = OperationResult::Refused(Refusal::TooManyPolicies);
    assert_eq!(put(&store, "one-more", "attempts=2"), refused);
    assert_eq!(put(&store, "g5", "attempts=3"), OperationResult::Done);
    one(&store, Operation::DeletePolicy(group("g6")));
    assert_eq!(put(&store, "one-more", "attempts=2"), OperationResult::Done);
}

#[test]
fn without_force_a_decision_is_refused_while_the_transaction_is_prepared_also_when_it_was_just_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put_topic(&store);
    let origin = prepare(&store, "g", None);
    let mut end = EndTransaction::new(EndTarget::Origin(origin), Outcome::Committed, Source::Operator);
    end.only_in_doubt = true;
    let still = OperationResult::Refused(Refusal::StillPrepared);
    assert_eq!(one(&store, Operation::End(end.clone())), still);
    assert_eq!(store.in_doubt(), 0);
    one(&store, Operation::Park { origin, reason: ParkReason::CheckMax });
    assert_eq!(store.in_doubt(), 1);
    // in one batch: what is decided is looked at where it is decided
    let mut batch = Batch::default();
    batch.push(Operation::Resume { origin, by: None });
    batch.push(Operation::End(end.clone()));
    batch.push(Operation::Park { origin, reason: ParkReason::CheckMax });
    batch.push(Operation::End(end.clone()));
    batch.push(Operation::End(end));
    store.append(at(0), &mut batch).unwrap();
    assert_eq!(batch.results()[1], still);
    assert!(matches!(batch.results()[3], OperationResult::Decided(_)));
    assert!(matches!(batch.results()[4], OperationResult::AlreadyDecided(_)));
}
