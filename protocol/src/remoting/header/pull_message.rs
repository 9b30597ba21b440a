//! PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361): read messages of a queue, waiting for some if asked to.

use std::borrow::Cow;

use super::wire_field::{WireField, wire_header};
use crate::error::DecodeError;
use crate::ids::QueueId;

/// The flags of a pull; unknown bits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PullSysFlag(pub i32);

impl PullSysFlag {
    /// The request also commits [`PullMessageHeader::commit_offset`].
    pub const COMMIT_OFFSET: Self = Self(0x1);
    /// Wait for messages if there are none.
    pub const SUSPEND: Self = Self(0x1 << 1);
    /// The request carries its subscription; without it the one of the last heartbeat counts.
    pub const SUBSCRIPTION: Self = Self(0x1 << 2);
    /// Legacy: filter by a class.
    pub const CLASS_FILTER: Self = Self(0x1 << 3);
    /// A consumer that polls.
    pub const LITE_PULL: Self = Self(0x1 << 4);

    /// Whether all bits of `flag` are set.
    #[must_use]
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    /// These flags with the bits of `flag` set.
    #[must_use]
    pub const fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }

    /// These flags with the bits of `flag` cleared.
    #[must_use]
    pub const fn without(self, flag: Self) -> Self {
        Self(self.0 & !flag.0)
    }
}

impl WireField<'_> for PullSysFlag {
    fn read(field: &'static str, text: Cow<'_, str>) -> Result<Self, DecodeError> {
        i32::read(field, text).map(Self)
    }

    fn write(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

wire_header! {
    /// Which messages are wanted.
    PullMessageHeader<'a> {
        /// The consumer group.
        consumer_group: Cow<'a, str> = "consumerGroup";
        /// The topic.
        topic: Cow<'a, str> = "topic";
        /// The queue.
        queue_id: QueueId = "queueId";
        /// The first position wanted.
        queue_offset: i64 = "queueOffset";
        /// At most so many messages.
        max_messages: i32 = "maxMsgNums";
        /// The flags.
        sys_flag: PullSysFlag = "sysFlag" or PullSysFlag(0);
        /// How far the group has come, if the flag says so.
        commit_offset: i64 = "commitOffset" or 0;
        /// How long to wait for messages, in milliseconds.
        suspend_timeout_ms: i64 = "suspendTimeoutMillis" or 0;
        /// The filter expression.
        subscription: Option<Cow<'a, str>> = "subscription";
        /// When the subscription was made, ms; newer ones win.
        sub_version: i64 = "subVersion" or 0;
        /// `TAG` or `SQL92`; absent means `TAG`.
        expression_type: Option<Cow<'a, str>> = "expressionType";
        /// At most so many bytes.
        max_bytes: Option<i32> = "maxMsgBytes";
    }
}

wire_header! {
    /// Where to go on.
    PullMessageReply {
        /// The broker to pull from next: 0, the master.
        suggest_broker_id: i64 = "suggestWhichBrokerId" or 0;
        /// The position to pull at next.
        next_begin_offset: i64 = "nextBeginOffset";
        /// The first position of the queue.
        min_offset: i64 = "minOffset";
        /// The position behind the last message.
        max_offset: i64 = "maxOffset";
    }
}
