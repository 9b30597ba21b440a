//! Stops, in order and by a crash, and what the model goes on from.

use std::sync::Arc;

use mezzo_protocol::ids::QueueId;
use mezzo_storage::file_system::CrashMode;
use mezzo_storage::{AckLevel, NoObserver, OpenReport, OperationResult, Store, StoreOptions};

use super::model::{
    At, Fault, HORIZON_MS, OPEN_MESSAGES_MAX, RETENTION_MS, TRANSACTION_BYTES_MAX, TRANSACTION_MESSAGES_MAX,
    same,
};
use super::names::{consumer_name, topic_name};
use super::once::WINDOW_MS;
use super::policies::POLICY;
use super::run::{Change, Run, Stop};
use super::steps::Crash;

const SEGMENT_BYTES: u64 = 32 << 10;
/// More than the first frame of a segment takes, less than it takes with another.
const SEGMENT_HEAD_MAX: u64 = 128;
/// By which the offsets of all queues rise after an unclean stop at acknowledgement `memory`: twice the messages that
/// may wait for a sync.
const JUMP: u64 = 2 << 20;

fn options(ack: AckLevel) -> StoreOptions {
    StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        frame_bytes_max: 8 << 10,
        ack,
        nonce: Some([7; 16]),
        retention_ms: RETENTION_MS,
        history_horizon_ms: HORIZON_MS,
        open_messages_max: OPEN_MESSAGES_MAX,
        transaction_messages_max: TRANSACTION_MESSAGES_MAX,
        transaction_bytes_max: TRANSACTION_BYTES_MAX,
        dedup_window_ms: WINDOW_MS,
        dedup_table_bytes: 1 << 16,
        checkpoint_bytes: 48 << 10,
        check: POLICY,
        ..StoreOptions::new("/data")
    }
}

impl Run {
    /// Stops in order and starts again: nothing is lost.
    pub(super) fn restart(&mut self) -> Result<(), Stop> {
        let store = self.store();
        store.close(self.time()).map_err(|e| self.stop(e))?;
        self.flushed(&store);
        self.all_synced()?;
        if self.model.fault == Fault::RestartForgets {
            self.durable.decided.clear();
        }
        drop(store);
        self.store = None;
        let report = self.open()?;
        same("whether the log was closed in order", &report.log.clean, &true)?;
        self.count("restart");
        self.look()
    }

    pub(super) fn crash(&mut self, crash: Crash) -> Result<(), Stop> {
        self.store = None;
        self.disk = self.disk.crash(match crash {
            Crash::Lost => CrashMode::LoseUnsynced,
            Crash::Kept => CrashMode::KeepAll,
            Crash::Torn(seed) => CrashMode::Seeded(seed),
        });
        self.open()?;
        self.count("crash");
        self.look()
    }

    /// Opens what is on the disk. The model goes on from what was synced and as much of the rest as was found: that is
    /// a prefix of what was appended, batch by batch.
    pub(super) fn open(&mut self) -> Result<OpenReport, Stop> {
        // whoever starts it again has set the clock right
        self.behind = 0;
        let opened =
            Store::open(Arc::new(self.disk.clone()), options(self.ack), self.time(), Arc::new(NoObserver));
        let (store, report) = opened.map_err(|e| self.stop(e))?;
        let found = report.log.end;
        if found < self.synced {
            return Err(format!("synced up to {}, but found up to {found}", self.synced).into());
        }
        let known = self.end;
        for (end, change) in std::mem::take(&mut self.tail) {
            if end <= found || self.model.fault == Fault::NothingIsLost {
                self.follow(&change)?;
            } else {
                self.count("lost by a crash");
            }
        }
        // a crash may also come between the first frame of a new segment and the batch that made it begin
        let only_begun =
            found / SEGMENT_BYTES > known / SEGMENT_BYTES && found % SEGMENT_BYTES < SEGMENT_HEAD_MAX;
        let written = found > known && !only_begun;
        if let Some((answered, now, behind)) = self.failed.take().filter(|_| written) {
            let at = At { start: known, end: found, now, behind };
            let taken = answered.into_iter().filter(|(_, got)| !matches!(got, OperationResult::Refused(_)));
            self.follow(&Change::Appended(taken.collect(), at))?;
            self.count("written though the write failed");
        }
        if self.ack == AckLevel::Memory && !report.log.clean && !report.created {
            self.count("offsets jump");
            for queue in self.durable.queues.values_mut() {
                queue.jump(JUMP);
            }
        }
        self.adopt_offsets(&store)?;
        let first = store.first_position().0;
        self.find_places(&store)?;
        self.durable.deleted_below(first, self.now)?;
        self.durable.restarted(report.checkpoint.unwrap_or(first), self.now);
        self.model = self.durable.clone();
        let begun = self.model.open.iter().map(|(origin, open)| (open.name, *origin));
        let decided = self.model.decided.iter().map(|(origin, decided)| (decided.name, *origin));
        self.origins = decided.chain(begun).collect();
        self.end = store.limit().0;
        self.synced = self.end;
        self.read.clear();
        self.store = Some(Arc::clone(&store));
        while store.prepare_step().map_err(|e| self.stop(e))? {}
        Ok(report)
    }

    /// Reports that were not logged may be lost, or kept by a checkpoint.
    fn adopt_offsets(&mut self, store: &Store) -> Result<(), Stop> {
        let offsets = &mut self.durable.offsets;
        for (key, since) in &offsets.since {
            let topic = store.topic(&topic_name(key.1));
            let name = topic.as_ref().map(|topic| topic.name());
            let found = name
                .and_then(|name| store.offset(consumer_name(key.0).as_str(), name, QueueId(key.2.into())));
            let Some(found) = found.map(|offset| offset.0) else { continue };
            if since.contains(&found) {
                offsets.logged.insert(*key, found);
            }
        }
        Ok(())
    }
}
