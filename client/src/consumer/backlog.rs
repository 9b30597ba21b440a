//! What keeps a queue's messages from the workers: an order to keep, a lock to have, a pause.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::job::Taken;

/// Whether a queue's messages may be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// The consumer keeps no order within the group: no lock is needed.
    NotNeeded,
    /// The broker gave the lock, and it counts until then.
    Until(Instant),
    /// The broker has not given it.
    Missing,
}

impl Lock {
    /// Whether nobody else may have the queue.
    pub(super) fn counts(self, now: Instant) -> bool {
        match self {
            Self::NotNeeded => true,
            Self::Until(until) => until > now,
            Self::Missing => false,
        }
    }
}

/// One queue's messages that no worker may have yet.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Whether messages are handled one at a time.
    ordered: bool,
    pub(super) lock: Lock,
    paused: bool,
    waiting: VecDeque<Taken>,
    /// In an ordered queue: a message is at a worker, or waits for one or for its next attempt.
    busy: bool,
}

impl Backlog {
    pub(super) const fn new(ordered: bool, lock: Lock, paused: bool) -> Self {
        Self { ordered, lock, paused, waiting: VecDeque::new(), busy: false }
    }

    /// New messages. Returns those that may go to the workers now.
    pub(super) fn offer(&mut self, mut taken: Vec<Taken>) -> Vec<Taken> {
        if !self.ordered && !self.paused {
            return taken;
        }
        self.waiting.extend(taken.drain(..));
        self.ready()
    }

    /// A worker has `taken`. Returns it unless it must wait after all: then in the order of offsets, which is the one in
    /// which messages are handed out again.
    pub(super) fn admit(&mut self, taken: Taken) -> Option<Taken> {
        if !self.paused {
            return Some(taken);
        }
        self.busy = false;
        let place = self.waiting.partition_point(|other| other.offset < taken.offset);
        self.waiting.insert(place, taken);
        None
    }

    /// The message of an ordered queue that was at a worker needs no more work: the next one is due.
    pub(super) fn advance(&mut self) -> Vec<Taken> {
        self.busy = false;
        self.ready()
    }

    /// Lets messages go or keeps them. Returns those that may go now.
    pub(super) fn pause(&mut self, paused: bool) -> Vec<Taken> {
        self.paused = paused;
        self.ready()
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Whether no message of an ordered queue is at a worker.
    pub(super) const fn is_idle(&self) -> bool {
        !self.busy
    }

    fn ready(&mut self) -> Vec<Taken> {
        if self.paused {
            return Vec::new();
        }
        if !self.ordered {
            return self.waiting.drain(..).collect();
        }
        if self.busy {
            return Vec::new();
        }
        let next = self.waiting.pop_front();
        self.busy = next.is_some();
        next.into_iter().collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use bytes::Bytes;
    use mezzo_protocol::ids::{QueueId, QueueOffset};
    use mezzo_protocol::message::record::{MessageParts, encode};
    use mezzo_protocol::message::sys_flag::SysFlag;
    use mezzo_protocol::time::Timestamp;

    /// Messages at these offsets.
    pub(in crate::consumer) fn taken(offsets: &[u64]) -> Vec<Taken> {
        let parts = MessageParts {
            topic: "t",
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag::NONE,
            born_timestamp: Timestamp::from_ms(1),
            born_host: "127.0.0.1:1".parse().unwrap(),
            store_host_v6: false,
            reconsume_times: 0,
            body: b"b",
            properties: b"",
        };
        let mut bytes = Vec::new();
        encode(&parts, &mut bytes).unwrap();
        let bytes = Bytes::from(bytes);
        let one = |offset: &u64| Taken::new(bytes.clone(), QueueOffset(*offset), 0);
        offsets.iter().map(one).collect()
    }

    fn offsets(taken: &[Taken]) -> Vec<u64> {
        taken.iter().map(|taken| taken.offset.0).collect()
    }

    #[test]
    fn an_ordered_queue_gives_one_message_at_a_time() {
        let mut backlog = Backlog::new(true, Lock::NotNeeded, false);
        assert_eq!(offsets(&backlog.offer(taken(&[0, 1]))), [0]);
        assert_eq!(offsets(&backlog.offer(taken(&[2]))), [0; 0]);
        assert_eq!(offsets(&backlog.advance()), [1]);
        assert_eq!(offsets(&backlog.advance()), [2]);
        assert!(backlog.advance().is_empty() && backlog.is_idle());
        assert_eq!(offsets(&backlog.offer(taken(&[3]))), [3]);
    }

    #[test]
    fn a_paused_queue_keeps_its_messages_and_their_order() {
        let mut backlog = Backlog::new(true, Lock::NotNeeded, false);
        let mut first = backlog.offer(taken(&[0, 1]));
        assert!(backlog.pause(true).is_empty());
        assert!(backlog.admit(first.remove(0)).is_none());
        assert!(backlog.is_idle());
        assert_eq!(offsets(&backlog.pause(false)), [0]);
        assert_eq!(offsets(&backlog.advance()), [1]);

        let mut free = Backlog::new(false, Lock::NotNeeded, true);
        assert!(free.offer(taken(&[2, 3])).is_empty());
        for early in taken(&[1, 0]) {
            assert!(free.admit(early).is_none());
        }
        assert_eq!(offsets(&free.pause(false)), [0, 1, 2, 3]);
        assert_eq!(offsets(&free.offer(taken(&[4]))), [4]);
    }
}
