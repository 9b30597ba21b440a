//! Retention as the run watches it: what every queue holds just before each step that may delete, so that it is known
//! to the message what went, and whether it might.
//!
//! ```text
//!  look: every visible message gets a row, with the last time at which it was not visible yet
//!  step of the keeper (or the death of the process in it)
//!  look: rows below a queue's new first offset are gone: old enough? or might the oldest go?
//! ```
//!
//! The last judgement takes what is there and what is gone together, so it needs no excuse for anything.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use mezzo_protocol::ids::QueueOffset;
use mezzo_protocol::message::record::MessageView;
use mezzo_storage::{Queue, StorageError};

use crate::dice::Dice;
use crate::history::{MessageId, Place, number_of};
use crate::host::Process;
use crate::nemesis::AFTER_FULL;
use crate::plan::{Fault, Retention};
use crate::trace::note;
use crate::world::World;

/// Entries read of a queue at once.
const ENTRIES_PER_READ: usize = 256;
/// From when a message has its time to when it is visible: a sync by the syncer, which looks around so often.
const INVISIBLE_MS_MAX: u64 = 1_000;

/// What the queues hold and held.
#[derive(Debug, Default)]
pub struct Watched {
    fronts: BTreeMap<Place, Front>,
    /// Where the log begins.
    first: u64,
    last: Option<Attempt>,
    /// Bytes of carried messages, over all processes.
    carried: u64,
    /// Bytes of deleted segments.
    freed: u64,
}

/// A queue.
#[derive(Debug, Default)]
struct Front {
    /// First offset that is still there.
    min: u64,
    /// First offset without a row.
    next: u64,
    looked_ms: u64,
    kept: BTreeMap<u64, Kept>,
    gone: BTreeMap<u64, MessageId>,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    id: MessageId,
    /// Where its bytes are.
    position: u64,
    /// It became visible after this.
    after_ms: u64,
}

/// A step that might have deleted.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    at_ms: u64,
    /// What is young might go, too.
    oldest: bool,
}

impl Watched {
    /// Whether all messages from one offset to before another were deleted.
    pub fn are_gone(&self, place: &Place, mut offsets: Range<u64>) -> bool {
        let gone = self.fronts.get(place).map(|front| &front.gone);
        offsets.all(|offset| gone.is_some_and(|gone| gone.contains_key(&offset)))
    }

    /// Copies of a message that were deleted.
    pub fn copies_gone(&self, id: MessageId) -> u64 {
        let gone = self.fronts.iter().filter(|((topic, _), _)| !topic.starts_with('%'));
        gone.flat_map(|(_, front)| front.gone.values()).filter(|gone| **gone == id).count() as u64
    }

    /// Everything that was deleted.
    pub fn gone(&self) -> impl Iterator<Item = (&Place, &BTreeMap<u64, MessageId>)> {
        self.fronts.iter().map(|(place, front)| (place, &front.gone))
    }
}

/// One round of the store's housekeeping, watched. Sometimes the process dies in the middle of it.
pub fn keep(
    world: &World,
    process: &Process,
    retention: Retention,
    goes_on: bool,
    dice: &mut Dice,
) -> Result<bool, StorageError> {
    let store = process.broker.store();
    let at_ms = world.now_ms();
    if retention.oldest && is_pressed(world, process, retention, at_ms) {
        // what becomes visible in the step itself might go in it unseen; a failure shows in the step
        let _ = store.sync();
    }
    if !look(world, process) {
        // what is not known cannot be judged when it is gone
        return Ok(false);
    }
    let before = store.retention_figures();
    if world.is_chaos()
        && world.plan.faults.contains(&Fault::CrashAtIo)
        && dice.one_in(if goes_on { 3 } else { 40 })
    {
        process.disk.fail_after_ops(dice.below(25));
    }
    let kept = store.keep_step(process.broker.now());
    let after = store.retention_figures();
    let segments = after.segments - before.segments;
    let early = after.segments_before_their_time - before.segments_before_their_time;
    let carried = after.bytes_carried - before.bytes_carried;
    // a store that was just opened measures itself in its first round; what is deleted still counts behind it
    let pressed = is_pressed(world, process, retention, at_ms);
    {
        let mut watched = world.watched();
        watched.last = Some(Attempt { at_ms, oldest: retention.oldest && pressed });
        watched.carried += carried;
        watched.freed += after.bytes_freed - before.bytes_freed;
    }
    if segments + carried > 0 {
        note!(world.trace, "retention: {segments} segments, {early} early, {carried} bytes carried");
    }
    let mut history = world.history();
    history.stats.saw("segment deleted", segments);
    history.stats.saw("segment deleted before its time", early);
    history.stats.saw("open message carried", u64::from(carried > 0));
    history.stats.saw("death in a step of retention", u64::from(goes_on && process.disk.has_died()));
    if early > 0 && !retention.oldest {
        history.violation("a segment went before its time, where new messages should be refused".to_owned());
    }
    drop(history);
    moved(world, process);
    kept
}

/// Whether the bound is reached, or the disk was full a moment ago.
fn is_pressed(world: &World, process: &Process, retention: Retention, at_ms: u64) -> bool {
    let taken = process.broker.store().bytes_taken();
    let after_full_ms = AFTER_FULL.as_millis() as u64;
    let full = |(from, to): &(u64, u64)| (*from..=to + after_full_ms).contains(&at_ms);
    taken.saturating_add(retention.segment_bytes) > retention.max_bytes
        || world.history().full.iter().any(full)
}

/// Gives every message a row that has become visible; false if that cannot be read now.
pub fn look(world: &World, process: &Process) -> bool {
    moved(world, process);
    for (place, queue) in queues(process) {
        match extend(world, process, &place, &queue) {
            Ok(()) => {}
            Err(error) => {
                note!(world.trace, "retention: {place:?} cannot be looked at: {error}");
                if !process.has_failed() {
                    world.history().violation(format!("{place:?} cannot be read: {error}"));
                }
                return false;
            }
        }
    }
    true
}

fn queues(process: &Process) -> BTreeMap<Place, Arc<Queue>> {
    let topics = process.broker.store().topics();
    let queues = topics.iter().flat_map(|topic| topic.queues());
    queues.map(|queue| ((queue.topic().to_string(), queue.id().0), queue)).collect()
}

/// Sees what is gone: everything whose bytes were in front of where the log begins now. Messages become visible in
/// another order than they were written in, so a queue may have holes behind its first offset.
fn moved(world: &World, process: &Process) {
    let store = process.broker.store();
    let first = store.first_position().0;
    let mut watched = world.watched();
    let Watched { fronts, first: before, last, .. } = &mut *watched;
    let mut wrong = Vec::new();
    if first < *before {
        wrong.push(format!("the log began at {before} and begins at {first}"));
    }
    *before = first;
    let mut gone = 0;
    for (place, queue) in queues(process) {
        let min = queue.min_offset().0;
        let front = fronts.entry(place.clone()).or_default();
        let going: Vec<_> = front.kept.extract_if(.., |_, kept| kept.position < first).collect();
        for (offset, kept) in going {
            note!(world.trace, "retention: message {} at {offset} of {place:?} is gone", kept.id);
            front.gone.insert(offset, kept.id);
            gone += 1;
            wrong.extend(wrongly_gone(world, *last, kept).map(|why| format!("{place:?} at {offset}: {why}")));
        }
        if let Some((offset, kept)) = front.kept.range(..min).next() {
            wrong.push(format!("{place:?} begins at {min}, and message {} at {offset} is there", kept.id));
        }
        if min < front.min || min > front.next {
            wrong.push(format!("{place:?} began at {}, ended at {}, begins at {min}", front.min, front.next));
        }
        front.min = min;
    }
    drop(watched);
    let mut history = world.history();
    history.stats.saw("visible message deleted", gone);
    for text in wrong {
        history.violation(text);
    }
}

/// Why a message should still be there, if it should.
fn wrongly_gone(world: &World, last: Option<Attempt>, kept: Kept) -> Option<String> {
    let (Some(last), Some(retention)) = (last, world.plan.retention) else {
        return Some("deleted, and nothing was to delete".to_owned());
    };
    let leapt_ms = world.history().leapt_ms_since(kept.after_ms);
    let age_ms = last.at_ms.saturating_sub(kept.after_ms) + leapt_ms;
    let young = age_ms + INVISIBLE_MS_MAX < retention.age_ms;
    (young && !last.oldest).then(|| {
        format!("message {} was deleted at an age of {age_ms} ms, and {} are kept", kept.id, retention.age_ms)
    })
}

fn extend(world: &World, process: &Process, place: &Place, queue: &Queue) -> Result<(), StorageError> {
    let store = process.broker.store();
    let (mut next, after_ms) = {
        let watched = world.watched();
        watched.fronts.get(place).map_or((0, 0), |front| (front.next, front.looked_ms))
    };
    let max = queue.max_offset().0;
    if max < next {
        world.history().violation(format!("{place:?} ended at {next} and ends at {max}"));
    }
    let mut rows = Vec::new();
    while next < max {
        let read = store.read_entries(queue, QueueOffset(next), ENTRIES_PER_READ, &mut |_| true)?;
        for (offset, entry) in &read.entries {
            if *offset != next {
                world.history().violation(format!("{place:?} has nothing at offset {next}"));
            }
            let seen = world.history().seen.get(place).and_then(|seen| seen.get(offset)).copied();
            let id = match seen {
                Some(id) => Some(id),
                None => {
                    let stored = store.read_message(entry)?;
                    MessageView::parse(&stored.bytes).ok().and_then(|view| number_of(view.body()))
                }
            };
            match id {
                Some(id) => rows.push((*offset, Kept { id, position: entry.position, after_ms })),
                None => world.history().violation(format!("{place:?} offset {offset} is nobody's message")),
            }
            next = offset + 1;
        }
        if read.entries.is_empty() {
            world.history().violation(format!("{place:?} ends at {max} and gives nothing from {next} on"));
            break;
        }
    }
    let mut watched = world.watched();
    let front = watched.fronts.entry(place.clone()).or_default();
    front.kept.extend(rows);
    front.next = next;
    front.looked_ms = world.now_ms();
    Ok(())
}

/// Carrying must pay: over a run fewer bytes are carried than freed, but for the segment that each process had begun
/// with when it ended. What is carried has a longer head than it had.
pub fn judge(world: &World) {
    let Some(retention) = world.plan.retention else { return };
    let lives = world.host.starts.load(std::sync::atomic::Ordering::Relaxed);
    let watched = world.watched();
    let begun = lives * (retention.segment_bytes + retention.segment_bytes / 4);
    if watched.carried > watched.freed + begun {
        let text = format!("{} bytes were carried and {} freed", watched.carried, watched.freed);
        drop(watched);
        world.history().violation(text);
    }
}
