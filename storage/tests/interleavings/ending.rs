//! The store ends, in order or not, while others append, sync and wait.

use std::sync::Arc;

use mezzo_protocol::ids::QueueId;
use mezzo_protocol::time::{Clock, Timestamp};
use mezzo_storage::file_system::CrashMode;
use mezzo_storage::{AckLevel, StoreObserver, Visibility};
use shuttle::sync::atomic::Ordering;
use shuttle::thread;

use crate::world::{Limit, T0, World, bodies, in_orders, open};

/// Sends, and is told in the end that it is durable, or that the store has ended. As a broker does, which leaves a sync
/// that is under way to the syncer.
fn sends(world: &World, limit: &Limit, body: &str) {
    let Ok((end, _)) = world.try_append(T0, QueueId(0), &[body], Visibility::Now) else { return };
    if !world.store.sync_now_if_idle(end) {
        world.store.request_sync();
    }
    if limit.wait_for(end) {
        world.acknowledged.lock().unwrap().insert(body.to_owned());
    }
}

fn watched(ack: AckLevel) -> (Arc<World>, Arc<Limit>) {
    let limit = Arc::new(Limit::default());
    (World::watched_by(ack, Arc::clone(&limit) as Arc<dyn StoreObserver>), limit)
}

#[test]
fn a_failed_sync_or_write_is_told_to_all_who_wait_and_nothing_is_acknowledged_that_is_not_durable() {
    for (sync, write) in [(Some(1), None), (Some(2), None), (None, Some(2))] {
        in_orders(300, move || {
            let (world, limit) = watched(AckLevel::Durable);
            if let Some(n) = sync {
                world.disk.fail_sync(n);
            }
            if let Some(n) = write {
                world.disk.fail_write(n);
            }
            let mut threads = Vec::new();
            for body in ["a", "b", "c"] {
                let (world, limit) = (Arc::clone(&world), Arc::clone(&limit));
                threads.push(thread::spawn(move || sends(&world, &limit, body)));
            }
            let syncer = Arc::clone(&world);
            let syncs = thread::spawn(move || {
                while !syncer.is_over.load(Ordering::SeqCst) && syncer.store.sync_step().is_ok() {
                    thread::yield_now();
                }
            });
            for thread in threads {
                thread.join().unwrap();
            }
            world.is_over.store(true, Ordering::SeqCst);
            syncs.join().unwrap();
            assert_eq!(limit.is_fenced(), world.store.is_fenced(), "who waits hears of it");
            let acknowledged = world.acknowledged.lock().unwrap().clone();
            assert!(bodies(&world.store).is_superset(&acknowledged));
            let seen = bodies(&world.store);
            assert!(bodies(&world.after_power_cut()).is_superset(&seen), "{seen:?} was shown and is lost");
        });
    }
}

#[test]
fn what_was_appended_before_a_stop_in_order_is_durable_after_it_and_the_rest_is_refused() {
    for ack in [AckLevel::Memory, AckLevel::Durable] {
        in_orders(400, move || {
            let (world, limit) = watched(ack);
            let mut threads = Vec::new();
            for writer in 0..2 {
                let world = Arc::clone(&world);
                threads.push(thread::spawn(move || {
                    for turn in 0..2 {
                        let body = format!("{writer}-{turn}");
                        if world.try_append(T0, QueueId(0), &[&body], Visibility::Now).is_err() {
                            return;
                        }
                        world.acknowledged.lock().unwrap().insert(body);
                    }
                }));
            }
            let syncer = Arc::clone(&world);
            threads.push(thread::spawn(move || {
                // refused once the end has come
                let _ = (syncer.store.sync(), syncer.store.sync_step());
            }));
            world.store.close(T0).unwrap();
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(!limit.is_fenced(), "a stop in order is no failure");
            let after = open(&world.disk.crash(CrashMode::LoseUnsynced), ack);
            let found = bodies(&after);
            assert_eq!(found, *world.acknowledged.lock().unwrap());
            assert_eq!(bodies(&world.store), found, "what was shown is what is there");
        });
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        T0
    }
}

#[test]
fn the_threads_of_a_store_leave_nobody_waiting_and_end_when_they_are_told() {
    for ack in [AckLevel::Durable, AckLevel::Memory] {
        in_orders(400, move || {
            let (world, limit) = watched(ack);
            let background = world.store.run_background(Arc::new(Still)).unwrap();
            let threads = ["a", "b"].map(|body| {
                let (world, limit) = (Arc::clone(&world), Arc::clone(&limit));
                thread::spawn(move || sends(&world, &limit, body))
            });
            for thread in threads {
                thread.join().unwrap();
            }
            background.stop();
            world.store.close(T0).unwrap();
            assert_eq!(world.acknowledged.lock().unwrap().len(), 2);
            assert_eq!(bodies(&world.after_power_cut()).len(), 2);
        });
    }
}
