//! Append, sync, decide, read and checkpoint: what is acknowledged, seen and decided stays so.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use mezzo_storage::file_system::CrashMode;
use mezzo_storage::{AckLevel, OperationResult, Outcome, StoreObserver, Visibility};
use shuttle::sync::atomic::Ordering;
use shuttle::thread;

use crate::world::{FIRST_SEGMENT, Limit, T0, World, bodies, in_orders, open};

#[test]
fn whoever_waits_for_the_limit_is_woken_when_its_own_bytes_are_durable() {
    in_orders(2000, || {
        let limit = Arc::new(Limit::default());
        let world = World::watched_by(AckLevel::Durable, Arc::clone(&limit) as Arc<dyn StoreObserver>);
        let writers = ["a", "b"].map(|body| {
            let (world, limit) = (Arc::clone(&world), Arc::clone(&limit));
            thread::spawn(move || {
                let (end, _) = world.append(body, Visibility::Now);
                assert!(limit.wait_for(end), "fenced");
                let cut = world.disk.crash(CrashMode::LoseUnsynced);
                let durable = cut.content(Path::new(FIRST_SEGMENT)).unwrap();
                let is_there = durable.windows(3).any(|bytes| bytes == [1, body.as_bytes()[0], 2]);
                assert!(is_there, "{body} was acknowledged and is not on the disk");
            })
        });
        let syncer = Arc::clone(&world);
        let syncs = thread::spawn(move || {
            while !syncer.is_over.load(Ordering::SeqCst) {
                syncer.store.sync().unwrap();
                thread::yield_now();
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        world.is_over.store(true, Ordering::SeqCst);
        syncs.join().unwrap();
    });
}

#[test]
fn what_is_acknowledged_survives_a_power_cut_beside_a_checkpoint() {
    in_orders(400, || {
        let world = World::new(AckLevel::Durable);
        let mut threads = Vec::new();
        for writer in 0..2 {
            let world = Arc::clone(&world);
            threads.push(thread::spawn(move || {
                for turn in 0..2 {
                    world.send(&format!("{writer}-{turn}"));
                }
            }));
        }
        let keeper = Arc::clone(&world);
        threads.push(thread::spawn(move || keeper.store.checkpoint(false).unwrap()));
        let cut = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            thread::yield_now();
            let acknowledged = cut.acknowledged.lock().unwrap().clone();
            let after = open(&cut.disk.crash(CrashMode::LoseUnsynced), AckLevel::Durable);
            let found = bodies(&after);
            assert!(
                found.is_superset(&acknowledged),
                "{acknowledged:?} were acknowledged, {found:?} are there"
            );
        }));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(bodies(&world.store).len(), 4);
    });
}

#[test]
fn of_two_decisions_one_wins_and_both_hear_of_it() {
    in_orders(400, || {
        let world = World::new(AckLevel::Durable);
        let (end, result) = world.append("half", Visibility::Prepared { delay_ms: None });
        world.wait_for(end);
        let OperationResult::Prepared { origin, .. } = result else { panic!("{result:?}") };
        let decide = |outcome| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.end(T0, origin, outcome))
        };
        let (commit, rollback) = (decide(Outcome::Committed), decide(Outcome::RolledBack));
        let reader = Arc::clone(&world);
        let reads = thread::spawn(move || {
            let seen = bodies(&reader.store).contains("half");
            let after = open(&reader.disk.crash(CrashMode::LoseUnsynced), AckLevel::Durable);
            // whoever has seen a message sees it again, whatever happens
            assert!(!seen || bodies(&after).contains("half"), "a power cut took back what was seen");
        });
        let results = [commit.join().unwrap(), rollback.join().unwrap()];
        reads.join().unwrap();
        let visible = bodies(&world.store).contains("half");
        match &results {
            [OperationResult::Decided(_), OperationResult::Conflict(_)] => assert!(visible),
            [OperationResult::Conflict(_), OperationResult::Decided(_)] => assert!(!visible),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn readers_see_a_queue_that_only_grows_and_whose_messages_are_whole() {
    in_orders(400, || {
        let world = World::new(AckLevel::Memory);
        let mut threads = Vec::new();
        for writer in 0..2 {
            let world = Arc::clone(&world);
            threads.push(thread::spawn(move || {
                for turn in 0..2 {
                    world.append(&format!("{writer}-{turn}"), Visibility::Now);
                }
            }));
        }
        let syncer = Arc::clone(&world);
        threads.push(thread::spawn(move || syncer.store.sync().unwrap()));
        let reader = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            let mut before = BTreeSet::new();
            for _ in 0..4 {
                let now = bodies(&reader.store);
                assert!(now.is_superset(&before));
                before = now;
                thread::yield_now();
            }
        }));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(bodies(&world.store).len(), 4);
    });
}
