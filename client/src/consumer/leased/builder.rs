//! Putting a transactional consumer together.

use std::fmt;
use std::sync::Arc;

use mezzo_protocol::assignment::{AssignmentStrategy, Averagely};
use mezzo_protocol::remoting::body::heartbeat::{ConsumeType, MessageModel};
use tokio::sync::Notify;

use super::super::builder::consumer_data;
use super::super::member::{Commits, GroupMember};
use super::super::subscription::subscriptions;
use super::consumer::TransactionalConsumer;
use crate::client::{Client, ConsumerMember, group_name};
use crate::config::{ConsumerConfig, StartPosition};
use crate::error::Error;

/// Builds a [`TransactionalConsumer`]; made by [`Client::transactional_consumer`].
///
/// ```no_run
/// # async fn example(client: mezzo_client::Client) -> Result<(), mezzo_client::Error> {
/// use mezzo_client::config::ConsumerConfig;
///
/// let consumer = client
///     .transactional_consumer("billing")
///     .subscribe("orders", "paid")
///     .config(ConsumerConfig::default().lease_ttl_ms(20_000).lease_interval_ms(5_000).batch_messages_max(50))
///     .start()
///     .await?;
/// consumer.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until start() is awaited"]
pub struct TransactionalConsumerBuilder {
    client: Client,
    group: String,
    wishes: Vec<(String, String)>,
    strategy: Box<dyn AssignmentStrategy>,
    config: ConsumerConfig,
}

impl TransactionalConsumerBuilder {
    pub(crate) fn new(client: Client, group: &str) -> Self {
        Self {
            client,
            group: group.to_owned(),
            wishes: Vec::new(),
            strategy: Box::new(Averagely),
            config: ConsumerConfig::default(),
        }
    }

    /// A topic, and which of its messages: `"*"` for all, or tags joined by `||`.
    pub fn subscribe(mut self, topic: impl Into<String>, tags: impl Into<String>) -> Self {
        self.wishes.push((topic.into(), tags.into()));
        self
    }

    /// Where the group begins on queues that are new to it. Default: with the oldest message.
    pub const fn start_at(mut self, position: StartPosition) -> Self {
        self.config.start = position;
        self
    }

    /// How queues are divided among members, see
    /// [`PushConsumerBuilder::assignment`](crate::PushConsumerBuilder::assignment).
    pub fn assignment(mut self, strategy: impl AssignmentStrategy + 'static) -> Self {
        self.strategy = Box::new(strategy);
        self
    }

    /// All settings at once. Those of handlers do not matter here.
    pub fn config(mut self, config: ConsumerConfig) -> Self {
        self.config = config;
        self
    }

    /// Joins the group, and begins to lease and to pull.
    ///
    /// # Errors
    /// If a name, an expression or a setting is not allowed, there is no subscription, or this client already has a
    /// consumer in the group.
    pub async fn start(self) -> Result<TransactionalConsumer, Error> {
        let group = group_name(&self.group)?;
        self.config.check_leases()?;
        let shared = Arc::clone(self.client.shared());
        let subscriptions = subscriptions(&group, false, &self.wishes, shared.now())?;
        let changed = Arc::new(Notify::new());
        let (kind, model) = (ConsumeType::Pull, MessageModel::Clustering);
        let data = consumer_data(&group, kind, model, self.config.start, &subscriptions);
        let membership =
            shared.join_consumer(&group, ConsumerMember { data, changed: Arc::clone(&changed) })?;
        let member = GroupMember::new(
            self.client,
            group,
            self.config,
            self.strategy,
            subscriptions,
            false,
            Commits::InTransactions,
            changed,
        );
        member.introduce().await;
        Ok(TransactionalConsumer::join(Arc::new(member), membership))
    }
}

impl fmt::Debug for TransactionalConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionalConsumerBuilder")
            .field("group", &self.group)
            .field("subscriptions", &self.wishes)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
