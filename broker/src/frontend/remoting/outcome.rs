//! What a client's program reads in an answer about a transaction: the field `mezzoOutcome`, and what belongs to it. One
//! place, so that a word means the same in every answer.

use std::borrow::Cow;

use mezzo_protocol::remoting::command::ExtPairs;
use mezzo_storage::{Decision, Outcome, Refusal, Source};

/// Says in the answer what became of the transaction.
pub(crate) const OUTCOME: &str = "mezzoOutcome";

fn field(name: &'static str, value: impl ToString) -> (Cow<'static, str>, String) {
    (Cow::Borrowed(name), value.to_string())
}

const fn name_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Committed => "COMMITTED",
        Outcome::RolledBack => "ROLLED_BACK",
    }
}

/// One word alone.
pub(crate) fn says(outcome: &'static str) -> ExtPairs {
    vec![field(OUTCOME, outcome)]
}

/// What stands. A rollback that nobody asked for, because another client has the leases, is `FENCED`.
pub(crate) fn of_decision(decision: &Decision) -> ExtPairs {
    let outcome = match decision.source {
        Source::Fenced => "FENCED",
        _ => name_of(decision.outcome),
    };
    let mut ext = vec![
        field(OUTCOME, outcome),
        field("mezzoOrigin", decision.origin.0),
        field("mezzoTxCount", decision.count),
    ];
    if let Some(offset) = decision.queue_offset {
        ext.push(field("queueOffset", offset.as_wire()));
    }
    if !decision.queue_offsets.is_empty() {
        // a delayed message has none yet
        let offsets = decision.queue_offsets.iter();
        let offsets = offsets.map(|o| o.map_or_else(|| "-".to_owned(), |o| o.as_wire().to_string()));
        ext.push(field("mezzoQueueOffsets", offsets.collect::<Vec<_>>().join(",")));
    }
    ext
}

/// Why not, where a program can do something about it.
pub(crate) fn of_refusal(refusal: Refusal) -> ExtPairs {
    match refusal {
        Refusal::Unknown => says("UNKNOWN"),
        Refusal::Expired => says("EXPIRED"),
        Refusal::UnknownOrExpired => says("UNKNOWN_OR_EXPIRED"),
        Refusal::Ambiguous => says("AMBIGUOUS"),
        Refusal::HistoryUnreadable
        | Refusal::TooManyOpen
        | Refusal::TooManyOpenBytes
        | Refusal::NoRoom
        | Refusal::AtMaxBytes => says("RETRY"),
        Refusal::Incomplete { expected, .. } => {
            vec![field(OUTCOME, "INCOMPLETE"), field("mezzoTxCount", expected)]
        }
        Refusal::Decided { origin, outcome } => vec![
            field(OUTCOME, "DECIDED"),
            field("mezzoDecision", name_of(outcome)),
            field("mezzoOrigin", origin.0),
        ],
        Refusal::NotOpen => says("NOT_OPEN"),
        Refusal::OutOfSequence { expected } => {
            vec![field(OUTCOME, "OUT_OF_SEQUENCE"), field("mezzoExpected", expected)]
        }
        Refusal::SequenceReused => says("SEQUENCE_REUSED"),
        Refusal::TransactionFull => says("FULL"),
        Refusal::LeaseHeld { until } => {
            vec![field(OUTCOME, "HELD"), field("mezzoUntilMs", until.as_wire_ms())]
        }
        Refusal::LeaseLost => says("LOST"),
        _ => Vec::new(),
    }
}
