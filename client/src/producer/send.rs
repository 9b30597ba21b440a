//! One send, with everything that can go wrong: where to, how many at a time, and whether to try again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mezzo_protocol::error::EncodeError;
use mezzo_protocol::ids::{GroupName, MessageQueue, TopicName};
use mezzo_protocol::message::sys_flag::{SysFlag, TransactionBits};
use mezzo_protocol::remoting::header::send_message::SendMessageHeader;
use mezzo_protocol::remoting::{HeaderEncoding, RemotingCommand, RequestCode, ResponseCode};
use mezzo_protocol::remoting::{SendRequest, encode_send_request};
use tokio::time::Instant;

use super::linger::Lingering;
use super::receipt::SendReceipt;
use super::receipts::Receipts;
use super::room::Bounds;
use crate::client::Client;
use crate::clock::random_seed;
use crate::config::ProducerConfig;
use crate::core::backoff::{Backoff, BackoffPolicy};
use crate::core::queue_selector::{QueueSelector, by_sharding_key};
use crate::core::retry_budget::RetryBudget;
use crate::core::route::TopicRoute;
use crate::error::{Error, RequestError, SendError};
use crate::message::{EncodedMessage, Message, compress};
use crate::net::{AnswerSink, Deadline, Patience};

/// Bodies from this size on are compressed on a thread that may block: a runtime's thread must not be busy for long.
const COMPRESS_ELSEWHERE_BYTES: usize = 64 << 10;

/// What a message takes in a write besides its body and properties, about, in bytes.
pub(super) const FRAME_BYTES_GUESS: usize = 320;

/// Which queue a message may go to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    /// Any, in turn.
    Any,
    /// The queue of this sharding key.
    ShardingKey(&'a str),
    /// This one.
    Queue(&'a MessageQueue),
}

/// What kind of message is sent; decides when trying again is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An ordinary message.
    Plain,
    /// A half message. A second copy would be a second transaction, so an unknown outcome is never tried again.
    Half,
}

/// A message that is ready for the wire.
pub(super) struct Outgoing {
    pub(super) encoded: EncodedMessage,
    pub(super) unique_key: Arc<str>,
    pub(super) body: Bytes,
    pub(super) sys_flag: SysFlag,
    /// Whether the body is a batch of messages.
    pub(super) batch: bool,
    /// What other brokers than Mezzo would ignore.
    pub(super) only_mezzo: Option<&'static str>,
}

impl Outgoing {
    /// What the request says it is.
    fn code(&self) -> RequestCode {
        if self.batch { RequestCode::SEND_BATCH_MESSAGE } else { RequestCode::SEND_MESSAGE_V2 }
    }

    /// Bytes of body and properties.
    pub(super) fn bytes(&self) -> usize {
        self.body.len() + self.encoded.properties.len()
    }
}

/// What the attempts so far have shown.
#[derive(Default)]
pub(super) struct Attempts {
    pub(super) made: u32,
    pub(super) retries: u32,
    /// Brokers that failed, the last one last.
    pub(super) tried: Vec<Arc<str>>,
    /// Whether one of them may have stored the message.
    pub(super) unknown: bool,
    /// Made with the first refusal: most sends have none.
    backoff: Option<Backoff>,
}

impl Attempts {
    /// None yet, of a message that may have been stored by an earlier round of them.
    pub(super) fn after(unknown: bool) -> Self {
        Self { unknown, ..Self::default() }
    }

    pub(super) fn backoff(&mut self, policy: BackoffPolicy) -> &mut Backoff {
        self.backoff.get_or_insert_with(|| Backoff::new(policy, random_seed()))
    }

    pub(super) fn failed_at(&mut self, broker: Arc<str>) {
        if !self.tried.contains(&broker) {
            self.tried.push(broker);
        }
    }
}

pub(super) struct Choice {
    pub(super) selector: QueueSelector,
    pub(super) budget: RetryBudget,
}

/// Sends messages of one producer group.
pub(crate) struct Sender {
    pub(crate) client: Client,
    pub(crate) group: GroupName,
    pub(super) config: ProducerConfig,
    /// What is in flight.
    pub(super) bounds: Bounds,
    choice: Mutex<Choice>,
    /// Gathers single sends, if the settings ask for it.
    pub(super) lingering: Option<Lingering>,
}

impl Sender {
    /// A sender with nothing in flight.
    pub(crate) fn new(client: Client, group: GroupName, config: ProducerConfig) -> Self {
        let seed = usize::try_from(random_seed() >> 32).unwrap_or(0);
        let choice =
            Choice { selector: QueueSelector::new(seed), budget: RetryBudget::new(config.retry_budget) };
        Self {
            client,
            group,
            bounds: Bounds::new(config.in_flight_max, config.in_flight_bytes_max),
            choice: Mutex::new(choice),
            lingering: config.batching.map(|policy| Lingering::new(policy, &config)),
            config,
        }
    }

    /// A key for the next message.
    pub(crate) fn next_unique_key(&self) -> Arc<str> {
        let shared = self.client.shared();
        shared.unique_keys.next(shared.now()).into()
    }

    /// Sends until a broker confirms, trying again gives no hope, or the time is over.
    pub(crate) async fn send(
        &self,
        message: &Message,
        target: Target<'_>,
        kind: Kind,
        unique_key: Arc<str>,
    ) -> Result<SendReceipt, SendError> {
        let deadline = Deadline::after_ms(self.config.send_timeout_ms);
        let _room = self.bounds.reserve(1, message.body().len(), deadline).await?;
        self.send_in_room(message, target, kind, unique_key, deadline).await
    }

    /// As [`Sender::send`], by a caller that has reserved the room.
    pub(super) async fn send_in_room(
        &self,
        message: &Message,
        target: Target<'_>,
        kind: Kind,
        unique_key: Arc<str>,
        deadline: Deadline,
    ) -> Result<SendReceipt, SendError> {
        let outgoing = self.prepare(message, kind, unique_key).await?;
        self.deliver(&outgoing, message.topic(), target, kind, deadline, Attempts::default()).await
    }

    /// Attempts until one succeeds, trying again gives no hope, or the time is over. `attempts` are those made before.
    pub(super) async fn deliver(
        &self,
        outgoing: &Outgoing,
        topic: &TopicName,
        target: Target<'_>,
        kind: Kind,
        deadline: Deadline,
        mut attempts: Attempts,
    ) -> Result<SendReceipt, SendError> {
        loop {
            let route = match self.client.shared().publish_route(topic, deadline).await {
                Ok(route) => route,
                Err(error) => return Err(Self::no_route(error, &attempts, outgoing)),
            };
            let Some(queue) = self.choose(&route, target, &attempts) else {
                return Err(Self::no_route(Error::NoRoute { topic: topic.clone() }, &attempts, outgoing));
            };
            if tracing::enabled!(tracing::Level::DEBUG) {
                tracing::Span::current().record("broker", &*queue.broker_name);
            }
            attempts.made += 1;
            let error = match self.attempt(outgoing, &route, &queue, deadline).await {
                Ok(mut receipt) => {
                    self.confirmed(&queue.broker_name, 1);
                    receipt.attempts = attempts.made;
                    receipt.may_be_duplicated = attempts.unknown;
                    return Ok(receipt);
                }
                Err(error) => error,
            };
            tracing::debug!(%topic, broker = %queue.broker_name, %error, "attempt to send failed");
            self.note_failure(&queue, &error);
            attempts.unknown |= error.may_have_acted();
            if deadline.is_over() || !self.may_try_again(&error, target, kind, &mut attempts) {
                return Err(Self::failure(error, &attempts, outgoing));
            }
            // A broker that the route does not know is no address that the pool would pace.
            if error.comes_at_once() || route.master(&queue.broker_name).is_none() {
                let backoff = attempts.backoff(self.config.retry_backoff);
                let next = Instant::now() + Duration::from_millis(backoff.next_delay_ms());
                if next >= deadline.at() {
                    // This failure is certain; an attempt at the last instant would only blur it.
                    return Err(Self::failure(error, &attempts, outgoing));
                }
                tokio::time::sleep_until(next).await;
            }
            if let Some(metrics) = &self.client.shared().metrics {
                metrics.retried(topic, &error);
            }
            attempts.failed_at(queue.broker_name);
        }
    }

    /// Hands a message to a connection without waiting for the broker. Goes on to another broker as long as there is one
    /// that was not tried.
    pub(crate) async fn send_oneway(&self, message: &Message, target: Target<'_>) -> Result<(), SendError> {
        let deadline = Deadline::after_ms(self.config.send_timeout_ms);
        let _room = self.bounds.reserve(1, message.body().len(), deadline).await?;
        let outgoing = self.prepare(message, Kind::Plain, self.next_unique_key()).await?;
        let route = self.client.shared().publish_route(message.topic(), deadline).await?;
        let mut attempts = Attempts::default();
        loop {
            let Some(queue) = self.choose(&route, target, &attempts) else {
                return Err(Error::NoRoute { topic: message.topic().clone() }.into());
            };
            attempts.made += 1;
            let Err(last) = self.hand_over(&outgoing, &route, &queue, deadline).await else { return Ok(()) };
            self.note_failure(&queue, &last);
            attempts.failed_at(queue.broker_name);
            let is_tried = |queue: &MessageQueue| attempts.tried.contains(&queue.broker_name);
            let has_other = matches!(target, Target::Any) && !route.publish_queues().iter().all(is_tried);
            if !has_other || !last.is_retriable() || deadline.is_over() {
                return Err(SendError::NotSent { attempts: attempts.made, last });
            }
        }
    }

    async fn hand_over(
        &self,
        outgoing: &Outgoing,
        route: &TopicRoute,
        queue: &MessageQueue,
        deadline: Deadline,
    ) -> Result<(), RequestError> {
        let address = master_address(route, queue)?;
        let ext = self.header(outgoing, queue).encode();
        let command = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, ext, outgoing.body.clone());
        let connection = self.client.shared().connection(&address, Patience::Wait, deadline).await?;
        connection.send(&command.oneway(), deadline).await
    }

    /// The queues that messages of `topic` can go to now.
    pub(crate) async fn queues(&self, topic: &TopicName) -> Result<Vec<MessageQueue>, Error> {
        let deadline = Deadline::after_ms(self.config.send_timeout_ms);
        Ok(self.client.shared().publish_route(topic, deadline).await?.publish_queues().to_vec())
    }

    pub(super) async fn prepare(
        &self,
        message: &Message,
        kind: Kind,
        unique_key: Arc<str>,
    ) -> Result<Outgoing, SendError> {
        let half_of = (kind == Kind::Half).then_some(self.group.as_str());
        let encoded = message.encode(&unique_key, half_of)?;
        let mut sys_flag = match kind {
            Kind::Plain => SysFlag::NONE,
            Kind::Half => SysFlag::NONE.with_transaction(TransactionBits::Prepared),
        };
        let mut body = message.body().clone();
        if self.config.compressed_from_bytes().is_some_and(|from| body.len() >= from)
            && let Some((small, how)) = self.compressed(&body).await
        {
            body = small;
            sys_flag = sys_flag.with(how);
        }
        let only_mezzo =
            (kind == Kind::Half && message.is_delayed()).then_some("a transactional message with a delay");
        Ok(Outgoing { encoded, unique_key, body, sys_flag, batch: false, only_mezzo })
    }

    async fn compressed(&self, body: &Bytes) -> Option<(Bytes, SysFlag)> {
        let (how, level) = (self.config.compression, self.config.compression_level);
        if body.len() < COMPRESS_ELSEWHERE_BYTES {
            return compress(body, how, level);
        }
        let body = body.clone();
        // A runtime that shuts down drops the task; the body is sent as it is then.
        tokio::task::spawn_blocking(move || compress(&body, how, level)).await.ok().flatten()
    }

    fn choose(&self, route: &TopicRoute, target: Target<'_>, attempts: &Attempts) -> Option<MessageQueue> {
        let queues = route.publish_queues();
        match target {
            Target::Any => {
                let now = self.client.shared().now();
                self.choice().selector.next(queues, &attempts.tried, now).cloned()
            }
            Target::ShardingKey(key) => by_sharding_key(queues, key).cloned(),
            Target::Queue(queue) => Some(queue.clone()),
        }
    }

    async fn attempt(
        &self,
        outgoing: &Outgoing,
        route: &TopicRoute,
        queue: &MessageQueue,
        deadline: Deadline,
    ) -> Result<SendReceipt, RequestError> {
        let deadline = deadline.but_at_most_ms(self.config.attempt_timeout_ms);
        let address = master_address(route, queue)?;
        let connection = self.client.shared().connection(&address, Patience::Wait, deadline).await?;
        if let Some(what) = outgoing.only_mezzo {
            connection.require_mezzo(what)?;
        }
        // A run of one: its answer is read once, where it arrives, and nobody encodes under the connection's lock.
        let sent = vec![(Arc::clone(&outgoing.unique_key), queue.clone())];
        let receipts = Arc::new(Receipts::new(address, sent));
        let sink: Arc<dyn AnswerSink> = Arc::<Receipts>::clone(&receipts);
        let write = |opaques: &[i32], encoding: HeaderEncoding, out: &mut BytesMut| {
            out.reserve(outgoing.bytes() + FRAME_BYTES_GUESS);
            opaques.iter().try_for_each(|opaque| self.write(outgoing, queue, *opaque, encoding, out))
        };
        let waiter = connection.request_run(outgoing.code(), 1, &sink, write, deadline).await?;
        let answer = receipts.collect(&connection, waiter, deadline).await.pop();
        answer.unwrap_or_else(|| Err(connection.lost()))
    }

    /// Appends the frame that sends `outgoing` to `queue`.
    pub(super) fn write(
        &self,
        outgoing: &Outgoing,
        queue: &MessageQueue,
        opaque: i32,
        encoding: HeaderEncoding,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let header = self.header(outgoing, queue);
        let request = SendRequest { opaque, oneway: false, header: &header, body: &outgoing.body };
        encode_send_request(out, encoding, &request)
    }

    fn header<'a>(&'a self, outgoing: &'a Outgoing, queue: &'a MessageQueue) -> SendMessageHeader<'a> {
        let shared = self.client.shared();
        let (group, topic) = (self.group.as_str().into(), queue.topic.as_str().into());
        let mut header = SendMessageHeader::new(group, topic, queue.queue_id.as_wire());
        header.default_topic_queues = i32::try_from(shared.config.new_topic_queues).unwrap_or(i32::MAX);
        header.sys_flag = outgoing.sys_flag;
        header.born_timestamp = shared.now();
        header.flag = outgoing.encoded.flag;
        header.properties = outgoing.encoded.properties.as_str().into();
        header.broker_name = Some((&*queue.broker_name).into());
        header.batch = outgoing.batch;
        header
    }

    /// `broker` confirmed so many messages.
    pub(super) fn confirmed(&self, broker: &str, count: usize) {
        if count == 0 {
            return;
        }
        let mut choice = self.choice();
        (0..count).for_each(|_| choice.budget.deposit());
        choice.selector.faults_mut().answered(broker);
    }

    pub(super) fn note_failure(&self, queue: &MessageQueue, error: &RequestError) {
        let shared = self.client.shared();
        let is_bad = match error {
            // Most refusals are about the message; these say that the broker is going.
            RequestError::Refused { code, .. } => {
                [ResponseCode::SERVICE_NOT_AVAILABLE, ResponseCode::GO_AWAY].contains(code)
            }
            RequestError::Encode(_) | RequestError::TooLate { .. } => false,
            _ => true,
        };
        if is_bad {
            let until = shared.now().saturating_add_ms(self.config.spare_broker_ms);
            self.choice().selector.faults_mut().failed(&queue.broker_name, until);
        }
        let route_is_wrong =
            [ResponseCode::TOPIC_NOT_EXIST, ResponseCode::NO_PERMISSION, ResponseCode::GO_AWAY];
        if matches!(error, RequestError::Unreachable { .. })
            || error.refusal().is_some_and(|code| route_is_wrong.contains(&code))
        {
            shared.suspect_route(&queue.topic);
        }
    }

    /// Whether a further attempt is allowed: it must give hope, and it must not risk what the message's kind forbids.
    fn may_try_again(
        &self,
        error: &RequestError,
        target: Target<'_>,
        kind: Kind,
        attempts: &mut Attempts,
    ) -> bool {
        if !self.allows_retry(error, matches!(target, Target::Any), kind, attempts) {
            return false;
        }
        if error.is_certainly_unsent() && !attempts.unknown {
            return true;
        }
        attempts.retries += 1;
        self.withdraw()
    }

    /// Takes a retry out of the budget, if there is one left.
    pub(super) fn withdraw(&self) -> bool {
        let allowed = self.choice().budget.withdraw();
        if !allowed {
            tracing::debug!(group = %self.group, "no retry: the retry budget is used up; ten sends that go well buy one");
        }
        allowed
    }

    /// As [`Sender::may_try_again`], without a look at the budget. `in_turn` holds for messages that may go to any queue;
    /// others have an order, which a second copy would break.
    pub(super) fn allows_retry(
        &self,
        error: &RequestError,
        in_turn: bool,
        kind: Kind,
        attempts: &Attempts,
    ) -> bool {
        if !error.is_retriable() {
            return false;
        }
        if error.is_certainly_unsent() && !attempts.unknown {
            // Only time limits this; the pool's back-off paces it.
            return true;
        }
        let may_repeat = !attempts.unknown || (in_turn && kind == Kind::Plain && self.config.retry_unknown);
        may_repeat && attempts.retries < self.config.retries
    }

    pub(super) fn failure(last: RequestError, attempts: &Attempts, outgoing: &Outgoing) -> SendError {
        if attempts.unknown {
            let unique_key = Arc::clone(&outgoing.unique_key);
            return SendError::Unknown { unique_key, attempts: attempts.made, last };
        }
        SendError::NotSent { attempts: attempts.made, last }
    }

    /// The route was lost between attempts, or never there.
    pub(super) fn no_route(error: Error, attempts: &Attempts, outgoing: &Outgoing) -> SendError {
        match error {
            Error::NameServers { last } | Error::Request(last) if attempts.unknown => {
                Self::failure(last, attempts, outgoing)
            }
            other if attempts.unknown => {
                let last = RequestError::Unreachable { address: "".into(), reason: other.to_string() };
                Self::failure(last, attempts, outgoing)
            }
            other => other.into(),
        }
    }

    pub(super) fn choice(&self) -> MutexGuard<'_, Choice> {
        // No code panics while it holds the lock, and each change is complete in itself.
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn master_address(route: &TopicRoute, queue: &MessageQueue) -> Result<Arc<str>, RequestError> {
    route.master(&queue.broker_name).cloned().ok_or_else(|| RequestError::Unreachable {
        address: Arc::clone(&queue.broker_name),
        reason: "the route has no master for this broker".to_owned(),
    })
}
