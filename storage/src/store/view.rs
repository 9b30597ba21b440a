//! The published view: what readers see. Changed only by publications, in log order.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use mezzo_protocol::ids::{GroupName, TopicName};

use crate::concurrency::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::error::StorageError;
use crate::results::LeftDoubt;
use crate::state::groups::GroupConfig;
use crate::state::leases::Leases;
use crate::state::ledger::Ledger;
use crate::state::offsets::ConsumerOffsets;
use crate::state::publish::{Publication, Publisher};
use crate::state::queues::PageStore;
use crate::state::topics::{Queue, Topic};

/// Topics and consume queue pages.
#[derive(Debug)]
pub(super) struct View {
    pub(super) topics: DashMap<TopicName, Arc<Topic>>,
    pub(super) groups: DashMap<GroupName, Arc<GroupConfig>>,
    pub(super) pages: PageStore,
    pub(super) offsets: Arc<ConsumerOffsets>,
    leases: RwLock<Leases>,
}

/// What the observer is to be told of: watched queues that have grown, each once, and what is no longer in doubt.
#[derive(Debug, Default)]
pub(super) struct Grown {
    queues: Vec<Arc<Queue>>,
    pub(super) left_doubt: Vec<LeftDoubt>,
    /// Where they stand in memory. Not their symbols: a queue may be deleted, and another get its symbol, in between.
    known: HashSet<usize, RandomState>,
}

impl Grown {
    fn add(&mut self, queue: Arc<Queue>) {
        if self.known.insert(Arc::as_ptr(&queue).addr()) {
            self.queues.push(queue);
        }
    }

    pub(super) fn into_queues(self) -> Vec<Arc<Queue>> {
        self.queues
    }
}

impl View {
    /// What a ledger holds, all of it within the limit.
    pub(super) fn of(ledger: &Ledger, pages: PageStore) -> Self {
        let view = Self {
            topics: DashMap::new(),
            groups: DashMap::new(),
            pages,
            offsets: Arc::clone(&ledger.offsets),
            leases: RwLock::default(),
        };
        for (name, group) in &ledger.groups {
            view.groups.insert(name.clone(), Arc::clone(group));
        }
        for (name, topic) in &ledger.topics {
            view.topics.insert(name.clone(), Arc::clone(topic));
        }
        for (group, topic, queue, lease) in ledger.leases.iter() {
            view.leases_mut().set(group, topic, queue, lease.clone());
        }
        view
    }

    pub(super) fn leases(&self) -> RwLockReadGuard<'_, Leases> {
        self.leases.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn leases_mut(&self) -> RwLockWriteGuard<'_, Leases> {
        self.leases.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one effect visible. `grown` collects what is to be told, `messages` counts entries.
    pub(super) fn show(
        &self,
        publication: Publication,
        grown: &mut Grown,
        messages: &mut u64,
    ) -> Result<(), StorageError> {
        match publication {
            Publication::Entry { queue, offset, entry } => {
                *messages += 1;
                let watched = {
                    let mut log = queue.log();
                    log.put(&self.pages, offset, entry)?;
                    queue.publish_ends(&log);
                    queue.is_watched()
                };
                if watched {
                    grown.add(queue);
                }
            }
            Publication::Skip { queue, offset } => {
                let mut log = queue.log();
                log.skip_to(&self.pages, offset)?;
                queue.publish_ends(&log);
            }
            Publication::Group(config) => {
                self.groups.insert(config.name.clone(), config);
            }
            Publication::GroupDeleted(name) => {
                self.leases_mut().remove_group(&name);
                self.groups.remove(&name);
            }
            Publication::Offsets { position, group, entries } => {
                for (topic, queue, offset) in entries {
                    self.offsets.publish(position, &group, &topic, queue, offset);
                }
            }
            Publication::Lease { group, topic, queue, lease } => {
                self.leases_mut().set(&group, &topic, queue, lease);
            }
            Publication::LeasesForgotten { now } => self.leases_mut().forget_ended(now),
            Publication::LeftDoubt(left) => grown.left_doubt.push(left),
            Publication::Topic(topic) => {
                self.topics.insert(topic.name().clone(), topic);
            }
            Publication::TopicDeleted(topic) => {
                // a topic of the same name may have been created since
                self.topics.remove_if(topic.name(), |_, current| Arc::ptr_eq(current, &topic));
                self.leases_mut().remove_topic(topic.name());
                for queue in topic.queues() {
                    let mut log = queue.log();
                    log.clear(&self.pages);
                    queue.publish_ends(&log);
                }
            }
        }
        Ok(())
    }
}

/// Shows effects at once: what recovery does, where everything folded is within the limit.
pub(super) struct AtOnce<'a> {
    pub(super) view: &'a View,
    pub(super) failure: Option<StorageError>,
}

impl Publisher for AtOnce<'_> {
    fn publish(&mut self, _position: u64, publication: Publication) {
        if self.failure.is_none() {
            self.failure = self.view.show(publication, &mut Grown::default(), &mut 0).err();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use mezzo_protocol::ids::QueueId;

    use super::*;
    use crate::file_system::SimulatedDisk;
    use crate::format::queue_entry::QueueEntry;
    use crate::state::topics::{QueueRegistry, TopicConfig};

    #[test]
    fn each_watched_queue_is_told_of_once_also_one_that_has_the_symbol_of_a_deleted_one() {
        let pages = PageStore::open(Arc::new(SimulatedDisk::new()), PathBuf::from("/q"), &[]).unwrap();
        let ledger = Ledger::new(1 << 20, crate::options::CheckPolicy::default(), None);
        let view = View::of(&ledger, pages);
        let mut registry = QueueRegistry::default();
        let mut grown = Grown::default();
        let mut want = Vec::new();
        for name in ["first", "second"] {
            let config = TopicConfig::new(TopicName::new(name).unwrap(), 500);
            let topic = Topic::new(config, &mut registry);
            for offset in 0..2 {
                for queue in topic.queues().into_iter().filter(|queue| queue.id() != QueueId(7)) {
                    queue.watch();
                    let entry = QueueEntry { position: offset, size: 1, tag_hash: 0, visible_at_ms: 1 };
                    view.show(Publication::Entry { queue, offset, entry }, &mut grown, &mut 0).unwrap();
                }
            }
            want.extend((0..500).filter(|id| *id != 7).map(|id| (name, id)));
            topic.mark_deleted(&mut registry);
        }
        let queues = grown.into_queues();
        let got: Vec<_> = queues.iter().map(|queue| (queue.topic().as_str(), queue.id().0)).collect();
        assert_eq!(got, want);
    }
}
