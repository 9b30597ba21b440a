//! MEZZO_LEASE_QUEUE (7,700,011) and MEZZO_RELEASE_QUEUE (7,700,012): who may move a queue's offset inside transactions.
//!
//! | what happened | code | ext |
//! |---|---|---|
//! | given, renewed | 0 | `epoch`, `expiresAtMs`, `nextOffset` if the group ever had one |
//! | another client holds it | 604 ILLEGAL_OPERATION | `mezzoOutcome` = `HELD`, `mezzoUntilMs` |
//! | given back | 0 | |
//! | to be renewed or given back, but taken by somebody meanwhile | 604 ILLEGAL_OPERATION | `mezzoOutcome` = `LOST` |
//! | no such queue | 17 TOPIC_NOT_EXIST | |

use mezzo_protocol::{
    error::DecodeError,
    ids::{GroupName, TopicName},
    limits::{CLIENT_ID_BYTES_MAX, LEASE_TTL_MS_MAX, LEASE_TTL_MS_MIN},
    remoting::{
        command::RemotingCommand,
        header::lease::{LeaseQueueHeader, LeaseQueueReply, ReleaseQueueHeader},
        response_code::ResponseCode,
    },
};
use mezzo_storage::{LeaseRequest, Operation, OperationResult};

use super::{
    response,
    turn::{Handled, Request, Step, Turn},
};

/// Gives a lease, or renews it; answered when that is as safe as the acknowledgement level asks.
pub(crate) fn grant(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = LeaseQueueHeader::decode(&request.header.ext)?;
    let client = &header.client_id;
    if client.is_empty() {
        return Err(DecodeError::bad_value("clientId", "", "the id of a client"));
    }
    if client.len() > CLIENT_ID_BYTES_MAX {
        return Err(DecodeError::TooLong { what: "clientId", got: client.len(), max: CLIENT_ID_BYTES_MAX });
    }
    let ttl_ms = u64::try_from(header.ttl_ms).ok();
    let ttl_ms = ttl_ms.filter(|ttl| (LEASE_TTL_MS_MIN..=LEASE_TTL_MS_MAX).contains(ttl));
    let ttl_ms =
        ttl_ms.ok_or_else(|| DecodeError::bad_value("ttlMs", header.ttl_ms.to_string(), "1000 to 600000"))?;
    let renews = header.epoch.map(epoch_of).transpose()?;
    let at = turn.operation(Operation::Lease(LeaseRequest {
        group: GroupName::new(&header.consumer_group)?,
        topic: TopicName::new(&header.topic)?,
        queue: header.queue_id,
        client: client.clone().into_owned(),
        ttl_ms,
        renews,
    }));
    turn.reply_after_append(request, at..at + 1, answer);
    Ok(Step::Done)
}

/// Gives a lease back.
pub(crate) fn release(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = ReleaseQueueHeader::decode(&request.header.ext)?;
    let epoch = epoch_of(header.epoch)?;
    let at = turn.operation(Operation::ReleaseLease {
        group: GroupName::new(&header.consumer_group)?,
        topic: TopicName::new(&header.topic)?,
        queue: header.queue_id,
        epoch,
    });
    turn.reply_after_append(request, at..at + 1, answer);
    Ok(Step::Done)
}

fn epoch_of(number: i64) -> Result<u64, DecodeError> {
    u64::try_from(number).map_err(|_| DecodeError::bad_value("epoch", number.to_string(), "0 or more"))
}

fn answer(results: &[OperationResult]) -> RemotingCommand {
    match results.first() {
        Some(OperationResult::Leased { epoch, expires_at, next_offset }) => {
            let reply = LeaseQueueReply {
                epoch: i64::try_from(*epoch).unwrap_or(i64::MAX),
                expires_at_ms: expires_at.as_wire_ms(),
                next_offset: next_offset.map(|offset| offset.as_wire()),
            };
            response::ok().with_ext(reply.encode())
        }
        Some(OperationResult::Done) => response::ok(),
        Some(OperationResult::Refused(refusal)) => response::operation_refusal(*refusal),
        other => response::refusal(ResponseCode::SYSTEM_ERROR, format!("not a lease: {other:?}")),
    }
}
