//! What a folder holds after the loss was accepted: everything whose bytes are readable, nothing that was not, no queue
//! offset with another message than before, and transactions whose decision may be lost in doubt.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use mezzo_protocol::ids::{QueueId, QueueOffset};
use mezzo_protocol::message::record::MessageView;
use mezzo_storage::file_system::{CrashMode, DiskOperation, DiskOperationKind, FileSystem, SimulatedDisk};
use mezzo_storage::verify::{NoProgress, VerifyReport, repair, verify};
use mezzo_storage::{OpenFilter, OpenState, OperationResult, Outcome, StorageError, Store};

use super::damage::Damage;
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
    check_repaired(world, &disk, report, what);
}

/// Accepts the loss on a disk, whole or interrupted before, and checks what is left.
fn check_repaired(world: &World, disk: &SimulatedDisk, report: &VerifyReport, what: &str) {
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let done =
        repair(&fs, Path::new("/data"), &mut NoProgress).unwrap_or_else(|e| panic!("{what}: repair: {e}"));
    if std::env::var("MEZZO_ROT_SEED").is_ok() {
        println!("{what}: {done:?}");
    }
    let after = verified(disk, what);
    assert!(!after.has_rot(), "{what}: still rotten: {:?}", after.damages);
    let again = repair(&fs, Path::new("/data"), &mut NoProgress).unwrap();
    assert!(again.accepted.is_empty() && !again.base_made && again.set_aside.is_empty(), "{what}: {again:?}");
    // what the command has done outlives a power cut
    let disk = &disk.crash(CrashMode::LoseUnsynced);

    let (store, _) = world.open(disk).unwrap_or_else(|e| panic!("{what}: after the repair: {e}"));
    let shown = shown(&store, what);
    facts(world, &store, &shown, report, what);
    // it goes on, behind everything
    let end = store.limit().0;
    assert!(end > world.end().max(highest_aside(disk)), "{what}: positions are given again");
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
        for path in super::damage::files(disk, folder) {
            disk.remove(&path).unwrap();
        }
    }
    let (store, _) = world.open(disk).unwrap_or_else(|e| panic!("{what}: folded again: {e}"));
    let folded = self::shown(&store, what);
    now.retain(|place, _| folded.contains_key(place) || place.1 >= store_min(&store, place.0));
    assert_eq!(folded, now, "{what}: folded again");
}

/// Position that the last file of the log that was set aside is named by.
fn highest_aside(disk: &SimulatedDisk) -> u64 {
    let names = disk.list(Path::new("/data/damaged")).unwrap_or_default();
    names.iter().filter_map(|name| name.strip_prefix("log-")?.parse().ok()).max().unwrap_or(0)
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

/// What the repairs that are stopped must have done between them: kind of operation, and part of the path.
const REPAIRS_DO: [(DiskOperationKind, &str); 6] = [
    // the tail that will be cut is copied
    (DiskOperationKind::Write, "/data/damaged/log-"),
    (DiskOperationKind::Rename, "/data/damaged/history-"),
    (DiskOperationKind::Rename, "/data/base/"),
    (DiskOperationKind::Rename, "/data/damaged/base-"),
    // files that no link reaches, and the higher name before the highest goes
    (DiskOperationKind::Create, "/data/log/"),
    (DiskOperationKind::Rename, "/data/damaged/log-"),
];
/// Seeds among which all of that must be found.
const SEEDS_MAX: u64 = 250;

#[test]
fn a_repair_stopped_at_every_disk_operation_can_be_given_again() {
    let mut not_done = REPAIRS_DO.to_vec();
    for seed in 1..=SEEDS_MAX {
        let mut random = Random::new(seed);
        let world = World::make(&mut random);
        let disk = world.disk.crash(CrashMode::KeepAll);
        let damage = Damage::draw(&disk, &mut random);
        damage.inflict(&disk);
        let what = format!("seed {seed}, {damage:?}");
        let report = verified(&disk, &what);
        if !report.has_rot() {
            continue;
        }
        let operations = operations_of_repair(&disk, &what);
        let before = not_done.len();
        not_done.retain(|step| !operations.iter().any(|operation| is(operation, step)));
        if not_done.len() < before {
            stop_everywhere(&world, &disk, &operations, &report, &what);
        }
        if not_done.is_empty() {
            return;
        }
    }
    panic!("no repair does {not_done:?}");
}

fn is(operation: &DiskOperation, (kind, part): &(DiskOperationKind, &str)) -> bool {
    operation.kind == *kind && operation.path.to_string_lossy().contains(part)
}

fn operations_of_repair(damaged: &SimulatedDisk, what: &str) -> Vec<DiskOperation> {
    let whole = damaged.crash(CrashMode::KeepAll);
    whole.record_operations();
    let fs: Arc<dyn FileSystem> = Arc::new(whole.clone());
    repair(&fs, Path::new("/data"), &mut NoProgress).unwrap_or_else(|e| panic!("{what}: repair: {e}"));
    whole.recorded()
}

/// The command dies before each of its operations, and is given again.
fn stop_everywhere(
    world: &World,
    damaged: &SimulatedDisk,
    operations: &[DiskOperation],
    report: &VerifyReport,
    what: &str,
) {
    for (stop, next) in operations.iter().enumerate() {
        let dying = damaged.crash(CrashMode::KeepAll);
        dying.fail_after_ops(stop as u64);
        let fs: Arc<dyn FileSystem> = Arc::new(dying.clone());
        assert!(repair(&fs, Path::new("/data"), &mut NoProgress).is_err(), "{what}: it outlived its disk");
        for mode in [CrashMode::KeepAll, CrashMode::LoseUnsynced, CrashMode::Seeded(stop as u64)] {
            let what = format!("{what}: stopped before {next}, {mode:?}");
            let left = dying.crash(mode);
            // in between it is refused as before, or served as far as it can be read
            let started = world.open(&left.crash(CrashMode::KeepAll));
            assert!(
                matches!(started, Ok(_) | Err(StorageError::Corrupt { .. })),
                "{what}: {:?}",
                started.err()
            );
            if is(next, &(DiskOperationKind::SyncFolder, "/data/base")) && mode == CrashMode::KeepAll {
                start_before_the_base_is_durable(world, &left, report, &what);
            }
            check_repaired(world, &left, report, &what);
        }
    }
}

/// The loss is accepted in memory only, and a start dies on top of it: a power cut then leaves a folder that is refused as
/// before, or repaired, and never one in which the loss is passed over unsaid.
fn start_before_the_base_is_durable(world: &World, left: &SimulatedDisk, report: &VerifyReport, what: &str) {
    for stop in 0.. {
        let starting = left.crash(CrashMode::KeepAll);
        starting.fail_after_ops(stop);
        // one that is refused, since there is more to set aside, has ended, too
        let finished = world.open(&starting).is_ok() || !starting.has_died();
        for mode in [CrashMode::LoseUnsynced, CrashMode::Seeded(stop), CrashMode::Seeded(stop + 1000)] {
            let what = format!("{what}, a start behind it stopped at operation {stop}, {mode:?}");
            check_repaired(world, &starting.crash(mode), report, &what);
        }
        if finished {
            return;
        }
    }
}
