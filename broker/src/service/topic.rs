//! Creates, changes and lists topics. Creation is rare, so it is the one thing that a request waits for before it is
//! translated; one creation runs at a time, which makes "create it if it is not there" free of races.

use std::sync::Arc;

use mezzo_protocol::{ids::TopicName, system_topic, time::Timestamp};
use mezzo_storage::{Batch, Operation, OperationResult, Refusal, Store, TopicConfig};
use tokio::sync::Mutex;

use super::append::{AppendError, Appender};
use crate::config::Config;

/// A topic that a request needs and that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicToCreate {
    /// Its name.
    pub(crate) name: TopicName,
    /// Queues to read from and to write to, at least 1.
    pub(crate) queues: u32,
    /// RocketMQ's permission bits: 4 read, 2 write, 1 inherit.
    pub(crate) permission: u32,
}

/// Why a topic was not created or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopicError {
    /// More queues than `limits.queues_per_topic`, or none.
    #[error("a topic has 1 to {max} queues (limits.queues_per_topic), {asked} were asked for")]
    QueueCount {
        /// How many were asked for.
        asked: u32,
        /// The bound.
        max: u32,
    },
    /// `limits.topics` exist.
    #[error("the broker has {0} topics already (limits.topics)")]
    TooMany(usize),
    /// A name that the broker itself uses.
    #[error("the topic {0} belongs to the broker")]
    System(TopicName),
    /// The store does not carry the change out.
    #[error(transparent)]
    Refused(Refusal),
    /// The change could not be logged.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Topic administration. Reading a topic needs only the store.
pub(crate) struct Topics {
    store: Arc<Store>,
    appender: Appender,
    /// Held from the look whether a topic exists until it does.
    creating: Mutex<()>,
    topics_max: usize,
    queues_max: u32,
}

impl Topics {
    /// Administration of the topics of `store`.
    pub(crate) fn new(store: Arc<Store>, appender: Appender, config: &Config) -> Self {
        Self {
            store,
            appender,
            creating: Mutex::new(()),
            topics_max: config.limits.topics,
            queues_max: config.limits.queues_per_topic,
        }
    }

    /// Makes the topic exist: returns when its creation is durable, at once if it exists already (with whatever
    /// configuration it has).
    ///
    /// # Errors
    /// [`TopicError`].
    pub(crate) async fn create(&self, now: Timestamp, topic: &TopicToCreate) -> Result<(), TopicError> {
        if self.store.topic(&topic.name).is_some() {
            return Ok(());
        }
        let _one_at_a_time = self.creating.lock().await;
        if self.store.topic(&topic.name).is_some() {
            return Ok(());
        }
        let mut config = TopicConfig::new(topic.name.clone(), topic.queues);
        config.permission = topic.permission;
        let operation = self.checked(config)?;
        let mut batch = Batch::default();
        batch.push(operation);
        self.appender.append(now, &mut batch).await?;
        match batch.results().first() {
            Some(OperationResult::Refused(refusal)) => Err(TopicError::Refused(*refusal)),
            _ => {
                tracing::info!(topic = topic.name.as_str(), queues = topic.queues, "topic created");
                Ok(())
            }
        }
    }

    /// The operation that gives a topic this configuration, creating it where it does not exist.
    ///
    /// # Errors
    /// [`TopicError`] for what can be refused before anything is appended.
    pub(crate) fn change(&self, config: TopicConfig) -> Result<Operation, TopicError> {
        if system_topic::is_system(&config.name) {
            return Err(TopicError::System(config.name));
        }
        self.checked(config)
    }

    /// The operation that deletes a topic.
    ///
    /// # Errors
    /// [`TopicError::System`].
    pub(crate) fn delete(&self, name: &TopicName) -> Result<Operation, TopicError> {
        if system_topic::is_system(name) {
            return Err(TopicError::System(name.clone()));
        }
        Ok(Operation::DeleteTopic(name.clone()))
    }

    fn checked(&self, config: TopicConfig) -> Result<Operation, TopicError> {
        for asked in [config.read_queues, config.write_queues] {
            if asked > self.queues_max || config.queue_count() == 0 {
                return Err(TopicError::QueueCount { asked, max: self.queues_max });
            }
        }
        if self.store.topic(&config.name).is_none() && self.store.topics().len() >= self.topics_max {
            return Err(TopicError::TooMany(self.topics_max));
        }
        Ok(Operation::PutTopic(config))
    }
}
