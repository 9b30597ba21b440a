//! Those who send: each at its own pace, on a connection that it loses now and then in the middle of everything, as a
//! process that is killed does.

use std::iter;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mezzo_tests::chance::Chance;
use mezzo_tests::producer::{Half, Producer, SUCCESS, SYSTEM_BUSY, Verdict};

use super::books::{Books, Known};

pub(crate) const TOPIC: &str = "endurance";
pub(crate) const QUEUES: u32 = 4;
const GROUP: &str = "PG_endurance";
const BODY_BYTES: u64 = 6_000;
/// One of so many requests is the last of its client.
const KILLED_EVERY: u64 = 400;
/// One of so many transactions is forgotten by its producer after its local transaction has committed.
const FORGOTTEN_EVERY: u64 = 20;
/// How long a client waits for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Who is later than this does not catch up: the rate is a rate, not a sum.
const BEHIND_MAX: Duration = Duration::from_millis(500);
/// How long one look for questions lasts.
const LISTEN: Duration = Duration::from_millis(100);

/// What all clients of a run have in common.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) broker: SocketAddr,
    pub(crate) books: Books,
    /// No more messages.
    pub(crate) resting: AtomicBool,
    /// No more of anything.
    pub(crate) over: AtomicBool,
}

impl World {
    pub(crate) fn is_resting(&self) -> bool {
        self.resting.load(Ordering::Acquire)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// One step after another at a fixed rate.
struct Pace {
    next: Instant,
    step: Duration,
}

impl Pace {
    fn of(per_second: u32) -> Self {
        Self { next: Instant::now(), step: Duration::from_secs(1) / per_second.max(1) }
    }

    fn wait(&mut self) {
        let now = Instant::now();
        self.next = (self.next + self.step).max(now.checked_sub(BEHIND_MAX).unwrap_or(now));
        thread::sleep(self.next.saturating_duration_since(now));
    }
}

/// Sends until it is time to rest.
pub(crate) fn produce(world: &World, mut chance: Chance, per_second: u32, transactions: bool) {
    let mut pace = Pace::of(per_second);
    let mut connected = None;
    while !world.is_resting() {
        pace.wait();
        let taken = connected.take().or_else(|| Producer::try_connect(world.broker, GROUP));
        let Some(producer) = taken else { continue };
        connected = if transactions {
            transact(world, &mut chance, producer)
        } else {
            send(world, &mut chance, producer)
        };
    }
}

fn body(chance: &mut Chance) -> Vec<u8> {
    vec![b'x'; usize::try_from(chance.below(BODY_BYTES)).unwrap()]
}

fn queue(chance: &mut Chance) -> u32 {
    u32::try_from(chance.below(u64::from(QUEUES))).unwrap()
}

/// One ordinary message. The connection, unless its client has died.
fn send(world: &World, chance: &mut Chance, mut producer: Producer) -> Option<Producer> {
    let (request, key) = producer.message_request(TOPIC, queue(chance), &body(chance));
    world.books.note(&key, Known::Sent);
    producer.wire.try_send_all(iter::once(&request))?;
    if chance.below(KILLED_EVERY) == 0 {
        return None;
    }
    let answer = producer.wire.try_answer(request.opaque, ANSWER)?;
    match answer.code {
        SUCCESS => world.books.note(&key, Known::Once),
        SYSTEM_BUSY => world.books.note(&key, Known::Never),
        code => world.books.complain(format!("a send is answered {code}: {:?}", answer.remark)),
    }
    Some(producer)
}

/// One transaction. The connection, unless its client has died.
fn transact(world: &World, chance: &mut Chance, mut producer: Producer) -> Option<Producer> {
    let (request, key) = producer.half_request(TOPIC, queue(chance), &body(chance), &[]);
    world.books.note(&key, Known::Undecided);
    let sent = producer.wire.try_send_all(iter::once(&request));
    let answered = sent.filter(|()| chance.below(KILLED_EVERY) > 0);
    let Some(answer) = answered.and_then(|()| producer.wire.try_answer(request.opaque, ANSWER)) else {
        // the local transaction will not run
        world.books.note(&key, Known::Never);
        return None;
    };
    if answer.code == SYSTEM_BUSY {
        world.books.note(&key, Known::Never);
        return Some(producer);
    }
    let half = producer.prepared(TOPIC, key, &answer);
    let (verdict, known) =
        if chance.below(4) > 0 { (Verdict::Commit, Known::Once) } else { (Verdict::RollBack, Known::Never) };
    // from here on the application has decided, whatever becomes of its word
    world.books.note(&half.key, known);
    if chance.below(FORGOTTEN_EVERY) == 0 {
        return Some(producer);
    }
    let end = producer.end_request(&half, verdict, false);
    producer.wire.try_send_all(iter::once(&end))?;
    if chance.below(KILLED_EVERY) == 0 {
        return None;
    }
    let answer = producer.wire.try_answer(end.opaque, ANSWER)?;
    if answer.code != SUCCESS {
        world.books.complain(format!(
            "{verdict:?} of {} is answered {}: {:?}",
            half.key, answer.code, answer.remark
        ));
    }
    Some(producer)
}

/// The member of the producers' group that is asked about what others forgot; until all is over.
pub(crate) fn answer(world: &World, mut chance: Chance) {
    let mut connected: Option<Producer> = None;
    while !world.is_over() {
        let mut producer = connected.take().unwrap_or_else(|| Producer::connect(world.broker, GROUP));
        let asked: Option<Half> = producer.asked(LISTEN);
        if let Some(half) = asked {
            let Some(verdict) = world.books.verdict(&half.key) else {
                world.books.complain(format!("asked about {}, which nobody sent", half.key));
                continue;
            };
            let end = producer.end_request(&half, verdict, true).oneway();
            if producer.wire.try_send_all(iter::once(&end)).is_none() {
                continue;
            }
        }
        // it dies now and then, too
        connected = (chance.below(KILLED_EVERY) > 0).then_some(producer);
    }
}
