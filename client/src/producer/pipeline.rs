//! Many sends at once: runs of messages that share permits, route, connection and one write.
//!
//! ```text
//!   messages ──> run (one topic, bounded) ──> legs (one broker each) ──> one write, one wait ──> receipts
//!                                       ^                                   │ what failed and may be tried again
//!                                       └───────────────────────────────────┘
//! ```
//! Runs follow each other without waiting; the oldest is waited for when there is no room for another. What becomes of a
//! message is decided by the same rules as for a single send.

use std::collections::VecDeque;
use std::iter::{Enumerate, Peekable};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mezzo_protocol::error::EncodeError;
use mezzo_protocol::ids::MessageQueue;
use mezzo_protocol::remoting::{HeaderEncoding, RequestCode};
use tokio::time::Instant;

use super::receipt::SendReceipt;
use super::receipts::Receipts;
use super::room::Room;
use super::send::{Attempts, FRAME_BYTES_GUESS, Kind, Outgoing, Sender, Target, master_address};
use crate::core::queue_selector::by_sharding_key;
use crate::core::route::TopicRoute;
use crate::error::{Error, RequestError, SendError};
use crate::message::Message;
use crate::net::{AnswerSink, Connection, Deadline, Patience, RunWaiter};

/// Most messages of one run: enough to make a write and a wake-up cheap, few enough to keep the queues even.
const RUN_MESSAGES_MAX: usize = 128;
/// Most body bytes of one run, unless a single message is larger.
const RUN_BYTES_MAX: usize = 256 << 10;
/// Most runs of one call that wait for answers.
const RUNS_MAX: usize = 64;

type Sent = Result<SendReceipt, SendError>;
type Rest = Peekable<Enumerate<std::vec::IntoIter<Message>>>;

/// A message of a run.
struct Item {
    /// Its place in the call's result.
    index: usize,
    message: Message,
    outgoing: Outgoing,
    /// Whether an earlier attempt may have stored it.
    unknown: bool,
}

/// The messages of a run that go to one broker, and their common attempt.
struct Leg {
    items: Vec<(Item, MessageQueue)>,
    started: Result<InAir, RequestError>,
}

/// A leg that was written.
struct InAir {
    connection: Arc<Connection>,
    receipts: Arc<Receipts>,
    waiter: RunWaiter,
    deadline: Deadline,
}

/// A run on its way.
struct Flight<'a> {
    legs: Vec<Leg>,
    attempts: Attempts,
    deadline: Deadline,
    _room: Room<'a>,
}

/// The results of one call, by index.
struct Results(Vec<Option<Sent>>);

impl Results {
    fn put(&mut self, index: usize, sent: Sent) {
        if let Some(place) = self.0.get_mut(index) {
            *place = Some(sent);
        }
    }
}

impl Sender {
    /// Sends all `messages`; the results are in their order.
    pub(crate) async fn send_all(&self, messages: Vec<Message>) -> Vec<Sent> {
        let mut results = Results(std::iter::repeat_with(|| None).take(messages.len()).collect());
        let mut rest = messages.into_iter().enumerate().peekable();
        let mut flights = VecDeque::new();
        while let Some(run) = self.next_run(&mut rest) {
            let bytes = run.iter().map(|(_, message)| message.body().len()).sum();
            let deadline = Deadline::after_ms(self.config.send_timeout_ms);
            let room = loop {
                if let Some(room) = self.bounds.try_reserve(run.len(), bytes) {
                    break Ok(room);
                }
                match flights.pop_front() {
                    // Its answers make the room: waiting for others first could wait for ourselves.
                    Some(oldest) => self.land(oldest, &mut results).await,
                    None => break self.bounds.reserve(run.len(), bytes, deadline).await,
                }
            };
            match room {
                Ok(room) => flights.push_back(self.take_off(run, room, deadline, &mut results).await),
                Err(error) => run.iter().for_each(|(index, _)| results.put(*index, Err(error.clone()))),
            }
            if flights.len() >= RUNS_MAX
                && let Some(oldest) = flights.pop_front()
            {
                self.land(oldest, &mut results).await;
            }
        }
        for flight in flights {
            self.land(flight, &mut results).await;
        }
        let forgotten = || Err(SendError::Route(RequestError::ShutDown.into()));
        results.0.into_iter().map(|sent| sent.unwrap_or_else(forgotten)).collect()
    }

    /// The next messages of one topic, within the bounds of a run.
    fn next_run(&self, rest: &mut Rest) -> Option<Vec<(usize, Message)>> {
        let pending_max = self.client.shared().config.pending_requests_max.max(1);
        let count_max = RUN_MESSAGES_MAX.min(self.bounds.sends_max()).min(pending_max);
        let first = rest.next()?;
        let (topic, mut bytes) = (first.1.topic().clone(), first.1.body().len());
        let mut run = Vec::with_capacity(count_max.min(rest.len() + 1));
        run.push(first);
        while run.len() < count_max
            && let Some(next) = rest.next_if(|(_, message)| {
                *message.topic() == topic && bytes.saturating_add(message.body().len()) <= RUN_BYTES_MAX
            })
        {
            bytes += next.1.body().len();
            run.push(next);
        }
        Some(run)
    }

    /// Makes a run ready and writes it.
    async fn take_off<'a>(
        &'a self,
        run: Vec<(usize, Message)>,
        room: Room<'a>,
        deadline: Deadline,
        results: &mut Results,
    ) -> Flight<'a> {
        let mut items = Vec::with_capacity(run.len());
        for (index, message) in run {
            match self.prepare(&message, Kind::Plain, self.next_unique_key()).await {
                Ok(outgoing) => items.push(Item { index, message, outgoing, unknown: false }),
                Err(error) => results.put(index, Err(error)),
            }
        }
        let mut attempts = Attempts::default();
        let legs = self.launch(items, &mut attempts, deadline, results).await;
        Flight { legs, attempts, deadline, _room: room }
    }

    /// One attempt for all items: chooses queues and writes. What has no queue is settled.
    async fn launch(
        &self,
        items: Vec<Item>,
        attempts: &mut Attempts,
        deadline: Deadline,
        results: &mut Results,
    ) -> Vec<Leg> {
        let Some(first) = items.first() else { return Vec::new() };
        let topic = first.message.topic().clone();
        let route = match self.client.shared().publish_route(&topic, deadline).await {
            Ok(route) => route,
            Err(error) => {
                for item in items {
                    attempts.unknown = item.unknown;
                    let error = Self::no_route(error.clone(), attempts, &item.outgoing);
                    results.put(item.index, Err(error));
                }
                return Vec::new();
            }
        };
        attempts.made += 1;
        let mut legs: Vec<Leg> = Vec::with_capacity(1);
        let mut in_turn = None;
        for item in items {
            let queues = route.publish_queues();
            let queue = match item.message.sharding_key() {
                Some(key) => by_sharding_key(queues, key).cloned(),
                None => in_turn
                    .get_or_insert_with(|| {
                        let now = self.client.shared().now();
                        self.choice().selector.next(queues, &attempts.tried, now).cloned()
                    })
                    .clone(),
            };
            let Some(queue) = queue else {
                attempts.unknown = item.unknown;
                let error = Error::NoRoute { topic: topic.clone() };
                results.put(item.index, Err(Self::no_route(error, attempts, &item.outgoing)));
                continue;
            };
            let same_broker = |leg: &&mut Leg| {
                leg.items.first().is_some_and(|(_, first)| first.broker_name == queue.broker_name)
            };
            if let Some(leg) = legs.iter_mut().find(same_broker) {
                leg.items.push((item, queue));
            } else {
                // Replaced below, before anybody looks.
                legs.push(Leg { items: vec![(item, queue)], started: Err(RequestError::ShutDown) });
            }
        }
        for leg in &mut legs {
            leg.started = self.start(&leg.items, &route, deadline).await;
        }
        legs
    }

    async fn start(
        &self,
        items: &[(Item, MessageQueue)],
        route: &TopicRoute,
        deadline: Deadline,
    ) -> Result<InAir, RequestError> {
        let deadline = deadline.but_at_most_ms(self.config.attempt_timeout_ms);
        let Some((_, queue)) = items.first() else { return Err(RequestError::ShutDown) };
        let address = master_address(route, queue)?;
        let connection = self.client.shared().connection(&address, Patience::Wait, deadline).await?;
        let sent = items.iter().map(|(item, queue)| (Arc::clone(&item.outgoing.unique_key), queue.clone()));
        let receipts = Arc::new(Receipts::new(address, sent.collect()));
        let sink: Arc<dyn AnswerSink> = Arc::<Receipts>::clone(&receipts);
        let write = |opaques: &[i32], encoding: HeaderEncoding, out: &mut BytesMut| {
            out.reserve(items.iter().map(|(item, _)| item.outgoing.bytes() + FRAME_BYTES_GUESS).sum());
            items.iter().zip(opaques).try_for_each(|((item, queue), opaque)| -> Result<(), EncodeError> {
                self.write(&item.outgoing, queue, *opaque, encoding, out)
            })
        };
        let waiter =
            connection.request_run(RequestCode::SEND_MESSAGE_V2, items.len(), &sink, write, deadline).await?;
        Ok(InAir { connection, receipts, waiter, deadline })
    }

    /// Waits for a run's answers and tries again what may be tried again, until everything is settled.
    async fn land(&self, mut flight: Flight<'_>, results: &mut Results) {
        let (attempts, deadline) = (&mut flight.attempts, flight.deadline);
        loop {
            let mut again = Vec::new();
            for leg in flight.legs.drain(..) {
                again.extend(self.land_leg(leg, attempts, deadline, results).await);
            }
            if again.is_empty() {
                return;
            }
            if again.iter().any(|(_, error)| error.comes_at_once()) {
                let backoff = attempts.backoff(self.config.retry_backoff);
                let next = Instant::now() + Duration::from_millis(backoff.next_delay_ms());
                if next >= deadline.at() {
                    for (item, error) in again {
                        attempts.unknown = item.unknown;
                        results.put(item.index, Err(Self::failure(error, attempts, &item.outgoing)));
                    }
                    return;
                }
                tokio::time::sleep_until(next).await;
            }
            let items = again.into_iter().map(|(item, _)| item).collect();
            flight.legs = self.launch(items, attempts, deadline, results).await;
        }
    }

    /// Settles what is decided of a leg, and returns the rest.
    async fn land_leg(
        &self,
        leg: Leg,
        attempts: &mut Attempts,
        deadline: Deadline,
        results: &mut Results,
    ) -> Vec<(Item, RequestError)> {
        let answers = match leg.started {
            Ok(air) => air.receipts.collect(&air.connection, air.waiter, air.deadline).await,
            // One message that cannot be written must not take the others with it.
            Err(RequestError::Encode(_)) if leg.items.len() > 1 => {
                for (item, _) in leg.items {
                    let target = item.message.sharding_key().map_or(Target::Any, Target::ShardingKey);
                    let (outgoing, topic) = (&item.outgoing, item.message.topic());
                    let before = Attempts::after(item.unknown);
                    // In the room that the run holds.
                    let sent = self.deliver(outgoing, topic, target, Kind::Plain, deadline, before).await;
                    results.put(item.index, sent);
                }
                return Vec::new();
            }
            Err(error) => leg.items.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut failed = Vec::new();
        let mut confirmed = 0;
        let broker = leg.items.first().map(|(_, queue)| Arc::clone(&queue.broker_name)).unwrap_or_default();
        for ((mut item, queue), answer) in leg.items.into_iter().zip(answers) {
            match answer {
                Ok(mut receipt) => {
                    confirmed += 1;
                    receipt.attempts = attempts.made;
                    receipt.may_be_duplicated = item.unknown;
                    results.put(item.index, Ok(receipt));
                }
                Err(error) => {
                    if failed.is_empty() {
                        tracing::debug!(%queue, %error, "attempt to send a run failed");
                        self.note_failure(&queue, &error);
                    }
                    item.unknown |= error.may_have_acted();
                    failed.push((item, error));
                }
            }
        }
        self.confirmed(&broker, confirmed);
        if failed.is_empty() {
            return failed;
        }
        // The budget counts attempts, and a leg is one.
        let (mut allowed, retries) = (None, attempts.retries);
        let again = failed.into_iter().filter_map(|(item, error)| {
            attempts.unknown = item.unknown;
            let in_turn = item.message.sharding_key().is_none();
            let mut budget = || *allowed.get_or_insert_with(|| self.withdraw());
            if !deadline.is_over()
                && self.allows_retry(&error, in_turn, Kind::Plain, attempts)
                && (error.is_certainly_unsent() && !item.unknown || budget())
            {
                return Some((item, error));
            }
            results.put(item.index, Err(Self::failure(error, attempts, &item.outgoing)));
            None
        });
        let again: Vec<_> = again.collect();
        if let (Some((item, error)), Some(metrics)) = (again.first(), &self.client.shared().metrics) {
            metrics.retried(item.message.topic(), error);
        }
        if allowed.is_some() {
            attempts.retries = retries + 1;
        }
        attempts.failed_at(broker);
        again
    }
}
