//! Putting a pull consumer together.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use mezzo_protocol::assignment::{AssignmentStrategy, Averagely};
use mezzo_protocol::ids::MessageQueue;
use mezzo_protocol::remoting::body::heartbeat::{ConsumeType, MessageModel};
use tokio::sync::Notify;

use super::builder::consumer_data;
use super::member::{Commits, GroupMember};
use super::pull::PullConsumer;
use super::subscription::subscriptions;
use crate::client::{Client, ConsumerMember, group_name};
use crate::config::{ConsumerConfig, StartPosition};
use crate::error::Error;

/// Builds a [`PullConsumer`]; made by [`Client::pull_consumer`].
///
/// Either it subscribes, and shares the topic's queues with the other members of the group, or queues are assigned to
/// it, and it reads exactly those, whoever else reads them:
///
/// ```no_run
/// # async fn example(client: mezzo_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use mezzo_client::{MessageQueue, QueueId, SeekTo, TopicName};
///
/// let first = MessageQueue::new(TopicName::new("orders")?, "broker-a", QueueId(0));
/// let consumer = client.pull_consumer("audit").assign([first.clone()]).start().await?;
/// consumer.seek(&first, SeekTo::Begin).await?;
/// # consumer.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until start() is awaited"]
pub struct PullConsumerBuilder {
    client: Client,
    group: String,
    wishes: Vec<(String, String)>,
    assigned: BTreeSet<MessageQueue>,
    strategy: Box<dyn AssignmentStrategy>,
    config: ConsumerConfig,
}

impl PullConsumerBuilder {
    pub(crate) fn new(client: Client, group: &str) -> Self {
        Self {
            client,
            group: group.to_owned(),
            wishes: Vec::new(),
            assigned: BTreeSet::new(),
            strategy: Box::new(Averagely),
            config: ConsumerConfig::default(),
        }
    }

    /// A topic, and which of its messages: `"*"` for all, or tags joined by `||`.
    pub fn subscribe(mut self, topic: impl Into<String>, tags: impl Into<String>) -> Self {
        self.wishes.push((topic.into(), tags.into()));
        self
    }

    /// Queues to read, with all their messages. The consumer does not join its group: the group's name only says under
    /// which its offsets are kept.
    pub fn assign(mut self, queues: impl IntoIterator<Item = MessageQueue>) -> Self {
        self.assigned.extend(queues);
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

    /// Begins to pull.
    ///
    /// # Errors
    /// If a name or an expression is not allowed, there is neither a subscription nor a queue or there are both, or this
    /// client already has a consumer in the group that subscribes.
    pub async fn start(self) -> Result<PullConsumer, Error> {
        let group = group_name(&self.group)?;
        let shared = Arc::clone(self.client.shared());
        if !self.wishes.is_empty() && !self.assigned.is_empty() {
            let reason = "a consumer either subscribes or has queues assigned".to_owned();
            return Err(Error::Config { setting: "subscription", reason });
        }
        let all = |queue: &MessageQueue| (queue.topic.to_string(), "*".to_owned());
        let wishes: Vec<_> =
            if self.assigned.is_empty() { self.wishes } else { self.assigned.iter().map(all).collect() };
        let subscriptions = subscriptions(&group, false, &wishes, shared.now())?;
        let changed = Arc::new(Notify::new());
        let membership = if self.assigned.is_empty() {
            let (kind, model) = (ConsumeType::Pull, MessageModel::Clustering);
            let data = consumer_data(&group, kind, model, self.config.start, &subscriptions);
            Some(shared.join_consumer(&group, ConsumerMember { data, changed: Arc::clone(&changed) })?)
        } else {
            None
        };
        let member = GroupMember::new(
            self.client,
            group,
            self.config,
            self.strategy,
            subscriptions,
            false,
            Commits::WhenTold,
            changed,
        );
        member.introduce().await;
        Ok(match membership {
            Some(membership) => PullConsumer::join(Arc::new(member), membership),
            None => PullConsumer::of_queues(Arc::new(member), self.assigned.into_iter().collect()),
        })
    }
}

impl fmt::Debug for PullConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullConsumerBuilder")
            .field("group", &self.group)
            .field("subscriptions", &self.wishes)
            .field("assigned", &self.assigned)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
