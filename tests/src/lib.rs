//! What the tests of whole brokers share.

pub mod source;
