//! The fold behind a part of the log that is lost, with a person's consent.
//!
//! What is lost may have been anything, so what was said before it is not all true any more:
//! - a transaction that was open may have been decided: it is IN_DOUBT from there on, nobody's policy decides it, and
//!   nothing of it becomes visible unless its group or a person says so;
//! - a message behind the loss may have had any offset: every queue goes on beyond all that can have been given;
//! - whoever held a lease may have lost it: none holds any more, and the next holder's epoch is above all there were.
//!
//! Records behind the loss, up to `until`, were written by a broker that knew more. Where they refer to what is lost,
//! they are taken as far as they can be: a message for a topic that is not known makes it known, a message that joins
//! an unknown transaction is lost with it, and a decision about a transaction decides what is left of it.

use mezzo_protocol::ids::{QueueId, TopicName};
use mezzo_protocol::time::Timestamp;

use super::leases::Lease;
use super::ledger::Ledger;
use super::publish::{Publication, Publisher};
use super::topics::TopicConfig;
use crate::error::StorageError;
use crate::format::loss::{Loss, Losses};

/// Where the fold stands among the losses.
#[derive(Debug, Clone, Default)]
pub(crate) struct AfterLoss {
    /// All that the base knows of.
    pub(crate) losses: Losses,
    /// How many of them the fold has passed.
    passed: usize,
    /// Records below were written by a broker that knew what is lost now.
    until: u64,
    /// The first offset of a queue that is made by one of those.
    by: u64,
}

impl AfterLoss {
    /// For a fold that begins at `position`.
    pub(crate) fn starting_at(losses: Losses, position: u64) -> Self {
        let passed = losses.list.partition_point(|loss| loss.from < position);
        let before = || losses.list.iter().take(passed);
        let (until, by) = (before().map(|loss| loss.until).max(), before().map(|loss| loss.by).max());
        Self { passed, until: until.unwrap_or(0), by: by.unwrap_or(0), losses }
    }

    /// Whether what a record at `position` refers to may be lost.
    pub(crate) fn may_miss(&self, position: u64) -> bool {
        position < self.until
    }
}

impl Ledger {
    /// Passes every loss that begins at or before `position`, before a record that stands there is folded in.
    pub(crate) fn pass_losses(&mut self, position: u64, publisher: &mut dyn Publisher) {
        while let Some(loss) =
            self.lost.losses.list.get(self.lost.passed).filter(|loss| loss.from <= position)
        {
            let loss = *loss;
            self.lost.passed += 1;
            self.lost.until = self.lost.until.max(loss.until);
            self.lost.by = self.lost.by.max(loss.by);
            self.lose(&loss, publisher);
        }
    }

    fn lose(&mut self, loss: &Loss, publisher: &mut dyn Publisher) {
        let open: Vec<u64> = self.open.iter().map(|row| row.origin).collect();
        for origin in open {
            self.open.update(origin, |row| row.in_doubt = true);
            self.open.disarm(origin);
        }
        let leases: Vec<_> =
            self.leases.iter().map(|(g, t, q, l)| (g.clone(), t.clone(), q, l.clone())).collect();
        for (group, topic, queue, lease) in leases {
            let given_back = Lease { epoch: lease.epoch.max(loss.until), released: true, ..lease };
            self.put_lease(loss.from, Timestamp::ZERO, (&group, &topic, queue), given_back, publisher);
        }
        self.jump(loss.from, loss.by, publisher);
    }

    /// A topic behind a loss: its queues that are not known may have given offsets before.
    pub(crate) fn put_topic_after_loss(
        &mut self,
        position: u64,
        config: TopicConfig,
        publisher: &mut dyn Publisher,
    ) {
        let name = config.name.clone();
        let known = self.topics.get(&name).map_or(0, |topic| topic.queues().len());
        self.put_topic(position, config, publisher);
        let Some(topic) = self.topics.get(&name) else { return };
        for queue in topic.queues().into_iter().skip(known) {
            let offset = queue.next().saturating_add(self.lost.by);
            queue.set_next(offset);
            publisher.publish(position, Publication::Skip { queue, offset });
        }
    }

    /// The topic and queue of a message whose `topic` record is lost.
    pub(crate) fn find_lost_queue(
        &mut self,
        position: u64,
        topic: &str,
        queue: QueueId,
        publisher: &mut dyn Publisher,
    ) -> Result<(), StorageError> {
        let invalid = |e| super::corrupt_log(position, e);
        let name = TopicName::new(topic).map_err(invalid)?;
        if queue.0 >= TopicConfig::QUEUES_MAX {
            return Err(super::corrupt_log(position, format!("queue {} of {topic}", queue.0)));
        }
        let fresh = TopicConfig::new(name.clone(), queue.0 + 1);
        let known = self.topics.get(&name).map(|topic| TopicConfig::clone(&topic.config()));
        let config = match known {
            Some(known) => TopicConfig {
                read_queues: known.read_queues.max(queue.0 + 1),
                write_queues: known.write_queues.max(queue.0 + 1),
                ..known
            },
            None => fresh,
        };
        self.put_topic_after_loss(position, config, publisher);
        Ok(())
    }
}
