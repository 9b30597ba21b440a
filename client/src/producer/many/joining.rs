//! Messages join a transaction: numbered, on one broker, many in flight in their order on one connection. A message that was
//! not answered is sent again under its number until the time is over, which stores nothing twice.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mezzo_protocol::ids::{MessageQueue, TopicName};
use mezzo_protocol::remoting::{HeaderEncoding, RequestCode};
use tokio::time::Instant;

use super::super::end_transaction::REPEAT_BACKOFF;
use super::super::receipt::{SendReceipt, Stored};
use super::super::receipts::Receipts;
use super::super::send::{FRAME_BYTES_GUESS, Outgoing, Sender, master_address};
use super::answer::JoinAnswer;
use super::outcome::ManyError;
use crate::clock::random_seed;
use crate::core::backoff::Backoff;
use crate::core::queue_selector::by_sharding_key;
use crate::error::{Error, RequestError, SendError};
use crate::message::Message;
use crate::net::{AnswerSink, Deadline, Patience};

/// A message that is to join.
pub(super) struct Joining {
    pub(super) outgoing: Outgoing,
    pub(super) message: Message,
    pub(super) sequence: u16,
    /// Chosen with the broker; the same in every attempt.
    queue: Option<MessageQueue>,
}

impl Joining {
    pub(super) const fn new(outgoing: Outgoing, message: Message, sequence: u16) -> Self {
        Self { outgoing, message, sequence, queue: None }
    }

    const fn topic(&self) -> &TopicName {
        self.message.topic()
    }
}

/// How a run of messages went.
pub(super) struct Joined {
    /// Of those that are in the transaction, from the first on.
    pub(super) receipts: Vec<SendReceipt>,
    /// Why not all are.
    pub(super) failure: Option<ManyError>,
    /// Whether more than the receipts say may be in the transaction.
    pub(super) doubtful: bool,
}

/// What goes on between the attempts.
struct Run<'a> {
    sender: &'a Sender,
    waiting: Vec<Joining>,
    receipts: Vec<SendReceipt>,
    deadline: Deadline,
    /// Brokers that surely did not take the first message.
    tried: Vec<Arc<str>>,
    attempts: u32,
    /// Whether an attempt may have stored what was not answered.
    doubtful: bool,
}

/// Sends `waiting` until all have joined, trying again gives no hope, or the time is over. `broker` is chosen if the
/// transaction has none yet.
pub(super) async fn join(
    sender: &Sender,
    broker: &mut Option<Arc<str>>,
    waiting: Vec<Joining>,
    deadline: Deadline,
) -> Joined {
    let receipts = Vec::with_capacity(waiting.len());
    let (tried, attempts) = (Vec::new(), 0);
    let mut run = Run { sender, waiting, receipts, deadline, tried, attempts, doubtful: false };
    let is_free = broker.is_none();
    let mut backoff = Backoff::new(REPEAT_BACKOFF, random_seed());
    let failure = loop {
        if run.waiting.is_empty() {
            break None;
        }
        let chosen = match run.place(broker.as_ref()).await {
            Ok(chosen) => chosen,
            Err(error) => break Some(error),
        };
        *broker = Some(Arc::clone(&chosen));
        let step = run.attempt().await;
        // Nothing of the transaction is there: it may begin at another broker.
        if is_free && run.receipts.is_empty() && !run.doubtful {
            *broker = None;
            run.waiting.iter_mut().for_each(|joining| joining.queue = None);
            run.tried.push(chosen);
        }
        match step {
            Ok(()) => continue,
            Err(Stop::For(error)) => break Some(error),
            Err(Stop::Pause(error)) => {
                let next = Instant::now() + Duration::from_millis(backoff.next_delay_ms());
                if next >= deadline.at() {
                    break Some(run.given_up(error).into());
                }
                tokio::time::sleep_until(next).await;
            }
        }
    };
    // What an attempt may have stored without an answer is certain when all have joined: each counts once.
    let doubtful = run.doubtful && !run.waiting.is_empty();
    Joined { receipts: run.receipts, failure, doubtful }
}

/// Why an attempt did not bring all messages into the transaction.
enum Stop {
    /// Trying again can help.
    Pause(RequestError),
    /// It cannot.
    For(ManyError),
}

impl Run<'_> {
    /// Gives each waiting message a queue on the transaction's broker, or on one that is chosen for the first of them.
    async fn place(&mut self, broker: Option<&Arc<str>>) -> Result<Arc<str>, ManyError> {
        let shared = self.sender.client.shared();
        let mut broker = broker.cloned();
        for joining in &mut self.waiting {
            if joining.queue.is_some() {
                continue;
            }
            let topic = joining.topic().clone();
            let route = shared.publish_route(&topic, self.deadline).await.map_err(SendError::from)?;
            let key = joining.message.sharding_key();
            let queues: Vec<MessageQueue> = match key {
                Some(key) => by_sharding_key(route.publish_queues(), key).cloned().into_iter().collect(),
                None => route.publish_queues().to_vec(),
            };
            if queues.is_empty() {
                return Err(SendError::from(Error::NoRoute { topic }).into());
            }
            let mut here = queues;
            if let Some(broker) = &broker {
                here.retain(|queue| queue.broker_name == *broker);
            }
            let now = shared.now();
            let queue = self.sender.choice().selector.next(&here, &self.tried, now).cloned();
            let Some(queue) = queue else {
                let broker = broker.unwrap_or_default();
                return Err(ManyError::OtherBroker { topic, broker, ordered: key.is_some() });
            };
            broker.get_or_insert_with(|| Arc::clone(&queue.broker_name));
            joining.queue = Some(queue);
        }
        broker.ok_or(ManyError::FailedBefore)
    }

    /// Sends all that wait, in their order, and takes from the front those that joined.
    async fn attempt(&mut self) -> Result<(), Stop> {
        self.attempts += 1;
        let answers = match self.exchange().await {
            Ok(answers) => answers,
            Err(error) => return Err(self.judge(error)),
        };
        let sent = answers.len();
        for answer in answers {
            match answer {
                Ok(JoinAnswer::Joined(receipt)) if receipt.stored == Stored::AsConfigured => {
                    let mut joined = self.waiting.drain(..1);
                    drop(joined.next());
                    self.receipts.push(SendReceipt { attempts: self.attempts, ..receipt });
                }
                Ok(JoinAnswer::Joined(receipt)) => {
                    self.doubtful = true;
                    return Err(Stop::For(ManyError::NotSafe(receipt.stored)));
                }
                Ok(JoinAnswer::OutOfSequence(expected)) => {
                    let next = self.waiting.first().map_or(0, |joining| joining.sequence);
                    if expected < next {
                        self.doubtful = true;
                        return Err(Stop::For(ManyError::Lost));
                    }
                    return Err(Stop::Pause(self.out_of_sequence(expected)));
                }
                Ok(JoinAnswer::NotOpen) => {
                    self.doubtful = true;
                    return Err(Stop::For(ManyError::Lost));
                }
                Ok(JoinAnswer::Decided(recorded)) => return Err(Stop::For(ManyError::Decided { recorded })),
                Ok(JoinAnswer::Full) => return Err(Stop::For(ManyError::Full)),
                Ok(JoinAnswer::Refused(error)) | Err(error) => return Err(self.judge(error)),
            }
        }
        if sent > 0 {
            let broker = self.receipts.last().map(|receipt| Arc::clone(&receipt.queue.broker_name));
            self.sender.confirmed(broker.as_deref().unwrap_or_default(), sent);
        }
        Ok(())
    }

    async fn exchange(&self) -> Result<Vec<Result<JoinAnswer, RequestError>>, RequestError> {
        let sender = self.sender;
        let deadline = self.deadline.but_at_most_ms(sender.config.attempt_timeout_ms);
        let placed = self.waiting.iter().filter_map(|joining| Some((joining, joining.queue.as_ref()?)));
        let placed: Vec<(&Joining, &MessageQueue)> = placed.collect();
        let Some((first, queue)) = placed.first() else { return Ok(Vec::new()) };
        let shared = sender.client.shared();
        let address = match shared.master_of(&queue.broker_name) {
            Some(address) => address,
            None => {
                let route = shared.publish_route(first.topic(), deadline).await;
                let unreachable = |error: Error| RequestError::Unreachable {
                    address: Arc::clone(&queue.broker_name),
                    reason: error.to_string(),
                };
                master_address(&*route.map_err(unreachable)?, queue)?
            }
        };
        let connection = shared.connection(&address, Patience::Wait, deadline).await?;
        connection.require_mezzo("a transaction of many messages")?;
        let sent = placed
            .iter()
            .map(|(joining, queue)| (Arc::clone(&joining.outgoing.unique_key), (*queue).clone()));
        let receipts = Arc::new(Receipts::reading(address, sent.collect(), JoinAnswer::read));
        let sink: Arc<dyn AnswerSink> = Arc::<Receipts<JoinAnswer>>::clone(&receipts);
        let write = |opaques: &[i32], encoding: HeaderEncoding, out: &mut BytesMut| {
            let bytes = placed.iter().map(|(joining, _)| joining.outgoing.bytes() + FRAME_BYTES_GUESS);
            out.reserve(bytes.sum());
            let mut pairs = placed.iter().zip(opaques);
            pairs.try_for_each(|((joining, queue), opaque)| {
                sender.write(&joining.outgoing, queue, *opaque, encoding, out)
            })
        };
        let code = RequestCode::SEND_MESSAGE_V2;
        let waiter = connection.request_run(code, placed.len(), &sink, write, deadline).await?;
        Ok(receipts.collect(&connection, waiter, deadline).await)
    }

    /// What an attempt's failure means: what is certain, and whether to go on.
    fn judge(&mut self, error: RequestError) -> Stop {
        if let Some(queue) = self.waiting.first().and_then(|joining| joining.queue.as_ref()) {
            self.sender.note_failure(queue, &error);
        }
        self.doubtful |= error.may_have_acted();
        if error.is_retriable() && !self.deadline.is_over() {
            tracing::debug!(%error, "a message of a transaction is sent again");
            return Stop::Pause(error);
        }
        Stop::For(self.given_up(error).into())
    }

    fn given_up(&self, last: RequestError) -> SendError {
        let attempts = self.attempts;
        match self.waiting.first() {
            Some(joining) if self.doubtful => {
                let unique_key = Arc::clone(&joining.outgoing.unique_key);
                SendError::Unknown { unique_key, attempts, last }
            }
            _ => SendError::NotSent { attempts, last },
        }
    }

    /// Stands for an answer that came because one of a message before it did not.
    fn out_of_sequence(&self, expected: u16) -> RequestError {
        let queue = self.waiting.first().and_then(|joining| joining.queue.as_ref());
        RequestError::Refused {
            address: queue.map(|queue| Arc::clone(&queue.broker_name)).unwrap_or_default(),
            code: mezzo_protocol::remoting::ResponseCode::ILLEGAL_OPERATION,
            remark: format!("the transaction's next message is number {expected}"),
        }
    }
}
