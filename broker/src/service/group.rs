//! Consumer groups as administrators set them. A group that nobody configured exists by its first heartbeat, with the
//! defaults; only what an administrator changes is logged.

use std::sync::Arc;

use mezzo_protocol::{ids::GroupName, system_topic};
use mezzo_storage::{GroupConfig, Store};

use super::topic::TopicToCreate;

/// Permission of retry topics: read and write.
const RETRY_PERMISSION: u32 = 6;

/// Group administration.
pub(crate) struct Groups {
    store: Arc<Store>,
}

impl Groups {
    /// The groups of `store`.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// The group's configuration: what an administrator set, or the defaults.
    pub(crate) fn config(&self, group: &GroupName) -> Arc<GroupConfig> {
        self.store.group(group).unwrap_or_else(|| Arc::new(GroupConfig::new(group.clone())))
    }

    /// The retry topic that a consumer group needs and that does not exist yet. Without it a member could not be told
    /// of messages that are to be consumed again.
    pub(crate) fn missing_retry_topic(&self, config: &GroupConfig) -> Option<TopicToCreate> {
        let name = system_topic::retry_topic(&config.name);
        self.store.topic(&name).is_none().then(|| TopicToCreate {
            name,
            queues: config.retry_queues.max(1),
            permission: RETRY_PERMISSION,
        })
    }
}
