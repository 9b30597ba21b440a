//! What a failure says on the wire: the one place where the errors of services and of the store become response codes
//! and remarks. Matches are exhaustive on purpose: a new error has to be given its code here.

use bytes::BytesMut;
use mezzo_protocol::{
    ids::{GroupName, TopicName},
    remoting::{command::RemotingCommand, response_code::ResponseCode},
};
use mezzo_storage::{Refusal, StorageError};

use super::{outcome, turn::ReplyTo};
use crate::metrics::Metrics;
use crate::service::{
    append::AppendError, client_registry::JoinRefused, group::GroupError, offset::OffsetError,
    pull::PullError, redelivery::SendBackError, send::SendError, topic::TopicError,
    transaction_admin::AdminError,
};

/// The remark when a connection has as many requests open as it may.
pub(crate) const TOO_MANY_HELD: &str =
    "this connection has too many requests open (limits.held_pulls_per_connection); try again later";

/// A success without anything more to say.
pub(crate) fn ok() -> RemotingCommand {
    RemotingCommand::response(0, ResponseCode::SUCCESS)
}

/// A refusal with the remark that says why.
pub(crate) fn refusal(code: ResponseCode, remark: impl Into<String>) -> RemotingCommand {
    RemotingCommand::response(0, code).with_remark(remark)
}

/// Writes `command` as the answer to the request that `to` describes. An answer that breaks a wire bound (a route of
/// tens of thousands of topics, say) becomes a refusal that says so. Refusals are counted.
pub(crate) fn write(out: &mut BytesMut, to: ReplyTo, command: RemotingCommand, metrics: &Metrics) {
    metrics.refusals.answered(command.code);
    let command = command.with_opaque(to.opaque.0);
    let Err(error) = command.encode(to.encoding, out) else { return };
    let instead = refusal(ResponseCode::SYSTEM_ERROR, format!("the answer cannot be written: {error}"));
    // a code and a short remark are within every bound
    let _ = instead.with_opaque(to.opaque.0).encode(to.encoding, out);
}

/// A topic that a request needed could not be created, or a change of a topic was refused.
pub(crate) fn topic_refusal(topic: &TopicName, error: &TopicError) -> RemotingCommand {
    let code = match error {
        TopicError::QueueCount { .. } | TopicError::System(_) => ResponseCode::INVALID_PARAMETER,
        TopicError::TooMany(_) => ResponseCode::SYSTEM_BUSY,
        TopicError::Refused(refused) => code_of_refusal(*refused),
        TopicError::Append(AppendError::Refused(error)) => code_of_storage(error),
        TopicError::Append(AppendError::Fenced(_)) => ResponseCode::SERVICE_NOT_AVAILABLE,
    };
    refusal(code, format!("topic {}: {error}", topic.as_str()))
}

/// A group that a request needed could not be created, or a change of a group was refused.
pub(crate) fn group_refusal(group: &GroupName, error: &GroupError) -> RemotingCommand {
    let code = match error {
        GroupError::QueueCount { .. } => ResponseCode::INVALID_PARAMETER,
        GroupError::TooMany(_) => ResponseCode::SYSTEM_BUSY,
        GroupError::Refused(refused) => code_of_refusal(*refused),
        GroupError::Append(AppendError::Refused(error)) => code_of_storage(error),
        GroupError::Append(AppendError::Fenced(_)) => ResponseCode::SERVICE_NOT_AVAILABLE,
    };
    let remark = format!("consumer group {}: {error}", group.as_str());
    match error {
        GroupError::Refused(Refusal::NoRoom | Refusal::AtMaxBytes) => refusal(
            code,
            format!("{remark} (a new group takes room, too; groups that are there already consume)"),
        ),
        _ => refusal(code, remark),
    }
}

/// What a request needed was created again and again and yet is not there: somebody deletes it each time.
pub(crate) fn keeps_vanishing() -> RemotingCommand {
    refusal(ResponseCode::SYSTEM_BUSY, "a topic or group that this request needs is being deleted; try again")
}

/// A send was not accepted.
pub(crate) fn send_refusal(error: &SendError) -> RemotingCommand {
    let code = match error {
        SendError::CreateTopic(_) | SendError::TopicNotExist(_) => ResponseCode::TOPIC_NOT_EXIST,
        SendError::TopicName(_) | SendError::NoSuchQueue { .. } => ResponseCode::INVALID_PARAMETER,
        SendError::SystemTopic(_) | SendError::NotWritable(_) => ResponseCode::NO_PERMISSION,
        SendError::GroupNotExist(_) => ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
        SendError::MayRepeat(_) => ResponseCode::SYSTEM_BUSY,
        SendError::BodyTooLarge { .. }
        | SendError::BatchTooLarge { .. }
        | SendError::Illegal(_)
        | SendError::Message(_)
        | SendError::Batch(_) => ResponseCode::MESSAGE_ILLEGAL,
    };
    refusal(code, error.to_string())
}

/// A message was not taken back from its consumer.
pub(crate) fn send_back_refusal(error: &SendBackError) -> RemotingCommand {
    match error {
        SendBackError::Topic(TopicError::Append(AppendError::Refused(source)))
        | SendBackError::Append(AppendError::Refused(source)) => storage_refusal(source),
        SendBackError::Refused(refused) => operation_refusal(*refused),
        SendBackError::GroupNotExist(_) => {
            refusal(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, error.to_string())
        }
        SendBackError::Append(AppendError::Fenced(_)) | SendBackError::Stopping => {
            refusal(ResponseCode::SERVICE_NOT_AVAILABLE, error.to_string())
        }
        SendBackError::TooLong(_) | SendBackError::Encode(_) => {
            refusal(ResponseCode::MESSAGE_ILLEGAL, error.to_string())
        }
        SendBackError::NotFound { .. }
        | SendBackError::Stored(_)
        | SendBackError::Topic(_)
        | SendBackError::TopicGone(_) => refusal(ResponseCode::SYSTEM_ERROR, error.to_string()),
    }
}

/// An offset could not be told or taken.
pub(crate) fn offset_refusal(error: &OffsetError) -> RemotingCommand {
    let code = match error {
        OffsetError::TopicNotExist(_) => ResponseCode::TOPIC_NOT_EXIST,
        OffsetError::NoSuchQueue { .. } => ResponseCode::INVALID_PARAMETER,
        OffsetError::GroupNotExist(_) => ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
        OffsetError::NotFound => ResponseCode::QUERY_NOT_FOUND,
        OffsetError::Leased(_) => ResponseCode::ILLEGAL_OPERATION,
        OffsetError::Storage(error) => code_of_storage(error),
    };
    let ext = if matches!(error, OffsetError::Leased(_)) { outcome::says("LEASED") } else { Vec::new() };
    refusal(code, error.to_string()).with_ext(ext)
}

/// A pull could not be read.
pub(crate) fn pull_refusal(error: &PullError) -> RemotingCommand {
    let code = match error {
        PullError::Storage(error) => code_of_storage(error),
        PullError::Message { .. } => ResponseCode::SYSTEM_ERROR,
    };
    refusal(code, error.to_string())
}

/// The store refused the turn's batch as a whole; nothing of it was appended.
pub(crate) fn storage_refusal(error: &StorageError) -> RemotingCommand {
    refusal(code_of_storage(error), error.to_string())
}

/// The store did not carry out one operation of the batch.
pub(crate) fn operation_refusal(refused: Refusal) -> RemotingCommand {
    refusal(code_of_refusal(refused), refused.to_string()).with_ext(outcome::of_refusal(refused))
}

/// An operator's request was not carried out.
pub(crate) fn admin_refusal(error: &AdminError) -> RemotingCommand {
    let code = match error {
        AdminError::NotFound(_) => ResponseCode::QUERY_NOT_FOUND,
        AdminError::Append(AppendError::Refused(source)) | AdminError::Storage(source) => {
            code_of_storage(source)
        }
        AdminError::Append(AppendError::Fenced(_)) | AdminError::Stopping => {
            ResponseCode::SERVICE_NOT_AVAILABLE
        }
        AdminError::Refused(refused) => code_of_refusal(*refused),
    };
    refusal(code, error.to_string())
}

/// A client could not join a group.
pub(crate) fn join_refusal(error: JoinRefused) -> RemotingCommand {
    let code = match error {
        JoinRefused::TooManyGroups(_) | JoinRefused::NoRoom => ResponseCode::SYSTEM_BUSY,
        JoinRefused::TooLong => ResponseCode::INVALID_PARAMETER,
        JoinRefused::Closed => ResponseCode::SERVICE_NOT_AVAILABLE,
    };
    refusal(code, error.to_string())
}

fn code_of_refusal(refused: Refusal) -> ResponseCode {
    match refused {
        // what is out of sequence may be sent again after what comes before it
        Refusal::TooManyOpen
        | Refusal::NoRoom
        | Refusal::AtMaxBytes
        | Refusal::TooManyOpenBytes
        | Refusal::HistoryUnreadable
        | Refusal::TooManyPolicies
        | Refusal::OutOfSequence { .. } => ResponseCode::SYSTEM_BUSY,
        Refusal::TooManyLeases => ResponseCode::SYSTEM_BUSY,
        Refusal::SequenceReused | Refusal::TransactionFull => ResponseCode::MESSAGE_ILLEGAL,
        Refusal::TooManyOffsets => ResponseCode::INVALID_PARAMETER,
        Refusal::Incomplete { .. }
        | Refusal::Decided { .. }
        | Refusal::Ambiguous
        | Refusal::NotOpen
        | Refusal::LeaseHeld { .. }
        | Refusal::LeaseLost => ResponseCode::ILLEGAL_OPERATION,
        Refusal::TopicGone | Refusal::NotFound => ResponseCode::TOPIC_NOT_EXIST,
        Refusal::WrongGroup
        | Refusal::WrongTableOffset
        | Refusal::WrongKey
        | Refusal::Unknown
        | Refusal::Expired
        | Refusal::UnknownOrExpired
        | Refusal::StillPrepared
        | Refusal::TopicHasOpenMessages => ResponseCode::SYSTEM_ERROR,
    }
}

fn code_of_storage(error: &StorageError) -> ResponseCode {
    match error {
        StorageError::Busy { .. } | StorageError::PageDamaged { .. } => ResponseCode::SYSTEM_BUSY,
        StorageError::Fenced { .. } => ResponseCode::SERVICE_NOT_AVAILABLE,
        StorageError::TooLarge { .. } => ResponseCode::MESSAGE_ILLEGAL,
        // the enum is open; whatever else goes wrong is an error of the system
        _ => ResponseCode::SYSTEM_ERROR,
    }
}
