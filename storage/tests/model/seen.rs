//! What scripts came to, counted: a test that never saw a transaction of many rolled back has proved nothing about it.

use std::collections::BTreeMap;

use mezzo_storage::{OperationResult, Refusal, Source};

/// How often something happened, so that a test can say what it has covered.
pub type Seen = BTreeMap<&'static str, u64>;

/// For the count of what was covered.
pub fn kind_of(result: &OperationResult) -> &'static str {
    match result {
        OperationResult::Stored { .. } => "stored",
        OperationResult::Prepared { .. } => "prepared",
        OperationResult::Scheduled { .. } => "scheduled",
        OperationResult::Decided(decision) => match (decision.source, decision.count) {
            (Source::Fenced, _) => "rolled back for a lost lease",
            (_, 0) => "decided without messages",
            (_, 1) => "decided",
            _ => "decided with many messages",
        },
        OperationResult::AlreadyDecided(_) => "already decided",
        OperationResult::Conflict(_) => "conflict",
        OperationResult::Ticked { messages: 0 } => "tick for nothing",
        OperationResult::Ticked { .. } => "tick",
        OperationResult::NothingToDecide => "nothing to decide",
        OperationResult::Leased { .. } => "leased",
        OperationResult::Done => "done",
        OperationResult::Repeats { .. } => "a send that repeats another",
        OperationResult::Refused(refusal) => match refusal {
            Refusal::WrongGroup => "wrong group",
            Refusal::WrongTableOffset => "wrong table offset",
            Refusal::WrongKey => "wrong key",
            Refusal::Unknown => "unknown",
            Refusal::Expired => "expired",
            Refusal::UnknownOrExpired => "unknown or expired",
            Refusal::Incomplete { .. } => "incomplete",
            Refusal::Decided { .. } => "too late",
            Refusal::NotOpen => "not open",
            Refusal::OutOfSequence { .. } => "out of sequence",
            Refusal::SequenceReused => "sequence reused",
            Refusal::TransactionFull => "transaction full",
            Refusal::TooManyOpen => "too many open",
            Refusal::TopicHasOpenMessages => "topic has open messages",
            Refusal::NotFound => "not found",
            Refusal::LeaseHeld { .. } => "lease held",
            Refusal::LeaseLost => "lease lost",
            _ => "another refusal",
        },
    }
}
