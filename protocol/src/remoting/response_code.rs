//! Response codes: how a request went. What a client does next depends on the number, so each says what clients make of
//! it where that matters.

use std::fmt;

/// A response code. Unknown numbers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResponseCode(pub i32);

macro_rules! response_codes {
    ($($name:ident = $code:literal: $doc:literal;)*) => {
        impl ResponseCode {
            $(#[doc = $doc] pub const $name: Self = Self($code);)*

            /// RocketMQ's name of the code; `UNKNOWN` for numbers it does not have.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($code => stringify!($name),)*
                    _ => "UNKNOWN",
                }
            }
        }
    };
}

response_codes! {
    SUCCESS = 0: "Done.";
    SYSTEM_ERROR = 1: "Failed; the remark says why. Producers try another broker.";
    SYSTEM_BUSY = 2: "Not now. Producers try another broker, if they are set to.";
    REQUEST_CODE_NOT_SUPPORTED = 3: "This request is not known here.";
    TRANSACTION_FAILED = 4: "Legacy.";
    FLUSH_DISK_TIMEOUT = 10: "Stored, maybe not safe on disk. Transactional producers roll back: never for half messages.";
    SLAVE_NOT_AVAILABLE = 11: "Stored, but on no replica. Transactional producers roll back: never for half messages.";
    FLUSH_SLAVE_TIMEOUT = 12: "Stored, maybe on no replica. Transactional producers roll back: never for half messages.";
    MESSAGE_ILLEGAL = 13: "The message breaks a bound.";
    SERVICE_NOT_AVAILABLE = 14: "The broker cannot serve now. Producers try another.";
    VERSION_NOT_SUPPORTED = 15: "The client is too old or too new.";
    NO_PERMISSION = 16: "Not allowed.";
    TOPIC_NOT_EXIST = 17: "No such topic. Producers fall back to the route of TBW102.";
    TOPIC_EXIST_ALREADY = 18: "The topic is there already.";
    PULL_NOT_FOUND = 19: "No new message at this offset.";
    PULL_RETRY_IMMEDIATELY = 20: "Messages there, but none that the filter takes: pull on at the next offset.";
    PULL_OFFSET_MOVED = 21: "The offset is outside the queue: pull at the offset told.";
    QUERY_NOT_FOUND = 22: "Nothing found; for offsets: the group never committed any.";
    SUBSCRIPTION_PARSE_FAILED = 23: "The filter expression is wrong.";
    SUBSCRIPTION_NOT_EXIST = 24: "The group is not subscribed to this topic.";
    SUBSCRIPTION_NOT_LATEST = 25: "The client knows a newer subscription than the broker.";
    SUBSCRIPTION_GROUP_NOT_EXIST = 26: "No such group.";
    FILTER_DATA_NOT_EXIST = 27: "The broker has no filter for this group.";
    FILTER_DATA_NOT_LATEST = 28: "The client knows a newer filter than the broker.";
    INVALID_PARAMETER = 29: "A field is wrong.";
    TRANSACTION_SHOULD_COMMIT = 200: "Legacy.";
    TRANSACTION_SHOULD_ROLLBACK = 201: "Legacy.";
    TRANSACTION_STATE_UNKNOW = 202: "Legacy.";
    TRANSACTION_STATE_GROUP_WRONG = 203: "Legacy.";
    NO_BUYER_ID = 204: "Legacy. Producers try another broker.";
    NOT_IN_CURRENT_UNIT = 205: "Legacy. Producers try another broker.";
    CONSUMER_NOT_ONLINE = 206: "No consumer of the group is connected.";
    CONSUME_MSG_TIMEOUT = 207: "The chosen consumer did not answer.";
    NO_MESSAGE = 208: "No such message.";
    POLLING_FULL = 209: "Too many wait already.";
    POLLING_TIMEOUT = 210: "Waited in vain.";
    BROKER_NOT_EXIST = 211: "No such broker.";
    BROKER_DISPATCH_NOT_COMPLETE = 212: "Stored messages are not all visible yet.";
    BROADCAST_CONSUMPTION = 213: "The group reads as broadcast.";
    FLOW_CONTROL = 215: "Too much at the moment: later.";
    NOT_LEADER_FOR_QUEUE = 501: "The queue lives elsewhere now.";
    ILLEGAL_OPERATION = 604: "Not possible for this object.";
    GO_AWAY = 1500: "Connect again, possibly elsewhere.";
    CONTROLLER_FENCED_MASTER_EPOCH = 2000: "Controller: an older master.";
    CONTROLLER_FENCED_SYNC_STATE_SET_EPOCH = 2001: "Controller: an older set of replicas.";
    CONTROLLER_INVALID_MASTER = 2002: "Controller: not the master.";
    CONTROLLER_INVALID_REPLICAS = 2003: "Controller: not a replica.";
    CONTROLLER_MASTER_NOT_AVAILABLE = 2004: "Controller: no master.";
    CONTROLLER_INVALID_REQUEST = 2005: "Controller: wrong request.";
    CONTROLLER_BROKER_NOT_ALIVE = 2006: "Controller: the broker is gone.";
    CONTROLLER_NOT_LEADER = 2007: "Controller: another controller leads.";
    CONTROLLER_BROKER_METADATA_NOT_EXIST = 2008: "Controller: an unknown broker.";
    CONTROLLER_INVALID_CLEAN_BROKER_METADATA = 2009: "Controller: the broker cannot be forgotten.";
    CONTROLLER_BROKER_NEED_TO_BE_REGISTERED = 2010: "Controller: register first.";
    CONTROLLER_MASTER_STILL_EXIST = 2011: "Controller: there is a master.";
    CONTROLLER_ELECT_MASTER_FAILED = 2012: "Controller: no master could be chosen.";
    CONTROLLER_ALTER_SYNC_STATE_SET_FAILED = 2013: "Controller: the set of replicas is as before.";
    CONTROLLER_BROKER_ID_INVALID = 2014: "Controller: the broker id is taken.";
    CONTROLLER_JRAFT_INTERNAL_ERROR = 2015: "Controller: its log failed.";
    CONTROLLER_BROKER_LIVE_INFO_NOT_EXISTS = 2016: "Controller: no sign of life of the broker.";
    USER_NOT_EXIST = 3001: "Access control: no such user.";
    POLICY_NOT_EXIST = 3002: "Access control: no such policy.";
    RPC_UNKNOWN = -1000: "Between brokers: failed.";
    RPC_ADDR_IS_NULL = -1002: "Between brokers: no address.";
    RPC_SEND_TO_CHANNEL_FAILED = -1004: "Between brokers: not sent.";
    RPC_TIME_OUT = -1006: "Between brokers: no answer in time.";
}

impl ResponseCode {
    /// Whether the request was done.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 == Self::SUCCESS.0
    }
}

impl From<ResponseCode> for i32 {
    fn from(code: ResponseCode) -> Self {
        code.0
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_shown_by_name_and_number() {
        assert_eq!(ResponseCode::PULL_NOT_FOUND.to_string(), "PULL_NOT_FOUND (19)");
        assert!(!ResponseCode::PULL_NOT_FOUND.is_success());
        assert_eq!(ResponseCode(12_345).name(), "UNKNOWN");
    }
}
