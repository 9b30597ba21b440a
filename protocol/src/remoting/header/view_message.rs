//! VIEW_MESSAGE_BY_ID (33): read the message at a position of the log. The answer's body is the message.

use std::borrow::Cow;

use super::wire_field::wire_header;

wire_header! {
    /// Which message.
    ViewMessageHeader<'a> {
        /// The topic; sent by newer clients only.
        topic: Option<Cow<'a, str>> = "topic";
        /// The position in the log, a raw number from the network.
        offset: i64 = "offset";
    }
}
