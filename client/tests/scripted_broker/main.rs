//! The client against a scripted broker on the loopback: one module per promise to users.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod batching;
mod broadcasting;
mod connection;
mod consume_transform;
mod consuming;
mod counting;
mod encoding;
mod failing;
mod fake;
mod half_open;
mod inflating;
mod many;
mod name_servers;
mod ordered;
mod pipelining;
mod pulling;
mod retrying;
mod sending;
mod spans;
mod steering;
mod transactions;
mod transport;
