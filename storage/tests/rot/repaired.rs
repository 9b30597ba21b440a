//! What a folder holds after the loss was accepted: everything whose bytes are readable, nothing that was not, no queue
//! offset with another message than before, and transactions whose decision may be lost in doubt.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use mezzo_protocol::ids::{QueueId, QueueOffset};
use mezzo_protocol::message::record::MessageView;
use mezzo_storage::file_system::{CrashMode, FileSystem, SimulatedDisk};
use mezzo_storage::verify::{NoProgress, VerifyReport, repair, verify};
use mezzo_storage::{OpenFilter, OpenState, OperationResult, Outcome, StorageError, Store};

use super::workload::{Fact, Random, TOPICS, World};

type Shown = BTreeMap<(usize, u64), String>;

pub(crate) fn verified(disk: &SimulatedDisk, what: &str) -> VerifyReport {
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    verify(&fs, Path::new("/data"), &mut NoProgress).unwrap_or_else(|e| panic!("{what}: verify: {e}"))
}

/// Accepts the loss, stopped and begun again at a random operation, and checks what is left.
pub(crate) fn check(
    world: &World,
    damaged: &SimulatedDisk,
    report: &VerifyReport,
    random: &mut Random,
    what: &str,
) {
    let mut disk = damaged.crash(CrashMode::KeepAll);
    let interrupted = damaged.crash(CrashMode::KeepAll);
    interrupted.fail_after_ops(random.below(30));
    let fs: Arc<dyn FileSystem> = Arc::new(interrupted.clone());
    if repair(&fs, Path::new("/data"), &mut NoProgress).is_err() {
        let mode = [CrashMode::KeepAll, CrashMode::LoseUnsynced, CrashMode::Seeded(random.below(1 << 40))]
            [random.below(3) as usize];
        disk = interrupted.crash(mode);
    }
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let done =
        repair(&fs, Path::new("/data"), &mut NoProgress).unwrap_or_else(|e| panic!("{what}: repair: {e}"));
    if std::env::var("MEZZO_ROT_SEED").is_ok() {
        println!("{what}: {done:?}");
    }
    let after = verified(&disk, what);
    assert!(!after.has_rot(), "{what}: still rotten: {:?}", after.damages);
    let again = repair(&fs, Path::new("/data"), &mut NoProgress).unwrap();
    assert!(again.accepted.is_empty() && !again.base_made && again.set_aside.is_empty(), "{what}: {again:?}");

    let (store, _) = world.open(&disk).unwrap_or_else(|e| panic!("{what}: after the repair: {e}"));
    let shown = shown(&store, what);
    facts(world, &store, &shown, report, what);
    // it goes on, behind everything
    let end = store.limit().0;
    assert!(end > world.end(), "{what}: positions are given again");
    let before = shown.len();
    for topic in 0..TOPICS.len() {
        world.send_one(&store, topic, &format!("new-{topic}"));
    }
    let mut now = self::shown(&store, what);
    assert_eq!(now.len(), before + TOPICS.len(), "{what}");
    let known: Vec<_> = world.facts.iter().filter_map(|(_, fact)| offset_of(fact)).collect();
    for (place, body) in now.iter().filter(|(_, body)| body.starts_with("new-")) {
        assert!(known.iter().all(|(of, _)| of != place), "{what}: {body} has an offset of another message");
    }
    store.close(world.now()).unwrap();
    drop(store);
    // all of it is a fold: without what is derived it is the same again
    for folder in ["checkpoint", "queues"] {
        for path in super::damage::files(&disk, folder) {
            disk.remove(&path).unwrap();
        }
    }
    let (store, _) = world.open(&disk).unwrap_or_else(|e| panic!("{what}: folded again: {e}"));
    let folded = self::shown(&store, what);
    now.retain(|place, _| folded.contains_key(place) || place.1 >= store_min(&store, place.0));
    assert_eq!(folded, now, "{what}: folded again");
}

fn store_min(store: &Store, topic: usize) -> u64 {
    store.topic(TOPICS[topic]).and_then(|t| t.queue(QueueId(0))).map_or(0, |q| q.min_offset().0)
}

fn offset_of(fact: &Fact) -> Option<((usize, u64), &str)> {
    match fact {
        Fact::Visible { topic, offset, body, .. } => Some(((*topic, *offset), body)),
        _ => None,
    }
}

fn shown(store: &Store, what: &str) -> Shown {
    let mut shown = Shown::new();
    for (number, name) in TOPICS.into_iter().enumerate() {
        let Some(queue) = store.topic(name).and_then(|topic| topic.queue(QueueId(0))) else { continue };
        let read = store.read_entries(&queue, QueueOffset(0), usize::MAX, &mut |_| true).unwrap();
        for (offset, entry) in read.entries {
            match store.read_message(&entry) {
                Ok(message) => {
                    let view = MessageView::parse(&message.bytes).unwrap();
                    shown.insert((number, offset), String::from_utf8(view.body().to_vec()).unwrap());
                }
                Err(StorageError::Gone { .. }) => {}
                Err(other) => panic!("{what}: an entry without a message: {other}"),
            }
        }
    }
    shown
}

fn facts(world: &World, store: &Store, shown: &Shown, report: &VerifyReport, what: &str) {
    let parts: Vec<(u64, u64)> = report
        .damages
        .iter()
        .filter_map(|d| d.lost.as_ref())
        .flat_map(|lost| lost.positions.clone())
        .collect();
    let is_lost = |position: u64| parts.iter().any(|(from, to)| (*from..*to).contains(&position));
    // a frame is lost with any of its bytes: facts of one record each
    let frame_lost = |end: u64| {
        let start = world.frame_start(end);
        parts.iter().any(|(from, to)| *from < end && start < *to)
    };
    let cut = |end: u64| end > report.end;
    let first = store.first_position().0;
    let by_body: BTreeMap<&str, u64> = shown.iter().map(|((_, o), b)| (b.as_str(), *o)).collect();
    let open: BTreeMap<u64, bool> = store
        .open_transactions_page(&OpenFilter::default(), world.now(), None, usize::MAX)
        .iter()
        .map(|open| (open.transaction.origin.0, open.transaction.state == OpenState::InDoubt))
        .collect();
    for (end, fact) in &world.facts {
        match fact {
            Fact::Visible { topic, offset, body, position } => {
                let other = shown.get(&(*topic, *offset)).filter(|other| *other != body);
                assert_eq!(other, None, "{what}: {topic}/{offset} was {body}");
                let gone = position.is_some_and(|p| is_lost(p) || p < first);
                let caused = frame_lost(*end) || cut(*end);
                assert!(
                    by_body.contains_key(body.as_str()) || gone || caused,
                    "{what}: {body} is readable at {position:?} and not served"
                );
            }
            Fact::Decided { origin, key, outcome } => {
                if frame_lost(*end) || cut(*end) {
                    // it may have been decided: it is there in doubt, or gone itself, but nobody decides it again unasked
                    if let Some(in_doubt) = open.get(origin) {
                        assert!(*in_doubt || cut(*end), "{what}: {origin} would be asked again");
                    }
                    continue;
                }
                if is_lost(*origin) || *origin < first {
                    continue;
                }
                for asked in [Outcome::Committed, Outcome::RolledBack] {
                    match world.end_again(store, *origin, key, asked) {
                        Ok(OperationResult::AlreadyDecided(known)) => {
                            assert_eq!((known.outcome, asked), (*outcome, *outcome), "{what}: {origin}");
                        }
                        Ok(OperationResult::Conflict(known)) => {
                            assert_eq!(known.outcome, *outcome, "{what}: {origin}");
                            assert_ne!(asked, *outcome, "{what}: {origin}");
                        }
                        other => panic!("{what}: END of {origin}, which was {outcome:?}: {other:?}"),
                    }
                }
            }
            Fact::Open { origin, .. } => {
                let gone = is_lost(*origin) || frame_lost(*end) || cut(*end);
                assert!(open.contains_key(origin) || gone, "{what}: transaction {origin} is gone");
            }
        }
    }
    for body in shown.values() {
        assert!(world.sent.contains(body), "{what}: {body} was never sent");
        assert!(!world.dead.contains(body), "{what}: {body} was rolled back");
    }
}
