//! What the store counts: what was stored and decided since it was opened, and who has transactions open now.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod fixture;

use std::path::Path;
use std::sync::Arc;

use mezzo_protocol::ids::{GroupName, PhysicalOffset};
use mezzo_protocol::time::Timestamp;
use mezzo_storage::{
    EndTarget, EndTransaction, OpenOfGroup, Operation, OperationResult, Outcome, ParkReason, Source, Store,
    Visibility, source_index,
};

use fixture::{T0, one, open_real, prepare_at, put_topic, send_at};

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(T0.as_ms() + ms)
}

fn open(dir: &Path) -> Arc<Store> {
    let store = open_real(dir);
    put_topic(&store);
    store
}

fn send(store: &Store, now: Timestamp, visibility: Visibility, properties: &str) -> OperationResult {
    send_at(store, now, visibility, &[7; 100], properties)
}

fn prepare(store: &Store, now: Timestamp, group: &str, more: &str) -> PhysicalOffset {
    let properties = format!("UNIQ_KEY\u{1}k\u{2}PGROUP\u{1}{group}\u{2}{more}");
    prepare_at(store, now, &properties)
}

fn end(store: &Store, origin: PhysicalOffset, outcome: Outcome, source: Source) {
    one(store, Operation::End(EndTransaction::new(EndTarget::Origin(origin), outcome, source)));
}

#[test]
fn each_message_and_each_decision_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    send(&store, at(0), Visibility::Now, "");
    send(&store, at(0), Visibility::Due(at(60_000)), "");
    let first = prepare(&store, at(0), "g", "MEZZO_TX\u{1}x\u{2}MEZZO_TX_SEQ\u{1}0\u{2}");
    for _ in 0..2 {
        // the second time it is known already
        prepare(&store, at(0), "g", "MEZZO_TX\u{1}x\u{2}MEZZO_TX_SEQ\u{1}1\u{2}");
    }
    let second = prepare(&store, at(0), "g", "");
    let standing = store.standing();
    let counts = standing.counts;
    assert_eq!((counts.plain.messages, counts.delayed.messages, counts.half.messages), (1, 1, 3));
    assert!((100..300).contains(&counts.plain.bytes), "{}", counts.plain.bytes);
    assert_eq!(counts.prepared, 2);
    assert_eq!((standing.open, standing.in_doubt, standing.open_messages), (2, 0, 4));

    one(&store, Operation::Park { origin: second, reason: ParkReason::CheckMax });
    assert_eq!(store.standing().in_doubt, 1);
    end(&store, first, Outcome::Committed, Source::CheckBack);
    end(&store, first, Outcome::Committed, Source::Producer);
    end(&store, first, Outcome::RolledBack, Source::Producer);
    end(&store, second, Outcome::RolledBack, Source::Operator);
    let standing = store.standing();
    let counts = standing.counts;
    assert_eq!(counts.committed[source_index(Source::CheckBack)], 1);
    assert_eq!(counts.rolled_back[source_index(Source::Operator)], 1);
    assert_eq!(counts.committed.iter().chain(&counts.rolled_back).sum::<u64>(), 2);
    assert_eq!((counts.repeated, counts.conflicts, counts.parked), (1, 1, 1));
    assert_eq!((standing.open, standing.in_doubt, standing.open_messages), (0, 0, 1));
    assert!(store.appended_bytes() > 600 && store.log_bytes() >= store.appended_bytes());
}

#[test]
fn counts_begin_anew_with_each_opening_and_what_is_open_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let parked = prepare(&store, at(0), "g", "");
    one(&store, Operation::Park { origin: parked, reason: ParkReason::CheckMax });
    store.close(at(0)).unwrap();
    drop(store);
    let standing = open(dir.path()).standing();
    assert_eq!((standing.open, standing.in_doubt), (1, 1));
    assert_eq!((standing.counts.prepared, standing.counts.parked), (0, 0));
}

#[test]
fn a_census_names_the_groups_that_need_a_person_first_and_adds_up_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(store.census(at(0), 2), mezzo_storage::Census::default());
    let parked = prepare(&store, at(1_000), "few", "");
    one(&store, Operation::Park { origin: parked, reason: ParkReason::CheckMax });
    for (group, open) in [("most", 5), ("some", 3), ("other", 2)] {
        for _ in 0..open {
            prepare(&store, at(2_000), group, "");
        }
    }
    let census = store.census(at(9_000), 2);
    let named: Vec<_> = census.groups.iter().map(|(name, of)| (name.as_str(), *of)).collect();
    assert_eq!(
        named,
        [("few", OpenOfGroup { open: 1, in_doubt: 1 }), ("most", OpenOfGroup { open: 5, in_doubt: 0 })]
    );
    assert_eq!(census.others, OpenOfGroup { open: 5, in_doubt: 0 });
    assert_eq!(census.oldest_ms, Some(8_000));
    let group = GroupName::new("most").unwrap();
    assert!(store.census(at(9_000), 9).groups.iter().any(|(name, of)| *name == group && of.open == 5));
}
