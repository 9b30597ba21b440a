//! What is refused while too many bytes are in flight (`limits.in_flight_bytes`), and with which code. Refused is what
//! brings messages or fetches them; everything that lets others finish is served: END, offsets, heartbeats, leases,
//! locks, administration.
//!
//! Producers of RocketMQ send again after SYSTEM_BUSY (2). Its consumers pull again, soon after FLOW_CONTROL (215) where
//! they know it, and after their pause for errors where they do not.

use mezzo_protocol::remoting::{
    command::RemotingCommand, request_code::RequestCode as Code, response_code::ResponseCode,
};

use super::response;
use crate::service::{Services, seldom::Seldom};

/// Bytes of each connection that are not counted as in flight: room for every request that is always served.
pub(crate) const UNCOUNTED_BYTES: usize = 64 << 10;

static LINE: Seldom = Seldom::new();

/// The refusal of a request with this code, if it is one that is refused at the moment.
pub(crate) fn refusal(services: &Services, code: i32) -> Option<RemotingCommand> {
    if !services.in_flight.is_exhausted() {
        return None;
    }
    let code = match Code(code) {
        Code::SEND_MESSAGE
        | Code::SEND_MESSAGE_V2
        | Code::SEND_BATCH_MESSAGE
        | Code::CONSUMER_SEND_MSG_BACK
        | Code::VIEW_MESSAGE_BY_ID => ResponseCode::SYSTEM_BUSY,
        Code::PULL_MESSAGE | Code::LITE_PULL_MESSAGE => ResponseCode::FLOW_CONTROL,
        _ => return None,
    };
    Some(refused(services, code))
}

/// The refusal of a request of which too much had to be taken in before it could be served, whatever it asks for.
pub(crate) fn unread(services: &Services) -> RemotingCommand {
    refused(services, ResponseCode::SYSTEM_BUSY)
}

fn refused(services: &Services, code: ResponseCode) -> RemotingCommand {
    services.metrics.requests_shed.add(1);
    if let Some(kept_back) = LINE.may_say() {
        let bound = services.config.limits.in_flight_bytes;
        tracing::warn!(
            %bound,
            kept_back,
            "sends and pulls are refused as busy: limits.in_flight_bytes of requests and answers are under way"
        );
    }
    response::refusal(code, "the broker has too much under way (limits.in_flight_bytes); try again later")
}
