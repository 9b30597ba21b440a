//! What a check finds.

use std::path::PathBuf;

use crate::format::record::Outcome;

/// What kind of damage it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// Base or log bytes that were known durable do not hold: the broker does not start.
    Rot,
    /// Rot whose loss was accepted: the broker starts, and passes over it.
    Accepted,
    /// The end of the log that was not known durable: the next start cuts it, nothing acknowledged as durable is lost.
    TornTail,
    /// A file that the next start makes anew from base and log.
    Derived,
    /// Decisions older than the log: END for them is refused as unreadable, all else is well.
    History,
}

impl DamageKind {
    /// In a word, as `mezzo log verify --json` prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rot => "ROT",
            Self::Accepted => "ACCEPTED",
            Self::TornTail => "TORN_TAIL",
            Self::Derived => "DERIVED",
            Self::History => "HISTORY",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn next_step(self) -> &'static str {
        match self {
            Self::Rot => {
                "restore the folder from a backup; or, if there is none, let the loss go with \
                 `mezzo log repair --accept-loss`"
            }
            Self::Accepted => "nothing: the loss was accepted",
            Self::TornTail => "nothing: the next start cuts it, as after every power cut",
            Self::Derived => "nothing: the next start makes it anew",
            Self::History => "nothing: it expires; or restore this file from a backup",
        }
    }
}

/// Visible messages of one queue whose bytes are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostQueue {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub queue: u32,
    /// Queue offset of the first of them.
    pub first: u64,
    /// Queue offset of the last of them.
    pub last: u64,
    /// How many they are.
    pub messages: u64,
}

/// What a damage of the log takes with it, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lost {
    /// Positions lost, from and to (not included).
    pub positions: Vec<(u64, u64)>,
    /// Frames missing, if the next frame that holds tells.
    pub frames: Option<u64>,
    /// Visible messages.
    pub queues: Vec<LostQueue>,
    /// Origins of undecided transactions with messages in it.
    pub open: Vec<u64>,
    /// Delayed messages that were not visible yet.
    pub delayed: u64,
    /// Decisions whose record is in it: origin and outcome.
    pub decisions: Vec<(u64, Outcome)>,
    /// Whether a checkpoint lies behind it: if not, the lists above may lack anything.
    pub told: bool,
}

/// One damaged place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What it means.
    pub kind: DamageKind,
    /// The file.
    pub file: PathBuf,
    /// Byte offset in it.
    pub offset: u64,
    /// What does not hold there.
    pub reason: String,
    /// What is gone with it; of the log only.
    pub lost: Option<Lost>,
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// All damage, the primary files first.
    pub damages: Vec<Damage>,
    /// Position of the log's first byte.
    pub first: u64,
    /// Position behind the last frame that counts.
    pub end: u64,
    /// Everything below was once known durable.
    pub synced_to: u64,
    /// Segments of the log.
    pub segments: usize,
    /// Frames that hold.
    pub frames: u64,
    /// Records that hold.
    pub records: u64,
    /// Messages among them, in whatever state.
    pub messages: u64,
    /// Decisions among them.
    pub decisions: u64,
    /// Bytes of all files that were checked.
    pub bytes: u64,
}

impl VerifyReport {
    /// Whether the broker would refuse to start.
    #[must_use]
    pub fn has_rot(&self) -> bool {
        self.damages.iter().any(|damage| damage.kind == DamageKind::Rot)
    }

    /// Whether there is anything that the next start mends, or has to live with.
    #[must_use]
    pub fn has_other_damage(&self) -> bool {
        self.damages.iter().any(|damage| !matches!(damage.kind, DamageKind::Rot | DamageKind::Accepted))
    }
}
