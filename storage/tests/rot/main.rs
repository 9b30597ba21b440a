//! Damage on the disk: a random workload, then one random damage to one random file of the folder, then a start. It is
//! either refused, naming a file of the log or the base, again and again and without a change; or it serves every
//! acknowledged message and decision, except what the damage itself has hit, which is answered as damaged and never
//! with other bytes. What was not known synced may be cut as a torn tail.
//!
//! `MEZZO_ROT_SEEDS` asks for more seeds, `MEZZO_ROT_SEED` for a single one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod damage;
mod repaired;
mod workload;

use mezzo_protocol::ids::QueueOffset;
use mezzo_protocol::message::record::MessageView;
use mezzo_storage::file_system::{CrashMode, SimulatedDisk};
use mezzo_storage::{OpenFilter, OperationResult, Outcome, StorageError, Store};

use damage::{Damage, Kind};
use workload::{Fact, Random, TOPICS, World};

const SEEDS: u64 = 250;

/// What became of a damaged folder.
#[derive(Debug, Default)]
struct Tally {
    refused: u32,
    served: u32,
    /// Messages whose bytes the damage has hit and that were answered as damaged.
    damaged_messages: u32,
    cut: u32,
    /// Folders whose loss was accepted.
    repaired: u32,
}

#[test]
fn damage_anywhere_is_refused_with_its_place_or_harms_nothing_but_itself() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seeds = match number("MEZZO_ROT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("MEZZO_ROT_SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start > 100;
    let mut tally = Tally::default();
    for seed in seeds {
        one(seed, &mut tally);
    }
    println!("{tally:?}");
    if many {
        let seen = [tally.refused, tally.served, tally.damaged_messages, tally.cut, tally.repaired];
        assert!(seen.iter().all(|count| *count > 0), "a kind of outcome was never met: {tally:?}");
    }
}

fn one(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let world = World::make(&mut random);
    let disk = world.disk.crash(CrashMode::KeepAll);
    let damage = Damage::draw(&disk, &mut random);
    let what = format!("seed {seed}, {damage:?}");
    damage.inflict(&disk);
    let before = primary(&disk);
    let report = repaired::verified(&disk, &what);
    assert_eq!(primary(&disk), before, "{what}: a check has changed the folder");
    if report.has_rot() {
        assert!(matches!(damage.kind, Kind::Log | Kind::Base), "{what}: {:?}", report.damages);
        repaired::check(&world, &disk, &report, &mut random, &what);
        tally.repaired += 1;
    }
    match world.open(&disk) {
        Err(StorageError::Corrupt { file, offset, reason }) => {
            let named = file.starts_with("/data/log") || file.starts_with("/data/base");
            assert!(named, "{what}: refused for {} at {offset}: {reason}", file.display());
            assert!(
                matches!(damage.kind, Kind::Log | Kind::Base),
                "{what}: derived files are rebuilt, yet: {} at {offset}: {reason}",
                file.display()
            );
            assert_eq!(primary(&disk), before, "{what}: a refused start has changed the folder");
            let again = world.open(&disk);
            assert!(matches!(again, Err(StorageError::Corrupt { .. })), "{what}: not refused again");
            assert!(report.has_rot(), "{what}: refused, but the check finds {:?}", report.damages);
            tally.refused += 1;
        }
        Err(other) => panic!("{what}: {other}"),
        Ok((store, opened)) => {
            tally.served += 1;
            tally.cut += u32::from(opened.log.cut.is_some());
            let damaged_before = tally.damaged_messages;
            check(&world, &store, &damage, &what, tally);
            let served_all = damaged_before == tally.damaged_messages;
            assert!(served_all || report.has_rot(), "{what}: damaged, but the check finds no rot");
        }
    }
}

/// Everything that a refused start must leave alone.
fn primary(disk: &SimulatedDisk) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let names = ["log", "base", "checkpoint"].into_iter().flat_map(|folder| damage::files(disk, folder));
    names.map(|path| (path.clone(), disk.content(&path).unwrap())).collect()
}

fn check(world: &World, store: &Store, damage: &Damage, what: &str, tally: &mut Tally) {
    let known_synced = world.known_synced(damage);
    let first = store.first_position().0;
    let excused = |end: u64| damage.kind == Kind::Log && end > known_synced;
    let mut shown = std::collections::BTreeMap::new();
    for (number, name) in TOPICS.into_iter().enumerate() {
        let Some(topic) = store.topic(name) else {
            assert!(excused(world.topics_end), "{what}: topic {name} is gone");
            continue;
        };
        let queue = topic.queue(mezzo_protocol::ids::QueueId(0)).unwrap();
        let read = store.read_entries(&queue, QueueOffset(0), usize::MAX, &mut |_| true);
        for (offset, entry) in read.unwrap_or_else(|e| panic!("{what}: {e}")).entries {
            let body = match store.read_message(&entry) {
                Ok(message) => {
                    let view = MessageView::parse(&message.bytes).unwrap();
                    Some(String::from_utf8(view.body().to_vec()).unwrap())
                }
                Err(StorageError::Corrupt { file, .. }) => {
                    assert_eq!(file, damage.path, "{what}");
                    tally.damaged_messages += 1;
                    None
                }
                // retention took it; entries stay until those in front of them go
                Err(StorageError::Gone { .. }) if entry.position < first => continue,
                Err(other) => panic!("{what}: {other}"),
            };
            shown.insert((number, offset), (entry.position, body));
        }
    }
    let open: Vec<u64> = store
        .open_transactions_page(&OpenFilter::default(), world.now(), None, usize::MAX)
        .iter()
        .map(|open| open.transaction.origin.0)
        .collect();
    for (end, fact) in &world.facts {
        match fact {
            Fact::Visible { topic, offset, body, position } => match shown.remove(&(*topic, *offset)) {
                Some((_, Some(read))) => assert_eq!(read, *body, "{what}: other bytes at {topic}/{offset}"),
                Some((_, None)) => assert!(damage.kind == Kind::Log, "{what}"),
                None => assert!(
                    excused(*end) || position.is_some_and(|p| p < first),
                    "{what}: {body} at {topic}/{offset} is gone; its record ends at {end}, known synced {known_synced}"
                ),
            },
            Fact::Decided { origin, key, outcome } => {
                for asked in [Outcome::Committed, Outcome::RolledBack] {
                    decided(world, store, (*origin, key, *outcome), asked, excused(*end), damage, what);
                }
            }
            Fact::Open { origin, .. } => {
                assert!(open.contains(origin) || excused(*end), "{what}: transaction {origin} is gone");
            }
        }
    }
    // of what is cut the earlier state may show: nothing else may
    let invented: Vec<_> = shown
        .into_iter()
        .filter(|(_, (_, body))| {
            body.as_ref().is_some_and(|b| !world.sent.contains(b) || world.dead.contains(b))
        })
        .collect();
    assert!(invented.is_empty(), "{what}: never sent, or rolled back: {invented:?}");
}

/// The decision stands, or cannot be read: it is never taken again, and never answered wrongly.
fn decided(
    world: &World,
    store: &Store,
    (origin, key, outcome): (u64, &str, Outcome),
    asked: Outcome,
    excused: bool,
    damage: &Damage,
    what: &str,
) {
    match world.end_again(store, origin, key, asked) {
        Ok(OperationResult::AlreadyDecided(known)) => {
            assert_eq!((known.outcome, asked), (outcome, outcome), "{what}: {origin}");
        }
        Ok(OperationResult::Conflict(known)) => {
            assert_eq!(known.outcome, outcome, "{what}: {origin}");
            assert_ne!(asked, outcome, "{what}: {origin}");
        }
        Ok(OperationResult::Refused(_)) | Err(_) if excused || damage.kind == Kind::History => {}
        Ok(OperationResult::Decided(_)) if excused => {}
        other => panic!("{what}: END of {origin}, which was {outcome:?}: {other:?}"),
    }
}
