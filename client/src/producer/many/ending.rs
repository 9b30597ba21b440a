//! The decision of a transaction of many messages. It is said by id, with the number of messages, until the broker answers
//! or the time is over: Mezzo records the first decision and answers repeats with it, so repeating is always safe.

use std::sync::Arc;
use std::time::Duration;

use mezzo_protocol::remoting::header::end_transaction::EndTransactionHeader;
use mezzo_protocol::remoting::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::Instant;

use super::super::end_transaction::{OUTCOME_COMMITTED, OUTCOME_FIELD, OUTCOME_ROLLED_BACK, REPEAT_BACKOFF};
use super::super::transaction::{Inner, TransactionProducer};
use super::acks::Acks;
use super::outcome::{RolledBackBecause, TransactionName, TransactionOutcome};
use crate::clock::random_seed;
use crate::core::backoff::Backoff;
use crate::core::open_transactions::Decision;
use crate::error::{Error, RequestError};
use crate::net::{Deadline, Patience, Reply};
use crate::producer::UnknownReason;

/// Holds how many messages the broker has.
const COUNT_FIELD: &str = "mezzoTxCount";
/// Stands for "no offset": the transaction is named by its id.
const BY_ID: i64 = -1;

impl TransactionProducer {
    /// Commits a transaction that another process of this group began and left open: one that died after it had written
    /// down, beside its work, that the transaction is to be committed. Saying it again is safe. One that moves the offsets
    /// of a consumer group is not committed this way: [`UnknownReason::NeedsOffsets`].
    ///
    /// ```no_run
    /// # async fn example(producer: mezzo_client::TransactionProducer) {
    /// use mezzo_client::TransactionName;
    ///
    /// // As the process before has written it down.
    /// let name = TransactionName { id: "7F00".into(), broker_name: Some("broker-a".into()), messages: 2, moves_offsets: false };
    /// println!("{}", producer.commit_named(&name).await);
    /// # }
    /// ```
    pub async fn commit_named(&self, name: &TransactionName) -> TransactionOutcome {
        if name.moves_offsets {
            return TransactionOutcome::Unknown(name.clone(), UnknownReason::NeedsOffsets);
        }
        Ending::new(Arc::clone(&self.inner), name.clone(), Decision::Commit, Acks::default()).run().await
    }

    /// As [`TransactionProducer::commit_named`], the other way.
    pub async fn roll_back_named(&self, name: &TransactionName) -> TransactionOutcome {
        Ending::new(Arc::clone(&self.inner), name.clone(), Decision::Rollback, Acks::default()).run().await
    }
}

/// The request that decides.
fn command(inner: &Inner, name: &TransactionName, decision: Decision, acks: &Acks) -> RemotingCommand {
    let offsets = acks.body().filter(|_| decision == Decision::Commit);
    let header = EndTransactionHeader {
        topic: None,
        producer_group: inner.sender.group.as_str().into(),
        tran_state_table_offset: BY_ID,
        commit_log_offset: BY_ID,
        resolution: decision.resolution(),
        from_transaction_check: false,
        msg_id: None,
        transaction_id: Some((&*name.id).into()),
        mezzo_tx_count: (decision == Decision::Commit).then_some(i32::from(name.messages)),
        mezzo_offsets: offsets.is_some().then_some(true),
    };
    let body = offsets.map_or_else(Vec::new, |offsets| offsets.encode());
    RemotingCommand::request(RequestCode::END_TRANSACTION, header.encode(), body)
}

/// Says a rollback without waiting, if there is a connection that takes it now.
pub(super) fn try_roll_back(inner: &Inner, name: &TransactionName) -> bool {
    let shared = inner.sender.client.shared();
    let address = name.broker_name.as_deref().and_then(|broker| shared.master_of(broker));
    let connection = address.and_then(|address| shared.open_connection(&address));
    let command = command(inner, name, Decision::Rollback, &Acks::default()).oneway();
    connection.is_some_and(|connection| connection.try_send(&command).is_ok())
}

/// A decision that the broker is being told. Unless that ends with the broker's word, check-backs are answered with it;
/// but not with a commit that moves offsets, because the answer to a check-back cannot carry them: while that is on its
/// way they are told "unknown", and a rollback when it was given up. The first decision that the broker records stands, so
/// a commit that arrives late moves all or nothing.
pub(super) struct Ending {
    inner: Arc<Inner>,
    name: TransactionName,
    decision: Decision,
    /// The batches that move with a commit.
    acks: Acks,
    settled: bool,
}

/// What an answer says.
enum Answer {
    /// What stands.
    Recorded(Decision),
    /// Rolled back, because another has what was consumed.
    Fenced,
    /// The broker has so many messages, and waits.
    Incomplete(u16),
    /// Nothing is known of it, or it cannot be decided.
    Refused(RequestError),
    /// Ask again.
    Again(RequestError),
}

impl Ending {
    pub(super) fn new(inner: Arc<Inner>, name: TransactionName, decision: Decision, acks: Acks) -> Self {
        let this = Self { inner, name, decision, acks, settled: false };
        this.announce(decision);
        this
    }

    /// From here on a check-back is answered with `decision`, if it can be.
    fn announce(&self, decision: Decision) {
        if decision == Decision::Rollback || self.acks.is_empty() {
            self.inner.open().deciding(&self.name.id, decision);
        }
    }

    /// Says it, and reads what came of it.
    pub(super) async fn run(mut self) -> TransactionOutcome {
        let deadline = Deadline::after_ms(self.inner.config.end_timeout_ms);
        let mut decision = self.decision;
        let mut because = RolledBackBecause::Decided;
        let mut answer = self.say(decision, deadline).await;
        if let Answer::Incomplete(stored) = answer {
            // What the broker confirmed and does not have is gone; all or nothing leaves nothing.
            because = RolledBackBecause::Incomplete { stored, sent: self.name.messages };
            decision = Decision::Rollback;
            self.decision = decision;
            self.announce(decision);
            answer = self.say(decision, deadline).await;
        }
        let name = self.name.clone();
        match answer {
            Answer::Recorded(Decision::Commit) => {
                self.settle();
                self.acks.committed(&name.id);
                TransactionOutcome::Committed(name)
            }
            Answer::Fenced => {
                self.settle();
                self.acks.in_doubt(&name.id);
                TransactionOutcome::RolledBack(name, RolledBackBecause::Fenced)
            }
            Answer::Recorded(Decision::Rollback) => {
                self.settle();
                self.acks.rolled_back(&name.id);
                if decision == Decision::Commit {
                    because = RolledBackBecause::DecidedBefore;
                }
                TransactionOutcome::RolledBack(name, because)
            }
            Answer::Incomplete(_) => {
                let reason = UnknownReason::Undecided;
                TransactionOutcome::Unknown(name, reason)
            }
            Answer::Refused(error) => TransactionOutcome::Unknown(name, UnknownReason::Refused(error)),
            Answer::Again(error) => TransactionOutcome::Unknown(name, UnknownReason::NotConfirmed(error)),
        }
    }

    async fn say(&self, decision: Decision, deadline: Deadline) -> Answer {
        let mut backoff = Backoff::new(REPEAT_BACKOFF, random_seed());
        loop {
            let error = match self.say_once(decision, deadline).await {
                Ok(Answer::Again(error)) => error,
                Ok(answer) => return answer,
                Err(error) => error,
            };
            let next = Instant::now() + Duration::from_millis(backoff.next_delay_ms());
            if !error.is_retriable() || next >= deadline.at() {
                return Answer::Again(error);
            }
            tracing::debug!(name = %self.name, %error, "saying a decision again");
            tokio::time::sleep_until(next).await;
        }
    }

    async fn say_once(&self, decision: Decision, deadline: Deadline) -> Result<Answer, RequestError> {
        let shared = self.inner.sender.client.shared();
        let broker = self.name.broker_name.clone().unwrap_or_default();
        let address = shared.find_master(&broker).await.map_err(|error| match error {
            Error::Request(error) | Error::NameServers { last: error } => error,
            other => RequestError::Unreachable { address: broker, reason: other.to_string() },
        })?;
        let deadline = deadline.but_at_most_ms(self.inner.config.producer.attempt_timeout_ms);
        let connection = shared.connection(&address, Patience::Wait, deadline).await?;
        connection.require_mezzo("a transaction of many messages")?;
        let command = command(&self.inner, &self.name, decision, &self.acks);
        let reply = connection.request(command, deadline).await?;
        read(&reply)
    }

    /// The broker's word is final: nobody will ask.
    fn settle(&mut self) {
        self.inner.open().forget(&self.name.id);
        self.settled = true;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.settled {
            let decision = if self.acks.is_empty() { self.decision } else { Decision::Rollback };
            self.inner.open().decided(&self.name.id, decision);
            self.acks.in_doubt(&self.name.id);
        }
    }
}

fn read(reply: &Reply) -> Result<Answer, RequestError> {
    let header = reply.header()?;
    let word = header.ext.get(OUTCOME_FIELD);
    Ok(match word.as_deref() {
        Some(OUTCOME_COMMITTED) => Answer::Recorded(Decision::Commit),
        Some(OUTCOME_ROLLED_BACK) => Answer::Recorded(Decision::Rollback),
        Some("FENCED") => Answer::Fenced,
        Some("INCOMPLETE") => {
            let stored = header.ext.get(COUNT_FIELD).and_then(|count| count.parse().ok());
            Answer::Incomplete(stored.unwrap_or(0))
        }
        _ => {
            let error = reply.refusal(&header);
            let not_now = [ResponseCode::SYSTEM_BUSY, ResponseCode::SERVICE_NOT_AVAILABLE];
            let again = word.as_deref() == Some("RETRY")
                || error.refusal().is_some_and(|code| not_now.contains(&code));
            if again { Answer::Again(error) } else { Answer::Refused(error) }
        }
    })
}
