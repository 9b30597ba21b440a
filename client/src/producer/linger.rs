//! Automatic batching: single sends wait a moment for others of their topic and travel together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mezzo_protocol::ids::TopicName;
use mezzo_protocol::limits::{BATCH_MESSAGES_MAX, BODY_BYTES_MAX};
use tokio::sync::oneshot;

use super::batch::bytes_in_batch;
use super::receipt::SendReceipt;
use super::send::{Kind, Sender, Target};
use crate::config::BatchingPolicy;
use crate::error::{RequestError, SendError};
use crate::message::Message;
use crate::net::Deadline;

type Sent = Result<SendReceipt, SendError>;

/// A batch that still takes messages.
struct Open {
    /// Tells the timer of an earlier batch that this is not its own.
    number: u64,
    bytes: usize,
    messages: Vec<Message>,
    waiting: Vec<oneshot::Sender<Sent>>,
}

#[derive(Default)]
struct State {
    open: HashMap<TopicName, Open>,
    numbers: u64,
}

/// Gathers the messages of single sends. What waits here is bounded by the sends in flight, whose callers wait too.
pub(super) struct Lingering {
    policy: BatchingPolicy,
    state: Mutex<State>,
}

/// What putting a message in asks of the caller.
enum Put {
    /// The batch is complete.
    Send(Open),
    /// The batch is new: send it after the linger time.
    Start(u64),
    /// Others see to it.
    Wait,
}

impl Lingering {
    pub(super) fn new(policy: BatchingPolicy) -> Self {
        Self { policy, state: Mutex::default() }
    }

    fn messages_max(&self) -> usize {
        self.policy.messages_max.clamp(1, BATCH_MESSAGES_MAX)
    }

    fn bytes_max(&self) -> usize {
        self.policy.bytes_max.min(BODY_BYTES_MAX)
    }

    /// Whether `message` may travel with others: those with an order or a time of their own go alone, and so does what
    /// fills a batch.
    fn takes(&self, message: &Message) -> bool {
        message.sharding_key().is_none()
            && !message.is_delayed()
            && bytes_in_batch(message) <= self.bytes_max()
    }

    /// Adds a message; a batch that it does not fit into is handed out first.
    fn put(&self, message: Message, waiting: oneshot::Sender<Sent>) -> (Option<Open>, Put) {
        let (topic, bytes) = (message.topic().clone(), bytes_in_batch(&message));
        let mut state = self.lock();
        let full = state.open.get(&topic).is_some_and(|open| open.bytes + bytes > self.bytes_max());
        let before = if full { state.open.remove(&topic) } else { None };
        if let Some(open) = state.open.get_mut(&topic) {
            open.bytes += bytes;
            open.messages.push(message);
            open.waiting.push(waiting);
            if open.messages.len() < self.messages_max() {
                return (before, Put::Wait);
            }
            return (before, state.open.remove(&topic).map_or(Put::Wait, Put::Send));
        }
        state.numbers += 1;
        let number = state.numbers;
        let open = Open { number, bytes, messages: vec![message], waiting: vec![waiting] };
        if self.messages_max() == 1 {
            return (before, Put::Send(open));
        }
        state.open.insert(topic, open);
        (before, Put::Start(number))
    }

    /// The batch with this number, if it is still open.
    fn take(&self, topic: &TopicName, number: u64) -> Option<Open> {
        let mut state = self.lock();
        if state.open.get(topic)?.number == number { state.open.remove(topic) } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// Sends `message` together with others of its topic if the settings ask for it and it may; else alone.
    pub(crate) async fn send_lingering(self: &Arc<Self>, message: Message) -> Sent {
        let Some(lingering) = self.lingering.as_ref().filter(|lingering| lingering.takes(&message)) else {
            let target = message.sharding_key().map_or(Target::Any, Target::ShardingKey);
            return self.send(&message, target, Kind::Plain, self.next_unique_key()).await;
        };
        let deadline = Deadline::after_ms(self.config.send_timeout_ms);
        // Held until the batch is answered: the batch itself needs no room of its own.
        let _room = self.reserve(1, message.body().len(), deadline).await?;
        let topic = message.topic().clone();
        let (sender, answer) = oneshot::channel();
        let (before, put) = lingering.put(message, sender);
        if let Some(open) = before {
            tokio::spawn(Arc::clone(self).send_open(open));
        }
        match put {
            Put::Send(open) => {
                tokio::spawn(Arc::clone(self).send_open(open));
            }
            Put::Start(number) => {
                let linger = Duration::from_millis(lingering.policy.linger_ms);
                tokio::spawn(linger_then_send(Arc::downgrade(self), topic, number, linger));
            }
            Put::Wait => {}
        }
        answer.await.unwrap_or_else(|_| Err(SendError::Route(RequestError::ShutDown.into())))
    }

    async fn send_open(self: Arc<Self>, open: Open) {
        let deadline = Deadline::after_ms(self.config.send_timeout_ms);
        if let ([message], [_]) = (&*open.messages, &*open.waiting) {
            let key = self.next_unique_key();
            let sent = self.send_in_room(message, Target::Any, Kind::Plain, key, deadline).await;
            open.waiting.into_iter().for_each(|waiting| drop(waiting.send(sent.clone())));
            return;
        }
        match self.send_batch_in_room(&open.messages, deadline).await {
            Ok(receipts) => {
                for (waiting, receipt) in open.waiting.into_iter().zip(receipts) {
                    // Who does not wait any more does not want to know.
                    let _ = waiting.send(Ok(receipt));
                }
            }
            Err(error) => {
                for waiting in open.waiting {
                    let _ = waiting.send(Err(error.clone()));
                }
            }
        }
    }
}

async fn linger_then_send(sender: Weak<Sender>, topic: TopicName, number: u64, linger: Duration) {
    tokio::time::sleep(linger).await;
    let Some(sender) = sender.upgrade() else { return };
    if let Some(open) = sender.lingering.as_ref().and_then(|lingering| lingering.take(&topic, number)) {
        sender.send_open(open).await;
    }
}
