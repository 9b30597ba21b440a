//! RocketMQ's remoting protocol: how requests and replies are framed, and what they say.
//!
//! ```text
//!   frame   total length u32 | encoding u8, header length u24 | header | body
//!   header  code, language, version, opaque, flag, remark, extension fields (text -> text), as JSON or binary
//! ```
//! Either side may ask: flag bit 0 marks a reply, bit 1 a request that wants none, and `opaque` connects the two.
//! A reply uses the encoding of its request.
//!
//! The receiving side borrows ([`frame`], [`header`]); the sending side owns ([`command`]).

pub mod body;
pub mod codec;
pub mod command;
pub mod frame;
pub mod header;
mod header_binary;
mod header_json;
mod json_text;
pub mod language;
pub mod request_code;
pub mod response_code;
pub mod send_reply;
pub mod send_request;

pub use command::RemotingCommand;
pub use frame::{Frame, FrameView, HeaderEncoding};
pub use header::{ExtFields, HeaderView};
pub use language::LanguageCode;
pub use request_code::RequestCode;
pub use response_code::ResponseCode;
pub use send_reply::{SendReply, encode_send_reply};
pub use send_request::{SendRequest, encode_send_request};
