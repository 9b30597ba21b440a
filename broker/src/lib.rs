//! The Mezzo broker and its embedded name server, as a library that the binary `mezzo` and in-process tests share.
//!
//! ```text
//!   sockets          frontend/            service/              core/            mezzo-storage
//!  bytes  ──────►  translates wire  ──►  carries out   ──►   decides (pure)        the log
//!         ◄──────  to calls, back        (async, wire-free)       │                   ▲
//!                        └────────────── one Batch per read ──────┴───────────────────┘
//! ```
//!
//! - [`server`] is the composition root: [`server::Broker::start`] opens the store, binds both listeners and starts one
//!   reactor thread per core; [`server::Broker::shutdown`] undoes it in order.
//! - `frontend::remoting` speaks RocketMQ's remoting protocol. One task per connection reads what has arrived, turns
//!   every complete frame into storage operations or direct calls, appends them as one batch and answers with one write.
//! - `service` holds one file per operation; it knows no request codes and no wire headers.
//! - `core` holds the decisions as plain state machines: no runtime, no files, no clock.
//! - [`config`] documents every setting once; the same table parses the file, `--set` and prints the defaults.

pub mod cli;
pub mod clock;
pub mod config;
mod core;
mod frontend;
mod metrics;
pub mod server;
mod service;

pub use config::Config;
pub use server::{Broker, StartError};
