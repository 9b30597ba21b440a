//! What a seed decides about a run before it begins: settings of the broker, who takes part, which faults and how many.

use std::time::Duration;

use mezzo_broker::Config;
use mezzo_broker::config::Ack;
use mezzo_storage::{AtMaxBytes, StoreOptions};

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
    /// How long messages are kept; `None`: for ever.
    pub retention: Option<Retention>,
    /// De-duplication of one topic.
    pub dedup: Option<Dedup>,
    /// Whether a person decides transactions, too.
    pub operator: Option<Operator>,
    /// The broker's settings.
    pub config: Config,
}

/// How the sends to one topic are told from repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedup {
    /// By an id that each message says; otherwise as far as an answer may have been lost.
    pub strict: bool,
    /// How long a send is known.
    pub window_ms: u64,
    /// Half messages come again, too. Two of them beyond the window would be two transactions of one key.
    pub halves: bool,
    /// Whether at most one copy may be stored. A first send that cannot be read is no proof; and where a connection ends and the broker does not hear of it, `retries`
    /// cannot tell a repeat from a message that is sent twice on purpose.
    pub exact: bool,
}

impl Dedup {
    fn new(dice: &mut Dice, faults: &[Fault]) -> Self {
        let strict = dice.below(3) > 0;
        let long = dice.below(4) > 0;
        let unheard_ends = [Fault::Cut, Fault::CutAll].iter().any(|cut| faults.contains(cut));
        // of a first send that cannot be read nothing is known
        let exact = !faults.contains(&Fault::ReadError) && (strict || !unheard_ends);
        Self {
            strict,
            window_ms: if long { dice.between(30_000, 60_000) } else { dice.between(500, 4_000) },
            halves: long && exact && !faults.contains(&Fault::ClockJump),
            exact,
        }
    }
}

/// Who decides transactions besides their producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operator {
    /// The producers leave for good when faults stop, and everything in doubt is the operator's.
    pub alone: bool,
}

/// What makes segments go in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long a visible message is kept.
    pub age_ms: u64,
    /// Most bytes of the data folder.
    pub max_bytes: u64,
    /// At that bound the oldest messages go; otherwise new ones are refused.
    pub oldest: bool,
    /// Bytes of a segment: few, so that many of them go.
    pub segment_bytes: u64,
}

impl Retention {
    /// What the store counts against its bound besides segments: two files of consume queue pages, state and reserve.
    const DERIVED_BYTES: u64 = (32 << 20) + (160 << 10);

    fn new(dice: &mut Dice) -> Self {
        // a frame is a quarter of a segment, and holds the largest message
        let segment_bytes = (48 << 10) * dice.between(1, 2);
        let bounded = dice.one_in(2);
        let for_ever = bounded && dice.one_in(3);
        Self {
            age_ms: match (bounded, for_ever) {
                (_, true) => FOR_EVER_MS,
                // the bound is to be reached first
                (true, _) => dice.between(4_000, 30_000),
                (false, _) => dice.between(1_500, 12_000),
            },
            max_bytes: if bounded {
                Self::DERIVED_BYTES + dice.between(5, 12) * segment_bytes
            } else {
                u64::MAX
            },
            oldest: dice.one_in(2),
            segment_bytes,
        }
    }

    /// Makes the store small.
    pub fn adjust(self, options: &mut StoreOptions) {
        options.segment_bytes = self.segment_bytes;
        options.frame_bytes_max = u32::try_from(self.segment_bytes / 4).expect("a segment of kilobytes");
        options.retention_ms = self.age_ms;
        options.max_bytes = self.max_bytes;
        options.at_max_bytes = if self.oldest { AtMaxBytes::DeleteOldest } else { AtMaxBytes::Reject };
    }
}

/// 100,000 hours: the clock leaps by hours, and nothing may go by that.
const FOR_EVER_MS: u64 = 100_000 * 3_600_000;

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
        // what a power cut takes back at `memory` could not be told from what was deleted
        let retention = (!memory && dice.one_in(2)).then(|| Retention::new(dice));
        let body_bytes_max =
            *dice.pick(if retention.is_some() { &[2_000, 8_000] } else { &[200, 2_000, 8_000] });
        // a segment holds four of the largest message, which has 64 KiB of room for its head
        let segment_kib = 4 * (64 + 8) * dice.between(1, 3);
        set(&mut config, "limits.message_size=8KiB".to_owned());
        set(&mut config, format!("store.segment_size={segment_kib}KiB"));
        set(
            &mut config,
            format!(
                "store.checkpoint_size={}KiB",
                dice.between(16, if retention.is_some() { 96 } else { 512 })
            ),
        );
        set(&mut config, format!("store.hot_size={}KiB", *dice.pick(&[1, 300, 4_096])));
        set(&mut config, format!("transaction.timeout={}ms", dice.between(1_000, 6_000)));
        set(&mut config, format!("transaction.check_interval={}ms", dice.between(1_000, 5_000)));
        set(&mut config, format!("transaction.check_max={}", dice.between(1, 6)));
        set(&mut config, format!("topic.default_queues={QUEUES}"));
        set(&mut config, "store.retention=100000h".to_owned());
        set(&mut config, "history.horizon=100000h".to_owned());
        set(&mut config, format!("limits.held_pulls_per_connection={}", *dice.pick(&[1, 8, 4_096])));
        let operator = dice.one_in(2).then(|| Operator { alone: dice.one_in(2) });
        if operator.is_some_and(|operator| operator.alone) {
            set(&mut config, format!("transaction.max_age={}ms", dice.between(7_000, 30_000)));
        }
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
        // a send that is not on the disk may be forgotten with its copy
        let dedup = (!memory && dice.one_in(2)).then(|| Dedup::new(dice, &faults));
        if let Some(dedup) = dedup {
            set(&mut config, format!("dedup.window={}ms", dedup.window_ms));
            set(&mut config, "dedup.table_bytes=256KiB".to_owned());
        }
        Self {
            memory,
            appends_sync: dice.one_in(2),
            chaos: dice.pause(5_000, 40_000),
            faults,
            fault_pause_ms_max: *dice.pick(&[800, 2_000, 6_000]),
            producers: dice.between(if retention.is_some() { 2 } else { 1 }, 4),
            consumers: dice.between(1, 2),
            transformers: dice.below(3),
            work_pause_ms_max: *dice.pick(&[20, 100, 400]),
            body_bytes_max,
            retention,
            dedup,
            operator,
            config,
        }
    }
}
