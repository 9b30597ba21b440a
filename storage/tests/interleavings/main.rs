//! Threads that append, decide, sync, read, checkpoint, delete, scrub, close and lose power, in thousands of orders that a
//! scheduler chooses: `cargo test -p mezzo-storage --features shuttle --test interleavings`. A failure prints its schedule,
//! which `shuttle::replay` plays again.
//!
//! A thread that is never woken is found, too: no wait of the store times out here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod acknowledging;
mod ending;
mod retention;
mod world;
