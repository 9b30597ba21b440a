//! What the store has done since it was opened, counted where it happens: under the append lock, which is held anyway, so
//! that counting costs an addition; and around the sync, which one thread at a time leads.

use std::time::Duration;

use super::Store;
use crate::batch::Operation;
use crate::concurrency::atomic::{AtomicU64, Ordering};
use crate::format::record::{Outcome, Source};
use crate::results::{OperationResult, Refusal};

/// Upper bounds of the buckets that syncs are counted in, microseconds: from a drive with a protected cache to a disk
/// that is about to fail.
pub const SYNC_BUCKETS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000,
];

/// Messages and their bytes as stored: body, properties and fixed fields, without the log's own headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// How many.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Stored {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }
}

/// Messages that were refused for a bound and may be sent again later, by the bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefusedMessages {
    /// [`Refusal::NoRoom`]: the disk is full, or slower than what is sent.
    pub no_room: u64,
    /// [`Refusal::AtMaxBytes`].
    pub at_max_bytes: u64,
    /// [`Refusal::TooManyOpen`].
    pub open_messages: u64,
    /// [`Refusal::TooManyOpenBytes`].
    pub open_bytes: u64,
}

impl RefusedMessages {
    fn add(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::NoRoom => self.no_room += 1,
            Refusal::AtMaxBytes => self.at_max_bytes += 1,
            Refusal::TooManyOpen => self.open_messages += 1,
            Refusal::TooManyOpenBytes => self.open_bytes += 1,
            _ => {}
        }
    }
}

/// What was done since the store was opened. All of it only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that were visible at once.
    pub plain: Stored,
    /// Half messages, those that joined a transaction included.
    pub half: Stored,
    /// Delayed messages outside of transactions.
    pub delayed: Stored,
    /// Messages of any kind that were refused for a bound.
    pub refused: RefusedMessages,
    /// Transactions that were opened by a half message.
    pub prepared: u64,
    /// Transactions that were committed, by [`Source`] in the order of its numbers.
    pub committed: [u64; SOURCES],
    /// Transactions that were rolled back, likewise.
    pub rolled_back: [u64; SOURCES],
    /// ENDs that repeated what was decided before.
    pub repeated: u64,
    /// ENDs that contradicted what was decided before.
    pub conflicts: u64,
    /// Transactions that became IN_DOUBT.
    pub parked: u64,
    /// IN_DOUBT transactions that were made PREPARED again by a person.
    pub resumed: u64,
}

/// How many sources a decision can have.
pub const SOURCES: usize = 5;

/// The place of a source in [`Counts::committed`] and [`Counts::rolled_back`].
#[must_use]
pub const fn source_index(source: Source) -> usize {
    match source {
        Source::Producer => 0,
        Source::CheckBack => 1,
        Source::Operator => 2,
        Source::Policy => 3,
        Source::Fenced => 4,
    }
}

impl Counts {
    /// Counts what became of an operation; `wrote`: it has left a record in the log.
    pub(super) fn count(&mut self, operation: &Operation, result: &OperationResult, wrote: bool) {
        match result {
            OperationResult::Stored { .. } => self.plain.add(bytes_of(operation)),
            OperationResult::Scheduled { .. } => self.delayed.add(bytes_of(operation)),
            // one that was sent again is answered alike and stored once
            OperationResult::Prepared { origin, position } if wrote => {
                self.half.add(bytes_of(operation));
                self.prepared += u64::from(origin == position);
            }
            OperationResult::Decided(decision) => {
                let by_source = match decision.outcome {
                    Outcome::Committed => &mut self.committed,
                    Outcome::RolledBack => &mut self.rolled_back,
                };
                if let Some(count) = by_source.get_mut(source_index(decision.source)) {
                    *count += 1;
                }
            }
            OperationResult::AlreadyDecided(_) => self.repeated += 1,
            OperationResult::Conflict(_) => self.conflicts += 1,
            OperationResult::Refused(refusal) if matches!(operation, Operation::Send(_)) => {
                self.refused.add(*refusal);
            }
            OperationResult::Done => match operation {
                Operation::Park { .. } => self.parked += 1,
                Operation::Resume { .. } => self.resumed += 1,
                _ => {}
            },
            _ => {}
        }
    }
}

fn bytes_of(operation: &Operation) -> usize {
    match operation {
        Operation::Send(send) => send.0.payload.len() - send.0.prefix_bytes,
        _ => 0,
    }
}

/// How long syncs took.
#[derive(Debug, Default)]
pub(super) struct SyncTimes {
    /// One more than there are bounds: the last is for what took longer.
    buckets: [AtomicU64; SYNC_BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl SyncTimes {
    pub(super) fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = SYNC_BUCKETS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// How long the syncs since the store was opened took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncTimesSeen {
    /// Syncs per bucket of [`SYNC_BUCKETS_US`], not added up; the last is for what took longer.
    pub buckets: [u64; SYNC_BUCKETS_US.len() + 1],
    /// All of them together, microseconds.
    pub sum_us: u64,
}

/// What is open at one moment, and what was done until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Since the store was opened.
    pub counts: Counts,
    /// Transactions that are PREPARED or IN_DOUBT.
    pub open: usize,
    /// Those of them that are IN_DOUBT.
    pub in_doubt: usize,
    /// Half and delayed messages that are not visible yet; what `open_messages_max` bounds.
    pub open_messages: usize,
}

impl Store {
    /// What is open now and what was done so far. Takes the append lock for a moment.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let appender = self.appender();
        Standing {
            counts: appender.counts,
            open: appender.ledger.open.len(),
            in_doubt: appender.ledger.open.in_doubt_len(),
            open_messages: appender.ledger.open_messages(),
        }
    }

    /// How long syncs took since the store was opened.
    #[must_use]
    pub fn sync_times(&self) -> SyncTimesSeen {
        SyncTimesSeen {
            buckets: std::array::from_fn(|place| {
                self.sync_times.buckets.get(place).map_or(0, |bucket| bucket.load(Ordering::Relaxed))
            }),
            sum_us: self.sync_times.sum_us.load(Ordering::Relaxed),
        }
    }

    /// How many topics there are.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.view.topics.len()
    }

    /// How many consumer groups there are.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.view.groups.len()
    }

    /// Bytes of the log between its first byte and its end, whether retention could delete some of them or not.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.log.appended().saturating_sub(self.log.first_position())
    }

    /// Bytes appended to the log since the store was opened.
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.log.appended().saturating_sub(self.opened_at)
    }

    /// Bytes that may still be written to the disk of the data folder; `None` where the system does not say.
    #[must_use]
    pub fn disk_free_bytes(&self) -> Option<u64> {
        self.fs.free_bytes(&self.options.dir).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_counted_in_the_first_bucket_that_holds_it() {
        let times = SyncTimes::default();
        for us in [0, 100, 101, 2_500_000, 2_500_001] {
            times.add(Duration::from_micros(us));
        }
        let buckets: Vec<_> = times.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        assert_eq!((buckets[0], buckets[1], buckets[13], buckets[14]), (2, 1, 1, 1));
        assert_eq!(times.sum_us.load(Ordering::Relaxed), 5_000_202);
    }

    #[test]
    fn each_source_has_a_place_of_its_own() {
        let mut seen = [false; SOURCES];
        for number in 1..=5 {
            seen[source_index(Source::from_u8(number).unwrap())] = true;
        }
        assert_eq!(seen, [true; SOURCES]);
    }
}
