//! The producer of transactions.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mezzo_protocol::ids::GroupName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::Instrument;

use super::check_back::{self, CheckBack, FenceHandler, Handler};
use super::end_transaction::{EndAnswer, EndFields, end};
use super::outcome::{LocalError, LocalOutcome, Outcome, TransactionError, TransactionIds, UnknownReason};
use super::prepared::{Prepared, TransactionContext};
use super::receipt::{SendReceipt, Stored};
use super::send::{Kind, Sender, Target};
use crate::client::{Client, Membership, group_name};
use crate::config::TransactionConfig;
use crate::core::open_transactions::{Decision, OpenTransactions};
use crate::error::{Error, RequestError, SendError};
use crate::message::Message;
use crate::net::Deadline;

/// Brokers remembered as recording decisions once; a cluster has far fewer.
const REPEATABLE_BROKERS_MAX: usize = 256;

/// Brokers (by address) that record the first decision and answer repeats with it.
#[derive(Debug, Default)]
pub(super) struct RepeatableEnds {
    addresses: Mutex<BTreeSet<Arc<str>>>,
}

impl RepeatableEnds {
    pub(super) fn holds(&self, address: &str) -> bool {
        self.lock().contains(address)
    }

    pub(super) fn learn(&self, address: &Arc<str>) {
        let mut addresses = self.lock();
        if addresses.len() < REPEATABLE_BROKERS_MAX {
            addresses.insert(Arc::clone(address));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a transaction producer, its prepared transactions and its check-back tasks share.
pub(super) struct Inner {
    pub(super) sender: Sender,
    pub(super) config: TransactionConfig,
    pub(super) repeatable_ends: RepeatableEnds,
    /// Whether check-backs are answered from a database.
    fenced: bool,
    open: Mutex<OpenTransactions>,
    running: Arc<Semaphore>,
}

impl Inner {
    pub(super) fn open(&self) -> MutexGuard<'_, OpenTransactions> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends messages that appear only if a local transaction commits.
///
/// A message is stored as a *half* that nobody sees; then the local transaction runs; then the broker is told to commit
/// or to roll back. If it is not told (a crash, a lost connection), it asks the group's [`CheckBack`] handler.
///
/// ```no_run
/// # struct Database;
/// # impl Database {
/// #     async fn take_order(&self, _key: &str) -> Result<(), std::io::Error> { Ok(()) }
/// #     async fn has_order(&self, _key: &str) -> Result<bool, std::io::Error> { Ok(true) }
/// # }
/// # async fn example(client: mezzo_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// # let database = std::sync::Arc::new(Database);
/// use mezzo_client::{LocalOutcome, Message, Outcome, ReceivedMessage};
///
/// let records = database.clone();
/// let producer = client
///     .transaction_producer("orders")
///     .check_back(move |half: ReceivedMessage| {
///         let records = records.clone();
///         async move {
///             let taken = records.has_order(half.unique_key().unwrap_or_default()).await?;
///             Ok(if taken { LocalOutcome::Commit } else { LocalOutcome::Rollback })
///         }
///     })
///     .start()
///     .await?;
///
/// let message = Message::new("orders", "one coffee")?;
/// let outcome = producer
///     .send_in_transaction(message, |context| async move {
///         database.take_order(context.unique_key()).await?;
///         Ok(LocalOutcome::Commit)
///     })
///     .await?;
/// match outcome {
///     Outcome::Committed(ids) => println!("{ids} is on its way"),
///     Outcome::RolledBack(ids, why) => println!("{ids} never happened: {why}"),
///     Outcome::Unknown(ids, why) => println!("{ids} will be settled by the check-back: {why}"),
/// }
/// # Ok(())
/// # }
/// ```
///
/// # What happens at drop, panic and shutdown
///
/// | event | the transaction |
/// |---|---|
/// | the local part returns an error | stays open: [`Outcome::Unknown`], the broker asks the [`CheckBack`] handler |
/// | the local part panics, or its call is cancelled | stays open; the broker is told so and asks |
/// | a [`Prepared`] is dropped without a decision | stays open; the broker is told so and asks |
/// | a decision is cancelled on its way | its check-back is answered with that decision, while this process lives |
/// | the half's outcome is unknown | was not begun; its check-back is answered with a rollback, while this process lives |
/// | [`TransactionProducer::shutdown`] | waits for open ones; those left can still be decided while the client lives |
/// | the last clone of the producer is dropped | leaves the group; a [`Prepared`] can still be decided |
/// | the process ends | stays open; another member of the group is asked, or the next one to join |
///
/// A plain [`Producer`](crate::Producer) that shares the group cannot answer check-backs and leaves them to others.
#[derive(Clone)]
pub struct TransactionProducer {
    pub(super) inner: Arc<Inner>,
    /// Apart from `inner`, which the check-back task holds: giving this up ends that task.
    membership: Arc<Mutex<Option<Membership>>>,
}

impl TransactionProducer {
    /// Prepares `message`, runs `local`, and tells the broker what `local` came to. An error of `local` leaves the
    /// decision open, see [`LocalError`]. If the returned future is dropped while `local` runs, or `local` panics, the
    /// decision stays open too.
    ///
    /// # Errors
    /// If the half message was not prepared (`local` was not run then), or the broker had recorded the opposite.
    pub async fn send_in_transaction<F, Fut>(
        &self,
        message: Message,
        local: F,
    ) -> Result<Outcome, TransactionError>
    where
        F: FnOnce(TransactionContext) -> Fut,
        Fut: Future<Output = Result<LocalOutcome, LocalError>>,
    {
        let prepared = self.prepare(message).await?;
        let span = tracing::debug_span!("local_transaction", group = %self.inner.sender.group, key = %prepared.ids().unique_key);
        match local(prepared.context()).instrument(span).await {
            Ok(LocalOutcome::Commit) => prepared.commit().await,
            Ok(LocalOutcome::Rollback) => prepared.rollback().await,
            Ok(LocalOutcome::Unknown) => Ok(prepared.leave_open()),
            Err(error) => Ok(prepared.leave_open_because(UnknownReason::LocalFailed(error))),
        }
    }

    /// Stores `message` as a half message, for transactions that do not fit into a closure: see [`Prepared`]. A delay
    /// counts from the commit, on Mezzo brokers; other brokers would ignore it, so they are not sent such a message.
    ///
    /// # Errors
    /// If the half message was not stored, or not safely.
    pub async fn prepare(&self, message: Message) -> Result<Prepared, TransactionError> {
        let place = self.place().await?;
        let preparing = Preparing::new(&self.inner);
        let span = tracing::debug_span!(
            "prepare", topic = %message.topic(), group = %self.inner.sender.group, key = %preparing.unique_key,
            broker = tracing::field::Empty
        );
        let target = message.sharding_key().map_or(Target::Any, Target::ShardingKey);
        let key = Arc::clone(&preparing.unique_key);
        let sent = self.inner.sender.send(&message, target, Kind::Half, key).instrument(span).await;
        let receipt = match sent {
            Ok(receipt) => receipt,
            Err(error) => {
                if !error.is_outcome_unknown() {
                    preparing.settled();
                }
                return Err(error.into());
            }
        };
        let (ids, fields) = self.identify(&message, &receipt)?;
        if receipt.stored != Stored::AsConfigured {
            if self.undo(&receipt, &fields).await {
                preparing.settled();
            }
            return Err(TransactionError::NotSafe(receipt.stored));
        }
        preparing.stored();
        Ok(Prepared::new(Arc::clone(&self.inner), ids, fields, receipt.address, place))
    }

    /// The producer group.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.inner.sender.group
    }

    /// Transactions of this producer that are prepared and not decided.
    #[must_use]
    pub fn running(&self) -> usize {
        self.inner.open().running()
    }

    /// Begins no more transactions, waits for running ones to be decided (at most `drain_timeout_ms`), and leaves the
    /// group: check-backs go to other members then. Returns whether all were decided in time; those that were not can
    /// still be decided while the client lives.
    pub async fn shutdown(&self) -> bool {
        let places = places(self.inner.config.running_max);
        let all = u32::try_from(places).unwrap_or(u32::MAX);
        let deadline = Deadline::after_ms(self.inner.config.drain_timeout_ms);
        let all_places = tokio::time::timeout_at(deadline.at(), self.inner.running.acquire_many(all)).await;
        self.inner.running.close();
        // A second shutdown finds the places closed: it must not call drained what the first gave up waiting for.
        let drained = matches!(all_places, Ok(Ok(_))) || self.inner.running.available_permits() == places;
        let membership = self.membership.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(membership) = membership {
            self.inner.sender.client.shared().leave(membership).await;
        }
        drained
    }

    /// Whether check-backs are answered from a database.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(crate) fn is_fenced(&self) -> bool {
        self.inner.fenced
    }

    /// Room for one more transaction.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, TransactionError> {
        let config = &self.inner.config;
        let deadline = Deadline::after_ms(config.producer.send_timeout_ms);
        let place = Arc::clone(&self.inner.running).acquire_owned();
        match tokio::time::timeout_at(deadline.at(), place).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_closed)) => Err(TransactionError::NotBegun(RequestError::ShutDown.into())),
            Err(_) => {
                let (running, waited_ms) = (config.running_max, deadline.waited_ms());
                Err(TransactionError::Saturated { running, waited_ms })
            }
        }
    }

    /// What END_TRANSACTION has to say about the stored half.
    fn identify(
        &self,
        message: &Message,
        receipt: &SendReceipt,
    ) -> Result<(TransactionIds, EndFields), TransactionError> {
        let unreadable = |reason| SendError::Unknown {
            unique_key: Arc::clone(&receipt.unique_key),
            attempts: receipt.attempts,
            last: RequestError::Unreadable { address: Arc::clone(&receipt.address), reason },
        };
        let offset_message_id =
            mezzo_protocol::ids::OffsetMessageId::decode(&receipt.offset_message_id).map_err(unreadable)?;
        let transaction_id =
            receipt.transaction_id.as_deref().map_or_else(|| Arc::clone(&receipt.unique_key), Arc::from);
        let fields = EndFields {
            topic: Some(message.topic().to_string()),
            group: self.group().to_string(),
            tran_state_table_offset: receipt.queue_offset.as_wire(),
            commit_log_offset: offset_message_id.physical_offset.as_wire(),
            unique_key: Arc::clone(&receipt.unique_key),
            transaction_id: receipt.transaction_id.clone(),
            from_check: false,
        };
        let ids = TransactionIds {
            transaction_id,
            unique_key: Arc::clone(&receipt.unique_key),
            offset_message_id,
            topic: message.topic().clone(),
            queue: receipt.queue.clone(),
        };
        Ok((ids, fields))
    }

    /// Rolls a half back that must not be used. Returns whether the broker confirmed it; if not, the check-back is
    /// answered with the rollback.
    async fn undo(&self, receipt: &SendReceipt, fields: &EndFields) -> bool {
        let inner = &self.inner;
        let deadline = Deadline::after_ms(inner.config.end_timeout_ms);
        let broker = &receipt.queue.broker_name;
        let (address, repeatable) = (&receipt.address, &inner.repeatable_ends);
        let answer =
            end(&inner.sender, broker, address, fields, Decision::Rollback, repeatable, deadline).await;
        tracing::warn!(key = %receipt.unique_key, stored = ?receipt.stored, ?answer, "rolled an unsafe half back");
        matches!(answer, EndAnswer::Confirmed)
    }
}

impl fmt::Debug for TransactionProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionProducer")
            .field("group", self.group())
            .field("fenced", &self.inner.fenced)
            .finish_non_exhaustive()
    }
}

/// A half message on its way. Unless it turns out to be stored or surely not stored, its check-back is answered with a
/// rollback: the local part never runs.
struct Preparing<'a> {
    inner: &'a Inner,
    unique_key: Arc<str>,
    settled: bool,
}

impl<'a> Preparing<'a> {
    fn new(inner: &'a Inner) -> Self {
        let unique_key = inner.sender.next_unique_key();
        inner.open().begin(&unique_key);
        Self { inner, unique_key, settled: false }
    }

    fn stored(mut self) {
        self.settled = true;
    }

    /// Nobody will ask about it: it is surely not stored, or surely rolled back.
    fn settled(mut self) {
        self.inner.open().forget(&self.unique_key);
        self.settled = true;
    }
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.inner.open().decided(&self.unique_key, Decision::Rollback);
        }
    }
}

/// Builds a [`TransactionProducer`]; made by [`Client::transaction_producer`].
///
/// ```no_run
/// # async fn example(client: mezzo_client::Client) -> Result<(), mezzo_client::Error> {
/// use mezzo_client::config::TransactionConfig;
/// use mezzo_client::{LocalOutcome, ReceivedMessage};
///
/// let producer = client
///     .transaction_producer("orders")
///     .config(TransactionConfig::default().running_max(100))
///     .check_back(|_: ReceivedMessage| async { Ok(LocalOutcome::Unknown) })
///     .start()
///     .await?;
/// assert_eq!(producer.running(), 0);
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until start() is awaited"]
pub struct TransactionProducerBuilder {
    client: Client,
    group: String,
    config: TransactionConfig,
    check_back: Option<Handler>,
    fence: Option<FenceHandler>,
}

impl TransactionProducerBuilder {
    pub(crate) fn new(client: Client, group: &str) -> Self {
        Self {
            client,
            group: group.to_owned(),
            config: TransactionConfig::default(),
            check_back: None,
            fence: None,
        }
    }

    /// Who answers the broker's questions. Must be given, or a database: without an answer a lost decision could never be
    /// settled.
    pub fn check_back(mut self, handler: impl CheckBack) -> Self {
        self.check_back = Some(check_back::erase(handler));
        self
    }

    /// Has check-backs about fenced halves answered by `fence`.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(crate) fn fence(mut self, fence: FenceHandler) -> Self {
        self.fence = Some(fence);
        self
    }

    /// All settings at once.
    pub fn config(mut self, config: TransactionConfig) -> Self {
        self.config = config;
        self
    }

    /// Longest wait for the broker's answer to a decision, in milliseconds.
    pub const fn end_timeout_ms(mut self, ms: u64) -> Self {
        self.config.end_timeout_ms = ms;
        self
    }

    /// Joins the group, makes itself known to all brokers (as far as they answer), and begins to answer check-backs:
    /// also those about transactions that an earlier process of the group left behind.
    ///
    /// # Errors
    /// If the group's name is not allowed, no check-back handler was given, or this client already has a transaction
    /// producer in the group.
    pub async fn start(self) -> Result<TransactionProducer, Error> {
        let group = group_name(&self.group)?;
        let fenced = self.fence.is_some();
        let handler = match (self.fence, self.check_back) {
            (Some(fence), other) => check_back::fenced(fence, other, self.client.clone(), group.clone()),
            (None, Some(handler)) => handler,
            (None, None) => {
                return Err(Error::Config {
                    setting: "check_back",
                    reason: "a transaction producer needs a handler that answers the broker's check-backs, or a database"
                        .to_owned(),
                });
            }
        };
        let (sender, questions) = mpsc::channel(self.config.check_backs_waiting_max.max(1));
        let membership = self.client.shared().join_transaction_producer(&group, sender)?;
        let inner = Arc::new(Inner {
            sender: Sender::new(self.client, group, self.config.producer.clone()),
            repeatable_ends: RepeatableEnds::default(),
            fenced,
            open: Mutex::new(OpenTransactions::new(self.config.unconfirmed_max)),
            running: Arc::new(Semaphore::new(places(self.config.running_max))),
            config: self.config,
        });
        tokio::spawn(check_back::run(Arc::clone(&inner), handler, questions));
        inner.sender.client.shared().introduce().await;
        Ok(TransactionProducer { inner, membership: Arc::new(Mutex::new(Some(membership))) })
    }
}

impl fmt::Debug for TransactionProducerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionProducerBuilder")
            .field("group", &self.group)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A bound as a number of permits: at least one, at most what one request for permits can express.
fn places(bound: usize) -> usize {
    bound.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize))
}
