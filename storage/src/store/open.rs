//! Opening a data folder: base, checkpoint, then the log's tail folded on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mezzo_protocol::time::Timestamp;

use super::append::UNSYNCED_MESSAGES_MAX;
use super::background::{SPARE_SEGMENTS, Signal};
use super::checkpoint::CheckpointState;
use super::counts::{Counts, SyncTimes};
use super::view::{AtOnce, View};
use super::{Appender, Store, StoreObserver};
use crate::base::StateFolder;
use crate::batch::{Encoder, RECORD_OVERHEAD_MAX};
use crate::concurrency::Mutex;
use crate::concurrency::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::error::StorageError;
use crate::file_system::FileSystem;
use crate::format::frame::{FRAME_HEADER_BYTES, Frame};
use crate::format::loss::Losses;
use crate::format::record::{Jump, RecordHead, RecordKind};
use crate::format::state_file::{StateFile, StateHeader, StateRole};
use crate::log::{self, Class, Layout, LogOptions, Opening, RecoveryReport, ResumePoint};
use crate::options::{AckLevel, StoreOptions};
use crate::reserve::Reserve;
use crate::state::AfterLoss;
use crate::state::dedup::FirstSends;
use crate::state::leader_clock::LeaderClock;
use crate::state::ledger::{At, Ledger};
use crate::state::publish::Pending;
use crate::state::queues::{OwnedPage, PageId, PageStore, check_pages};
use crate::state::snapshot;
use crate::state::transactions::history::History;

/// The newest base, and the one before it as long as the segment between the two is there.
const BASES_KEPT: usize = 2;
/// One: the queue pages that an older checkpoint names are written anew once a newer one is durable.
const CHECKPOINTS_KEPT: usize = 1;

/// A stop longer than this is more likely a clock that was set wrong: a year.
const LONG_STOP_MS: u64 = 365 * 24 * 3_600_000;

/// What opening found.
#[derive(Debug)]
pub struct OpenReport {
    /// The folder was empty.
    pub created: bool,
    /// Position of the checkpoint that the fold started from; `None` when it started from the base.
    pub checkpoint: Option<u64>,
    /// Derived state files that did not hold together and were passed over.
    pub damaged: Vec<PathBuf>,
    /// What the log's recovery found.
    pub log: RecoveryReport,
    /// Open half and delayed messages.
    pub open_messages: usize,
}

impl Store {
    /// Opens a data folder, or makes a new one.
    ///
    /// # Errors
    /// [`StorageError::Locked`] when another process has it, [`StorageError::NewerVersion`],
    /// [`StorageError::Layout`] when it was made for smaller messages, [`StorageError::Corrupt`] when bytes known
    /// durable do not hold (nothing is changed then), [`StorageError::Io`].
    pub fn open(
        fs: Arc<dyn FileSystem>,
        options: StoreOptions,
        now: Timestamp,
        observer: Arc<dyn StoreObserver>,
    ) -> Result<(Arc<Self>, OpenReport), StorageError> {
        match Self::open_once(Arc::clone(&fs), options.clone(), now, Arc::clone(&observer)) {
            // a start needs some room, too
            Err(e) if e.is_out_of_space() => {
                if Reserve::open(&*fs, options.dir.clone())?.give_back(&*fs)? {
                    Self::open_once(fs, options, now, observer)
                } else {
                    Err(e)
                }
            }
            opened => opened,
        }
    }

    fn open_once(
        fs: Arc<dyn FileSystem>,
        mut options: StoreOptions,
        now: Timestamp,
        observer: Arc<dyn StoreObserver>,
    ) -> Result<(Arc<Self>, OpenReport), StorageError> {
        let dir = options.dir.clone();
        crate::base::create_data_folder(&*fs, &dir)?;
        let lock_path = dir.join("lock");
        let data_lock = fs.lock(&lock_path).map_err(|source| {
            if source.kind() == std::io::ErrorKind::WouldBlock {
                let owner = crate::base::read_whole(&*fs, &lock_path).unwrap_or_default();
                let owner = match String::from_utf8_lossy(&owner).trim() {
                    "" => "it does not say which".to_owned(),
                    owner => owner.to_owned(),
                };
                StorageError::Locked { path: lock_path.clone(), owner }
            } else {
                StorageError::Io { path: lock_path.clone(), op: "lock", source }
            }
        })?;
        let bases = StateFolder::open(&*fs, dir.join("base"), BASES_KEPT)?;
        let checkpoints = StateFolder::open(&*fs, dir.join("checkpoint"), CHECKPOINTS_KEPT)?;
        let (base, losses, created) = open_base(&fs, &bases, &options)?;
        adopt_layout(&mut options, &base)?;
        // a killed process may have left it in memory only; what the recovery of the log writes rests on the losses that
        // it tells of, and segments go for it
        let base_dir = dir.join("base");
        fs.sync_dir(&base_dir).map_err(StorageError::io("sync folder", &base_dir))?;

        let layout = layout_of(&base);
        if !created {
            check_log_is_there(&*fs, &dir)?;
            log::check_beginning(&fs, &dir.join("log"), &layout, base.position, &losses)?;
        }
        let history =
            Arc::new(History::open(Arc::clone(&fs), dir.join("history"), base.segment_bytes, base.position)?);
        let fresh = || Ledger::new(base.segment_bytes, options.check, Some(Arc::clone(&history)));

        let queues = dir.join("queues");
        let mut known_synced = 0;
        let mut damaged = Vec::new();
        let mut restored: Option<(StateHeader, Ledger, Vec<PageId>)> = None;
        let (found, passed_over) = checkpoints.newest(&*fs, |file| {
            if file.header.nonce != base.nonce || file.header.position < base.position {
                return Ok(None);
            }
            // true also of one that cannot be used
            known_synced = known_synced.max(file.header.synced_to).max(file.header.position);
            if snapshot::losses_of(file)?.newest != losses.newest {
                tracing::warn!("checkpoint passed over: it was written before a loss was accepted");
                return Ok(None);
            }
            let mut ledger = fresh();
            match snapshot::restore_checkpoint(&mut ledger, file) {
                Ok(used)
                    if snapshot::history_is_whole(&history, file, base.position)?
                        && pages_hold(&*fs, &queues, &ledger)? =>
                {
                    ledger.lost = AfterLoss::starting_at(losses.clone(), file.header.position);
                    return Ok(Some((file.header, ledger, used)));
                }
                Ok(_) => tracing::warn!("checkpoint passed over: what it names of queues or history is not there; both are made anew from the log"),
                Err(e) => tracing::warn!(error = %e, "checkpoint passed over"),
            }
            history.forget_recent();
            Ok(None)
        })?;
        damaged.extend(passed_over);
        if let Some(found) = found {
            restored = Some(found);
        }
        let checkpoint = restored.as_ref().map(|(header, ..)| header.position);
        let (header, mut ledger, used) = match restored {
            Some(restored) => restored,
            None => {
                let path = bases.path(base.generation);
                let bytes = crate::base::read_whole(&*fs, &path)?;
                let file = StateFile::parse(&bytes).map_err(|e| StorageError::corrupt(&path, 0, e))?;
                let mut ledger = fresh();
                snapshot::restore_base(&mut ledger, &file)?;
                (file.header, ledger, Vec::new())
            }
        };

        let pages = PageStore::open(Arc::clone(&fs), queues, &used)?;
        let view = View::of(&ledger, pages);
        let resume = ResumePoint {
            position: header.position,
            index: header.index,
            term: header.term,
            time_ms: header.time_ms,
            synced_to: header.synced_to.max(known_synced),
            clean: header.clean,
        };
        let log_options = LogOptions {
            hot_bytes: options.hot_bytes,
            spare_segments: SPARE_SEGMENTS,
            zero_fill: options.ack == AckLevel::Durable,
            max_bytes: options.max_bytes,
            ..LogOptions::default()
        };
        let mut direct = AtOnce { view: &view, failure: None };
        let mut segment = header.position / base.segment_bytes;
        let mut last_ms = header.time_ms;
        let opening = Opening { layout, options: log_options, resume, ack: options.ack, now, losses };
        let mut visit = |frame: &Frame<'_>| {
            let number = frame.position / base.segment_bytes;
            if number > segment {
                // keeps memory flat while a long log is folded
                history.close_segments_before(header.synced_to.max(frame.header.synced_to))?;
                segment = number;
            }
            last_ms = frame.header.time_ms;
            for record in frame.records() {
                let at = At { position: record.position, size: record.size(), time_ms: frame.header.time_ms };
                ledger.apply(at, record.kind, record.flags, record.payload, &mut direct)?;
                if let Some(e) = direct.failure.take() {
                    return Err(e);
                }
            }
            Ok(())
        };
        let (log, writer, report) = log::recover(&fs, &dir.join("log"), &opening, &mut visit)?;
        // their pages are written anew. Only now: one that cannot be used still says what was durable, and a start that
        // is refused must be refused again
        checkpoints.keep_only(&*fs, checkpoint)?;
        // one behind which nothing was readable
        ledger.pass_losses(report.end, &mut direct);
        if let Some(e) = direct.failure.take() {
            return Err(e);
        }
        // for the same reason: a segment must not go for a history file that a power cut could still take away
        for folder in ["checkpoint", "history"] {
            let folder = dir.join(folder);
            fs.sync_dir(&folder).map_err(StorageError::io("sync folder", &folder))?;
        }
        log.adopt_deleted()?;
        // a crash may have come between a new base and the removal of what lies before it
        while log.first_position() < base.position {
            log.remove_first_segment()?;
        }
        let first = log.first_position();
        ledger.segments.drop_before(first);
        for queue in ledger.topics.values().flat_map(|t| t.queues()) {
            queue.drop_before(&view.pages, first)?;
        }
        // owed: the start before this one was stopped between its first frame and the jump
        let lossy = ledger.owes_jump || (ledger.ack == AckLevel::Memory && !report.clean && !created);
        ledger.ack = options.ack;
        let clock = LeaderClock::starting_at(writer.time(), now);
        warn_of_clock(last_ms, now, &clock);
        ledger.open.start(clock.now().as_ms());
        let open_messages = ledger.open_messages();

        let encoder = Encoder {
            seed: log.seed(),
            payload_bytes_max: options.frame_bytes_max as usize
                - FRAME_HEADER_BYTES
                - 2 * RECORD_OVERHEAD_MAX,
        };
        let first_sends = Arc::new(FirstSends::new(options.dedup_table_bytes, options.dedup_window_ms));
        let end = writer.position();
        let store = Self {
            offsets: Arc::clone(&ledger.offsets),
            leader_ms: AtomicU64::new(clock.now().as_ms()),
            appended: AtomicU64::new(end),
            limit: AtomicU64::new(end),
            opened_at: end,
            appender: Mutex::new(Appender {
                writer,
                ledger,
                outgoing: Pending::default(),
                scratch: Vec::new(),
                clock,
                counts: Counts::default(),
            }),
            pending: Mutex::default(),
            publishing: Mutex::default(),
            syncing: Mutex::default(),
            sync_times: SyncTimes::default(),
            sync_requested: Signal::default(),
            segments_wanted: Signal::default(),
            unsynced_messages: AtomicU64::new(0),
            checkpointing: Mutex::new(CheckpointState { position: header.position, base }),
            mending: Mutex::default(),
            carrying: Mutex::default(),
            retention: Mutex::default(),
            reserve: Reserve::open(&*fs, dir)?,
            state_bytes: AtomicU64::new(0),
            options,
            fs,
            observer,
            log,
            encoder,
            view,
            history,
            first_sends,
            base: bases,
            checkpoints,
            damage: super::scrub::DamageLog::default(),
            closed: AtomicBool::new(false),
            _lock: data_lock,
        };
        if lossy {
            store.jump_offsets(now)?;
        }
        if let Err(error) = store.restore_first_sends(now) {
            // repeats of what was sent before are stored as new messages then: no reason not to serve
            tracing::warn!(%error, "sends before this start cannot be read again to know their repeats");
        }
        let report = OpenReport { created, checkpoint, damaged, log: report, open_messages };
        Ok((Arc::new(store), report))
    }

    /// After an unclean stop at acknowledgement `memory`: offsets that a consumer may have seen before a power loss
    /// are not used again.
    fn jump_offsets(&self, now: Timestamp) -> Result<(), StorageError> {
        {
            let mut appender = self.appender();
            let now = appender.leader_time(now);
            let Appender { writer, ledger, outgoing, scratch, .. } = &mut *appender;
            // twice the bound: what was published while the last sync ran counts for the next
            let jump = Jump { by: 2 * UNSYNCED_MESSAGES_MAX };
            scratch.clear();
            jump.encode(scratch);
            let head = RecordHead::new(self.encoder.seed, RecordKind::Jump, 0, &[scratch]);
            writer.begin(now, scratch.len() + RECORD_OVERHEAD_MAX, Class::Essential)?;
            let position = writer.push(&head, &[scratch]);
            ledger.jump(position, jump.by, outgoing);
            writer.commit()?;
            super::lock(&self.pending).0.append(&mut outgoing.0);
            self.appended.store(writer.position(), Ordering::Release);
        }
        self.sync()
    }
}

/// The newest base, or the first one of an empty folder. A damaged one is passed over for the one before it only while
/// the log still holds what lies between the two.
fn open_base(
    shared_fs: &Arc<dyn FileSystem>,
    bases: &StateFolder,
    options: &StoreOptions,
) -> Result<(StateHeader, Losses, bool), StorageError> {
    let fs = &**shared_fs;
    let is_base = |file: &StateFile<'_>| {
        let losses = snapshot::losses_of(file)?;
        Ok((file.header.role == StateRole::Base).then_some((file.header, losses)))
    };
    let (found, damaged) = bases.newest(fs, is_base)?;
    let log_dir = options.dir.join("log");
    if let Some((header, losses)) = found {
        if let Some(newest) = damaged.first()
            && losses.at(header.position).is_none()
            && !log::reaches_back_to(shared_fs, &log_dir, &layout_of(&header), header.position)?
        {
            return Err(StorageError::corrupt(
                newest,
                0,
                format!(
                    "the newest base does not hold together, and the one before it ends at position {}, where the \
                     log no longer begins; restore this file from a backup",
                    header.position
                ),
            ));
        }
        for path in &damaged {
            tracing::warn!(file = %path.display(), "damaged base passed over for the one before it");
        }
        return Ok((header, losses, false));
    }
    if let Some(path) = damaged.first() {
        return Err(StorageError::corrupt(
            path,
            0,
            "no base holds together, and the log means nothing without one; restore the folder from a backup",
        ));
    }
    let has_log = fs.exists(&log_dir).map_err(StorageError::io("look for", &log_dir))?
        && !fs.list(&log_dir).map_err(StorageError::io("list", &log_dir))?.is_empty();
    if has_log {
        return Err(StorageError::corrupt(
            &log_dir,
            0,
            "there is a log but no base; restore the folder from a backup, or start with an empty one",
        ));
    }
    let nonce = options.nonce.unwrap_or_else(random_nonce);
    let layout =
        Layout { nonce, segment_bytes: options.segment_bytes, frame_bytes_max: options.frame_bytes_max };
    layout.validate()?;
    let header = StateHeader {
        role: StateRole::Base,
        generation: 1,
        position: 0,
        index: 0,
        time_ms: 0,
        synced_to: 0,
        term: 0,
        frame_bytes_max: options.frame_bytes_max,
        segment_bytes: options.segment_bytes,
        nonce,
        clean: false,
    };
    // left of a log that is gone: the new one gives the same positions to other messages. Before the base, so that a
    // crash in between leaves the folder as new as before
    for derived in ["checkpoint", "queues", "history"] {
        crate::base::clear_folder(fs, &options.dir.join(derived))?;
    }
    let ledger = Ledger::new(options.segment_bytes, options.check, None);
    bases.write(fs, header.generation, &snapshot::base_file(&ledger, header))?;
    fs.sync_dir(&options.dir).map_err(StorageError::io("sync folder", &options.dir))?;
    Ok((header, Losses::default(), true))
}

/// Whether the consume queue pages that a restored checkpoint names are what was written.
fn pages_hold(fs: &dyn FileSystem, dir: &Path, ledger: &Ledger) -> Result<bool, StorageError> {
    let queues = ledger.topics.values().flat_map(|topic| topic.queues());
    let owned: Vec<OwnedPage> =
        queues.flat_map(|queue| queue.log().owned_pages().collect::<Vec<_>>()).collect();
    let mut hold = true;
    check_pages(fs, dir, owned, &mut |damage| {
        let (file, offset) = (damage.file.display(), damage.offset);
        tracing::warn!(%file, offset, reason = damage.reason, "damaged consume queue page");
        hold = false;
        false
    })?;
    Ok(hold)
}

/// Fails if there is no log although something was derived from it: it has been taken away. A folder whose first start
/// was interrupted has a base and neither of these.
fn check_log_is_there(fs: &dyn FileSystem, dir: &Path) -> Result<(), StorageError> {
    let has_files = |name: &str| {
        let folder = dir.join(name);
        let there = fs.exists(&folder).map_err(StorageError::io("look for", &folder))?;
        Ok(there && !fs.list(&folder).map_err(StorageError::io("list", &folder))?.is_empty())
    };
    if has_files("log")? || !(has_files("checkpoint")? || has_files("queues")? || has_files("history")?) {
        return Ok(());
    }
    let reason = "the log is missing, although something was made from it; restore the folder from a backup";
    Err(StorageError::corrupt(&dir.join("log"), 0, reason))
}

fn layout_of(base: &StateHeader) -> Layout {
    Layout { nonce: base.nonce, segment_bytes: base.segment_bytes, frame_bytes_max: base.frame_bytes_max }
}

/// The folder's layout stands; the options must be able to live with it.
fn adopt_layout(options: &mut StoreOptions, base: &StateHeader) -> Result<(), StorageError> {
    if options.frame_bytes_max > base.frame_bytes_max {
        return Err(StorageError::Layout {
            reason: format!(
                "this data folder was made for frames of at most {} bytes, the largest message needs {}; lower limits.message_size or use a new folder",
                base.frame_bytes_max, options.frame_bytes_max
            ),
        });
    }
    if options.segment_bytes != base.segment_bytes {
        tracing::warn!(
            configured = options.segment_bytes,
            folder = base.segment_bytes,
            "store.segment_size is fixed when a data folder is made; the folder's own is used"
        );
    }
    options.segment_bytes = base.segment_bytes;
    options.frame_bytes_max = base.frame_bytes_max;
    Ok(())
}

/// Says so when the clock and the log's last frame, of `last_ms`, do not go together.
fn warn_of_clock(last_ms: u64, now: Timestamp, clock: &LeaderClock) {
    let passed_ms = now.as_ms().saturating_sub(last_ms);
    if clock.ahead_ms() > 0 {
        tracing::warn!(
            behind_ms = clock.ahead_ms(),
            "the clock is behind the log: time goes on from the log's last frame"
        );
    } else if last_ms > 0 && passed_ms >= LONG_STOP_MS {
        tracing::warn!(
            passed_ms,
            "the log's last frame is more than a year old: if the clock is wrong, stop now, before retention \
             deletes what only seems old"
        );
    }
}

/// Sixteen bytes that clients cannot guess, from the randomness that the standard library seeds its hashers with.
fn random_nonce() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let mut nonce = [0; 16];
    for half in nonce.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(std::process::id()).to_le_bytes());
    }
    nonce
}
