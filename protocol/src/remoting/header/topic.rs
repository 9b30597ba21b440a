//! Topics: UPDATE_AND_CREATE_TOPIC (17), DELETE_TOPIC_IN_BROKER (215), GET_ROUTEINFO_BY_TOPIC (105).

use std::borrow::Cow;

use super::wire_field::wire_header;
use crate::remoting::language::STANDARD_JSON_VERSION_MIN;

wire_header! {
    /// UPDATE_AND_CREATE_TOPIC (17): a topic is to be like this.
    CreateTopicHeader<'a> {
        /// The topic.
        topic: Cow<'a, str> = "topic";
        /// Whose settings it gets where none are given.
        default_topic: Option<Cow<'a, str>> = "defaultTopic";
        /// Queues that consumers see.
        read_queues: i32 = "readQueueNums";
        /// Queues that producers see.
        write_queues: i32 = "writeQueueNums";
        /// Who may do what, see [`crate::remoting::body::route::Permission`].
        perm: i32 = "perm" or 6;
        /// `SINGLE_TAG` or `MULTI_TAG`.
        topic_filter_type: Option<Cow<'a, str>> = "topicFilterType";
        /// Flags of RocketMQ's units.
        topic_sys_flag: Option<i32> = "topicSysFlag";
        /// Whether its queues are ordered globally.
        order: bool = "order" or false;
        /// Changes of attributes, `+name=value` or `-name`, joined by commas.
        attributes: Option<Cow<'a, str>> = "attributes";
    }
}

wire_header! {
    /// DELETE_TOPIC_IN_BROKER (215).
    DeleteTopicHeader<'a> {
        /// The topic.
        topic: Cow<'a, str> = "topic";
    }
}

wire_header! {
    /// GET_ROUTEINFO_BY_TOPIC (105): which brokers have a topic? The answer is in the body.
    RouteHeader<'a> {
        /// The topic.
        topic: Cow<'a, str> = "topic";
        /// Whether the client reads standard JSON only.
        accept_standard_json_only: Option<bool> = "acceptStandardJsonOnly";
    }
}

impl RouteHeader<'_> {
    /// Whether the route must be standard JSON; else its numeric keys go without quotes, which old clients need.
    #[must_use]
    pub fn wants_standard_json(&self, client_version: i32) -> bool {
        client_version >= STANDARD_JSON_VERSION_MIN || self.accept_standard_json_only == Some(true)
    }
}
