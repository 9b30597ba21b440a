//! Housekeeping: what the keeper does, one bounded step at a time, and how the oldest segment goes.
//!
//! ```text
//!  open messages carried on -> synced -> checkpoint beyond -> base' durable -> segment renamed -> cut and removed
//! ```
//!
//! Decision record 0008 has the failure table.

use std::collections::BTreeMap;
use std::ops::Range;

use mezzo_protocol::ids::{GroupName, QueueOffset};
use mezzo_protocol::time::Timestamp;

use super::fold::Fold;
use super::{Store, lock};
use crate::concurrency::atomic::Ordering;
use crate::error::StorageError;
use crate::format::state_file::StateHeader;
use crate::log::SegmentInfo;
use crate::options::AtMaxBytes;
use crate::state::publish::Unseen;
use crate::state::segments::SegmentSummary;
use crate::state::snapshot;
use crate::state::topics::Queue;

/// Below the disk budget, a segment waits while this part of it, or more, is open: one in this many bytes.
const OPEN_SHARE: u64 = 4;

/// Consumer groups that are named in [`RetentionFigures::unread_deleted`]: the first ones that lose something. Whoever
/// makes up groups must not make this grow, and what is told by name must go on under its name.
pub const UNREAD_GROUPS_MAX: usize = 50;

/// What retention has done since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionFigures {
    /// Segments deleted.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes_freed: u64,
    /// Bytes of frames of carried messages.
    pub bytes_carried: u64,
    /// Segments deleted before their time, because the disk budget was reached.
    pub segments_before_their_time: u64,
    /// Messages in those that a consumer group had not read, by group; at most [`UNREAD_GROUPS_MAX`] of them.
    pub unread_deleted: BTreeMap<GroupName, u64>,
    /// The same of all further groups together.
    pub unread_deleted_of_others: u64,
}

impl RetentionFigures {
    fn add_unread(&mut self, group: GroupName, messages: u64) {
        if self.unread_deleted.len() >= UNREAD_GROUPS_MAX && !self.unread_deleted.contains_key(&group) {
            self.unread_deleted_of_others += messages;
        } else {
            *self.unread_deleted.entry(group).or_default() += messages;
        }
    }
}

/// What is to be done about the oldest segment.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing now.
    Waits,
    /// Its open messages are carried on.
    Carry,
    /// It may go; `early` if its messages are younger than the retention.
    Goes { early: bool },
}

impl Store {
    /// One round of housekeeping: history files of closed segments, a checkpoint if enough was appended, a step of
    /// retention. True if retention has more to do at once.
    ///
    /// # Errors
    /// When the disk refuses; nothing is lost, and the next round tries again.
    pub fn keep(&self, now: Timestamp) -> Result<bool, StorageError> {
        let now = self.appender().leader_time(now);
        self.leader_ms.store(now.as_ms(), Ordering::Relaxed);
        let mut kept = self.keep_once(now);
        if kept.1.as_ref().is_err_and(StorageError::is_out_of_space) && self.reserve.give_back(&*self.fs)? {
            // what is kept for this very moment
            kept = self.keep_once(now);
        }
        self.reserve
            .renew(&*self.fs, 2 * self.state_bytes.load(Ordering::Relaxed) + self.history.waiting_bytes());
        // Behind what makes room, which a full disk leaves least to. New messages are refused where this fails, and
        // everything else goes on.
        let prepared = self.view.pages.prepare();
        let (more, kept) = kept;
        match prepared.and(kept) {
            Ok(()) => Ok(more),
            // a full disk is no reason to wait with what makes room
            Err(e) if more && e.is_out_of_space() => {
                tracing::warn!(error = %e, "the disk is full; retention goes on");
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }

    /// Whether there is more to do at once, and the first failure: one does not keep the others from being done.
    fn keep_once(&self, now: Timestamp) -> (bool, Result<(), StorageError>) {
        // first: what retention reads may be in them
        let mended = self.mend(now);
        let closed = self.close_history();
        self.measure();
        let due = {
            let state = lock(&self.checkpointing);
            self.limit.load(Ordering::Acquire).saturating_sub(state.position) >= self.options.checkpoint_bytes
        };
        let checkpointed = if due { self.checkpoint(false) } else { Ok(()) };
        let cut = self.log.cut_deleted();
        let (retained, failed) = match closed.and_then(|()| self.retain(now)) {
            Ok(more) => (more, Ok(())),
            Err(e) => (false, Err(e)),
        };
        let (mends, mended) = match mended {
            Ok(more) => (more, Ok(())),
            Err(e) => (false, Err(e)),
        };
        (mends | cut | retained, checkpointed.and(failed).and(self.expire_history(now)).and(mended))
    }

    fn close_history(&self) -> Result<(), StorageError> {
        // decisions that a power cut could still take back stay in memory
        let durable = self.limit.load(Ordering::Acquire).min(self.log.synced());
        self.history.close_segments_before(durable)
    }

    /// Tells the log how much of the budget is not its own.
    fn measure(&self) {
        let derived = [
            self.view.pages.bytes(),
            self.history.waiting_bytes(),
            self.history.bytes(),
            // base and checkpoint, each as it is and as it is while the next is written
            2 * self.state_bytes.load(Ordering::Relaxed),
            self.reserve.bytes(),
        ];
        self.log.set_other_bytes(derived.iter().sum());
    }

    /// What retention has done since this start.
    #[must_use]
    pub fn retention_figures(&self) -> RetentionFigures {
        lock(&self.retention).clone()
    }

    /// Bytes that the log and the derived files take of [`crate::StoreOptions::max_bytes`].
    #[must_use]
    pub fn bytes_taken(&self) -> u64 {
        self.log.bytes_taken()
    }

    /// One step about the oldest segment: some of its open messages are carried on, or it is deleted. `now` is leader
    /// time, as what it is compared with. True if something was done.
    fn retain(&self, now: Timestamp) -> Result<bool, StorageError> {
        let segments = self.log.segments();
        // where the next one begins, not one segment on: after a cut there are gaps
        let (Some(oldest), Some(next)) = (segments.first(), segments.get(1)) else { return Ok(false) };
        let next = next.base;
        if next > self.log.synced() {
            return Ok(false);
        }
        let early = match self.fate(&segments, now) {
            Fate::Waits => return Ok(false),
            Fate::Carry => {
                let carried = self.carry_some(&(oldest.base..next), now)?;
                lock(&self.retention).bytes_carried += carried;
                return Ok(carried > 0);
            }
            Fate::Goes { early } => early,
        };
        // the checkpoint must lie beyond, or it would name what is gone
        if next > lock(&self.checkpointing).position {
            if !self.log.is_pressed() {
                return Ok(false);
            }
            self.checkpoint(false)?;
        }
        self.delete_oldest(oldest, next, early)?;
        Ok(true)
    }

    fn fate(&self, segments: &[SegmentInfo], now: Timestamp) -> Fate {
        let pressed = self.log.is_pressed();
        let oldest_kept_ms = now.as_ms().saturating_sub(self.options.retention_ms);
        let is_old = |summary: &SegmentSummary| summary.newest_visible_ms < oldest_kept_ms;
        let may_go = |summary: &SegmentSummary| {
            is_old(summary) || (pressed && self.options.at_max_bytes == AtMaxBytes::DeleteOldest)
        };
        let appender = self.appender();
        let summary_of = |segment: &SegmentInfo| appender.ledger.segments.get(segment.base);
        let Some(oldest) = segments.first() else { return Fate::Waits };
        let summary = summary_of(oldest);
        if !may_go(&summary) {
            return Fate::Waits;
        }
        if summary.open == 0 {
            return Fate::Goes { early: !is_old(&summary) };
        }
        if summary.open_bytes.saturating_mul(OPEN_SHARE) < oldest.end - oldest.base {
            return if self.has_room_to_carry(&summary, appender.writer.room()) {
                Fate::Carry
            } else {
                Fate::Waits
            };
        }
        if !pressed || !self.has_room_to_carry(&summary, appender.writer.room()) {
            return Fate::Waits;
        }
        // going through the front must gain a segment, or the same messages would be carried for ever
        let closed = segments.split_last().map_or(&[][..], |(_, closed)| closed);
        let mut dead = 0;
        for segment in closed.iter().take_while(|segment| segment.end <= self.log.synced()) {
            let summary = summary_of(segment);
            if !may_go(&summary) {
                break;
            }
            dead += i128::from(segment.bytes) - i128::from(summary.open_bytes);
            if dead >= i128::from(self.options.segment_bytes) {
                return Fate::Carry;
            }
        }
        Fate::Waits
    }

    /// On a full disk the reserve is there for carrying, too, but a quarter of it is left for decisions.
    fn has_room_to_carry(&self, summary: &SegmentSummary, active_room: u64) -> bool {
        let spares = self.log.spare_segments() as u64;
        !self.log.is_disk_full()
            || summary.open_bytes <= active_room + spares * (self.options.segment_bytes / 4 * 3)
    }

    /// Deletes the oldest segment, all of whose messages are decided, visible or somewhere else.
    fn delete_oldest(&self, oldest: &SegmentInfo, next: u64, early: bool) -> Result<(), StorageError> {
        let mut state = lock(&self.checkpointing);
        if self.log.first_position() != oldest.base {
            // another keeper was faster
            return Ok(());
        }
        // a power cut must not open again what counts as closed here, nor take back what was carried
        self.sync()?;
        state.base = self.advance_base(&state.base, next)?;
        let unread = if early { self.unread_in(oldest.base..next)? } else { BTreeMap::new() };
        let first = self.log.remove_first_segment()?;
        self.appender().ledger.segments.drop_before(first);
        for queue in self.topics().iter().flat_map(|t| t.queues()) {
            match queue.drop_before(&self.view.pages, first) {
                // made anew, its front goes with the next segment
                Err(StorageError::PageDamaged { .. }) => {}
                dropped => dropped?,
            }
        }
        tracing::info!(first_position = first, "retention deleted a log segment");
        for (group, messages) in &unread {
            tracing::warn!(
                %group,
                messages,
                "store.max_bytes is reached: messages were deleted before this group had read them"
            );
        }
        let mut figures = lock(&self.retention);
        figures.segments += 1;
        figures.bytes_freed += oldest.bytes;
        figures.segments_before_their_time += u64::from(early);
        for (group, messages) in unread {
            figures.add_unread(group, messages);
        }
        Ok(())
    }

    /// Messages whose bytes are in `segment` and that are behind a group's offset, by group: those at the front of
    /// each queue, up to the first one that stays.
    fn unread_in(&self, segment: Range<u64>) -> Result<BTreeMap<GroupName, u64>, StorageError> {
        let mut unread: BTreeMap<GroupName, u64> = BTreeMap::new();
        let mut ends = std::collections::HashMap::new();
        for topic in self.topics() {
            for queue in topic.queues() {
                let from = queue.min_offset();
                let to = self.first_behind(&queue, segment.end)?;
                if to > from.0 {
                    ends.insert((topic.name().clone(), queue.id()), from.0..to);
                }
            }
        }
        for (group, offsets) in self.offsets.all() {
            for ((topic, queue), offset) in offsets {
                let Some(gone) = ends.get(&(topic, queue)) else { continue };
                let messages = gone.end.saturating_sub(offset.0.max(gone.start));
                if messages > 0 {
                    *unread.entry(group.clone()).or_default() += messages;
                }
            }
        }
        Ok(unread)
    }

    /// Offset of a queue's first entry whose bytes are at `position` or behind it.
    fn first_behind(&self, queue: &Queue, position: u64) -> Result<u64, StorageError> {
        let mut from = queue.min_offset();
        loop {
            let read = self.read_entries(queue, from, 1, &mut |entry| entry.position >= position)?;
            if let Some((offset, _)) = read.entries.first() {
                return Ok(*offset);
            }
            if read.next_offset <= from.0 {
                return Ok(from.0);
            }
            from = QueueOffset(read.next_offset);
        }
    }

    /// Forgets decisions beyond the horizon. `now` is leader time.
    fn expire_history(&self, now: Timestamp) -> Result<(), StorageError> {
        let horizon_ms = self.options.history_horizon_ms.max(self.options.retention_ms);
        let older_than_ms = now.as_ms().saturating_sub(horizon_ms);
        self.history.expire(self.log.first_position(), older_than_ms, self.options.history_bytes_max)
    }

    /// base' = fold(base, frames below `to`), made durable.
    fn advance_base(&self, base: &StateHeader, to: u64) -> Result<StateHeader, StorageError> {
        let mut fold = Fold::from_base(self, base)?;
        self.log.scan(fold.end(), to, &mut |frame| fold.take(frame, &mut Unseen))?;
        let Fold { ledger, header, .. } = fold;
        let header = StateHeader { generation: base.generation + 1, position: to, synced_to: to, ..header };
        let bytes = snapshot::base_file(&ledger, header);
        self.state_bytes.fetch_max(bytes.len() as u64, Ordering::Relaxed);
        self.base.write(&*self.fs, header.generation, &bytes)?;
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_lose_messages_are_named_up_to_a_bound_and_each_stays_where_it_is_told() {
        let mut figures = RetentionFigures::default();
        for _ in 0..2 {
            for number in 0..UNREAD_GROUPS_MAX + 7 {
                figures.add_unread(GroupName::new(&format!("g{number:03}")).unwrap(), 2);
            }
        }
        assert_eq!(figures.unread_deleted.len(), UNREAD_GROUPS_MAX);
        assert!(figures.unread_deleted.values().all(|messages| *messages == 4));
        assert_eq!(figures.unread_deleted_of_others, 2 * 2 * 7);
    }
}
