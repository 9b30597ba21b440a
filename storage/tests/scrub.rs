//! Damage that comes while the broker runs: found by the scrub, met by a reader, and nobody else's concern.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod fixture;

use std::path::Path;
use std::sync::Arc;

use mezzo_protocol::ids::{QueueId, QueueOffset};
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::SimulatedDisk;
use mezzo_storage::{NoObserver, Scrub, ScrubStep, StorageError, Store, StoreOptions, Visibility};

use fixture::{T0 as NOW, put_topic, send_at};

/// A store with several closed segments.
fn filled(disk: &SimulatedDisk) -> Arc<Store> {
    let options = StoreOptions {
        segment_bytes: 32 << 10,
        frame_bytes_max: 8 << 10,
        // all but the newest bytes are read from the disk
        hot_bytes: 1024,
        nonce: Some([7; 16]),
        ..StoreOptions::new("/data")
    };
    let (store, _) = Store::open(Arc::new(disk.clone()), options, NOW, Arc::new(NoObserver)).unwrap();
    put_topic(&store);
    store.sync().unwrap();
    for number in 0..60 {
        let body = format!("{number}-{}", "x".repeat(2000));
        send_at(&store, NOW, Visibility::Now, body.as_bytes(), "");
        store.sync().unwrap();
        while store.prepare_step().unwrap() {}
    }
    store
}

fn round(store: &Store) {
    let mut scrub = Scrub::default();
    while store.scrub_step(&mut scrub).unwrap() != ScrubStep::RoundDone {}
}

#[test]
fn a_scrub_finds_a_flipped_bit_in_a_closed_segment_and_counts_it() {
    let disk = SimulatedDisk::new();
    let store = filled(&disk);
    round(&store);
    let sound = store.damage_counts();
    assert_eq!((sound.scrub_rounds, sound.scrub_damages), (1, 0));
    assert!(sound.scrubbed_bytes > 64 << 10, "{sound:?}");
    disk.flip_bit(Path::new("/data/log/00000000000000032768"), 5000, 3).unwrap();
    round(&store);
    let found = store.damage_counts();
    assert_eq!((found.scrub_rounds, found.scrub_damages), (2, 1));
    disk.flip_bit(Path::new("/data/base/00000000000000000001"), 100, 3).unwrap();
    round(&store);
    assert_eq!(store.damage_counts().scrub_damages, 3);
    assert!(!store.is_fenced());
}

#[test]
fn a_read_that_meets_damage_fails_alone_and_says_where() {
    let disk = SimulatedDisk::new();
    let store = filled(&disk);
    let queue = store.topic("t").unwrap().queue(QueueId(0)).unwrap();
    let entries = store.read_entries(&queue, QueueOffset(0), 60, &mut |_| true).unwrap().entries;
    let (_, hit) = entries[3];
    disk.flip_bit(Path::new("/data/log/00000000000000000000"), hit.position + 100, 0).unwrap();
    for (offset, entry) in &entries {
        match store.read_message(entry) {
            Ok(message) => assert_eq!(message.position.0, entry.position),
            Err(StorageError::Corrupt { file, offset: at, .. }) => {
                assert_eq!((*offset, file.as_path()), (3, Path::new("/data/log/00000000000000000000")));
                assert_eq!(at, hit.position);
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(store.damage_counts().damaged_reads, 1);
}

/// The nice value of this process's thread of that name.
#[cfg(target_os = "linux")]
fn niceness(thread: &str) -> Option<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.flatten().find_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (front, fields) = stat.rsplit_once(')')?;
        // the kernel keeps fifteen bytes of a name
        let named = thread.starts_with(front.split_once('(')?.1);
        named.then(|| fields.split_whitespace().nth(16)?.parse().ok()).flatten()
    })
}

#[cfg(target_os = "linux")]
#[test]
fn the_scrub_runs_when_nobody_else_wants_the_processor() {
    struct Still;
    impl mezzo_protocol::time::Clock for Still {
        fn now(&self) -> Timestamp {
            NOW
        }
    }
    let store = filled(&SimulatedDisk::new());
    let background = store.run_background(Arc::new(Still)).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    // both threads are there at their own time; the others stay as they are
    while (niceness("mezzo-scrubber"), niceness("mezzo-keeper")) != (Some(19), Some(0)) {
        let seen = (niceness("mezzo-scrubber"), niceness("mezzo-keeper"));
        assert!(std::time::Instant::now() < end, "{seen:?}");
        std::thread::yield_now();
    }
    background.stop();
}
