//! Load for the crash tests: each connection prepares a few transactions and sends a few ordinary messages in one write,
//! then ends the transactions in one write, and notes in the oracle what it sends *before* it sends it and what it was told *when* it was told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mezzo_protocol::remoting::RemotingCommand;

use crate::chance::Chance;
use crate::oracle::{Fate, Oracle};
use crate::producer::{Half, Producer, SUCCESS, Verdict};

/// Requests that one connection has under way at a time.
const BURST: u64 = 8;
/// One of so many is an ordinary message, the others are transactions.
const PLAIN_EVERY: u64 = 4;
/// The broker has no room just now.
const SYSTEM_BUSY: i32 = 2;
/// The broker's disk has failed it: it ends.
const SERVICE_NOT_AVAILABLE: i32 = 14;
/// What is answered by whoever met the failure itself; it may or may not have been stored.
const SYSTEM_ERROR: i32 = 1;
/// How long a broker that has not been crashed may take for an answer.
const ANSWER: Duration = Duration::from_secs(60);

/// An oracle that several connections write.
pub type SharedOracle = Arc<Mutex<Oracle>>;

/// What all connections of a load have in common.
#[derive(Debug, Clone)]
pub struct Load {
    /// The broker.
    pub broker: SocketAddr,
    /// The topic that all messages go to.
    pub topic: &'static str,
    /// Its queues.
    pub queues: u32,
    /// The producer group.
    pub group: &'static str,
    /// Where all that is sent and heard is noted.
    pub oracle: SharedOracle,
}

impl Load {
    /// Starts `connections` producers that work until their broker is gone.
    pub fn start(&self, connections: u64, chance: &mut Chance) -> Vec<JoinHandle<()>> {
        let seeds: Vec<u64> = (0..connections).map(|_| chance.below(u64::MAX >> 16)).collect();
        let worker = |seed: u64| {
            let load = self.clone();
            thread::spawn(move || {
                let mut chance = Chance::new(seed);
                let Some(mut producer) = Producer::try_connect(load.broker, load.group) else { return };
                while load.burst(&mut producer, &mut chance).is_some() {}
            })
        };
        seeds.into_iter().map(worker).collect()
    }

    fn note(&self, key: &str, fate: Fate) {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner).note(key, fate);
    }

    /// A few transactions; `None` when the broker is gone.
    fn burst(&self, producer: &mut Producer, chance: &mut Chance) -> Option<()> {
        let mut requests = Vec::new();
        for _ in 0..=chance.below(BURST) {
            let body = vec![b'x'; chance.below(2000) as usize];
            let queue = chance.below(u64::from(self.queues)) as u32;
            let is_plain = chance.below(PLAIN_EVERY) == 0;
            let (request, key) = if is_plain {
                producer.message_request(self.topic, queue, &body)
            } else {
                producer.half_request(self.topic, queue, &body, &[])
            };
            self.note(&key, if is_plain { Fate::Plain } else { Fate::Sent });
            requests.push((request, key, is_plain));
        }
        producer.wire.try_send_all(requests.iter().map(|(request, ..)| request))?;
        let mut halves = Vec::new();
        for (request, key, is_plain) in requests {
            let answer = producer.wire.try_answer(request.opaque, ANSWER)?;
            if answer.code == SYSTEM_BUSY {
                // said before anything was appended: as if it had never been sent
                self.note(&key, Fate::Sent);
                continue;
            }
            if disk_failed(&answer) {
                return None;
            }
            if is_plain {
                assert_eq!(answer.code, SUCCESS, "a message is accepted: {:?}", answer.remark);
                self.note(&key, Fate::Stored);
                continue;
            }
            let half = producer.prepared(self.topic, key, &answer);
            self.note(&half.key, Fate::Prepared(half.clone()));
            halves.push(half);
        }
        let mut ends = Vec::new();
        for half in halves {
            let verdict = match chance.below(100) {
                0..60 => Verdict::Commit,
                60..85 => Verdict::RollBack,
                // left open: decided after a crash, or never
                _ => continue,
            };
            self.note(&half.key, Fate::Ending(half.clone(), verdict));
            ends.push((producer.end_request(&half, verdict, false), half, verdict));
        }
        producer.wire.try_send_all(ends.iter().map(|(request, ..)| request))?;
        for (request, half, verdict) in ends {
            let answer = producer.wire.try_answer(request.opaque, ANSWER)?;
            if disk_failed(&answer) {
                return None;
            }
            assert_eq!(
                answer.code, SUCCESS,
                "an END of an open transaction is carried out: {:?}",
                answer.remark
            );
            self.note(&half.key.clone(), Fate::Decided(half, verdict));
        }
        Some(())
    }
}

fn disk_failed(answer: &RemotingCommand) -> bool {
    let by_the_system = |remark: &String| remark.contains("os error");
    answer.code == SERVICE_NOT_AVAILABLE
        || answer.code == SYSTEM_ERROR && answer.remark.as_ref().is_some_and(by_the_system)
}

/// Tells the broker again what it may have missed, and something else about what it has decided; returns what is wrong.
pub fn insist(
    oracle: &mut Oracle,
    producer: &mut Producer,
    chance: &mut Chance,
    contradict_max: usize,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (half, verdict) in oracle.ending() {
        let answer = producer.end(&half, verdict);
        if answer.code == SUCCESS {
            oracle.note(&half.key.clone(), Fate::Decided(half, verdict));
        } else {
            wrong.push(format!(
                "{}: the END of before the crash, repeated, is refused: {:?}",
                half.key, answer.remark
            ));
        }
    }
    for (half, verdict) in oracle.some_decided(chance, contradict_max) {
        wrong.extend(contradict(producer, &half, verdict));
    }
    wrong
}

fn contradict(producer: &mut Producer, half: &Half, verdict: Verdict) -> Vec<String> {
    let opposite = if verdict == Verdict::Commit { Verdict::RollBack } else { Verdict::Commit };
    let mut wrong = Vec::new();
    if producer.end(half, opposite).code == SUCCESS {
        wrong.push(format!("{}: {opposite:?} was accepted after {verdict:?}", half.key));
    }
    let repeated = producer.end(half, verdict);
    if repeated.code != SUCCESS {
        wrong.push(format!("{}: {verdict:?}, repeated, is refused: {:?}", half.key, repeated.remark));
    }
    wrong
}
