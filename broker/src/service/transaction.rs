//! Check-backs, carried out: what the log says is due goes into the check-back machine, what the machine decides goes
//! to producers and into the log. The machine's state may be lost at a restart: what counts is in the log.
//!
//! ```text
//!   store: due checks, new producers, frames heard ──► CheckBack (core) ──► asks (39) to producers
//!   answers (37, also UNKNOWN) ──────────────────────►      │        └────► asks, parked records into the log
//!                                                           └─────────────► next deadlines into the store's wheel
//! ```

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use mezzo_protocol::{
    DecodeError,
    ids::{GroupName, PhysicalOffset, QueueOffset},
    message::{
        record::{self, MessageView},
        sys_flag::TransactionBits,
    },
    time::Timestamp,
};
use mezzo_storage::{
    AskAnswer, Batch, CountedAsk, DueCheck, EndTarget, EndTransaction, OpenState, Operation, OperationResult,
    Outcome, ParkReason, Source, StorageError,
};

use super::{
    Services,
    alarm::Alarm,
    client_channel::{ChannelId, ClientChannel, DecisionAsk, PushRefused},
    doubt::DoubtLines,
    seldom::Seldom,
    stop::Stop,
};
use crate::{
    config::Config,
    core::transaction::check_back::{Bounds, CheckBack, Due, Effect, Exhausted},
};

/// Transactions taken from the store's wheel at a time.
const DUE_BATCH: usize = 256;
/// Such batches in one look; what is still due then is taken at the next, at once.
const DUE_BATCHES_MAX: usize = 64;
/// Transactions that wait for a producer or for their turn; further ones come back one interval later.
const WAITING_MAX: usize = 65_536;

/// Who is asked when about undecided transactions.
pub(crate) struct TransactionService {
    state: Mutex<State>,
    alarm: Alarm,
    timeout_ms: u64,
    /// Makes keys unique that the broker makes up.
    numbers: AtomicU32,
    doubt: DoubtLines,
    /// The line about transactions that their policy has rolled back.
    rolled_back: Seldom,
}

struct State {
    machine: CheckBack<ChannelId>,
    /// The members that the machine knows.
    channels: BTreeMap<ChannelId, Arc<dyn ClientChannel>>,
    /// Addresses of those who answered or left since the effects were last carried out.
    addresses: HashMap<ChannelId, SocketAddr>,
}

/// One ask on its way to a producer.
struct Ask {
    origin: PhysicalOffset,
    connection: ChannelId,
    channel: Arc<dyn ClientChannel>,
}

/// What became of an ask.
enum Asking {
    /// Handed to the connection, as this number of what is written to it.
    Sent(u64),
    /// The connection did not take it.
    Unsent,
    /// The connection speaks for the group no longer.
    Left(GroupName),
    /// Decided meanwhile, or not to be asked about now.
    Gone,
}

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl TransactionService {
    /// Nobody to ask yet.
    pub(crate) fn new(config: &Config) -> Self {
        let bounds = Bounds {
            check_interval_ms: ms(config.transaction.check_interval),
            unanswered_per_connection: config.limits.unanswered_checks,
            asks_per_second: config.transaction.check_rate,
            waiting: WAITING_MAX,
        };
        // the rate's bucket fills by the time since this, at most to its brim
        let machine = CheckBack::new(bounds, Timestamp::from_ms(0));
        Self {
            state: Mutex::new(State { machine, channels: BTreeMap::new(), addresses: HashMap::new() }),
            alarm: Alarm::default(),
            timeout_ms: ms(config.transaction.timeout),
            numbers: AtomicU32::new(0),
            doubt: DoubtLines::default(),
            rolled_back: Seldom::new(),
        }
    }

    /// A half message is being appended; `immunity_ms` is its own wish for the time until the first ask.
    pub(crate) fn expect(&self, now: Timestamp, immunity_ms: Option<u64>) {
        self.alarm.set(now.saturating_add_ms(immunity_ms.unwrap_or(self.timeout_ms)));
    }

    /// An END came from `channel` that answers an ask: with an outcome, or UNKNOWN.
    pub(crate) fn answered(
        &self,
        now: Timestamp,
        origin: PhysicalOffset,
        channel: &dyn ClientChannel,
        unknown: bool,
    ) {
        let mut state = self.lock();
        if unknown {
            state.addresses.insert(channel.id(), channel.remote());
        }
        state.machine.handle_answered(now, origin, channel.id(), unknown);
        drop(state);
        // an answer makes room for the next ask
        self.alarm.ring();
    }

    /// Transactions that wait to be asked about, and those that were asked about and not answered for yet.
    pub(crate) fn pending(&self) -> (usize, usize) {
        self.lock().machine.sizes()
    }

    /// A number that the last four billion calls have not given.
    pub(crate) fn next_number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks producers until the stop signal.
pub(crate) async fn drive(services: Arc<Services>, mut stop: Stop) {
    loop {
        let looking = Arc::clone(&services);
        // half messages may have to be read from the disk
        let looked = services.on_disk_thread(move || look(&looking, looking.now())).await;
        let next = match looked {
            Ok(Ok(next)) => next,
            Ok(Err(StorageError::Fenced { .. })) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "check-backs could not be recorded; they are repeated");
                None
            }
            Err(error) => {
                tracing::error!(%error, "check-backs failed; going on");
                None
            }
        };
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = services.transactions.alarm.wait(&*services.clock, next) => {}
        }
    }
}

/// One look at everything that is due; says when to look again.
///
/// # Errors
/// Counts and parks could not be appended. Nobody was asked wrongly: a lost count is one ask more, a lost park comes
/// back when the transaction is due again.
pub(crate) fn look(services: &Services, now: Timestamp) -> Result<Option<Timestamp>, StorageError> {
    let service = &services.transactions;
    service.lock().refresh_members(services, now);
    let mut records = Records::default();
    let mut more = true;
    for _ in 0..DUE_BATCHES_MAX {
        let asks = {
            let mut state = service.lock();
            // what was answered is recorded before it is due again, or the log would know of one ask less
            let mut asks = state.carry_out(services, now, &mut records);
            records.append(services, now)?;
            let due = services.store.due_checks(now, DUE_BATCH);
            more = due.len() == DUE_BATCH;
            state.machine.handle_due(now, due.into_iter().map(describe));
            state.machine.handle_timeout(now);
            asks.append(&mut state.carry_out(services, now, &mut records));
            asks
        };
        service.ask_all(services, now, asks, &mut records);
        if !more {
            break;
        }
    }
    records.append(services, now)?;
    if more {
        return Ok(Some(now));
    }
    let waiting = service.lock().machine.next_timeout();
    Ok([waiting, services.store.next_check_at()].into_iter().flatten().min())
}

/// What is to be recorded in the log.
#[derive(Default)]
struct Records {
    batch: Batch,
    counted: Vec<CountedAsk>,
}

impl Records {
    /// Appends everything so far. Nobody waits for it to be durable: a lost count is one ask more.
    fn append(&mut self, services: &Services, now: Timestamp) -> Result<(), StorageError> {
        if !self.counted.is_empty() {
            self.batch.push(Operation::Asked(std::mem::take(&mut self.counted)));
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        let appended = services.store.append(now, &mut self.batch);
        if appended.is_ok() {
            self.report(services);
        }
        self.batch.clear();
        appended?;
        services.store.request_sync();
        Ok(())
    }
}

impl Records {
    /// Says for which transactions asking has ended.
    fn report(&self, services: &Services) {
        let mut rolled_back = Vec::new();
        for (operation, result) in self.batch.operations().iter().zip(self.batch.results()) {
            match (operation, result) {
                (Operation::Park { origin, reason }, OperationResult::Done) => {
                    services.transactions.doubt.parked(services, *origin, *reason);
                }
                (Operation::End(end), OperationResult::Decided(_)) => {
                    if let EndTarget::Origin(origin) = end.target {
                        rolled_back.push(origin.0);
                    }
                }
                _ => {}
            }
        }
        if let Some(first) = rolled_back.first() {
            let count = rolled_back.len();
            if let Some(kept_back) = services.transactions.rolled_back.may_say() {
                tracing::warn!(count, first, kept_back, "transactions were rolled back by their policy");
            }
        }
    }
}

fn describe(check: DueCheck) -> Due {
    let transaction = check.transaction;
    Due {
        origin: transaction.origin,
        group: transaction.producer_group,
        asks: transaction.asks,
        // the number of asks is the machine's to judge: it may know of one that the log does not
        too_old: check.exhausted == Some(ParkReason::MaxAge),
        policy: check.policy,
    }
}

impl State {
    /// Learns who has come, who has gone and who has been heard.
    fn refresh_members(&mut self, services: &Services, now: Timestamp) {
        let closed: Vec<ChannelId> =
            self.channels.iter().filter(|(_, channel)| !channel.is_open()).map(|(id, _)| *id).collect();
        for id in closed {
            if let Some(channel) = self.channels.remove(&id) {
                self.addresses.insert(id, channel.remote());
                self.machine.handle_closed(now, id, channel.heard_after());
            }
        }
        for id in self.machine.asked_connections() {
            if let Some(channel) = self.channels.get(&id) {
                self.machine.handle_heard(id, channel.heard_after());
            }
        }
        for group in services.clients.take_joined() {
            let mut new = false;
            for channel in services.clients.producers_of(&group) {
                let id = channel.id();
                new |= self.machine.handle_joined(now, &group, id);
                self.channels.insert(id, channel);
            }
            if new {
                let parked = services.store.in_doubt_of_group(&group, WAITING_MAX);
                self.machine.handle_in_doubt(now, &group, parked);
            }
        }
    }

    /// Carries out the machine's effects, except the asks, which need reading and no lock.
    fn carry_out(&mut self, services: &Services, now: Timestamp, records: &mut Records) -> Vec<Ask> {
        let mut asks = Vec::new();
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Ask { origin, connection } => match self.channels.get(&connection) {
                    Some(channel) => asks.push(Ask { origin, connection, channel: Arc::clone(channel) }),
                    None => self.machine.handle_closed(now, connection, 0),
                },
                Effect::Count { origin, connection, answered, asked_at } => {
                    services.metrics.asks_unanswered.add(u64::from(!answered));
                    let channel = self.channels.get(&connection).map(|channel| channel.remote());
                    records.counted.push(CountedAsk {
                        origin,
                        peer: channel.or_else(|| self.addresses.get(&connection).copied()),
                        answer: if answered { AskAnswer::Unknown } else { AskAnswer::Silence },
                        waited_ms: u32::try_from(now.saturating_since_ms(asked_at)).unwrap_or(u32::MAX),
                    });
                }
                Effect::Reschedule(origin, at) => services.store.reschedule(origin, now, at),
                Effect::Park(origin, reason) => {
                    let reason = match reason {
                        Exhausted::Asked => ParkReason::CheckMax,
                        Exhausted::TooOld => ParkReason::MaxAge,
                    };
                    records.batch.push(Operation::Park { origin, reason });
                }
                Effect::RollBack(origin, reason) => {
                    let mut end =
                        EndTransaction::new(EndTarget::Origin(origin), Outcome::RolledBack, Source::Policy);
                    let reason = match reason {
                        Exhausted::Asked => "asked as often as the policy allows, without a decision",
                        Exhausted::TooOld => "older than the policy allows, without a decision",
                    };
                    end.reason = Some(reason.to_owned());
                    records.batch.push(Operation::End(end));
                }
            }
        }
        self.addresses.clear();
        asks
    }
}

impl TransactionService {
    /// Sends asks, and those that take the place of asks that could not be sent.
    fn ask_all(&self, services: &Services, now: Timestamp, mut asks: Vec<Ask>, records: &mut Records) {
        while !asks.is_empty() {
            let mut speakers = HashMap::new();
            let asked: Vec<_> = asks
                .into_iter()
                .map(|ask| (ask.origin, ask.connection, ask.send(services, &mut speakers)))
                .collect();
            let mut state = self.lock();
            for (origin, connection, asking) in asked {
                match asking {
                    Asking::Sent(mark) => {
                        services.metrics.asks_sent.add(1);
                        state.machine.handle_sent(origin, mark);
                    }
                    Asking::Unsent => state.machine.handle_unsent(now, origin),
                    Asking::Left(group) => {
                        state.machine.handle_left(&group, connection);
                        state.machine.handle_unsent(now, origin);
                    }
                    Asking::Gone => state.machine.handle_gone(now, origin),
                }
            }
            asks = state.carry_out(services, now, records);
        }
    }
}

impl Ask {
    /// Asks, if the transaction is still undecided and the connection still speaks for its group. `speakers` remembers
    /// who does, for the other asks of the same look.
    fn send(&self, services: &Services, speakers: &mut HashMap<GroupName, HashSet<ChannelId>>) -> Asking {
        let store = &services.store;
        let Some(open) = store.transaction(self.origin) else { return Asking::Gone };
        let (group, prepared_at) = (open.producer_group.clone(), open.prepared_at);
        let of_group = speakers.entry(group.clone()).or_insert_with(|| {
            services.clients.producers_of(&group).iter().map(|channel| channel.id()).collect()
        });
        if !of_group.contains(&self.connection) {
            return Asking::Left(group);
        }
        match half_message(services, self.origin, prepared_at) {
            Ok(Some(ask)) => match self.channel.ask_decision(&ask) {
                Ok(mark) => {
                    if open.state == OpenState::InDoubt {
                        services.transactions.doubt.asked(services, &open, &*self.channel);
                    }
                    Asking::Sent(mark)
                }
                // no connection could take it: it must not stand in the way of those behind it
                Err(PushRefused::Unwritable) => Asking::Gone,
                Err(PushRefused::Closed | PushRefused::Full) => Asking::Unsent,
            },
            Ok(None) => Asking::Gone,
            Err(error) => {
                tracing::error!(origin = self.origin.0, %error, "a half message cannot be read: nobody is asked about it");
                Asking::Gone
            }
        }
    }
}

/// Why a half message cannot be shown to its producer.
#[derive(Debug, thiserror::Error)]
enum HalfError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Message(#[from] DecodeError),
}

/// What a producer is shown of its half message; `None` if it was decided meanwhile.
fn half_message(
    services: &Services,
    origin: PhysicalOffset,
    prepared_at: Timestamp,
) -> Result<Option<DecisionAsk>, HalfError> {
    let Some(stored) = services.store.half_message(origin)? else { return Ok(None) };
    let mut message = BytesMut::from(&stored.bytes[..]);
    let delivery = record::Delivery {
        // the half's place in the table of transactions, as its producer was told at the send
        queue_offset: QueueOffset(origin.0),
        physical_offset: stored.position,
        store_timestamp: prepared_at,
        store_host: services.advertised,
        prepared_transaction_offset: origin,
        transaction: TransactionBits::Prepared,
    };
    record::patch(&mut message, &delivery)?;
    let message: Bytes = message.freeze();
    let view = MessageView::parse(&message)?;
    Ok(Some(DecisionAsk {
        origin,
        unique_key: view.unique_key().unwrap_or_default().to_owned(),
        topic: view.topic().to_owned(),
        message: message.clone(),
    }))
}
