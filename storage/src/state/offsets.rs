//! Consumer offsets. Clients report them often and lose little when the last second is missing, so a report only
//! changes memory; once a second each changed group is logged as one record.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError, RwLock};

use mezzo_protocol::ids::{GroupName, QueueId, QueueOffset, TopicName};

/// Offsets of one group: next offset to consume, per queue.
pub(crate) type GroupOffsets = BTreeMap<(TopicName, QueueId), QueueOffset>;

/// All consumer offsets.
#[derive(Debug, Default)]
pub(crate) struct ConsumerOffsets {
    groups: RwLock<HashMap<GroupName, Mutex<GroupOffsets>>>,
    changed: Mutex<HashSet<GroupName>>,
}

impl ConsumerOffsets {
    pub(crate) fn get(&self, group: &str, topic: &TopicName, queue: QueueId) -> Option<QueueOffset> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let offsets = groups.get(group)?.lock().unwrap_or_else(PoisonError::into_inner);
        offsets.get(&(topic.clone(), queue)).copied()
    }

    /// Sets an offset; `report` marks the group for the next log record.
    pub(crate) fn set(
        &self,
        group: &GroupName,
        topic: &TopicName,
        queue: QueueId,
        offset: QueueOffset,
        report: bool,
    ) {
        {
            let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(offsets) = groups.get(group.as_str()) {
                let mut offsets = offsets.lock().unwrap_or_else(PoisonError::into_inner);
                if offsets.insert((topic.clone(), queue), offset) == Some(offset) {
                    return;
                }
            } else {
                drop(groups);
                let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
                let offsets = groups.entry(group.clone()).or_default();
                offsets
                    .get_mut()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert((topic.clone(), queue), offset);
            }
        }
        if report {
            let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
            if !changed.contains(group.as_str()) {
                changed.insert(group.clone());
            }
        }
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
        self.groups.read().unwrap_or_else(PoisonError::into_inner).contains_key(group)
    }

    pub(crate) fn remove_group(&self, group: &str) {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(group);
    }

    pub(crate) fn remove_topic(&self, topic: &TopicName) {
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

    /// All groups and their offsets.
    pub(crate) fn all(&self) -> Vec<(GroupName, GroupOffsets)> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let copy = |m: &Mutex<GroupOffsets>| m.lock().unwrap_or_else(PoisonError::into_inner).clone();
        groups.iter().map(|(name, offsets)| (name.clone(), copy(offsets))).collect()
    }
}
