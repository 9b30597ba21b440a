//! A transaction of many messages, from its beginning to its decision.

use std::fmt;
use std::sync::Arc;

use mezzo_protocol::limits::TRANSACTION_MESSAGES_MAX;
use tokio::sync::OwnedSemaphorePermit;

use super::super::receipt::SendReceipt;
use super::super::send::Kind;
use super::super::transaction::{Inner, TransactionProducer};
use super::acks::Acks;
use super::ending::{self, Ending};
use super::joining::{self, Joining};
use super::outcome::{ManyError, RolledBackBecause, TransactionName, TransactionOutcome};
use crate::consumer::LeasedBatch;
use crate::core::open_transactions::Decision;
use crate::error::{AckError, SendError};
use crate::message::Message;
use crate::net::Deadline;
use crate::producer::TransactionError;

/// Most messages that wait for their answers at one time.
const RUN_MESSAGES_MAX: usize = 64;
/// Most bytes of bodies and properties that do; one larger message travels alone.
const RUN_BYTES_MAX: usize = 256 << 10;

impl TransactionProducer {
    /// Begins a transaction of up to 1,000 messages and 64 MiB, to any topics and queues of one broker: all become visible
    /// by its [`commit`](Transaction::commit), or none does. Nothing is sent yet.
    ///
    /// Only Mezzo brokers have such transactions; a message is not sent to any other.
    ///
    /// ```no_run
    /// # async fn example(producer: mezzo_client::TransactionProducer) -> Result<(), Box<dyn std::error::Error>> {
    /// use mezzo_client::{Message, TransactionOutcome};
    ///
    /// let mut tx = producer.begin().await?;
    /// tx.send(Message::new("orders", "one coffee")?).await?;
    /// tx.send(Message::new("bills", "2.40")?).await?;
    /// match tx.commit().await {
    ///     TransactionOutcome::Committed(name) => println!("{name}"),
    ///     other => println!("not now: {other}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If as many transactions run as `running_max` allows and none ends in time, or the producer is shut down.
    pub async fn begin(&self) -> Result<Transaction, TransactionError> {
        let place = self.place().await?;
        let inner = Arc::clone(&self.inner);
        let id = inner.sender.next_unique_key();
        inner.open().begin(&id);
        let name = TransactionName { id, broker_name: None, messages: 0, moves_offsets: false };
        let acks = Acks::default();
        Ok(Transaction { inner, name, state: State::Open, acks, has_local_part: false, _place: place })
    }
}

/// What can still be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It holds what its messages' receipts say.
    Open,
    /// It may hold more, or its broker lost some: it can only be rolled back.
    Failed,
    /// It holds what its messages' receipts say, but a batch could not be acknowledged: it can only be rolled back.
    AckFailed,
    /// A decision was taken.
    Ended,
}

/// A transaction of many messages whose decision is open; made by [`TransactionProducer::begin`]. Nobody sees its messages
/// yet.
///
/// If it is dropped without a decision (a panic, a cancelled task, an early return), it is rolled back: the broker is told
/// at once if its connection takes that, and its check-back is answered so while this process lives. After
/// [`Transaction::begin_local`] that would be wrong, and the drop leaves it to the [`CheckBack`](crate::CheckBack) handler.
/// If the process dies, the broker asks the handler of another process of the group; its half message is the first of the
/// transaction, whose [`unique_key`](crate::ReceivedMessage::unique_key) is the transaction's id.
#[must_use = "dropping a transaction rolls it back"]
pub struct Transaction {
    inner: Arc<Inner>,
    name: TransactionName,
    state: State,
    /// Batches that it has consumed.
    acks: Acks,
    /// Whether a local transaction may commit: then only the application knows how a drop has to end.
    has_local_part: bool,
    _place: OwnedSemaphorePermit,
}

impl Transaction {
    /// The transaction's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.name.id
    }

    /// What another process needs to finish this transaction.
    #[must_use]
    pub const fn name(&self) -> &TransactionName {
        &self.name
    }

    /// Says that a local transaction follows that records this transaction's outcome under the id that is returned, so
    /// that a check-back finds it. From here on a drop does not roll back. Call it behind the last send: a local
    /// transaction must not commit for messages that are not stored.
    ///
    /// # Errors
    /// [`ManyError::FailedBefore`]: a send has failed, so that this transaction can only be rolled back.
    /// [`ManyError::Acknowledges`]: batches are acknowledged, so that its commit could be refused.
    pub fn begin_local(&mut self) -> Result<Arc<str>, ManyError> {
        if !self.acks.is_empty() {
            return Err(ManyError::Acknowledges);
        }
        if self.state != State::Open {
            return Err(ManyError::FailedBefore);
        }
        self.has_local_part = true;
        Ok(Arc::clone(&self.name.id))
    }

    /// Adds a batch of a [`TransactionalConsumer`](crate::TransactionalConsumer) to the transaction: with its commit the
    /// group goes on behind the batch, and all messages become visible, or neither. The first batch is acknowledged before
    /// the first message is sent, and chooses the broker. Batches of several queues of one group can be acknowledged, and
    /// several of one queue in their order. Nothing is sent by this.
    ///
    /// When the transaction does not commit (a rollback, a drop, an error), its batches come again, here or from the queue's
    /// next holder. Only this process can commit it: about a transaction of a process that died a check-back is answered
    /// with a rollback, without asking the handler.
    ///
    /// # Errors
    /// The batch is not acknowledged; except after [`AckError::Again`] a commit becomes a rollback from here on.
    pub fn ack(&mut self, batch: &LeasedBatch) -> Result<(), AckError> {
        let acked = self.try_ack(batch);
        if acked.as_ref().is_err_and(|error| *error != AckError::Again) && self.state == State::Open {
            self.state = State::AckFailed;
        }
        acked
    }

    fn try_ack(&mut self, batch: &LeasedBatch) -> Result<(), AckError> {
        if self.state != State::Open {
            return Err(AckError::FailedBefore);
        }
        if self.has_local_part {
            return Err(AckError::LocalTransaction);
        }
        if self.acks.is_empty() && self.name.messages > 0 {
            return Err(AckError::AfterSend);
        }
        let queue = batch.queue();
        if let Some(broker) = self.name.broker_name.as_ref().filter(|broker| **broker != queue.broker_name) {
            return Err(AckError::OtherBroker { broker: Arc::clone(broker), queue: Box::new(queue.clone()) });
        }
        self.acks.add(&self.name.id, batch)?;
        self.name.broker_name = Some(Arc::clone(&queue.broker_name));
        self.name.moves_offsets = true;
        Ok(())
    }

    /// Stores `message` as a part of the transaction. It goes to a queue of its own choice as with
    /// [`Producer::send`](crate::Producer::send), on the broker of the transaction's first message. A delay counts from
    /// the commit. An attempt whose outcome is unknown is repeated until `send_timeout_ms` is over, and stores nothing
    /// twice.
    ///
    /// # Errors
    /// The message is not in the transaction. If that is not certain, a commit becomes a rollback from here on.
    pub async fn send(&mut self, message: Message) -> Result<SendReceipt, ManyError> {
        let mut receipts = self.send_all([message]).await?;
        receipts.pop().ok_or(ManyError::FailedBefore)
    }

    /// As [`Transaction::send`] for several messages, with many of them in flight. They become visible in their order.
    ///
    /// # Errors
    /// As [`Transaction::send`], of the first message that did not join. If others have joined before it, a commit
    /// becomes a rollback from here on.
    pub async fn send_all(
        &mut self,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Vec<SendReceipt>, ManyError> {
        if self.state != State::Open {
            return Err(ManyError::FailedBefore);
        }
        let mut messages = messages.into_iter().peekable();
        let mut receipts = Vec::new();
        while messages.peek().is_some() {
            let before = self.name.messages;
            let run = match self.next_run(&mut messages).await {
                Ok(run) => run,
                Err(error) => {
                    self.fail_if(!receipts.is_empty());
                    return Err(error);
                }
            };
            let deadline = Deadline::after_ms(self.inner.config.producer.send_timeout_ms);
            let bytes = run.iter().map(|joining| joining.outgoing.body.len()).sum();
            // Whoever gives this up while messages are on their way does not know what the transaction holds.
            self.state = State::Failed;
            let inner = Arc::clone(&self.inner);
            let room = match inner.sender.bounds.reserve(run.len(), bytes, deadline).await {
                Ok(room) => room,
                Err(error) => {
                    self.state = State::Open;
                    self.fail_if(!receipts.is_empty());
                    return Err(error.into());
                }
            };
            let joined = joining::join(&inner.sender, &mut self.name.broker_name, run, deadline).await;
            drop(room);
            let count = u16::try_from(joined.receipts.len()).unwrap_or(u16::MAX);
            self.name.messages = before.saturating_add(count);
            receipts.extend(joined.receipts);
            if !joined.doubtful {
                self.state = State::Open;
            }
            if let Some(error) = joined.failure {
                self.fail_if(!receipts.is_empty());
                return Err(error);
            }
        }
        Ok(receipts)
    }

    /// Makes all messages visible.
    ///
    /// The commit says how many messages there are, so that none is missing. If a send has failed before in a way that
    /// leaves open what the transaction holds, or the broker does not have them all, it is rolled back instead, and the
    /// outcome says why. A transaction without messages and batches is committed without a word to any broker.
    ///
    /// The offsets of acknowledged batches move with the commit. If another client has one of their queues by now, the
    /// broker rolls back: [`RolledBackBecause::Fenced`]. If the outcome stays unknown, or this call is cancelled, the
    /// consumer asks for new leases, which tell whether the offsets have moved: no batch is processed twice, and none is
    /// left out.
    pub async fn commit(self) -> TransactionOutcome {
        let because = match self.state {
            State::Failed => RolledBackBecause::SendFailed,
            State::AckFailed => RolledBackBecause::AckFailed,
            State::Open | State::Ended => return self.decide(Decision::Commit).await,
        };
        match self.decide(Decision::Rollback).await {
            TransactionOutcome::RolledBack(name, _) => TransactionOutcome::RolledBack(name, because),
            other => other,
        }
    }

    /// Discards all messages.
    pub async fn rollback(self) -> TransactionOutcome {
        self.decide(Decision::Rollback).await
    }

    /// Leaves the decision to the group's check-back handlers. One that has acknowledged batches is rolled back instead:
    /// no handler could commit it.
    pub fn leave_open(mut self) -> TransactionName {
        self.has_local_part = self.acks.is_empty();
        self.name.clone()
    }

    /// The next messages that travel together, numbered.
    async fn next_run(
        &self,
        messages: &mut std::iter::Peekable<impl Iterator<Item = Message>>,
    ) -> Result<Vec<Joining>, ManyError> {
        let mut run = Vec::new();
        let mut bytes = 0;
        let is_room = |message: &Message, bytes: usize, len: usize| {
            let more = message.body().len() + message.properties_bytes();
            len == 0 || (len < RUN_MESSAGES_MAX && bytes + more <= RUN_BYTES_MAX)
        };
        while let Some(message) = messages.next_if(|message| is_room(message, bytes, run.len())) {
            let place = u16::try_from(run.len()).unwrap_or(u16::MAX);
            let sequence = self.name.messages.saturating_add(place);
            if sequence >= TRANSACTION_MESSAGES_MAX {
                return Err(ManyError::Full);
            }
            let numbered = message.joining(&self.name.id, sequence).map_err(SendError::from)?;
            let numbered = match self.acks.group().filter(|_| sequence == 0) {
                Some(group) => {
                    let asked_after_ms = self.inner.config.consuming_max_ms;
                    numbered.moving_offsets(group, asked_after_ms).map_err(SendError::from)?
                }
                None => numbered,
            };
            let sender = &self.inner.sender;
            // The first one's key is what the broker asks about.
            let key = if sequence == 0 { Arc::clone(&self.name.id) } else { sender.next_unique_key() };
            let outgoing = sender.prepare(&numbered, Kind::Half, key).await?;
            bytes += outgoing.bytes();
            run.push(Joining::new(outgoing, message, sequence));
        }
        Ok(run)
    }

    fn fail_if(&mut self, failed: bool) {
        if failed {
            self.state = State::Failed;
        }
    }

    /// Whether the broker may ask about it.
    fn may_be_stored(&self) -> bool {
        self.name.messages > 0 || self.state == State::Failed
    }

    async fn decide(mut self, decision: Decision) -> TransactionOutcome {
        let name = self.name.clone();
        let mut acks = std::mem::take(&mut self.acks);
        let is_something = self.may_be_stored() || (decision == Decision::Commit && !acks.is_empty());
        self.state = State::Ended;
        let (Some(_), true) = (&name.broker_name, is_something) else {
            self.inner.open().forget(&name.id);
            acks.rolled_back(&name.id);
            return match decision {
                Decision::Commit => TransactionOutcome::Committed(name),
                Decision::Rollback => TransactionOutcome::RolledBack(name, RolledBackBecause::Decided),
            };
        };
        // From here on a check-back is answered with this decision, even if this call is cancelled.
        let ending = Ending::new(Arc::clone(&self.inner), name, decision, acks);
        ending.run().await
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.state == State::Ended {
            return;
        }
        self.acks.rolled_back(&self.name.id);
        if self.has_local_part || !self.may_be_stored() {
            self.inner.open().forget(&self.name.id);
            return;
        }
        self.inner.open().decided(&self.name.id, Decision::Rollback);
        let told = ending::try_roll_back(&self.inner, &self.name);
        tracing::debug!(name = %self.name, told, "a transaction was dropped without a decision: rolled back");
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("name", &self.name)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
