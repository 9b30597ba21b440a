//! The message: its flags, properties and tags, how it is stored and delivered, and how a batch of them is sent.
//!
//! A broker stores a message in the encoding that a pull reply carries ([`record`]), so this is a contract between
//! client and broker as much as a file format.

pub mod batch;
pub mod properties;
pub mod record;
pub mod sys_flag;
pub mod tag;
