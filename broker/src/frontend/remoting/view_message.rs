//! VIEW_MESSAGE_BY_ID (33): the message at a position of the log. The position is a raw number from the network: the
//! store answers only for a visible message that starts there.

use std::sync::Arc;

use bytes::BytesMut;
use mezzo_protocol::{
    ids::{PhysicalOffset, QueueOffset},
    remoting::{
        command::RemotingCommand, header::view_message::ViewMessageHeader, response_code::ResponseCode,
    },
    time::Timestamp,
};

use super::{
    response,
    turn::{Handled, Request, Step, Turn},
};
use crate::service::{Services, pull};

/// Reads on a thread that may wait for the disk and answers from there.
pub(crate) fn handle(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = ViewMessageHeader::decode(&request.header.ext)?;
    let Some(held) = turn.channel.hold_for_work() else {
        turn.refuse_held(request);
        return Ok(Step::Done);
    };
    let (to, offset) = (request.reply_to(), header.offset);
    let services = Arc::clone(turn.services);
    // it answers by itself; nobody waits for its end
    drop(turn.services.on_disk_thread(move || {
        let reply = match PhysicalOffset::from_wire(offset) {
            Some(position) => view(&services, position),
            None => not_found(offset),
        };
        // a connection that closed meanwhile wants no answer
        let _ = held.channel().push_reply(to, reply);
    }));
    Ok(Step::Done)
}

fn view(services: &Services, position: PhysicalOffset) -> RemotingCommand {
    let read = match services.store.read_by_position(position) {
        Ok(read) => read,
        Err(error) => {
            tracing::debug!(position = position.0, %error, "no message to view");
            return not_found(position.as_wire());
        }
    };
    let mut body = BytesMut::new();
    let queue_offset = read.queue_offset.unwrap_or(QueueOffset(0));
    let visible_at = read.visible_at.unwrap_or(Timestamp::ZERO);
    match pull::deliver(&read.message, queue_offset, visible_at, services.advertised, &mut body) {
        Ok(()) => response::ok().with_body(body),
        Err(error) => response::refusal(ResponseCode::SYSTEM_ERROR, error.to_string()),
    }
}

fn not_found(offset: i64) -> RemotingCommand {
    response::refusal(ResponseCode::SYSTEM_ERROR, format!("can not find message by the offset, {offset}"))
}
