//! Telling the broker a decision, and what its answer means.
//!
//! A commit or rollback goes out as a request: Mezzo and Apache's broker both answer it. An UNKNOWN goes one way: Apache
//! never answers it, and there is nothing to learn. What is certain, and what is not:
//!
//! - The broker's SUCCESS confirms the decision.
//! - Nothing was sent (no connection, no room): try again until the time is over; the decision is safe to repeat.
//! - No answer (time over, connection lost): **unknown**. The request is repeated only to a broker that has shown that it
//!   records decisions once ([`OUTCOME_FIELD`] in an answer): Apache's broker delivers twice if it is told twice.
//! - SYSTEM_BUSY without a recorded decision: the broker did nothing, so the decision is said again until the time is over.
//! - SERVICE_NOT_AVAILABLE of a broker that records decisions once: stored or not, it is said again until the time is over.
//! - Any other refusal: if it names the recorded decision, that one stands, and if it is the opposite, it is a conflict. Else
//!   unknown: the remark says why.

use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::remoting::header::end_transaction::{EndTransactionHeader, Resolution};
use mezzo_protocol::remoting::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::Instant;

use super::outcome::LocalOutcome;
use super::send::Sender;
use crate::clock::random_seed;
use crate::core::backoff::{Backoff, BackoffPolicy};
use crate::core::open_transactions::Decision;
use crate::error::RequestError;
use crate::net::{Connection, Deadline, Patience, Reply};

/// The field in which a Mezzo broker names the recorded decision.
pub(crate) const OUTCOME_FIELD: &str = "mezzoOutcome";
/// What it says of a committed transaction.
pub(crate) const OUTCOME_COMMITTED: &str = "COMMITTED";
/// What it says of a transaction that was rolled back.
pub(super) const OUTCOME_ROLLED_BACK: &str = "ROLLED_BACK";
/// Waiting times before a decision is said again.
pub(super) const REPEAT_BACKOFF: BackoffPolicy = BackoffPolicy::new(5, 200);

/// What END_TRANSACTION says about its transaction.
#[derive(Debug, Clone)]
pub(super) struct EndFields {
    pub(super) topic: Option<String>,
    pub(super) group: String,
    pub(super) tran_state_table_offset: i64,
    pub(super) commit_log_offset: i64,
    pub(super) unique_key: Arc<str>,
    pub(super) transaction_id: Option<String>,
    pub(super) from_check: bool,
}

/// How a broker answered a decision.
#[derive(Debug)]
pub(super) enum EndAnswer {
    /// The decision is recorded.
    Confirmed,
    /// The opposite is recorded; the broker's word for it.
    Conflict(String),
    /// Refused without a word on what is recorded.
    Refused(RequestError),
    /// No answer, or none that can be read.
    NotConfirmed(RequestError),
}

impl EndFields {
    /// The request that says `resolution`.
    pub(super) fn command(&self, resolution: Resolution) -> RemotingCommand {
        let header = EndTransactionHeader {
            topic: self.topic.as_deref().map(Into::into),
            producer_group: self.group.as_str().into(),
            tran_state_table_offset: self.tran_state_table_offset,
            commit_log_offset: self.commit_log_offset,
            resolution,
            from_transaction_check: self.from_check,
            msg_id: Some((&*self.unique_key).into()),
            transaction_id: self.transaction_id.as_deref().map(Into::into),
            mezzo_tx_count: None,
            mezzo_offsets: None,
        };
        RemotingCommand::request(RequestCode::END_TRANSACTION, header.encode(), Vec::new())
    }
}

impl Decision {
    /// As the wire says it.
    pub(super) const fn resolution(self) -> Resolution {
        match self {
            Self::Commit => Resolution::Commit,
            Self::Rollback => Resolution::Rollback,
        }
    }

    /// As applications say it.
    pub(super) const fn local_outcome(self) -> LocalOutcome {
        match self {
            Self::Commit => LocalOutcome::Commit,
            Self::Rollback => LocalOutcome::Rollback,
        }
    }
}

impl LocalOutcome {
    /// The decision in it, if there is one.
    pub(super) const fn decision(self) -> Option<Decision> {
        match self {
            Self::Commit => Some(Decision::Commit),
            Self::Rollback => Some(Decision::Rollback),
            Self::Unknown => None,
        }
    }
}

/// Says `decision` to the broker named `broker` (found at `address` when the half was sent) until it is confirmed or
/// repeating it is not safe. `repeatable` holds for brokers that record decisions once, and learns it from answers.
pub(super) async fn end(
    sender: &Sender,
    broker: &str,
    address: &Arc<str>,
    fields: &EndFields,
    decision: Decision,
    repeatable: &super::transaction::RepeatableEnds,
    deadline: Deadline,
) -> EndAnswer {
    let shared = sender.client.shared();
    let command = fields.command(decision.resolution());
    // Made with the first failure: most decisions have none.
    let mut backoff = None;
    loop {
        let address = shared.master_of(broker).unwrap_or_else(|| Arc::clone(address));
        let error = match shared.request(&address, Patience::Wait, command.clone(), deadline).await {
            Ok(reply) => match read_answer(&reply, decision, || repeatable.learn(&address)) {
                EndAnswer::Refused(error) if error.refusal() == Some(ResponseCode::SYSTEM_BUSY) => error,
                // its disk has failed; when it is back it says what stands
                EndAnswer::Refused(error)
                    if error.refusal() == Some(ResponseCode::SERVICE_NOT_AVAILABLE)
                        && repeatable.holds(&address) =>
                {
                    error
                }
                answer => return answer,
            },
            Err(error) => error,
        };
        let safe = !error.may_have_acted() || repeatable.holds(&address);
        if deadline.is_over() || !safe || !error.is_retriable() {
            return given_up(error);
        }
        tracing::debug!(%address, %error, "repeating a decision");
        // Some failures (a full table of requests) come at once: without a pause this would keep a thread from doing
        // anything else, such as reading the answers that make room.
        let backoff = backoff.get_or_insert_with(|| Backoff::new(REPEAT_BACKOFF, random_seed()));
        let next = Instant::now() + Duration::from_millis(backoff.next_delay_ms());
        if next >= deadline.at() && error.refusal().is_some() {
            // The refusal is certain; an attempt at the last instant would only blur it.
            return given_up(error);
        }
        tokio::time::sleep_until(next.min(deadline.at())).await;
    }
}

/// What the last failure means when a decision is not said again.
const fn given_up(error: RequestError) -> EndAnswer {
    if error.refusal().is_some() { EndAnswer::Refused(error) } else { EndAnswer::NotConfirmed(error) }
}

/// Says `decision` on the connection that asked for it, once.
pub(super) async fn answer_check(
    connection: &Connection,
    fields: &EndFields,
    decision: Decision,
    deadline: Deadline,
) -> EndAnswer {
    match connection.request(fields.command(decision.resolution()), deadline).await {
        Ok(reply) => read_answer(&reply, decision, || {}),
        Err(error) => EndAnswer::NotConfirmed(error),
    }
}

fn read_answer(reply: &Reply, decision: Decision, learn: impl FnOnce()) -> EndAnswer {
    let header = match reply.header() {
        Ok(header) => header,
        Err(error) => return EndAnswer::NotConfirmed(error),
    };
    let recorded = header.ext.get(OUTCOME_FIELD);
    if recorded.is_some() {
        learn();
    }
    let wanted = match decision {
        Decision::Commit => OUTCOME_COMMITTED,
        Decision::Rollback => OUTCOME_ROLLED_BACK,
    };
    match recorded {
        Some(recorded) if recorded == wanted => EndAnswer::Confirmed,
        Some(recorded) if [OUTCOME_COMMITTED, OUTCOME_ROLLED_BACK].contains(&&*recorded) => {
            EndAnswer::Conflict(recorded.into_owned())
        }
        _ => match reply.success() {
            Ok(_) => EndAnswer::Confirmed,
            Err(error) => EndAnswer::Refused(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use mezzo_protocol::remoting::{HeaderEncoding, frame};

    fn answer(code: ResponseCode, recorded: Option<&str>, decision: Decision) -> (EndAnswer, bool) {
        let ext = recorded.map(|word| (OUTCOME_FIELD.into(), word.to_owned())).into_iter().collect();
        let mut bytes = BytesMut::new();
        RemotingCommand::response(1, code).with_ext(ext).encode(HeaderEncoding::Json, &mut bytes).unwrap();
        let reply = Reply::new("a:1".into(), frame::split(&mut bytes, 1 << 16).unwrap().unwrap());
        let mut learnt = false;
        (read_answer(&reply, decision, || learnt = true), learnt)
    }

    #[test]
    fn success_confirms_with_and_without_the_brokers_word() {
        assert!(matches!(
            answer(ResponseCode::SUCCESS, None, Decision::Commit),
            (EndAnswer::Confirmed, false)
        ));
        let named = answer(ResponseCode::SUCCESS, Some("COMMITTED"), Decision::Commit);
        assert!(matches!(named, (EndAnswer::Confirmed, true)));
    }

    #[test]
    fn the_recorded_decision_counts_whatever_the_code() {
        let code = ResponseCode::SYSTEM_ERROR;
        let conflict = answer(code, Some("ROLLED_BACK"), Decision::Commit);
        assert!(matches!(conflict, (EndAnswer::Conflict(word), true) if word == "ROLLED_BACK"));
        assert!(matches!(
            answer(code, Some("ROLLED_BACK"), Decision::Rollback),
            (EndAnswer::Confirmed, true)
        ));
    }

    #[test]
    fn a_refusal_without_a_recorded_decision_is_no_decision() {
        for word in [None, Some("IN_DOUBT"), Some("EXPIRED")] {
            let (refused, _) = answer(ResponseCode::SYSTEM_ERROR, word, Decision::Commit);
            assert!(matches!(refused, EndAnswer::Refused(RequestError::Refused { .. })));
        }
    }
}
