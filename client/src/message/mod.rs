//! Messages as applications see them: [`Message`] is what a producer sends, [`ReceivedMessage`] what a handler gets.

mod compression;
mod outgoing;
mod received;

pub(crate) use compression::{INFLATED_BYTES_MAX, compress};
pub use outgoing::{BatchFault, Message, MessageBuilder, MessageError};
pub(crate) use outgoing::{EncodedMessage, FENCE_PROPERTY};
pub use received::ReceivedMessage;
pub(crate) use received::UnreadableMessage;
