//! Messages as applications see them: [`Message`] is what a producer sends, [`ReceivedMessage`] what a handler gets.

mod compression;
mod outgoing;
mod received;

pub(crate) use compression::{INFLATED_BYTES_MAX, compress};
pub(crate) use outgoing::EncodedMessage;
pub use outgoing::{BatchFault, Message, MessageBuilder, MessageError};
pub use received::ReceivedMessage;
pub(crate) use received::UnreadableMessage;
