//! Automatic batching: single sends wait a moment for others of their topic and travel together.
//!
//! ```text
//!   send ──> room ──> put into the topic's open batch ──┬─ full, by count or bytes ──┐
//!                                                       ├─ the linger time is over ──┼──> one batch ──> receipts
//!                                                       └─ shutdown ─────────────────┘        │ the broker does not
//!                                                                    halves, down to ones <───┘ take it as a batch
//! ```
//! Each message keeps its own key, its own room and its own outcome. A caller that gives up while its message waits takes
//! the message with it; what has left stays in flight, and in its room, until it is answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mezzo_protocol::ids::TopicName;
use mezzo_protocol::limits::{BATCH_MESSAGES_MAX, BODY_BYTES_MAX};
use mezzo_protocol::remoting::ResponseCode;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::batch::{Member, bytes_in_batch};
use super::receipt::SendReceipt;
use super::room::HeldRoom;
use super::send::{Kind, Sender, Target};
use crate::config::{BatchingPolicy, ProducerConfig};
use crate::error::{RequestError, SendError};
use crate::message::Message;
use crate::net::Deadline;

/// A message waits at most this part of its send timeout for others: the rest is for sending it.
const LINGER_SHARE: u64 = 4;

/// A message that has waited for room longer than this part of its send timeout goes alone: it would leave its batch too
/// little time.
const ROOM_SHARE: u64 = 2;

type Sent = Result<SendReceipt, SendError>;

/// A message in a batch, and who waits for it.
struct Waiting {
    member: Member,
    caller: oneshot::Sender<Sent>,
    deadline: Deadline,
    /// Given back when the message is answered, whoever still waits for it.
    _room: HeldRoom,
}

impl Waiting {
    fn answer(self, sent: Sent) {
        // Who does not wait any more does not want to know.
        let _ = self.caller.send(sent);
    }

    /// A failure of the batch as that of this message: an unknown outcome names its own key.
    fn fail(self, error: &SendError) {
        let mut error = error.clone();
        if let SendError::Unknown { unique_key, .. } = &mut error {
            *unique_key = Arc::clone(&self.member.unique_key);
        }
        self.answer(Err(error));
    }
}

/// A batch that still takes messages.
struct Open {
    /// Tells the timer of an earlier batch that this is not its own.
    number: u64,
    bytes: usize,
    waiting: Vec<Waiting>,
}

#[derive(Default)]
struct State {
    open: HashMap<TopicName, Open>,
    numbers: u64,
    /// Nothing waits any more.
    closed: bool,
}

/// Gathers the messages of single sends. What waits here is bounded by the sends in flight.
pub(super) struct Lingering {
    messages_max: usize,
    bytes_max: usize,
    linger: Duration,
    room_wait_ms_max: u64,
    /// Bodies from this size on are compressed, which batches are not: they travel alone.
    compress_from_bytes: usize,
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
    /// Gathers by `policy`, within the bounds of `config`: nobody waits for messages that there is no room for.
    pub(super) fn new(policy: BatchingPolicy, config: &ProducerConfig) -> Self {
        let linger_ms = policy.linger_ms.min(config.send_timeout_ms / LINGER_SHARE);
        Self {
            messages_max: policy.messages_max.min(config.in_flight_max).clamp(1, BATCH_MESSAGES_MAX),
            bytes_max: policy.bytes_max.min(BODY_BYTES_MAX),
            linger: Duration::from_millis(linger_ms),
            room_wait_ms_max: config.send_timeout_ms / ROOM_SHARE,
            compress_from_bytes: config.compressed_from_bytes().unwrap_or(usize::MAX),
            state: Mutex::default(),
        }
    }

    /// Whether `message` may travel with others: those with an order, a time or a form of their own go alone, and so
    /// does what fills a batch.
    fn takes(&self, message: &Message) -> bool {
        message.sharding_key().is_none()
            && !message.is_delayed()
            && message.body().len() < self.compress_from_bytes
            && bytes_in_batch(message) <= self.bytes_max
    }

    /// Adds a message; a batch that it does not fit into is handed out first.
    fn put(&self, waiting: Waiting) -> (Option<Open>, Put) {
        let message = &waiting.member.message;
        let (topic, bytes) = (message.topic().clone(), bytes_in_batch(message));
        let mut state = self.lock();
        let full = state.open.get(&topic).is_some_and(|open| open.bytes + bytes > self.bytes_max);
        let before = if full { state.open.remove(&topic) } else { None };
        if let Some(open) = state.open.get_mut(&topic) {
            open.bytes += bytes;
            open.waiting.push(waiting);
            if open.waiting.len() < self.messages_max {
                return (before, Put::Wait);
            }
            return (before, state.open.remove(&topic).map_or(Put::Wait, Put::Send));
        }
        state.numbers += 1;
        let number = state.numbers;
        let open = Open { number, bytes, waiting: vec![waiting] };
        if self.messages_max == 1 || state.closed {
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

    /// Everything that waits; from now on nothing does.
    fn close(&self) -> Vec<Open> {
        let mut state = self.lock();
        state.closed = true;
        state.open.drain().map(|(_, open)| open).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// Sends `message` together with others of its topic if the settings ask for it and it may; else alone.
    pub(crate) async fn send_lingering(self: &Arc<Self>, message: Message) -> Sent {
        let deadline = Deadline::after_ms(self.config.send_timeout_ms);
        let room = self.bounds.reserve(1, message.body().len(), deadline).await?;
        let unique_key = self.next_unique_key();
        let lingering = self.lingering.as_ref().filter(|lingering| {
            lingering.takes(&message) && deadline.waited_ms() <= lingering.room_wait_ms_max
        });
        let Some(lingering) = lingering else {
            let target = message.sharding_key().map_or(Target::Any, Target::ShardingKey);
            return self.send_in_room(&message, target, Kind::Plain, unique_key, deadline).await;
        };
        let topic = message.topic().clone();
        let (caller, answer) = oneshot::channel();
        let member = Member { message, unique_key: Arc::clone(&unique_key) };
        let (before, put) = lingering.put(Waiting { member, caller, deadline, _room: room.held() });
        if let Some(open) = before {
            self.spawn_open(open);
        }
        match put {
            Put::Send(open) => self.spawn_open(open),
            Put::Start(number) => {
                let waits = linger_then_send(Arc::downgrade(self), topic, number, lingering.linger);
                tokio::spawn(waits.in_current_span());
            }
            Put::Wait => {}
        }
        // Without an answer its task was ended from outside, perhaps after it had written the message.
        let ended = SendError::Unknown { unique_key, attempts: 1, last: RequestError::ShutDown };
        answer.await.unwrap_or(Err(ended))
    }

    /// Sends what waits for others to travel with, and lets nothing wait any more.
    pub(super) fn flush_lingering(self: &Arc<Self>) {
        let open = self.lingering.as_ref().map(Lingering::close).unwrap_or_default();
        open.into_iter().for_each(|open| self.spawn_open(open));
    }

    /// In a task of its own: a caller that gives up must not take the others' messages with it.
    fn spawn_open(self: &Arc<Self>, open: Open) {
        tokio::spawn(Arc::clone(self).send_open(open).in_current_span());
    }

    async fn send_open(self: Arc<Self>, mut open: Open) {
        // Nothing of these has left this process: who gave up has surely sent nothing.
        open.waiting.retain(|waiting| !waiting.caller.is_closed());
        // The parts still to send, the first one last.
        let mut parts = vec![open.waiting];
        while let Some(mut part) = parts.pop() {
            let Some(deadline) = part.iter().map(|waiting| waiting.deadline).min_by_key(|at| at.at()) else {
                continue;
            };
            let sent = self.send_part(&part, deadline).await;
            match sent {
                Ok(receipts) => {
                    part.into_iter().zip(receipts).for_each(|(waiting, receipt)| waiting.answer(Ok(receipt)));
                }
                Err(error) if part.len() > 1 && is_against_the_batch(&error) => {
                    tracing::debug!(messages = part.len(), %error, "halving a batch that is not taken");
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                }
                Err(error) => part.into_iter().for_each(|waiting| waiting.fail(&error)),
            }
        }
    }

    async fn send_part(&self, part: &[Waiting], deadline: Deadline) -> Result<Vec<SendReceipt>, SendError> {
        if let [Waiting { member: Member { message, unique_key }, .. }] = part {
            let key = Arc::clone(unique_key);
            let sent = self.send_in_room(message, Target::Any, Kind::Plain, key, deadline).await;
            return sent.map(|receipt| vec![receipt]);
        }
        self.send_batch_in_room(part.iter().map(|waiting| &waiting.member), deadline).await
    }
}

/// Whether a batch surely was not stored for a reason that may lie in one of its messages, in its size, or in its being a
/// batch: then its parts may be taken.
fn is_against_the_batch(error: &SendError) -> bool {
    let codes = [ResponseCode::MESSAGE_ILLEGAL, ResponseCode::REQUEST_CODE_NOT_SUPPORTED];
    match error {
        SendError::Message(_) => true,
        SendError::NotSent { last, .. } => {
            matches!(last, RequestError::Encode(_))
                || last.refusal().is_some_and(|code| codes.contains(&code))
        }
        _ => false,
    }
}

async fn linger_then_send(sender: Weak<Sender>, topic: TopicName, number: u64, linger: Duration) {
    tokio::time::sleep(linger).await;
    let Some(sender) = sender.upgrade() else { return };
    if let Some(open) = sender.lingering.as_ref().and_then(|lingering| lingering.take(&topic, number)) {
        sender.send_open(open).await;
    }
}
