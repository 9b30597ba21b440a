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
use mezzo_storage::{FirstAnswer, OperationResult};

use super::{
    response,
    turn::{Handled, PendingReply, Request, SendReply, Step, Turn},
};
use crate::service::{
    Services,
    client_channel::ClientChannel as _,
    send::{self, Send, SendError, Sender},
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
        sender: Sender { id: turn.sender, waits: request.reply_to().wanted, judged: turn.judged },
    };
    let sent = match send::send(turn.services, turn.now, turn.batch, &wanted) {
        Ok(sent) => sent,
        Err(SendError::CreateTopic(topic)) => return Ok(Step::CreateTopic(topic)),
        Err(SendError::MayRepeat(candidate)) => return Ok(Step::Settle(candidate)),
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
            keys: sent.keys,
        }));
    }
    Ok(Step::Done)
}

/// Writes the answer to a send. `results` are those of its operations: one per message. False if the answer is no
/// success.
pub(crate) fn encode_reply(
    out: &mut BytesMut,
    reply: &SendReply,
    results: &[OperationResult],
    services: &Services,
) -> bool {
    let mut ids = String::new();
    let mut first = None;
    let mut queue = reply.queue;
    for (index, result) in results.iter().enumerate() {
        let repeated;
        let result = if let OperationResult::Repeats { position } = result {
            let Some(answer) = first_answer(reply, index, *position, services) else {
                return broken(
                    out,
                    reply,
                    "an equal message that was sent at the same moment cannot be read",
                    services,
                );
            };
            services.metrics.sends_deduplicated.add(1);
            queue = answer.queue;
            repeated = answer.result;
            &repeated
        } else {
            result
        };
        let (position, queue_offset) = match result {
            OperationResult::Stored { queue_offset, position } => (*position, *queue_offset),
            // END names the transaction by this number: its origin
            OperationResult::Prepared { origin, position } => (*position, QueueOffset(origin.0)),
            // it has no place in its queue before it is due
            OperationResult::Scheduled { position } => (*position, QueueOffset(0)),
            OperationResult::Refused(refusal) => {
                response::write(out, reply.to, response::operation_refusal(*refusal), &services.metrics);
                return false;
            }
            other => return broken(out, reply, &format!("a send got the result {other:?}"), services),
        };
        first.get_or_insert(queue_offset);
        push_id(&mut ids, services, position);
    }
    let Some(queue_offset) = first else { return broken(out, reply, "a send got no result", services) };
    let wire = WireReply {
        opaque: reply.to.opaque.0,
        version: PROTOCOL_VERSION,
        msg_id: &ids,
        queue_id: queue,
        queue_offset,
        transaction_id: reply.transaction_id.as_deref(),
    };
    match encode_send_reply(out, reply.to.encoding, &wire) {
        Ok(()) => true,
        Err(error) => broken(out, reply, &error.to_string(), services),
    }
}

/// What an equal message that was appended at the same moment is answered with. It is among the newest of the log, so
/// the disk is not waited for.
fn first_answer(
    reply: &SendReply,
    index: usize,
    position: PhysicalOffset,
    services: &Services,
) -> Option<FirstAnswer> {
    let keys = reply.keys.as_ref()?;
    let key = (*keys.keys.get(index)?)?;
    services.store.first_answer(position, key, keys.rule).unwrap_or_else(|error| {
        tracing::warn!(%error, position = position.0, "the first of two equal sends cannot be read");
        None
    })
}

fn push_id(ids: &mut String, services: &Services, position: PhysicalOffset) {
    if !ids.is_empty() {
        ids.push(',');
    }
    let mut buffer = [0; mezzo_protocol::ids::OFFSET_MESSAGE_ID_BYTES_MAX];
    ids.push_str(OffsetMessageId::new(services.advertised, position).encode_into(&mut buffer));
}

fn broken(out: &mut BytesMut, reply: &SendReply, remark: &str, services: &Services) -> bool {
    let refused = response::refusal(ResponseCode::SYSTEM_ERROR, remark);
    response::write(out, reply.to, refused, &services.metrics);
    false
}
