//! What two machines must agree on: the remoting protocol of RocketMQ (frames, headers, bodies, codes), the stored
//! message, names, ids, limits, and which consumer owns which queue.
//!
//! Pure: no runtime, no clock, no files. Every decoder takes any bytes: bad input is a [`DecodeError`], never a panic,
//! and never an allocation by a length that was not checked first.
//!
//! ```text
//!   bytes ──frame──> Frame ──header_json / header_binary──> HeaderView ──header::*──> typed request
//!                      └──────────── body ──> body::* (JSON)  or  message::{batch, record}
//! ```
//!
//! Reading order: [`ids`], [`message`], [`remoting`], [`assignment`]; every bound is in [`limits`].

pub mod assignment;
pub mod check_policy;
mod cursor;
pub mod delay_level;
pub mod error;
pub mod ids;
pub mod limits;
pub mod message;
pub mod remoting;
pub mod system_topic;
pub mod time;

pub use error::{DecodeError, EncodeError};
