//! What a seed decides about a run before it begins: settings of the broker, who takes part, which faults and how many.

use std::time::Duration;

use mezzo_broker::Config;
use mezzo_broker::config::Ack;

use crate::dice::Dice;

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process dies before one of the next operations on the disk, or in the middle of a write.
    CrashAtIo,
    /// The process is killed; what it wrote stays in the page cache.
    Kill,
    /// The machine loses power.
    PowerCut,
    /// The process is stopped in order and started again.
    Restart,
    /// A write fails.
    WriteError,
    /// A sync fails.
    SyncError,
    /// A read fails.
    ReadError,
    /// The disk is full for a while.
    DiskFull,
    /// The wall clock is set forward or back.
    ClockJump,
    /// A connection is cut, on both sides or on one.
    Cut,
    /// All connections are cut.
    CutAll,
    /// The network is slow for a while.
    Slow,
    /// A client dies and another one takes its place.
    ClientCrash,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::CrashAtIo,
        Self::Kill,
        Self::PowerCut,
        Self::Restart,
        Self::WriteError,
        Self::SyncError,
        Self::ReadError,
        Self::DiskFull,
        Self::ClockJump,
        Self::Cut,
        Self::CutAll,
        Self::Slow,
        Self::ClientCrash,
    ];
}

/// The plan of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Acknowledgement level `memory`.
    pub memory: bool,
    /// Whether an append on an idle log syncs it.
    pub appends_sync: bool,
    /// How long faults last, in virtual time.
    pub chaos: Duration,
    /// Faults that happen, each as likely as another.
    pub faults: Vec<Fault>,
    /// Pause between two faults, at most.
    pub fault_pause_ms_max: u64,
    /// Producers.
    pub producers: u64,
    /// Consumer groups, a consumer each.
    pub consumers: u64,
    /// Members of the group that consumes, transforms and produces.
    pub transformers: u64,
    /// Pause between two operations of a client, at most.
    pub work_pause_ms_max: u64,
    /// Largest body.
    pub body_bytes_max: u64,
    /// The broker's settings.
    pub config: Config,
}

/// Queues of each topic.
pub const QUEUES: u32 = 2;
/// Longest time to log offsets and to have that synced, with time to spare: what a crash may take back of them.
pub const OFFSETS_LOST_MS_MAX: u64 = 3_000;

impl Plan {
    /// The plan of a seed.
    pub fn new(dice: &mut Dice) -> Self {
        let memory = dice.one_in(4);
        let mut config = Config::embedded("/data");
        let set = |config: &mut Config, setting: String| {
            config.set(&setting).unwrap_or_else(|error| panic!("{setting}: {error}"));
        };
        let body_bytes_max = *dice.pick(&[200, 2_000, 8_000]);
        // a segment holds four of the largest message, which has 64 KiB of room for its head
        let segment_kib = 4 * (64 + 8) * dice.between(1, 3);
        set(&mut config, "limits.message_size=8KiB".to_owned());
        set(&mut config, format!("store.segment_size={segment_kib}KiB"));
        set(&mut config, format!("store.checkpoint_size={}KiB", dice.between(16, 512)));
        set(&mut config, format!("store.hot_size={}KiB", *dice.pick(&[1, 300, 4_096])));
        set(&mut config, format!("transaction.timeout={}ms", dice.between(1_000, 6_000)));
        set(&mut config, format!("transaction.check_interval={}ms", dice.between(1_000, 5_000)));
        set(&mut config, format!("transaction.check_max={}", dice.between(1, 6)));
        set(&mut config, format!("topic.default_queues={QUEUES}"));
        // the clock leaps by hours, and nothing may go by that
        set(&mut config, "store.retention=100000h".to_owned());
        set(&mut config, "history.horizon=100000h".to_owned());
        set(&mut config, format!("limits.held_pulls_per_connection={}", *dice.pick(&[1, 8, 4_096])));
        if memory {
            config.store.ack = Ack::Memory;
        }
        // few kinds at a time find more than all at once: one that stops the broker hides the others
        let kinds = dice.between(1, Fault::ALL.len() as u64);
        let mut faults = Fault::ALL.to_vec();
        while faults.len() as u64 > kinds {
            let index = dice.below(faults.len() as u64) as usize;
            faults.remove(index);
        }
        Self {
            memory,
            appends_sync: dice.one_in(2),
            chaos: dice.pause(5_000, 40_000),
            faults,
            fault_pause_ms_max: *dice.pick(&[800, 2_000, 6_000]),
            producers: dice.between(1, 4),
            consumers: dice.between(1, 2),
            transformers: dice.below(3),
            work_pause_ms_max: *dice.pick(&[20, 100, 400]),
            body_bytes_max,
            config,
        }
    }
}
