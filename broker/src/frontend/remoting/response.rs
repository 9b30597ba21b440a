//! What a failure says on the wire: the one place where the errors of services and of the store become response codes
//! and remarks. Matches are exhaustive on purpose: a new error has to be given its code here.

use bytes::BytesMut;
use mezzo_protocol::{
    ids::TopicName,
    remoting::{command::RemotingCommand, response_code::ResponseCode},
};
use mezzo_storage::{Refusal, StorageError};

use super::turn::ReplyTo;
use crate::service::{append::AppendError, client_registry::JoinRefused, topic::TopicError};

/// A success without anything more to say.
pub(crate) fn ok() -> RemotingCommand {
    RemotingCommand::response(0, ResponseCode::SUCCESS)
}

/// A refusal with the remark that says why.
pub(crate) fn refusal(code: ResponseCode, remark: impl Into<String>) -> RemotingCommand {
    RemotingCommand::response(0, code).with_remark(remark)
}

/// Writes `command` as the answer to the request that `to` describes. An answer that breaks a wire bound (a route of
/// tens of thousands of topics, say) becomes a refusal that says so.
pub(crate) fn write(out: &mut BytesMut, to: ReplyTo, command: RemotingCommand) {
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

/// A topic was created and yet is not there: somebody deletes it again and again.
pub(crate) fn topic_unavailable(topic: &TopicName) -> RemotingCommand {
    refusal(ResponseCode::TOPIC_NOT_EXIST, format!("topic {} was deleted meanwhile", topic.as_str()))
}

/// The store refused the turn's batch as a whole; nothing of it was appended.
pub(crate) fn storage_refusal(error: &StorageError) -> RemotingCommand {
    refusal(code_of_storage(error), error.to_string())
}

/// The store did not carry out one operation of the batch.
pub(crate) fn operation_refusal(refused: Refusal) -> RemotingCommand {
    refusal(code_of_refusal(refused), refused.to_string())
}

/// A client could not join a group.
pub(crate) fn join_refusal(error: JoinRefused) -> RemotingCommand {
    let code = match error {
        JoinRefused::TooManyGroups(_) => ResponseCode::SYSTEM_BUSY,
        JoinRefused::Closed => ResponseCode::SERVICE_NOT_AVAILABLE,
    };
    refusal(code, error.to_string())
}

fn code_of_refusal(refused: Refusal) -> ResponseCode {
    match refused {
        Refusal::TooManyOpen | Refusal::NoRoom => ResponseCode::SYSTEM_BUSY,
        Refusal::TopicGone | Refusal::NotFound => ResponseCode::TOPIC_NOT_EXIST,
        Refusal::WrongGroup
        | Refusal::WrongTableOffset
        | Refusal::WrongKey
        | Refusal::Unknown
        | Refusal::Expired
        | Refusal::TopicHasOpenMessages => ResponseCode::SYSTEM_ERROR,
    }
}

fn code_of_storage(error: &StorageError) -> ResponseCode {
    match error {
        StorageError::Busy { .. } => ResponseCode::SYSTEM_BUSY,
        StorageError::Fenced { .. } => ResponseCode::SERVICE_NOT_AVAILABLE,
        StorageError::TooLarge { .. } => ResponseCode::MESSAGE_ILLEGAL,
        // the enum is open; whatever else goes wrong is an error of the system
        _ => ResponseCode::SYSTEM_ERROR,
    }
}
