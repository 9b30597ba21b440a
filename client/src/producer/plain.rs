//! The producer of ordinary messages.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use mezzo_protocol::ids::{GroupName, MessageQueue, TopicName};
use tracing::Instrument;

use super::receipt::SendReceipt;
use super::send::{Kind, Sender, Target};
use crate::client::{Client, Membership, group_name};
use crate::config::{BatchingPolicy, ProducerConfig};
use crate::error::{Error, SendError};
use crate::message::{Message, MessageError};

/// Sends messages. Cheap to clone; all clones share the bounds of what is in flight.
///
/// ```no_run
/// # async fn example(client: mezzo_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use mezzo_client::{Message, SendError};
///
/// let producer = client.producer("billing").start().await?;
/// let invoice = Message::builder("invoices").tag("new").key("invoice-4711").body("…").build()?;
/// match producer.send(invoice).await {
///     Ok(receipt) => println!("stored as {}", receipt.offset_message_id),
///     Err(SendError::Unknown { unique_key, .. }) => println!("look for {unique_key} before sending again"),
///     Err(error) => println!("surely not stored: {error}"),
/// }
/// producer.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// Many messages at once go through [`Producer::send_all`], which shares writes and waits among them. Single sends that
/// run side by side share writes too.
///
/// # When a send is not waited for to its end
///
/// Dropping the future of a send gives its room back at once; the message may be stored or not, as if the outcome were
/// unknown. Only a message that still waits for others to travel with ([`ProducerBuilder::batching`]) has surely not been
/// sent. A producer whose last clone is dropped leaves its group without waiting; [`Producer::shutdown`] waits.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    sender: Arc<Sender>,
    membership: Mutex<Option<Membership>>,
}

impl Producer {
    /// Sends `message` and waits for a broker's receipt. Without a sharding key the queues take turns, and a failed
    /// attempt is repeated on another broker or queue. With one, the message goes to the key's queue and nowhere else,
    /// and an attempt is repeated only if surely nothing was stored; to keep the order of a key, await each of its sends
    /// before the next. Which queue a key has follows from how many queues the topic has: when a broker comes or goes, or
    /// the topic grows, keys move, and what is in the old queue may be read after what is in the new one.
    ///
    /// # Errors
    /// See [`SendError`]: each variant says whether the message may be stored.
    pub async fn send(&self, message: Message) -> Result<SendReceipt, SendError> {
        let sender = &self.inner.sender;
        if sender.lingering.is_some() {
            let span = tracing::debug_span!("send", topic = %message.topic(), group = %self.group());
            return sender.send_lingering(message).instrument(span).await;
        }
        let target = message.sharding_key().map_or(Target::Any, Target::ShardingKey);
        self.send_to(&message, target).await
    }

    /// Sends `messages`, all of one topic, as one batch: one request, stored all or none, in their order on one queue.
    /// The receipts are in the order of the messages. Delayed messages cannot be in a batch, and sharding keys only if
    /// all have the same. At most 4,096 messages and 4 MiB; brokers may allow less. Bodies in a batch are not compressed.
    ///
    /// ```no_run
    /// # async fn example(producer: mezzo_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use mezzo_client::Message;
    ///
    /// let lines = [Message::new("ledger", "debit 5")?, Message::new("ledger", "credit 5")?];
    /// let receipts = producer.send_batch(lines).await?;
    /// assert_eq!(receipts.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Producer::send`], for the batch as a whole: an unknown outcome names the key of its first message. Also if
    /// the messages cannot be one batch, see [`BatchFault`](crate::BatchFault).
    pub fn send_batch(
        &self,
        messages: impl IntoIterator<Item = Message>,
    ) -> impl Future<Output = Result<Vec<SendReceipt>, SendError>> {
        let messages: Vec<_> = messages.into_iter().collect();
        let span = tracing::debug_span!(
            "send_batch", group = %self.group(), messages = messages.len(), broker = tracing::field::Empty
        );
        self.inner.sender.send_batch(messages).instrument(span)
    }

    /// Sends all `messages`, pipelined: runs of one topic take their room together, go to one queue (the next run to the
    /// next queue) and share a write and a wait, and nobody waits for one run before the next is written. Each message
    /// gets its own result, in the order of the messages; what fails is tried again by the rules of [`Producer::send`].
    /// Messages with a sharding key go to their key's queue. They are written in order, but one that fails is overtaken by
    /// those behind it: to keep the order of a key over failures, await each of its sends before the next.
    ///
    /// ```no_run
    /// # async fn example(producer: mezzo_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use mezzo_client::Message;
    ///
    /// let messages: Result<Vec<_>, _> =
    ///     (0..1_000).map(|number| Message::new("numbers", number.to_string())).collect();
    /// for sent in producer.send_all(messages?).await {
    ///     println!("{}", sent?.unique_key);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_all(
        &self,
        messages: impl IntoIterator<Item = Message>,
    ) -> impl Future<Output = Vec<Result<SendReceipt, SendError>>> {
        let messages: Vec<_> = messages.into_iter().collect();
        let span = tracing::debug_span!("send_all", group = %self.group(), messages = messages.len());
        self.inner.sender.send_all(messages).instrument(span)
    }

    /// Sends `message` to one queue, for example one of [`Producer::queues`]. An attempt is repeated only if surely
    /// nothing was stored.
    ///
    /// # Errors
    /// As [`Producer::send`]; also if the queue is of another topic.
    pub async fn send_to_queue(
        &self,
        message: Message,
        queue: &MessageQueue,
    ) -> Result<SendReceipt, SendError> {
        if queue.topic != *message.topic() {
            return Err(MessageError::ForeignQueue(queue.clone()).into());
        }
        self.send_to(&message, Target::Queue(queue)).await
    }

    /// Hands `message` to a connection and does not wait for the broker: fast, and nobody notices if it is lost. What
    /// cannot be handed over goes to another broker, if there is one.
    ///
    /// ```no_run
    /// # async fn example(producer: mezzo_client::Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// use mezzo_client::Message;
    ///
    /// producer.send_oneway(Message::new("measurements", "21.5")?).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If it could not be handed to a connection.
    pub async fn send_oneway(&self, message: Message) -> Result<(), SendError> {
        let target = message.sharding_key().map_or(Target::Any, Target::ShardingKey);
        let span = tracing::debug_span!("send_oneway", topic = %message.topic(), group = %self.group());
        self.inner.sender.send_oneway(&message, target).instrument(span).await
    }

    /// The queues that messages of `topic` can go to now, in the order that all clients know.
    ///
    /// # Errors
    /// If no name server answers or none knows the topic.
    pub async fn queues(&self, topic: &TopicName) -> Result<Vec<MessageQueue>, Error> {
        self.inner.sender.queues(topic).await
    }

    /// The producer group.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.inner.sender.group
    }

    /// Takes no more sends, sends at once what waits for others to travel with, waits for what is in flight (at most
    /// `drain_timeout_ms`) and leaves the group. Returns whether all sends ended in time.
    pub async fn shutdown(&self) -> bool {
        let drained = self.inner.sender.drain().await;
        let membership = self.inner.membership.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(membership) = membership {
            self.inner.sender.client.shared().leave(membership).await;
        }
        drained
    }

    async fn send_to(&self, message: &Message, target: Target<'_>) -> Result<SendReceipt, SendError> {
        let sender = &self.inner.sender;
        let key = sender.next_unique_key();
        let span = tracing::debug_span!(
            "send", topic = %message.topic(), group = %sender.group, key = %key, broker = tracing::field::Empty
        );
        sender.send(message, target, Kind::Plain, key).instrument(span).await
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("group", self.group()).finish_non_exhaustive()
    }
}

/// Builds a [`Producer`]; made by [`Client::producer`].
///
/// ```no_run
/// # async fn example(client: mezzo_client::Client) -> Result<(), mezzo_client::Error> {
/// use mezzo_client::config::{BodyCompression, ProducerConfig};
///
/// let config = ProducerConfig::default().retry_unknown(false).compression(BodyCompression::Zstd);
/// let producer = client.producer("billing").config(config).send_timeout_ms(2_000).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until start() is awaited"]
pub struct ProducerBuilder {
    client: Client,
    group: String,
    config: ProducerConfig,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client, group: &str) -> Self {
        Self { client, group: group.to_owned(), config: ProducerConfig::default() }
    }

    /// All settings at once.
    pub fn config(mut self, config: ProducerConfig) -> Self {
        self.config = config;
        self
    }

    /// Longest time of a whole send, in milliseconds.
    pub const fn send_timeout_ms(mut self, ms: u64) -> Self {
        self.config.send_timeout_ms = ms;
        self
    }

    /// Further attempts after the first.
    pub const fn retries(mut self, retries: u32) -> Self {
        self.config.retries = retries;
        self
    }

    /// Most sends in flight.
    pub const fn in_flight_max(mut self, sends: usize) -> Self {
        self.config.in_flight_max = sends;
        self
    }

    /// Lets single sends wait for others of their topic, to travel as one batch: fewer, larger requests for a little
    /// delay.
    ///
    /// ```no_run
    /// # async fn example(client: mezzo_client::Client) -> Result<(), mezzo_client::Error> {
    /// use mezzo_client::config::BatchingPolicy;
    ///
    /// let policy = BatchingPolicy::default().linger_ms(2);
    /// let producer = client.producer("meters").batching(policy).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub const fn batching(mut self, policy: BatchingPolicy) -> Self {
        self.config.batching = Some(policy);
        self
    }

    /// Joins the group. Connections are made with the first send.
    ///
    /// # Errors
    /// If the group's name is not allowed.
    #[expect(
        clippy::unused_async,
        reason = "async like the start of the other roles, and so only callable inside a runtime"
    )]
    pub async fn start(self) -> Result<Producer, Error> {
        let group = group_name(&self.group)?;
        let membership = Mutex::new(Some(self.client.shared().join_producer(&group)));
        let sender = Arc::new(Sender::new(self.client, group, self.config));
        Ok(Producer { inner: Arc::new(Inner { sender, membership }) })
    }
}
