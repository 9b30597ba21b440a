//! END_TRANSACTION (37): a producer decides a transaction, or says that it does not know yet. Clients send it one-way;
//! who does wait gets an answer with the decision that stands:
//!
//! | what happened | code | ext |
//! |---|---|---|
//! | decided now, or decided so before | 0 | `mezzoOutcome`, `queueOffset` of a visible message |
//! | decided otherwise before | 604 ILLEGAL_OPERATION | `mezzoOutcome` and `queueOffset` of what stands |
//! | a commit that counts other messages than there are | 604 ILLEGAL_OPERATION | `mezzoOutcome` = `INCOMPLETE`, `mezzoTxCount` |
//! | a commit of offsets that another client has the lease of | 604 ILLEGAL_OPERATION | `mezzoOutcome` = `FENCED` |
//! | a transaction without anything | 0 | `mezzoOutcome` = `NOTHING` |
//! | UNKNOWN | 0 | `mezzoOutcome` = `PREPARED` or `IN_DOUBT` |
//! | wrong group, wrong offset, wrong key, nothing there | 1 SYSTEM_ERROR, Apache's remarks | |
//! | the disk failed under it: stored or not, the next start decides | 14 SERVICE_NOT_AVAILABLE | `mezzoOutcome` = `RETRY` |

use std::borrow::Cow;

use mezzo_protocol::{
    error::DecodeError,
    ids::{GroupName, PhysicalOffset, QueueId, QueueOffset, TopicName, TransactionId},
    remoting::{
        body::transaction_offsets::TransactionOffsetsBody,
        command::RemotingCommand,
        header::end_transaction::{EndTransactionHeader, Resolution},
        response_code::ResponseCode,
    },
};
use mezzo_storage::{
    EndTarget, EndTransaction, OffsetMove, OpenState, Operation, OperationResult, Outcome, Refusal, Source,
    StorageError, TransactionOffsets, key_hash,
};

use super::{
    outcome, response,
    turn::{Handled, PendingReply, Request, Step, Turn},
};
use crate::service::client_channel::ClientChannel as _;

/// Puts the decision into the turn's batch. UNKNOWN decides nothing; it only counts as an answer.
pub(crate) fn handle(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = EndTransactionHeader::decode(&request.header.ext)?;
    let origin = PhysicalOffset::from_wire(header.commit_log_offset);
    let table_offset = PhysicalOffset::from_wire(header.tran_state_table_offset);
    let Ok(group) = GroupName::new(&header.producer_group) else {
        turn.reply(request, refused(Refusal::Unknown));
        return Ok(Step::Done);
    };
    let nowhere = header.commit_log_offset == -1 && header.tran_state_table_offset == -1;
    let id = header.transaction_id.as_deref().filter(|_| nowhere).and_then(|id| TransactionId::new(id).ok());
    let (target, origin) = match (origin, table_offset, id) {
        (Some(origin), Some(_), _) => (EndTarget::Origin(origin), Some(origin)),
        (None, None, Some(id)) => (EndTarget::Id { group: group.clone(), id }, None),
        _ => {
            turn.reply(request, refused(Refusal::Unknown));
            return Ok(Step::Done);
        }
    };
    let count = header.mezzo_tx_count.map(|count| {
        u16::try_from(count)
            .map_err(|_| DecodeError::bad_value("mezzoTxCount", count.to_string(), "0 to 65535"))
    });
    let count = count.transpose()?;
    let offsets = if header.mezzo_offsets == Some(true) { Some(offsets(request.body())?) } else { None };
    let outcome = match header.resolution {
        Resolution::Commit => Outcome::Committed,
        Resolution::Rollback => Outcome::RolledBack,
        Resolution::Unknown => {
            match origin {
                Some(origin) => unknown(turn, request, &header, origin, &group),
                // asks for nothing, so it need not be looked up
                None => turn.reply(request, response::ok()),
            }
            return Ok(Step::Done);
        }
    };
    let source = if header.from_transaction_check {
        turn.services.metrics.asks_decided.add(1);
        if let Some(origin) = origin {
            turn.services.transactions.answered(turn.now, origin, &**turn.channel, false);
        }
        Source::CheckBack
    } else {
        Source::Producer
    };
    let hash = |key: &Option<Cow<'_, str>>| key.as_deref().map_or(0, key_hash);
    let at = turn.operation(Operation::End(EndTransaction {
        target,
        table_offset: table_offset.map(|offset| offset.0),
        // who names it by its id has named its key
        keys: origin.map(|_| [hash(&header.msg_id), hash(&header.transaction_id)]),
        producer_group: Some(group),
        outcome,
        source,
        count,
        offsets,
        only_in_doubt: false,
        decider: Some(turn.channel.remote()),
        reason: None,
    }));
    let to = request.reply_to();
    if to.wanted {
        turn.replies.push(PendingReply::End(to, at));
    }
    Ok(Step::Done)
}

/// UNKNOWN: the transaction stays as it is. An answer to a check-back counts if it comes from the transaction's group.
fn unknown(
    turn: &mut Turn<'_>,
    request: &Request<'_>,
    header: &EndTransactionHeader<'_>,
    origin: PhysicalOffset,
    group: &GroupName,
) {
    let reply = match turn.services.store.transaction(origin) {
        Some(open) if open.producer_group != *group => refused(Refusal::WrongGroup),
        Some(open) => {
            if header.from_transaction_check {
                turn.services.metrics.asks_unknown.add(1);
                turn.services.transactions.answered(turn.now, origin, &**turn.channel, true);
            }
            let state = match open.state {
                OpenState::Prepared => "PREPARED",
                OpenState::InDoubt => "IN_DOUBT",
            };
            response::ok().with_ext(outcome::says(state))
        }
        // decided or never there: UNKNOWN asks for nothing, so it need not be looked up
        None => response::ok(),
    };
    turn.reply(request, reply);
}

/// The answer once the limit has passed the decision, or was refused: what became of it.
pub(super) fn answer(result: Option<&OperationResult>) -> RemotingCommand {
    let Some(result) = result else {
        return response::refusal(ResponseCode::SYSTEM_ERROR, "the decision has no result");
    };
    match result {
        OperationResult::Decided(decision) if decision.source == Source::Fenced => {
            let remark = "another client has taken the lease of a queue whose offset this commit moves; the \
                          transaction is rolled back";
            response::refusal(ResponseCode::ILLEGAL_OPERATION, remark)
                .with_ext(outcome::of_decision(decision))
        }
        OperationResult::NothingToDecide => response::ok().with_ext(outcome::says("NOTHING")),
        OperationResult::Decided(decision) | OperationResult::AlreadyDecided(decision) => {
            response::ok().with_ext(outcome::of_decision(decision))
        }
        OperationResult::Conflict(decision) => {
            let stands = match decision.outcome {
                Outcome::Committed => "committed",
                Outcome::RolledBack => "rolled back",
            };
            let remark = format!(
                "the transaction was {stands} at {} ms; the first decision stands",
                decision.decided_at.as_ms()
            );
            response::refusal(ResponseCode::ILLEGAL_OPERATION, remark)
                .with_ext(outcome::of_decision(decision))
        }
        OperationResult::Refused(refusal) => refused(*refusal),
        other => response::refusal(ResponseCode::SYSTEM_ERROR, format!("not a decision: {other:?}")),
    }
}

/// The answer when the append that the decision was in has failed. Whether the disk has it is known to nobody before the
/// next start has read it: then the same END gets the decision that stands, or is taken. So it is to be said again, which
/// is harmless, and nothing is to be concluded from this answer.
pub(super) fn unwritten(error: &StorageError) -> RemotingCommand {
    match error {
        // nothing was written
        StorageError::Busy { .. } | StorageError::TooLarge { .. } => response::storage_refusal(error),
        _ => {
            let remark = format!(
                "the disk has failed while the decision was written: say it again when the broker is back, which \
                 answers with what stands ({error})"
            );
            response::refusal(ResponseCode::SERVICE_NOT_AVAILABLE, remark).with_ext(outcome::says("RETRY"))
        }
    }
}

/// What is refused gets the remark that Apache's broker gives, where it has one.
fn refused(refusal: Refusal) -> RemotingCommand {
    let remark = match refusal {
        Refusal::WrongGroup => "The producer group wrong",
        Refusal::WrongTableOffset => "The transaction state table offset wrong",
        Refusal::Unknown => "Find prepared transaction message failed",
        other => return response::operation_refusal(other),
    };
    response::refusal(ResponseCode::SYSTEM_ERROR, remark).with_ext(outcome::of_refusal(refusal))
}

/// The offsets in the body.
fn offsets(body: &[u8]) -> Result<TransactionOffsets, DecodeError> {
    let body = TransactionOffsetsBody::decode(body)?;
    let mut entries = Vec::with_capacity(body.offsets.len());
    for entry in &body.offsets {
        entries.push(OffsetMove {
            topic: TopicName::new(&entry.topic)?,
            queue: QueueId(entry.queue_id),
            from: entry.from.map(QueueOffset),
            offset: QueueOffset(entry.offset),
            epoch: entry.epoch,
        });
    }
    Ok(TransactionOffsets { group: GroupName::new(&body.consumer_group)?, entries })
}

#[cfg(test)]
mod tests {
    use mezzo_protocol::time::Timestamp;

    use super::{outcome::OUTCOME, *};
    use mezzo_storage::Decision;

    fn answer_to(result: &OperationResult) -> RemotingCommand {
        answer(Some(result))
    }

    fn decision(outcome: Outcome, queue_offset: Option<u64>) -> Decision {
        Decision {
            origin: PhysicalOffset(3),
            outcome,
            source: Source::Producer,
            decided_at: Timestamp::from_ms(7),
            count: 1,
            queue_offset: queue_offset.map(QueueOffset),
            queue_offsets: Box::default(),
        }
    }

    #[test]
    fn a_repeat_is_answered_like_the_first_and_a_conflict_names_what_stands() {
        let committed = decision(Outcome::Committed, Some(5));
        let first = answer_to(&OperationResult::Decided(committed.clone()));
        assert_eq!(first, answer_to(&OperationResult::AlreadyDecided(committed)));
        assert_eq!(
            (first.code, first.ext_value(OUTCOME), first.ext_value("queueOffset")),
            (0, Some("COMMITTED"), Some("5"))
        );
        let conflict = answer_to(&OperationResult::Conflict(decision(Outcome::RolledBack, None)));
        assert_eq!((conflict.code, conflict.ext_value(OUTCOME)), (604, Some("ROLLED_BACK")));
        assert_eq!(conflict.ext_value("queueOffset"), None);
        assert!(conflict.remark.is_some_and(|remark| remark.contains("rolled back at 7 ms")));
    }

    #[test]
    fn refusals_carry_the_remarks_that_clients_know() {
        for (refusal, remark) in [
            (Refusal::WrongGroup, "The producer group wrong"),
            (Refusal::WrongTableOffset, "The transaction state table offset wrong"),
            (Refusal::Unknown, "Find prepared transaction message failed"),
        ] {
            let reply = answer_to(&OperationResult::Refused(refusal));
            assert_eq!((reply.code, reply.remark.as_deref()), (1, Some(remark)));
        }
        assert_eq!(answer_to(&OperationResult::Refused(Refusal::WrongKey)).code, 1);
    }

    #[test]
    fn a_decision_that_may_be_written_is_to_be_said_again_and_says_nothing_about_what_stands() {
        let eio = std::io::Error::from_raw_os_error(5);
        let failed = StorageError::io("append to", "log/0".as_ref())(eio);
        let fenced = StorageError::Fenced { reason: "log/0: EIO".to_owned() };
        for error in [failed, fenced] {
            let reply = unwritten(&error);
            let code = ResponseCode::SERVICE_NOT_AVAILABLE.0;
            assert_eq!((reply.code, reply.ext_value(OUTCOME)), (code, Some("RETRY")));
            assert!(
                reply
                    .remark
                    .is_some_and(|remark| remark.contains("say it again") && remark.contains("log/0"))
            );
        }
        let busy = unwritten(&StorageError::Busy { reason: "no segment is prepared" });
        assert_eq!(busy.code, 2);
    }
}
