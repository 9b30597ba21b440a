//! The comparisons.

use std::path::PathBuf;
use std::sync::Arc;

use mezzo_protocol::ids::PhysicalOffset;
use mezzo_protocol::time::Timestamp;

use super::digest;
use super::script::Script;
use super::side::{Copied, Sides, copied, same, through_a_checkpoint};
use crate::batch::Batch;
use crate::file_system::{CrashMode, SimulatedDisk};
use crate::options::{AckLevel, StoreOptions};
use crate::state::transactions::history::History;
use crate::store::{NoObserver, Store};

const SEGMENT_BYTES: u64 = 16 << 10;

struct Running {
    disk: SimulatedDisk,
    ack: AckLevel,
    store: Arc<Store>,
    sides: Sides,
    /// Records up to here are on the other sides.
    followed: u64,
    now: u64,
}

fn start(disk: &SimulatedDisk, ack: AckLevel, now: u64) -> Arc<Store> {
    let options = StoreOptions {
        ack,
        segment_bytes: SEGMENT_BYTES,
        frame_bytes_max: 4 << 10,
        nonce: Some([7; 16]),
        retention_ms: 20_000,
        checkpoint_bytes: 8 << 10,
        ..StoreOptions::new("/data")
    };
    let fs = Arc::new(disk.clone());
    let (store, _) = Store::open(fs, options, Timestamp::from_ms(now), Arc::new(NoObserver)).unwrap();
    while store.prepare_step().unwrap() {}
    store
}

impl Running {
    fn new(ack: AckLevel) -> Self {
        let (disk, now) = (SimulatedDisk::new(), 1_700_000_000_000);
        let store = start(&disk, ack, now);
        let mut running = Self { disk, ack, store, sides: Sides::new(SEGMENT_BYTES), followed: 0, now };
        running.compare();
        running
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_ms(self.now)
    }

    /// Frames that have come since.
    fn new_frames(&mut self) -> Vec<Vec<Copied>> {
        let mut frames = Vec::new();
        let end = self.store.log.appended();
        let from = self.followed.max(self.store.log.first_position());
        self.store
            .log
            .scan(from, end, &mut |frame| {
                frames.push(copied(frame));
                Ok(())
            })
            .unwrap();
        self.followed = end;
        frames
    }

    fn compare(&mut self) {
        for frame in self.new_frames() {
            self.sides.follow(&frame);
        }
        self.store.sync().unwrap();
        let appender = self.store.appender();
        let (ledger, plain) = (&appender.ledger, &mut self.sides.plain);
        same("the running store", &digest::of(ledger), &digest::of(plain));
        plain.segments.drop_before(self.store.log.first_position());
        same("what retention goes by", &digest::segments(ledger), &digest::segments(plain));
        let first = self.store.log.first_position();
        let history =
            History::open(Arc::new(self.disk.clone()), PathBuf::from("/data/history"), SEGMENT_BYTES, first);
        let restored = through_a_checkpoint(ledger, history.unwrap(), SEGMENT_BYTES);
        same("a checkpoint", &digest::of(&restored), &digest::of(ledger));
        same("what a checkpoint adds", &digest::beyond_base(&restored), &digest::beyond_base(ledger));
        same("ids that are decided", &digest::decided_ids(&restored), &digest::decided_ids(ledger));
    }

    fn restart(&mut self, in_order: bool) {
        if in_order {
            self.store.close(self.time()).unwrap();
        }
        // the old one lets go of its lock first
        let (disk, ack, now) = (self.disk.crash(CrashMode::KeepAll), self.ack, self.now);
        self.disk = disk;
        self.store = start(&self.disk, ack, now);
        self.compare();
    }

    fn keep(&mut self) {
        // a base is read from what was followed before it goes
        self.compare();
        self.store.keep(self.time()).unwrap();
        while self.store.prepare_step().unwrap() {}
        self.compare();
    }
}

fn run(seed: u64, ack: AckLevel, steps: usize) {
    let mut running = Running::new(ack);
    let mut script = Script::new(seed);
    for _ in 0..steps {
        running.now += script.random.below(60);
        match script.random.below(80) {
            0 => running.restart(true),
            1 => running.restart(false),
            2..=4 => running.keep(),
            5..=7 => {
                script.report(&running.store);
                running.store.flush_offsets(running.time()).unwrap();
                running.compare();
            }
            8 => running.now += 30_000,
            _ => {
                let mut batch = Batch::default();
                for _ in 0..=script.random.below(3) {
                    script.step(&running.store, running.now, &mut batch);
                }
                running.store.append(running.time(), &mut batch).unwrap();
                script.came(&batch);
                running.compare();
            }
        }
    }
    // every decision is known, in memory or in a file
    let history = running.sides.plain.history.as_ref().unwrap();
    for (_, row) in history.recent_rows() {
        assert_eq!(running.store.history.find(row.origin).unwrap(), Some(row), "seed {seed}");
        let decision = running.store.transaction_record(PhysicalOffset(row.origin)).unwrap();
        assert!(decision.is_some_and(|record| record.decision.is_some()));
    }
    let open = running.sides.plain.open_messages();
    assert!(history.recent_rows().len() > 10, "seed {seed} decided little; open {open}");
}

#[test]
fn a_restart_a_checkpoint_and_a_base_hold_what_the_running_store_held_after_every_frame() {
    for seed in 0..12 {
        let ack = if seed % 4 == 3 { AckLevel::Memory } else { AckLevel::Durable };
        let ran = std::panic::catch_unwind(|| run(seed, ack, 250));
        assert!(ran.is_ok(), "with seed {seed}");
    }
}
