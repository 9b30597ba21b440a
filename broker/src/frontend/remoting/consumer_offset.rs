//! Offsets: QUERY_CONSUMER_OFFSET (14), UPDATE_CONSUMER_OFFSET (15), SEARCH_OFFSET_BY_TIMESTAMP (29), GET_MAX_OFFSET (30),
//! GET_MIN_OFFSET (31), GET_EARLIEST_MSG_STORETIME (32).

use mezzo_protocol::{
    ids::QueueOffset,
    remoting::{
        command::RemotingCommand,
        header::consumer_offset::{
            Boundary, EarliestStoreTimeReply, OffsetReply, QueryConsumerOffsetHeader, QueueHeader,
            SearchOffsetHeader, UpdateConsumerOffsetHeader,
        },
        request_code::RequestCode as Code,
    },
};

use super::{
    response,
    turn::{Handled, Request, Step, Turn},
};
use crate::service::offset::{self, OffsetError};

/// Answers at once: offsets are kept in memory, and the ends of a queue too.
pub(crate) fn handle(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let (services, ext) = (turn.services, &request.header.ext);
    let reply = match Code(request.header.code) {
        Code::QUERY_CONSUMER_OFFSET => {
            let header = QueryConsumerOffsetHeader::decode(ext)?;
            let zero_allowed = header.set_zero_if_not_found != Some(false);
            tell(offset::consumed(
                services,
                &header.consumer_group,
                &header.topic,
                header.queue_id,
                zero_allowed,
            ))
        }
        Code::UPDATE_CONSUMER_OFFSET => {
            let header = UpdateConsumerOffsetHeader::decode(ext)?;
            let reported = match QueueOffset::from_wire(header.commit_offset) {
                Some(at) => {
                    offset::report(services, &header.consumer_group, &header.topic, header.queue_id, at)
                }
                // "none yet", which some clients report before their first message
                None => Ok(()),
            };
            reported.map_or_else(|error| response::offset_refusal(&error), |()| response::ok())
        }
        Code::SEARCH_OFFSET_BY_TIMESTAMP => {
            let header = SearchOffsetHeader::decode(ext)?;
            let last = header.boundary == Boundary::Upper;
            tell(
                offset::queue(services, &header.topic, header.queue_id)
                    .and_then(|queue| offset::at_time(services, &queue, header.timestamp, last)),
            )
        }
        Code::GET_EARLIEST_MSG_STORETIME => {
            let header = QueueHeader::decode(ext)?;
            let found = offset::queue(services, &header.topic, header.queue_id)
                .and_then(|queue| offset::earliest(services, &queue));
            match found {
                Ok(at) => {
                    let timestamp = at.map_or(-1, |at| at.as_wire_ms());
                    response::ok().with_ext(EarliestStoreTimeReply { timestamp }.encode())
                }
                Err(error) => response::offset_refusal(&error),
            }
        }
        code => {
            let header = QueueHeader::decode(ext)?;
            tell(offset::queue(services, &header.topic, header.queue_id).map(|queue| {
                if code == Code::GET_MIN_OFFSET { queue.min_offset() } else { queue.max_offset() }
            }))
        }
    };
    turn.reply(request, reply);
    Ok(Step::Done)
}

fn tell(found: Result<QueueOffset, OffsetError>) -> RemotingCommand {
    match found {
        Ok(offset) => response::ok().with_ext(OffsetReply { offset: offset.as_wire() }.encode()),
        Err(error) => response::offset_refusal(&error),
    }
}
