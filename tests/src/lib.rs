//! What the tests of whole brokers share: brokers in this process and as real binaries, a raw connection that says
//! what a foreign client would say, a clock that is moved by hand, and a reader of the log's own bytes.

pub mod binary;
pub mod broker;
pub mod chance;
pub mod clock;
pub mod consumer;
pub mod load;
pub mod log_reader;
pub mod loop_disk;
pub mod name_server;
pub mod oracle;
pub mod producer;
pub mod proxy;
pub mod scrape;
pub mod shim;
pub mod source;
pub mod transform;
pub mod wait;
pub mod wire;
