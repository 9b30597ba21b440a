//! One queue's messages between pull and verdict. Messages finish in any order; the offset that may be committed is the
//! lowest unfinished one, so that a crash never skips a message (it may repeat some).

use std::collections::VecDeque;

use mezzo_protocol::ids::QueueOffset;

/// How much one queue may hold between pull and verdict; set by [`ConsumerConfig`](crate::config::ConsumerConfig).
///
/// ```
/// use mezzo_client::config::ConsumerConfig;
///
/// let config = ConsumerConfig::default().prefetch_messages(200).prefetch_bytes(1 << 20);
/// assert_eq!((config.prefetch.messages, config.prefetch.bytes), (200, 1 << 20));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrefetchLimits {
    /// Most unfinished messages.
    pub messages: usize,
    /// Most bytes of unfinished messages, as they came: bodies stay compressed until a handler gets them.
    pub bytes: usize,
    /// Greatest distance between the lowest unfinished offset and the next one to pull: bounds how much is delivered
    /// again after a crash when one message takes very long.
    pub span: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    offset: QueueOffset,
    bytes: usize,
    done: bool,
}

/// The unfinished messages of one queue and the position to pull from next.
#[derive(Debug)]
pub(crate) struct ProcessQueue {
    /// Ascending by offset; the front is never done.
    slots: VecDeque<Slot>,
    unfinished: usize,
    bytes: usize,
    next_pull: QueueOffset,
}

impl ProcessQueue {
    /// An empty queue that starts at `start`.
    pub(crate) const fn new(start: QueueOffset) -> Self {
        Self { slots: VecDeque::new(), unfinished: 0, bytes: 0, next_pull: start }
    }

    /// Takes in a pulled message of `bytes` bytes. Returns `false` (and ignores it) if its offset was taken in
    /// before: a broker that repeats itself must not make a handler run twice.
    pub(crate) fn accept(&mut self, offset: QueueOffset, bytes: usize) -> bool {
        if offset < self.next_pull {
            return false;
        }
        self.slots.push_back(Slot { offset, bytes, done: false });
        self.unfinished += 1;
        self.bytes += bytes;
        self.next_pull = QueueOffset(offset.0.saturating_add(1));
        true
    }

    /// Everything before `next` has been pulled or filtered out.
    pub(crate) fn advance(&mut self, next: QueueOffset) {
        self.next_pull = self.next_pull.max(next);
    }

    /// The broker says that the queue continues at `next` (its messages were deleted, or it was reset): pull from there,
    /// even backwards. Forgets what was unfinished; verdicts on those messages no longer count.
    pub(crate) fn reset(&mut self, next: QueueOffset) {
        *self = Self::new(next);
    }

    /// The message at `offset` needs no more work. Returns `false` if it was not unfinished.
    pub(crate) fn finish(&mut self, offset: QueueOffset) -> bool {
        let Ok(index) = self.slots.binary_search_by_key(&offset, |slot| slot.offset) else { return false };
        let Some(slot) = self.slots.get_mut(index) else { return false };
        if slot.done {
            return false;
        }
        slot.done = true;
        self.unfinished -= 1;
        self.bytes -= slot.bytes;
        while self.slots.front().is_some_and(|front| front.done) {
            self.slots.pop_front();
        }
        true
    }

    /// The offset at which a successor has to start: the lowest unfinished one, or the next to pull if all are done.
    pub(crate) fn commit_offset(&self) -> QueueOffset {
        self.slots.front().map_or(self.next_pull, |slot| slot.offset)
    }

    /// Where to pull next.
    pub(crate) const fn next_pull(&self) -> QueueOffset {
        self.next_pull
    }

    /// Messages without a verdict.
    pub(crate) const fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Whether another pull is allowed. Bounds are checked before a pull, so one pull's messages may go beyond them. A
    /// bound of 0 counts as 1: a queue must not stand still for ever because of a setting.
    pub(crate) fn has_room(&self, limits: &PrefetchLimits) -> bool {
        self.unfinished < limits.messages.max(1)
            && self.bytes < limits.bytes.max(1)
            && self.next_pull.0.saturating_sub(self.commit_offset().0) < limits.span.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PrefetchLimits = PrefetchLimits { messages: 4, bytes: 100, span: 8 };

    fn queue(offsets: &[u64]) -> ProcessQueue {
        let mut queue = ProcessQueue::new(QueueOffset(0));
        for offset in offsets {
            assert!(queue.accept(QueueOffset(*offset), 10));
        }
        queue
    }

    #[test]
    fn the_commit_offset_is_the_lowest_unfinished_one() {
        let mut queue = queue(&[0, 1, 2]);
        assert!(queue.finish(QueueOffset(1)));
        assert_eq!(queue.commit_offset(), QueueOffset(0));
        assert!(queue.finish(QueueOffset(0)));
        assert_eq!(queue.commit_offset(), QueueOffset(2));
        assert!(queue.finish(QueueOffset(2)));
        assert_eq!(queue.commit_offset(), QueueOffset(3));
    }

    #[test]
    fn filtered_messages_move_the_commit_offset_only_when_nothing_is_unfinished() {
        let mut queue = queue(&[0]);
        queue.advance(QueueOffset(50));
        assert_eq!(queue.commit_offset(), QueueOffset(0));
        queue.finish(QueueOffset(0));
        assert_eq!(queue.commit_offset(), QueueOffset(50));
        queue.advance(QueueOffset(7));
        assert_eq!(queue.next_pull(), QueueOffset(50));
    }

    #[test]
    fn a_repeated_or_foreign_verdict_changes_nothing() {
        let mut queue = queue(&[4, 9]);
        assert!(queue.finish(QueueOffset(9)));
        assert!(!queue.finish(QueueOffset(9)));
        assert!(!queue.finish(QueueOffset(5)));
        assert_eq!((queue.commit_offset(), queue.unfinished()), (QueueOffset(4), 1));
    }

    #[test]
    fn a_message_that_was_pulled_before_is_ignored() {
        let mut queue = queue(&[0, 1]);
        assert!(!queue.accept(QueueOffset(1), 10));
        assert_eq!(queue.unfinished(), 2);
    }

    #[test]
    fn count_bytes_and_span_each_stop_the_next_pull() {
        assert!(queue(&[0, 1, 2]).has_room(&LIMITS));
        assert!(!queue(&[0, 1, 2, 3]).has_room(&LIMITS));
        let mut heavy = ProcessQueue::new(QueueOffset(0));
        heavy.accept(QueueOffset(0), 100);
        assert!(!heavy.has_room(&LIMITS));
        let mut wide = queue(&[0, 7]);
        assert!(!wide.has_room(&LIMITS));
        wide.finish(QueueOffset(0));
        assert!(wide.has_room(&LIMITS));
    }

    #[test]
    fn bounds_of_nothing_still_let_one_message_through_at_a_time() {
        let nothing = PrefetchLimits { messages: 0, bytes: 0, span: 0 };
        let mut queue = queue(&[]);
        assert!(queue.has_room(&nothing));
        queue.accept(QueueOffset(0), 10);
        assert!(!queue.has_room(&nothing));
        queue.finish(QueueOffset(0));
        assert!(queue.has_room(&nothing));
    }

    #[test]
    fn after_a_reset_old_verdicts_do_not_count() {
        let mut queue = queue(&[10, 11]);
        queue.reset(QueueOffset(3));
        assert!(!queue.finish(QueueOffset(10)));
        assert_eq!(queue.commit_offset(), QueueOffset(3));
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_order_of_verdicts_no_unfinished_message_is_passed(order in proptest::collection::vec(0_u64..64, 0..200)) {
            let mut queue = ProcessQueue::new(QueueOffset(0));
            let mut open: std::collections::BTreeSet<u64> = (0..64).collect();
            for offset in &open { queue.accept(QueueOffset(*offset), 1); }
            for offset in order {
                proptest::prop_assert_eq!(queue.finish(QueueOffset(offset)), open.remove(&offset));
                let lowest = open.first().copied().unwrap_or(64);
                proptest::prop_assert_eq!(queue.commit_offset(), QueueOffset(lowest));
                proptest::prop_assert_eq!(queue.unfinished(), open.len());
            }
        }
    }
}
