//! SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320): messages into the turn's batch, and the answer
//! once they are as safe as the acknowledgement level asks.

use bytes::BytesMut;
use mezzo_protocol::{
    ids::{OffsetMessageId, PhysicalOffset, QueueOffset},
    remoting::{
        header::send_message::SendMessageHeader,
        language::PROTOCOL_VERSION,
        request_code::RequestCode,
        response_code::ResponseCode,
        send_reply::{SendReply as WireReply, encode_send_reply},
    },
};
use mezzo_storage::OperationResult;

use super::{
    response,
    turn::{Handled, PendingReply, Request, SendReply, Step, Turn},
};
use crate::service::{
    Services,
    client_channel::ClientChannel as _,
    send::{self, Send, SendError},
};

/// Puts the message, or the messages of a batch, into the turn's batch.
pub(crate) fn handle(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = SendMessageHeader::decode(&request.header.ext)?;
    let wanted = Send {
        producer_group: &header.producer_group,
        topic: &header.topic,
        default_topic: &header.default_topic,
        default_queues: header.default_topic_queues,
        queue: header.queue_id,
        sys_flag: header.sys_flag,
        flag: header.flag,
        born_at: header.born_timestamp,
        born_host: turn.channel.remote(),
        properties: &header.properties,
        reconsume_times: header.reconsume_times,
        reconsume_max: header.max_reconsume_times,
        batch: header.batch || request.header.code == RequestCode::SEND_BATCH_MESSAGE.0,
        body: request.body(),
    };
    let sent = match send::send(turn.services, turn.now, turn.batch, &wanted) {
        Ok(sent) => sent,
        Err(SendError::CreateTopic(topic)) => return Ok(Step::CreateTopic(topic)),
        Err(error) => {
            turn.reply(request, response::send_refusal(&error));
            return Ok(Step::Done);
        }
    };
    // a producer's first sign of life: its heartbeat may come much later
    turn.producer_seen(&header.producer_group);
    let to = request.reply_to();
    if to.wanted {
        turn.replies.push(PendingReply::Send(SendReply {
            to,
            operations: sent.operations,
            queue: sent.queue,
            transaction_id: sent.unique_key,
        }));
    }
    Ok(Step::Done)
}

/// Writes the answer to a send. `results` are those of its operations: one per message.
pub(crate) fn encode_reply(
    out: &mut BytesMut,
    reply: &SendReply,
    results: &[OperationResult],
    services: &Services,
) {
    let mut ids = String::new();
    let mut first = None;
    for result in results {
        let (position, queue_offset) = match result {
            OperationResult::Stored { queue_offset, position } => (*position, *queue_offset),
            // END names the transaction by this number: its origin
            OperationResult::Prepared { origin, position } => (*position, QueueOffset(origin.0)),
            // it has no place in its queue before it is due
            OperationResult::Scheduled { position } => (*position, QueueOffset(0)),
            OperationResult::Refused(refusal) => {
                return response::write(out, reply.to, response::operation_refusal(*refusal));
            }
            other => return broken(out, reply, &format!("a send got the result {other:?}")),
        };
        first.get_or_insert(queue_offset);
        push_id(&mut ids, services, position);
    }
    let Some(queue_offset) = first else { return broken(out, reply, "a send got no result") };
    let wire = WireReply {
        opaque: reply.to.opaque.0,
        version: PROTOCOL_VERSION,
        msg_id: &ids,
        queue_id: reply.queue,
        queue_offset,
        transaction_id: reply.transaction_id.as_deref(),
    };
    if let Err(error) = encode_send_reply(out, reply.to.encoding, &wire) {
        broken(out, reply, &error.to_string());
    }
}

fn push_id(ids: &mut String, services: &Services, position: PhysicalOffset) {
    if !ids.is_empty() {
        ids.push(',');
    }
    let mut buffer = [0; mezzo_protocol::ids::OFFSET_MESSAGE_ID_BYTES_MAX];
    ids.push_str(OffsetMessageId::new(services.advertised, position).encode_into(&mut buffer));
}

fn broken(out: &mut BytesMut, reply: &SendReply, remark: &str) {
    response::write(out, reply.to, response::refusal(ResponseCode::SYSTEM_ERROR, remark));
}
