//! What a script consists of. A step names transactions and messages by numbers that the script gave them, never by what
//! a run found, so that a script from which steps were taken out still means what it meant.

/// Topics are numbers below this. The names of all are of one length: so are their messages.
pub const TOPICS: u8 = 3;
/// Queues that a topic may have.
pub const QUEUES: u8 = 3;
/// Consumer groups.
pub const CONSUMERS: u8 = 2;
/// Clients that ask for leases.
pub const CLIENTS: u8 = 3;

/// A transaction as the script knows it. Its producer group follows from its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// Of one message, known by its unique key.
    Alone(u32),
    /// Of many messages, with an id.
    Many(u32),
}

impl Name {
    /// What END calls it.
    pub fn key(self) -> String {
        match self {
            Self::Alone(n) => format!("k{n:06}"),
            Self::Many(n) => format!("x{n:06}"),
        }
    }

    /// Which of the model's wishes for a check-back policy its messages carry, if any.
    pub fn wish(self) -> Option<usize> {
        let (Self::Alone(n) | Self::Many(n)) = self;
        [Some(0), Some(1), None, None, None].get(n as usize % 5).copied().flatten()
    }

    /// Its producer group.
    pub fn group(self) -> u8 {
        let (Self::Alone(n) | Self::Many(n)) = self;
        (n % 2) as u8
    }
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub topic: u8,
    pub queue: u8,
}

/// Something that END says about its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    Right,
    Wrong,
    Absent,
}

/// How END names its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Origin,
    Id,
    /// By an offset where no transaction began.
    WrongOffset,
}

/// On whose word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Producer,
    CheckBack,
    Operator,
}

/// What becomes of an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Counted,
    NotCounted,
    /// Nobody schedules the next ask.
    Forgotten,
}

/// Consumer offsets that END moves: of a group's queue, under the epoch that a client was last given (or an older one).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moves {
    pub consumer: u8,
    pub place: Place,
    pub offset: u32,
    pub client: u8,
    /// It consumed from where the group stood once.
    pub stale: bool,
}

/// An END.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub of: Name,
    pub by: By,
    pub commit: bool,
    pub who: Who,
    pub group: Claim,
    pub key: Claim,
    pub table: Claim,
    pub count: Claim,
    pub moves: Option<Moves>,
}

impl End {
    /// As a well-behaved client does it.
    pub fn plain(of: Name, commit: bool) -> Self {
        let right = Claim::Right;
        let (by, who) = (By::Origin, Who::Producer);
        Self { of, by, commit, who, group: right, key: right, table: right, count: right, moves: None }
    }
}

/// How the machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// What is not synced is lost.
    Lost,
    /// The process alone dies.
    Kept,
    /// Each unsynced sector is kept, lost or torn.
    Torn(u64),
}

/// One step of a script.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Send {
        n: u32,
        to: Place,
        size: u16,
    },
    /// A send that counts once. `blind`: it does not look at what came since the last sync, as one that is sent at the
    /// same time as another does not.
    SendOnce {
        n: u32,
        to: Place,
        id: u8,
        blind: bool,
    },
    SendDelayed {
        n: u32,
        to: Place,
        in_ms: u32,
    },
    Prepare {
        n: u32,
        to: Place,
        size: u16,
        delay_ms: Option<u32>,
    },
    Join {
        n: u32,
        sequence: u16,
        to: Place,
        other_body: bool,
        delay_ms: Option<u32>,
    },
    End(End),
    /// A person decides whatever is open.
    DecideAll {
        commit: bool,
    },
    /// By id, of a transaction that has no messages, says its producer.
    EndEmpty {
        of: Name,
        commit: bool,
        moves: Option<Moves>,
    },
    /// Everything whose time has come is asked about, or parked.
    Check {
        max: u8,
        reply: Reply,
    },
    Asked {
        of: Vec<Name>,
    },
    Park {
        of: Name,
    },
    Resume {
        of: Name,
    },
    Reschedule {
        of: Name,
        in_ms: u32,
    },
    Tick,
    Wait {
        ms: u32,
    },
    /// Somebody sets the wall clock back.
    ClockBack {
        ms: u32,
    },
    Report {
        consumer: u8,
        place: Place,
        offset: u32,
    },
    FlushOffsets,
    Lease {
        consumer: u8,
        place: Place,
        client: u8,
        ttl_ms: u32,
        renew: bool,
    },
    Release {
        consumer: u8,
        place: Place,
        client: u8,
    },
    DeleteConsumer {
        consumer: u8,
    },
    /// A producer group gets one of the model's policies for itself.
    PutPolicy {
        group: u8,
        which: u8,
    },
    DeletePolicy {
        group: u8,
    },
    PutTopic {
        topic: u8,
        queues: u8,
    },
    DeleteTopic {
        topic: u8,
    },
    Sync,
    Checkpoint,
    Keep,
    Restart,
    Crash(Crash),
    /// The disk takes so many more operations; the step that fails then ends in a crash.
    DieAfter {
        operations: u8,
        crash: Crash,
    },
    /// The disk takes so many bytes of a later write, which may be all of it, and nothing more.
    TearWrite {
        write: u8,
        bytes: u16,
        crash: Crash,
    },
    /// In one batch, so in one frame.
    Together(Vec<Self>),
}
