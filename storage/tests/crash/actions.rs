//! The things that a store does to its disk, one row each: what comes before, the action, and what it must do to the disk.

use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::{DiskOperation, DiskOperationKind};
use mezzo_storage::{AckLevel, Outcome, StorageError, StoreOptions, Visibility};

use super::run::{Run, T0, options};
use DiskOperationKind::{Create, Remove, Rename, Resize, Sync, SyncFolder, Write};

pub type Done = Result<(), StorageError>;

const HALF: Visibility = Visibility::Prepared { delay_ms: None };
/// Older than this, what is visible goes.
const RETENTION_MS: u64 = 1_000_000;
const SEGMENT_BYTES: u64 = 16 << 10;
/// Entries of a consume queue that are written together.
const ENTRIES_PER_PAGE: usize = 170;
/// A message whose record takes about a sixth of a segment.
const LARGE: usize = 1200;

/// One row of the sweep.
pub struct Action {
    pub name: &'static str,
    /// Ends just before the action.
    pub before: fn(&mut Run) -> Done,
    pub act: fn(&mut Run) -> Done,
    /// What the action must do, or the sweep has not swept it: kind, and part of the path.
    pub does: &'static [(DiskOperationKind, &'static str)],
    /// Whether it is a start, so that the start behind it finds what a start has left.
    pub is_start: bool,
    /// Whether all of its operations are stopped at, or only those in `does`: the others belong to another row.
    pub all: bool,
}

impl Action {
    pub fn is_about(&self, operation: &DiskOperation) -> bool {
        self.all || self.does.iter().any(|step| is(operation, step))
    }
}

/// Whether an operation is of this kind, on a file whose path has this part.
pub fn is(operation: &DiskOperation, (kind, part): &(DiskOperationKind, &str)) -> bool {
    operation.kind == *kind && operation.path.to_string_lossy().contains(part)
}

/// Small segments, and a retention that ends within a test.
pub fn small(ack: AckLevel) -> StoreOptions {
    StoreOptions {
        segment_bytes: SEGMENT_BYTES,
        frame_bytes_max: 4 << 10,
        retention_ms: RETENTION_MS,
        ..options(ack)
    }
}

/// Topics, and of each kind of thing one that is decided, settled or visible.
fn settled(run: &mut Run) -> Done {
    run.start()?;
    run.put_topic("t")?;
    run.put_topic("u")?;
    run.put_group("g")?;
    run.sync()?;
    run.wire_batch("t", 3)?;
    for outcome in [Outcome::Committed, Outcome::RolledBack] {
        run.send("u", HALF, 40)?;
        run.end(run.newest_open(), outcome)?;
    }
    run.many_at_once(3)?;
    run.end(run.newest_open(), Outcome::Committed)?;
    run.send("t", Visibility::Due(Timestamp::from_ms(run.now)), 30)?;
    run.tick()?;
    run.lease()?;
    run.set_policy(Some(5))?;
    run.report(2)?;
    run.sync()?;
    run.prepare()
}

/// Of each kind of thing one that is open.
fn opened(run: &mut Run) -> Done {
    run.send("t", HALF, 50)?;
    run.asked(run.newest_open())?;
    run.send("u", HALF, 50)?;
    run.park(run.newest_open())?;
    run.many_at_once(2)?;
    run.send_in("t", HALF, 30, Some(run.newest_open()))?;
    run.send("u", Visibility::Due(Timestamp::from_ms(T0 + 50 * RETENTION_MS)), 30)?;
    run.send("t", Visibility::Prepared { delay_ms: Some(60 * RETENTION_MS) }, 20)?;
    run.send("u", Visibility::Prepared { delay_ms: Some(70 * RETENTION_MS) }, 20)?;
    run.end(run.newest_open(), Outcome::Committed)?;
    run.sync()?;
    run.prepare()
}

pub fn settled_and_opened(run: &mut Run) -> Done {
    settled(run)?;
    opened(run)
}

/// Visible messages until `segments` more segments have been begun; all of them durable.
fn fill(run: &mut Run, segments: u64) -> Done {
    let until = (run.store().end().0 / SEGMENT_BYTES + segments) * SEGMENT_BYTES;
    while run.store().end().0 < until {
        run.prepare()?;
        run.send("t", Visibility::Now, LARGE)?;
    }
    run.sync()?;
    run.prepare()
}

/// Everything so far is old, and behind it stands what is young; a checkpoint lies beyond what is to go.
pub fn grow_old(run: &mut Run) -> Done {
    fill(run, 2)?;
    run.now += RETENTION_MS + 10;
    fill(run, 1)?;
    run.send("u", HALF, 40)?;
    run.sync()?;
    run.checkpoint()
}

fn to_the_end_of_the_segment(run: &mut Run) -> Done {
    settled_and_opened(run)?;
    while SEGMENT_BYTES - run.store().end().0 % SEGMENT_BYTES > 3 * LARGE as u64 {
        run.send("t", Visibility::Now, LARGE)?;
    }
    run.sync()?;
    run.prepare()
}

pub const APPEND: Action = Action {
    name: "append",
    before: settled_and_opened,
    act: |run| {
        run.send("t", Visibility::Now, 40)?;
        run.send("u", HALF, 40)?;
        run.end(run.newest_open(), Outcome::Committed)?;
        run.wire_batch("u", 3)?;
        run.report(3)
    },
    does: &[(Write, "/data/log/")],
    is_start: false,
    all: true,
};

pub const GROUP_COMMIT: Action = Action {
    name: "group commit",
    before: settled_and_opened,
    act: |run| {
        for _ in 0..2 {
            run.send("t", Visibility::Now, 700)?;
            run.many_at_once(2)?;
            run.end(run.newest_open(), Outcome::Committed)?;
            run.resume(*run.state.open.keys().nth(1).unwrap())?;
            run.sync()?;
        }
        Ok(())
    },
    does: &[(Write, "/data/log/"), (Sync, "/data/log/")],
    is_start: false,
    all: true,
};

pub const SEGMENT_ROLL: Action = Action {
    name: "segment roll",
    before: to_the_end_of_the_segment,
    act: |run| {
        for _ in 0..3 {
            run.send("t", Visibility::Now, LARGE)?;
        }
        run.many_at_once(2)?;
        run.sync()?;
        run.prepare()?;
        run.send("u", Visibility::Now, LARGE)?;
        run.sync()
    },
    does: &[
        (Write, "/data/log/00000000000000000000"),
        (Write, "/data/log/00000000000000016384"),
        (Sync, "/data/log/00000000000000000000"),
        (Sync, "/data/log/00000000000000016384"),
        (Create, "/data/log/"),
        (Resize, "/data/log/"),
        (SyncFolder, "/data/log"),
    ],
    is_start: false,
    all: true,
};

pub const CHECKPOINT: Action = Action {
    name: "checkpoint",
    before: |run| {
        settled_and_opened(run)?;
        // all but a few of the entries of a page of the consume queue
        while run.state.visible["t"].len() < ENTRIES_PER_PAGE - 2 {
            run.prepare()?;
            run.wire_batch("t", 2)?;
        }
        run.sync()?;
        run.prepare()?;
        run.checkpoint()
    },
    act: |run| {
        run.wire_batch("t", 3)?;
        run.end(run.newest_open(), Outcome::RolledBack)?;
        run.checkpoint()?;
        run.send("t", Visibility::Now, 40)?;
        run.checkpoint()
    },
    does: &[
        (Sync, "/data/log/"),
        (Write, "/data/queues/"),
        (Sync, "/data/queues/"),
        (Create, "/data/checkpoint/"),
        (Write, "/data/checkpoint/"),
        (Sync, "/data/checkpoint/"),
        (Rename, "/data/checkpoint/"),
        (SyncFolder, "/data/checkpoint"),
        (Remove, "/data/checkpoint/"),
    ],
    is_start: false,
    all: true,
};

pub const STOP_IN_ORDER: Action = Action {
    name: "stop in order, and the start behind it",
    before: settled_and_opened,
    act: |run| {
        run.send("t", Visibility::Now, 40)?;
        run.close()?;
        run.start()?;
        run.send("t", Visibility::Now, 40)?;
        run.sync()
    },
    does: &[(Rename, "/data/checkpoint/"), (Write, "/data/log/"), (Sync, "/data/log/")],
    is_start: false,
    all: true,
};

pub const START: Action = Action {
    name: "start behind a kill",
    before: |run| {
        settled_and_opened(run)?;
        run.send("t", Visibility::Now, 40)?;
        run.end(run.newest_open(), Outcome::RolledBack)?;
        run.store = None;
        Ok(())
    },
    act: Run::start,
    does: &[
        (Write, "/data/log/"),
        (Sync, "/data/log/"),
        (Resize, "/data/log/"),
        (Create, "/data/log/"),
        (Remove, "/data/log/"),
        (SyncFolder, "/data/log"),
        (SyncFolder, "/data/base"),
    ],
    is_start: true,
    all: true,
};

pub const HISTORY: Action = Action {
    name: "history file",
    before: to_the_end_of_the_segment,
    act: |run| {
        // decided in a segment that is closed before it is durable
        let first = *run.state.open.keys().next().unwrap();
        run.end(first, Outcome::Committed)?;
        for _ in 0..3 {
            run.send("t", Visibility::Now, LARGE)?;
        }
        run.keep_once()?;
        run.sync()?;
        run.keep_once().map(|_| ())
    },
    does: &[
        (Create, "/data/history/"),
        (Write, "/data/history/"),
        (Sync, "/data/history/"),
        (Rename, "/data/history/"),
        (SyncFolder, "/data/history"),
    ],
    is_start: false,
    all: true,
};

pub const BASE: Action = Action {
    name: "base",
    before: |run| {
        settled(run)?;
        grow_old(run)
    },
    act: Run::keep,
    does: &[
        (Create, "/data/base/"),
        (Write, "/data/base/"),
        (Sync, "/data/base/"),
        (Rename, "/data/base/"),
        (SyncFolder, "/data/base"),
        (Remove, "/data/base/"),
    ],
    is_start: false,
    all: false,
};

pub const RENAME: Action =
    Action { name: "rename", does: &[(Rename, ".deleted"), (SyncFolder, "/data/log")], ..BASE };

pub const RETENTION: Action = Action {
    name: "retention",
    does: &[
        (Write, "/data/history/"),
        (Rename, "/data/base/"),
        (Rename, ".deleted"),
        (SyncFolder, "/data/log"),
        (Remove, ".deleted"),
    ],
    all: true,
    ..BASE
};

pub const CARRY_FORWARD: Action = Action {
    name: "carry-forward",
    before: |run| {
        settled_and_opened(run)?;
        grow_old(run)
    },
    does: &[
        (Write, "/data/log/"),
        (Sync, "/data/log/"),
        (Rename, "/data/base/"),
        (Rename, ".deleted"),
        (Remove, ".deleted"),
    ],
    ..RETENTION
};
