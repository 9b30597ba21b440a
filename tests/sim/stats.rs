//! What happened in a run, or in many: for people who want to know what a green run has seen.

use std::collections::BTreeMap;

use mezzo_storage::file_system::CrashMode;

use crate::plan::Fault;

/// What a run of many seeds must have seen of the broker's features.
const MUST_BE_SEEN: [&str; 16] = [
    "segment deleted",
    "segment deleted before its time",
    "open message carried",
    "death in a step of retention",
    "visible message deleted",
    "group moved past what was deleted",
    "message refused at the disk budget",
    "message sent again",
    "repeat answered as the first send",
    "transaction in doubt shown",
    "transaction decided by an operator",
    "operator too early",
    "operator too late",
    "transaction asked about anew",
    "policy set",
    "transaction decided by a policy",
];

/// Counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs.
    pub seeds: u64,
    /// Events of all traces.
    pub events: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// Messages sent, each once.
    pub sent: u64,
    /// Of those: stored, said the broker.
    pub acknowledged: u64,
    /// Of those: not stored, said the broker.
    pub refused: u64,
    /// Of those: no answer, or one that leaves it open.
    pub unanswered: u64,
    /// Messages that consumers were given, again and again.
    pub deliveries: u64,
    /// Transactions begun.
    pub transactions: u64,
    /// Of those: a decision was told.
    pub decisions: u64,
    /// ENDs sent.
    pub ends: u64,
    /// Of those: the same again.
    pub ends_repeated: u64,
    /// Check-backs that producers got.
    pub asked: u64,
    /// Messages sent back.
    pub sent_back: u64,
    /// Messages made of other ones.
    pub transformed: u64,
    /// Faults that were ordered, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// What else has happened.
    pub saw: BTreeMap<&'static str, u64>,
    /// How brokers ended: of itself or by order, and what the disk lost.
    pub ends_of_broker: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// A broker has ended.
    pub fn ended(&mut self, mode: CrashMode, what: &str) {
        let how = match (what.split(' ').next(), mode) {
            (Some("stopped"), _) => "stopped in order",
            (Some("fenced"), _) => "fenced",
            (_, CrashMode::KeepAll) => "killed",
            (_, CrashMode::LoseUnsynced) => "power cut, all unsynced lost",
            (_, CrashMode::Seeded(_)) => "power cut, some unsynced kept or torn",
            (_, CrashMode::SeededWithFlips(_)) => "power cut, unsynced torn and flipped",
        };
        *self.ends_of_broker.entry(how).or_default() += 1;
    }

    /// Something that runs are for has happened so often.
    pub fn saw(&mut self, what: &'static str, count: u64) {
        debug_assert!(MUST_BE_SEEN.contains(&what), "{what} is not in the list");
        if count > 0 {
            *self.saw.entry(what).or_default() += count;
        }
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        let Self {
            seeds,
            events,
            virtual_ms,
            sent,
            acknowledged,
            refused,
            unanswered,
            deliveries,
            transactions,
            decisions,
            ends,
            ends_repeated,
            asked,
            sent_back,
            transformed,
            faults,
            saw,
            ends_of_broker,
        } = other;
        for (mine, theirs) in [
            (&mut self.seeds, seeds),
            (&mut self.events, events),
            (&mut self.virtual_ms, virtual_ms),
            (&mut self.sent, sent),
            (&mut self.acknowledged, acknowledged),
            (&mut self.refused, refused),
            (&mut self.unanswered, unanswered),
            (&mut self.deliveries, deliveries),
            (&mut self.transactions, transactions),
            (&mut self.decisions, decisions),
            (&mut self.ends, ends),
            (&mut self.ends_repeated, ends_repeated),
            (&mut self.asked, asked),
            (&mut self.sent_back, sent_back),
            (&mut self.transformed, transformed),
        ] {
            *mine += theirs;
        }
        for (fault, count) in faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (what, count) in saw {
            self.saw(what, *count);
        }
        for (how, count) in ends_of_broker {
            *self.ends_of_broker.entry(how).or_default() += count;
        }
    }

    /// For people.
    pub fn print(&self) {
        println!(
            "sim: {} seeds, {} events, {} s of virtual time",
            self.seeds,
            self.events,
            self.virtual_ms / 1_000
        );
        println!(
            "sim: {} messages ({} acknowledged, {} refused, {} without an answer), {} deliveries, {} sent back",
            self.sent, self.acknowledged, self.refused, self.unanswered, self.deliveries, self.sent_back
        );
        println!(
            "sim: {} transactions, {} decisions told, {} ENDs ({} repeated), {} check-backs, {} messages made of \
             others",
            self.transactions, self.decisions, self.ends, self.ends_repeated, self.asked, self.transformed
        );
        println!("sim: faults ordered: {:?}", self.faults);
        println!("sim: seen: {:?}", self.saw);
        println!("sim: brokers ended: {:?}", self.ends_of_broker);
    }

    /// What a run of many seeds must have seen; what is missing is told.
    pub fn missing(&self) -> Vec<String> {
        let mut missing: Vec<String> = Fault::ALL
            .iter()
            .filter(|fault| !self.faults.contains_key(fault))
            .map(|fault| format!("no fault of kind {fault:?}"))
            .collect();
        for (count, what) in [
            (self.acknowledged, "acknowledged message"),
            (self.unanswered, "send without an answer"),
            (self.deliveries, "delivery"),
            (self.decisions, "decision"),
            (self.ends_repeated, "repeated END"),
            (self.asked, "check-back"),
            (self.sent_back, "message sent back"),
            (self.transformed, "message made of another one"),
        ] {
            if count == 0 {
                missing.push(format!("no {what}"));
            }
        }
        missing.extend(
            MUST_BE_SEEN.iter().filter(|what| !self.saw.contains_key(*what)).map(|what| format!("no {what}")),
        );
        missing
    }
}
