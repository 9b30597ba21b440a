//! CONSUMER_SEND_MSG_BACK (36): a consumer could not process a message; the broker is to deliver it again later.

use std::borrow::Cow;

use super::wire_field::wire_header;

wire_header! {
    /// Which message, and when again.
    ConsumerSendBackHeader<'a> {
        /// The message's position in the log.
        offset: i64 = "offset";
        /// The consumer group.
        group: Cow<'a, str> = "group";
        /// The delay level; 0 lets the broker climb the ladder, below 0 goes to the dead-letter topic at once.
        delay_level: i32 = "delayLevel" or 0;
        /// The message's id as the consumer knows it.
        origin_msg_id: Option<Cow<'a, str>> = "originMsgId";
        /// The message's topic as the consumer knows it.
        origin_topic: Option<Cow<'a, str>> = "originTopic";
        /// Legacy: the sender belongs to a unit.
        unit_mode: bool = "unitMode" or false;
        /// After how many attempts the message goes to the dead-letter topic.
        max_reconsume_times: Option<i32> = "maxReconsumeTimes";
    }
}
