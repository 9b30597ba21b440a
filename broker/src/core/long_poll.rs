//! Held pulls: who waits for which queue, who is woken when it grows, and who has waited long enough.
//!
//! Pure: events go in through `handle_…`, effects come out of [`LongPolls::poll_effect`]. What a held pull carries is
//! the caller's business (`T`), and so is what names a connection (`C`), so the rules below can be tested with plain
//! numbers. Both the pulls of one connection and the pulls of the whole broker are bounded; past a bound the pull is not
//! held and the caller answers at once.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::Hash,
};

use mezzo_protocol::{
    ids::{QueueId, QueueOffset, TopicName},
    time::Timestamp,
};

/// One queue of one topic, as a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct QueueKey {
    /// The topic the queue belongs to.
    pub(crate) topic: TopicName,
    /// The queue's number within the topic.
    pub(crate) queue: QueueId,
    /// Tells the queues of a topic that was deleted and created again apart: whoever waits for the old one does not hear
    /// of the new one, and the other way round.
    pub(crate) life: usize,
}

/// How many pulls may wait at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HoldBounds {
    /// Held pulls of one connection, at most.
    pub(crate) per_connection: usize,
    /// Held pulls of the whole broker, at most.
    pub(crate) total: usize,
}

/// A pull that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldPull<C, T> {
    /// The queue it waits for.
    pub(crate) queue: QueueKey,
    /// The connection that gets the answer.
    pub(crate) connection: C,
    /// It is woken once the queue reaches beyond this offset.
    pub(crate) from: QueueOffset,
    /// It is answered at this time at the latest.
    pub(crate) deadline: Timestamp,
    /// Whatever is needed to answer.
    pub(crate) payload: T,
}

/// Why a pull came back from waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WakeCause {
    /// The queue holds something at or after the offset it waited at.
    Arrived,
    /// Its deadline passed with nothing new.
    TimedOut,
}

/// Why a pull was not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldRefusal {
    /// The connection already holds [`HoldBounds::per_connection`] pulls.
    ConnectionFull,
    /// The broker already holds [`HoldBounds::total`] pulls.
    BrokerFull,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect<C, T> {
    /// The first pull waits for this queue: ask to be told when it grows, then tell its present length once
    /// ([`LongPolls::handle_queue_grew`]), because it may have grown in between.
    Watch(QueueKey),
    /// Nobody waits for this queue any more.
    Unwatch(QueueKey),
    /// Answer this pull, or hold it again.
    Wake(HeldPull<C, T>, WakeCause),
}

/// All held pulls of a broker (or of one of its shards).
#[derive(Debug)]
pub(crate) struct LongPolls<C, T> {
    bounds: HoldBounds,
    pulls: HashMap<u64, HeldPull<C, T>>,
    /// Tokens, which rise in the order in which the pulls arrived.
    queues: HashMap<QueueKey, BTreeSet<u64>>,
    connections: HashMap<C, BTreeSet<u64>>,
    deadlines: BTreeSet<(Timestamp, u64)>,
    effects: VecDeque<Effect<C, T>>,
    next_token: u64,
}

impl<C: Copy + Eq + Hash, T> LongPolls<C, T> {
    /// Nobody waits yet.
    #[must_use]
    pub(crate) fn new(bounds: HoldBounds) -> Self {
        Self {
            bounds,
            pulls: HashMap::new(),
            queues: HashMap::new(),
            connections: HashMap::new(),
            deadlines: BTreeSet::new(),
            effects: VecDeque::new(),
            next_token: 0,
        }
    }

    /// How many pulls wait now.
    pub(crate) fn len(&self) -> usize {
        self.pulls.len()
    }

    /// Holds a pull.
    ///
    /// # Errors
    /// A bound is reached; the pull comes back so that it can be answered at once.
    pub(crate) fn handle_hold(&mut self, pull: HeldPull<C, T>) -> Result<(), (HoldRefusal, HeldPull<C, T>)> {
        if self.pulls.len() >= self.bounds.total {
            return Err((HoldRefusal::BrokerFull, pull));
        }
        let of_connection = self.connections.get(&pull.connection).map_or(0, BTreeSet::len);
        if of_connection >= self.bounds.per_connection {
            return Err((HoldRefusal::ConnectionFull, pull));
        }
        let token = self.next_token;
        self.next_token += 1;
        let waiting = self.queues.entry(pull.queue.clone()).or_default();
        if waiting.is_empty() {
            self.effects.push_back(Effect::Watch(pull.queue.clone()));
        }
        waiting.insert(token);
        self.connections.entry(pull.connection).or_default().insert(token);
        self.deadlines.insert((pull.deadline, token));
        self.pulls.insert(token, pull);
        Ok(())
    }

    /// The queue now ends before `max` (the offset that its next message will get).
    pub(crate) fn handle_queue_grew(&mut self, queue: &QueueKey, max: QueueOffset) {
        let Some(waiting) = self.queues.get(queue) else { return };
        let woken: Vec<u64> = waiting
            .iter()
            .copied()
            .filter(|token| self.pulls.get(token).is_some_and(|pull| pull.from < max))
            .collect();
        for token in woken {
            self.wake(token, WakeCause::Arrived);
        }
    }

    /// The connection is gone: its pulls are forgotten without an answer.
    pub(crate) fn handle_connection_closed(&mut self, connection: C) {
        let tokens = self.connections.get(&connection).cloned().unwrap_or_default();
        for token in tokens {
            let _ = self.remove(token);
        }
    }

    /// Wakes every pull whose deadline is at or before `now`.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(&(deadline, token)) = self.deadlines.first() {
            if deadline > now {
                return;
            }
            self.wake(token, WakeCause::TimedOut);
        }
    }

    /// When [`Self::handle_timeout`] has something to do next.
    #[must_use]
    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Hands out the next effect, oldest first.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect<C, T>> {
        self.effects.pop_front()
    }

    fn wake(&mut self, token: u64, cause: WakeCause) {
        if let Some(pull) = self.remove(token) {
            self.effects.push_back(Effect::Wake(pull, cause));
        }
    }

    fn remove(&mut self, token: u64) -> Option<HeldPull<C, T>> {
        let pull = self.pulls.remove(&token)?;
        self.deadlines.remove(&(pull.deadline, token));
        if let Some(tokens) = self.connections.get_mut(&pull.connection) {
            tokens.remove(&token);
            if tokens.is_empty() {
                self.connections.remove(&pull.connection);
            }
        }
        if let Some(waiting) = self.queues.get_mut(&pull.queue) {
            waiting.remove(&token);
            if waiting.is_empty() {
                self.queues.remove(&pull.queue);
                self.effects.push_back(Effect::Unwatch(pull.queue.clone()));
            }
        }
        Some(pull)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Event {
        Hold { connection: u64, queue: u32, from: u64, deadline_ms: u64 },
        Refused { connection: u64, queue: u32, refusal: HoldRefusal },
        Grew { queue: u32, max: u64 },
        Closed(u64),
        Time(u64),
    }
    use Event::{Closed, Grew, Hold, Refused, Time};

    fn key(queue: u32) -> QueueKey {
        QueueKey { topic: TopicName::new("T").unwrap(), queue: QueueId(queue), life: 0 }
    }

    fn pull(
        connection: u64,
        queue: u32,
        from: u64,
        deadline_ms: u64,
        payload: usize,
    ) -> HeldPull<u64, usize> {
        HeldPull {
            queue: key(queue),
            connection,
            from: QueueOffset(from),
            deadline: Timestamp::from_ms(deadline_ms),
            payload,
        }
    }

    /// Feeds the events to a table bounded to two pulls per connection and three in all; each held pull carries the
    /// index of its event. Effects are written down as short words.
    fn check(events: &[Event], expected: &[&str]) {
        let mut polls = LongPolls::new(HoldBounds { per_connection: 2, total: 3 });
        let mut effects = Vec::new();
        for (index, event) in events.iter().enumerate() {
            match *event {
                Hold { connection, queue, from, deadline_ms } => {
                    polls.handle_hold(pull(connection, queue, from, deadline_ms, index)).unwrap();
                }
                Refused { connection, queue, refusal } => {
                    let (got, _) = polls.handle_hold(pull(connection, queue, 0, 9, index)).unwrap_err();
                    assert_eq!(got, refusal);
                }
                Grew { queue, max } => polls.handle_queue_grew(&key(queue), QueueOffset(max)),
                Closed(connection) => polls.handle_connection_closed(connection),
                Time(ms) => polls.handle_timeout(Timestamp::from_ms(ms)),
            }
            while let Some(effect) = polls.poll_effect() {
                effects.push(match effect {
                    Effect::Watch(key) => format!("watch {}", key.queue.0),
                    Effect::Unwatch(key) => format!("unwatch {}", key.queue.0),
                    Effect::Wake(pull, WakeCause::Arrived) => format!("arrived #{}", pull.payload),
                    Effect::Wake(pull, WakeCause::TimedOut) => format!("timed out #{}", pull.payload),
                });
            }
        }
        assert_eq!(effects, expected);
        let held = polls.len();
        assert_eq!(held, polls.deadlines.len());
        assert_eq!(held, polls.queues.values().map(BTreeSet::len).sum::<usize>());
        assert_eq!(held, polls.connections.values().map(BTreeSet::len).sum::<usize>());
    }

    #[test]
    fn growth_beyond_the_offset_wakes_and_growth_up_to_it_does_not() {
        check(
            &[
                Hold { connection: 1, queue: 0, from: 5, deadline_ms: 100 },
                Grew { queue: 0, max: 5 },
                Grew { queue: 1, max: 9 },
                Grew { queue: 0, max: 6 },
                Grew { queue: 0, max: 7 },
            ],
            &["watch 0", "unwatch 0", "arrived #0"],
        );
    }

    #[test]
    fn pulls_of_one_queue_wake_in_the_order_they_came_and_later_offsets_stay() {
        check(
            &[
                Hold { connection: 1, queue: 0, from: 3, deadline_ms: 100 },
                Hold { connection: 2, queue: 0, from: 8, deadline_ms: 100 },
                Hold { connection: 3, queue: 0, from: 0, deadline_ms: 100 },
                Grew { queue: 0, max: 4 },
                Grew { queue: 0, max: 9 },
            ],
            &["watch 0", "arrived #0", "arrived #2", "unwatch 0", "arrived #1"],
        );
    }

    #[test]
    fn deadlines_wake_in_time_order_and_exactly_at_their_time() {
        check(
            &[
                Hold { connection: 1, queue: 0, from: 0, deadline_ms: 50 },
                Hold { connection: 1, queue: 1, from: 0, deadline_ms: 40 },
                Time(39),
                Time(40),
                Time(50),
                Time(60),
            ],
            &["watch 0", "watch 1", "unwatch 1", "timed out #1", "unwatch 0", "timed out #0"],
        );
    }

    #[test]
    fn bounds_refuse_and_a_woken_pull_makes_room_again() {
        check(
            &[
                Hold { connection: 1, queue: 0, from: 0, deadline_ms: 50 },
                Hold { connection: 1, queue: 0, from: 0, deadline_ms: 60 },
                Refused { connection: 1, queue: 0, refusal: HoldRefusal::ConnectionFull },
                Hold { connection: 2, queue: 0, from: 0, deadline_ms: 70 },
                Refused { connection: 3, queue: 0, refusal: HoldRefusal::BrokerFull },
                Time(50),
                Hold { connection: 1, queue: 0, from: 0, deadline_ms: 80 },
            ],
            &["watch 0", "timed out #0"],
        );
    }

    #[test]
    fn a_closed_connection_takes_its_pulls_along_unanswered() {
        check(
            &[
                Hold { connection: 1, queue: 0, from: 0, deadline_ms: 50 },
                Hold { connection: 2, queue: 0, from: 0, deadline_ms: 60 },
                Hold { connection: 1, queue: 1, from: 0, deadline_ms: 50 },
                Closed(1),
                Closed(1),
                Grew { queue: 1, max: 9 },
                Time(60),
            ],
            &["watch 0", "watch 1", "unwatch 1", "unwatch 0", "timed out #1"],
        );
    }
}
