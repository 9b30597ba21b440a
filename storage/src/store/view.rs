//! The published view: what readers see. Changed only by publications, in log order.

use std::sync::Arc;

use dashmap::DashMap;
use mezzo_protocol::ids::TopicName;

use crate::error::StorageError;
use crate::state::publish::{Publication, Publisher};
use crate::state::queues::PageStore;
use crate::state::topics::{Queue, Topic};

/// Topics and consume queue pages.
#[derive(Debug)]
pub(super) struct View {
    pub(super) topics: DashMap<TopicName, Arc<Topic>>,
    pub(super) pages: PageStore,
}

impl View {
    /// Makes one effect visible. `grown` collects watched queues, `messages` counts entries.
    pub(super) fn show(
        &self,
        publication: Publication,
        grown: &mut Vec<Arc<Queue>>,
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
                if watched && !grown.iter().any(|known| Arc::ptr_eq(known, &queue)) {
                    grown.push(queue);
                }
            }
            Publication::Skip { queue, offset } => {
                let mut log = queue.log();
                log.skip_to(&self.pages, offset)?;
                queue.publish_ends(&log);
            }
            Publication::Topic(topic) => {
                self.topics.insert(topic.name().clone(), topic);
            }
            Publication::TopicDeleted(topic) => {
                // a topic of the same name may have been created since
                self.topics.remove_if(topic.name(), |_, current| Arc::ptr_eq(current, &topic));
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
            self.failure = self.view.show(publication, &mut Vec::new(), &mut 0).err();
        }
    }
}
