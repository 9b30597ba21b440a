//! Creates, changes and deletes consumer groups. A group appears with the defaults at its first heartbeat, so that its
//! offsets and its retry topic belong to something that a restart remembers; an administrator may set it otherwise.

use std::sync::Arc;

use mezzo_protocol::{ids::GroupName, system_topic, time::Timestamp};
use mezzo_storage::{Batch, GroupConfig, Operation, OperationResult, Refusal, Store};
use tokio::sync::Mutex;

use super::{
    append::{AppendError, Appender},
    topic::TopicToCreate,
};
use crate::config::Config;

/// Permission of retry topics: read and write.
const RETRY_PERMISSION: u32 = 6;

/// Why a group was not created or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroupError {
    /// More retry queues than `limits.queues_per_topic`.
    #[error("a retry topic has at most {max} queues (limits.queues_per_topic), {asked} were asked for")]
    QueueCount {
        /// How many were asked for.
        asked: u32,
        /// The bound.
        max: u32,
    },
    /// `limits.groups` exist.
    #[error("the broker has {0} consumer groups already (limits.groups)")]
    TooMany(usize),
    /// The store does not carry the change out.
    #[error(transparent)]
    Refused(Refusal),
    /// The change could not be logged.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Group administration. Reading a group needs only the store.
pub(crate) struct Groups {
    store: Arc<Store>,
    appender: Appender,
    /// Held from the look whether a group exists until it does.
    creating: Mutex<()>,
    groups_max: usize,
    queues_max: u32,
}

impl Groups {
    /// Administration of the groups of `store`.
    pub(crate) fn new(store: Arc<Store>, appender: Appender, config: &Config) -> Self {
        Self {
            store,
            appender,
            creating: Mutex::new(()),
            groups_max: config.limits.groups,
            queues_max: config.limits.queues_per_topic,
        }
    }

    /// Makes the group exist: returns when its creation with the defaults is durable, at once if it exists already.
    ///
    /// # Errors
    /// [`GroupError`].
    pub(crate) async fn create(&self, now: Timestamp, name: &GroupName) -> Result<(), GroupError> {
        let _one_at_a_time = self.creating.lock().await;
        if self.store.group(name).is_some() {
            return Ok(());
        }
        if self.store.groups().len() >= self.groups_max {
            return Err(GroupError::TooMany(self.groups_max));
        }
        let mut batch = Batch::default();
        batch.push(Operation::PutGroup(GroupConfig::new(name.clone())));
        self.appender.append(now, &mut batch).await?;
        match batch.results().first() {
            Some(OperationResult::Refused(refusal)) => Err(GroupError::Refused(*refusal)),
            _ => {
                tracing::info!(group = name.as_str(), "consumer group created");
                Ok(())
            }
        }
    }

    /// The operation that gives an existing group this configuration.
    ///
    /// # Errors
    /// [`GroupError::QueueCount`].
    pub(crate) fn change(&self, config: GroupConfig) -> Result<Operation, GroupError> {
        if config.retry_queues > self.queues_max {
            return Err(GroupError::QueueCount { asked: config.retry_queues, max: self.queues_max });
        }
        Ok(Operation::PutGroup(config))
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
