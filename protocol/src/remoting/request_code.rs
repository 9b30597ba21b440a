//! Request codes: what is asked. All of RocketMQ 5's, so that a log line can name a request that is not supported, and
//! Mezzo's own from 7,700,001 on, far behind RocketMQ's last (200,151).

use std::fmt;

/// A request code. Unknown numbers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestCode(pub i32);

macro_rules! request_codes {
    ($($name:ident = $code:literal: $doc:literal;)*) => {
        impl RequestCode {
            $(#[doc = $doc] pub const $name: Self = Self($code);)*

            /// The name of the code; `UNKNOWN` for numbers that neither RocketMQ nor Mezzo has.
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

request_codes! {
    SEND_MESSAGE = 10: "Send one message, long field names.";
    PULL_MESSAGE = 11: "Read messages of a queue, waiting for some if asked to.";
    QUERY_MESSAGE = 12: "Find messages by key.";
    QUERY_BROKER_OFFSET = 13: "Legacy.";
    QUERY_CONSUMER_OFFSET = 14: "How far has a group come in a queue?";
    UPDATE_CONSUMER_OFFSET = 15: "A group has come this far in a queue.";
    UPDATE_AND_CREATE_TOPIC = 17: "Create a topic or change it.";
    UPDATE_AND_CREATE_TOPIC_LIST = 18: "Create or change several topics.";
    GET_ALL_TOPIC_CONFIG = 21: "All topics with their configuration.";
    GET_TOPIC_CONFIG_LIST = 22: "Legacy.";
    GET_TOPIC_NAME_LIST = 23: "Legacy.";
    UPDATE_BROKER_CONFIG = 25: "Change the broker's configuration.";
    GET_BROKER_CONFIG = 26: "The broker's configuration.";
    TRIGGER_DELETE_FILES = 27: "Legacy.";
    GET_BROKER_RUNTIME_INFO = 28: "Figures of the running broker.";
    SEARCH_OFFSET_BY_TIMESTAMP = 29: "The queue offset at a point in time.";
    GET_MAX_OFFSET = 30: "The queue offset behind the last message.";
    GET_MIN_OFFSET = 31: "The queue offset of the first message.";
    GET_EARLIEST_MSG_STORETIME = 32: "When the first message of a queue was stored.";
    VIEW_MESSAGE_BY_ID = 33: "Read the message at a position of the log.";
    HEART_BEAT = 34: "A client is here, with these groups.";
    UNREGISTER_CLIENT = 35: "A client leaves a group.";
    CONSUMER_SEND_MSG_BACK = 36: "A consumer could not process a message.";
    END_TRANSACTION = 37: "A producer decides a transaction.";
    GET_CONSUMER_LIST_BY_GROUP = 38: "The clients of a consumer group.";
    CHECK_TRANSACTION_STATE = 39: "The broker asks a producer about a half message.";
    NOTIFY_CONSUMER_IDS_CHANGED = 40: "The broker tells consumers that their group changed.";
    LOCK_BATCH_MQ = 41: "Lock queues for ordered consumption.";
    UNLOCK_BATCH_MQ = 42: "Release queues.";
    GET_ALL_CONSUMER_OFFSET = 43: "All offsets of all groups.";
    GET_ALL_DELAY_OFFSET = 45: "Progress of the delay levels.";
    CHECK_CLIENT_CONFIG = 46: "Is this filter expression valid?";
    GET_CLIENT_CONFIG = 47: "A client's configuration.";
    GET_TIMER_CHECK_POINT = 60: "Progress of timer messages.";
    GET_TIMER_METRICS = 61: "Figures of timer messages.";
    PUT_KV_CONFIG = 100: "Name server: set a key.";
    GET_KV_CONFIG = 101: "Name server: read a key.";
    DELETE_KV_CONFIG = 102: "Name server: delete a key.";
    REGISTER_BROKER = 103: "Name server: a broker is here, with these topics.";
    UNREGISTER_BROKER = 104: "Name server: a broker leaves.";
    GET_ROUTEINFO_BY_TOPIC = 105: "Name server: which brokers have a topic?";
    GET_BROKER_CLUSTER_INFO = 106: "Name server: all brokers by cluster.";
    UPDATE_AND_CREATE_SUBSCRIPTIONGROUP = 200: "Create a consumer group or change it.";
    GET_ALL_SUBSCRIPTIONGROUP_CONFIG = 201: "All consumer groups with their configuration.";
    GET_TOPIC_STATS_INFO = 202: "Offsets of a topic's queues.";
    GET_CONSUMER_CONNECTION_LIST = 203: "Connections of a consumer group.";
    GET_PRODUCER_CONNECTION_LIST = 204: "Connections of a producer group.";
    WIPE_WRITE_PERM_OF_BROKER = 205: "Name server: stop writes to a broker.";
    GET_ALL_TOPIC_LIST_FROM_NAMESERVER = 206: "Name server: all topics.";
    DELETE_SUBSCRIPTIONGROUP = 207: "Delete a consumer group.";
    GET_CONSUME_STATS = 208: "Progress of a group.";
    SUSPEND_CONSUMER = 209: "Legacy.";
    RESUME_CONSUMER = 210: "Legacy.";
    RESET_CONSUMER_OFFSET_IN_CONSUMER = 211: "Legacy.";
    RESET_CONSUMER_OFFSET_IN_BROKER = 212: "Legacy.";
    ADJUST_CONSUMER_THREAD_POOL = 213: "Legacy.";
    WHO_CONSUME_THE_MESSAGE = 214: "Legacy.";
    DELETE_TOPIC_IN_BROKER = 215: "Delete a topic.";
    DELETE_TOPIC_IN_NAMESRV = 216: "Name server: delete a topic.";
    REGISTER_TOPIC_IN_NAMESRV = 217: "Name server: register a topic.";
    GET_KVLIST_BY_NAMESPACE = 219: "Name server: all keys of a name space.";
    RESET_CONSUMER_CLIENT_OFFSET = 220: "The broker tells consumers to move.";
    GET_CONSUMER_STATUS_FROM_CLIENT = 221: "The broker asks a consumer how far it is.";
    INVOKE_BROKER_TO_RESET_OFFSET = 222: "Move a group to a point in time.";
    INVOKE_BROKER_TO_GET_CONSUMER_STATUS = 223: "How far are a group's consumers?";
    GET_TOPICS_BY_CLUSTER = 224: "Name server: topics of a cluster.";
    UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST = 225: "Create or change several consumer groups.";
    QUERY_TOPIC_CONSUME_BY_WHO = 300: "Groups that consume a topic.";
    REGISTER_FILTER_SERVER = 301: "Legacy.";
    REGISTER_MESSAGE_FILTER_CLASS = 302: "Legacy.";
    QUERY_CONSUME_TIME_SPAN = 303: "Times between which a group has messages to read.";
    GET_SYSTEM_TOPIC_LIST_FROM_NS = 304: "Name server: system topics.";
    GET_SYSTEM_TOPIC_LIST_FROM_BROKER = 305: "System topics of a broker.";
    CLEAN_EXPIRED_CONSUMEQUEUE = 306: "Delete consume queues without messages.";
    GET_CONSUMER_RUNNING_INFO = 307: "The broker asks a consumer for its state.";
    QUERY_CORRECTION_OFFSET = 308: "Compare the offsets of groups.";
    CONSUME_MESSAGE_DIRECTLY = 309: "Have one consumer process one message.";
    SEND_MESSAGE_V2 = 310: "Send one message, one-letter field names.";
    GET_UNIT_TOPIC_LIST = 311: "Name server: unit topics.";
    GET_HAS_UNIT_SUB_TOPIC_LIST = 312: "Name server: topics with unit subscriptions.";
    GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST = 313: "Name server: other topics with unit subscriptions.";
    CLONE_GROUP_OFFSET = 314: "Copy the offsets of one group to another.";
    VIEW_BROKER_STATS_DATA = 315: "One figure of the broker over time.";
    CLEAN_UNUSED_TOPIC = 316: "Delete what unused topics left.";
    GET_BROKER_CONSUME_STATS = 317: "Progress of all groups.";
    UPDATE_NAMESRV_CONFIG = 318: "Name server: change the configuration.";
    GET_NAMESRV_CONFIG = 319: "Name server: the configuration.";
    SEND_BATCH_MESSAGE = 320: "Send several messages of one topic.";
    QUERY_CONSUME_QUEUE = 321: "Entries of a consume queue.";
    QUERY_DATA_VERSION = 322: "Name server: is this version of a broker's topics known?";
    RESUME_CHECK_HALF_MESSAGE = 323: "Ask again about a half message that was given up.";
    SEND_REPLY_MESSAGE = 324: "Send the reply to a request message, long field names.";
    SEND_REPLY_MESSAGE_V2 = 325: "Send the reply to a request message, one-letter field names.";
    PUSH_REPLY_MESSAGE_TO_CLIENT = 326: "The broker hands a reply message to its requester.";
    ADD_WRITE_PERM_OF_BROKER = 327: "Name server: allow writes to a broker again.";
    GET_ALL_PRODUCER_INFO = 328: "Connections of all producer groups.";
    DELETE_EXPIRED_COMMITLOG = 329: "Delete old parts of the log now.";
    QUERY_TOPICS_BY_CONSUMER = 343: "Topics that a group consumes.";
    QUERY_SUBSCRIPTION_BY_CONSUMER = 345: "A group's subscription to a topic.";
    GET_TOPIC_CONFIG = 351: "One topic's configuration.";
    GET_SUBSCRIPTIONGROUP_CONFIG = 352: "One group's configuration.";
    UPDATE_AND_GET_GROUP_FORBIDDEN = 353: "Forbid a group to read a topic.";
    CHECK_ROCKSDB_CQ_WRITE_PROGRESS = 354: "Compare two kinds of consume queues.";
    EXPORT_ROCKSDB_CONFIG_TO_JSON = 355: "Write configuration kept in RocksDB as JSON.";
    LITE_PULL_MESSAGE = 361: "A pull of a consumer that polls.";
    RECALL_MESSAGE = 370: "Take back a timer message.";
    QUERY_ASSIGNMENT = 400: "The queues of a consumer, assigned by the broker.";
    SET_MESSAGE_REQUEST_MODE = 401: "Switch a group between pull and pop.";
    GET_ALL_MESSAGE_REQUEST_MODE = 402: "All groups' modes.";
    UPDATE_AND_CREATE_STATIC_TOPIC = 513: "Create a topic with a fixed number of queues over brokers.";
    GET_BROKER_MEMBER_GROUP = 901: "Name server: brokers of one name.";
    ADD_BROKER = 902: "Container: add a broker.";
    REMOVE_BROKER = 903: "Container: remove a broker.";
    BROKER_HEARTBEAT = 904: "Name server: a broker is alive.";
    NOTIFY_MIN_BROKER_ID_CHANGE = 905: "The smallest id of a group of brokers changed.";
    EXCHANGE_BROKER_HA_INFO = 906: "Master and slave introduce themselves.";
    GET_BROKER_HA_STATUS = 907: "State of the replication.";
    RESET_MASTER_FLUSH_OFFSET = 908: "Move the master's flush position.";
    CONTROLLER_ALTER_SYNC_STATE_SET = 1001: "Controller: change the set of replicas in step.";
    CONTROLLER_ELECT_MASTER = 1002: "Controller: choose a master.";
    CONTROLLER_REGISTER_BROKER = 1003: "Controller: a broker is here.";
    CONTROLLER_GET_REPLICA_INFO = 1004: "Controller: replicas of a broker.";
    CONTROLLER_GET_METADATA_INFO = 1005: "Controller: its own state.";
    CONTROLLER_GET_SYNC_STATE_DATA = 1006: "Controller: sets of replicas in step.";
    GET_BROKER_EPOCH_CACHE = 1007: "Epochs of a broker's log.";
    NOTIFY_BROKER_ROLE_CHANGED = 1008: "Controller: a broker's role changed.";
    UPDATE_CONTROLLER_CONFIG = 1009: "Controller: change the configuration.";
    GET_CONTROLLER_CONFIG = 1010: "Controller: the configuration.";
    CLEAN_BROKER_DATA = 1011: "Controller: forget a broker.";
    CONTROLLER_GET_NEXT_BROKER_ID = 1012: "Controller: the next free broker id.";
    CONTROLLER_APPLY_BROKER_ID = 1013: "Controller: claim a broker id.";
    UPDATE_COLD_DATA_FLOW_CTR_CONFIG = 2001: "Limit reads of old messages.";
    REMOVE_COLD_DATA_FLOW_CTR_CONFIG = 2002: "Lift a limit on reads of old messages.";
    GET_COLD_DATA_FLOW_CTR_INFO = 2003: "Limits on reads of old messages.";
    SET_COMMITLOG_READ_MODE = 2004: "How the log is read ahead.";
    AUTH_CREATE_USER = 3001: "Access control: create a user.";
    AUTH_UPDATE_USER = 3002: "Access control: change a user.";
    AUTH_DELETE_USER = 3003: "Access control: delete a user.";
    AUTH_GET_USER = 3004: "Access control: one user.";
    AUTH_LIST_USER = 3005: "Access control: all users.";
    AUTH_CREATE_ACL = 3006: "Access control: create a policy.";
    AUTH_UPDATE_ACL = 3007: "Access control: change a policy.";
    AUTH_DELETE_ACL = 3008: "Access control: delete a policy.";
    AUTH_GET_ACL = 3009: "Access control: one policy.";
    AUTH_LIST_ACL = 3010: "Access control: all policies.";
    POP_MESSAGE = 200_050: "Take messages, invisible to others for a while.";
    ACK_MESSAGE = 200_051: "A popped message is done.";
    PEEK_MESSAGE = 200_052: "Look at messages without taking them.";
    CHANGE_MESSAGE_INVISIBLETIME = 200_053: "Keep a popped message longer, or give it back.";
    NOTIFICATION = 200_054: "Wait until there is something to pop.";
    POLLING_INFO = 200_055: "How many wait for messages.";
    POP_ROLLBACK = 200_056: "Roll back to an older kind of pop state.";
    BATCH_ACK_MESSAGE = 200_151: "Several popped messages are done.";
    MEZZO_LIST_TRANSACTIONS = 7_700_001: "Mezzo: open transactions, page by page.";
    MEZZO_SHOW_TRANSACTION = 7_700_002: "Mezzo: all that is known about one transaction.";
    MEZZO_DECIDE_TRANSACTION = 7_700_003: "Mezzo: a person decides a transaction.";
    MEZZO_RESUME_TRANSACTION = 7_700_004: "Mezzo: ask again about a transaction that was parked.";
    MEZZO_GET_CHECK_POLICY = 7_700_005: "Mezzo: how a producer group's transactions are asked about.";
    MEZZO_SET_CHECK_POLICY = 7_700_006: "Mezzo: set or clear a producer group's check-back policy.";
    MEZZO_LEASE_QUEUE = 7_700_011: "Mezzo: the right to move a queue's offset inside transactions.";
    MEZZO_RELEASE_QUEUE = 7_700_012: "Mezzo: gives that right back.";
}

impl From<RequestCode> for i32 {
    fn from(code: RequestCode) -> Self {
        code.0
    }
}

impl fmt::Display for RequestCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_shown_by_name_and_number() {
        assert_eq!(RequestCode::END_TRANSACTION.to_string(), "END_TRANSACTION (37)");
        assert_eq!(RequestCode(-5).to_string(), "UNKNOWN (-5)");
    }
}
