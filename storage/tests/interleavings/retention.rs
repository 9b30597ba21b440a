//! Deleting the oldest segment beside appends, decisions, readers and the scrub.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mezzo_protocol::ids::{QueueId, QueueOffset};
use mezzo_storage::{
    AckLevel, NoObserver, OperationResult, Outcome, Scrub, StorageError, StoreOptions, Visibility,
};
use shuttle::thread;

use crate::world::{LATER, World, bodies, body_of, in_orders, options};

/// A body so long that four of them are a segment.
fn long(name: &str) -> String {
    format!("{name}--{}", name.repeat(7000 / name.len()))
}

/// The store goes on living for a while: what is old is carried on or deleted, and its space given back.
fn keep(world: &World, steps: usize) {
    for _ in 0..steps {
        world.prepare();
        world.store.keep_step(LATER).unwrap();
    }
}

/// Nobody was told of damage, and nobody would have been killed.
fn is_sound(world: &World) {
    let damage = world.store.damage_counts();
    assert_eq!((damage.damaged_reads, damage.scrub_damages), (0, 0), "there is no damage");
    assert_eq!(world.disk.cuts_of_maps(), 0, "a file was cut under a reader");
}

#[test]
fn a_half_that_is_decided_while_it_is_carried_is_there_once() {
    // decided first, it keeps its segment; carried first, it does not
    let deleted = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let counted = Arc::clone(&deleted);
    in_orders(400, move || {
        let world = World::new(AckLevel::Durable);
        let (_, result) = world.append("half", Visibility::Prepared { delay_ms: None });
        let OperationResult::Prepared { origin, .. } = result else { panic!("{result:?}") };
        for name in ["a", "b", "c", "d", "e", "f"] {
            world.prepare();
            world.append(&long(name), Visibility::Now);
        }
        // so that the keeper carries at once
        world.store.checkpoint(false).unwrap();
        let first = world.store.first_position();
        let keeper = Arc::clone(&world);
        let mut threads = vec![thread::spawn(move || keep(&keeper, 5))];
        let decider = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            let decided = decider.end(LATER, origin, Outcome::Committed);
            assert!(matches!(decided, OperationResult::Decided(_)), "{decided:?}");
        }));
        let writer = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            let (end, _) = writer.try_append(LATER, QueueId(0), &["new"], Visibility::Now).unwrap();
            writer.wait_for(end);
        }));
        let cut = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            let seen = bodies(&cut.store).contains("half");
            let after = cut.after_power_cut();
            assert!(!seen || bodies(&after).contains("half"), "a power cut took back what was seen");
            assert_eq!(after.open_messages() + usize::from(bodies(&after).contains("half")), 1);
        }));
        for thread in threads {
            thread.join().unwrap();
        }
        keep(&world, 20);
        is_sound(&world);
        counted[usize::from(world.store.first_position() > first)].fetch_add(1, Ordering::Relaxed);
        for store in [&world.store, &world.after_power_cut()] {
            let there = bodies(store);
            assert!(
                there.contains("half") && there.contains("new"),
                "{:?}",
                there.iter().map(|b| &b[..1]).collect::<Vec<_>>()
            );
            assert_eq!(store.open_messages(), 0);
        }
    });
    assert!(deleted.iter().all(|orders| orders.load(Ordering::Relaxed) > 0), "{deleted:?}");
}

#[test]
fn readers_and_the_scrub_find_a_message_whole_or_gone_while_its_segment_is_deleted() {
    for hot_bytes in [0, 64 << 10] {
        in_orders(300, move || {
            let options = StoreOptions { hot_bytes, ..options(AckLevel::Memory) };
            let world = World::made(options.clone(), 1, Arc::new(NoObserver));
            let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
            for name in names {
                world.prepare();
                world.append(&long(name), Visibility::Now);
            }
            world.store.sync().unwrap();
            // so that no file is open yet, and the first segment may go at once
            let world = world.started_again(options);
            world.store.checkpoint(false).unwrap();
            let queue = world.store.topic("t").unwrap().queue(QueueId(0)).unwrap();
            let entries = world.store.read_entries(&queue, QueueOffset(0), 9, &mut |_| true).unwrap().entries;
            let keeper = Arc::clone(&world);
            let mut threads = vec![thread::spawn(move || keep(&keeper, 3))];
            let reader = Arc::clone(&world);
            threads.push(thread::spawn(move || {
                for ((_, entry), name) in entries.iter().zip(names) {
                    match reader.store.read_message(entry) {
                        Ok(message) => assert!(body_of(&message.bytes) == long(name)),
                        Err(StorageError::Gone { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }));
            let other = Arc::clone(&world);
            threads.push(thread::spawn(move || {
                let all = names.map(long);
                assert!(bodies(&other.store).iter().all(|body| all.contains(body)));
            }));
            let scrubber = Arc::clone(&world);
            threads.push(thread::spawn(move || {
                let mut scrub = Scrub::Log(0);
                for _ in 0..4 {
                    scrubber.store.scrub_step(&mut scrub).unwrap();
                }
            }));
            for thread in threads {
                thread.join().unwrap();
            }
            is_sound(&world);
            assert!(world.store.retention_figures().segments > 0, "nothing was deleted");
        });
    }
}

#[test]
fn a_file_is_not_cut_while_somebody_holds_bytes_of_it() {
    let held_hot = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&held_hot);
    in_orders(400, move || {
        // the first message is read through a map, and soon is too old for one
        let options = StoreOptions { hot_bytes: 42 << 10, ..options(AckLevel::Memory) };
        let world = World::made(options, 1, Arc::new(NoObserver));
        for name in ["a", "b", "c", "d", "e"] {
            world.prepare();
            world.append(&long(name), Visibility::Now);
        }
        world.store.sync().unwrap();
        let (reader, counted) = (Arc::clone(&world), Arc::clone(&counter));
        let reads = thread::spawn(move || {
            let queue = reader.store.topic("t").unwrap().queue(QueueId(0)).unwrap();
            let read = reader.store.read_entries(&queue, QueueOffset(0), 1, &mut |_| true).unwrap();
            let Some((_, entry)) = read.entries.first() else { return };
            let was_hot = reader.store.is_hot(entry);
            let Ok(held) = reader.store.read_message(entry) else { return };
            counted.fetch_add(usize::from(was_hot), Ordering::Relaxed);
            for _ in 0..6 {
                thread::yield_now();
                assert_eq!(reader.disk.cuts_of_maps(), 0, "a file was cut under a reader");
            }
            assert_eq!(body_of(&held.bytes).len(), long("a").len());
        });
        let life = Arc::clone(&world);
        let goes_on = thread::spawn(move || {
            for name in ["f", "g", "h", "i", "j"] {
                life.prepare();
                life.try_append(LATER, QueueId(0), &[&long(name)], Visibility::Now).unwrap();
            }
            life.store.sync().unwrap();
            keep(&life, 6);
        });
        reads.join().unwrap();
        goes_on.join().unwrap();
        assert!(world.store.first_position().0 > 0, "nothing was deleted");
        is_sound(&world);
    });
    assert!(held_hot.load(Ordering::Relaxed) > 0, "nothing was read through a map");
}
