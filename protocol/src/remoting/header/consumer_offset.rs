//! Offsets: of a group in a queue (14, 15), at a time (29), the ends of a queue (30, 31, 32), a group's progress (208).

use std::borrow::Cow;

use super::wire_field::{WireField, wire_header};
use crate::error::DecodeError;
use crate::ids::QueueId;
use crate::time::Timestamp;

/// Which of several messages with one time a search by time means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Boundary {
    /// The first.
    #[default]
    Lower,
    /// The last.
    Upper,
}

impl WireField<'_> for Boundary {
    fn read(_: &'static str, text: Cow<'_, str>) -> Result<Self, DecodeError> {
        // RocketMQ takes everything but "upper" for "lower".
        Ok(if text.eq_ignore_ascii_case("upper") { Self::Upper } else { Self::Lower })
    }

    fn write(&self) -> Option<String> {
        Some(match self {
            Self::Lower => "LOWER".to_owned(),
            Self::Upper => "UPPER".to_owned(),
        })
    }
}

wire_header! {
    /// QUERY_CONSUMER_OFFSET (14): how far has a group come in a queue?
    QueryConsumerOffsetHeader<'a> {
        /// The consumer group.
        consumer_group: Cow<'a, str> = "consumerGroup";
        /// The topic.
        topic: Cow<'a, str> = "topic";
        /// The queue.
        queue_id: QueueId = "queueId";
        /// `false` forbids the broker to say 0 for a group that never committed.
        set_zero_if_not_found: Option<bool> = "setZeroIfNotFound";
    }
}

wire_header! {
    /// UPDATE_CONSUMER_OFFSET (15): a group has come this far in a queue.
    UpdateConsumerOffsetHeader<'a> {
        /// The consumer group.
        consumer_group: Cow<'a, str> = "consumerGroup";
        /// The topic.
        topic: Cow<'a, str> = "topic";
        /// The queue.
        queue_id: QueueId = "queueId";
        /// The next position to read; -1 from some clients for 0.
        commit_offset: i64 = "commitOffset";
    }
}

wire_header! {
    /// SEARCH_OFFSET_BY_TIMESTAMP (29): where was the queue at a point in time?
    SearchOffsetHeader<'a> {
        /// The topic.
        topic: Cow<'a, str> = "topic";
        /// The queue.
        queue_id: QueueId = "queueId";
        /// The point in time.
        timestamp: Timestamp = "timestamp";
        /// Which of several messages with this time.
        boundary: Boundary = "boundaryType" or Boundary::Lower;
    }
}

wire_header! {
    /// GET_MAX_OFFSET (30), GET_MIN_OFFSET (31), GET_EARLIEST_MSG_STORETIME (32): the ends of a queue.
    QueueHeader<'a> {
        /// The topic.
        topic: Cow<'a, str> = "topic";
        /// The queue.
        queue_id: QueueId = "queueId";
        /// For 30: `false` counts messages that are not visible yet, at Apache's.
        committed: Option<bool> = "committed";
    }
}

wire_header! {
    /// GET_CONSUME_STATS (208): how far is a group behind? The answer is in the body.
    ConsumeStatsHeader<'a> {
        /// The consumer group.
        consumer_group: Cow<'a, str> = "consumerGroup";
        /// Only this topic; absent means all that the group reads.
        topic: Option<Cow<'a, str>> = "topic";
    }
}

wire_header! {
    /// The reply to 14, 29, 30 and 31.
    OffsetReply {
        /// A position in the queue.
        offset: i64 = "offset";
    }
}

wire_header! {
    /// The reply to 32.
    EarliestStoreTimeReply {
        /// When the first message was stored, ms; -1 if there is none.
        timestamp: i64 = "timestamp";
    }
}
