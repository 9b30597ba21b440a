//! CONSUMER_SEND_MSG_BACK (36): a consumer could not process a message. Rare and never urgent, so it is served by a task
//! of its own: read the message, make the retry topic, append the copy, answer when that is durable.

use std::sync::Arc;

use mezzo_protocol::{
    ids::{GroupName, PhysicalOffset},
    remoting::{header::consumer_send_back::ConsumerSendBackHeader, response_code::ResponseCode},
};

use super::{
    response,
    turn::{Handled, Request, Step, Turn},
};
use crate::service::redelivery::{self, SendBack};

/// Starts the task.
pub(crate) fn handle(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = ConsumerSendBackHeader::decode(&request.header.ext)?;
    let Some(position) = PhysicalOffset::from_wire(header.offset) else {
        let remark = format!("look message by offset failed, {}", header.offset);
        turn.refuse(request, ResponseCode::SYSTEM_ERROR, remark);
        return Ok(Step::Done);
    };
    let back = SendBack {
        position,
        group: GroupName::new(&header.group)?,
        delay_level: header.delay_level,
        attempts_max: header.max_reconsume_times,
    };
    let Some(held) = turn.channel.hold_for_work() else {
        turn.refuse_held(request);
        return Ok(Step::Done);
    };
    let (to, now, services) = (request.reply_to(), turn.now, Arc::clone(turn.services));
    tokio::spawn(async move {
        let reply = match redelivery::send_back(&services, now, back).await {
            Ok(()) => response::ok(),
            Err(error) => response::send_back_refusal(&error),
        };
        // a connection that closed meanwhile wants no answer
        let _ = held.channel().push_reply(to, reply);
    });
    Ok(Step::Done)
}
