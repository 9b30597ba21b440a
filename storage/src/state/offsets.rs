//! Consumer offsets. Clients report them often and lose little when the last second is missing, so a report only
//! changes memory; once a second each changed group is logged as one record.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::PoisonError;

use mezzo_protocol::ids::{GroupName, QueueId, QueueOffset, TopicName};

use crate::concurrency::{Mutex, RwLock};

/// Offsets of one group: next offset to consume, per queue.
pub(crate) type GroupOffsets = BTreeMap<(TopicName, QueueId), QueueOffset>;

/// All consumer offsets.
#[derive(Debug, Default)]
pub(crate) struct ConsumerOffsets {
    groups: RwLock<HashMap<GroupName, Mutex<GroupOffsets>>>,
    /// In order of name, so that the same reports make the same records.
    changed: Mutex<BTreeSet<GroupName>>,
    /// What decisions beyond the limit have moved; the limit has not passed them, so nobody is told.
    decided: Mutex<HashMap<(GroupName, TopicName, QueueId), Decided>>,
}

/// The newest decided offset of a queue, and where its decision stands.
#[derive(Debug, Clone, Copy)]
struct Decided {
    position: u64,
    offset: QueueOffset,
}

impl ConsumerOffsets {
    pub(crate) fn get(&self, group: &str, topic: &TopicName, queue: QueueId) -> Option<QueueOffset> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let offsets = groups.get(group)?.lock().unwrap_or_else(PoisonError::into_inner);
        offsets.get(&(topic.clone(), queue)).copied()
    }

    /// What stands at the end of the log: what is told to others, or what a decision makes of it that they will be told
    /// of.
    pub(crate) fn appended(
        &self,
        group: &GroupName,
        topic: &TopicName,
        queue: QueueId,
    ) -> Option<QueueOffset> {
        let decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = if decided.is_empty() {
            None
        } else {
            decided.get(&(group.clone(), topic.clone(), queue)).map(|d| d.offset)
        };
        drop(decided);
        ahead.or_else(|| self.get(group, topic, queue))
    }

    /// The decision at `position` moves an offset.
    pub(crate) fn decide(
        &self,
        position: u64,
        group: &GroupName,
        topic: &TopicName,
        queue: QueueId,
        offset: QueueOffset,
    ) {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        decided.insert((group.clone(), topic.clone(), queue), Decided { position, offset });
    }

    /// The limit has passed the decision at `position`. Nothing is told of what was deleted since.
    pub(crate) fn publish(
        &self,
        position: u64,
        group: &GroupName,
        topic: &TopicName,
        queue: QueueId,
        offset: QueueOffset,
    ) {
        let key = (group.clone(), topic.clone(), queue);
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(newest) = decided.get(&key).copied() else { return };
        self.put(group, topic, queue, offset);
        if newest.position == position {
            decided.remove(&key);
        }
    }

    /// An offset as a record of the log or a state file says: what was decided before it is past.
    pub(crate) fn restore(&self, group: &GroupName, topic: &TopicName, queue: QueueId, offset: QueueOffset) {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        if !decided.is_empty() {
            decided.remove(&(group.clone(), topic.clone(), queue));
        }
        drop(decided);
        self.put(group, topic, queue, offset);
    }

    /// Takes a group's report: marks the group for the next log record.
    pub(crate) fn report(&self, group: &GroupName, topic: &TopicName, queue: QueueId, offset: QueueOffset) {
        if !self.put(group, topic, queue, offset) {
            return;
        }
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if !changed.contains(group.as_str()) {
            changed.insert(group.clone());
        }
    }

    /// Sets an offset; false if it was so already.
    fn put(&self, group: &GroupName, topic: &TopicName, queue: QueueId, offset: QueueOffset) -> bool {
        let key = (topic.clone(), queue);
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(offsets) = groups.get(group.as_str()) {
            let mut offsets = offsets.lock().unwrap_or_else(PoisonError::into_inner);
            return offsets.insert(key, offset) != Some(offset);
        }
        drop(groups);
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let offsets = groups.entry(group.clone()).or_default();
        offsets.get_mut().unwrap_or_else(PoisonError::into_inner).insert(key, offset);
        true
    }

    /// The groups with unlogged reports, with all of their offsets.
    pub(crate) fn take_changed(&self) -> Vec<(GroupName, GroupOffsets)> {
        let changed = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        changed
            .into_iter()
            .filter_map(|group| {
                let offsets =
                    groups.get(group.as_str())?.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Some((group, offsets))
            })
            .collect()
    }

    /// Marks a group again whose record could not be written.
    pub(crate) fn put_back(&self, group: GroupName) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(group);
    }

    pub(crate) fn knows_group(&self, group: &str) -> bool {
        let decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = decided.keys().any(|(g, ..)| g.as_str() == group);
        drop(decided);
        moved || self.groups.read().unwrap_or_else(PoisonError::into_inner).contains_key(group)
    }

    pub(crate) fn remove_group(&self, group: &str) {
        // what is decided first: or it could be published in between, and stay
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        decided.retain(|(g, ..), _| g.as_str() != group);
        drop(decided);
        self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(group);
    }

    pub(crate) fn remove_topic(&self, topic: &TopicName) {
        // as above
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        decided.retain(|(_, t, _), _| t != topic);
        drop(decided);
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        for offsets in groups.values() {
            offsets.lock().unwrap_or_else(PoisonError::into_inner).retain(|(t, _), _| t != topic);
        }
    }

    /// All offsets of one group.
    pub(crate) fn of_group(&self, group: &str) -> GroupOffsets {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let copy = |m: &Mutex<GroupOffsets>| m.lock().unwrap_or_else(PoisonError::into_inner).clone();
        groups.get(group).map(copy).unwrap_or_default()
    }

    /// All groups and their offsets, in order of name, with what decisions have moved, whether it is told yet or not.
    pub(crate) fn all(&self) -> Vec<(GroupName, GroupOffsets)> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let copy = |m: &Mutex<GroupOffsets>| m.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all: BTreeMap<GroupName, GroupOffsets> =
            groups.iter().map(|(name, offsets)| (name.clone(), copy(offsets))).collect();
        drop(groups);
        for ((group, topic, queue), moved) in
            self.decided.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            let offsets = all.entry(group.clone()).or_default();
            offsets.insert((topic.clone(), *queue), moved.offset);
        }
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;

    #[test]
    fn what_is_published_while_its_group_or_topic_is_deleted_does_not_stay() {
        const ROUNDS: u64 = 3_000;
        let (group, topic) = (GroupName::new("g").unwrap(), TopicName::new("t").unwrap());
        let offsets = Arc::new(ConsumerOffsets::default());
        let barrier = Arc::new(Barrier::new(2));
        let publisher = {
            let (offsets, barrier) = (Arc::clone(&offsets), Arc::clone(&barrier));
            let (group, topic) = (group.clone(), topic.clone());
            std::thread::spawn(move || {
                for round in 0..ROUNDS {
                    barrier.wait();
                    offsets.publish(round, &group, &topic, QueueId(0), QueueOffset(7));
                    barrier.wait();
                }
            })
        };
        for round in 0..ROUNDS {
            offsets.decide(round, &group, &topic, QueueId(0), QueueOffset(7));
            barrier.wait();
            if round % 2 == 0 {
                offsets.remove_group("g")
            } else {
                offsets.remove_topic(&topic)
            }
            barrier.wait();
            assert_eq!(offsets.appended(&group, &topic, QueueId(0)), None, "round {round}");
        }
        publisher.join().unwrap();
    }
}
