//! Putting a consumer together.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use mezzo_protocol::assignment::{AssignmentStrategy, Averagely};
use mezzo_protocol::ids::GroupName;
use mezzo_protocol::remoting::body::heartbeat::{ConsumeFrom, ConsumeType, ConsumerData, MessageModel};
use tokio::sync::Notify;

use super::member::{Commits, GroupMember};
use super::offset_file::OffsetFile;
use super::push::PushConsumer;
use super::subscription::{Subscriptions, subscriptions};
use super::verdict::Handler;
use crate::client::{Client, ConsumerMember, group_name};
use crate::config::{ConsumerConfig, StartPosition};
use crate::error::Error;

/// Stands for a handler that was not given yet: the builder cannot start with it.
#[derive(Debug, Clone, Copy)]
pub struct NoHandler;

/// Builds a [`PushConsumer`]; made by [`Client::push_consumer`].
///
/// A client is one member of a group, as in RocketMQ's own clients: brokers know members by the client's id, and give
/// each its queues. More handlers at one time are a matter of [`concurrency`](Self::concurrency), not of more consumers;
/// two members in one program need two clients. A second consumer of the group in this client is refused with
/// [`Error::DuplicateGroup`].
///
/// ```no_run
/// # async fn example() -> Result<(), mezzo_client::Error> {
/// use mezzo_client::config::{ConsumerConfig, StartPosition};
/// use mezzo_client::{Client, Handler, ReceivedMessage, Verdict};
///
/// struct Mailer;
///
/// impl Handler for Mailer {
///     async fn handle(&self, message: ReceivedMessage) -> Verdict {
///         println!("{}", message.message_id());
///         Verdict::Done
///     }
/// }
///
/// let client = Client::connect("127.0.0.1:9876").await?;
/// let consumer = client
///     .push_consumer("mailers")
///     .subscribe("orders", "paid")
///     .subscribe("refunds", "*")
///     .config(ConsumerConfig::default().concurrency(64).prefetch_bytes(4 << 20).start(StartPosition::Last))
///     .handler(Mailer)
///     .start()
///     .await?;
/// # consumer.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until start() is awaited"]
pub struct PushConsumerBuilder<H = NoHandler> {
    client: Client,
    group: String,
    wishes: Vec<(String, String)>,
    strategy: Box<dyn AssignmentStrategy>,
    config: ConsumerConfig,
    ordered: bool,
    broadcast: Option<PathBuf>,
    handler: H,
}

impl PushConsumerBuilder {
    pub(crate) fn new(client: Client, group: &str) -> Self {
        Self {
            client,
            group: group.to_owned(),
            wishes: Vec::new(),
            strategy: Box::new(Averagely),
            config: ConsumerConfig::default(),
            ordered: false,
            broadcast: None,
            handler: NoHandler,
        }
    }
}

impl<H> PushConsumerBuilder<H> {
    /// A topic, and which of its messages: `"*"` for all, or tags joined by `||`. All members of a group must subscribe
    /// to the same; brokers keep the newest subscription only. A second subscription to a topic replaces the first.
    pub fn subscribe(mut self, topic: impl Into<String>, tags: impl Into<String>) -> Self {
        self.wishes.push((topic.into(), tags.into()));
        self
    }

    /// Who processes the messages: see [`Handler`].
    pub fn handler<G: Handler>(self, handler: G) -> PushConsumerBuilder<G> {
        self.with(handler, false)
    }

    /// Who processes the messages, those of one queue one at a time and in their order. Queues are handled side by side.
    ///
    /// While a member handles a queue it has the queue's lock at the broker, so that the order holds over rebalances too:
    /// the next member begins when the handler that was running has ended. [`Verdict::Retry`](crate::Verdict::Retry)
    /// suspends the queue for `ordered_suspend_ms` and gives the handler the same message again, and
    /// [`RetryAfter`](crate::Verdict::RetryAfter) does so after its time, as often as it takes;
    /// [`DeadLetter`](crate::Verdict::DeadLetter) puts the message aside and goes on with the next.
    ///
    /// ```no_run
    /// # async fn example(client: mezzo_client::Client) -> Result<(), mezzo_client::Error> {
    /// use mezzo_client::{ReceivedMessage, Verdict};
    ///
    /// // Producers send the events of one account with one sharding key, so they are all in one queue.
    /// let consumer = client
    ///     .push_consumer("ledger")
    ///     .subscribe("account-events", "*")
    ///     .ordered_handler(|event: ReceivedMessage| async move {
    ///         println!("{:?}: {}", event.sharding_key(), event.queue_offset());
    ///         Verdict::Done
    ///     })
    ///     .start()
    ///     .await?;
    /// # consumer.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn ordered_handler<G: Handler>(self, handler: G) -> PushConsumerBuilder<G> {
        self.with(handler, true)
    }

    fn with<G: Handler>(self, handler: G, ordered: bool) -> PushConsumerBuilder<G> {
        let Self { client, group, wishes, strategy, config, broadcast, ordered: _, handler: _ } = self;
        PushConsumerBuilder { client, group, wishes, strategy, config, ordered, broadcast, handler }
    }

    /// Where the group begins on queues that are new to it. Default: with the oldest message.
    pub const fn start_at(mut self, position: StartPosition) -> Self {
        self.config.start = position;
        self
    }

    /// Most handlers that run at one time. Default: 20.
    pub const fn concurrency(mut self, handlers: usize) -> Self {
        self.config.concurrency = handlers;
        self
    }

    /// How queues are divided among members: one of [`mezzo_protocol::assignment`]. All members must use the same.
    /// Default: averagely, as in all RocketMQ clients.
    pub fn assignment(mut self, strategy: impl AssignmentStrategy + 'static) -> Self {
        self.strategy = Box::new(strategy);
        self
    }

    /// Every member gets every message, and keeps in a file how far it has come: brokers know nothing of it. The file is
    /// replaced as a whole at each commit, so that a crash leaves the old or the new one; its folder is made if it is
    /// not there. Each member needs a file of its own, the same after each restart; without a file there, the member
    /// begins as a new one does. A second consumer of a file, in whatever program of this machine, is refused: the file
    /// is kept by a lock on `<file>.lock`, which stays behind, empty, and is given back when the consumer ends.
    ///
    /// There is nowhere to give a message back to: [`Retry`](crate::Verdict::Retry) and
    /// [`RetryAfter`](crate::Verdict::RetryAfter) give it to the handler here again (after `local_retry_ms`, or the time
    /// said), at most `retries_max` times; then, and with [`DeadLetter`](crate::Verdict::DeadLetter), it is logged and
    /// passed over.
    ///
    /// ```no_run
    /// # async fn example(client: mezzo_client::Client) -> Result<(), mezzo_client::Error> {
    /// use mezzo_client::{ReceivedMessage, Verdict};
    ///
    /// let consumer = client
    ///     .push_consumer("price-caches")
    ///     .subscribe("prices", "*")
    ///     .broadcast("/var/lib/shop/prices.offsets")
    ///     .handler(|price: ReceivedMessage| async move {
    ///         println!("{:?}", price.body());
    ///         Verdict::Done
    ///     })
    ///     .start()
    ///     .await?;
    /// # consumer.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn broadcast(mut self, offset_file: impl Into<PathBuf>) -> Self {
        self.broadcast = Some(offset_file.into());
        self
    }

    /// All settings at once.
    pub fn config(mut self, config: ConsumerConfig) -> Self {
        self.config = config;
        self
    }
}

impl<H: Handler> PushConsumerBuilder<H> {
    /// Joins the group and begins to consume. A topic that does not exist yet is looked for until it does.
    ///
    /// # Errors
    /// If a name, an expression or a setting is not allowed, there is no subscription, the offset file cannot be read or
    /// another consumer uses it, or this client already has a consumer in the group.
    pub async fn start(self) -> Result<PushConsumer, Error> {
        let group = group_name(&self.group)?;
        self.config.check(self.ordered && self.broadcast.is_none())?;
        let shared = Arc::clone(self.client.shared());
        let subscriptions = subscriptions(&group, self.broadcast.is_none(), &self.wishes, shared.now())?;
        let message_model =
            if self.broadcast.is_some() { MessageModel::Broadcasting } else { MessageModel::Clustering };
        let commits = match self.broadcast {
            Some(path) => Commits::InFile(OffsetFile::open(path).await?),
            None => Commits::AtBrokers,
        };
        let changed = Arc::new(Notify::new());
        let data = consumer_data(&group, ConsumeType::Push, message_model, self.config.start, &subscriptions);
        let membership =
            shared.join_consumer(&group, ConsumerMember { data, changed: Arc::clone(&changed) })?;
        let member = GroupMember::new(
            self.client,
            group,
            self.config,
            self.strategy,
            subscriptions,
            self.ordered,
            commits,
            changed,
        );
        member.introduce().await;
        Ok(PushConsumer::start(Arc::new(member), membership, self.handler))
    }
}

/// A consumer as heartbeats describe it.
pub(super) fn consumer_data(
    group: &GroupName,
    consume_type: ConsumeType,
    message_model: MessageModel,
    start: StartPosition,
    subscriptions: &Subscriptions,
) -> ConsumerData {
    ConsumerData {
        group_name: group.to_string(),
        consume_type,
        message_model,
        consume_from_where: match start {
            StartPosition::First => ConsumeFrom::FirstOffset,
            StartPosition::Last => ConsumeFrom::LastOffset,
            StartPosition::At(_) => ConsumeFrom::Timestamp,
        },
        subscription_data_set: subscriptions.iter().map(|(topic, wish)| wish.data(topic)).collect(),
        unit_mode: false,
    }
}

impl<H> fmt::Debug for PushConsumerBuilder<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushConsumerBuilder")
            .field("group", &self.group)
            .field("subscriptions", &self.wishes)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
